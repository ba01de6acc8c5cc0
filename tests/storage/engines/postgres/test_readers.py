"""Reads on the event loop: a server that is lost must not hold it up."""

import asyncio
import threading
from collections.abc import Iterator

import psycopg
import pytest

from tests.postgres import PostgresServer, needs_postgres
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
