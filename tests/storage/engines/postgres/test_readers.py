"""Reads on the event loop: a server that is lost must not hold it up. Reads in threads: it must not keep them."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.postgres import PostgresServer, needs_postgres
from trunkline.storage.engines.postgres import readers as reading
from trunkline.storage.engines.postgres.readers import NearConnection, Readers
from trunkline.storage.engines.postgres.session import Servers
from trunkline.storage.unavailable import StoreUnavailable

pytestmark = needs_postgres
WAIT_S = 20.0


class Gated(Readers):
    """Connects when it is let."""

    def __init__(self, dsn: str) -> None:
        super().__init__(Servers(dsn, "queue"), "queue", 1)
        self.dsn = dsn
        self.gate = threading.Event()
        self.gate.set()
        self.here: list[bool] = []
        """For each connection: whether it was made on the thread that reads."""

    def _connect_near(self) -> NearConnection:
        self.here.append(threading.current_thread() is threading.main_thread())
        assert self.gate.wait(WAIT_S)
        return super()._connect_near()


@pytest.fixture
def readers(postgres: PostgresServer) -> Iterator[Gated]:
    made = Gated(postgres.database())
    yield made
    made.gate.set()
    asyncio.run(made.close())


def end_of(readers: Gated) -> None:
    """The server ends the near connection."""
    ((pid,),) = readers.near("select pg_backend_pid()", (), WAIT_S)
    with psycopg.connect(readers.dsn) as other:
        other.execute("select pg_terminate_backend(%s, %s)", (pid, int(WAIT_S * 1000)))


def test_a_lost_connection_is_made_anew_elsewhere_than_on_the_event_loop(readers: Gated) -> None:
    end_of(readers)
    readers.gate.clear()
    with pytest.raises(StoreUnavailable):
        readers.near("select 1")
    assert readers.failed
    with pytest.raises(StoreUnavailable):
        readers.near("select 1")
    readers.gate.set()
    assert readers._near_found.wait(WAIT_S)
    assert readers.near("select 1", (), WAIT_S) == [(1,)]
    assert readers.here == [True, False]
    end_of(readers)
    assert readers.near("select 1", (), WAIT_S) == [(1,)], "where there is one soon, nobody notices"


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """A process of the server does nothing; the kernel goes on confirming what is sent to it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_thread_does_not_wait_for_ever_for_a_server_that_stands_still(
    readers: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "READ_CUT_S", 0.3)
    ((pid,),) = await readers.rows("select pg_backend_pid()")
    async with asyncio.timeout(WAIT_S):
        with standing_still(pid):
            with pytest.raises(StoreUnavailable, match="no answer"):
                await readers.rows("select 1")
            assert await readers.rows("select 1") == [(1,)], "the thread, its only one, reads on another connection"


async def test_a_transaction_of_a_thread_ends_as_well(readers: Gated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rollback is not waited for once more."""
    monkeypatch.setattr(reading, "READ_CUT_S", 0.3)
    ((pid,),) = await readers.rows("select pg_backend_pid()")

    def in_transaction(connection: psycopg.Connection[tuple[object, ...]]) -> None:
        with connection.transaction():
            os.kill(pid, signal.SIGSTOP)
            connection.execute("select 1")

    try:
        async with asyncio.timeout(WAIT_S):
            with pytest.raises(StoreUnavailable):
                await readers.read(in_transaction)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_new_connection_to_a_server_that_stands_still_is_given_up(
    readers: Gated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BEGIN_S", 0.3)
    monkeypatch.setattr(readers, "seek", lambda: None)
    going_on: list[threading.Timer] = []

    def look(connection: psycopg.Connection[tuple[object, ...]]) -> None:
        pid = connection.info.backend_pid
        os.kill(pid, signal.SIGSTOP)
        going_on.append(threading.Timer(WAIT_S, os.kill, (pid, signal.SIGCONT)))  # a test that hangs fails
        going_on[-1].start()
        connection.execute("select 1")

    readers.connected = look
    try:
        with pytest.raises(StoreUnavailable):
            readers.near("select 1")
        with pytest.raises(StoreUnavailable):
            readers.read_now(lambda connection: connection.execute("select 1").fetchall())
    finally:
        for timer in going_on:
            timer.cancel()
            timer.function(*timer.args)
