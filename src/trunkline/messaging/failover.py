"""Failover of what waits: when a carrier is down, its waiting messages go out by another route, or expire.

A short interruption costs nothing: only after DOWN_AFTER_S are the lanes of a connector looked through, a bounded
number of messages at a time, and each message that another healthy connector may take is moved there by
compare-and-set. New messages avoid a connector that is known to be down (`avoid`). A message whose validity ends while
nobody takes it fails here; in a lane that moves, the dispatcher sees to that. Lanes of a connector that the settings
name no more are treated as those of one that is down.
"""

import asyncio
import logging
from collections.abc import Mapping

from trunkline.inflight.store import Inflight, Live
from trunkline.messaging.connectors.base import Connector
from trunkline.messaging.lanes import lane_name, lane_parts
from trunkline.messaging.outbound import MEDIA_LANE, Outbound
from trunkline.model.message import Status

CHECK_S = 1.0
"""How often connectors are asked."""
DOWN_AFTER_S = 5.0
"""How long a connector must be down before its messages leave it."""
BATCH = 200
"""Messages of one lane that are looked at in one check."""

log = logging.getLogger(__name__)


class Failover:
    """See the module."""

    def __init__(self, inflight: Inflight, outbound: Outbound, connectors: Mapping[str, Connector]) -> None:
        self._inflight = inflight
        self._outbound = outbound
        self._connectors = connectors
        self._since: dict[str, float] = {}
        self._looked: dict[str, tuple[int, int]] = {}
        """Lane -> (due_ms, id) of the last message looked at, so that those that must stay are not read for ever."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(CHECK_S)
            try:
                await self.check(asyncio.get_running_loop().time())
            except Exception:
                log.exception("failover failed; it is tried again")

    async def check(self, now: float) -> int:
        """Look at every connector; returns how many messages were moved. `now` is monotonic seconds."""
        for name, connector in self._connectors.items():
            if connector.health()[0]:
                if self._since.pop(name, None) is not None:
                    self._looked = {k: v for k, v in self._looked.items() if lane_parts(k)[0] != name}
            else:
                self._since.setdefault(name, now)
        down = frozenset(name for name, since in self._since.items() if now - since >= DOWN_AFTER_S)
        if down != self._outbound.avoid:
            log.warning("carriers down: %s", ", ".join(sorted(down)) or "none any more")
            self._outbound.avoid = down
        moved = 0
        for lane, _, _ in await self._inflight.queue.lanes():
            name = lane_parts(lane)[0]
            if name in down or (name not in self._connectors and name != MEDIA_LANE):
                moved += await self._leave(lane)
                await self._expire(lane)
        return moved

    async def _expire(self, lane: str) -> None:
        """Fail what is past its validity, oldest first."""
        now_ms = self._inflight.clock.now_ms()
        for flight in await self._inflight.queue.waiting(lane, (0, 0), BATCH):
            live = self._inflight.adopt(flight)
            if live.lane == lane and 0 < live.message.valid_until_ms <= now_ms:
                self._outbound.allow(live)

    async def _leave(self, lane: str) -> int:
        """Move what may leave this lane."""
        moved = 0
        flights = await self._inflight.queue.waiting(lane, self._looked.get(lane, (0, 0)), BATCH)
        for flight in flights:
            self._looked[lane] = (flight.due_ms, flight.id)
            live = self._inflight.adopt(flight)
            if live.lane == lane and live.status in (Status.QUEUED, Status.ACCEPTED) and await self._move(live):
                moved += 1
        return moved

    async def _move(self, live: Live) -> bool:
        message = live.message
        route = self._outbound.detour(message)
        if route is None:
            return False
        message.route, message.connector = route.name, route.connector
        lane = lane_name(route.connector, message.account_sid, message.from_)
        if not await self._inflight.advance(live, live.status, lane=lane, due_ms=message.created_ms):
            return False
        self._outbound.push_stored(lane, 0.0)
        return True
