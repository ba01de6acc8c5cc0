"""Reads from one PostgreSQL database: in threads, each with a connection of its own; and one for the event loop.

A read that loses its connection is repeated once on another. Each ends after READ_MS, so that no snapshot stays open
and keeps dead rows from being cleaned away. The server sees to that; one that stands still does not, and is given up
after READ_CUT_S, lest it keep a thread for ever.

Reads on the event loop hold up everything else, so a server that falls silent is given up after NEAR_S. Then a thread
looks for one; until it has found it, such reads fail at once. They never connect themselves: a host that swallows
packets would hold up the node for longer than its lease.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg

from trunkline.storage.engines.postgres.session import STALE, Connection, Servers, cut, is_lost, reason
from trunkline.storage.unavailable import StoreUnavailable

T = TypeVar("T")
Statement = str | Callable[[], str]
"""Made when it is sent, and again where the tables have changed their shape."""

READ_MS = 30_000
"""Longest read."""
READ_CUT_S = READ_MS / 1000 + 5.0
"""Longest wait for a statement of a read: the server should have ended it."""
BEGIN_S = 5.0
"""Longest wait for what is asked first on a new connection."""
NEAR_S = 0.3
"""Longest read on the event loop."""
NEAR_LONG_S = 30.0
"""The same, of what is read once at a start."""
NEAR_REST_S = 1.0
"""Where no server was found, none is looked for again so soon."""
NEAR_POLL_S = 0.02
"""How often such a read looks at the time."""


class NearConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose statements are waited for `patience_s` and no longer (0: for ever): then TimeoutError, and it
    is of no more use."""

    patience_s = 0.0

    def wait(self, gen: Generator[Any, Any, T], *pace: Any, **more: Any) -> T:
        """psycopg's own, with an end."""
        if not self.patience_s:
            return super().wait(gen, *pace, **more)
        try:
            return super().wait(_until(gen, time.monotonic() + self.patience_s), NEAR_POLL_S)
        except TimeoutError:
            cut(self)  # lest anything else be waited for on it
            raise


def _until(work: Generator[Any, Any, T], until: float) -> Generator[Any, Any, T]:
    """A generator of psycopg's that ends at a time; it is waked every NEAR_POLL_S (Ready.NONE)."""
    try:
        wanted = next(work)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > until:
                raise TimeoutError
            wanted = work.send(ready)
    except StopIteration as end:
        result: T = end.value
        return result


