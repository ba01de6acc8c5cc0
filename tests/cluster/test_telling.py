"""A part of a node tells the others."""

import asyncio

import pytest

from trunkline.cluster.telling import keep_telling, tell_all


class Net:
    def __init__(self):
        self.told = []

    def others(self):
        return ["a", "b", "c"]

    async def call(self, node, kind, payload, timeout_s):
        if node == "b":
            raise TimeoutError
        self.told.append((node, kind, payload, timeout_s))
        return b""


async def test_who_cannot_be_told_keeps_it_from_nobody_else():
    net = Net()
    await tell_all(net, "kind", b"what", 1.0)
    assert net.told == [("a", "kind", b"what", 1.0), ("c", "kind", b"what", 1.0)]


async def test_a_failure_is_told_again(caplog):
    turns, done = [], asyncio.Event()

    async def tell():
        turns.append(1)
        if len(turns) == 1:
            raise RuntimeError("the first")
        done.set()

    task = asyncio.create_task(keep_telling(tell, 0.001, "counts"))
    await asyncio.wait_for(done.wait(), 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "counts could not be told" in caplog.text
