"""Where messages come from and go to: flows, and the next hop of a request (RFC 3261 sections 8.1.2 and 12.2.1.1)."""

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final, NamedTuple

from trunkline.sip.headers import NameAddr
from trunkline.sip.uri import Uri

DEFAULT_PORT: Final = 5060
DEFAULT_TLS_PORT: Final = 5061

Address = tuple[str, int]
"""Host (numeric or a name) and port."""


class Flow(NamedTuple):
    """A path between us and a peer. A TCP flow with `id` 0 means: connect there, or use a connection that we have."""

    transport: str
    """`UDP` or `TCP`."""
    remote: Address
    local: Address
    """What our Via and Contact name on this flow (for TCP: the address we listen on)."""
    id: int = 0
    """Number of the TCP connection; 0 for UDP."""

    @property
    def reliable(self) -> bool:
        return self.transport != "UDP"


class Target(NamedTuple):
    """A next hop that is not a flow yet. `transport` is empty where the URI leaves it to us (RFC 3263 section 4.1)."""

    transport: str
    host: str
    port: int


def bracketed(host: str) -> str:
    """An IPv6 address as it stands in a URI or Via."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def is_numeric(host: str) -> bool:
    """Whether a host is an address, which needs no look-up. (No top-level domain ends in a digit.)"""
    return ":" in host or host[-1:].isdigit()


def next_hop(uri: Uri) -> Target:
    """Where a request for `uri` goes: transport and maddr parameters, default ports (RFC 3261 section 18.1.1)."""
    params = uri.params
    transport = (params.get("transport") or "").upper()
    port = uri.port or DEFAULT_PORT
    if uri.scheme == "sips":
        transport, port = "TLS", uri.port or DEFAULT_TLS_PORT
    return Target(transport, (params.get("maddr") or uri.host).strip("[]"), port)


def is_private(host: str) -> bool:
    """Whether a numeric address is of a private network, which peers beyond a NAT cannot reach; names are not."""
    if not is_numeric(host):
        return False
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    return not address.is_global and not address.is_loopback


def contact_unreachable(contact: str, source: str, sent_by: str) -> bool:
    """Whether a Contact's host names the inside of a NAT, so that the address that its messages come from is used.

    Either it is private while the source is not, or it is what the Via claims and the source proves wrong.
    """
    if contact == source or not is_numeric(contact):
        return False
    return contact == sent_by or (is_private(contact) and not is_private(source))


def plan(routes: Sequence[str], target: str) -> tuple[str, list[str], Target]:
    """Request-URI, Route values and next hop of a request with this route set (RFC 3261 section 12.2.1.1).

    Raises MalformedMessage for a route that is none.
    """
    if not routes:
        return target, [], next_hop(Uri.parse(target))
    first = NameAddr.parse(routes[0]).uri
    if "lr" in first.params:
        return target, list(routes), next_hop(first)
    # A strict router of RFC 2543: it takes the Request-URI for its own, and finds the target in the last Route.
    return str(first.replace(headers={})), [*routes[1:], f"<{target}>"], next_hop(first)
