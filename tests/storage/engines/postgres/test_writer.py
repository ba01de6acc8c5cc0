"""Group commit against a server that goes away: nothing told is lost, nothing is applied twice, doubt is settled."""

import asyncio
import os
import signal
import time

import psycopg
import pytest

from tests.postgres import PostgresServer, needs_postgres
from trunkline.model.sid import new_sid
from trunkline.storage.engines.postgres import ownership
from trunkline.storage.engines.postgres import writer as writing
from trunkline.storage.engines.postgres.ownership import Owned
from trunkline.storage.engines.postgres.queue import PostgresQueue, prepare
from trunkline.storage.queue import Flight, Replay
from trunkline.storage.unavailable import StoreUnavailable

pytestmark = needs_postgres
AC = "AC" + "a" * 32
WRITING = """
select pid from pg_stat_activity where application_name like 'trunkline queue s%' and datname = current_database()
"""
WAIT_S = 20
"""Nothing here takes that long: a test that hangs fails."""


@pytest.fixture
def server():
    server = PostgresServer().create().start()
    yield server
    server.close()


def flight():
    return Flight(sid=new_sid("SM"), account=AC, status="queued", lane="l", record=b'{"to":"+1"}')


def cut_when_answered(monkeypatch, queue, times=1):
    """Lose the connection just after the server has answered a batch, before we have heard it."""
    left = [times]
    former = writing.Writer._apply_all

    def apply_all(self, connection, batch, careful):
        outcomes = former(self, connection, batch, careful)
        if left[0]:
            left[0] -= 1
            if not self._is_light(batch, careful):
                connection.execute("commit")
            writing.cut(connection)
            connection.execute("select 1")
        return outcomes

    monkeypatch.setattr(writing.Writer, "_apply_all", apply_all)


async def test_a_batch_whose_answer_got_lost_is_applied_once_and_told(postgres, monkeypatch):
    queue = PostgresQueue(postgres.database())
    first, twice = flight(), flight()
    await queue.accept(first)
    cut_when_answered(monkeypatch, queue)
    results = await asyncio.gather(
        queue.accept(twice), queue.claim([(first.id, 0), (first.id, 0)]), queue.accept(flight())
    )
    assert results == [None, [first.id], None]
    assert queue.by_id(first.id).rev == 1
    assert len(await queue.waiting("l", (0, 0), 10)) == 2
    await queue.close()


async def test_a_call_whose_commit_was_in_doubt_has_its_result(postgres, monkeypatch):
    queue = PostgresQueue(postgres.database())
    row = Replay(account=AC, method="POST", path="/p", key="k", fingerprint=b"f", expires_ms=100)
    cut_when_answered(monkeypatch, queue)
    assert await queue.claim_replay(row, 1) is None
    assert (await queue.claim_replay(row, 1)).state == "running"
    await queue.close()


async def test_a_doubtful_commit_is_followed_by_one_that_is_not(postgres, monkeypatch):
    queue = PostgresQueue(postgres.database())
    before = queue.writer._connection.execute("select barrier from writer").fetchone()[0]
    cut_when_answered(monkeypatch, queue)
    await queue.accept(flight())
    assert queue.writer._connection.execute("select barrier from writer").fetchone()[0] == before + 1
    await queue.close()


async def test_a_warning_of_the_server_means_doubt(postgres):
    queue = PostgresQueue(postgres.database())

    def warn(cursor):
        cursor.execute("do $$ begin raise warning 'canceling wait for synchronous replication'; end $$")

    await queue.writer.submit(warn)
    assert queue.writer._connection.execute("select barrier from writer").fetchone()[0] == 1
    await queue.close()


def cut_before_anything_is_sent(monkeypatch):
    """Lose the connection just before the next batch is sent."""
    former = writing.Writer._apply_all
    left = [1]

    def apply_all(self, connection, batch, careful):
        if left[0]:
            left[0] -= 1
            writing.cut(connection)
        return former(self, connection, batch, careful)

    monkeypatch.setattr(writing.Writer, "_apply_all", apply_all)


@pytest.mark.parametrize("light", [True, False])
async def test_the_former_process_s_batch_is_not_taken_for_the_one_in_doubt(postgres, monkeypatch, light):
    """A process that writes under the name of one before it, and whose first batch is the lost one."""
    dsn = postgres.database()
    former = PostgresQueue(dsn)
    await former.accept(flight())
    await former.close()
    queue = PostgresQueue(dsn)
    cut_before_anything_is_sent(monkeypatch)
    one = flight()
    writes = [queue.accept(one)]
    if not light:
        writes.append(queue.erase(1))
    await asyncio.gather(*writes)
    assert (await queue.get(AC, one.sid))[0].sid == one.sid, "what is told is there"
    await queue.close()


