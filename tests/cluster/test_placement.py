from collections import Counter

import pytest

from trunkline.cluster.placement import BOTH, CALLS, MESSAGES, UPKEEP, Place, Thing, heir, heirs, partitions, place

NAMES = [f"n{number}" for number in range(9)]


def things(count: int, databases: int) -> list[Thing]:
    named = [Thing(f"connector/{number}", "connector") for number in range(5)]
    return [*partitions(count, databases), *named, Thing("single/rollup", "single"), Thing("single/privacy", "single")]


@pytest.mark.parametrize("nodes", [1, 2, 3, 5, 9])
@pytest.mark.parametrize(("count", "databases"), [(1, 1), (8, 2), (12, 3), (64, 4)])
def test_nodes_and_databases_have_equal_shares(nodes: int, count: int, databases: int) -> None:
    placed = place(partitions(count, databases), NAMES[:nodes], {})
    assert len(placed) == count
    load = Counter(placed.values())
    assert max(load.values()) - min(load.get(name, 0) for name in NAMES[:nodes]) <= 1
    for database in range(databases):
        of_it = Counter(placed[f"p/{number}"] for number in range(database, count, databases))
        assert max(of_it.values()) - min(of_it.get(name, 0) for name in NAMES[:nodes]) <= 1


def test_every_node_computes_the_same() -> None:
    all_things = things(16, 2)
    assert place(all_things, NAMES[:4], {}) == place(all_things[::-1], NAMES[3::-1], {})


@pytest.mark.parametrize("nodes", [2, 3, 5, 8])
def test_a_join_moves_no_more_than_the_newcomers_share(nodes: int) -> None:
    all_things = things(32, 2)
    before = place(all_things, NAMES[:nodes], {})
    after = place(all_things, NAMES[: nodes + 1], before)
    moved = {name for name in before if before[name] != after[name]}
    share = Counter(after.values())[NAMES[nodes]]
    groups = len({thing.group for thing in all_things})
    assert share >= len(all_things) // (nodes + 1) - groups
    assert len(moved) <= share + groups, "and where a share had to be evened out"
    assert place(all_things, NAMES[: nodes + 1], after) == after, "then it rests"


@pytest.mark.parametrize("nodes", [2, 3, 5, 8])
def test_a_leave_moves_what_the_leaver_had(nodes: int) -> None:
    all_things = things(32, 2)
    before = place(all_things, NAMES[:nodes], {})
    after = place(all_things, NAMES[1:nodes], before)
    moved = {name for name in before if before[name] != after[name]}
    had = {name for name, node in before.items() if node == NAMES[0]}
    assert had <= moved
    assert len(moved - had) <= len({thing.group for thing in all_things})


def test_what_has_no_owner_goes_where_there_is_room_and_the_rest_stays() -> None:
    current = {"p/0": "a", "p/1": "b", "p/2": "gone"}
    placed = place(partitions(4), ["a", "b"], current)
    assert (placed["p/0"], placed["p/1"]) == ("a", "b")
    assert Counter(placed.values()) == {"a": 2, "b": 2}


def test_without_nodes_nothing_is_placed() -> None:
    assert place(things(4, 1), [], {"p/0": "gone"}) == {}


def test_heirs_are_of_another_zone_and_share_the_load() -> None:
    nodes = [Place(f"{zone}{number}", zone) for zone in ("x", "y", "z") for number in (1, 2)]
    found = heirs(nodes)
    zones = {node.name: node.zone for node in nodes}
    assert all(zones[found[name]] != zones[name] for name in zones)
    assert Counter(found.values()) == dict.fromkeys(zones, 1)


def test_in_one_zone_another_node_inherits_and_of_a_single_one_nobody() -> None:
    assert heir("a", [Place("a", "x"), Place("b", "x")]) == "b"
    assert heir("a", [Place("a", "x")]) == ""
    assert heir("a", [Place("b", "x")]) == ""


ROLES = {"n0": ("api",), "n1": ("messaging",), "n2": ("api", "messaging"), "n3": ("voice", "media"), "n4": ()}
"""The last one tells none: an older version, which does everything."""


def test_things_go_only_to_nodes_that_have_the_roles_for_them() -> None:
    all_things = [
        *partitions(12, 2, 4), Thing("connector/a", "connectors", MESSAGES), Thing("trunk/t", "trunks", CALLS),
        Thing("single/x", "singletons", UPKEEP),
    ]  # fmt: skip
    placed = place(all_things, ROLES, {}, ROLES)
    assert placed.keys() == {thing.name for thing in all_things}
    messages = {placed[f"p/{number}"] for number in range(8)}
    assert messages == {"n1", "n2", "n4"}
    assert {placed[f"p/{number}"] for number in range(8, 12)} == {"n3", "n4"}
    assert placed["connector/a"] in messages
    assert placed["trunk/t"] in {"n3", "n4"}
    assert placed["single/x"] in messages
    load = Counter(placed[f"p/{number}"] for number in range(8))
    assert max(load.values()) - min(load.values()) <= 2, "even over both databases"


def test_without_a_node_of_its_role_a_thing_is_nobodys() -> None:
    nodes = ["n0", "n1"]
    assert place([Thing("trunk/t", "trunks", CALLS), *partitions(4, 2, 2)], nodes, {}, ROLES).keys() == {"p/0", "p/1"}
    assert place([Thing("single/x", "singletons", UPKEEP)], ["n0"], {}, ROLES) == {"single/x": "n0"}


def test_mixed_partitions_want_both_and_settle_for_messages() -> None:
    assert {thing.needs for thing in partitions(4)} == {BOTH}
    assert set(place(partitions(4), ["n1", "n3", "n4"], {}, ROLES).values()) == {"n4"}
    assert set(place(partitions(4), ["n1", "n3"], {}, ROLES).values()) == {"n1"}
    assert place(partitions(4), ["n0", "n3"], {}, ROLES) == {}


def test_an_heir_can_do_what_the_dead_one_did() -> None:
    members = [Place(name, f"z{name}", ROLES[name]) for name in ROLES]
    found = heirs(members)
    assert found["n1"] in {"n2", "n4"}
    assert found["n3"] == "n4"
    assert found["n4"] == "", "nobody else does everything"
    assert found["n0"] != "n0"
    assert heir("n3", [Place("n3", "a", ("voice", "media")), Place("n1", "b", ("messaging",))]) == ""
