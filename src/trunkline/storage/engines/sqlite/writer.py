"""One SQLite file, one writer thread, group commit.

Theory: every write is a function of a cursor. Writes queue up while a commit waits for the disk; the thread then
runs all that have come in one transaction and commits once (WAL, synchronous=FULL), so the cost of the sync is shared
and grows no slower than the load. Each caller's future resolves after the commit that holds its write. A write that
raises is undone alone (its savepoint is rolled back) and its caller gets the exception; the others commit.

A future resolves on the event loop that made it, all of a batch in one wake-up of that loop.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import apsw

from trunkline.storage.survives import CannotSurvive

T = TypeVar("T")
Write = Callable[[apsw.Cursor], Any]

MAX_BATCH = 1000
"""Writes that share one commit."""
MAX_WAITING = 200_000
"""Writes that may wait for the writer before callers are refused (memory bound)."""
CACHE_KIB = 8 * 1024
"""Page cache of the writing connection, KiB."""
WAL_PAGES = 4000
"""WAL length (pages of 4 KiB) at which a checkpoint copies it into the file."""
BUSY_MS = 5000
"""How long another process's write lock is waited for."""


class WriterFull(Exception):
    """Too many writes wait: the disk is too slow for the load."""


def connect(path: Path, *, read_only: bool = False, cache_kib: int = CACHE_KIB) -> apsw.Connection:
    """Open a database file with the pragmas that every connection of ours has.

    `secure_delete` zeroes what is deleted, so that a redacted body does not stay in free space.
    """
    flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    connection = apsw.Connection(str(path), flags=flags, statementcachesize=256)
    connection.set_busy_timeout(BUSY_MS)
    execute = connection.execute
    if not read_only:
        execute("pragma journal_mode=wal")
        execute("pragma synchronous=full")
        execute(f"pragma wal_autocheckpoint={WAL_PAGES}")
        execute("pragma secure_delete=on")
        execute("pragma foreign_keys=off")
    execute(f"pragma cache_size=-{cache_kib}")
    execute("pragma temp_store=memory")
    return connection


def check_settings(connection: apsw.Connection) -> None:
    """Refuse to run on a file whose settings would lose acknowledged writes at a power loss."""
    journal = str(connection.execute("pragma journal_mode").get).lower()
    if journal != "wal":
        raise CannotSurvive(f"journal_mode is {journal}, not wal: is the file system a network share?")
    level: Any = connection.execute("pragma synchronous").get
    if int(level) < 2:
        raise CannotSurvive("synchronous is below FULL: acknowledged messages would be lost at a power loss")


class Writer:
    """The writer thread of one file. `schema` is run once at the start, in one transaction."""

    def __init__(self, path: Path, schema: str, name: str) -> None:
        self._path = path
        self._queue: queue.SimpleQueue[tuple[Write, asyncio.Future[Any] | None] | None] = queue.SimpleQueue()
        self._connection = connect(path)
        self._connection.execute("begin immediate")
        self._connection.execute(schema)
        self._connection.execute("commit")
        self.commits = 0
        self.writes = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self.failed: BaseException | None = None
        """Why the writer stopped taking writes (disk full, I/O error); None while it is well."""
        self._thread = threading.Thread(target=self._run, name=f"writer-{name}", daemon=True)
        self._thread.start()

    @property
    def connection(self) -> apsw.Connection:
        """The writing connection; only the writer thread may use it."""
        return self._connection

    def submit(self, write: Callable[[apsw.Cursor], T]) -> "asyncio.Future[T]":
        """Hand in a write; the future resolves with its result after the commit."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if self._closed:
            future.set_exception(WriterFull("the store is closed"))
        elif self._queue.qsize() >= MAX_WAITING:
            future.set_exception(WriterFull("too many writes wait for the disk"))
        else:
            self._queue.put((write, future))
        return future

    async def close(self) -> None:
        """Commit what was handed in, checkpoint the WAL and end the thread."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._connection.close()

    def _take(self) -> tuple[list[tuple[Write, Any]], bool]:
        """Everything that waits, at most MAX_BATCH; blocks for the first. True when the end was asked for."""
        batch = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            if len(batch) >= MAX_BATCH:
                return batch, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _run(self) -> None:
        end = False
        while not end:
            batch, end = self._take()
            if batch:
                self._resolve(self._commit(batch))
        self._connection.execute("pragma wal_checkpoint(truncate)")

    def _commit(self, batch: Sequence[tuple[Write, Any]]) -> list[tuple[Any, Any, BaseException | None]]:
        """Run a batch in one transaction. If the transaction itself fails, every caller of the batch is told."""
        cursor = self._connection.cursor()
        done: list[tuple[Any, Any, BaseException | None]] = []
        try:
            cursor.execute("begin immediate")
            for write, future in batch:
                done.append(self._apply(cursor, write, future))
            cursor.execute("commit")
        except BaseException as error:
            self.failed = error
            if self._connection.in_transaction:
                cursor.execute("rollback")
            return [(future, None, error) for _, future in batch]
        self.failed = None
        self.commits += 1
        self.writes += len(batch)
        return done

    def _apply(self, cursor: apsw.Cursor, write: Write, future: Any) -> tuple[Any, Any, BaseException | None]:
        """Run one write. Only a constraint can make it fail alone, and SQLite undoes that statement itself; a write
        of several statements guards with its first one, so nothing of it stays behind."""
        try:
            return future, write(cursor), None
        except apsw.ConstraintError as error:
            return future, None, error
        except (apsw.Error, OSError):
            raise
        except Exception as error:
            return future, None, error

    def _resolve(self, done: list[tuple[Any, Any, BaseException | None]]) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        try:
            loop.call_soon_threadsafe(_settle, done)
        except RuntimeError:
            return  # the loop closed in between: nobody waits any more


def _settle(done: list[tuple[Any, Any, BaseException | None]]) -> None:
    for future, result, error in done:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
