"""Notices of changed records between processes that share a PostgreSQL database."""

import asyncio

import pytest

from tests.postgres import needs_postgres
from trunkline.accounts.directory import Directory
from trunkline.model.account import Account
from trunkline.model.clock import SystemClock
from trunkline.model.numbers import PhoneNumber, StickySender
from trunkline.model.sid import new_sid
from trunkline.storage.database import Duplicate
from trunkline.storage.engines.postgres import database as engine
from trunkline.storage.engines.postgres import notices
from trunkline.storage.engines.postgres.database import PostgresDatabase, prepare
from trunkline.storage.engines.postgres.notices import MAX_BYTES, MOST, texts
from trunkline.storage.secrets import Secrets
from trunkline.storage.unavailable import StoreUnavailable

pytestmark = needs_postgres
AC = "AC" + "a" * 32
WAIT_S = 60
"""Nothing here takes that long: a test that hangs fails."""


@pytest.fixture
def dsn(postgres):
    return postgres.database(prepare)


@pytest.fixture
async def nodes(dsn):
    """Two processes' databases."""
    opened = [PostgresDatabase(dsn, SystemClock(), Secrets([b"k" * 32])) for _ in range(2)]
    yield opened
    for one in opened:
        await one.close()


async def listening(database):
    """Watch from here on, by notices."""
    async with asyncio.timeout(WAIT_S):
        while not database._notices.listening:
            await asyncio.sleep(0.01)


def number(e164):
    return PhoneNumber(sid=new_sid("PN"), account_sid=AC, phone_number=e164)


async def settled(here, there):
    """Have `here` wait for `there` after each of its commits, as nodes of a cluster do."""
    await listening(there)
    here.settle = there.heard


async def test_what_one_process_writes_the_other_knows_when_the_writer_goes_on(nodes):
    here, there = nodes
    directory = Directory(there)
    await directory.start()
    await settled(here, there)
    account = Account(sid=AC, auth_token="one")
    async with asyncio.timeout(WAIT_S):
        for token in ("one", "two", "three"):
            account.auth_token = token
            await (here.insert if not account.created_ms else here.update)(account)
            assert directory.account(AC).auth_token == token
        await here.delete(account)
    assert directory.account(AC) is None


async def test_many_records_of_one_write_come_together(nodes):
    here, there = nodes
    directory = Directory(there)
    await directory.start()
    await settled(here, there)
    numbers = [number(f"+1202555{line:04d}") for line in range(2 * MOST + 1)]
    async with asyncio.timeout(WAIT_S):
        await here.insert(*numbers)
    assert all(directory.number(one.phone_number) is not None for one in numbers)


async def test_a_commit_is_heard_of_once_all_of_its_notices_are(nodes):
    """However late the later ones of many come."""
    _, there = nodes
    told = []
    heard = notices.Notices(there._servers, "nobody", lambda changes: told.append(changes) or asyncio.sleep(0))
    try:
        sent = list(texts("somebody", 7, {"numbers": [str(n) for n in range(MOST + 1)], "accounts": ["one"]}))
        assert len(sent) == 3
        hearing = asyncio.create_task(heard.heard("somebody", 7))
        for text in sent[:-1]:
            before = len(told)
            heard._take([notices._read(text)])
            async with asyncio.timeout(WAIT_S):
                while len(told) == before:
                    await asyncio.sleep(0.001)
            assert not hearing.done()
        heard._take([notices._read(sent[-1])])
        async with asyncio.timeout(WAIT_S):
            await hearing
    finally:
        await heard.close()


async def test_what_is_rolled_back_is_not_told(nodes):
    here, there = nodes
    heard = []
    there.watch(PhoneNumber, lambda sids: heard.append(list(sids)))
    await settled(here, there)
    first, second = number("+12025550100"), number("+12025550101")
    async with asyncio.timeout(WAIT_S):
        await here.insert(first)
        with pytest.raises(Duplicate):
            await here.insert(second, number("+12025550100"))
        await here.insert(number("+12025550102"))
    told = [sid for sids in heard for sid in sids]
    assert first.sid in told
    assert second.sid not in told


async def test_only_what_nodes_have_copies_of_is_told(nodes):
    here, _ = nodes
    waited = []

    async def settle(writer, number):
        waited.append(number)

    here.settle = settle
    await here.put(StickySender(sid="MG1:+12025550100", account_sid=AC, sender="+12025550101"))
    assert waited == []
    await here.insert(number("+12025550102"))
    assert waited == [1]


