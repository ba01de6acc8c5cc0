"""One SQLite file, group commit: what is written while a commit waits for the disk is committed together.

Theory: every write is a function of a cursor. Writes queue up while a commit is under way; then all that have come run
in one transaction, which is committed once (WAL, synchronous=FULL), so the cost of the sync is shared and grows no
slower than the load. What each returned resolves on the event loop after the commit that holds it, all of a batch in
one wake-up. A write that raises is undone alone and its caller gets the exception; the others commit.

Two threads take turns with the connection. A *light* write (a few indexed rows) runs on the event loop's own thread,
because handing the interpreter to another thread for each statement costs three times what the statement does. All
others, and every commit, run on the writer thread: whatever may wait for the disk or for a lock. Writes are applied in
the order they were handed in: from the first one of a batch that is not light, the rest goes to the thread too.
"""

import asyncio
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import apsw

from trunkline.storage.survives import CannotSurvive
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.storage.written import Written

T = TypeVar("T")
Write = Callable[[apsw.Cursor], Any]

MAX_BATCH = 1000
"""Writes that share one commit."""
MAX_LIGHT = 500
"""Light writes of one commit (about 8 us each): the event loop does nothing else meanwhile."""
MAX_WAITING = 200_000
"""Writes that may wait for the writer before callers are refused (memory bound)."""
CACHE_KIB = 8 * 1024
"""Page cache of the writing connection, KiB."""
WAL_PAGES = 4000
"""WAL length (pages of 4 KiB) at which a checkpoint copies it into the file."""
BUSY_MS = 5000
"""How long another process's write lock is waited for."""


class WriterFull(StoreUnavailable):
    """Too many writes wait: the disk is too slow for the load."""


def connect(path: Path, *, read_only: bool = False, cache_kib: int = CACHE_KIB) -> apsw.Connection:
    """Open a database file with the pragmas that every connection of ours has.

    `secure_delete` zeroes what is deleted, so that a redacted body does not stay in free space.
    """
    if not read_only:
        _make(path)
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


