"""Limits that nodes share: what one counts, the others count too; who is not heard of counts for nothing."""

import pytest

from trunkline.api.rate import RequestRate
from trunkline.cluster import shared_counts
from trunkline.cluster.failed_logins import FailedLogins
from trunkline.cluster.shared_counts import SharedCounts
from trunkline.messaging import shared_waiting
from trunkline.messaging.shared_waiting import SharedWaiting
from trunkline.model.errors import ApiError


class Net:
    """Nodes that reach each other by a call."""

    def __init__(self):
        self.handlers, self.down, self.now, self.told = {}, set(), 100.0, 0

    def node(self, name, **shared):
        net = self

        class Peers:
            def others(self):
                return sorted(set(net.handlers) - {name})

            async def call(self, node, kind, payload, timeout_s):
                net.told += 1
                if node in net.down:
                    raise ConnectionError("it is not there")
                return await net.handlers[node](name, payload)

        made = SharedCounts(Peers(), shared)
        made.serve(lambda kind, handler: net.handlers.__setitem__(name, handler))
        return made


@pytest.fixture
def net():
    return Net()


class Queues:
    def __init__(self, **waiting):
        self.waiting, self.waiting_elsewhere = waiting, {}


def admitted(rate, account="AC1"):
    count = 0
    while True:
        try:
            rate.take(account)
        except ApiError:
            return count
        count += 1


async def rounds(net, rates, counts, seconds):
    """Customers who ask as often as they may, at both nodes."""
    total = 0
    for _ in range(seconds):
        for _ in range(10):
            net.now += 0.1
            total += sum(admitted(rate) for rate in rates)
        for one in counts:
            await one.tell()
    return total


async def test_an_account_has_its_rate_at_all_nodes_together(net):
    rates = [RequestRate(20.0, lambda: net.now) for _ in range(2)]
    counts = [net.node(f"n{number}", requests=rate) for number, rate in enumerate(rates)]
    for one in counts:
        await one.tell()
    await rounds(net, rates, counts, 5)
    assert 0.7 * 20 <= await rounds(net, rates, counts, 30) / 30 <= 1.3 * 20
    net.down = {"n0", "n1"}
    await rounds(net, rates, counts, 5)
    alone = await rounds(net, rates, counts, 10) / 10
    assert alone >= 1.8 * 20, "each for itself while they do not hear each other"


async def test_who_fails_to_log_in_fails_everywhere(net):
    logins = [FailedLogins(5, 60, 100, lambda: net.now) for _ in range(2)]
    binds = [FailedLogins(20, 60, 100, lambda: net.now) for _ in range(2)]
    counts = [net.node(f"n{n}", logins=logins[n], binds=binds[n]) for n in range(2)]
    for one in counts:
        await one.tell()
    for _ in range(3):
        for limit in logins:
            limit.record("192.0.2.1")
    for _ in range(20):
        binds[0].record("192.0.2.2")
    assert [limit.left_s("192.0.2.1") for limit in logins] == [0, 0]
    assert [one.left_s("192.0.2.2") > 0 for one in binds] == [True, False]
    for one in counts:
        await one.tell()
    assert [limit.left_s("192.0.2.1") for limit in logins] == [60, 60]
    assert [one.left_s("192.0.2.2") > 0 for one in binds] == [True, True]
    before = net.told
    for one in counts:  # once more to say that it is over, then silence
        await one.tell()
        await one.tell()
    assert net.told == before + 2
    net.now += 61
    assert [limit.left_s("192.0.2.1") for limit in logins] == [0, 0]


async def test_what_waits_elsewhere_counts_until_that_node_is_silent(net, monkeypatch):
    monkeypatch.setattr(shared_waiting, "NOTABLE", 2)
    queues = [Queues(x=5, y=1), Queues(x=3), Queues()]
    counts = [net.node(f"n{n}", waiting=SharedWaiting(one, lambda: net.now)) for n, one in enumerate(queues)]
    for one in counts:
        await one.tell()
    assert [one.waiting_elsewhere for one in queues] == [{"x": 3}, {"x": 5}, {"x": 8}]
    queues[0].waiting = {}
    for one in counts:
        await one.tell()
    assert queues[2].waiting_elsewhere == {"x": 3}, "it has been sent"
    net.now += shared_waiting.OLD_S + 1
    for one in counts[::2]:
        await one.tell()
    assert queues[2].waiting_elsewhere == {}


async def test_what_is_told_and_heard_has_a_bound(net, monkeypatch):
    monkeypatch.setattr(shared_counts, "MAX_TOLD", 10)
    limit, other = (FailedLogins(1, 60, 1000, lambda: net.now) for _ in range(2))
    one, two = net.node("one", logins=limit), net.node("two", logins=other)
    await one.tell()
    for number in range(100):
        limit.record(f"192.0.2.{number}")
    await one.tell()
    assert len(other._windows) == 10
    await two._hear(
        "liar", shared_counts._encode({"logins": {f"x{n}": -5 for n in range(5)} | {"y": 1 << 60}, "z": {}})
    )
    assert [source for source in other._windows if source[0] in "xy"] == ["y"]
