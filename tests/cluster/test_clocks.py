from trunkline.cluster import clocks
from trunkline.cluster.peers import Peers
from trunkline.cluster.records import NodeRecord

S = 1_000_000_000


def node(name: str, zone: str = "", address: str = "") -> NodeRecord:
    return NodeRecord(name=name, zone=zone or name, address=address or f"{name}:1")


async def test_clocks_that_differ_and_nodes_that_do_not_answer_are_named() -> None:
    a, b, c = (Peers(name, "secret") for name in "abc")
    clocks.serve(b, lambda: 1_003 * S)
    clocks.serve(c, lambda: 1_000 * S + S // 2)
    known = {"b": f"127.0.0.1:{await b.listen('127.0.0.1:0')}", "c": f"127.0.0.1:{await c.listen('127.0.0.1:0')}"}
    a.know(known)
    found = await clocks.problems(a, "a", [node("a"), node("b"), node("c"), node("d")], lambda: 1_000 * S)
    assert found == [
        "node b: its clock is 3.0 s ahead of this one's; run chrony on each",
        "node d does not answer: d is not known",
    ]
    for peers in (a, b, c):
        await peers.close()


def test_labels_that_say_nothing_are_named() -> None:
    alike = [node("a", "z"), node("b", "z", "a:1")]
    assert list(clocks.label_problems(alike)) == [
        "node.zone: all 2 nodes say zone z; nothing tells which of them fail together",
        "node.address: a and b both say a:1; each needs its own",
    ]
    assert list(clocks.label_problems([node("a")])) == []
    assert list(clocks.label_problems([node("a"), node("b")])) == []
