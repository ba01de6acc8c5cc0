import pytest

from trunkline.cluster import mistakes
from trunkline.cluster.peers import Peers
from trunkline.cluster.records import NodeRecord

S = 1_000_000_000


def node(name: str, zone: str = "", address: str = "") -> NodeRecord:
    return NodeRecord(name=name, zone=zone or name, address=address or f"{name}:1")


async def test_clocks_that_differ_and_nodes_that_do_not_answer_are_named() -> None:
    a, b, c = (Peers(name, "secret") for name in "abc")
    mistakes.serve(b, lambda: 1_003 * S)
    mistakes.serve(c, lambda: 1_000 * S + S // 2)
    known = {"b": f"127.0.0.1:{await b.listen('127.0.0.1:0')}", "c": f"127.0.0.1:{await c.listen('127.0.0.1:0')}"}
    a.know(known)
    found = await mistakes.problems(a, "a", [node("a"), node("b"), node("c"), node("d")], lambda: 1_000 * S)
    assert found == [
        "node b: its clock is 3.0 s ahead of this one's; run chrony on each",
        "node d does not answer: d is not known",
    ]
    for peers in (a, b, c):
        await peers.close()


def test_labels_that_say_nothing_are_named() -> None:
    alike = [node("a", "z"), node("b", "z", "a:1")]
    assert list(mistakes.label_problems(alike)) == [
        "node.zone: all 2 nodes say zone z; nothing tells which of them fail together",
        "node.address: a and b both say a:1; each needs its own",
    ]
    assert list(mistakes.label_problems([node("a")])) == []
    two_of_three = [node("a", "z"), node("b", "z"), node("c", "y")]
    assert list(mistakes.label_problems(two_of_three)) == [
        "node.zone: 2 of 3 nodes say z; if that is lost, the others must wait 30 s before they take over: spread them"
        " evenly"
    ]
    assert list(mistakes.label_problems([*two_of_three, node("d", "y")])) == [], "half of them is enough to agree"
    assert list(mistakes.label_problems([node("a"), node("b")])) == []


async def test_a_node_with_another_secret_is_refused_and_one_that_is_away_is_not_waited_for() -> None:
    a, b, stranger = Peers("a", "secret"), Peers("b", "secret"), Peers("s", "another")
    mistakes.serve(b)
    at_b = f"127.0.0.1:{await b.listen('127.0.0.1:0')}"
    members = [node("a"), node("b"), node("s"), node("gone")]
    for one in (a, stranger):
        one.know({"b": at_b, "gone": "127.0.0.1:1"})
    await mistakes.check_secret(a, "a", members)
    with pytest.raises(ValueError, match="node b has another one; it must be the same on each node"):
        await mistakes.check_secret(stranger, "s", members)
    assert await mistakes.problems(stranger, "s", [node("b")]) == [
        "node b does not answer: b: it refuses this node: is cluster.secret the same on both?"
    ]
    for peers in (a, b, stranger):
        await peers.close()
