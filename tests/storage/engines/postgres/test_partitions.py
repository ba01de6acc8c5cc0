"""Partitions of a queue: who owns them, what a former owner can still do (nothing), and what it is told."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec
import psycopg
import pytest

from tests.postgres import PostgresServer, needs_postgres
from trunkline.model.sid import new_sid
from trunkline.region import databases
from trunkline.storage.engines.postgres import partitions as parts
from trunkline.storage.engines.postgres import writer as writing
from trunkline.storage.engines.postgres.layout import WrongLayout
from trunkline.storage.engines.postgres.ownership import Owned
from trunkline.storage.engines.postgres.partitions import PostgresPartitions, prepare
from trunkline.storage.engines.postgres.queue import PostgresQueue
from trunkline.storage.engines.postgres.queue import prepare as prepare_plain
from trunkline.storage.partitions import home
from trunkline.storage.queue import Advance, Flight, Replay, made_ms
from trunkline.storage.sharded import ShardedQueue
from trunkline.storage.unavailable import NotOwned, Spill, StoreUnavailable

pytestmark = needs_postgres
AC = "AC" + "a" * 32
K = 4


def flight(shard=0, **changes):
    values = {"sid": new_sid("SM", shard=shard), "account": AC, "status": "queued", "lane": "l"}
    return Flight(**({**values, "record": b'{"to":"+1"}'} | changes))


def prepared(connection):
    prepare(connection, K)


@pytest.fixture
def dsn(postgres):
    return postgres.database(prepared)


@pytest.fixture
async def nodes(dsn):
    """Two nodes on the same database."""
    opened = [ShardedQueue(PostgresPartitions([dsn], K, node=name), name) for name in ("a", "b")]
    yield opened
    for one in opened:
        await one.close()


def writer_of(node, partition):
    return node._owned[partition].writer


# -- taking a partition ------------------------------------------------------------------------------------------


async def test_nothing_is_written_before_it_is_owned(nodes):
    a, _ = nodes
    with pytest.raises(NotOwned):
        await a.accept(flight(1))
    with pytest.raises(NotOwned):
        await a.advance(Advance(id=256 + 1, sid="SM", account=AC, rev=0, status="sent"))
    assert a.owned == frozenset()
    await a.own(1)
    await a.accept(flight(1))
    assert a.owned == {1}
    assert a.epoch_of(1) == 1


async def test_a_former_owner_writes_nothing_more_and_hears_of_it_at_once(nodes):
    a, b = nodes
    await a.own(0)
    one = flight()
    await a.accept(one)
    lost = []
    a.lost = lost.append
    await b.own(0)
    assert b.epoch_of(0) == 2
    results = await asyncio.gather(
        *(a.accept(flight()) for _ in range(3)), a.claim([(one.id, 0)]), return_exceptions=True
    )
    assert [type(result) for result in results] == [NotOwned] * 4
    assert lost == [0]
    assert a.owned == frozenset()
    assert (b.by_id(one.id).rev, len(await b.waiting("l", (0, 0), 9))) == (0, 1)
    await b.claim([(one.id, 0)])
    assert a.by_id(one.id).status == "sending"


async def test_a_call_of_a_former_owner_is_rolled_back(nodes):
    a, b = nodes
    await a.own(0)
    key = next(str(n) for n in range(99) if home(AC, str(n)) % K == 0)
    row = Replay(account=AC, method="POST", path="/p", key=key, fingerprint=b"f", expires_ms=100)
    engine = a._owned[0]
    await b.own(0)
    with pytest.raises(NotOwned):
        await engine.claim_replay(row, 1)
    assert await b.claim_replay(row, 1) is None


async def test_what_a_former_owner_had_claimed_is_free_at_once(nodes):
    """A request with an idempotency key that died with its node keeps nobody waiting for the claim's end."""
    a, b = nodes
    await a.own(0)
    key = next(str(n) for n in range(99) if home(AC, str(n)) % K == 0)
    now_ms = int(time.time() * 1000)

    def row():
        return Replay(account=AC, method="POST", path="/p", key=key, fingerprint=b"f", expires_ms=now_ms + 60_000)

    assert await a.claim_replay(row(), now_ms) is None
    assert (await a.claim_replay(row(), now_ms)).state == "running"
    await b.own(0)
    again = row()
    assert await b.claim_replay(again, now_ms) is None
    assert again.epoch == 1
    done = msgspec.structs.replace(again, state="done", status=201, body=b"{}")
    await b.accept(flight(home(AC, key)), (), done)
    with pytest.raises(NotOwned):
        await a.claim_replay(row(), now_ms)
    await a.own(0)
    assert (await a.claim_replay(row(), now_ms)).body == b"{}", "what is done stays"


