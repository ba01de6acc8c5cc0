"""The lab's second region: what its engines and node are told, and what a run's verdict rests on."""

import json
import socket
import tomllib

import msgspec
import pytest
from lab.ledgers import Request
from lab.plan import Plan
from lab.region import TWO, RegionPlan, alone, following, regions, single
from lab.region_calls import Ending, Told, judge
from lab.region_handover import Handover, gaps
from lab.region_loss import Loss
from lab.verdict import messages

from lab import patroni, region_rounds
from tests.lab.test_phones import leg

ONE = Plan(name="x", queues=1, own_database=False)
SECOND = RegionPlan(name="x", queues=1, own_database=False)
LOSS = Loss(
    way="at-once", accepted=100, lost=2, unknown=3, compared=3, keys=0, not_counted=[], silent_s=1.0, before_s=0.5,
    promoted_s=9.0, duplicates=0, failed={}, refused="trunkline: region one was replaced: ...",
)  # fmt: skip


def test_the_second_region_has_its_own_engines_of_the_same_shape(tmp_path):
    assert [one.name for one in SECOND.zones] == [TWO.name]
    assert [(one.name, one.databases) for one in SECOND.clusters] == [(one.name, one.databases) for one in ONE.clusters]
    assert {one.store for one in ONE.zones}.isdisjoint({TWO.store})


def test_its_server_follows_all_of_the_first_region(tmp_path):
    (cluster,) = SECOND.clusters
    file = tmp_path / "patroni.yml"
    file.write_text(json.dumps(patroni.configuration(SECOND, cluster, TWO, tmp_path, tmp_path)))
    single(file)
    following(ONE, cluster, file)
    dynamic = json.loads(file.read_text())["bootstrap"]["dcs"]
    assert dynamic["standby_cluster"]["host"] == ",".join(zone.store for zone in ONE.zones)
    assert "synchronous_mode" not in dynamic


def test_its_node_asks_no_more_than_one_server_of_each_can_give():
    given = '[storage]\nsurvives = "zone"\n[memory]\nsurvives = "zone"\n[objects]\nsurvives = "zone"\n'
    found = tomllib.loads(alone(given) + regions(ONE, "one", "patronictl edit-config"))
    assert [found[name]["survives"] for name in ("storage", "memory", "objects")] == ["power", "process", "zone"]
    (other,) = found["regions"]
    assert (other["name"], len(other["queue"])) == ("one", 1)
    assert other["database"].endswith("/records")


CALLS = Told(up=6, ended=0, final=6, new=6, new_answered=6, new_final=6)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, True),
        ({"calls": CALLS}, True),
        ({"not_counted": ["SM1"]}, False),
        ({"lost": 4}, False),
        ({"wrong_final": 1}, False),
        ({"both": 1}, False),
        ({"refused": "listening"}, False),
        ({"problem": "a node of the lost region takes messages again"}, False),
        ({"calls": msgspec.structs.replace(CALLS, wrong=["CA1"])}, False),
        ({"calls": msgspec.structs.replace(CALLS, new_answered=5)}, False),
        ({"calls": msgspec.structs.replace(CALLS, new_final=5)}, False),
    ],
)
def test_a_loss_is_good_only_if_all_that_was_lost_is_counted_and_nothing_told_wrong(changes, verdict):
    assert msgspec.structs.replace(LOSS, **changes).good() is verdict


HANDED = Handover(
    messages=messages([], {}, {}), calls=msgspec.structs.replace(CALLS, ended=6), away_s=[3.0, 4.0],
    rejoined_s=[9.0, 8.0], missing_bytes=[0, 0], version="abc",
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, True),
        ({"missing_bytes": [0, 8]}, False),
        ({"both": 1}, False),
        ({"calls": msgspec.structs.replace(CALLS, ended=5)}, False),
        ({"calls": msgspec.structs.replace(CALLS, untold=["CA1"])}, False),
        ({"messages": msgspec.structs.replace(HANDED.messages, failed={"keyed": 1})}, False),
        ({"messages": msgspec.structs.replace(HANDED.messages, lost=1)}, False),
        ({"messages": msgspec.structs.replace(HANDED.messages, failed={"raw": 1})}, True),
    ],
)
def test_a_handover_is_good_only_if_nothing_is_lost(changes, verdict):
    assert msgspec.structs.replace(HANDED, **changes).good() is verdict


