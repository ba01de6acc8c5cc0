"""A pivot of PostgreSQL's tables: two nodes, one of a release before it, with statements that their sessions keep."""

import asyncio
import threading

import psycopg
import pytest

from tests.postgres import needs_postgres
from tests.storage.pivots.shapes import LANES, SPLIT, flight, patient
from tests.storage.pivots.test_sqlite import waiting, work
from trunkline.storage.engines.postgres import pivots as postgres_pivots
from trunkline.storage.engines.postgres import shapes as postgres_shapes
from trunkline.storage.engines.postgres.partitions import PostgresPartitions
from trunkline.storage.engines.postgres.partitions import prepare as prepare_partitions
from trunkline.storage.engines.postgres.pivots import PostgresBench
from trunkline.storage.engines.postgres.queue import PostgresQueue, prepare
from trunkline.storage.engines.postgres.session import Servers
from trunkline.storage.pivots import lane_split
from trunkline.storage.pivots.lane_split import PIVOT
from trunkline.storage.pivots.model import CannotPivot
from trunkline.storage.sharded import ShardedQueue

pytestmark = needs_postgres
WARM = 8
"""psycopg has a statement prepared from its sixth use on."""


def prepare_two(connection):
    prepare_partitions(connection, 2)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(postgres_shapes, "HEARTBEAT_S", 0.1)


@pytest.fixture
def benches(postgres):
    """Opens the partitions of a database."""
    made = []

    def of(dsn, partitions=1):
        servers = Servers(dsn, "queue")
        made.extend(PostgresBench(servers, one, partitions) for one in range(partitions))
        return made[-partitions:]

    yield of
    for bench in made:
        bench.close()


def everything(walk, back=False):
    walk.expand(back=back)
    walk.backfill(rows=7)
    walk.verify()
    walk.contract(60.0)


async def warm(queue):
    """Have each session keep its plans."""
    for _ in range(WARM):
        await work(queue)
        await waiting(queue)
        queue.by_id(1)


def test_names_are_split_and_joined_as_on_sqlite(postgres):
    split = (
        f"select {lane_split.postgres_connector('name')} as connector, {lane_split.postgres_line('name')} as line, name"
        " from unnest(%s::text[]) name"
    )
    with psycopg.connect(postgres.dsn("postgres")) as connection:
        rows = connection.execute(
            f"select connector, line, name, {lane_split.JOINED} from ({split}) parts", (LANES,)
        ).fetchall()
    assert [row[:2] for row in rows] == SPLIT
    assert all(row[2] == row[3] for row in rows)


async def test_kept_plans_do_not_fail_forward_or_back(postgres, benches):
    dsn = postgres.database(prepare)
    (bench,) = benches(dsn)
    queue = PostgresQueue(dsn)
    try:
        await warm(queue)
        for back in (False, True):
            before = await waiting(queue)
            moved = asyncio.create_task(asyncio.to_thread(everything, patient(bench), back))
            while not moved.done():
                await work(queue)
                await waiting(queue)
            await moved
            now = await waiting(queue)
            assert {one for ids in before.values() for one in ids} <= {one for ids in now.values() for one in ids}
            state = bench.state(PIVOT)
            assert (state.shape, state.phase) == ("old" if back else "new", "plain")
            await warm(queue)
    finally:
        await queue.close()


async def test_statements_of_a_former_shape_are_made_anew(postgres, benches, monkeypatch):
    monkeypatch.setattr(postgres_shapes, "HEARTBEAT_S", 3600)  # it hears of nothing
    monkeypatch.setattr(PostgresBench, "speakers", lambda self: [])
    dsn = postgres.database(prepare)
    (bench,) = benches(dsn)
    queue = PostgresQueue(dsn)
    try:
        await warm(queue)
        for back in (False, True):
            before = await waiting(queue)
            await asyncio.to_thread(everything, patient(bench), back)
            first = flight("c|AC|z")
            accepted = queue.accept(first)
            assert queue.by_id(next(iter(before.values()))[0]) is not None
            await accepted
            assert await waiting(queue) == {**before, "c|AC|z": [*before.get("c|AC|z", []), first.id]}
            await warm(queue)
    finally:
        await queue.close()