async def test_ids_name_their_partition_and_keep_growing_over_owners(nodes):
    a, b = nodes
    first = []
    for partition in (1, 3):
        await a.own(partition)
        for _ in range(3):
            one = flight(partition)
            await a.accept(one)
            first.append(one.id)
    assert [number & 255 for number in first] == [1, 1, 1, 3, 3, 3]
    assert sorted(first[:3]) == first[:3]
    ahead = (first[2] >> 8) + 10**12 << 8 | 1
    await a.accept(one := flight(1))
    with psycopg.connect(dsn_of(a), autocommit=True) as connection:
        connection.execute(f"update p01.flight set id = {ahead} where id = {one.id}")
    await b.own(1)
    await b.accept(late := flight(1))
    assert late.id == ahead + 256
    assert abs(made_ms(first[0]) - int(late.sid[2:14], 16)) < 60_000


def dsn_of(node):
    options = node._parts._servers[0]._options
    return f"host={node._parts._servers[0]._hosts[0][0]} user={options['user']} dbname={options['dbname']}"


async def test_taking_does_not_wait_for_a_transaction_that_hangs(nodes, dsn):
    """As when the former owner's host froze between two statements."""
    a, b = nodes
    await a.own(0)
    held = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(cursor):
        cursor.execute("update writer set at = now()")
        loop.call_soon_threadsafe(held.set)
        cursor.execute("select pg_sleep(60)")

    hanging = writer_of(a, 0).submit(hang)
    await held.wait()
    await asyncio.wait_for(b.own(0), 60)
    await b.accept(flight())
    with pytest.raises(NotOwned):
        await hanging


async def test_a_release_commits_what_was_handed_in_and_the_next_owner_finds_it(nodes):
    a, b = nodes
    await a.own(2)
    flights = [flight(2) for _ in range(50)]
    handed = [a.accept(one) for one in flights]
    steps = [a.advance(Advance(id=one.id, sid=one.sid, account=AC, rev=0, status="sent")) for one in flights]
    await a.release(2)
    assert [await one for one in handed] == [None] * 50
    assert all([await one for one in steps])
    with pytest.raises(NotOwned):
        await a.accept(flight(2))
    assert await b._parts.owners() == []
    await b.own(2)
    assert await b._parts.owners() == [(2, 2, "b")]
    assert {b.by_id(one.id).status for one in flights} == {"sent"}
    assert a.owned == frozenset()
    await a.own(2)
    assert a.epoch_of(2) == 3


async def test_of_two_that_take_at_once_one_owns(nodes):
    a, b = nodes
    for _ in range(5):
        await asyncio.gather(a.own(0), b.own(0), return_exceptions=True)
        outcomes = await asyncio.gather(a.accept(flight()), b.accept(flight()), return_exceptions=True)
        assert sorted(type(one).__name__ for one in outcomes) == ["NoneType", "NotOwned"]


async def test_a_cluster_of_one_partition_and_a_server_alone_keep_out_of_each_others_way(postgres, monkeypatch):
    monkeypatch.setattr("trunkline.storage.engines.postgres.ownership.OWN_WAIT_S", 0.2)
    dsn = postgres.database(prepare_plain)
    alone = PostgresQueue(dsn)
    await alone.accept(one := flight())
    node = ShardedQueue(PostgresPartitions([dsn], 1))
    with pytest.raises(Owned, match="no member of the cluster"):
        await node.own(0)
    await alone.close()
    await node.own(0)
    assert node.by_id(one.id) == one
    with pytest.raises(Owned):
        PostgresQueue(dsn)
    other = ShardedQueue(PostgresPartitions([dsn], 1))
    await other.own(0)
    with pytest.raises(NotOwned):
        await node.accept(flight())
    assert other.by_id(one.id) == one
    await node.close()
    await other.close()
    await PostgresQueue(dsn).close()


def test_a_plain_queue_is_not_split(postgres):
    dsn = postgres.database(prepare_plain)
    with pytest.raises(WrongLayout, match=r"storage\.partitions is 4, this queue was made with 1"):
        PostgresPartitions([dsn], 4)


def test_a_plain_queue_is_not_opened_where_there_are_partitions(dsn):
    with pytest.raises(WrongLayout, match="made with 4"):
        PostgresQueue(dsn)


