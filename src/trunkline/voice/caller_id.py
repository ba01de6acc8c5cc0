"""Who may be called, and as whom: the checks of a call's `To` and `From`.

Rules (Twilio's): the caller shown to the telephone network is a number of the account, or one that the operator lists
in `voice.caller_ids`; towards a `sip:` URI any short name will do. Codes of Twilio's dictionary.
"""

import re
from typing import Final, NamedTuple
from urllib.parse import unquote

from trunkline.accounts.directory import Directory
from trunkline.model import phone
from trunkline.model.errors import ApiError
from trunkline.settings.voice import Voice
from trunkline.sip.errors import MalformedMessage
from trunkline.sip.uri import SIP_SCHEMES, Uri

NO_TO, NOT_VERIFIED, INVALID_TO, INVALID_FROM, NO_FROM = 21201, 21210, 21211, 21212, 21213
UNREACHABLE = 21214
LOGIN_NAME_TOO_LONG, LOGIN_NAME_CHARACTERS = 21221, 21222
PASSWORD_TOO_LONG, PASSWORD_CHARACTERS, PASSWORD_MISSING = 21223, 21224, 21225
HEADERS_TOO_LONG, HEADER_NAME, HEADER_VALUE = 21227, 21228, 21229
MAX_LOGIN: Final = 255
"""Characters of a SIP user name or password."""
MAX_HEADERS: Final = 1024
"""Characters of the headers of a `sip:` URI."""
MAX_URI: Final = 2048
TRANSPORTS: Final = frozenset({"", "UDP", "TCP", "TLS"})
MAX_NAME: Final = 64
"""Characters of a caller's name towards a `sip:` URI."""

_NAME = re.compile(r"[A-Za-z0-9+._-]{1,64}", re.ASCII)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)
_USER_TO_USER = "user-to-user"


class Destination(NamedTuple):
    """Where a call goes: `address` as the API shows it, and headers for the INVITE."""

    address: str
    headers: dict[str, str]


def destination(text: str) -> Destination:
    """The address that `text` names: E.164, or a `sip:` URI without its headers. Raises ApiError 21201, 21211,
    21227..21229; 21214 for what cannot be reached yet: identities of SDK clients, SIP by WebSocket."""
    text = text.strip()
    if not text:
        raise ApiError.of(NO_TO)
    scheme = text.partition(":")[0].lower()
    if scheme in SIP_SCHEMES:
        return _sip_destination(text)
    if scheme == "client":
        raise ApiError.of(UNREACHABLE, message="client: identities cannot be called yet on this server")
    number = phone.to_e164(text)
    if number is None:
        raise ApiError.of(INVALID_TO, to=text)
    return Destination(number, {})


def _sip_destination(text: str) -> Destination:
    address, _, query = text.partition("?")
    try:
        uri = Uri.parse(address)
    except MalformedMessage:
        raise ApiError.of(INVALID_TO, to=text) from None
    if not uri.host or len(address) > MAX_URI or not address.isprintable() or not address.isascii():
        raise ApiError.of(INVALID_TO, to=text)
    if uri.scheme == "sips" or uri.transport not in TRANSPORTS:
        text = (
            "SIP goes by UDP, TCP and TLS (sip: with ;transport=tls, or ;secure=true), not by WebSocket, nor to sips:"
        )
        raise ApiError.of(UNREACHABLE, message=text)
    return Destination(address, uri_headers(query))


def uri_headers(query: str) -> dict[str, str]:
    """The headers that the part after `?` of a `sip:` URI asks for: X- ones and User-to-User; others are left out.

    Raises ApiError 21227, 21228, 21229.
    """
    if len(query) > MAX_HEADERS:
        raise ApiError.of(HEADERS_TOO_LONG)
    headers: dict[str, str] = {}
    for pair in query.split("&") if query else ():
        name, _, value = pair.partition("=")
        name, value = unquote(name), unquote(value)
        if _HEADER_NAME.fullmatch(name) is None:
            raise ApiError.of(HEADER_NAME)
        if not value.isprintable():
            raise ApiError.of(HEADER_VALUE)
        if passes(name):
            headers[name] = value
    return headers


def passes(name: str) -> bool:
    """Whether a header may be set by a customer and is shown to him: X-... and User-to-User (RFC 7433)."""
    lower = name.lower()
    return lower.startswith("x-") or lower == _USER_TO_USER


def caller(text: str, to: str, account_sid: str, directory: Directory, voice: Voice) -> str:
    """The caller that is shown, checked. Raises ApiError 21213, 21212, 21210."""
    text = text.strip()
    if not text:
        raise ApiError.of(NO_FROM)
    number = phone.to_e164(text)
    if number is not None and may_show(number, account_sid, directory, voice):
        return number
    if to.partition(":")[0].lower() in SIP_SCHEMES and (number is not None or _NAME.fullmatch(text) is not None):
        return number or text
    if number is None:
        raise ApiError.of(INVALID_FROM, from_=text)
    raise ApiError.of(
        NOT_VERIFIED,
        message=f"The source phone number provided, {number}, is not yet verified for your account. You may only make "
        "calls from phone numbers that you've verified or purchased from Twilio.",
    )


def may_show(number: str, account_sid: str, directory: Directory, voice: Voice) -> bool:
    """Whether an account may show a number as its own."""
    owned = directory.number(number)
    return (owned is not None and owned.account_sid == account_sid) or number in voice.caller_ids


def check_login(username: str, password: str) -> None:
    """Raises ApiError 21221 to 21225 for what cannot be a SIP login."""
    if len(username) > MAX_LOGIN:
        raise ApiError.of(LOGIN_NAME_TOO_LONG)
    if not username.isprintable() or '"' in username:
        raise ApiError.of(LOGIN_NAME_CHARACTERS)
    if len(password) > MAX_LOGIN:
        raise ApiError.of(PASSWORD_TOO_LONG)
    if not password.isprintable():
        raise ApiError.of(PASSWORD_CHARACTERS)
    if username and not password:
        raise ApiError.of(PASSWORD_MISSING)