class Readers:
    """`threads` connections, made when they are needed; and the near one."""

    def __init__(self, servers: Servers, name: str, threads: int) -> None:
        self._servers = servers
        self._name = name
        self._local = threading.local()
        self._made: list[Connection] = []
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"reader-{name}")
        self._closing = threading.Event()
        self._near: NearConnection | None = None
        self.stale: Callable[[Connection], None] = lambda connection: None
        """Called when a statement did not fit the tables; then it is made anew, once."""
        self.connected: Callable[[Connection], None] = lambda connection: None
        """Called on each new connection, before anything is read on it."""
        self._near_sought = False
        """Whether a thread looks for a server now."""
        self._near_found = threading.Event()
        """Set once it has found one."""

    @property
    def failed(self) -> str:
        """Why nothing can be read on the event loop now; empty: it can."""
        return f"{self._servers!r}: no server answers" if self._near_sought else ""

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a thread. Raises StoreUnavailable."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, work)

    async def rows(self, statement: Statement, bindings: Sequence[Any] = ()) -> list[Any]:
        """The rows of one statement, read in a thread. Raises StoreUnavailable."""
        return await self.read(lambda connection: connection.execute(_text(statement), bindings).fetchall())

    def read_now(self, work: Callable[[Connection], T]) -> T:
        """The same for a thread that may wait. Raises StoreUnavailable; RuntimeError when closed."""
        return self._threads.submit(self._run, work).result()

    def near(
        self, statement: Statement, bindings: Sequence[Any] = (), patience_s: float = NEAR_S, *, again: bool = False
    ) -> list[Any]:
        """The rows of a primary-key read, on this thread: one round trip. Raises StoreUnavailable: after `patience_s`,
        or at once where the connection was lost and there is no other yet."""
        connection = self._near or self._first_near()
        if connection is None:
            raise StoreUnavailable(f"{self._servers!r}: the connection was lost")
        connection.patience_s = patience_s
        try:
            return connection.execute(_text(statement), bindings).fetchall()
        except (TimeoutError, psycopg.Error) as error:
            silent = isinstance(error, TimeoutError)
            if isinstance(error, psycopg.Error) and not is_lost(error, connection):
                if again or not self._reshaped(error, connection):
                    raise StoreUnavailable(reason(error)) from error
                return self.near(statement, bindings, patience_s, again=True)
            connection.close()
            self._near = None
            self.seek()
            if silent or again or not self._near_found.wait(patience_s):
                raise StoreUnavailable(f"{self._servers!r}: {reason(error)}") from error
        return self.near(statement, bindings, patience_s, again=True)

    def _reshaped(self, error: psycopg.Error, connection: Connection) -> bool:
        """Whether a statement that failed may be made anew."""
        if error.sqlstate not in STALE:
            return False
        try:
            connection.execute("deallocate all")
            self.stale(connection)
        except (psycopg.Error, TimeoutError):
            return False
        return True

    def _first_near(self) -> NearConnection | None:
        """At the start, a connection made here and now."""
        if self._near_sought:
            return None
        try:
            self._near = self._connect_near()
        except StoreUnavailable:
            self.seek()
            raise
        return self._near

    def _connect_near(self) -> NearConnection:
        name = f"trunkline {self._name} near"
        return self._begin(name, int(NEAR_LONG_S * 1000))

    def _begin(self, name: str, statement_ms: int) -> NearConnection:
        """A new connection. Raises StoreUnavailable."""
        connection = self._servers.connect(name, statement_ms=statement_ms, kind=NearConnection)
        assert isinstance(connection, NearConnection)
        connection.patience_s = BEGIN_S
        try:
            self.connected(connection)
        except (TimeoutError, psycopg.Error) as error:
            connection.close()
            raise StoreUnavailable(f"{self._servers!r}: {reason(error)}") from error
        return connection

    def seek(self) -> None:
        """Have a thread look for a server for `near`, unless one does."""
        if self._near_sought or self._closing.is_set():
            return
        self._near_sought = True
        self._near_found.clear()
        threading.Thread(target=self._find_near, name=f"near-{self._name}", daemon=True).start()

    def _find_near(self) -> None:
        while not self._closing.is_set():
            try:
                connection = self._connect_near()
            except StoreUnavailable:
                self._closing.wait(NEAR_REST_S)
                continue
            self._near = connection
            self._near_sought = False
            self._near_found.set()
            if self._closing.is_set():
                connection.close()
            return

    def _run(self, work: Callable[[Connection], T]) -> T:
        tries = 0
        reshaped = False
        while True:
            connection: Connection | None = getattr(self._local, "connection", None)
            if connection is None or connection.closed:
                begun = self._begin(f"trunkline {self._name} reads", READ_MS)
                begun.patience_s = READ_CUT_S
                connection = self._local.connection = begun
                self._made.append(connection)
            try:
                return work(connection)
            except TimeoutError as error:
                self._lose(connection)
                raise StoreUnavailable(f"{self._servers!r}: no answer for {READ_CUT_S} s") from error
            except psycopg.Error as error:
                if not is_lost(error, connection):
                    if not reshaped and self._reshaped(error, connection):
                        reshaped = True
                        continue
                    if isinstance(error, psycopg.OperationalError):
                        raise StoreUnavailable(reason(error)) from error
                    raise
                self._lose(connection)
                tries += 1
                if tries > 1:
                    raise StoreUnavailable(reason(error)) from error

    def _lose(self, connection: Connection) -> None:
        """Have this thread read on another one."""
        connection.close()
        self._made.remove(connection)
        self._local.connection = None

    async def close(self) -> None:
        """Finish the reads under way."""
        self._closing.set()
        await asyncio.to_thread(self._threads.shutdown)
        for connection in [*self._made, *([self._near] if self._near else [])]:
            connection.close()


def _text(statement: Statement) -> bytes:
    return (statement if isinstance(statement, str) else statement()).encode()
