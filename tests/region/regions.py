"""Two regions of one PostgreSQL server each: the second follows the first."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from tests.postgres import PostgresServer
from trunkline.region.promotion import Ways
from trunkline.region.witness import Witness
from trunkline.storage.engines.postgres import database, recent
from trunkline.storage.engines.postgres.partitions import prepare
from trunkline.storage.objects import Location, Objects

PATIENCE_S = 60.0
PARTITIONS = 2
ACCOUNT = "AC" + "1" * 32


def until(done: Callable[[], Any], what: str) -> Any:
    """Wait for it."""
    end = time.monotonic() + PATIENCE_S
    while not (found := done()):
        assert time.monotonic() < end, what
        time.sleep(0.02)
    return found


def dsns(server: PostgresServer) -> dict[str, str]:
    return {"queue0": server.dsn("queue"), "database": server.dsn("records")}


class Regions:
    """`one` takes writes, `two` follows it. Each test has databases of its own, by making servers of its own."""

    def __init__(self, folder: Path) -> None:
        settings = {"hot_standby": "on", "wal_keep_size": "64MB", "wal_receiver_status_interval": "1"}
        self.one = PostgresServer(settings).create().start()
        for name in ("queue", "records"):
            assert self.one.sql(f"create database {name}") == []
        with psycopg.connect(self.one.dsn("queue"), autocommit=True) as connection:
            prepare(connection, PARTITIONS)
        with psycopg.connect(self.one.dsn("records"), autocommit=True) as connection:
            database.prepare(connection)
            recent.prepare(connection)
        self.two = PostgresServer(settings).follow(self.one, "two").start()
        (folder / "objects").mkdir()
        self.witness = Witness(Objects(Location(url=f"file://{folder / 'objects'}")))
        self.said: list[str] = []

    def ways(self, name: str, **changes: Any) -> Ways:
        servers = {"one": self.one, "two": self.two}
        (other,) = servers.keys() - {name}
        given = Ways(
            name=name, own=dsns(servers[name]), others={other: dsns(servers[other])}, witness=self.witness,
            alone_s=30.0, drain_s=5.0, say=self.said.append,
        )  # fmt: skip
        return given._replace(**changes)

    def follow_again(self, server: PostgresServer, primary: PostgresServer, name: str) -> None:
        """A former primary becomes a standby of the new one, from nothing."""
        server.end()
        shutil.rmtree(server.data)
        server.follow(primary, name).start()

    def close(self) -> None:
        self.two.close()
        self.one.close()


def flight(number: int, status: str = "queued") -> tuple[Any, ...]:
    """A row of `flight`."""
    key = f"{number:012x}00{number:018x}"
    return (number, ACCOUNT, key, "SM" + key, "message", status, 0, "", 0, 0, b"{}")


def accept(server: PostgresServer, *numbers: int, schema: str = "p00") -> list[str]:
    """Put flights into a partition; their SIDs."""
    rows = [flight(number) for number in numbers]
    with psycopg.connect(server.dsn("queue")) as connection, connection.cursor() as cursor:
        cursor.executemany(f"insert into {schema}.flight values (%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%b)".encode(), rows)
    return [row[3] for row in rows]


def caught_up(regions: Regions) -> None:
    """Wait until the second server has replayed what the first one has."""
    (end,) = regions.one.sql("select pg_current_wal_lsn()") or [("",)]
    until(
        lambda: regions.two.sql(f"select 1 where pg_last_wal_replay_lsn() >= '{end[0]}'"), "the standby does not follow"
    )
