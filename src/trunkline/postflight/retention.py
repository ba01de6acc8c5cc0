"""The archive's upkeep: roll-ups, retention, compaction and merges, step by step in the background."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from trunkline.model.clock import Clock
from trunkline.postflight.archive import key_at
from trunkline.storage.manifest import ArchiveBusy
from trunkline.storage.unavailable import StoreUnavailable

INTERVAL_S = 20.0
"""Between two looks at what is due."""
COMPACT_AFTER_MS = 12 * 3_600_000
"""How long hidden bytes may wait for a compaction (promised: 24 h)."""
RETRY_COMPACT_MS = 15 * 60_000
"""After a compaction that could not finish."""
MANY_FLOORS = 20_000
"""Hidden documents from which on compaction does not wait."""
RETENTION_EVERY_MS = 24 * 3_600_000
DAY_MS = 86_400_000

RetentionDays = Callable[[], Awaitable[Mapping[str, int]]]
"""Accounts that keep their documents for so many days (0 or absent: for ever)."""

log = logging.getLogger(__name__)


class Upkeep(Protocol):
    """What of the archive is driven here."""

    async def roll(self, *, force: bool = False) -> int: ...

    async def merge(self) -> int: ...

    async def compact(self, expired: Mapping[str, str] | None = None) -> dict[str, int]: ...

    async def pending_floors(self) -> tuple[int, int]: ...

    async def tidy(self) -> None: ...


class Maintenance:
    """Run `run` as one task beside the archive. A step that fails is logged and tried again at the next look.

    In a cluster it runs on every node, and on all but one it is paused: it then only looks after the node's own cache.
    """

    def __init__(
        self,
        archive: Upkeep,
        clock: Clock,
        retention_days: RetentionDays,
        *,
        interval_s: float = INTERVAL_S,
        compact_after_ms: int = COMPACT_AFTER_MS,
    ) -> None:
        self._archive = archive
        self._clock = clock
        self._retention_days = retention_days
        self._interval_s = interval_s
        self._compact_after_ms = compact_after_ms
        self._retained_ms = 0
        self._compact_not_before_ms = 0
        self.failures = 0
        """Steps in a row that failed."""
        self._paused = False

    def pause(self) -> None:
        """Begin no more roll-ups and compactions; what is under way is finished (or, where another node goes on at
        once, finds that it may not record what it made)."""
        self._paused = True

    def resume(self) -> None:
        """From the next look on do all that is due."""
        self._paused = False

    @property
    def paused(self) -> bool:
        return self._paused

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.step()
                self.failures = 0
            except ArchiveBusy as busy:
                log.info("archive upkeep waits: %s", busy)
            except StoreUnavailable as away:
                self.failures += 1
                log.error("archive upkeep waits: %s", away)
            except Exception:
                self.failures += 1
                log.exception("archive upkeep failed; it is tried again")
            await asyncio.sleep(self._interval_s)

    async def step(self) -> dict[str, int]:
        """Do what is due now; says what was done."""
        if self._paused:
            await self._archive.tidy()
            return {}
        done = {"rolled": await self._archive.roll(), "merged": await self._archive.merge()}
        if not self._paused and await self.due():
            done.update(await self.compact())
        return done

    async def due(self) -> bool:
        """Whether a compaction is due: hidden bytes have waited long enough, or retention has its daily turn."""
        now = self._clock.now_ms()
        if now < self._compact_not_before_ms:
            return False
        pending, since_ms = await self._archive.pending_floors()
        if pending and (pending >= MANY_FLOORS or now - since_ms >= self._compact_after_ms):
            return True
        return now - self._retained_ms >= RETENTION_EVERY_MS and bool(await self.expired())

    async def expired(self) -> dict[str, str]:
        """Account -> the key below which its documents have outlived its retention."""
        now = self._clock.now_ms()
        days = await self._retention_days()
        return {account: key_at(now - kept * DAY_MS) for account, kept in days.items() if kept > 0}

    async def compact(self) -> dict[str, int]:
        """Compact now, applying retention."""
        now = self._clock.now_ms()
        self._compact_not_before_ms = now + RETRY_COMPACT_MS
        counts = await self._archive.compact(await self.expired())
        self._retained_ms = now
        if counts["clean"]:
            self._compact_not_before_ms = 0
        return counts
