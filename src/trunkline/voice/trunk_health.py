"""Whether gateways are alive: names looked up again and again, and OPTIONS asked of each address (RFC 3261 section 11).

Any answer but 408 and 503 comes from a gateway that is alive, a refusal of the question too. What follows from answers
and silence is trunkline.voice.trunk_gateways's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Final, Protocol

from trunkline.settings import Trunk
from trunkline.sip.flow import Target, is_numeric
from trunkline.sip.identity import sip_uri
from trunkline.voice.trunk_gateways import Endpoint, Gateways, GatewayWays

if TYPE_CHECKING:
    from trunkline.sip.message import Response
    from trunkline.voice.trunks import Trunks

LOOKUP_S: Final = 30.0
"""Between two look-ups of a gateway's name; the resolver keeps answers as long as they say."""
PING_WAIT_S: Final = 5.0
"""How long OPTIONS are waited for, at most the interval itself."""
SPREAD: Final = (0.9, 1.1)
"""Of each interval, so that trunks are not asked all at once."""
START_SPREAD_S: Final = 1.0
DEAD: Final = frozenset({408, 503})
"""Responses that no living gateway gives."""

log = logging.getLogger(__name__)


class Sip(Protocol):
    """trunkline.sip.transport.SipTransport, as far as it is needed."""

    @property
    def stack(self) -> Any: ...

    async def resolve(self, host: str, port: int | None, transport: str = "", secure: bool = False) -> list[Target]: ...


class TrunkHealth:
    """See the module. `domain`: the host part of our own addresses."""

    def __init__(self, trunks: Trunks, sip: Sip, domain: str, random: Random, now: Callable[[], float]) -> None:
        self._trunks = trunks
        self._sip = sip
        self._domain = domain
        self._random = random
        self._now = now
        self._timers: dict[object, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_hosts: Callable[[Trunk], None] = lambda trunk: None
        """Told when a trunk's gateways were looked up."""

    def start(self, on_change: Callable[[], None] = lambda: None) -> None:
        """Look up and ask; `on_change` is called when a gateway has turned up or down."""
        for trunk, gateways in self._with_gateways():
            for gateway in gateways.all:
                gateway.watch(on_change, pinged=trunk.options_ping_s > 0)
                if not is_numeric(gateway.uri.bare_host):
                    self._look_up_soon(trunk, gateway, 0.0)
                if trunk.options_ping_s:
                    self._ask_soon(trunk, gateway, self._random.uniform(0, START_SPREAD_S))

    def _with_gateways(self) -> list[tuple[Trunk, Gateways]]:
        named = self._trunks.named
        return [(trunk, found) for name, found in self._trunks.gateways.items() if (trunk := named(name)) is not None]

    async def stop(self) -> None:
        """Ask no more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _later(self, key: object, delay_s: float, call: Callable[[], None]) -> None:
        self._timers[key] = asyncio.get_running_loop().call_later(delay_s, call)

    # -- names -----------------------------------------------------------------------------------------------

    def _look_up_soon(self, trunk: Trunk, gateway: GatewayWays, delay_s: float) -> None:
        self._later((gateway, "name"), delay_s, lambda: self._begin_look_up(trunk, gateway))

    def _begin_look_up(self, trunk: Trunk, gateway: GatewayWays) -> None:
        task = asyncio.get_running_loop().create_task(self._look_up(trunk, gateway))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_up(self, trunk: Trunk, gateway: GatewayWays) -> None:
        uri = gateway.uri
        secure = uri.scheme == "sips"
        try:
            targets = await self._sip.resolve(uri.bare_host, uri.port, "" if secure else uri.transport, secure)
        except OSError as error:
            log.info("%s: %s", gateway.label, error)  # what is known goes on being used
        else:
            self._trunks.reached(trunk, gateway, targets, self._now())
            self.on_hosts(trunk)
        self._look_up_soon(trunk, gateway, LOOKUP_S)

    # -- OPTIONS ---------------------------------------------------------------------------------------------

    def _ask_soon(self, trunk: Trunk, gateway: GatewayWays, delay_s: float) -> None:
        self._later(gateway, delay_s, lambda: self._ask(trunk, gateway))

    def _ask(self, trunk: Trunk, gateway: GatewayWays) -> None:
        interval = trunk.options_ping_s
        for endpoint in gateway.endpoints:
            _Ping(self, trunk, gateway, endpoint, min(PING_WAIT_S, interval))
        self._ask_soon(trunk, gateway, interval * self._random.uniform(*SPREAD))

    def ping(
        self, trunk: Trunk, gateway: GatewayWays, endpoint: Endpoint, told: Callable[[int, Response | None], None]
    ) -> None:
        """One OPTIONS."""
        uri = gateway.uri
        host = trunk.domain or self._domain
        self._sip.stack.request(
            "OPTIONS", str(uri.replace(user="", host=trunk.domain or uri.host)),
            from_=f"<{sip_uri(trunk.username or 'ping', host)}>", target=endpoint.target,
            headers=[("Accept", "application/sdp")], on_response=told,
        )  # fmt: skip

    def now(self) -> float:
        """Monotonic seconds."""
        return self._now()


class _Ping:
    """One question: what comes first counts, the answer or the end of our patience."""

    __slots__ = ("_done", "_endpoint", "_health", "_timer")

    def __init__(
        self, health: TrunkHealth, trunk: Trunk, gateway: GatewayWays, endpoint: Endpoint, wait_s: float
    ) -> None:
        self._health = health
        self._endpoint = endpoint
        self._done = False
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._silence)
        health.ping(trunk, gateway, endpoint, self._answered)

    def _answered(self, status: int, response: Response | None) -> None:
        self._timer.cancel()
        if self._done:
            return
        self._done = True
        if response is not None and status not in DEAD:
            self._endpoint.answered(self._health.now())
        else:
            self._endpoint.failed(self._health.now(), f"OPTIONS got {status}" if response else "it cannot be reached")

    def _silence(self) -> None:
        if not self._done:
            self._done = True
            self._endpoint.failed(self._health.now(), "no answer to OPTIONS")
