"""Which calls of a trunk another host can take over, in one line for the operator (`trunkline doctor`).

Another host re-INVITEs each peer from its own address (trunkline.voice.takeover). Whether that gets there is not ours
to decide: a carrier may know one address of ours, a connection ends with its host, a NAT lets in whom the phone has
spoken to. An address that moves from host to host (a virtual one, `advertised` the same on all), or a proxy that stays
in the route (Record-Route), takes all of these away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trunkline.sip.message import MalformedMessage
from trunkline.sip.uri import Uri

if TYPE_CHECKING:
    from trunkline.settings import Sip, Trunk

MOVES: Final = "{0} is told to it: taken over where that address moves to the other node, or is an edge proxy's"
SIMULATED: Final = "taken over: simulated phones are reached from anywhere"
BY_LOGIN: Final = "taken over: it knows us by login, so that another node may speak from its own address"
BY_ADDRESS: Final = "taken over if it lets in every node's address (it knows us by address): give it all of them"
CONNECTIONS: Final = "; over {0} another node connects to it: who only connects to us is lost without an edge proxy"
BY_EDGE: Final = "taken over: it speaks with the edge proxy {0} alone, which stays in the route"
BESIDE_EDGE: Final = "; what came through the edge proxy {0} goes on through it"
PHONES: Final = (
    "taken over where they are reached at their Contact; behind a NAT only through an edge proxy with Record-Route or, "
    "over UDP, by an address that moves"
)
PHONES_BY_EDGE: Final = (
    "taken over where they register and call through the edge proxy {0}, behind a NAT and over TCP and TLS too; others "
    "where they are reached at their Contact"
)


def takeover_of(trunk: Trunk, sip: Sip | None = None) -> str:
    """What becomes of the trunk's calls when their node is lost."""
    if trunk.simulated:
        return SIMULATED
    told = trunk.advertised or (sip.advertised if sip is not None else "")
    known = BY_LOGIN if trunk.username else BY_ADDRESS
    line = MOVES.format(told) if told else known
    edges = sip.edges if sip is not None else ()
    gateways = [(_transport(one.uri), _host(one.uri)) for one in trunk.gateway_list]
    if gateways and all(host in edges for _, host in gateways):
        return BY_EDGE.format(" and ".join(sorted({host for _, host in gateways})))
    connected = sorted({name for name, host in gateways if name != "UDP" and host not in edges})
    if not gateways and trunk.tls_names:
        connected = ["TLS"]
    line += CONNECTIONS.format(" and ".join(connected)) if connected else ""
    return line + (BESIDE_EDGE.format(" or ".join(edges)) if edges else "")


def takeover_of_phones(sip: Sip) -> str:
    """What becomes of the calls of phones when their node is lost."""
    return PHONES_BY_EDGE.format(" or ".join(sip.edges)) if sip.edges else PHONES


def _host(uri: str) -> str:
    """Whom a gateway's URI names."""
    try:
        return Uri.parse(uri).bare_host
    except MalformedMessage:
        return ""


def _transport(uri: str) -> str:
    """The transport that a gateway's URI names."""
    try:
        parsed = Uri.parse(uri)
    except MalformedMessage:
        return "UDP"
    return "TLS" if parsed.scheme == "sips" else str(parsed.params.get("transport") or "udp").upper()
