"""Rows of writers that come and go: those of the dead are removed, those of the idle stay."""

import psycopg
import pytest

from tests.postgres import needs_postgres
from trunkline.model.account import Account
from trunkline.model.clock import SystemClock
from trunkline.model.sid import new_sid
from trunkline.storage.engines.postgres import writer as writing
from trunkline.storage.engines.postgres.database import PostgresDatabase
from trunkline.storage.engines.postgres.partitions import PostgresPartitions
from trunkline.storage.engines.postgres.queue import PostgresQueue
from trunkline.storage.queue import Flight
from trunkline.storage.secrets import Secrets

pytestmark = needs_postgres
AC = "AC" + "a" * 32
DEAD = "database-1-00000000"


@pytest.fixture
def dsn(postgres):
    return postgres.database()


def control(dsn):
    """The records' database, as a node or a command line opens it."""
    return PostgresDatabase(dsn, SystemClock(), Secrets([b"k" * 32]))


def a_month_passes(dsn):
    """Nobody writes for so long; a process has died before."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("insert into writer values (%s, 7, '{}', 0, now())", (DEAD,))
        connection.execute("update writer set at = now() - interval '31 days'")


def rows(dsn):
    with psycopg.connect(dsn) as connection:
        return {row[0] for row in connection.execute("select name from writer").fetchall()}


async def test_a_writer_that_was_idle_for_a_month_goes_on_writing(dsn):
    idle = control(dsn)
    a_month_passes(dsn)
    await control(dsn).close()
    await idle.insert(Account(sid=AC))
    assert await idle.get(Account, AC) is not None
    assert DEAD not in rows(dsn), "the others' rows are removed"
    await idle.close()


async def test_an_idle_queue_beside_it_still_settles_its_doubt(dsn, monkeypatch):
    """Its batches are one statement: where its row was gone, nothing would say so."""
    queue = PostgresQueue(dsn)
    one = Flight(sid=new_sid("SM"), account=AC, status="queued", lane="l", record=b"{}")
    await queue.accept(one)
    a_month_passes(dsn)
    await control(dsn).close()
    former = writing.Writer._apply_all
    lost = []

    def answered_then_lost(self, connection, batch, careful):
        outcomes = former(self, connection, batch, careful)
        if not lost:
            lost.append(True)
            writing.cut(connection)
            connection.execute("select 1")
        return outcomes

    monkeypatch.setattr(writing.Writer, "_apply_all", answered_then_lost)
    assert await queue.claim([(one.id, 0)]) == [], "it was committed, once"
    assert queue.by_id(one.id).rev == 1
    await queue.close()


async def test_an_idle_owner_of_a_partition_is_not_deposed_by_a_start(dsn):
    partitions = PostgresPartitions([dsn], 1, node="a")
    part = await partitions.own(0, lambda: None, lambda: False)
    one = Flight(sid=new_sid("SM"), account=AC, status="queued", lane="l", record=b"{}")
    await part.accept(one)
    a_month_passes(dsn)
    await control(dsn).close()
    assert await part.claim([(one.id, 0)]) == []
    await part.close()
    await partitions.close()
