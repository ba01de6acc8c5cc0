"""A change is answered once the other nodes have it; who does not say so is not waited for."""

import asyncio

import pytest

from trunkline.cluster import copies
from trunkline.cluster.copies import Copies
from trunkline.cluster.peers import PeerError, PeerUnavailable

WAIT_S = 60


class Net:
    """Two other nodes, and a clock that a call to a silent one moves on."""

    def __init__(self):
        self.now, self.asked, self.silent, self.gone = 100.0, [], set(), set()
        self.handlers = {}

    def others(self):
        return ["b", "c"]

    async def call(self, node, kind, payload, timeout_s):
        self.asked.append(node)
        if node in self.gone:
            raise PeerUnavailable(f"{node} is not known", sent=False)
        if node in self.silent:
            self.now += timeout_s
            raise PeerUnavailable(f"{node}: no answer", sent=True)
        if node not in self.handlers:
            raise PeerError("unknown-kind", kind)
        return await self.handlers[node]("a", payload)


@pytest.fixture
def net():
    return Net()


def make(net, heard=None):
    return Copies(net, heard, lambda: net.now)


async def test_a_change_waits_until_all_others_have_it(net):
    has, asked = {node: asyncio.Event() for node in "bc"}, []
    for node in "bc":

        async def heard(writer, number, node=node):
            asked.append((node, writer, number))
            await has[node].wait()

        make(net, heard).serve(lambda kind, handler, node=node: net.handlers.__setitem__(node, handler))
    waiting = asyncio.create_task(make(net).settle("database-1", 7))
    has["b"].set()
    while len(asked) < 2:
        await asyncio.sleep(0)
    assert sorted(asked) == [("b", "database-1", 7), ("c", "database-1", 7)]
    assert not waiting.done()
    has["c"].set()
    await asyncio.wait_for(waiting, WAIT_S)


async def test_a_node_that_is_silent_is_left_alone_for_a_while(net):
    net.silent = {"c"}
    mine = make(net)
    await mine.settle("database-1", 1)
    await mine.settle("database-1", 2)
    assert net.asked == ["b", "c", "b"]
    net.now += copies.REST_S
    await mine.settle("database-1", 3)
    assert net.asked[3:] == ["b", "c"]


async def test_a_node_that_fails_at_once_is_asked_again(net):
    net.gone = {"b"}  # and c is of an older release, which knows no such question
    mine = make(net)
    await mine.settle("database-1", 1)
    await mine.settle("database-1", 2)
    assert net.asked == ["b", "c", "b", "c"]


async def test_who_is_asked_waits_no_longer_than_the_one_who_asks(net, monkeypatch):
    monkeypatch.setattr(copies, "SETTLE_S", 0.05)

    async def heard(writer, number):
        await asyncio.Event().wait()

    make(net, heard).serve(lambda kind, handler: net.handlers.__setitem__("b", handler))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(net.handlers["b"]("a", copies._encode(("database-1", 1))), WAIT_S)