def test_the_time_without_an_acceptance_is_told_of_each_way():
    taken = [Request("raw", str(at), at - 0.1, at, "201", f"SM{at}", 1) for at in (1.0, 2.0, 7.0, 8.0, 11.0, 12.0)]
    assert gaps(taken, [1.5, 8.5]) == [5.0, 2.5]


# -- calls -----------------------------------------------------------------------------------------------------

STRUCK = 100.0


@pytest.fixture
def rtp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        yield made


def told(rtp, *endings, why="ours", **facts):
    """The verdict on a call that was up for ten seconds when its region was lost."""
    facts = {"heard": STRUCK, "began": 89.0, "why": why, "ended": 130.0, **facts}
    one = leg(rtp, **facts)
    return judge(
        [one], {"x": why if why == "theirs" else ""}, (STRUCK, STRUCK), [one], {"x": "CA1"}, {"CA1": [*endings]}, [one]
    )


def test_a_call_of_a_lost_region_is_told_completed_as_of_the_last_heartbeat(rtp):
    found = told(rtp, Ending(112.0, "completed", 8))
    assert (found.up, found.ended, found.final, found.told_s, found.short_s) == (1, 0, 1, 12.0, 2.0)
    assert not found.wrong
    assert not found.untold


@pytest.mark.parametrize(
    "endings",
    [
        [Ending(112.0, "completed", 22)],
        [Ending(112.0, "failed", 10)],
        [Ending(112.0, "completed", 10), Ending(113.0, "failed", 0)],
        [Ending(99.0, "completed", 9)],
    ],
)
def test_it_is_wrong_to_bill_the_outage_to_contradict_or_to_tell_before(rtp, endings):
    assert told(rtp, *endings).wrong


def test_who_is_never_told_of_is_named(rtp):
    assert told(rtp).untold == ["CA1"]


def test_nobody_speaks_for_a_call_of_a_lost_region(rtp):
    ending = Ending(112.0, "completed", 10)
    assert told(rtp, ending, reinvites=1).wrong
    assert told(rtp, ending, heard=STRUCK + 5).wrong


def test_a_call_that_is_hung_up_in_order_may_be_heard_until_then(rtp):
    found = told(rtp, Ending(112.0, "completed", 20), why="theirs", heard=110.0, ended=110.0)
    assert (found.ended, found.final, found.wrong) == (1, 1, [])


# -- the page --------------------------------------------------------------------------------------------------


def test_results_are_put_into_the_page(tmp_path):
    kept = {
        region_rounds.LOSS: [msgspec.structs.replace(LOSS, calls=CALLS, version=name) for name in ("abc", "def")],
        region_rounds.HANDOVER: [HANDED],
    }
    for name, runs in kept.items():
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(msgspec.json.encode(run) + b"\n" for run in runs))
    with (tmp_path / f"{region_rounds.LOSS}.jsonl").open("ab") as older:
        older.write(msgspec.json.encode(LOSS) + b"\n")
    page = tmp_path / "page.md"
    page.write_text("# Page\n" + "".join(f"{mark}\n" for name in kept for mark in marks(name)) + "rest\n")
    assert region_rounds.update(page, tmp_path) == 3, "runs of an older shape do not count"
    text = page.read_text()
    assert "| at-once | 2 | 200 | 4 | 6 | 6 and 0 keys | **0** |" in text
    assert "| abc to def |" in text
    assert "| 1 | 0 | 0 |" in text
    assert text.endswith("rest\n")
    region_rounds.update(page, tmp_path)
    assert page.read_text() == text


def marks(name):
    return [region_rounds.MARK.format(name=name, edge=edge) for edge in ("begin", "end")]


def test_the_page_of_the_reference_has_the_marks():
    text = region_rounds.PAGE.read_text()
    for name in (region_rounds.LOSS, region_rounds.HANDOVER):
        assert [text.count(mark) for mark in marks(name)] == [1, 1]