async def test_numbers_of_batches_go_on_after_a_lost_connection(postgres, monkeypatch):
    """Doubt is settled by them: the same process keeps its number when it takes its row again."""
    dsn = postgres.database()
    former = PostgresQueue(dsn)
    await former.accept(flight())
    await former.close()
    queue = PostgresQueue(dsn)
    one = flight()
    await queue.accept(one)
    cut_when_answered(monkeypatch, queue)
    assert await queue.claim([(one.id, 0)]) == []
    assert queue.by_id(one.id).rev == 1
    await queue.close()


def refuse_first_barrier(dsn, code):
    """The server fails the write that follows a doubtful commit, once."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("create sequence barriers")
        connection.execute(f"""
            create function refuse() returns trigger language plpgsql as $$ begin
                if nextval('barriers') = 1 then raise exception using errcode = '{code}', message = 'no'; end if;
                return new;
            end $$""")
        connection.execute("""
            create trigger refuse before update on writer for each row when (new.barrier <> old.barrier)
            execute function refuse()""")


def doubt_each(monkeypatch):
    """As if the server had warned of each batch that it gave up waiting for its standbys."""
    former = writing.Writer._apply_all

    def apply_all(self, connection, batch, careful):
        outcomes = former(self, connection, batch, careful)
        self._gave_up = True
        return outcomes

    monkeypatch.setattr(writing.Writer, "_apply_all", apply_all)


@pytest.mark.parametrize("code", ["53100", "57014", "25006"])  # the disk is full, cancelled, demoted
@pytest.mark.parametrize("light", [True, False])
async def test_a_commit_behind_which_something_fails_is_told_as_committed_and_not_made_again(
    postgres, monkeypatch, code, light
):
    dsn = postgres.database()
    queue = PostgresQueue(dsn)
    first, second = flight(), flight()
    await queue.accept(first)
    refuse_first_barrier(dsn, code)
    doubt_each(monkeypatch)
    writes = [queue.claim([(first.id, 0)]), queue.accept(second)]
    if not light:
        writes.append(queue.erase(1))
    results = await asyncio.gather(*writes)
    assert results[0] == [], "the claim is ours, and was made once"
    assert queue.by_id(first.id).rev == 1
    assert (await queue.get(AC, second.sid))[0].sid == second.sid
    with psycopg.connect(dsn) as connection:
        assert connection.execute("select last_value from barriers").fetchone()[0] > 1, "it was confirmed after all"
    await queue.close()


async def test_a_killed_session_is_not_noticed_by_callers(postgres):
    dsn = postgres.database()
    queue = PostgresQueue(dsn)
    flights = [flight() for _ in range(400)]

    async def some(part):
        for one in part:
            await queue.accept(one)

    async def killer():
        with psycopg.connect(dsn, autocommit=True) as connection:
            for _ in range(5):
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where application_name like 'trunkline queue s%' and datname = current_database()"
                )
                await asyncio.sleep(0.05)

    await asyncio.gather(killer(), *(some(flights[index::20]) for index in range(20)))
    assert len(await queue.waiting("l", (0, 0), 1000)) == 400
    await queue.close()


async def test_what_was_told_outlives_a_crash_of_the_server(server):
    queue = PostgresQueue(server.database(), wait_s=60)
    told = []

    async def load():
        while len(told) < 600:
            one = flight()
            await queue.accept(one)
            told.append(one.id)

    tasks = [asyncio.create_task(load()) for _ in range(20)]
    for target in (100, 300):
        while len(told) < target:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(server.end, signal.SIGQUIT)
        assert queue.writer.failed is None or not queue._writer._is_down()
        await asyncio.to_thread(server.start)
    await asyncio.gather(*tasks)
    found = {one.id for one in await queue.waiting("l", (0, 0), 10_000)}
    assert set(told) == found
    await queue.close()


async def test_while_no_server_answers_writes_wait_and_then_fail(server):
    queue = PostgresQueue(server.database(), wait_s=1)
    await asyncio.to_thread(server.end)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await queue.accept(flight())
    while queue.writer.failed is None or not queue.writer._is_down():
        await asyncio.sleep(0.05)
    assert time.monotonic() - began < 20
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await queue.accept(flight())
    with pytest.raises(StoreUnavailable):
        queue.by_id(1)
    with pytest.raises(StoreUnavailable):
        await queue.get(AC, "SM")
    await asyncio.to_thread(server.start)
    while queue.writer.failed is not None:
        await asyncio.sleep(0.05)
    await queue.accept(flight())
    assert len(await queue.waiting("l", (0, 0), 10)) >= 1
    await queue.close()


async def test_a_queue_has_one_owner(postgres, monkeypatch):
    monkeypatch.setattr(ownership, "OWN_WAIT_S", 0.2)
    dsn = postgres.database()
    queue = PostgresQueue(dsn)
    with pytest.raises(Owned, match="another server owns this queue"):
        PostgresQueue(dsn)
    reader = PostgresQueue(dsn, own=False)
    one = flight()
    await queue.accept(one)
    assert (await reader.get(AC, one.sid))[0] == one
    with pytest.raises(StoreUnavailable):
        await reader.accept(flight())
    await reader.close()
    await queue.close()
    await PostgresQueue(dsn).close()


async def test_a_stalled_batch_is_taken_up_again(postgres, monkeypatch):
    """As when a primary has lost its standbys: the commit never returns."""
    monkeypatch.setattr(writing, "STALL_S", 0.3)
    monkeypatch.setattr(writing, "LOOK_S", 0.05)
    dsn = postgres.database()
    queue = PostgresQueue(dsn)
    with psycopg.connect(dsn) as other:
        other.execute("lock table flight in access exclusive mode")
        accepted = queue.accept(flight())
        await asyncio.sleep(1.0)
        assert not accepted.done()
        assert queue.writer.failed is not None
    await accepted
    assert len(await queue.waiting("l", (0, 0), 10)) == 1
    await queue.close()


async def holds(true):
    """Wait until something is so."""
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_server_that_stands_still_while_it_is_looked_at_is_given_up(postgres, monkeypatch):
    """Its kernel goes on confirming what is sent, so nothing but a clock of ours ends the wait."""
    monkeypatch.setattr(writing, "STALL_S", 0.3)
    monkeypatch.setattr(writing, "SLOW_S", 0.1)
    monkeypatch.setattr(writing, "CHECK_EVERY_S", 0.0)
    dsn = postgres.database()
    queue = PostgresQueue(dsn)
    await queue.accept(flight())
    with psycopg.connect(dsn) as other:
        ((pid,),) = other.execute(WRITING).fetchall()
    os.kill(pid, signal.SIGSTOP)
    try:
        accepted = queue.accept(flight())
        await holds(lambda: not queue.writer.takes_writes)
        await holds(lambda: queue.writer.failed is not None)
        assert not accepted.done()
    finally:
        os.kill(pid, signal.SIGCONT)
    await accepted
    assert len(await queue.waiting("l", (0, 0), 10)) == 2
    await queue.close()


async def test_a_server_that_stands_still_while_it_is_connected_to_is_tried_again(postgres, monkeypatch):
    monkeypatch.setattr(writing, "STALL_S", 0.2)
    dsn = postgres.database()
    queue = PostgresQueue(dsn)
    await queue.accept(flight())
    with psycopg.connect(dsn) as other, psycopg.connect(dsn, autocommit=True) as third:
        other.execute("lock table pivot in access exclusive mode")  # each new session looks at it
        ((pid,),) = third.execute(WRITING).fetchall()
        third.execute("select pg_terminate_backend(%s, %s)", (pid, WAIT_S * 1000))
        accepted = queue.accept(flight())
        await holds(lambda: len(third.execute(f"{WRITING} and wait_event_type = 'Lock'").fetchall()) > 1)
        assert not accepted.done()
    await accepted
    assert len(await queue.waiting("l", (0, 0), 10)) == 2
    await queue.close()


@pytest.mark.parametrize("table", ["flight", "writer"])  # while it is prepared, while it is taken
def test_a_start_on_a_server_that_stands_still_fails(postgres, monkeypatch, table):
    monkeypatch.setattr(writing, "PREPARE_S", 0.2)
    monkeypatch.setattr(writing, "STALL_S", 0.2)
    monkeypatch.setattr(ownership, "OWN_WAIT_S", 0.1)
    dsn = postgres.database(prepare)
    with psycopg.connect(dsn) as other:
        other.execute(f"set idle_in_transaction_session_timeout = '{WAIT_S}s'")  # its lock ends then, too
        other.execute(f"lock table {table} in access exclusive mode")
        with pytest.raises(StoreUnavailable):
            PostgresQueue(dsn)
