"""`trunkline region` on two regions with real databases."""

import json

import pytest

from tests.cli.conftest import data, trunkline  # noqa: F401 - fixtures
from tests.postgres import needs_postgres
from tests.region.regions import Regions, accept, caught_up, dsns
from trunkline.bootstrap_region import wait_until_active
from trunkline.cli.doctor_durability import kept
from trunkline.cli.doctor_region import look_at_regions
from trunkline.region import databases
from trunkline.region.promotion import begin
from trunkline.settings import load

pytestmark = [needs_postgres, pytest.mark.slow]
SETTINGS = """
[node]
name = "a"
region = "{name}"
address = "127.0.0.1:7400"
[cluster]
enabled = true
secret = "{secret}"
[security]
master_key = "{key}"
[data]
path = "{folder}"
[storage]
engine = "postgres"
queue = "{own[queue0]}"
partitions = 2
database = "{own[database]}"
survives = "process"
[memory]
engine = "valkey"
url = "redis://127.0.0.1:1/0"
[objects]
url = "file://{objects}"
[region]
alone_s = 0.5
[[regions]]
name = "{other}"
queue = "{its[queue0]}"
database = "{its[database]}"
"""


@pytest.fixture
def regions(tmp_path):
    made = Regions(tmp_path)
    yield made
    made.close()


def file_of(regions, tmp_path, name):
    servers = {"one": regions.one, "two": regions.two}
    (other,) = servers.keys() - {name}
    folder = tmp_path / name
    folder.mkdir(exist_ok=True)
    file = folder / "trunkline.toml"
    file.write_text(
        SETTINGS.format(
            name=name,
            other=other,
            own=dsns(servers[name]),
            its=dsns(servers[other]),
            secret="s" * 40,
            key="00" * 32,
            folder=folder / "data",
            objects=tmp_path / "objects",
        )
    )
    return str(file)


def test_from_the_first_epoch_to_the_count_of_what_was_lost(regions, tmp_path, trunkline):  # noqa: F811
    one, two = (file_of(regions, tmp_path, name) for name in ("one", "two"))
    assert trunkline("--config", two, "region", "status").out.startswith("region two: standby: no region has been")
    wait_until_active(load(one, {}))
    caught_up(regions)
    shown = trunkline("--config", one, "region", "status")
    assert shown.code == 0
    assert "region one: active: epoch 1" in shown.out
    assert "\tstandby\t1 one\t" in shown.out
    settings = load(one, {})
    findings = [*look_at_regions(settings)]
    assert [one.verdict for one in findings] == ["ok", "ok", "ok"]
    assert "losing one now would lose the last" in findings[1].text
    assert "region but for the lag" in next(row for row in kept(settings) if row.data.startswith("accepted")).survives
    assert trunkline("--config", one, "region", "promote", "--to", "two").err.startswith(
        "trunkline: this is region one"
    )
    accept(regions.one, 1, 2)
    caught_up(regions)
    regions.two.sql("select pg_wal_replay_pause()")
    regions.two.end()  # the line breaks
    (lost,) = accept(regions.one, 3)
    regions.one.end()
    regions.two.start()
    told = trunkline("--config", two, "region", "promote", "--to", "two")
    assert (told.code, "if that region is lost, say --lost" in told.err) == (1, True)
    report = json.loads(trunkline("--config", two, "region", "promote", "--to", "two", "--lost", "--json").out)
    assert report["epoch"]["epoch"] == 2
    wait_until_active(load(two, {}))  # returns at once
    regions.one.start()
    with pytest.raises(SystemExit, match="region one was replaced: two is active in epoch 2"):
        wait_until_active(load(one, {}))
    assert trunkline("--config", one, "region", "status").code == 1
    out = tmp_path / "missing.jsonl"
    found = trunkline("--config", two, "region", "compare", "--with", "one", "--out", str(out))
    assert found.code == 1, found.err
    assert "3 messages and calls of one looked for; 1 are missing" in found.out
    assert [json.loads(line)["sid"] for line in out.read_text().splitlines()] == [lost]
    assert "2 took the place" not in found.out
    assert "two took the place of one" in trunkline("--config", two, "region", "status").out


def test_without_other_regions_there_is_nothing_to_say(tmp_path, trunkline):  # noqa: F811
    assert "there is one region only" in trunkline("region", "status").err


def test_the_doctor_sees_a_region_that_cannot_be_reached_and_two_that_write(regions, tmp_path):
    one = load(file_of(regions, tmp_path, "one"), {})
    begin(regions.ways("one"))
    regions.two.end()
    assert [finding.verdict for finding in look_at_regions(one)] == ["ok", "bad", "bad"]
    regions.two.start()
    for name, dsn in databases.clusters(dsns(regions.two)).items():
        databases.promote(dsn, name, "")
    texts = [finding.text for finding in look_at_regions(one)]
    assert texts[1] == "queue0: those of one and two both take writes"
