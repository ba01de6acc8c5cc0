"""Phones registered at one node of a cluster, called from another."""

import asyncio

import pytest

from trunkline.sip.flow import Flow
from trunkline.storage.memory import InProcess
from trunkline.testing.clock import ManualClock
from trunkline.voice.shared_registrations import SharedRegistrations

from ..messaging.world import eventually
from .test_registrations import Place

ALICE = "sip:alice@127.0.0.9:5062"
CONNECTION = Flow("TCP", ("127.0.0.9", 40000), ("127.0.0.1", 5060), id=7)


class Net:
    """Nodes with one `MemoryStore`; those in `deaf` are told nothing."""

    def __init__(self):
        self.clock = ManualClock()
        self.memory = InProcess(self.clock)
        self.handlers, self.deaf = {}, set()

    def node(self, name):
        place = Place(self.memory, self.clock)
        place.shared = SharedRegistrations(Peers(self, name), place.registrations)
        place.shared.serve(lambda kind, handler: self.handlers.__setitem__(name, handler))
        return place


class Peers:
    def __init__(self, net, name):
        self.net, self.name = net, name

    def others(self):
        return [name for name in self.net.handlers if name != self.name]

    async def call(self, node, kind, payload, timeout_s):
        if node in self.net.deaf:
            raise ConnectionError("it is not there")
        return await self.net.handlers[node](self.name, payload)


@pytest.fixture
def net():
    return Net()


async def test_a_phone_is_found_by_every_node(net):
    one, two = net.node("one"), net.node("two")
    one.registers()
    await eventually(lambda: two.contacts() == [ALICE])
    assert two.registrations.count == 1
    one.registers(contact=f"<{ALICE}>;expires=0")
    await eventually(lambda: two.contacts() == [])
    assert two.registrations.count == 0


async def test_it_may_be_renewed_at_another_node(net):
    one, two = net.node("one"), net.node("two")
    one.registers()
    await eventually(lambda: two.contacts() == [ALICE])
    net.clock.advance(60)
    two.cseq = 10
    assert two.registers()[0] == 200
    expires = two.registrations.contacts(two.directory.domain, "alice")[0].expires_ms
    await eventually(lambda: one.registrations.contacts(one.directory.domain, "alice")[0].expires_ms == expires)
    assert (one.registrations.count, two.registrations.count) == (1, 1)


async def test_what_a_node_was_not_told_it_finds_in_the_store(net):
    one, two = net.node("one"), net.node("two")
    net.deaf = {"two"}
    one.registers()
    await asyncio.sleep(0.02)
    assert two.contacts() == []
    await two.registrations.look_again()
    assert two.contacts() == [ALICE]


async def test_a_phone_on_a_connection_is_the_nodes_that_has_it(net):
    one, two = net.node("one"), net.node("two")
    one.registers(flow=CONNECTION)
    two.registers("bob", contact="<sip:bob@127.0.0.9:5064>")
    await eventually(lambda: one.contacts("bob") != [])
    assert (one.contacts(), two.contacts()) == ([ALICE], [])
    two.cseq = 20
    two.registers(contact="<sip:alice@127.0.0.9:5066>", call_id="another phone")
    await eventually(lambda: len(one.contacts()) == 2)
    assert two.contacts() == ["sip:alice@127.0.0.9:5066"]


async def test_what_cannot_be_read_changes_nothing(net):
    one, two = net.node("one"), net.node("two")
    one.registers()
    await eventually(lambda: two.contacts() == [ALICE])
    two.registrations.take("register/SD/alice", b"\xff\xff")
    await net.handlers["two"]("one", b"\x92\xa4ban/\xc4\x01x")
    assert two.contacts() == [ALICE]