async def test_a_node_that_cannot_be_waited_for_holds_nobody_up_for_ever(nodes, monkeypatch):
    here, _ = nodes
    monkeypatch.setattr("trunkline.storage.engines.postgres.database.COPY_S", 0.05)
    ended = asyncio.Event()

    async def settle(writer, number):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    here.settle = settle
    async with asyncio.timeout(WAIT_S):
        await here.insert(number("+12025550100"))
    assert ended.is_set()
    assert await here.count(PhoneNumber) == 1


async def test_whoever_did_not_listen_for_a_while_reads_everything(nodes, monkeypatch):
    here, there = nodes
    monkeypatch.setattr(notices, "AGAIN_S", 0.05)
    directory = Directory(there)
    await directory.start()
    await listening(there)
    lost = there._notices._connection
    lose_notices(here, there)
    await here.insert(Account(sid=AC))
    async with asyncio.timeout(WAIT_S):
        while directory.account(AC) is None:
            await asyncio.sleep(0.01)
        await listening(there)
    assert there._notices._connection is not lost


def lose_notices(here, there):
    """The server ends the session that listens."""
    lost = there._notices._connection
    with here._servers.connect("a test") as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid = %s",
            (lost.info.backend_pid,),
        )


def fail_first_reading(monkeypatch, database):
    """The next time that accounts are read, they cannot be; returns what is set then."""
    failed = asyncio.Event()
    find = database.find

    async def failing(kind, *arguments, **more):
        if kind is Account and not failed.is_set():
            failed.set()
            raise StoreUnavailable("away again")
        return await find(kind, *arguments, **more)

    monkeypatch.setattr(database, "find", failing)
    return failed


async def known(directory, sid):
    async with asyncio.timeout(WAIT_S):
        while directory.account(sid) is None:
            await asyncio.sleep(0.01)


async def test_what_cannot_be_read_after_a_time_without_notices_is_read_later(nodes, monkeypatch):
    here, there = nodes
    monkeypatch.setattr(notices, "AGAIN_S", 0.05)
    monkeypatch.setattr(engine, "FOREIGN_POLL_S", WAIT_S)
    directory = Directory(there)
    await directory.start()
    await settled(here, there)
    await here.insert(number("+12025550100"))  # the listening has begun: what it began with has been read
    failed = fail_first_reading(monkeypatch, there)
    lose_notices(here, there)
    here.settle = None
    await here.insert(Account(sid=AC))
    await known(directory, AC)
    assert failed.is_set()


async def test_what_the_poll_could_not_read_is_read_later(nodes, monkeypatch):
    """No notices come at all, as from an older release."""
    here, there = nodes
    monkeypatch.setattr(engine, "FOREIGN_POLL_S", 0.05)
    monkeypatch.setattr(engine, "NET_POLL_S", 0.05)
    monkeypatch.setattr(notices, "SEND", "select %s::text")
    directory = Directory(there)
    await directory.start()
    await listening(there)
    failed = fail_first_reading(monkeypatch, there)
    await here.insert(Account(sid=AC))
    await known(directory, AC)
    assert failed.is_set()


async def test_whoever_listens_again_reads_everything_also_where_no_commits_are_seen(nodes, monkeypatch):
    """What was committed meanwhile may have been counted before, and not have been read."""
    here, there = nodes
    monkeypatch.setattr(notices, "AGAIN_S", 0.05)
    told = asyncio.Event()
    there.watch(PhoneNumber, lambda sids: None if sids else told.set())
    await settled(here, there)
    await here.insert(number("+12025550100"))
    for _ in range(2):
        told.clear()
        lose_notices(here, there)
        async with asyncio.timeout(WAIT_S):
            await told.wait()


async def test_what_cannot_be_read_now_is_read_later(nodes, monkeypatch):
    here, there = nodes
    monkeypatch.setattr(notices, "AGAIN_S", 0.01)
    directory = Directory(there)
    await directory.start()
    await settled(here, there)
    failures = 3
    read = there.get

    async def get(kind, sid):
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreUnavailable("away")
        return await read(kind, sid)

    monkeypatch.setattr(there, "get", get)
    async with asyncio.timeout(WAIT_S):
        await here.insert(Account(sid=AC))
        await there.heard(here._name, 1)
    assert directory.account(AC) is not None
    assert failures == 0


def test_a_notice_fits():
    sids = [f"{line:0300d}" for line in range(2 * MOST)]
    sent = list(texts("writer", 1, {"optouts": sids}))
    assert len(sent) == 2
    assert all(len(text) <= MAX_BYTES for text in sent)
    assert all(notices._read(text).sids == () for text in sent)  # any of the table's
    short = list(texts("writer", 1, {"accounts": ["AC1", "AC2"]}))
    assert notices._read(short[0]) == notices.Notice("writer", 1, "accounts", ("AC1", "AC2"))
    assert notices._read("of another release") is None
