"""The `Database` primitive on one SQLite file: one writer thread, readers beside it.

Writes go through the group-committing `Writer`. A call with several records runs in a savepoint of its own, so that
a duplicate or a conflict undoes the whole call and nothing else of the batch. `get` reads by primary key on the event
loop (a few microseconds); `find` and `count` run in reader threads with connections of their own.

Commits of other processes (the command line beside a running server) are noticed within `FOREIGN_POLL_S`.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import apsw

from trunkline.model.clock import Clock
from trunkline.model.record import Record
from trunkline.storage.database import Conflict, Duplicate, Watcher
from trunkline.storage.engines.sqlite.database_schema import SEALED, TABLES, Table, expand
from trunkline.storage.engines.sqlite.writer import Writer, check_settings, connect
from trunkline.storage.secrets import Secrets
from trunkline.storage.survives import Survives

R = TypeVar("R", bound=Record)

READER_THREADS = 2
"""Threads, each with its own connection, that `find` and `count` share."""
READER_CACHE_KIB = 4 * 1024
"""Page cache of each reading connection, KiB."""
FOREIGN_POLL_S = 1.0
"""Seconds between looks for commits of other processes, once somebody watches."""
RESEAL_PAGE = 500
"""Records that one step of `reseal` rewrites."""

Change = tuple[Table[Any], Record, Any]
"""A table, the record handed in, and its bindings."""


def _in_savepoint(cursor: apsw.Cursor, changes: Sequence[Change], one: Callable[[apsw.Cursor, Change], None]) -> None:
    """Apply all changes or none. Raises Duplicate, Conflict."""
    alone = len(changes) == 1
    if not alone:
        cursor.execute("savepoint call")
    try:
        for change in changes:
            one(cursor, change)
    except Exception as error:
        constraint = isinstance(error, apsw.ConstraintError)
        if isinstance(error, apsw.Error) and not constraint:
            raise  # the disk, not the records: the writer gives the whole batch up
        if not alone:
            cursor.execute("rollback to call")
            cursor.execute("release call")
        if constraint:
            raise Duplicate(str(error)) from error
        raise
    if not alone:
        cursor.execute("release call")


def _insert(cursor: apsw.Cursor, change: Change) -> None:
    table, _, row = change
    cursor.execute(table.insert_sql, row)


def _put(cursor: apsw.Cursor, change: Change) -> None:
    table, _, row = change
    cursor.execute(table.put_sql, row)


def _update(cursor: apsw.Cursor, change: Change) -> None:
    table, record, row = change
    cursor.execute(table.update_sql, row)
    if not cursor.connection.changes():
        raise Conflict(f"{record.sid} has changed since it was read")


def _delete(cursor: apsw.Cursor, change: Change) -> None:
    table, record, _ = change
    cursor.execute(table.delete_sql, (record.sid,))


def _integer(cursor: apsw.Cursor) -> int:
    """The one number that a statement answers with."""
    value: Any = cursor.get
    return int(value)


class SqliteDatabase:
    """`trunkline.storage.database.Database` on the file at `path`. Raises CannotSurvive when the file cannot keep
    what was acknowledged through a power loss."""

    survives = Survives.POWER

    def __init__(self, path: Path, clock: Clock, secrets: Secrets) -> None:
        self._path = path
        self._clock = clock
        first = connect(path)
        try:
            check_settings(first)
            expand(first)
        finally:
            first.close()
        self._tables: dict[type[Record], Table[Any]] = {kind: Table(kind, secrets) for kind in TABLES}
        self._writer = Writer(path, "", "database")
        self._reader = connect(path, read_only=True, cache_kib=READER_CACHE_KIB)
        self._local = threading.local()
        self._readers: list[apsw.Connection] = []
        self._threads = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="database-reader")
        self._watchers: dict[type[Record], list[Watcher]] = {}
        self._poll: asyncio.TimerHandle | None = None
        # Read before anything is: what another process commits from here on is noticed.
        self._data_version = _integer(self._writer.connection.execute("pragma data_version"))
        self._closed = False

    @property
    def writer(self) -> Writer:
        """For its counters and its health."""
        return self._writer

    # Writes

    def insert(self, *records: Record) -> "asyncio.Future[None]":
        """See `Database.insert`. Stamps `created_ms` and `updated_ms` where they are 0."""
        now = self._clock.now_ms()
        for record in records:
            record.created_ms = record.created_ms or now
            record.updated_ms = record.updated_ms or now
        return self._write(records, _insert)

    def put(self, record: Record) -> "asyncio.Future[None]":
        """See `Database.put`."""
        record.updated_ms = self._clock.now_ms()
        record.created_ms = record.created_ms or record.updated_ms
        return self._write((record,), _put)

    def update(self, *records: Record) -> "asyncio.Future[None]":
        """See `Database.update`. The records handed in carry their new `rev` and `updated_ms` afterwards."""
        now = self._clock.now_ms()

        def revise() -> None:
            for record in records:
                record.rev += 1
                record.updated_ms = now

        return self._write(records, _update, {"updated_ms": now}, revise)

    def delete(self, *records: Record) -> "asyncio.Future[None]":
        """See `Database.delete`."""
        return self._write(records, _delete)

    def _write(
        self,
        records: Sequence[Record],
        one: Callable[[apsw.Cursor, Change], None],
        stamp: Mapping[str, int] | None = None,
        committed: Callable[[], None] | None = None,
    ) -> "asyncio.Future[None]":
        """Hand one call to the writer. Rows are made here, so that later changes of a record do not leak into it."""
        changes: list[Change] = []
        for record in records:
            table = self._tables[type(record)]
            if one is _delete:
                changes.append((table, record, None))
                continue
            row = table.values(record)
            if stamp:
                row.update(stamp)
            changes.append((table, record, row if one is _update else tuple(row.values())))
        if not changes:
            nothing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            nothing.set_result(None)
            return nothing
        future = self._writer.submit(lambda cursor: _in_savepoint(cursor, changes, one))

        if committed is None and not any(type(record) in self._watchers for record in records):
            return future

        def done(finished: "asyncio.Future[None]") -> None:
            if finished.exception() is None:
                if committed is not None:
                    committed()
                self._notify(records)

        # Added before the caller can await it: watchers know of a commit before its caller goes on. Shielded, so that
        # they learn of the commit also when its caller has been cancelled meanwhile.
        future.add_done_callback(done)
        return asyncio.shield(future)

    # Reads

    async def get(self, kind: type[R], sid: str) -> R | None:
        """See `Database.get`."""
        table: Table[R] = self._tables[kind]
        row = self._reader.execute(table.get_sql, (sid,)).fetchone()
        return None if row is None else table.record(row)

    async def find(
        self,
        kind: type[R],
        where: Mapping[str, Any] | None = None,
        *,
        order: str = "sid",
        newest_first: bool = False,
        after: str = "",
        limit: int = 1000,
    ) -> list[R]:
        """See `Database.find`. `after` is the SID of the last record of the page before, whatever the order."""
        table: Table[R] = self._tables[kind]
        statement, bindings = table.page(where, order, newest_first, after, limit)

        def read() -> list[R]:
            return [table.record(row) for row in self._own_reader().execute(statement, bindings)]

        return await asyncio.get_running_loop().run_in_executor(self._threads, read)

    async def count(self, kind: type[Record], where: Mapping[str, Any] | None = None) -> int:
        """See `Database.count`."""
        table = self._tables[kind]
        clause, bindings = table.where(where)

        def read() -> int:
            return _integer(self._own_reader().execute(table.count_sql + clause, bindings))

        return await asyncio.get_running_loop().run_in_executor(self._threads, read)

    def _own_reader(self) -> apsw.Connection:
        """This reader thread's connection."""
        connection: apsw.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = connect(self._path, read_only=True, cache_kib=READER_CACHE_KIB)
            self._local.connection = connection
            self._readers.append(connection)
        return connection

    # Watching

    def watch(self, kind: type[Record], changed: Watcher) -> None:
        """See `Database.watch`; needs a running loop. An empty sequence says that another process has written to the
        file, so anything may have changed."""
        self._watchers.setdefault(kind, []).append(changed)
        if self._poll is None and not self._closed:
            self._look_for_foreign_commits()

    def _notify(self, records: Sequence[Record]) -> None:
        touched: dict[type[Record], list[str]] = {}
        for record in records:
            if type(record) in self._watchers:
                touched.setdefault(type(record), []).append(record.sid)
        for kind, sids in touched.items():
            for changed in self._watchers[kind]:
                changed(sids)

    def _look_for_foreign_commits(self) -> None:
        if self._closed:
            return
        looked = self._writer.submit(lambda cursor: _integer(cursor.execute("pragma data_version")))
        looked.add_done_callback(self._looked)
        self._poll = asyncio.get_running_loop().call_later(FOREIGN_POLL_S, self._look_for_foreign_commits)

    def _looked(self, looked: "asyncio.Future[int]") -> None:
        """`data_version` changes on a connection only when another connection has committed."""
        if looked.cancelled() or looked.exception() is not None:
            return
        before, self._data_version = self._data_version, looked.result()
        if before != self._data_version:
            for watchers in self._watchers.values():
                for changed in watchers:
                    changed(())

    # Upkeep

    async def reseal(self) -> int:
        """Seal every secret with the first master key, after a rotation; returns how many records were rewritten."""
        rewritten = 0
        for kind in TABLES:
            if kind.TABLE not in SEALED:
                continue
            after = ""
            while page := await self.find(kind, after=after, limit=RESEAL_PAGE):
                for record in page:
                    try:
                        await self.update(record)
                        rewritten += 1
                    except Conflict:
                        continue  # written since it was read, hence sealed with the first key already
                after = page[-1].sid
        return rewritten

    async def close(self) -> None:
        """See `Database.close`."""
        if self._closed:
            return
        self._closed = True
        if self._poll is not None:
            self._poll.cancel()
        await self._writer.close()
        await asyncio.to_thread(self._threads.shutdown)
        for connection in [*self._readers, self._reader]:
            connection.close()
