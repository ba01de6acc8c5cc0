"""Who calls, who is called, who forwarded: telephone numbers and identities in a request, as Twilio shows them.

Nothing here raises: a header that cannot be understood counts as absent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from trunkline.sip.errors import MalformedMessage
from trunkline.sip.headers import Headers, NameAddr, header_params, parse_list, split_values
from trunkline.sip.message import Request
from trunkline.sip.uri import SIP_SCHEMES, Uri

MIN_E164_DIGITS: Final = 7
MAX_E164_DIGITS: Final = 15
MIN_BARE_E164_DIGITS: Final = 11
"""A number without a plus is taken for international from this length on; shorter ones may be national."""
MAX_CUSTOM_HEADERS: Final = 64
MAX_CUSTOM_HEADER_CHARACTERS: Final = 1024
MAX_DISPLAY_CHARACTERS: Final = 128

ANONYMOUS: Final = "+266696687"
"""ANONYMOUS on a telephone's keys: the number that Twilio shows for a caller who withholds theirs."""
_WITHHELD: Final[dict[str, str]] = {
    "anonymous": ANONYMOUS,
    "restricted": "+7378742833",
    "private": ANONYMOUS,
    "blocked": "+2562533",
    "unavailable": "+86282452253",
    "unknown": "+8656696",
}
"""What a From user stands for when there is no number, as Twilio spells it on the keys."""
WITHHELD: Final = frozenset(_WITHHELD.values())
"""Numbers that are shown for callers who have none to show."""
_PRIVATE: Final = frozenset({"id", "user", "header", "full"})
"""Privacy values that hide the caller (RFC 3323 section 4.2, RFC 3325 section 9.3)."""
SEPARATORS: Final[dict[int, None]] = {ord(mark): None for mark in "-.() "}
"""RFC 3966's visual separators, and the space that some phones leave in."""
_DIVERTED: Final = frozenset({"302", "404", "408", "480", "486", "487", "503"})
"""RFC 4458's causes in a History-Info entry that was forwarded."""


class Caller(msgspec.Struct, frozen=True):
    """Who calls."""

    number_or_uri: str
    """E.164, else `sip:user@host`."""
    display: str = ""
    """The name they gave, empty for an anonymous caller."""
    anonymous: bool = False


def e164(number: str, country: str = "") -> str:
    """A telephone number as `+digits`, "" for what is none.

    `country` is the calling code (`1`, `44`) of national numbers; without it only numbers that are international for
    sure are taken.
    """
    number = number.partition(";")[0].translate(SEPARATORS)
    digits = number.removeprefix("+")
    if not digits.isascii() or not digits.isdigit():
        return ""
    if number[0] == "+":
        return number if MIN_E164_DIGITS <= len(digits) <= MAX_E164_DIGITS and digits[0] != "0" else ""
    if digits.startswith("00"):
        return e164("+" + digits[2:])
    if digits[0] != "0" and MIN_BARE_E164_DIGITS <= len(digits) <= MAX_E164_DIGITS:
        return "+" + digits
    if country and len(digits) >= MIN_E164_DIGITS:
        return e164("+" + country + digits.removeprefix("0"))
    return ""


Read = Callable[[str], str]
"""Reads a number as a peer writes it (trunkline.sip.number_plan): E.164, "" for what is none."""


def number_of(uri: Uri, read: Read = e164) -> str:
    """The telephone number that a sip, sips or tel URI names in E.164, "" if none."""
    if uri.scheme not in SIP_SCHEMES and uri.scheme != "tel":
        return ""
    context = uri.params.get("phone-context") or ""
    if not uri.user.startswith("+") and context.startswith("+"):
        return e164(context + uri.user)
    return read(uri.user)


def show(uri: Uri, read: Read = e164) -> str:
    """E.164, else `sip:user@host[:port]` without parameters."""
    number = number_of(uri, read)
    if number:
        return number
    if uri.scheme not in SIP_SCHEMES:
        return str(uri)
    return str(Uri(uri.scheme, uri.user, None, uri.host, uri.port))


def called_of(request: Request, read: Read = e164) -> str:
    """Whom the Request-URI names: E.164, else `sip:user@host`; "" if it is malformed."""
    try:
        return show(request.request_uri, read)
    except MalformedMessage:
        return ""


