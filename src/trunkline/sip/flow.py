"""Where messages come from and go to: flows, and the next hop of a request (RFC 3261 sections 8.1.2 and 12.2.1.1)."""

from collections.abc import Sequence
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final, NamedTuple

from trunkline.sip.headers import NameAddr
from trunkline.sip.message import Request
from trunkline.sip.uri import Uri

DEFAULT_PORT: Final = 5060
DEFAULT_TLS_PORT: Final = 5061

Address = tuple[str, int]
"""Host (numeric or a name) and port."""


class Flow(NamedTuple):
    """A path between us and a peer. One over TCP or TLS with `id` 0 means: connect there, or use a connection that we
    have made to it."""

    transport: str
    """`UDP`, `TCP` or `TLS`."""
    remote: Address
    """Port 0: the host is a name, and its SRV records say (RFC 3263 section 4.2)."""
    local: Address
    """What our Via and Contact name on this flow (for TCP and TLS: the address we listen on)."""
    id: int = 0
    """Number of the connection; 0 for UDP."""
    domain: str = ""
    """TLS: the name that the peer's certificate carries or has to carry (RFC 5922); empty: the host of `remote`."""
    outside: bool = False
    """Whether a host that is a name was named by a peer outside, so that it may not lead inside."""

    @property
    def path(self) -> tuple[str, Address, int, str, bool]:
        """What tells whether two flows share their fate."""
        return self.transport, self.remote, self.id, self.domain, self.outside

    @property
    def reliable(self) -> bool:
        return self.transport != "UDP"


class Target(NamedTuple):
    """A next hop that is not a flow yet. `transport` is empty where the URI leaves it to us (RFC 3263 section 4.1)."""

    transport: str
    host: str
    port: int
    """0: see `Flow.remote`."""
    domain: str = ""
    """See `Flow.domain`."""
    outside: bool = False
    """See `Flow.outside`."""


def bracketed(host: str) -> str:
    """An IPv6 address as it stands in a URI or Via."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def is_numeric(host: str) -> bool:
    """Whether a host is an address, which needs no look-up. What merely looks like one (`.7`, `1.2.3`) is a name, which
    nobody will find: a socket would take it for a fault of its own."""
    family = AF_INET
    if ":" in host:
        family, host = AF_INET6, host.strip("[]").partition("%")[0]
    try:
        inet_pton(family, host)
    except (OSError, ValueError):
        return False
    return True


def default_port(transport: str) -> int:
    """The port of a transport where none is named (RFC 3261 section 18.2.2)."""
    return DEFAULT_TLS_PORT if transport == "TLS" else DEFAULT_PORT


def next_hop(uri: Uri, otherwise: str = "") -> Target:
    """Where a request for `uri` goes: transport and maddr parameters, default ports (RFC 3261 section 18.1.1).

    `otherwise` is the transport where the URI names none. A SIPS URI goes by TLS whatever it names (section 26.2.2).
    """
    params = uri.params
    transport = "TLS" if uri.scheme == "sips" else (params.get("transport") or otherwise).upper()
    host = (params.get("maddr") or uri.host).strip("[]")
    return Target(transport, host, uri.port or (default_port(transport) if is_numeric(host) else 0))


def is_private(host: str) -> bool:
    """Whether a numeric address is of a private network, which peers beyond a NAT cannot reach; names are not."""
    if not is_numeric(host):
        return False
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False
    return not address.is_global and not address.is_loopback


def is_inside(_host: str, address: str) -> bool:
    """Whether an address, that of a host, is of a private network or this machine."""
    try:
        return not ip_address(address.strip("[]")).is_global
    except ValueError:
        return False


def is_outside(source: str) -> bool:
    """Whether a peer's address is none of a private network or this machine, so that what is there cannot be its."""
    return is_numeric(source) and not is_inside(source, source)


def contact_unreachable(contact: str, source: str, sent_by: str) -> bool:
    """Whether a Contact's host names the inside of a NAT, so that the address that its messages come from is used.

    Either it is private while the source is not, or it is what the Via claims and the source proves wrong.
    """
    if contact == source or not is_numeric(contact):
        return False
    return contact == sent_by or (is_private(contact) and not is_private(source))


def plan(routes: Sequence[str], target: str, otherwise: str = "") -> tuple[str, list[str], Target]:
    """Request-URI, Route values and next hop of a request with this route set (RFC 3261 section 12.2.1.1).

    `otherwise` is the transport where the next hop names none. Raises MalformedMessage for a route that is none.
    """
    if not routes:
        return target, [], next_hop(Uri.parse(target), otherwise)
    first = NameAddr.parse(routes[0]).uri
    if "lr" in first.params:
        return target, list(routes), next_hop(first, otherwise)
    # A strict router of RFC 2543: it takes the Request-URI for its own, and finds the target in the last Route.
    return str(first.replace(headers={})), [*routes[1:], f"<{target}>"], next_hop(first, otherwise)


def beyond(request: Request, sent: Flow, heard: Flow, contact: Uri) -> bool:
    """Whether the Contact in a response to a request of ours is of no use, because its sender is behind a NAT.

    So it is also where the request went another way than its URI says (over the flow of a registration), and the
    Contact says the same as the URI.
    """
    if contact_unreachable(contact.host, heard.remote[0], ""):
        return True
    uri = request.request_uri
    if "Route" in request.headers or not is_numeric(uri.host) or (uri.host, uri.port) != (contact.host, contact.port):
        return False
    return sent.remote != (uri.bare_host, uri.port or DEFAULT_PORT)
