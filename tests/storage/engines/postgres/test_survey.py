"""What the doctor says of servers whose commits are safe now, and of which more is expected."""

import pytest

from trunkline.storage.engines.postgres.durability import Server, Standby
from trunkline.storage.engines.postgres.survey import beside_each_other, weaknesses

ZONES = {"p1": "a", "p2": "b", "p3": "c"}


def standby(name, state="quorum"):
    return Standby(name, "10.0.0.2", "10.0.0.1", state)


def server(names, *standbys):
    return Server(settings={"synchronous_standby_names": names, "cluster_name": "p1"}, standbys=standbys)


@pytest.mark.parametrize(
    ("found", "zones", "said"),
    [
        (server("ANY 1 (p2,p3)", standby("p2"), standby("p3")), ZONES, []),
        (server(""), {}, []),
        (server("", standby("p2", "async")), ZONES, ["p2 follows asynchronously"]),
        (
            server("ANY 1 (p2,p3)", standby("p2"), standby("p3"), standby("p4", "async")),
            ZONES,
            ["p4 follows asynchronously"],
        ),
        (  # another region's
            server("ANY 1 (p2,p3)", standby("p2"), standby("p3"), standby("p4", "async")),
            {"p1": "one/a", "p2": "one/b", "p3": "one/c", "p4": "two/a"},
            [],
        ),
        (
            server("ANY 1 (p2,p3)", standby("p2"), standby("p3"), standby("p4", "async")),
            {"p1": "one/a", "p2": "one/b", "p3": "one/c", "p4": "one/d"},
            ["p4 follows asynchronously"],
        ),
        (server("ANY 1 (p2,p3)", standby("p2")), ZONES, ["p3 is listed as a standby and does not follow"]),
        (server("ANY 1 (p1,p2,p3)", standby("p2"), standby("p3")), ZONES, []),
        (server("ANY 2 (p2,p3)", standby("p2"), standby("p3")), ZONES, ["waits for all 2 standbys"]),
        (server("*", standby("p2")), ZONES, ["waits for all 1 standbys"]),
        (
            server("ANY 1 (p2,p3)", standby("p2"), standby("p3")),
            {"p1": "a", "p2": "b", "p3": "b"},
            ["2 of its servers are in b"],
        ),
        (
            server("ANY 1 (p2,p3)", standby("p2"), standby("p3")),
            {"p1": "a", "p2": "a", "p3": "b"},
            ["2 of its servers are in a"],
        ),
    ],
)
def test_each_weakness_is_one_line(found, zones, said):
    lines = list(weaknesses(found, zones))
    assert len(lines) == len(said)
    for line, part in zip(lines, said, strict=True):
        assert part in line


@pytest.mark.parametrize(
    ("primaries", "said"),
    [
        ([("queue", "")], []),
        ([("queue[0]", "a"), ("queue[1]", "b")], []),
        ([("queue[0]", "a"), ("queue[1]", "a")], ["queue[0] and queue[1] have their primaries in a"]),
        ([("queue[0]", "a"), ("queue[1]", "")], ["does not say where the primary of queue[1] is"]),
        ([("queue[0]", ""), ("queue[1]", "")], ["does not say where the primary of queue[0], queue[1] is"]),
    ],
)
def test_queue_databases_that_would_fall_together_are_told(primaries, said):
    lines = list(beside_each_other(primaries))
    assert len(lines) == len(said)
    for line, part in zip(lines, said, strict=True):
        assert part in line
