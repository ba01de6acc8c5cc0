"""How a node lets go of a partition (trunkline.bootstrap_cluster.PartitionHooks): what is under way has its outcome."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cluster.test_ownership import Member, Parts, until
from trunkline.bootstrap_cluster import PartitionHooks
from trunkline.cluster.ownership import Ownership, Pace, partition
from trunkline.cluster.placement import Thing
from trunkline.storage.unavailable import StoreUnavailable

LOOKED = 3
"""Looks of who waits, after which a carrier answers."""


class Worker:
    """Whose work in a partition is told, and may be under way."""

    def __init__(self, name: str, told: list[str]) -> None:
        self._name, self._told = name, told
        self.under_way = False
        self._looks = 0

    def enter(self, number: int) -> None:
        self._told.append(f"{self._name} enters {number}")

    def leave(self, number: int) -> None:
        self._told.append(f"{self._name} leaves {number}")

    def busy(self, number: int) -> bool:
        self._looks += self.under_way
        if self._looks == LOOKED:
            self.under_way = False
            self._told.append(f"{self._name} is done")
        return self.under_way

    async def recover(self) -> None:
        pass

    async def recount(self) -> None:
        pass


class Calls:
    up = False

    def granted(self, number: int, is_in: Any) -> None:
        pass

    def gained(self, number: int, is_in: Any, queue: Any) -> None:
        pass

    def lost(self, number: int, is_in: Any) -> None:
        pass

    def has_calls(self, is_in: Any) -> bool:
        return self.up and is_in("a call")


class Queue(Parts):
    def __init__(self, told: list[str]) -> None:
        super().__init__()
        self.closing: set[int] = set()
        self._told = told

    def partition(self, number: int) -> Any:
        return None

    def partition_of(self, sid: str) -> int:
        return 0

    async def release(self, number: int) -> None:
        self._told.append(f"{number} is released")
        await super().release(number)


@pytest.fixture
async def node() -> Any:
    """One that owns the partitions 0, where its calls are, and 1. `told`: what happened."""
    told: list[str] = []
    member, queue = Member(), Queue(told)
    ownership = Ownership(member, queue, Pace(retry_s=0.02, leaving_s=1.0))  # type: ignore[arg-type]

    async def nothing(*given: Any) -> None:
        pass

    made: Any = SimpleNamespace(
        told=told, ownership=ownership, voice=Calls(), take_up=nothing, outbound=Worker("outbound", told),
        inflight=Worker("inflight", told), dispatcher=Worker("dispatcher", told), delivery=Worker("delivery", told),
        inbound=SimpleNamespace(move_parts=nothing),
    )  # fmt: skip
    made.hooks = PartitionHooks(made, SimpleNamespace(queue=queue, ownership=ownership))  # type: ignore[arg-type]
    ownership.register("p", made.hooks)
    await ownership.start()
    ownership.offer([Thing(partition(number), "g") for number in (0, 1)])
    member.gives(partition(0), partition(1))
    await until(lambda: queue.owned == {0, 1} == {int(one[2:]) for one in ownership.owned})
    told.clear()
    yield made
    await ownership.stop()


@pytest.mark.parametrize("up", [False, True])
async def test_a_stop_waits_for_what_is_being_submitted(node: Any, up: bool) -> None:
    """Also with calls up: a partition that was let go of before has its outcomes refused, and its heir submits anew."""
    node.voice.up = up
    node.inflight.under_way = True
    await node.ownership.leave(1.0)
    assert node.told.index("dispatcher leaves 0") < node.told.index("inflight is done")
    assert node.told.index("inflight is done") < node.told.index("0 is released")


async def test_a_partition_with_calls_up_does_not_move_to_another_node(node: Any) -> None:
    """Nor does it stand still meanwhile."""
    node.voice.up = True
    node.ownership.leaving.add(partition(0))
    assert not await node.hooks.leaving(partition(0))
    assert node.told == []
    node.voice.up = False
    assert await node.hooks.leaving(partition(0))
    assert node.told == ["dispatcher leaves 0", "delivery leaves 0"]


async def test_a_partition_that_could_not_be_taken_up_is_tried_again_whatever_the_error(
    node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what waits in it would lie there until the next start."""
    monkeypatch.setattr("trunkline.bootstrap_cluster.RETRY_S", 0.01)
    faults = [StoreUnavailable("away"), RuntimeError("nobody knows it"), None]
    done = asyncio.Event()

    async def take_up(queue: Any) -> None:
        fault = faults.pop(0)
        if fault is not None:
            raise fault
        done.set()

    node.take_up = take_up
    await node.hooks.gained(partition(0), "")
    await asyncio.wait_for(done.wait(), 60)
    await asyncio.sleep(0.05)
    assert faults == []
