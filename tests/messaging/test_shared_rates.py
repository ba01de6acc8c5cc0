"""Rates that nodes share."""

import pytest

from trunkline.messaging.shared_rates import OLD_S, SharedRates

A, B = "AC1|+1", "AC1|"


class Nodes:
    """Nodes that reach each other by a call."""

    def __init__(self):
        self.handlers, self.down, self.now = {}, set(), 0.0

    def make(self, name):
        node = Node(self, name)
        node.rates.serve(lambda kind, handler: self.handlers.__setitem__((name, kind), handler))
        return node


class Node:
    def __init__(self, net, name):
        self.net, self.name, self.active, self.changes = net, name, set(), 0
        self.rates = SharedRates(self, lambda: self.active, self._changed, lambda: net.now)

    def _changed(self):
        self.changes += 1

    def others(self):
        return sorted({name for name, _ in self.net.handlers} - {self.name})

    async def call(self, node, kind, payload, timeout_s):
        if node in self.net.down:
            raise ConnectionError("it is not there")
        return await self.net.handlers[node, kind](self.name, payload)


@pytest.fixture
def net():
    return Nodes()


async def test_a_sender_that_one_node_works_for_has_its_whole_rate(net):
    one, two = net.make("one"), net.make("two")
    one.active = {A, B}
    await one.rates.tell()
    assert (one.rates.nodes("AC1", "+1"), two.rates.nodes("AC1", "+1")) == (1, 2)
    assert two.changes == 1


async def test_it_is_divided_by_those_that_have_work(net):
    one, two, three = (net.make(name) for name in ("one", "two", "three"))
    one.active = two.active = {A, B}
    for node in (one, two, three):
        await node.rates.tell()
    assert one.rates.nodes("AC1", "+1") == two.rates.nodes("AC1", "") == 2
    assert one.rates.nodes("AC1", "+2") == 1
    two.active = set()
    await two.rates.tell()
    assert one.rates.nodes("AC1", "+1") == 1
    assert one.changes == 2


async def test_a_node_that_says_nothing_any_more_counts_no_more(net):
    one, two = net.make("one"), net.make("two")
    two.active = {A}
    await two.rates.tell()
    net.now += OLD_S + 1
    assert one.rates.nodes("AC1", "+1") == 1
    await one.rates.tell()
    assert one.changes == 2


async def test_a_peer_that_is_down_keeps_nothing_from_the_others(net):
    one, two, three = (net.make(name) for name in ("one", "two", "three"))
    net.down = {"two"}
    one.active = {A}
    await one.rates.tell()
    assert (two.rates.nodes("AC1", "+1"), three.rates.nodes("AC1", "+1")) == (1, 2)


async def test_what_has_not_changed_brings_no_work(net):
    one, two = net.make("one"), net.make("two")
    one.active = {A}
    await one.rates.tell()
    await one.rates.tell()
    assert two.changes == 1
