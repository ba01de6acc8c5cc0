"""A node's permission to serve, by a clock and a witness of the test."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from trunkline.bootstrap import Node
from trunkline.cluster.fence import NEVER_NS, Fence
from trunkline.region import guard as guards
from trunkline.region.gate import Gate
from trunkline.region.guard import Guard
from trunkline.region.records import Epoch, Server
from trunkline.storage.unavailable import StoreUnavailable

S = 1_000_000_000
FIRST = Epoch(epoch=1, region="one", since_ms=1)
LOST = Epoch(epoch=2, region="two", since_ms=2, former="one")
PLANNED = Epoch(epoch=2, region="two", since_ms=2, former="one", planned=True, drain_s=20.0)


class Witness:
    def __init__(self):
        self.newest = FIRST
        self.failed = ""
        self.hang = None

    def after(self, known):
        if self.hang is not None:
            self.hang.wait(60)
        if self.failed:
            raise StoreUnavailable(self.failed)
        return self.newest


def server(standby, epoch=1, region="one"):
    return Server(host="h", port="1", standby=standby, read_only=False, lsn=1, received=1, region=region, epoch=epoch)


class World:
    def __init__(self, alone_s=30.0):
        self.now = 100 * S
        self.witness = Witness()
        self.two = {"database": server(True)}
        self.guard = Guard(
            "one", FIRST, self.witness, alone_s, lambda: ({"database": server(False)}, {"two": self.two}),
            lambda: self.now,
        )  # fmt: skip
        self.bounds, self.ends = [], []
        self.guard.moved = self.bounds.append
        self.guard.replaced = self.ends.append


@pytest.fixture
def world():
    made = World()
    yield made
    made.guard.close()


async def test_it_is_closed_before_the_first_look_and_open_for_so_long_after_each(world):
    assert not world.guard.open
    await world.guard.look()
    assert world.guard.open
    assert world.bounds == [130 * S]
    world.now = 130 * S
    assert not world.guard.open


async def test_a_lost_region_is_closed_at_once_and_told_once(world):
    await world.guard.look()
    world.witness.newest = LOST
    await world.guard.look()
    assert (world.guard.open, world.guard.acknowledges) == (False, False)
    assert world.bounds[-1] == 0
    assert world.ends == [LOST]
    assert "two is active in epoch 2" in world.guard.problem


async def test_a_region_that_is_handed_over_finishes_what_it_has_begun(world):
    await world.guard.look()
    world.witness.newest = PLANNED
    await world.guard.look()
    assert (world.guard.open, world.guard.acknowledges) == (False, True)
    assert world.bounds[-1] == 120 * S
    world.now = 120 * S
    assert not world.guard.acknowledges


async def test_without_the_witness_the_other_regions_word_counts(world):
    await world.guard.look()
    world.witness.failed = "away"
    world.now += 20 * S
    await world.guard.look()
    assert world.bounds == [130 * S, 150 * S]
    world.two["database"] = None
    world.now += 20 * S
    await world.guard.look()
    assert world.guard.open  # for what is left of it
    assert "nobody can say" in world.guard.problem
    world.now = 150 * S
    assert not world.guard.open
    world.witness.failed = ""
    await world.guard.look()
    assert world.guard.open
    assert world.guard.problem == ""


async def test_without_the_witness_another_regions_epoch_counts(world):
    world.witness.failed = "away"
    world.two["database"] = server(False, 2, "two")
    await world.guard.look()
    assert [epoch.epoch for epoch in world.ends] == [2]


async def test_a_witness_that_hangs_is_not_waited_for(world, monkeypatch):
    monkeypatch.setattr(guards, "WITNESS_S", 0.05)
    world.witness.hang = threading.Event()
    await world.guard.look()
    assert world.guard.open  # by the other region's word
    world.witness.hang.set()
    world.witness.newest = LOST
    while not world.ends:
        await world.guard.look()
    assert world.ends == [LOST]


async def test_alone_for_ever_where_that_was_asked_for():
    world = World(alone_s=0)
    await world.guard.look()
    assert world.guard.bound_ns == NEVER_NS
    world.guard.close()


async def test_the_loop_ends_with_the_reign(world):
    world.witness.newest = LOST
    await asyncio.wait_for(world.guard.run(), 30)


# -- the fence that it bounds ---------------------------------------------------------------------------------------


def test_a_fence_is_never_open_for_longer_than_its_bound():
    now = [0]
    fence = Fence(lambda: now[0])
    told = []
    fence.on_extend.append(told.append)
    fence.extend(0, 1000)
    assert fence.deadline_ns == 900_000_000
    fence.bind(500_000_000)
    assert (fence.deadline_ns, told[-1]) == (500_000_000, 500_000_000)
    now[0] = 400_000_000
    fence.extend(now[0], 1000)
    assert fence.deadline_ns == 500_000_000
    fence.bind(NEVER_NS)
    fence.extend(now[0], 1000)
    assert fence.deadline_ns == 1_300_000_000


def test_a_fence_that_is_bound_to_the_past_closes_and_tells():
    fence = Fence(lambda: 10)
    closed = []
    fence.on_close.append(lambda: closed.append(True))
    fence.extend(0, 1000)
    assert fence.open
    fence.bind(0)
    assert not fence.open
    assert closed == [True]


# -- the gate that it opens -------------------------------------------------------------------------------------------


class Asked:
    """One request through a gate; the application runs `work` first."""

    def __init__(self, guard, work=lambda: None):
        self.sent = []
        self.reached = False
        self._work = work
        self._gate = Gate(self._app, guard)

    async def _app(self, scope, receive, send):
        self.reached = True
        self._work()
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b"made"})

    async def of(self, method, path="/2010-04-01/Accounts.json"):
        async def send(message):
            self.sent.append(message)

        await self._gate({"type": "http", "method": method, "path": path}, None, send)
        return self.sent[0]["status"]


async def test_the_gate_lets_through_only_while_the_region_is_known_to_be_active(world):
    assert await Asked(world.guard).of("POST") == 503
    await world.guard.look()
    assert await Asked(world.guard).of("POST") == 201
    world.now += 60 * S
    asked = Asked(world.guard)
    assert await asked.of("GET") == 503
    assert not asked.reached
    assert (b"retry-after", b"5") in asked.sent[0]["headers"]
    assert await Asked(world.guard).of("GET", "/healthz") == 201


async def test_what_was_done_while_the_gate_closed_is_not_acknowledged(world):
    await world.guard.look()

    def later():
        world.now += 60 * S

    asked = Asked(world.guard, later)
    assert await asked.of("POST") == 503
    assert asked.reached
    assert b"made" not in b"".join(message.get("body", b"") for message in asked.sent)


@pytest.mark.parametrize(
    ("region", "others", "left"),
    [
        (None, ["b"], True),
        (None, [], False),
        (SimpleNamespace(guard=SimpleNamespace(replaced_by=None)), ["b"], True),
        (SimpleNamespace(guard=SimpleNamespace(replaced_by="two")), ["b"], False),
    ],
)
def test_calls_are_left_to_other_nodes_unless_their_region_was_replaced(region, others, left):
    node, cluster = SimpleNamespace(region=region), SimpleNamespace(others=lambda: others)
    assert Node._has_heirs(node, cluster) is left