async def test_a_database_that_stands_still_while_it_is_prepared_counts_as_away(postgres, monkeypatch):
    dsns = [postgres.database(), postgres.database()]
    await ShardedQueue(PostgresPartitions(dsns, K, node="a"), "a").close()
    monkeypatch.setattr(parts, "PREPARE_S", 0.2)
    with psycopg.connect(dsns[1]) as other:
        other.execute("set idle_in_transaction_session_timeout = '10s'")  # its lock ends then, too
        other.execute("lock table layout in access exclusive mode")
        node = ShardedQueue(PostgresPartitions(dsns, K, node="a"), "a")
        with pytest.raises(StoreUnavailable):
            await node.own(1)
        await node.own(0)
    await node.own(1)
    assert node.owned == {0, 1}
    await node.close()


# -- in doubt ----------------------------------------------------------------------------------------------------


def losing(monkeypatch, *, answered):
    """Have the next batch's connection cut, after or before the server has applied it, and the writer wait for
    `go_on` before it connects again. Returns (cut, go_on)."""
    cut, go_on = threading.Event(), threading.Event()
    apply_all, connect = writing.Writer._apply_all, writing.Writer._connect

    def apply(self, connection, batch, careful):
        if cut.is_set():
            return apply_all(self, connection, batch, careful)
        outcomes = apply_all(self, connection, batch, careful) if answered else []
        light = self._is_light(batch, careful)
        if answered and not light:
            connection.execute("commit")
        writing.cut(connection)
        cut.set()
        if light or not answered:
            connection.execute("select 1")
        return outcomes  # what follows is a commit, whose answer is not heard

    def wait(self, patience_s, prepare):
        if patience_s == writing.STALL_S:  # not at a start
            assert go_on.wait(20)
        return connect(self, patience_s, prepare)

    monkeypatch.setattr(writing.Writer, "_apply_all", apply)
    monkeypatch.setattr(writing.Writer, "_connect", wait)
    return cut, go_on


@pytest.mark.parametrize("heavy", [False, True])
async def test_a_batch_in_doubt_that_was_committed_is_told_so_though_another_owns_now(nodes, monkeypatch, heavy):
    a, b = nodes
    await a.own(0)
    await a.accept(first := flight())
    cut, go_on = losing(monkeypatch, answered=True)
    told = [a.accept(one := flight()), a.claim([(first.id, 0), (first.id, 0)])]
    if heavy:
        told.append(a.strip_owed(first.id))
    await asyncio.to_thread(cut.wait)
    later = a.accept(flight())
    await b.own(0)
    assert not any(one.done() for one in map(asyncio.ensure_future, told))
    go_on.set()
    outcomes = await asyncio.gather(*told)
    assert outcomes[0] is None
    assert outcomes[1] == [first.id]
    with pytest.raises(NotOwned):
        await later
    assert b.by_id(first.id).rev == 1
    assert {found.id for found in await b.waiting("l", (0, 0), 9)} == {one.id}


async def test_a_batch_in_doubt_that_was_not_committed_is_refused_when_another_owns(nodes, monkeypatch):
    a, b = nodes
    await a.own(0)
    cut, go_on = losing(monkeypatch, answered=False)
    told = asyncio.ensure_future(a.accept(one := flight()))
    await asyncio.to_thread(cut.wait)
    await b.own(0)
    assert not told.done()
    go_on.set()
    with pytest.raises(NotOwned):
        await told
    assert b.by_id(one.id) is None
    await b.accept(flight())


async def test_in_doubt_and_still_the_owner_it_is_applied_once(nodes, monkeypatch):
    a, _ = nodes
    await a.own(0)
    for answered in (True, False):
        with monkeypatch.context() as patched:
            _, go_on = losing(patched, answered=answered)
            go_on.set()
            await a.accept(flight())
    assert len(await a.waiting("l", (0, 0), 9)) == 2
    assert a.owned == {0}
    assert a.epoch_of(0) == 1


# -- many partitions, several databases --------------------------------------------------------------------------


async def test_how_many_connections_a_node_holds(postgres):
    dsns = [postgres.database(), postgres.database()]
    node = ShardedQueue(PostgresPartitions(dsns, 12, node="a"), "a")
    for partition in (3, 8):
        await node.own(partition)
    await asyncio.gather(*(node.page(AC, "message", before="", after="", limit=9, filters={}) for _ in range(9)))
    node.find_carrier_id("c", "1")
    rows = postgres.sql("select count(*) from pg_stat_activity where application_name like 'trunkline queue%'")
    assert rows[0][0] <= 2 * (3 + 1) + 2
    await node.close()


