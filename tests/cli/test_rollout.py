"""The order of a rollout, its gates and its way back, with nodes made up."""

from typing import Any

import pytest

from trunkline.cli.rollout import Rollout, by_zone, since, slower
from trunkline.cluster.records import NodeRecord

ZONES = [("a", ["a1", "a2"]), ("b", ["b1"])]


class Nodes:
    """What each node would answer."""

    def __init__(self) -> None:
        self.python = dict.fromkeys(("a1", "a2", "b1"), "/old")
        self.handovers = dict.fromkeys(self.python, 0)
        self.ok = dict.fromkeys(self.python, True)
        self.well = dict.fromkeys(self.python, True)
        self.requests = dict.fromkeys(self.python, 0)
        self.errors = dict.fromkeys(self.python, 0)
        self.failing = 0
        self.slow = dict.fromkeys(self.python, 0)
        self.delayed = 0
        """Of 100 requests that a node of the new version answers, those that take up to a second."""
        self.orders: list[tuple[str, str]] = []
        self.said: list[str] = []

    async def ask(self, node: str, order: dict[str, Any]) -> dict[str, Any]:
        if order["do"] == "upgrade":
            self.orders.append((node, order["python"]))
            self.handovers[node] += 1
            if self.ok[node]:
                self.python[node] = order["python"]
            return {"accepted": True}
        self.requests[node] += 100
        if self.python[node] == "/new":
            self.errors[node] += self.failing
            self.slow[node] += self.delayed
        return {
            "children": [{"name": "node", "pid": 7, "python": self.python[node]}],
            "handovers": self.handovers[node],
            "last": {"ok": self.ok[node], "why": "it ended", "pause_s": 0.3},
            "well": self.well[node],
            "why": "" if self.well[node] else "no queue",
            "requests": self.requests[node],
            "errors": self.errors[node],
            "within": {
                "0.1": self.requests[node] - self.slow[node],
                "1.0": self.requests[node],
                "+Inf": self.requests[node],
            },
        }

    def rollout(self) -> Rollout:
        return Rollout(self.ask, self.said.append, patience_s=0.1, watch_s=0.0, look_s=0.001)


@pytest.fixture
def nodes() -> Nodes:
    return Nodes()


async def test_every_node_in_turn_zone_by_zone(nodes: Nodes) -> None:
    assert await nodes.rollout().over(ZONES, "/new", 1.0)
    assert nodes.orders == [("a1", "/new"), ("a2", "/new"), ("b1", "/new")]
    assert set(nodes.python.values()) == {"/new"}


async def test_a_node_that_goes_back_by_itself_puts_the_others_back(nodes: Nodes) -> None:
    nodes.ok["a2"] = False
    assert not await nodes.rollout().over(ZONES, "/new", 1.0)
    assert nodes.orders == [("a1", "/new"), ("a2", "/new"), ("a1", "/old")]
    assert set(nodes.python.values()) == {"/old"}
    assert any("it ended" in line for line in nodes.said)


async def test_a_node_that_does_not_get_well_again_is_put_back_with_the_others(nodes: Nodes) -> None:
    rollout = nodes.rollout()

    async def ask(node: str, order: dict[str, Any]) -> dict[str, Any]:
        nodes.well["b1"] = nodes.python["b1"] == "/old" and (node, order["do"]) != ("b1", "upgrade")
        return await nodes.ask(node, order)

    rollout.ask = ask
    assert not await rollout.over(ZONES, "/new", 1.0)
    assert nodes.orders[3:] == [("b1", "/old"), ("a2", "/old"), ("a1", "/old")]


async def test_requests_that_fail_stop_it_after_the_first_zone(nodes: Nodes) -> None:
    nodes.failing = 5
    assert not await nodes.rollout().over(ZONES, "/new", 1.0)
    assert ("b1", "/new") not in nodes.orders
    assert set(nodes.python.values()) == {"/old"}


async def test_requests_that_take_longer_stop_it_after_the_first_zone(nodes: Nodes) -> None:
    nodes.delayed = 20
    assert not await nodes.rollout().over(ZONES, "/new", 1.0)
    assert ("b1", "/new") not in nodes.orders
    assert any("20 of 100 requests took longer than 0.1 s" in line for line in nodes.said)


async def test_a_few_that_take_longer_are_put_up_with(nodes: Nodes) -> None:
    nodes.delayed = 4
    assert await nodes.rollout().over(ZONES, "/new", 1.0)


@pytest.mark.parametrize(
    ("now", "former", "judged"),
    [
        ({"requests": 100, "within": {"0.1": 50, "+Inf": 100}}, {"requests": 100, "within": {"0.1": 100}}, True),
        ({"requests": 19, "within": {"0.1": 0, "+Inf": 19}}, {"requests": 100, "within": {"0.1": 100}}, False),
        ({"requests": 100, "within": {"0.1": 0, "+Inf": 100}}, {"requests": 19, "within": {"0.1": 19}}, False),
        ({"requests": 100, "within": {"0.1": 0, "+Inf": 100}}, {"requests": 100}, False),
        ({"requests": 100}, {"requests": 100, "within": {"0.1": 100}}, False),
        ({"requests": 100, "within": {"0.2": 0, "+Inf": 100}}, {"requests": 100, "within": {"0.1": 100}}, False),
    ],
)
def test_what_cannot_be_compared_is_not_judged(now: dict[str, Any], former: dict[str, Any], judged: bool) -> None:
    assert bool(slower(since(now, {}), since(former, {}), 0.05)) is judged


async def test_nothing_is_done_while_a_node_is_not_well(nodes: Nodes) -> None:
    nodes.well["a1"] = False
    assert not await nodes.rollout().over(ZONES, "/new", 1.0)
    assert nodes.orders == []


def test_zones_and_nodes_go_by_name() -> None:
    made = [NodeRecord(name=name, zone=zone) for name, zone in (("n3", "b"), ("n2", "a"), ("n1", "a"))]
    assert by_zone(made) == [("a", ["n1", "n2"]), ("b", ["n3"])]