def caller_of(request: Request, read: Read = e164, *, trusted: bool = True, asserted_first: bool = False) -> Caller:
    """Who calls: From, or the identity that the network asserts (RFC 3325) where From has no number, or at once if
    `asserted_first`. Only a `trusted` peer's assertions count.

    A caller who asks for privacy, or whose From is anonymous, is shown as anonymous whatever the network asserts.
    """
    try:
        address = request.from_
    except MalformedMessage:
        return Caller(ANONYMOUS, anonymous=True)
    withheld = _WITHHELD.get(address.uri.user.lower(), "")
    if not withheld and address.uri.host == "anonymous.invalid":
        withheld = ANONYMOUS
    if withheld or _wants_privacy(request.headers):
        return Caller(withheld or ANONYMOUS, anonymous=True)
    display = _printable(address.display)[:MAX_DISPLAY_CHARACTERS]
    number = number_of(address.uri, read)
    if trusted and (asserted_first or not number):
        for asserted in (*_addresses(request, "P-Asserted-Identity"), *_addresses(request, "Remote-Party-ID")):
            found = number_of(asserted.uri, read)
            if found:
                return Caller(found, display or _printable(asserted.display)[:MAX_DISPLAY_CHARACTERS])
    return Caller(number or show(address.uri, read), display)


def forwarded_from(request: Request, read: Read = e164) -> str:
    """Who forwarded the call last: Diversion (RFC 5806), else History-Info (RFC 7044); "" if nobody or withheld."""
    for diversion in _addresses(request, "Diversion"):
        if (diversion.params.get("privacy") or "off").lower() in ("off", "no"):
            return show(diversion.uri, read)
        return ""
    history = _addresses(request, "History-Info")
    for entry in reversed(history[:-1]):
        reason = entry.uri.headers.get("reason", "").replace(" ", "").lower()
        cause = reason.partition("cause=")[2][:3] or entry.uri.params.get("cause") or ""
        if not cause or cause in _DIVERTED:
            privacy = entry.uri.headers.get("privacy", "none").lower()
            return show(entry.uri, read) if privacy == "none" else ""
    return ""


def custom_headers(request: Request) -> dict[str, str]:
    """X- headers and User-to-User (RFC 7433) by name as received; values of a repeated one are joined by commas.

    At most MAX_CUSTOM_HEADERS, each cut to MAX_CUSTOM_HEADER_CHARACTERS.
    """
    found: dict[str, str] = {}
    for name, value in request.headers:
        if name[:2] not in ("X-", "x-") and name != "User-to-User":
            continue
        if name in found:
            value = f"{found[name]}, {value}"
        elif len(found) >= MAX_CUSTOM_HEADERS:
            continue
        found[name] = _printable(value)[:MAX_CUSTOM_HEADER_CHARACTERS]
    return found


def reason_of(headers: Headers) -> tuple[str, int, str] | None:
    """Protocol (`Q.850`, `SIP`), cause and text of a Reason header (RFC 3326): Q.850's if there are several.

    The cause is 0 where it is missing. `None` without a Reason.
    """
    best: tuple[str, int, str] | None = None
    try:
        values = split_values(headers.all("Reason"))
        for value in values:
            protocol, semicolon, rest = value.partition(";")
            params = header_params(";" + rest) if semicolon else {}
            cause = params.get("cause") or ""
            known = cause.isascii() and cause.isdigit() and len(cause) <= 4
            reason = (protocol.strip(), int(cause) if known else 0, params.get("text") or "")
            if reason[0].upper() == "Q.850":
                return reason
            best = best or reason
    except MalformedMessage:
        return best
    return best


def _printable(text: str) -> str:
    """Without control characters: these texts go into records, parameters and logs."""
    return text if text.isprintable() else "".join(character for character in text if character.isprintable())


def _wants_privacy(headers: Headers) -> bool:
    for value in headers.all("Privacy"):
        if not _PRIVATE.isdisjoint(part.strip() for part in value.lower().replace(",", ";").split(";")):
            return True
    return any("privacy=full" in value.lower().replace(" ", "") for value in headers.all("Remote-Party-ID"))


def _addresses(request: Request, name: str) -> list[NameAddr]:
    values = request.headers.all(name)
    if not values:
        return []
    try:
        return parse_list(values)
    except MalformedMessage:
        return []
