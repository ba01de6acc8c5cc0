"""The command line where queue and database are in PostgreSQL."""

from pathlib import Path

import pytest

from tests.postgres import PostgresServer, needs_postgres, postgres  # noqa: F401  (fixture)
from trunkline.bootstrap import check_storage, compact_stores, open_database
from trunkline.cli import backup
from trunkline.cli.common import CommandError
from trunkline.cli.doctor import kept, look_at_postgres
from trunkline.settings import Settings, SettingsError, load
from trunkline.storage.unavailable import StoreUnavailable

DSN = "host=/nowhere password=hunter2"


def settings(folder: Path, **storage: str) -> Settings:
    given = {"engine": "postgres", "queue": DSN, "database": DSN, **storage}
    return load(None, {}, {"storage": given, "data": {"path": str(folder / "data")}})


@pytest.mark.parametrize(
    ("storage", "why"),
    [
        ({"queue": ""}, "storage.queue: engine = "),
        ({"engine": "sqlite"}, "storage.queue: is of no use"),
        ({"engine": "sqlite", "queue": "", "database": "", "survives": "zone"}, "sqlite cannot outlive its zone"),
        ({"zones": ("p1",)}, "is not NAME=ZONE"),
        ({"engine": "mysql"}, "storage.engine"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, storage: dict[str, str], why: str) -> None:
    with pytest.raises(SettingsError, match=why) as refused:
        settings(tmp_path, **storage)
    assert "hunter2" not in str(refused.value)


def test_what_survives_what_is_told(tmp_path: Path) -> None:
    rows = {row.data: row for row in kept(settings(tmp_path, survives="zone"))}
    assert rows["accepted messages, callbacks owed"][2:4] == ("PostgreSQL", "process, power, host, zone")
    assert rows["media, recordings"].survives == "process, power"


def test_a_server_that_cannot_be_reached_is_a_finding(tmp_path: Path) -> None:
    (finding,) = look_at_postgres(settings(tmp_path))
    assert finding.verdict == "bad"
    assert "/nowhere" in finding.text
    assert "hunter2" not in finding.text
    with pytest.raises(StoreUnavailable):
        open_database(settings(tmp_path))


def test_backup_and_restore_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="pg_basebackup"):
        backup._refuse_postgres(settings(tmp_path))


@needs_postgres
def test_doctor_and_compaction_reach_the_server(tmp_path: Path, postgres: PostgresServer) -> None:  # noqa: F811
    own = settings(tmp_path, queue=postgres.database(), database=postgres.database())
    assert [finding.verdict for finding in look_at_postgres(own)] == ["ok", "ok"]
    assert len(check_storage(own)) == 2
    assert compact_stores(own)
    refused = settings(tmp_path, queue=postgres.database(), database=postgres.database(), survives="host")
    assert [finding.verdict for finding in look_at_postgres(refused)] == ["bad"]
