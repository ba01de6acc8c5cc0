"""The `Database` primitive on PostgreSQL: a group-committing writer, readers beside it.

Several processes may write (nodes, the command line): each has a row of its own in `writer`, which counts its batches.
Changes of records that nodes have copies of are made known by notices (trunkline.storage.engines.postgres.notices). A
process that watches also looks at the others' rows now and then: an older release sends no notices. Commits count as
seen once the watchers have read what changed, not before: what cannot be read now is read later.
"""

import asyncio
import logging
import os
import secrets as randomness
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import psycopg

from trunkline.model.clock import Clock
from trunkline.model.record import Record
from trunkline.storage.database import Conflict, Duplicate, Watcher
from trunkline.storage.engines.postgres import durability, notices
from trunkline.storage.engines.postgres.database_schema import PostgresTable, clean, expand
from trunkline.storage.engines.postgres.notices import Notices
from trunkline.storage.engines.postgres.ownership import WRITER_TABLE
from trunkline.storage.engines.postgres.queue import MIGRATION_LOCK
from trunkline.storage.engines.postgres.readers import Readers
from trunkline.storage.engines.postgres.session import Connection, Servers
from trunkline.storage.engines.postgres.writer import Cursor, Writer
from trunkline.storage.engines.sqlite.database_schema import COPIED, SEALED, TABLES
from trunkline.storage.secrets import Secrets
from trunkline.storage.survives import Survives
from trunkline.storage.unavailable import StoreUnavailable

R = TypeVar("R", bound=Record)
Settle = Callable[[str, int], Awaitable[None]]
Change = tuple[PostgresTable[Any], Record, Any]
"""A table, the record handed in, and its bindings."""

log = logging.getLogger(__name__)

READER_THREADS = 2
FOREIGN_POLL_S = 1.0
"""Seconds between looks for commits of other processes, once somebody watches and no notices come."""
NET_POLL_S = 5.0
"""The same while notices come."""
COPY_S = 1.0
"""Longest wait of a committer for its own process's copies."""
RESEAL_PAGE = 500
"""Records that one step of `reseal` rewrites."""
FOREIGN_COMMITS = "select coalesce(sum(batch + barrier), 0) from writer where name <> %s and name like 'database-%%'"
"""Of who writes records: a queue and an archive in the same database are none."""