def _make(path: Path) -> None:
    """Make a file that is not there for its owner alone; SQLite gives its log the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return


def check_settings(connection: apsw.Connection) -> None:
    """Refuse to run on a file whose settings would lose acknowledged writes at a power loss."""
    journal = str(connection.execute("pragma journal_mode").get).lower()
    if journal != "wal":
        raise CannotSurvive(f"journal_mode is {journal}, not wal: is the file system a network share?")
    level: Any = connection.execute("pragma synchronous").get
    if int(level) < 2:
        raise CannotSurvive("synchronous is below FULL: acknowledged messages would be lost at a power loss")


def compact_file(path: Path) -> bool:
    """Rewrite a database file and truncate its log, so that no deleted byte is left in either; works beside a running
    server. False when a reader held the log: ask again."""
    connection = connect(path)
    try:
        connection.execute("vacuum")
        busy, _, _ = connection.execute("pragma wal_checkpoint(truncate)").fetchall()[0]
        return not busy
    finally:
        connection.close()


LAZY_S = 0.004
"""How long a write that nobody waits for may wait for company: at low rates most of them then share the commit of a
write that somebody does wait for."""

_Waiting = tuple[Write, Written[Any], bool, bool]
"""A write that waits for its batch; whether it is light; whether it is lazy."""
_Done = list[tuple[Written[Any], Any, BaseException | None]]


class Writer:
    """The writer of one file. `schema` is run once at the start, in one transaction."""

    def __init__(self, path: Path, schema: str, name: str) -> None:
        self._path = path
        self._connection = connect(path)
        self._connection.execute("begin immediate")
        self._connection.execute(schema)
        self._connection.execute("commit")
        self._cursor = self._connection.cursor()
        self.stale: Callable[[apsw.Cursor], bool] = lambda cursor: False
        """Asked within the transaction when a statement did not fit the tables: whether the write, made anew, may."""
        self.commits = 0
        self.writes = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[_Waiting] = deque()
        self._busy = False
        """Whether a batch is begun, or about to be."""
        self._urgent = 0
        """Writes in the line that are not lazy."""
        self._timer: asyncio.TimerHandle | None = None
        """Runs while lazy writes alone wait."""
        self._closed = False
        self._drained: asyncio.Future[None] | None = None
        self.failed: BaseException | None = None
        """Why the last batch was not written (disk full, I/O error); None while all is well."""
        self._jobs: queue.SimpleQueue[tuple[_Done, list[_Waiting]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"writer-{name}", daemon=True)
        self._thread.start()

    @property
    def connection(self) -> apsw.Connection:
        """The writing connection; only writes may use it."""
        return self._connection

    def submit(self, write: Callable[[apsw.Cursor], T]) -> "asyncio.Future[T]":
        """Hand in a write; the future resolves with its result after the commit."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def told(written: Written[T]) -> None:
            if future.done():
                return
            error = written.exception()
            if error is None:
                future.set_result(written.result())
            else:
                future.set_exception(error)

        self._hand_in(write, False, False).add_done_callback(told)
        return future

    def submit_light(self, write: Callable[[apsw.Cursor], T], *, lazy: bool = False) -> Written[T]:
        """Hand in a write that touches a few rows by their keys: it runs on this thread. A `lazy` one may wait LAZY_S
        for others to share its commit; the order of all writes stays."""
        return self._hand_in(write, True, lazy)

    def _hand_in(self, write: Callable[[apsw.Cursor], T], light: bool, lazy: bool) -> Written[T]:
        written: Written[T] = Written()
        if self._closed:
            written.settle(None, WriterFull("the store is closed"))
        elif len(self._waiting) >= MAX_WAITING:
            written.settle(None, WriterFull("too many writes wait for the disk"))
        else:
            self._waiting.append((write, written, light, lazy))
            if not lazy:
                self._urgent += 1
            if not self._busy:
                self._schedule(lazy)
        return written

    def _schedule(self, lazy: bool) -> None:
        """Begin a batch at the end of this pass of the loop, so that all of a pass share a commit; or later."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        if lazy and not self._closed:
            if self._timer is None:
                self._timer = loop.call_later(LAZY_S, self._begin_lazy)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._busy = True
        loop.call_soon(self._begin)

    def _begin_lazy(self) -> None:
        """The lazy writes have waited long enough."""
        self._timer = None
        if not self._busy and self._waiting:
            self._busy = True
            self._begin()

    async def close(self) -> None:
        """Commit what was handed in, checkpoint the WAL and end the thread."""
        if self._closed:
            return
        self._closed = True
        if self._waiting and not self._busy:
            self._schedule(False)
        if self._busy:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)
        self._connection.close()

    # -- on the event loop's thread ----------------------------------------------------------------------------

    def _begin(self) -> None:
        """Run the light writes at the front of the line, then have the thread do the rest and commit."""
        waiting = self._waiting
        if not waiting:
            self._busy = False
            if self._drained is not None:
                self._drained.set_result(None)
            return
        done: _Done = []
        try:
            if waiting[0][2] and self._begin_now():
                cursor = self._cursor
                while waiting and waiting[0][2] and len(done) < MAX_LIGHT:
                    write, written, _, lazy = waiting.popleft()
                    self._urgent -= not lazy
                    done.append((written, None, None))
                    done[-1] = self._apply(cursor, write, written)
        except BaseException as error:
            self._committed(self._undo(done, [], error))
            return
        rest: list[_Waiting] = []
        if len(done) < MAX_LIGHT:
            rest = [waiting.popleft() for _ in range(min(len(waiting), MAX_BATCH - len(done)))]
            self._urgent -= sum(not item[3] for item in rest)
        self._jobs.put((done, rest))

    def _begin_now(self) -> bool:
        """Begin a transaction without waiting. False when that cannot be (another process holds the file's lock, say):
        then the thread waits, or finds out why."""
        connection = self._connection
        connection.set_busy_timeout(0)
        try:
            self._cursor.execute("begin immediate")
        except apsw.Error:
            return False
        finally:
            connection.set_busy_timeout(BUSY_MS)
        return True

    def _committed(self, done: _Done) -> None:
        """A batch has ended: tell its writers, then begin the next with what they and others have handed in."""
        for written, result, error in done:
            written.settle(result, error)
        if self._waiting and not self._urgent and not self._closed:
            self._busy = False
            self._schedule(True)
            return
        loop = self._loop
        assert loop is not None
        loop.call_soon(self._begin)

    # -- on the writer thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            ended = self._finish(*job)
            loop = self._loop
            del job
            try:
                if loop is not None:
                    loop.call_soon_threadsafe(self._committed, ended)
            except RuntimeError:
                continue  # the loop has closed: nobody waits any more
        self._connection.execute("pragma wal_checkpoint(truncate)")

    def _finish(self, done: _Done, rest: list[_Waiting]) -> _Done:
        """Run the rest of a batch and commit. If the transaction itself fails, every caller of the batch is told."""
        cursor = self._connection.cursor()
        try:
            if not self._connection.in_transaction:
                cursor.execute("begin immediate")
            for write, written, _, _ in rest:
                done.append(self._apply(cursor, write, written))
            cursor.execute("commit")
        except BaseException as error:
            return self._undo(done, rest, error)
        self.failed = None
        self.commits += 1
        self.writes += len(done)
        return done

    # -- on either ---------------------------------------------------------------------------------------------

    def _apply(
        self, cursor: apsw.Cursor, write: Write, written: Written[Any]
    ) -> tuple[Written[Any], Any, BaseException | None]:
        """Run one write. Only a constraint can make it fail alone, and SQLite undoes that statement itself; a write
        of several statements guards with its first one, so nothing of it stays behind."""
        try:
            return written, write(cursor), None
        except apsw.ConstraintError as error:
            return written, None, error
        except apsw.SQLError:
            if not self.stale(cursor):
                raise
        except (apsw.Error, OSError):
            raise
        except Exception as error:
            return written, None, error
        return self._apply(cursor, write, written)

    def _undo(self, done: _Done, rest: list[_Waiting], error: BaseException) -> _Done:
        """Nothing of a batch was written: its writers learn why."""
        self.failed = error
        if isinstance(error, apsw.Error | OSError):
            error = _unavailable(error)
        if self._connection.in_transaction:
            self._connection.execute("rollback")
        told = {id(written): written for written, _, _ in done}
        told.update((id(written), written) for _, written, _, _ in rest)
        return [(written, None, error) for written in told.values()]


def _unavailable(error: BaseException) -> StoreUnavailable:
    unavailable = StoreUnavailable(f"{type(error).__name__}: {error}")
    unavailable.__cause__ = error
    return unavailable
