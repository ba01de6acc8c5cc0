"""SIP, SIPS and tel URIs (RFC 3261 section 19.1, RFC 3966)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec

from trunkline.sip.errors import MalformedMessage

Params = dict[str, str | None]

SIP_SCHEMES: Final = frozenset({"sip", "sips"})
MAX_PORT: Final = 65_535

# RFC 3261 section 25.1: unreserved is in every set; `quote` never escapes letters, digits and `_.-~`.
_MARK: Final = "!*'()"
_USER_SAFE: Final = _MARK + "&=+$,;?/"
_PASSWORD_SAFE: Final = _MARK + "&=+$,"
_PARAM_SAFE: Final = _MARK + "[]/:&+$"
_HEADER_SAFE: Final = _MARK + "[]/?:+$"
_HOST_FORBIDDEN: Final = frozenset(' \t"<>@,/\\()[]{}=?%;:\x00\x7f')
KEPT_URIS: Final = 2048
KEPT_CHARACTERS: Final = 120
"""How many parsed URIs are kept, and up to which length: those of a call, a trunk or a phone come again and again."""

_PLAIN: Final = re.compile(
    r"(sips?):(?:([A-Za-z0-9+._-]+)@)?([A-Za-z0-9.-]+)(?::([0-9]{1,5}))?(?:;([A-Za-z0-9;=._+-]+))?"
).fullmatch
"""Most URIs: no password, no escapes, no IPv6, no headers."""
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*").fullmatch
_MUST_MATCH: Final = ("user", "ttl", "method", "maddr", "transport")
"""Parameters that, when only one of two URIs has them, make these differ (section 19.1.4)."""


class Uri(msgspec.Struct, frozen=True):
    """A parsed URI. Text is without escapes; `str()` of a parsed one gives it back as it was on the wire.

    It is shared by all who parse the same text: its dicts are read only.

    Of a tel URI `user` is the number, `host` is empty. Of any other scheme `user` is all that follows the colon.
    """

    scheme: str = "sip"
    user: str = ""
    password: str | None = None
    host: str = ""
    """Lower case, an IPv6 address in brackets."""
    port: int | None = None
    params: Params = {}
    """Names in lower case."""
    headers: dict[str, str] = {}
    """What follows the question mark, names in lower case."""
    wire: str = ""
    """As received; empty for one that was made here."""

    @classmethod
    def parse(cls, text: str) -> Uri:
        """Raises MalformedMessage (400)."""
        return _parse_kept(text) if len(text) <= KEPT_CHARACTERS else cls._parse(text)

    @classmethod
    def _parse(cls, text: str) -> Uri:
        plain = _PLAIN(text)
        if plain is not None:
            scheme, user, host, digits, params = plain.groups()
            port = None if digits is None else parse_port(digits)
            return cls(scheme, user or "", None, host.lower(), port, _params(params) if params else {}, {}, text)
        scheme, colon, rest = text.partition(":")
        if not colon or not scheme or not rest or not scheme.isascii():
            raise MalformedMessage(400, "Bad URI")
        scheme = scheme.lower()
        if scheme in SIP_SCHEMES:
            return _sip_uri(scheme, rest, text)
        if " " in text or "<" in text or ">" in text or not _SCHEME(scheme):
            raise MalformedMessage(400, "Bad URI")
        if scheme == "tel":
            number, semicolon, params = rest.partition(";")
            return cls("tel", unescape(number), params=_params(params) if semicolon else {}, wire=text)
        return cls(scheme, rest, wire=text)

    def replace(self, **changes: Any) -> Uri:
        """A copy with some fields changed."""
        return msgspec.structs.replace(self, **{"wire": "", **changes})

    @property
    def bare_host(self) -> str:
        """`host` as the socket functions want it: an IPv6 address without its brackets."""
        return self.host[1:-1] if self.host.startswith("[") else self.host

    @property
    def transport(self) -> str:
        """The transport parameter in upper case, empty if there is none."""
        return (self.params.get("transport") or "").upper()

    def __str__(self) -> str:
        if self.wire:
            return self.wire
        if self.scheme not in SIP_SCHEMES:
            return f"{self.scheme}:{quote(self.user, _USER_SAFE)}{format_params(self.params)}"
        userinfo = ""
        if self.user:
            password = "" if self.password is None else ":" + quote(self.password, _PASSWORD_SAFE)
            userinfo = f"{quote(self.user, _USER_SAFE)}{password}@"
        port = "" if self.port is None else f":{self.port}"
        headers = ""
        if self.headers:
            pairs = (
                f"{quote(name, _HEADER_SAFE)}={quote(value, _HEADER_SAFE)}" for name, value in self.headers.items()
            )
            headers = "?" + "&".join(pairs)
        return f"{self.scheme}:{userinfo}{self.host}{port}{format_params(self.params)}{headers}"


@lru_cache(maxsize=KEPT_URIS)
def _parse_kept(text: str) -> Uri:
    return Uri._parse(text)


def is_secure(text: str) -> bool:
    """Whether a URI is a SIPS one: to be reached by TLS alone."""
    return text[:5].lower() == "sips:"


def unescape(text: str) -> str:
    """Resolve %HH; octets that are no UTF-8 become U+FFFD."""
    return unquote(text) if "%" in text else text


def format_params(params: Mapping[str, str | None]) -> str:
    """URI parameters with their leading semicolons."""
    if not params:
        return ""
    return "".join(
        f";{quote(name, _PARAM_SAFE)}" if value is None else f";{quote(name, _PARAM_SAFE)}={quote(value, _PARAM_SAFE)}"
        for name, value in params.items()
    )


def same(a: Uri, b: Uri) -> bool:
    """Whether two URIs are equivalent (RFC 3261 section 19.1.4)."""
    if (a.scheme, a.user, a.password, a.host, a.port) != (b.scheme, b.user, b.password, b.host, b.port):
        return False
    for name in a.params.keys() | b.params.keys():
        if name in a.params and name in b.params:
            if (a.params[name] or "").lower() != (b.params[name] or "").lower():
                return False
        elif name in _MUST_MATCH:
            return False
    return a.headers == b.headers


def split_host_port(text: str) -> tuple[str, int | None]:
    """`host[:port]`, the host in lower case; raises MalformedMessage (400)."""
    if text.startswith("["):
        address, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in address or not _IPV6.issuperset(address) or (rest and rest[0] != ":"):
            raise MalformedMessage(400, "Bad host")
        return f"[{address.lower()}]", parse_port(rest[1:]) if rest else None
    host, colon, port = text.partition(":")
    if not host or not host.isascii() or not _HOST_FORBIDDEN.isdisjoint(host):
        raise MalformedMessage(400, "Bad host")
    return host.lower(), parse_port(port) if colon else None


_IPV6: Final = frozenset("0123456789abcdefABCDEF:.")


def parse_port(text: str) -> int:
    """Raises MalformedMessage (400)."""
    if not text.isdigit() or not text.isascii() or len(text) > 5 or int(text) > MAX_PORT:
        raise MalformedMessage(400, "Bad port")
    return int(text)


def _sip_uri(scheme: str, rest: str, text: str) -> Uri:
    user, password = "", None
    userinfo, at, location = rest.partition("@")
    if at:
        user, colon, secret = userinfo.partition(":")
        if not user or " " in userinfo or "<" in userinfo or '"' in userinfo:
            raise MalformedMessage(400, "Bad URI")
        user = unescape(user)
        if colon:
            password = unescape(secret)
    else:
        location = rest
    location, question, headers = location.partition("?")
    location, semicolon, params = location.partition(";")
    if " " in params or " " in headers or "@" in params:
        raise MalformedMessage(400, "Bad URI")
    host, port = split_host_port(location)
    return Uri(
        scheme,
        user,
        password,
        host,
        port,
        _params(params) if semicolon else {},
        _headers(headers) if question else {},
        text,
    )


def _params(text: str) -> Params:
    params: Params = {}
    for part in text.split(";"):
        if not part:
            continue
        name, equals, value = part.partition("=")
        params.setdefault(unescape(name).lower(), unescape(value) if equals else None)
    return params


def _headers(text: str) -> dict[str, str]:
    headers: dict[str, str] = {}
    for part in text.split("&"):
        name, _, value = part.partition("=")
        headers.setdefault(unescape(name).lower(), unescape(value))
    return headers
