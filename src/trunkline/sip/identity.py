"""Who calls, as headers tell it: written for a peer, and what is signed or verified about it, read from a peer.

RFC 3323 and 3325 (Privacy, P-Asserted-Identity), RFC 5806 (Diversion), RFC 7044 (History-Info), RFC 8224 (Identity),
ATIS-1000074 (verstat); Remote-Party-ID is draft-ietf-sip-privacy-04. Nothing here raises.
"""

import re
from typing import Final
from urllib.parse import quote

from trunkline.sip.flow import bracketed
from trunkline.sip.headers import Field, quote_string
from trunkline.sip.message import Request

MAX_VERSTAT: Final = 64
"""Characters of a verification status."""
MAX_IDENTITIES: Final = 4
"""Identity headers of one call that are kept."""
MAX_IDENTITY_CHARACTERS: Final = 4096
"""Length of one; longer ones are left out."""
MAX_DISPLAY: Final = 128
ANONYMOUS_FROM: Final = '"Anonymous" <sip:anonymous@anonymous.invalid>'
"""RFC 3323 section 4.1.1.3."""
HEADERS: Final = {"pai": "P-Asserted-Identity", "ppi": "P-Preferred-Identity", "rpid": "Remote-Party-ID"}
_JUDGED: Final = frozenset({"TN-Validation-Passed", "TN-Validation-Failed"})
_LEVELS: Final = frozenset("ABC")
_STATUS_END: Final = re.compile(r"[^A-Za-z-]").split
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+").fullmatch
_UNSAFE: Final = {ord(mark): None for mark in '"\\\r\n<>'}


def sip_uri(user: str, host: str, *, phone: bool = False) -> str:
    """`sip:user@host`, for a number with `;user=phone` if wanted."""
    return f"sip:{quote(user, safe='+*')}@{bracketed(host)}{';user=phone' if phone else ''}"


def name_addr(display: str, uri: str) -> str:
    """`"Name" <uri>`; characters that do not belong into a name are left out."""
    name = display.translate(_UNSAFE)[:MAX_DISPLAY]
    return f"{quote_string(name)} <{uri}>" if name else f"<{uri}>"


def asserted(kinds: tuple[str, ...], uri: str, *, private: bool) -> list[Field]:
    """The headers that name the caller besides From, of the kinds in HEADERS; with `private` the wish to show nobody.

    An empty `uri` names nobody.
    """
    fields: list[Field] = []
    for kind in kinds if uri else ():
        value = f"<{uri}>"
        if kind == "rpid":
            value += f";party=calling;screen=yes;privacy={'full' if private else 'off'}"
        fields.append((HEADERS[kind], value))
    if private:
        fields.append(("Privacy", "id"))
    return fields


def diverted(kind: str, by: str, to: str) -> list[Field]:
    """That a call to the URI `by` is passed on to the URI `to`: `diversion`, `history-info` or `none`."""
    if kind == "diversion":
        return [("Diversion", f"<{by}>;reason=unconditional;counter=1;privacy=off")]
    if kind == "history-info":
        return [("History-Info", f"<{by}?Reason=SIP%3Bcause%3D302>;index=1, <{to}>;index=1.1;mp=1")]
    return []


def verification(request: Request) -> str:
    """What the peer's verification said of the caller's number (`TN-Validation-Passed-A`), "" if nothing: the `verstat`
    of an identity, with the level of attestation where a header of its own tells that."""
    for name in ("P-Asserted-Identity", "From"):
        _, found, rest = request.headers.get(name).partition("verstat=")
        if found:
            status = _STATUS_END(rest.lstrip('"'), maxsplit=1)[0][:MAX_VERSTAT]
            level = request.headers.get("P-Attestation-Indicator").strip().upper()
            return f"{status}-{level}" if status in _JUDGED and level in _LEVELS else status
    return ""


def identities(request: Request) -> list[str]:
    """The values of Identity: signed assertions of who calls."""
    found = [value for value in request.headers.all("Identity") if len(value) <= MAX_IDENTITY_CHARACTERS]
    return found[:MAX_IDENTITIES]


def passport(values: list[str]) -> str:
    """The PASSporT (RFC 8225, full form) of the first Identity that has one, else ""."""
    for value in values:
        token = value.partition(";")[0].strip()
        if _TOKEN(token):
            return token
    return ""
