"""What a server's settings and standbys give, as a table; and a real server that does not give it."""

import asyncio

import pytest

from tests.postgres import PostgresServer, needs_postgres
from trunkline.model.clock import SystemClock
from trunkline.storage.engines.postgres import writer as writing
from trunkline.storage.engines.postgres.database import PostgresDatabase
from trunkline.storage.engines.postgres.durability import Server, Standby, check, look, parse_names
from trunkline.storage.engines.postgres.queue import PostgresQueue
from trunkline.storage.engines.postgres.session import BadDsn, Servers
from trunkline.storage.queue import Flight
from trunkline.storage.secrets import Secrets
from trunkline.storage.survives import CannotSurvive, Survives
from trunkline.storage.unavailable import StoreUnavailable

GOOD = {
    "server_version_num": "150018",
    "server_encoding": "UTF8",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "synchronous_standby_names": "",
    "cluster_name": "",
}
ZONES = {"p1": "eu/a", "p2": "eu/b", "p3": "us/c"}
FAR = (Standby("p2", "10.0.0.2", "10.0.0.1", "quorum"), Standby("p3", "10.0.0.3", "10.0.0.1", "quorum"))
NEAR = (Standby("p2", "", "", "sync"), Standby("p3", "127.0.0.1", "127.0.0.1", "sync"))
BOTH = "ANY 1 (p2,p3)"
LATE_S = 0.3
"""A commit that does not wait for a standby takes milliseconds."""


def control(dsn, **how):
    return PostgresDatabase(dsn, SystemClock(), Secrets([b"k" * 32]), **how)


@pytest.fixture(scope="module")
def alone():
    """A primary whose standby is away."""
    made = PostgresServer({"synchronous_standby_names": "b"}).create().start()
    yield made
    made.close()


def server(standbys=(), **changes):
    return Server(settings=GOOD | changes, standbys=standbys)


@pytest.mark.parametrize(
    ("found", "wanted", "zones"),
    [
        (server(fsync="off", synchronous_commit="off"), Survives.PROCESS, {}),
        (server(), Survives.POWER, {}),
        (server(synchronous_commit="local"), Survives.POWER, {}),
        (server(FAR, synchronous_standby_names=BOTH), Survives.HOST, {}),
        (server(FAR, synchronous_standby_names="FIRST 1 (p2, p3)"), Survives.ZONE, ZONES),
        (server(NEAR, synchronous_standby_names="p2"), Survives.ZONE, ZONES),
        (server(FAR, synchronous_standby_names="*", cluster_name="p1"), Survives.ZONE, ZONES),
        (server(FAR, synchronous_standby_names="ANY 2 (p2,p3)"), Survives.REGION, ZONES),
        (server(FAR, synchronous_standby_names="ANY 1 (p3)", cluster_name="p1"), Survives.REGION, ZONES),
        # One of three is away, and Patroni has taken it off the list: whichever the primary is, p3 is elsewhere.
        (server(FAR[1:], synchronous_standby_names="ANY 1 (p3)"), Survives.ZONE, ZONES),
    ],
)
def test_what_is_enough(found, wanted, zones):
    check(found, wanted, zones)


