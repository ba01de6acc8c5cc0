"""Where a request was sent: product, path and format, from the Host header and the path.

Twilio's hosts name the product in their first label, with or without edge and region
(`messaging.sydney.au1.twilio.com`). On any other host (an IP address, localhost, a name of the operator's) the path
tells: `/2010-04-01/...` is the product `api`, `/messaging/v1/...` the product `messaging`.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from trunkline.api.respond import Format
from trunkline.api.router import VERSION_2010

PRODUCTS = frozenset(
    {
        "accounts",
        "api",
        "content",
        "conversations",
        "events",
        "iam",
        "insights",
        "intelligence",
        "lookups",
        "messaging",
        "monitor",
        "numbers",
        "pricing",
        "routes",
        "studio",
        "trunking",
        "verify",
        "voice",
    }
)
"""First host labels, and path prefixes, that name a product."""

_HOST = re.compile(rb"[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")
_FORMATS = {".json": Format.JSON, ".xml": Format.XML, ".csv": Format.CSV}
PROXY_CACHE = 1024


class Host(NamedTuple):
    """What a Host header says."""

    text: str
    product: str
    """Empty when the path must tell."""


class Place(NamedTuple):
    """Where a path leads."""

    product: str
    segments: list[str]
    """As sent, still percent-encoded, without the format suffix."""
    prefix: str
    """Path prefix of the product, e.g. `/messaging`, or empty."""
    format: Format


def parse_host(raw: bytes) -> Host | None:
    """The host and the product it names; None for a malformed header."""
    if _HOST.fullmatch(raw) is None:
        return None
    text = raw.decode("ascii")
    labels = text.lower().split(".")
    return Host(text, labels[0] if len(labels) > 1 and labels[0] in PRODUCTS else "")


def locate(path: str, product: str) -> Place:
    """Find the product and the format of a path that starts with a slash."""
    segments = path[1:].split("/")
    first = segments[0]
    if first == VERSION_2010:
        last = segments[-1]
        dot = last.rfind(".")
        if dot > 0:
            format_ = _FORMATS.get(last[dot:])
            if format_ is not None:
                segments[-1] = last[:dot]
                return Place("api", segments, "", format_)
        return Place("api", segments, "", Format.XML)
    if first in PRODUCTS:
        return Place(first, segments[1:], "/" + first, Format.JSON)
    return Place(product or "api", segments, "", Format.JSON)


class Proxies:
    """Which peers' X-Forwarded-* headers are believed."""

    def __init__(self, trusted: tuple[str, ...] = ()) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(text, strict=False) for text in trusted]
        self.trusts = lru_cache(maxsize=PROXY_CACHE)(self._trusts)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def _trusts(self, peer: str) -> bool:
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        return any(address.version == network.version and address in network for network in self._networks)

    def client(self, peer: str, headers: Mapping[bytes, bytes]) -> str:
        """The nearest address on the way that is no trusted proxy."""
        hops = headers.get(b"x-forwarded-for", b"")[:4096].decode("latin-1").split(",")
        address = peer
        while hops and self.trusts(address):
            hop = hops.pop().strip()
            if not hop:
                break
            address = hop
        return address


def forwarded(headers: Mapping[bytes, bytes], scheme: str, host: bytes) -> tuple[str, bytes]:
    """Scheme and host as the outermost proxy saw them (to be asked only of a trusted peer)."""
    proto = headers.get(b"x-forwarded-proto", b"").split(b",")[0].strip().lower()
    name = headers.get(b"x-forwarded-host", b"").split(b",")[0].strip()
    return (proto.decode("ascii") if proto in (b"http", b"https") else scheme), name or host
