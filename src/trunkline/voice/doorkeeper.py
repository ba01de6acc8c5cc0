"""Who is answered at all: to everybody else this is a port where nothing listens (`sip.answer_strangers`).

Requests outside of calls are answered if their source is somebody (a trunk, its gateways and registrars, whoever has
logged in lately, this machine), if they show a TLS certificate of ours or ask for a Contact that we have registered, or
if they aim at a name of ours: a SIP domain or a customer's trunk, whose name a scanner does not know. An INVITE is also
answered where a trunk has nothing but a login, for it has to be asked for it.

What was not answered, and who was asked for a login, is logged once for each source: it may be a carrier whose address
is missing in the settings.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from trunkline.sip.errors import MalformedMessage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trunkline.model.clock import Clock
    from trunkline.settings import Trunk
    from trunkline.sip.flow import Flow
    from trunkline.sip.message import Request
    from trunkline.voice.domains import Domains
    from trunkline.voice.sources import Sources
    from trunkline.voice.trunk_doors import TrunkDoors

HERE: Final = frozenset({"127.0.0.1", "::1"})
"""Where this machine's own programs ask from."""
MAX_TOLD: Final = 10_000
"""Sources remembered that the log has told of."""
LOGGED: Final = 60
"""Sources told of in LOGGED_S; sources can be forged."""
LOGGED_S: Final = 60.0

log = logging.getLogger(__name__)


class Doorkeeper:
    """See the module. `own` are addresses of ours."""

    def __init__(
        self, sources: Sources, doors: TrunkDoors, domains: Domains, trunks: Sequence[Trunk], own: Iterable[str] = ()
    ) -> None:
        self._sources = sources
        self._doors = doors
        self._domains = domains
        self._here = HERE | frozenset(own)
        self._asks = any(needs_challenge(one) for one in trunks)

    def answers(self, request: Request, flow: Flow) -> bool:
        """Whether a request that belongs to no call is answered."""
        host = self._sources.edges.source(request, flow)
        if self._sources.by_address(host) is not None or host in self._here or self._sources.bans.spares(host):
            return True
        if host in self._sources.edges:  # it asks for itself, whether we are there
            return True
        try:
            if request.to_tag or request.method == "CANCEL" or self._domains.is_name(request):
                return True
        except MalformedMessage:
            return False
        if request.method == "INVITE" and self._asks:
            return True
        return self._doors.is_at(request, flow)


def needs_challenge(trunk: Trunk) -> bool:
    """Whether a trunk's calls are known by its login alone."""
    return bool(trunk.password) and not (trunk.addresses or trunk.tls_names or trunk.register)


class Told:
    """What the log has been told of strangers, once for each."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: OrderedDict[str, None] = OrderedDict()
        self._since, self._count = 0.0, 0

    def unanswered(self, request: Request, host: str) -> None:
        """A request got no answer."""
        if self._is_new(host):
            log.info(
                "SIP from %s is not answered: %s %.80r, by nobody known, for no name of ours. If it is a carrier's or "
                "PBX's address, add it to its trunk's addresses; sip.answer_strangers = true answers everybody",
                host, request.method[:20], request.uri,
            )  # fmt: skip

    def challenged(self, host: str) -> None:
        """An INVITE was asked for a login."""
        if self._is_new(host):
            log.info(
                "INVITE from %s is asked for a login (401): no trunk has this address. If it is a carrier's that does "
                "not log in, add it to its trunk's addresses", host,
            )  # fmt: skip

    def _is_new(self, host: str) -> bool:
        if host in self._told:
            return False
        now = self._clock.monotonic()
        if now >= self._since + LOGGED_S:
            self._since, self._count = now, 0
        self._count += 1
        if self._count > LOGGED:
            if self._count == LOGGED + 1:
                log.info("SIP from more than %d strangers in a minute; no more are told of", LOGGED)
            return False
        self._told[host] = None
        if len(self._told) > MAX_TOLD:
            self._told.popitem(last=False)
        return True