async def test_a_carriers_id_is_found_in_all_partitions_and_ours_without_asking(postgres):
    dsns = [postgres.database(), postgres.database()]
    a, b = (ShardedQueue(PostgresPartitions(dsns, K, node=name), name) for name in "ab")
    for partition in range(K):
        node = a if partition < 2 else b
        await node.own(partition)
        await node.accept(one := flight(partition))
        pairs = [("c", f"{partition}"), ("c", "twice")]
        step = Advance(id=one.id, sid=one.sid, account=AC, rev=0, status="sent", carrier_ids=pairs)
        assert await node.advance(step)
    for partition in range(K):
        found = {node.find_carrier_id("c", f"{partition}") for node in (a, b)}
        assert len(found) == 1
        assert next(iter(found))[0] & 255 == partition
    assert a.find_carrier_id("c", "twice")[0] & 255 == 1
    assert b.find_carrier_id("c", "twice")[0] & 255 == 3
    assert a.find_carrier_id("c", "9") is None
    assert not await a.accept_inbound(flight(0), [], "c", [], "3")
    for readers in a._parts._readers:
        await readers.close()
    assert a.find_carrier_id("c", "1") is not None
    await a.close()
    await b.close()


async def test_a_reader_that_is_kept_waiting_holds_up_the_loop_for_a_moment_only(nodes, dsn):
    a, _ = nodes
    assert a.find_carrier_id("c", "1") is None
    with psycopg.connect(dsn) as other:
        other.execute("lock table p02.carrier in access exclusive mode")
        began = asyncio.get_running_loop().time()
        with pytest.raises(StoreUnavailable):
            a.find_carrier_id("c", "1")
        assert asyncio.get_running_loop().time() - began < 1
        while a.healthy:
            await asyncio.sleep(0.01)
        with pytest.raises(StoreUnavailable):
            a.find_carrier_id("c", "1")
    while a.healthy:
        await asyncio.sleep(0.01)
    assert a.find_carrier_id("c", "1") is None


@pytest.fixture
def other_server():
    server = PostgresServer().create().start()
    yield server
    server.close()


async def test_while_one_database_is_away_the_other_takes_the_work(postgres, other_server):
    dsns = [postgres.database(), other_server.database()]
    node = ShardedQueue(PostgresPartitions(dsns, 2, wait_s=30), "n")
    for partition in (0, 1):
        await node.own(partition)
        await node.accept(flight(partition))
    node._order = [1, 0]
    node._favourite = -1
    assert node.shard_for_new() % 2 == 1
    regained = asyncio.get_running_loop().create_future()
    node.regained = regained.set_result
    key = next(str(n) for n in range(99) if home(AC, str(n)) % 2 == 1)
    row = Replay(account=AC, method="POST", path="/p", key=key, fingerprint=b"f", expires_ms=100)
    await asyncio.to_thread(other_server.end)
    held = asyncio.ensure_future(_plain(node.accept(flight(home(AC, key)), (), row)))
    with pytest.raises(Spill):
        await asyncio.wait_for(_plain(node.accept(flight(1))), 60)
    assert node.shard_for_new() % 2 == 0
    assert len(node.healthy) == 1
    assert node.writer.failed is None
    with pytest.raises(Spill):
        await asyncio.wait_for(_plain(node.accept(flight(1))), 0.5)
    await node.accept(flight(node.shard_for_new()))
    assert [lane[:2] for lane in await node.lanes()] == [("l", 2)]
    with pytest.raises(StoreUnavailable):
        await node.page(AC, "message", before="", after="", limit=9, filters={})
    assert not held.done()
    await asyncio.to_thread(other_server.start)
    assert await asyncio.wait_for(regained, 20) == 1
    await asyncio.wait_for(held, 20)
    assert [lane[:2] for lane in await node.lanes()] == [("l", 4)]
    await node.close()


async def _plain(awaitable):
    return await awaitable


async def test_a_node_starts_while_one_of_the_databases_is_away(postgres, other_server):
    dsns = [postgres.database(), other_server.database()]
    await asyncio.to_thread(other_server.end)
    node = ShardedQueue(PostgresPartitions(dsns, 2), "n")
    await node.own(0)
    await node.accept(flight(0))
    with pytest.raises(StoreUnavailable):
        await node.own(1)
    await asyncio.to_thread(other_server.start)
    await node.own(1)
    await node.accept(flight(1))
    await node.close()


@pytest.mark.parametrize("make", [prepared, databases.prepare], ids=["queue", "region"])
def test_nodes_that_are_first_at_once_all_find_the_tables(postgres, make):
    dsn, at_once = postgres.database(), threading.Barrier(4)

    def node(_):
        with psycopg.connect(dsn, autocommit=True) as connection:
            at_once.wait(60)
            make(connection)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(node, range(4))) == [None] * 4
