"""The cookies of one conversation (RFC 6265, the part a webhook needs), as a record that can be stored.

There is no list of public suffixes: a Domain attribute must merely hold a dot. The jar lives for one conversation with
one customer's own hosts, so the attack that list prevents has no victim here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import Final

import msgspec

MAX_COOKIES: Final = 50  # of one jar; the oldest go first
MAX_COOKIE_BYTES: Final = 4096  # name and value of one
MAX_HEADER_BYTES: Final = 8192  # of all that are sent with one request
MAX_SET_COOKIES: Final = 50  # read of one response

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\x20-\x3a\x3c-\x7e]*")  # printable, no semicolon


class Cookie(msgspec.Struct):
    """One cookie. `expires_ms` 0: until the conversation ends."""

    name: str
    value: str
    domain: str
    path: str
    host_only: bool
    secure: bool
    expires_ms: int


class CookieJar(msgspec.Struct):
    """What the servers of a conversation have set, the newest last."""

    cookies: list[Cookie] = []

    def store(self, host: str, path: str, set_cookies: Iterable[str], now_ms: int) -> None:
        """Take the Set-Cookie headers of a response from `host`; what is not valid is ignored."""
        for index, header in enumerate(set_cookies):
            if index >= MAX_SET_COOKIES:
                break
            cookie = parse(header, host, path, now_ms)
            if cookie is None:
                continue
            key = (cookie.name, cookie.domain, cookie.path)
            self.cookies = [old for old in self.cookies if (old.name, old.domain, old.path) != key]
            if not cookie.expires_ms or cookie.expires_ms > now_ms:
                self.cookies.append(cookie)
        del self.cookies[:-MAX_COOKIES]

    def header(self, scheme: str, host: str, path: str, now_ms: int) -> str:
        """The Cookie header for a request, empty when there is none. Longer paths first."""
        sent: list[str] = []
        size = 0
        for cookie in sorted(self.cookies, key=lambda cookie: -len(cookie.path)):
            if not _applies(cookie, scheme, host, path, now_ms):
                continue
            pair = f"{cookie.name}={cookie.value}"
            size += len(pair) + 2
            if size > MAX_HEADER_BYTES:
                break
            sent.append(pair)
        return "; ".join(sent)


def parse(header: str, host: str, path: str, now_ms: int) -> Cookie | None:
    """A Set-Cookie header (RFC 6265 section 5.2), None when it is to be ignored."""
    pair, *attributes = header.split(";", 20)
    name, equals, value = (part.strip() for part in pair.partition("="))
    if not equals or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        return None
    if len(name) + len(value) > MAX_COOKIE_BYTES:
        return None
    cookie = Cookie(name, value, host, default_path(path), True, False, 0)
    expires_ms = 0
    for attribute in attributes:
        key, _, text = (part.strip() for part in attribute.partition("="))
        match key.lower():
            case "domain" if text.strip("."):
                cookie.domain, cookie.host_only = text.removeprefix(".").lower(), False
            case "path" if text.startswith("/") and len(text) <= MAX_COOKIE_BYTES:
                cookie.path = text
            case "secure":
                cookie.secure = True
            case "max-age" if re.fullmatch(r"-?[0-9]{1,10}", text):
                cookie.expires_ms = max(1, now_ms + 1000 * int(text))
            case "expires":
                expires_ms = _date_ms(text)
            case _:
                continue
    cookie.expires_ms = cookie.expires_ms or expires_ms  # Max-Age wins
    return cookie if cookie.host_only or _may_set(host, cookie.domain) else None


def default_path(path: str) -> str:
    """The directory of a request's path (RFC 6265 section 5.1.4)."""
    directory = path.partition("?")[0].rpartition("/")[0]
    return directory if directory.startswith("/") else "/"


def _date_ms(text: str) -> int:
    try:
        return max(1, int(parsedate_to_datetime(text).timestamp() * 1000))
    except (ValueError, TypeError, OverflowError):
        return 0


def _may_set(host: str, domain: str) -> bool:
    """Whether a host may set a cookie for a domain: its own, or one above with a dot in it."""
    if host == domain:
        return True
    try:
        ip_address(host)
    except ValueError:
        return "." in domain and host.endswith("." + domain)
    return False


def _applies(cookie: Cookie, scheme: str, host: str, path: str, now_ms: int) -> bool:
    if cookie.expires_ms and cookie.expires_ms <= now_ms:
        return False
    if cookie.secure and scheme != "https":
        return False
    if host != cookie.domain and (cookie.host_only or not host.endswith("." + cookie.domain)):
        return False
    bare = path.partition("?")[0]
    return bare == cookie.path or bare.startswith(cookie.path if cookie.path.endswith("/") else cookie.path + "/")