def prepare(connection: Connection) -> None:
    """Create what the database lacks, in one transaction."""
    connection.execute("begin")
    try:
        connection.execute("select pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
        connection.execute(WRITER_TABLE.encode())
        expand(connection)
        connection.execute("commit")
    except psycopg.Error:
        connection.execute("rollback")
        raise


def _insert(cursor: Cursor, change: Change) -> None:
    table, _, row = change
    cursor.execute(table.insert_sql.encode(), row)


def _put(cursor: Cursor, change: Change) -> None:
    table, _, row = change
    cursor.execute(table.put_sql.encode(), row)


def _update(cursor: Cursor, change: Change) -> None:
    table, record, row = change
    if not cursor.execute(table.update_sql.encode(), row).rowcount:
        raise Conflict(f"{record.sid} has changed since it was read")


def _delete(cursor: Cursor, change: Change) -> None:
    table, record, _ = change
    cursor.execute(table.delete_sql.encode(), (clean(record.sid),))


class PostgresDatabase:
    """`trunkline.storage.database.Database`. Raises StoreUnavailable, CannotSurvive."""

    def __init__(
        self,
        dsn: str,
        clock: Clock,
        secrets: Secrets,
        *,
        survives: Survives = Survives.POWER,
        zones: Mapping[str, str] | None = None,
        wait_s: float = 10.0,
    ) -> None:
        self.survives = survives
        self._clock = clock
        self._tables: dict[type[Record], PostgresTable[Any]] = {kind: PostgresTable(kind, secrets) for kind in TABLES}
        self._name = f"database-{os.getpid()}-{randomness.token_hex(4)}"
        servers = self._servers = Servers(dsn, "database")
        self._writer = Writer(
            servers,
            self._name,
            owner=self._name,
            prepare=prepare,
            check=lambda connection: durability.check(durability.read(connection), survives, zones or {}),
            wait_s=wait_s,
        )
        self._readers = Readers(servers, "database", READER_THREADS)
        self._watchers: dict[type[Record], list[Watcher]] = {}
        self._noticed = 0
        """The last of this writer's notices."""
        self.settle: Settle | None = None
        """Awaited with this writer's name and the number of a notice before a committer goes on: until the other nodes
        have it, for a bounded time. Must not raise."""
        self._notices: Notices | None = None
        self._listened = False
        """Whether notices have come: from then on something may have been missed, whatever commits are seen."""
        self._poll: asyncio.Task[None] | None = None
        # Read before anything is: what another process commits from here on is noticed.
        self._foreign = int(self._readers.near(FOREIGN_COMMITS, (self._name,))[0][0])
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
        one: Callable[[Cursor, Change], None],
        stamp: Mapping[str, int] | None = None,
        committed: Callable[[], None] | None = None,
    ) -> "asyncio.Future[None]":
        """Hand one call to the writer. Rows are made here, so that later changes of a record do not leak into it."""
        changes: list[Change] = []
        for record in records:
            table = self._tables[type(record)]
            row = None if one is _delete else {**table.values(record), **(stamp or {})}
            changes.append((table, record, row))
        if not changes:
            nothing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            nothing.set_result(None)
            return nothing

        sent = self._notices_of(records)

        def write(cursor: Cursor) -> None:
            try:
                for change in changes:
                    one(cursor, change)
            except psycopg.errors.UniqueViolation as error:
                raise Duplicate(error.diag.constraint_name or "a unique value is taken") from error
            for text in sent:
                cursor.execute(notices.SEND.encode(), (text,))

        future = self._writer.submit(write)
        if committed is None and not sent and not any(type(record) in self._watchers for record in records):
            return future
        # Shielded: what has to be done after the commit is done also when its caller has been cancelled meanwhile.
        return asyncio.shield(
            asyncio.get_running_loop().create_task(
                self._after(future, records, committed, self._noticed if sent else 0)
            )
        )

    def _notices_of(self, records: Sequence[Record]) -> list[str]:
        """Of those that other nodes have copies of."""
        touched: dict[str, list[str]] = {}
        for record in records:
            if type(record) in COPIED:
                touched.setdefault(record.TABLE, []).append(record.sid)
        if not touched:
            return []
        self._noticed += 1
        return list(notices.texts(self._name, self._noticed, touched))

    async def _after(
        self,
        future: "asyncio.Future[None]",
        records: Sequence[Record],
        committed: Callable[[], None] | None,
        number: int,
    ) -> None:
        """What a committer waits for: that watchers here know of the commit, and that the other nodes do."""
        await future
        if committed is not None:
            committed()
        waiting = self._notify(records)
        if self.settle is not None and number:
            waiting.append(self.settle(self._name, number))
        if waiting:
            try:
                async with asyncio.timeout(COPY_S):
                    await asyncio.gather(*waiting, return_exceptions=True)
            except TimeoutError:
                log.warning("a change is committed, but the copies of it in memory are not fresh yet")

    async def heard(self, writer: str, number: int) -> None:
        """Wait until the watchers here have what a writer's notice was about."""
        if self._notices is not None:
            await self._notices.heard(writer, number)

    # Reads

    async def get(self, kind: type[R], sid: str) -> R | None:
        """See `Database.get`; by a thread here: the server may be far."""
        table: PostgresTable[R] = self._tables[kind]
        rows = await self._readers.rows(table.get_sql, (clean(sid),))
        return table.record(rows[0]) if rows else None

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
        table: PostgresTable[R] = self._tables[kind]
        statement, bindings = table.page(where, order, newest_first, after, limit)
        return [table.record(row) for row in await self._readers.rows(statement, bindings)]

    async def count(self, kind: type[Record], where: Mapping[str, Any] | None = None) -> int:
        """See `Database.count`."""
        table = self._tables[kind]
        clause, bindings = table.where(where)
        rows = await self._readers.rows(table.count_sql + clause, bindings)
        return int(rows[0][0])

    # Watching

    def watch(self, kind: type[Record], changed: Watcher) -> None:
        """See `Database.watch`; needs a running loop. An empty sequence says that another process has written, so
        anything may have changed."""
        self._watchers.setdefault(kind, []).append(changed)
        if self._poll is None and not self._closed:
            self._notices = Notices(self._servers, self._name, self._heard)
            self._poll = asyncio.get_running_loop().create_task(self._look_for_foreign_commits())

    def _notify(self, records: Sequence[Record]) -> list[Awaitable[None]]:
        """Tell watchers; what they have to wait for."""
        touched: dict[type[Record], list[str]] = {}
        for record in records:
            if type(record) in self._watchers:
                touched.setdefault(type(record), []).append(record.sid)
        return [
            waiting
            for kind, sids in touched.items()
            for changed in self._watchers[kind]
            if (waiting := changed(sids)) is not None
        ]

    async def _heard(self, changes: dict[str, Sequence[str]] | None) -> None:
        """Notices have come. Raises what watchers raise."""
        if changes is None:
            commits = await self._foreign_commits()
            if self._listened or commits != self._foreign:
                await self._read_anew(commits)
            self._listened = True
            return
        waiting = [
            waiting
            for kind, watchers in self._watchers.items()
            if kind.TABLE in changes
            for changed in watchers
            if (waiting := changed(changes[kind.TABLE])) is not None
        ]
        await asyncio.gather(*waiting)

    async def _look_for_foreign_commits(self) -> None:
        while True:
            listening = self._notices is not None and self._notices.listening
            await asyncio.sleep(NET_POLL_S if listening else FOREIGN_POLL_S)
            try:
                commits = await self._foreign_commits()
                if commits != self._foreign:
                    await self._read_anew(commits)
            except (psycopg.Error, OSError, StoreUnavailable):
                continue  # the writer says that nothing can be reached
            except Exception as error:
                log.warning("copies cannot be read anew, and are tried again: %s: %s", type(error).__name__, error)

    async def _foreign_commits(self) -> int:
        """A number that is another one when others have committed."""
        rows = await self._readers.rows(FOREIGN_COMMITS, (self._name,))
        return int(rows[0][0])

    async def _read_anew(self, commits: int) -> None:
        """Anything may have changed: have watchers read all of it. Raises what they raise; only what they have read
        counts as seen. `commits`: of others, as it was before."""
        told = [changed(()) for watchers in self._watchers.values() for changed in watchers]
        await asyncio.gather(*(waiting for waiting in told if waiting is not None))
        self._foreign = commits

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
            await asyncio.gather(self._poll, return_exceptions=True)
        await self._writer.close()
        if self._notices is not None:
            await self._notices.close()
        await self._readers.close()
