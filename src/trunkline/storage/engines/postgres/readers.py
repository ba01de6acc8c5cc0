"""Reads from one PostgreSQL database: in threads, each with a connection of its own; and one for the event loop.

A read that loses its connection is repeated once on another. Each ends after READ_MS, so that no snapshot stays open
and keeps dead rows from being cleaned away.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg

from trunkline.storage.engines.postgres.session import Connection, Servers, is_lost, reason
from trunkline.storage.unavailable import StoreUnavailable

T = TypeVar("T")

READ_MS = 30_000
"""Longest read."""
NEAR_MS = 1000
"""Longest read on the event loop."""
NEAR_REST_S = 1.0
"""Where no server was found, the event loop does not look for one again so soon."""


class Readers:
    """`threads` connections, made when they are needed; and the near one."""

    def __init__(self, servers: Servers, name: str, threads: int) -> None:
        self._servers = servers
        self._name = name
        self._local = threading.local()
        self._made: list[Connection] = []
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"reader-{name}")
        self._near: Connection | None = None
        self._near_lost = 0.0

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a thread. Raises StoreUnavailable."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._run, work)

    async def rows(self, statement: str, bindings: Sequence[Any] = ()) -> list[Any]:
        """The rows of one statement, read in a thread. Raises StoreUnavailable."""
        return await self.read(lambda connection: connection.execute(statement.encode(), bindings).fetchall())

    def near(self, statement: str, bindings: Sequence[Any] = ()) -> list[Any]:
        """The rows of a primary-key read, on this thread: one round trip. Raises StoreUnavailable, at once where no
        server was found less than NEAR_REST_S ago."""
        if time.monotonic() - self._near_lost < NEAR_REST_S:
            raise StoreUnavailable(f"{self._servers!r}: the connection was lost")
        for last in (False, True):
            try:
                if self._near is None:
                    self._near = self._servers.connect(f"trunkline {self._name} near", statement_ms=NEAR_MS)
                return self._near.execute(statement.encode(), bindings).fetchall()
            except StoreUnavailable:
                self._near_lost = time.monotonic()
                raise
            except psycopg.Error as error:
                lost = is_lost(error, self._near)
                if lost and self._near is not None:
                    self._near.close()
                    self._near = None
                if last or not lost:
                    raise StoreUnavailable(reason(error)) from error
        raise AssertionError("unreachable")

    def _run(self, work: Callable[[Connection], T]) -> T:
        tries = 0
        while True:
            connection: Connection | None = getattr(self._local, "connection", None)
            if connection is None or connection.closed:
                connection = self._local.connection = self._servers.connect(
                    f"trunkline {self._name} reads", statement_ms=READ_MS
                )
                self._made.append(connection)
            try:
                return work(connection)
            except psycopg.Error as error:
                if not is_lost(error, connection):
                    if isinstance(error, psycopg.OperationalError):
                        raise StoreUnavailable(reason(error)) from error
                    raise
                connection.close()
                self._made.remove(connection)
                self._local.connection = None
                tries += 1
                if tries > 1:
                    raise StoreUnavailable(reason(error)) from error

    async def close(self) -> None:
        """Finish the reads under way."""
        await asyncio.to_thread(self._threads.shutdown)
        for connection in [*self._made, *([self._near] if self._near else [])]:
            connection.close()
