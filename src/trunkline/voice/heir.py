"""The calls of partitions that become this node's, in two steps.

    granted   the map of the cluster names this node: nobody else sends for these calls any more. They go on at once, by
              what is stored of them in the `MemoryStore`, whatever state the queue's database is in
    gained    the partition can be written: what happened to the calls meanwhile is, and what only the queue knows is
              dealt with

The second may come before the first is done, or a database's fail-over later. `lost` ends both.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from trunkline.storage.unavailable import StoreUnavailable

if TYPE_CHECKING:
    from trunkline.storage.queue import Queue
    from trunkline.voice.service import VoiceServices
    from trunkline.voice.takeover import Takeover
    from trunkline.voice.takeover_report import Report

RETRY_S: Final = 0.2
"""Between two tries to read what was gained while a store is away."""
LEASES_MS: Final = 1300
"""A lost node was last known to live so long before its calls are another's, per second of its lease: rather a few
words twice than some left out."""

log = logging.getLogger(__name__)


class Part:
    """A partition: `is_in` tells its SIDs; `lost_ms` is when its former node was last known to live (Unix ms)."""

    __slots__ = ("is_in", "lost_ms", "report", "taken")

    def __init__(self, is_in: Callable[[str], bool], lost_ms: int) -> None:
        self.is_in = is_in
        self.lost_ms = lost_ms
        self.taken = asyncio.Event()
        """Its calls go on here, as far as they are stored; or it was lost before they did."""
        self.report: Report | None = None


class Heir:
    """See the module. `listening`: SIP works; `recordings`: looks after the recordings of calls that did not go on."""

    def __init__(
        self,
        services: VoiceServices,
        takeover: Takeover,
        listening: asyncio.Event,
        recordings: Callable[[Callable[[str], bool]], Awaitable[object]],
    ) -> None:
        self._services = services
        self._takeover = takeover
        self._listening = listening
        self._recordings = recordings
        self._parts: dict[int, Part] = {}
        self._waiting: list[Part] = []
        """Granted, and their calls do not go on yet; with those in work."""
        self._taking: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def granted(self, number: int, is_in: Callable[[str], bool]) -> None:
        """Go on with a partition's calls as soon as SIP works; together with those of what is granted meanwhile."""
        lease_ms = int(self._services.settings.cluster.lease_s * LEASES_MS)
        part = self._parts[number] = Part(is_in, self._services.clock.now_ms() - lease_ms)
        self._waiting.append(part)
        if self._taking is None or self._taking.done():
            self._taking = self._spawn(self._take_over())

    def gained(self, number: int, is_in: Callable[[str], bool], queue: Queue) -> None:
        """`queue` is the partition, which can be read and written now."""
        if number not in self._parts:
            self.granted(number, is_in)
        self._spawn(self._settle(number, self._parts[number], queue))

    def lost(self, number: int) -> None:
        """It is another node's: its calls are dropped here, without a word. It may be granted again at once, as another
        `Part`, while this one is in work."""
        part = self._parts.pop(number, None)
        if part is not None:
            self._no_longer_waits([part])

    def owes(self, is_in: Callable[[str], bool]) -> bool:
        """Whether something of these calls is still to be written."""
        return bool(self._services.flights.held(is_in))

    async def _take_over(self) -> None:
        await self._listening.wait()
        while self._waiting:
            parts = list(self._waiting)
            try:
                report = await self._takeover.take_over(
                    lambda sid, parts=parts: any(one.is_in(sid) for one in parts if self._is_ours(one)),  # type: ignore[misc]
                    lost_ms=min(one.lost_ms for one in parts),
                )
            except StoreUnavailable as error:
                log.warning("the calls of %d partitions cannot be read yet: %s", len(parts), error)
                await asyncio.sleep(RETRY_S)
                continue
            except Exception:
                log.exception("the calls of %d partitions could not be taken over", len(parts))
                report = None
            for part in parts:
                part.report = report
            self._no_longer_waits(parts)

    def _no_longer_waits(self, parts: Sequence[Part]) -> None:
        """Who waits for them goes on: they are taken over, or lost."""
        self._waiting = [one for one in self._waiting if one not in parts]
        for part in parts:
            part.taken.set()

    def _is_ours(self, part: Part) -> bool:
        return part in self._parts.values()

    async def _settle(self, number: int, part: Part, queue: Queue) -> None:
        await part.taken.wait()
        report = await self._insist(part, lambda: self._takeover.settle(queue, part.is_in, lost_ms=part.lost_ms))
        for one in (part.report, report):
            if one is not None:
                await one.settled.wait()
        await self._insist(part, lambda: self._recordings(part.is_in))

    async def _insist(self, part: Part, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do it again while a database is away, for as long as the partition is ours."""
        while self._is_ours(part):
            try:
                return await work()
            except (StoreUnavailable, OSError) as error:
                log.warning("calls that were taken over cannot be seen to in their database yet: %s", error)
                await asyncio.sleep(RETRY_S)
            except Exception:
                log.exception("calls that were taken over could not be seen to in their database")
                return None
        return None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """End without a word."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._takeover.close()