@pytest.mark.parametrize(
    ("found", "wanted", "zones", "why"),
    [
        (server(fsync="off"), Survives.POWER, {}, "fsync is off"),
        (server(full_page_writes="off"), Survives.POWER, {}, "full_page_writes is off"),
        (server(synchronous_commit="off"), Survives.POWER, {}, "synchronous_commit is off"),
        (server(server_version_num="120001"), Survives.PROCESS, {}, "13 or newer"),
        (server(server_encoding="SQL_ASCII"), Survives.PROCESS, {}, "not UTF8"),
        (server(FAR), Survives.HOST, ZONES, "synchronous_standby_names is empty"),
        (server(FAR, synchronous_standby_names=BOTH, synchronous_commit="remote_write"), Survives.HOST, {}, "be on"),
        (server((), synchronous_standby_names=BOTH), Survives.HOST, ZONES, "0 are connected"),
        (server(NEAR, synchronous_standby_names=BOTH), Survives.HOST, {}, "confirmed by p2, p3 alone"),
        (server(FAR, synchronous_standby_names=BOTH), Survives.ZONE, {}, "storage.zones"),
        (server(FAR, synchronous_standby_names=BOTH), Survives.ZONE, {"p2": "a", "p3": "b"}, "not known"),
        (server(FAR, synchronous_standby_names=BOTH), Survives.ZONE, ZONES | {"p2": "eu/a"}, "by p2 alone"),
        (server(FAR[1:], synchronous_standby_names="ANY 1 (p3)"), Survives.ZONE, ZONES | {"p2": "us/c"}, "by p3 alone"),
        (server(FAR, synchronous_standby_names=BOTH), Survives.REGION, ZONES, "by p2 alone"),
        (server(FAR[:1], synchronous_standby_names=BOTH), Survives.ZONE, ZONES | {"p3": "eu/a"}, "p3"),
        (server(FAR, synchronous_standby_names=BOTH), Survives.REGION, {"p1": "a", "p2": "b", "p3": "c"}, "region"),
    ],
)
def test_what_is_refused_in_one_line(found, wanted, zones, why):
    with pytest.raises(CannotSurvive, match=why) as refused:
        check(found, wanted, zones)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("", (0, [])),
        ("p1, p2", (1, ["p1", "p2"])),
        ("2 (a, b, c)", (2, ["a", "b", "c"])),
        ('ANY 1 ("p-1",*)', (1, ["p-1", "*"])),
    ],
)
def test_synchronous_standby_names(text, parsed):
    assert parse_names(text) == parsed


def test_a_wrong_dsn_is_refused_without_being_shown():
    with pytest.raises(BadDsn) as refused:
        Servers("postgresql://u:hunter2@h:notaport:x/%", "queue")
    assert "hunter2" not in str(refused.value)
    with pytest.raises(StoreUnavailable) as refused:
        Servers("host=/nowhere,/nowhere2 user=u password=hunter2", "queue").connect("x")
    assert "hunter2" not in str(refused.value)
    assert "/nowhere" in str(refused.value)


@needs_postgres
def test_a_real_server_without_standbys_is_refused(postgres):
    dsn = postgres.database()
    with pytest.raises(CannotSurvive, match="synchronous_standby_names is empty"):
        PostgresQueue(dsn, survives=Survives.ZONE)
    assert "no synchronous standby" in look(dsn, "queue", Survives.POWER, {})


@needs_postgres
async def test_with_a_synchronous_standby_in_another_zone_it_writes_and_waits_when_that_is_gone():
    primary = PostgresServer().create().start()
    standby = PostgresServer({"hot_standby": "on"})
    try:
        standby.follow(primary, "p2").start()
        primary.sql("alter system set synchronous_standby_names = 'ANY 1 (p2)'")
        primary.sql("select pg_reload_conf()")
        dsn = primary.dsn("postgres")
        with pytest.raises(CannotSurvive, match="by p2 alone"):
            PostgresQueue(dsn, survives=Survives.ZONE, zones={"p2": "a", "p1": "a"})
        queue = PostgresQueue(dsn, survives=Survives.ZONE, zones={"p2": "b", "p1": "a"}, wait_s=1)
        flight = Flight(sid="SM" + "a" * 32, account="AC" + "a" * 32, status="queued", record=b"{}")
        await queue.accept(flight)
        assert standby.sql("select count(*) from flight") == [(1,)]
        standby.end()
        late = Flight(sid="SM" + "b" * 32, account="AC" + "a" * 32, status="queued", record=b"{}")
        accepted = queue.accept(late)
        await asyncio.sleep(LATE_S)
        assert not accepted.done(), "nobody else has it"
        standby.start()
        await accepted
        assert standby.sql("select count(*) from flight") == [(2,)]
        await queue.close()
    finally:
        standby.close()
        primary.close()


@needs_postgres
@pytest.mark.parametrize("open_it", [PostgresQueue, control])
def test_a_start_without_its_standby_is_refused_and_does_not_wait_for_it(alone, monkeypatch, open_it):
    monkeypatch.setattr(writing, "PREPARE_S", 1.0)
    with pytest.raises(CannotSurvive, match="0 are connected"):
        open_it(alone.dsn("postgres"), survives=Survives.HOST)
    assert alone.sql("select to_regclass('writer') is null") == [(True,)], "nothing was written"
