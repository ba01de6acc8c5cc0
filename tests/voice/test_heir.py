"""Partitions that are granted, lost and granted again while calls are being taken over."""

import asyncio
from types import SimpleNamespace

import pytest

from trunkline.storage.unavailable import StoreUnavailable
from trunkline.voice import heir
from trunkline.voice.heir import Heir
from trunkline.voice.takeover_report import Report

from ..messaging.world import eventually


def done():
    report = Report()
    report.settled.set()
    return report


class Takeover:
    """Takes over when the test says so. `seen`: the partitions of each time, as it was asked; `fails`: instead."""

    def __init__(self):
        self.gate = asyncio.Event()
        self.seen, self.settled, self.fails = [], [], []

    async def take_over(self, mine, lost_ms=0):
        self.seen.append([number for number in range(10) if mine(str(number))])
        await self.gate.wait()
        if self.fails:
            raise self.fails.pop()
        return done()

    async def settle(self, queue, is_in, lost_ms=0):
        self.settled.append(queue)
        return done()

    async def close(self):
        pass


class World:
    def __init__(self):
        self.takeover, self.recordings = Takeover(), []
        listening = asyncio.Event()
        listening.set()
        settings = SimpleNamespace(cluster=SimpleNamespace(lease_s=1.0))
        services = SimpleNamespace(settings=settings, clock=SimpleNamespace(now_ms=lambda: 1_000_000))
        self.heir = Heir(services, self.takeover, listening, self._recordings)

    async def _recordings(self, is_in):
        self.recordings += [number for number in range(10) if is_in(str(number))]

    def granted(self, *numbers):
        for number in numbers:
            self.heir.granted(number, lambda sid, number=number: sid == str(number))

    def gained(self, *numbers):
        for number in numbers:
            self.heir.gained(number, lambda sid, number=number: sid == str(number), f"queue {number}")

    async def all_is_done(self):
        await eventually(lambda: not self.heir._tasks)


@pytest.fixture
async def world():
    made = World()
    yield made
    await made.heir.close()


async def test_what_is_granted_meanwhile_is_taken_over_next(world):
    world.granted(1)
    await eventually(lambda: world.takeover.seen)
    world.granted(2, 3)
    world.gained(1, 2, 3)
    world.takeover.gate.set()
    await world.all_is_done()
    assert world.takeover.seen == [[1], [2, 3]]
    assert sorted(world.takeover.settled) == ["queue 1", "queue 2", "queue 3"]
    assert sorted(world.recordings) == [1, 2, 3]


async def test_what_is_lost_and_granted_again_meanwhile_is_taken_over_again(world):
    world.granted(1, 2, 3)
    await eventually(lambda: world.takeover.seen)
    for number in (1, 2, 3):
        world.heir.lost(number)
    world.granted(1, 2, 3)
    world.gained(1, 2, 3)
    world.takeover.gate.set()
    await world.all_is_done()
    assert world.takeover.seen == [[1, 2, 3], [1, 2, 3]]
    assert sorted(world.takeover.settled) == ["queue 1", "queue 2", "queue 3"]


@pytest.mark.parametrize("lost", [1, 2])
async def test_who_waits_for_a_partition_that_is_lost_waits_no_longer(world, lost):
    """The first is in work, the second is not yet."""
    world.granted(1)
    await eventually(lambda: world.takeover.seen)
    world.gained(1, 2)
    world.heir.lost(lost)
    await eventually(lambda: len(world.heir._tasks) == 2)  # that which takes over, and who waits for the other
    world.takeover.gate.set()
    await world.all_is_done()
    assert world.takeover.settled == [f"queue {3 - lost}"]


async def test_only_one_takeover_is_under_way(world):
    """Also where all that it began with is lost, and others are granted."""
    world.granted(1)
    await eventually(lambda: world.takeover.seen)
    world.heir.lost(1)
    world.granted(2)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert world.takeover.seen == [[1]]
    world.takeover.gate.set()
    await world.all_is_done()
    assert world.takeover.seen == [[1], [2]]


async def test_one_that_is_lost_while_its_store_is_away_is_not_asked_for_again(world, monkeypatch):
    monkeypatch.setattr(heir, "RETRY_S", 0.01)
    world.takeover.fails = [StoreUnavailable("the test says so")]
    world.granted(1, 2)
    world.gained(1, 2)
    await eventually(lambda: world.takeover.seen)
    world.heir.lost(1)
    world.takeover.gate.set()
    await world.all_is_done()
    assert world.takeover.seen == [[1, 2], [2]]
    assert world.takeover.settled == ["queue 2"]
