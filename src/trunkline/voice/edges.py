"""Edge proxies in front of this node: whose word counts about where a request really comes from.

All that comes through an edge has the edge's address. Were that taken for the sender's, one phone's wrong passwords
would ban everybody behind it, and a trunk could not be told by its address. So an edge writes the sender's address into
HEADER, in place of whatever stood there (deploy/kamailio.cfg), and from `sip.edges` it is believed. From anybody else
the header means nothing.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trunkline.sip.flow import Flow
    from trunkline.sip.message import Request

HEADER: Final = "P-Edge-Source"
MAX_ADDRESS: Final = 45
"""Characters of an IPv6 address."""


class Edges:
    """See the module. `addresses` are those of `sip.edges`."""

    def __init__(self, addresses: Iterable[str] = ()) -> None:
        self._addresses = frozenset(map(canonical, addresses))

    def __contains__(self, host: str) -> bool:
        return host in self._addresses

    def source(self, request: Request, flow: Flow) -> str:
        """The address that a request comes from: the peer's, or what an edge says. An edge that says nothing asks for
        itself."""
        host = flow.remote[0]
        if host not in self._addresses:
            return host
        said = request.headers.get(HEADER).strip()
        return canonical(said) or host if said else host


@lru_cache(maxsize=10_000)
def canonical(text: str) -> str:
    """An address as those of peers are written; empty for what is none."""
    if len(text) > MAX_ADDRESS:
        return ""
    try:
        return str(ip_address(text))
    except ValueError:
        return ""


DIRECT: Final = Edges()
"""Nobody stands in between."""
