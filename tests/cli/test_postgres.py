"""The command line where queue and database are in PostgreSQL."""

from pathlib import Path
from typing import Any

import pytest

from tests.postgres import PostgresServer, needs_postgres
from trunkline.bootstrap import check_storage, compact_stores, open_database, open_queue
from trunkline.bootstrap_stores import open_sharded_queue
from trunkline.cli import backup
from trunkline.cli.common import CommandError
from trunkline.cli.doctor_durability import kept, look_at_postgres
from trunkline.settings import Settings, SettingsError, load
from trunkline.storage.survives import CannotSurvive
from trunkline.storage.unavailable import StoreUnavailable

DSN = "host=/nowhere password=hunter2"


def settings(folder: Path, **storage: Any) -> Settings:
    given = {"engine": "postgres", "queue": DSN, "database": DSN, **storage}
    return load(None, {}, {"storage": given, "data": {"path": str(folder / "data")}})


@pytest.mark.parametrize(
    ("storage", "why"),
    [
        ({"queue": ""}, "storage.queue: engine = "),
        ({"engine": "sqlite"}, "storage.queue: is of no use"),
        ({"engine": "sqlite", "queue": "", "database": "", "survives": "zone"}, "sqlite cannot outlive its zone"),
        ({"zones": ("p1",)}, "is not NAME=ZONE"),
        ({"queue": [DSN, DSN]}, "storage.partitions: 1 cannot be spread over 2 databases"),
        ({"queue": [DSN, DSN], "partitions": 4}, "storage.queue: each database must be named, and once only"),
        ({"queue": [DSN, ""], "partitions": 4}, "storage.queue: each database must be named, and once only"),
        ({"engine": "sqlite", "queue": "", "database": "", "partitions": 2}, "storage.partitions: sqlite has 1"),
        ({"partitions": 65}, "storage.partitions"),
        ({"engine": "mysql"}, "storage.engine"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, storage: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError, match=why) as refused:
        settings(tmp_path, **storage)
    assert "hunter2" not in str(refused.value)


def test_what_survives_what_is_told(tmp_path: Path) -> None:
    rows = {row.data: row for row in kept(settings(tmp_path, survives="zone"))}
    assert rows["accepted messages, callbacks owed"][2:4] == ("PostgreSQL", "process, power, host, zone")
    assert rows["media, recordings"].survives == "process, power"


def test_a_server_that_cannot_be_reached_is_a_finding(tmp_path: Path) -> None:
    findings = list(look_at_postgres(settings(tmp_path)))
    assert [finding.verdict for finding in findings] == ["bad", "bad"]
    for finding in findings:
        assert "/nowhere" in finding.text
        assert "hunter2" not in finding.text
    with pytest.raises(StoreUnavailable):
        open_database(settings(tmp_path))


def test_backup_and_restore_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="pg_basebackup"):
        backup._refuse_postgres(settings(tmp_path))


@needs_postgres
def test_doctor_and_compaction_reach_the_server(tmp_path: Path, postgres: PostgresServer) -> None:
    own = settings(tmp_path, queue=postgres.database(), database=postgres.database())
    assert [finding.verdict for finding in look_at_postgres(own)] == ["ok", "ok"]
    assert len(check_storage(own)) == 2
    assert compact_stores(own)
    refused = settings(tmp_path, queue=postgres.database(), database=postgres.database(), survives="host")
    assert [finding.verdict for finding in look_at_postgres(refused)] == ["bad", "bad"]


@needs_postgres
async def test_each_queue_database_is_looked_at_and_its_layout_compared(
    tmp_path: Path,
    postgres: PostgresServer,
) -> None:
    queues = [postgres.database(), postgres.database()]
    own = settings(tmp_path, queue=queues, partitions=4, database=postgres.database())
    with pytest.raises(CannotSurvive, match="needs a cluster"):
        open_queue(own)
    await open_sharded_queue(own).close()
    found = list(look_at_postgres(own))
    assert [finding.verdict for finding in found] == ["ok", "ok", "ok", "warn"]
    assert "does not say where the primary of queue[0], queue[1] is" in found[-1].text
    assert compact_stores(own)
    swapped = settings(tmp_path, queue=queues[::-1], partitions=4, database=queues[0])
    with pytest.raises(CannotSurvive, match="keep the order"):
        open_sharded_queue(swapped)
    other = settings(tmp_path, queue=queues, partitions=8, database=queues[0])
    with pytest.raises(CannotSurvive, match=r"storage\.partitions is 8, .* made with 4: say partitions = 4"):
        open_sharded_queue(other)
    assert "made with 4" in next(iter(look_at_postgres(other))).text


def test_several_connection_strings_come_a_line_each_from_the_environment(tmp_path: Path) -> None:
    given = {"engine": "postgres", "database": DSN, "partitions": 2}
    text = "host=a,b dbname=q\nhost=c,d dbname=q\n"
    found = load(None, {"TRUNKLINE_STORAGE_QUEUE": text, "D": "host=d"}, {"storage": given})
    assert found.storage.queue == ("host=a,b dbname=q", "host=c,d dbname=q")
    file = tmp_path / "trunkline.toml"
    file.write_text(f'[storage]\nengine = "postgres"\npartitions = 2\nqueue = ["env:D", "x"]\ndatabase = "{DSN}"\n')
    own = load(str(file), {"D": "host=d"}).storage
    assert own.queue == ("host=d", "x")
    assert "host=d" not in repr(own)
