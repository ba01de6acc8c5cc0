"""Several nodes on one recent store: landings at once, one roll-up at a time, also across a take-over."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from tests.postflight.harness import ALICE, NOW, FakeClock, message, messages, sid_at, sids
from tests.postgres import PostgresServer, needs_postgres
from trunkline.postflight.archive import ArchiveLimits, SegmentedArchive
from trunkline.storage.engines.postgres import recent as recent_module
from trunkline.storage.engines.postgres import recent_sql
from trunkline.storage.engines.postgres.recent import PostgresReader, PostgresRecent, prepare
from trunkline.storage.manifest import ArchiveBusy, Segment

pytestmark = needs_postgres
LIMITS = ArchiveLimits(least_rows=10, recent_rows=100, settle_ms=0, segment_rows=50)


@pytest.fixture
def dsn(postgres: PostgresServer) -> str:
    return postgres.database(prepare)


@pytest.fixture
async def nodes(dsn: str) -> AsyncIterator[tuple[PostgresRecent, PostgresRecent]]:
    both = PostgresRecent(dsn), PostgresRecent(dsn)
    yield both
    for node in both:
        await node.close()


def expire_claim(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("update archive_state set until = '-infinity'")


async def test_nodes_land_at_once_and_see_each_others_documents(nodes: tuple[PostgresRecent, PostgresRecent]) -> None:
    documents = messages(200)
    await asyncio.gather(*(nodes[n % 2].land(documents[n : n + 40]) for n in range(0, 200, 20)))
    for node in nodes:
        page = await node.page(ALICE, "message", before="", after="", limit=999, filters={})
        assert sids(page) == sids(reversed(documents))


async def test_revisions_of_two_nodes_at_once_leave_the_highest(nodes: tuple[PostgresRecent, PostgresRecent]) -> None:
    revisions = [message(NOW, 1, rev=rev, status=f"s{rev}") for rev in range(1, 21)]
    await asyncio.gather(*(nodes[document.rev % 2].land([document]) for document in revisions))
    assert await nodes[0].get(ALICE, sid_at(NOW, 1)) == revisions[-1]


async def test_a_deletion_holds_against_a_landing_that_did_not_see_it(
    nodes: tuple[PostgresRecent, PostgresRecent], dsn: str
) -> None:
    """The landing began first, and is committed last."""
    document = message(NOW, 1)
    row = recent_module._columns([recent_module._row(document)], 13)
    with psycopg.connect(dsn) as slow:
        slow.execute(recent_sql.UPSERT.encode(), row)
        await nodes[0].delete(ALICE, document.sid, NOW)
        slow.commit()
    assert await nodes[1].get(ALICE, document.sid) is None
    assert await nodes[1].page(ALICE, "message", before="", after="", limit=9, filters={}) == []
    reader = PostgresReader(dsn)
    assert list(reader.rows("", "g")) == []
    reader.close()


async def test_the_watermark_waits_for_landings_that_have_not_seen_it(
    nodes: tuple[PostgresRecent, PostgresRecent], dsn: str
) -> None:
    row = recent_module._columns([recent_module._row(message(NOW - 5000, 1))], 13)
    with psycopg.connect(dsn) as slow:
        slow.execute(recent_sql.LANDING_LOCK.format(recent_sql.LOCK_CLASS).encode())
        slow.execute(recent_sql.UPSERT.encode(), row)
        raising = asyncio.ensure_future(nodes[0].raise_watermark(sid_at(NOW)[2:]))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(raising), 0.3)
        slow.commit()
    await raising
    assert await nodes[1].high() == sid_at(NOW)[2:]
    await nodes[1].land([message(NOW - 4000, 2)])
    assert [floor.key for floor in await nodes[0].all_floors()] == [sid_at(NOW - 4000, 2)[2:]]


async def test_only_one_node_rolls_up(nodes: tuple[PostgresRecent, PostgresRecent], tmp_path: Path) -> None:
    async with nodes[0].alone(tmp_path):
        with pytest.raises(ArchiveBusy):
            async with nodes[1].alone(tmp_path):
                raise AssertionError("both may roll up")
    async with nodes[1].alone(tmp_path):
        pass


async def test_whose_claim_was_taken_over_records_nothing(
    nodes: tuple[PostgresRecent, PostgresRecent], tmp_path: Path, dsn: str
) -> None:
    segment = Segment(path="a.parquet", rows=1, size=1, min_key="1", max_key="2")
    async with nodes[0].alone(tmp_path):
        expire_claim(dsn)  # it stood still for a minute
        async with nodes[1].alone(tmp_path):
            with pytest.raises(ArchiveBusy):
                await nodes[0].add_segments([segment])
            await nodes[1].add_segments([segment])
        with pytest.raises(ArchiveBusy):
            await nodes[0].drained("a.parquet")
    assert [(one.path, one.draining) for one in await nodes[0].segments()] == [("a.parquet", False)]


async def test_a_roll_up_that_lost_its_claim_halfway_neither_loses_nor_doubles(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = messages(60)
    first, second = (SegmentedArchive(PostgresRecent(dsn), tmp_path, FakeClock(), LIMITS) for _ in range(2))
    written, stolen = asyncio.Event(), asyncio.Event()
    call = first.roll_worker.call

    async def slow(op: str, **arguments: object) -> object:
        found = await call(op, **arguments)
        if op == "roll":
            written.set()
            await stolen.wait()
        return found

    monkeypatch.setattr(first.roll_worker, "call", slow)
    await first.land(documents)
    rolling = asyncio.ensure_future(first.roll(force=True))
    await written.wait()
    expire_claim(dsn)
    monkeypatch.setattr(second, "_sweep", _nothing)
    assert await second.roll(force=True) == 60
    stolen.set()
    with pytest.raises(ArchiveBusy):
        await rolling
    for archive in (first, second):
        page = await archive.page(ALICE, "message", limit=999, filters={})
        assert sids(page) == sids(reversed(documents))
        assert (await archive.query("select count(*), count(distinct sid) from messages"))[1] == [[60, 60]]
        await archive.close()


async def _nothing() -> None:
    return None


async def test_scrub_leaves_no_byte_of_what_was_deleted(
    nodes: tuple[PostgresRecent, PostgresRecent], postgres: PostgresServer, dsn: str
) -> None:
    await nodes[0].land([message(NOW, n, body=f"marker-{n}-") for n in range(20)])
    await nodes[0].delete(ALICE, sid_at(NOW, 7), NOW)
    assert await nodes[0].scrub(await nodes[0].all_floors(), NOW)
    name = dsn.rpartition("dbname=")[2]
    postgres.sql("checkpoint", name)
    (found,) = postgres.sql("select pg_relation_filepath('archive_documents')", name) or []
    data = (postgres.data / str(found[0])).read_bytes()
    assert b"marker-8-" in data
    assert b"marker-7-" not in data
    assert await nodes[0].pending_floors() == (0, 0)


async def test_odd_texts_are_kept_and_found(nodes: tuple[PostgresRecent, PostgresRecent]) -> None:
    odd = message(NOW, 1, to="a\0b", status="{\"x\",'y'}", **{"from": "ünïcode ☃"})
    await nodes[0].land([odd])
    assert await nodes[1].get(ALICE, odd.sid) == odd
    page = await nodes[1].page(ALICE, "message", before="", after="", limit=9, filters={"to": "a\0b"})
    assert sids(page) == [odd.sid]
