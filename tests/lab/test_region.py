"""The lab's second region: what its engines and node are told, and what a run's verdict rests on."""

import json
import tomllib

import msgspec
import pytest
from lab.plan import Plan
from lab.region import TWO, RegionPlan, alone, follow, regions
from lab.region_loss import Loss, good

from lab import patroni

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
    follow(ONE, SECOND, cluster, file)
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


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, True),
        ({"not_counted": ["SM1"]}, False),
        ({"lost": 4}, False),
        ({"refused": "listening"}, False),
        ({"problem": "a node of the lost region takes messages again"}, False),
    ],
)
def test_a_run_is_good_only_if_all_that_was_lost_is_counted(changes, verdict):
    assert good(msgspec.structs.replace(LOSS, **changes)) is verdict