async def test_an_old_node_and_a_new_one_on_two_partitions(postgres, benches):
    dsn = postgres.database(prepare_two)
    walks = [patient(bench) for bench in benches(dsn, 2)]
    new, old = (
        ShardedQueue(PostgresPartitions([dsn], 2, node=name, speaks=speaks), name)
        for name, speaks in (("new", 1), ("old", 0))
    )
    try:
        await new.own(0)
        await old.own(1)
        for walk in walks:
            await asyncio.to_thread(walk.expand)
        for place, queue in ((0, new), (1, old)):
            for _ in range(WARM):
                await queue.partition(place).accept(flight())
                await queue.partition(place).lanes()
        for walk in walks:
            await asyncio.to_thread(walk.backfill)
            await asyncio.to_thread(walk.verify)
        for place, queue in ((0, new), (1, old)):
            for _ in range(len(LANES)):
                await queue.partition(place).accept(flight())
        assert [walk.differing() for walk in walks] == [0, 0]
        assert sorted(await new.partition(1).lanes()) == sorted(await old.partition(1).lanes())
        assert sorted(await old.partition(0).lanes()) == sorted(await new.partition(0).lanes())
        with pytest.raises(CannotPivot, match=r"p00: lane_split: still use the old shape: .*node old, process"):
            walks[0].contract()
    finally:
        await old.close()
    try:
        for walk in walks:
            assert (await asyncio.to_thread(walk.contract, 60.0)).shape == "new"
        await new.own(1)
        for place in (0, 1):
            assert await new.partition(place).lanes()
            await new.partition(place).accept(flight())
    finally:
        await new.close()


async def test_a_session_of_a_release_before_pivots_stops_contract(postgres, benches, monkeypatch):
    monkeypatch.setattr(postgres_pivots, "LIVES_S", 1.0)
    dsn = postgres.database(prepare)
    (bench,) = benches(dsn)
    walk = patient(bench)
    with psycopg.connect(dsn, application_name="trunkline queue p03") as former:
        former.execute("select 1")
        walk.expand()
        walk.backfill()
        walk.verify()
        with pytest.raises(CannotPivot, match=r"still use the old shape: session \d+ from this host"):
            walk.contract()
    assert walk.contract(60.0).shape == "new"


async def test_a_lock_is_not_waited_for_while_others_wait(postgres, benches):
    dsn = postgres.database(prepare)
    (bench,) = benches(dsn)
    walk = patient(bench)
    with psycopg.connect(dsn) as reader:
        reader.execute("select * from flight")  # holds its lock till the end of the transaction
        expanding = asyncio.create_task(asyncio.to_thread(walk.expand))
        queue = PostgresQueue(dsn)
        for _ in range(20):
            await queue.accept(flight())  # waits LOCK_MS at most
        assert not expanding.done()
        reader.rollback()
    assert (await expanding).phase == "filling"
    await queue.close()


async def test_a_row_that_is_locked_does_not_stop_the_backfill_for_ever(postgres, benches):
    dsn = postgres.database(prepare)
    (bench,) = benches(dsn)
    queue = PostgresQueue(dsn)
    await work(queue)
    walk = patient(bench)
    walk.expand()
    with psycopg.connect(dsn) as holder:
        holder.execute("update flight set rev = rev where lane <> ''")
        freed = threading.Timer(1.0, holder.rollback)
        freed.start()
        assert (await asyncio.to_thread(walk.backfill)).phase == "filled"
        freed.join()
    assert walk.differing() == 0
    await queue.close()


async def test_an_index_whose_making_was_interrupted_is_made_anew(postgres, benches):
    dsn = postgres.database(prepare)
    (bench,) = benches(dsn)
    walk = patient(bench)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in (*PIVOT.postgres.new.add, *PIVOT.postgres.new.index):
            connection.execute(statement.encode())
        connection.execute("update pg_index set indisvalid = false where indexrelid = 'flight_line'::regclass")
        walk.expand()
        rows = connection.execute(
            "select indisvalid from pg_index where indexrelid = 'flight_line'::regclass"
        ).fetchall()
        assert rows == [(True,)]


async def test_two_do_not_work_on_one_partition(postgres, benches, monkeypatch):
    dsn = postgres.database(prepare)
    (one,), (other,) = benches(dsn), benches(dsn)
    one.state(PIVOT)
    monkeypatch.setattr("trunkline.storage.engines.postgres.pivots.ALONE_S", 0.1)
    with pytest.raises(CannotPivot, match="another `trunkline schema`"):
        other.state(PIVOT)


async def test_one_that_was_killed_is_waited_for(postgres, benches):
    dsn = postgres.database(prepare)
    (one,), (other,) = benches(dsn), benches(dsn)
    one.state(PIVOT)
    going_on = asyncio.ensure_future(asyncio.to_thread(other.state, PIVOT))
    await asyncio.sleep(0.3)
    assert not going_on.done()
    one.close()
    await going_on


async def test_the_new_shape_is_found_by_its_index(postgres, benches):
    dsn = postgres.database(prepare)
    (bench,) = benches(dsn)
    await asyncio.to_thread(everything, patient(bench))
    queue = PostgresQueue(dsn)
    with psycopg.connect(dsn) as connection:
        connection.execute("set enable_seqscan = off")
        statement = queue._shaped["new"].waiting.replace("%s", "{}").format("'c|a|b'", 0, 0, 5)
        plan = " ".join(row[0] for row in connection.execute(f"explain {statement}").fetchall())
    await queue.close()
    assert "flight_line" in plan
    assert "Sort" not in plan
