"""Upkeep: what is due when."""

import asyncio
from collections.abc import Mapping

import pytest

from tests.postflight.harness import ALICE, BOB, NOW, FakeClock
from trunkline.postflight.archive import key_at
from trunkline.postflight.retention import (
    COMPACT_AFTER_MS,
    DAY_MS,
    MANY_FLOORS,
    RETENTION_EVERY_MS,
    RETRY_COMPACT_MS,
    Maintenance,
)


class FakeArchive:
    def __init__(self) -> None:
        self.pending = (0, 0)
        self.compactions: list[dict[str, str]] = []
        self.clean = 1
        self.rolls = 0
        self.broken = False
        self.rolled = asyncio.Event()

    async def roll(self, *, force: bool = False) -> int:
        self.rolls += 1
        self.rolled.set()
        if self.broken:
            raise OSError("disk")
        return 0

    async def merge(self) -> int:
        return 0

    async def compact(self, expired: Mapping[str, str] | None = None) -> dict[str, int]:
        self.compactions.append(dict(expired or {}))
        if self.clean:
            self.pending = (0, 0)
        return {"clean": self.clean}

    async def pending_floors(self) -> tuple[int, int]:
        return self.pending


def upkeep(archive: FakeArchive, clock: FakeClock, days: Mapping[str, int] | None = None) -> Maintenance:
    async def retention_days() -> Mapping[str, int]:
        return days or {}

    return Maintenance(archive, clock, retention_days, interval_s=0.001)


async def test_a_deletion_is_compacted_well_within_a_day() -> None:
    archive, clock = FakeArchive(), FakeClock()
    maintenance = upkeep(archive, clock)
    archive.pending = (1, NOW)
    await maintenance.step()
    assert archive.compactions == []
    clock.now += COMPACT_AFTER_MS
    assert COMPACT_AFTER_MS + RETRY_COMPACT_MS < DAY_MS
    assert await maintenance.due()
    assert (await maintenance.step())["clean"] == 1
    assert not await maintenance.due()


async def test_many_deletions_do_not_wait() -> None:
    archive, clock = FakeArchive(), FakeClock()
    archive.pending = (MANY_FLOORS, NOW)
    assert await upkeep(archive, clock).due()


async def test_a_compaction_that_could_not_finish_is_tried_again_later() -> None:
    archive, clock = FakeArchive(), FakeClock()
    maintenance = upkeep(archive, clock)
    archive.pending, archive.clean = (1, NOW - DAY_MS), 0
    await maintenance.step()
    await maintenance.step()
    assert len(archive.compactions) == 1
    clock.now += RETRY_COMPACT_MS
    archive.clean = 1
    await maintenance.step()
    assert len(archive.compactions) == 2


async def test_retention_has_its_turn_once_a_day() -> None:
    archive, clock = FakeArchive(), FakeClock()
    maintenance = upkeep(archive, clock, {ALICE: 30, BOB: 0})
    await maintenance.step()
    await maintenance.step()
    assert archive.compactions == [{ALICE: key_at(NOW - 30 * DAY_MS)}]
    clock.now += RETENTION_EVERY_MS
    await maintenance.step()
    assert archive.compactions[1:] == [{ALICE: key_at(NOW - 29 * DAY_MS)}]


async def test_a_failing_step_is_logged_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    archive = FakeArchive()
    archive.broken = True
    maintenance = upkeep(archive, FakeClock())
    task = asyncio.create_task(maintenance.run())
    for _ in range(3):
        await archive.rolled.wait()
        archive.rolled.clear()
    assert maintenance.failures >= 2
    assert "archive upkeep failed" in caplog.text
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
