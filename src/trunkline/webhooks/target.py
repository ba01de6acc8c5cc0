"""A webhook URL, checked and taken apart once: what is connected to, what is requested, what is signed."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from trunkline.webhooks.failures import HostRefused, InvalidUrl

MAX_URL_CHARACTERS: Final = 4096
MAX_HOST_CHARACTERS: Final = 253
_CACHED_TARGETS: Final = 4096
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_ADDRESS_V6: Final = re.compile(r"[0-9A-Fa-f:.]{2,45}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_NOT_ON_THE_WIRE: Final = re.compile(r"[^\x21-\x7e]")


class Target(NamedTuple):
    """`url` is signed: as configured, with userinfo, without fragment and without the scheme's default port.

    Receivers rebuild the URL from what they see, so an empty path is `/` in it, and what cannot stand in a
    request line is percent-encoded. `path` is the request line's target, with the query.
    """

    url: str
    scheme: str
    host: str
    port: int
    path: str
    host_header: str
    user: str
    password: str

    @property
    def shown(self) -> str:
        """The URL for logs and records, without the password."""
        if not self.user and not self.password:
            return self.url
        return f"{self.scheme}://{self.user}:***@{self.host_header}{self.path}"


@lru_cache(maxsize=_CACHED_TARGETS)
def target(url: str) -> Target:
    """Take a URL (a fragment is dropped) apart.

    Raises InvalidUrl, and HostRefused for host names with an underscore, as Twilio does.
    """
    bare = url.partition("#")[0].strip(" ")
    if len(bare) > MAX_URL_CHARACTERS:
        raise InvalidUrl(f"the URL is longer than {MAX_URL_CHARACTERS} characters")
    if _CONTROL.search(bare) or "\\" in bare:
        raise InvalidUrl("the URL holds a control character or a backslash")
    try:
        parts = urlsplit(bare)
        port, name = parts.port, parts.hostname
    except ValueError:
        raise InvalidUrl("the URL's host or port cannot be read") from None
    scheme = parts.scheme.lower()
    if scheme not in _DEFAULT_PORTS or not name:
        raise InvalidUrl("the URL must be http://host... or https://host...")
    host = _host(name)
    default = _DEFAULT_PORTS[scheme]
    if port == 0:
        raise InvalidUrl("the URL's port is 0")
    path = _NOT_ON_THE_WIRE.sub(_quote, (parts.path or "/") + (f"?{parts.query}" if "?" in bare else ""))
    userinfo, at, netloc = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    shown_host = _NOT_ON_THE_WIRE.sub("", netloc) if netloc.isascii() else host
    if port in (None, default):
        shown_host = shown_host.removesuffix(f":{default}").removesuffix(":")
    elif not netloc.isascii():
        shown_host = f"{host}:{port}"
    return Target(
        url=f"{parts.scheme}://{_NOT_ON_THE_WIRE.sub(_quote, userinfo)}{at}{shown_host}{path}",
        scheme=scheme,
        host=host,
        port=port or default,
        path=path,
        host_header=shown_host,
        user=unquote(user),
        password=unquote(password),
    )


def _host(name: str) -> str:
    """The host in ASCII and lower case; an IPv6 address without brackets."""
    if ":" in name:
        if not _ADDRESS_V6.fullmatch(name):
            raise InvalidUrl("the URL's IPv6 address cannot be read")
        return name.lower()
    try:
        host = name if name.isascii() else name.encode("idna").decode("ascii")
    except UnicodeError:
        raise InvalidUrl("the URL's host name cannot be written in ASCII") from None
    labels = host.removesuffix(".").split(".")
    if len(host) > MAX_HOST_CHARACTERS or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidUrl("the URL's host name is not valid")
    if "_" in host:
        raise HostRefused(f"host names with an underscore are refused: {host}")
    return host.lower()


def _quote(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "replace"))
