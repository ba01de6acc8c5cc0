"""Recent documents, the segment manifest and the floors in PostgreSQL (see trunkline.storage.manifest).

Any number of nodes land documents at once; one at a time rolls up and compacts. Theory, where it differs from the file:

- **Landings and the watermark.** On the file all writes follow one another. Here a landing holds a shared lock until it
  is committed, and raising the watermark waits for all of them: whoever has not seen the new watermark is in the
  snapshot that the roll-up then takes.
- **One roller.** `alone` claims an epoch in `archive_state`, for CLAIM_S, and renews it while it works. Each change of
  the manifest compares that epoch in its own transaction: a node whose claim was taken over (it stood still, or was cut
  off) records nothing more, and what it wrote is a file that no manifest names. Rows go only after their segment was
  recorded, whoever removes them; the next holder first removes those of segments that are still draining.
- **Deletions.** A landing and a deletion on two nodes do not wait for each other, so readers compare with the floors.
"""

import asyncio
import os
import secrets as randomness
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psycopg

from trunkline.storage.archive import Document
from trunkline.storage.engines.postgres import durability
from trunkline.storage.engines.postgres import recent_sql as sql
from trunkline.storage.engines.postgres.database_schema import clean
from trunkline.storage.engines.postgres.queue import MIGRATION_LOCK, rewrite_tables
from trunkline.storage.engines.postgres.readers import Readers
from trunkline.storage.engines.postgres.session import Connection, Servers, is_lost, reason
from trunkline.storage.engines.postgres.writer import WRITER_TABLE, Cursor, Writer
from trunkline.storage.manifest import TOMBSTONE, ArchiveBusy, Floor, Row, Segment
from trunkline.storage.survives import Survives
from trunkline.storage.unavailable import StoreUnavailable

T = TypeVar("T")

READER_THREADS = 3
"""Pages and fetches read at the same time."""
CLAIM_S = 60.0
"""How long a roll-up's claim lasts when its holder dies."""
RENEW_S = 15.0
ROWS_BATCH = 2000
"""Rows fetched at once by a roll-up."""
EXPIRE_BATCH = 500
"""Expired rows removed per write, so that landings get their turn."""
SNAPSHOT_MS = 600_000
"""A snapshot of a worker process lasts no longer."""
LAST_KEY = "g"
"""Sorts after every key (hex digits)."""
_MOST_MS = 1 << 62


class _Facts(msgspec.Struct):
    """The fields of a body that pages are filtered by; the rest is passed over."""

    to: Any = ""
    from_: Any = msgspec.field(name="from", default="")
    status: Any = ""
    created_ms: Any = 0
    sent_ms: Any = 0
    started_ms: Any = 0
    """When a call started: it stands where a message's sending does."""
    parent_sid: Any = ""
    ended_ms: Any = 0


_decode_facts = msgspec.json.Decoder(_Facts).decode
_NO_FACTS = _Facts()


def _text(value: Any) -> str:
    if type(value) is not str:
        return ""
    return value if value.isascii() and "\0" not in value else str(clean(value.encode("utf-8", "replace").decode()))


def _ms(value: Any) -> int:
    return value if type(value) is int and 0 <= value < _MOST_MS else 0


def _row(document: Document) -> tuple[Any, ...]:
    """The columns of UPSERT. A body that is no JSON object is kept, but passes no filter."""
    sid = document.sid
    try:
        facts = _decode_facts(document.body)
    except msgspec.DecodeError:
        facts = _NO_FACTS
    return (
        document.account, sid[2:], sid[:2], document.kind, document.rev, _text(facts.to), _text(facts.from_),
        _text(facts.status), _ms(facts.created_ms), _ms(facts.sent_ms or facts.started_ms), _text(facts.parent_sid),
        _ms(facts.ended_ms), document.body,
    )  # fmt: skip


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[Any]:
    """One array for each column; of whole numbers as text, since the driver would choose their size by the first."""
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]
    return [
        "{" + ",".join(map(str, column)) + "}" if column and type(column[0]) is int else column for column in columns
    ]


def filter_sql(filters: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Conditions and their values. Raises KeyError for a filter that is not there."""
    conditions = "".join(f" and {sql.FILTERS[name]}" for name in filters)
    return conditions, [int(value) if name.endswith("_ms") else _text(str(value)) for name, value in filters.items()]


def prepare(connection: Connection) -> None:
    """Create what the database lacks, in one transaction."""
    connection.execute("begin")
    try:
        connection.execute("select pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
        connection.execute(WRITER_TABLE.encode())
        for statement in sql.TABLES.split(";"):
            if statement.strip():
                connection.execute(statement.encode())
        connection.execute("commit")
    except psycopg.Error:
        connection.execute("rollback")
        raise


def _segment(row: Any) -> Segment:
    return Segment(
        id=row[0], path=row[1], late=row[2], rows=row[3], size=row[4], min_key=row[5], max_key=row[6],
        min_created_ms=row[7], max_created_ms=row[8], min_sent_ms=row[9], max_sent_ms=row[10],
        accounts=bytes(row[11]), created_ms=row[12], draining=row[13],
    )  # fmt: skip


def _floor(row: Any) -> Floor:
    return Floor(account=row[0], key=row[1], rev=row[2], at_ms=row[3], private=row[4])


class PostgresReader:
    """A `RecentReader` with a connection of its own, made again when it was lost. Raises StoreUnavailable."""

    def __init__(self, dsn: str) -> None:
        self._servers = Servers(dsn, "archive")
        self._connection: Connection | None = None

    def _rows(self, statement: str, bindings: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
        for last in (False, True):
            fresh = self._connection is None
            if self._connection is None:
                self._connection = self._servers.connect("trunkline archive worker", writes=True)
                self._connection.execute(f"set idle_in_transaction_session_timeout = {SNAPSHOT_MS}".encode())
            connection = self._connection
            try:
                cursor = connection.execute(statement.encode(), bindings)
                return cursor.fetchall() if cursor.description else []
            except psycopg.Error as error:
                in_snapshot = connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE
                lost = is_lost(error, connection)
                if lost:
                    connection.close()
                    self._connection = None
                if last or fresh or not lost or (in_snapshot and not statement.startswith("begin")):
                    raise StoreUnavailable(reason(error)) from error
        raise AssertionError("unreachable")

    def begin(self) -> None:
        self.end()
        self._rows("begin isolation level repeatable read read only")

    def end(self) -> None:
        connection = self._connection
        if connection is not None and connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            try:
                connection.execute("rollback")
            except psycopg.Error:
                connection.close()
                self._connection = None

    def generation(self) -> int:
        return int(self._rows(sql.GENERATION)[0][0])

    def segments(self) -> list[Segment]:
        return [_segment(row) for row in self._rows(sql.SEGMENTS)]

    def watermark(self) -> str:
        return str(self._rows(sql.TOP_SEGMENT)[0][0])

    def floors(self, account: str, keys: Sequence[str]) -> dict[str, int]:
        return dict(self._rows(sql.FLOORS, (account, list(keys))))

    def all_floors(self) -> list[Floor]:
        return [_floor(row) for row in self._rows(sql.ALL_FLOORS)]

    def dropped(self) -> list[str]:
        """Segments that were replaced, whose files may still be read."""
        return [path for (path,) in self._rows(sql.ALL_DROPPED)]

    def cut(self, rows: int, below: str) -> str:
        return str(self._rows(sql.CUT, (self.watermark(), below, rows))[0][0])

    def counts(self, below: str) -> tuple[int, int, str]:
        late, rows, oldest = self._rows(sql.COUNTS, {"top": self.watermark(), "below": below})[0]
        return late, rows, oldest

    def rows(self, above: str, upto: str, accounts: Sequence[str] = ()) -> Iterator[Row]:
        if not accounts:
            account = key = ""
            while batch := self._rows(sql.ROWS, (account, key, above, upto, ROWS_BATCH)):
                yield from map(_recent_row, batch)
                account, key = batch[-1][:2]
        for account in sorted(accounts):
            after = above
            while batch := self._rows(sql.ACCOUNT_ROWS, (account, after, upto, ROWS_BATCH)):
                yield from map(_recent_row, batch)
                after = batch[-1][1]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _recent_row(row: Any) -> Row:
    return Row(account=row[0], key=row[1], prefix=row[2], kind=row[3], rev=row[4], body=bytes(row[5]))


def open_reader(dsn: str) -> PostgresReader:
    """What `PostgresRecent.reader_spec` names."""
    return PostgresReader(dsn)


class PostgresRecent:
    """`trunkline.storage.manifest.Recent`, for any number of nodes. Raises StoreUnavailable, CannotSurvive."""

    def __init__(
        self,
        dsn: str,
        *,
        survives: Survives = Survives.POWER,
        zones: Mapping[str, str] | None = None,
        wait_s: float = 10.0,
    ) -> None:
        self.survives = survives
        self._dsn = dsn
        self._name = f"archive-{os.getpid()}-{randomness.token_hex(4)}"
        servers = Servers(dsn, "database")
        self._writer = Writer(
            servers,
            self._name,
            owner=self._name,
            prepare=prepare,
            check=lambda connection: durability.check(durability.read(connection), survives, zones or {}),
            wait_s=wait_s,
        )
        self._readers = Readers(servers, "archive", READER_THREADS)
        self._epoch = 0
        """Of our claim; 0: we have none."""

    @property
    def reader_spec(self) -> tuple[str, str]:
        return f"{__name__}:open_reader", self._dsn

    @property
    def writer(self) -> Writer:
        """For health checks: its `failed` and counters."""
        return self._writer

    # -- documents ---------------------------------------------------------------------------------------------

    async def land(self, documents: Sequence[Document]) -> None:
        if not documents:
            return
        newest: dict[tuple[str, str], tuple[Any, ...]] = {}
        for document in documents:
            row = _row(document)
            known = newest.get((row[0], row[1]))
            if known is None or row[4] > known[4]:
                newest[row[0], row[1]] = row
        rows = [newest[identity] for identity in sorted(newest)]  # in one order everywhere: no deadlocks
        columns = _columns(rows, 13)

        def write(cursor: Cursor) -> None:
            cursor.execute(sql.LANDING_LOCK.format(sql.LOCK_CLASS).encode())
            cursor.execute(sql.UPSERT.encode(), columns)
            cursor.execute(sql.RAISE_LATE_FLOORS.encode(), (columns[0], columns[1], columns[4]))

        await self._writer.submit(write)

    async def revise(self, document: Document, now_ms: int) -> None:
        d, columns = document, _columns([_row(document)], 13)

        def write(cursor: Cursor) -> None:
            cursor.execute(sql.LANDING_LOCK.format(sql.LOCK_CLASS).encode())
            cursor.execute(sql.UPSERT.encode(), columns)
            cursor.execute(sql.RAISE_FLOOR.encode(), (d.account, d.sid[2:], d.rev, now_ms))

        await self._writer.submit(write)

    async def delete(self, account: str, sid: str, now_ms: int) -> None:
        def write(cursor: Cursor) -> None:
            cursor.execute(sql.RAISE_FLOOR.encode(), (account, sid[2:], TOMBSTONE, now_ms))
            cursor.execute(sql.REMOVE.encode(), (account, sid[2:]))

        await self._writer.submit(write)

    async def get(self, account: str, sid: str) -> Document | None:
        for prefix, kind, rev, body in await self._readers.rows(sql.GET, (account, clean(sid[2:]))):
            if prefix == sid[:2]:
                return Document(sid=sid, account=account, kind=kind, rev=rev, body=bytes(body))
        return None

    async def page(
        self, account: str, kind: str, *, before: str, after: str, limit: int, filters: Mapping[str, Any]
    ) -> list[Document]:
        where, values = filter_sql(filters)
        bindings = [account, clean(before) or LAST_KEY, clean(after), kind, *values, limit]
        rows = await self._readers.rows(sql.PAGE.format(where=where), bindings)
        return [Document(sid=p + key, account=account, kind=k, rev=rev, body=bytes(b)) for p, key, k, rev, b in rows]

    async def high(self) -> str:
        return str((await self._readers.rows(sql.WATERMARK))[0][0])

    async def counts(self, below: str) -> tuple[int, int, str]:
        top = str((await self._readers.rows(sql.TOP_SEGMENT))[0][0])
        work = sql.COUNTS.encode()
        found: list[Any] = await self._readers.read(
            lambda connection: connection.execute(work, {"top": top, "below": below}).fetchall()
        )
        late, rows, oldest = found[0]
        return late, rows, oldest

    # -- floors ------------------------------------------------------------------------------------------------

    async def all_floors(self) -> list[Floor]:
        return [_floor(row) for row in await self._readers.rows(sql.ALL_FLOORS)]

    async def drop_floors(self, floors: Sequence[tuple[str, str, int]]) -> None:
        bindings = (*_columns(floors, 3), TOMBSTONE)
        await self._run(sql.DROP_FLOORS, bindings)

    async def pending_floors(self) -> tuple[int, int]:
        count, oldest = (await self._readers.rows(sql.PENDING_FLOORS))[0]
        return count, oldest

    async def forget_floors(self, before_ms: int) -> None:
        await self._run(sql.FORGET_FLOORS, (before_ms,))

    async def scrub(self, floors: Sequence[Floor], now_ms: int) -> bool:
        """Remove hidden rows and rewrite their table, so that it holds none of their bytes; then settle the floors."""
        await self._run(sql.REMOVE_HIDDEN)
        try:
            clean_now = await asyncio.to_thread(rewrite_tables, self._dsn, "database", sql.WITH_CONTENT)
        except psycopg.Error as error:
            raise StoreUnavailable(reason(error)) from error
        if not clean_now:
            return False
        columns = _columns([(f.account, f.key, f.rev) for f in floors], 3)

        def write(cursor: Cursor) -> None:
            cursor.execute(sql.SETTLE_FLOORS.encode(), (now_ms, *columns, TOMBSTONE))
            cursor.execute(sql.DROP_FLOORS.encode(), (*columns, TOMBSTONE))

        await self._writer.submit(write)
        return True

    async def expire(self, account: str, first: str, below: str) -> int:
        removed = batch = EXPIRE_BATCH
        removed = 0
        while batch == EXPIRE_BATCH:
            batch = await self._run(sql.EXPIRE, (account, first, below, EXPIRE_BATCH))
            removed += batch
        return removed

    async def drain(self, rows: Sequence[tuple[str, str, int]]) -> None:
        await self._run(sql.DRAIN, _columns(sorted(rows), 3))

    # -- the manifest ------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def alone(self, folder: Path) -> AsyncIterator[None]:
        """See `Recent.alone`: the only one in the cluster."""
        found = await self._claim(sql.CLAIM, (self._name, CLAIM_S, self._name))
        if not found:
            raise ArchiveBusy("another node rolls up or compacts this archive")
        self._epoch = found
        renewing = asyncio.get_running_loop().create_task(self._renew(found))
        try:
            yield
        finally:
            self._epoch = 0
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            try:
                await self._run(sql.GIVE_UP, (found, self._name))
            except StoreUnavailable:
                pass  # it ends by itself after CLAIM_S

    async def _claim(self, statement: str, bindings: Sequence[Any]) -> int:
        def write(cursor: Cursor) -> int:
            row = cursor.execute(statement.encode(), bindings).fetchone()
            return int(row[0]) if row else 0

        return await self._writer.submit(write)

    async def _renew(self, epoch: int) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                await self._claim(sql.RENEW, (CLAIM_S, epoch, self._name))
            except StoreUnavailable:
                continue  # what is recorded compares the epoch itself

    async def raise_watermark(self, key: str) -> None:
        def write(cursor: Cursor) -> None:
            cursor.execute(sql.ROLLING_LOCK.format(sql.LOCK_CLASS).encode())
            cursor.execute(sql.RAISE_WATERMARK.encode(), (key, key))

        await self._writer.submit(write)

    async def segments(self) -> list[Segment]:
        return [_segment(row) for row in await self._readers.rows(sql.SEGMENTS)]

    async def add_segments(self, segments: Sequence[Segment]) -> None:
        await self.replace_segments((), segments)

    async def replace_segments(self, old: Sequence[str], new: Sequence[Segment]) -> None:
        rows = [
            (s.path, s.late, s.rows, s.size, s.min_key, s.max_key, s.min_created_ms, s.max_created_ms,
             s.min_sent_ms, s.max_sent_ms, s.accounts, s.created_ms, s.draining)
            for s in new
        ]  # fmt: skip
        highest = max((segment.max_key for segment in new), default="")

        def write(cursor: Cursor) -> None:
            for row in rows:
                cursor.execute(sql.ADD_SEGMENT.encode(), row)
            cursor.execute(sql.RAISE_WATERMARK.encode(), (highest, highest))
            cursor.execute(sql.DROP_SEGMENTS.encode(), (list(old),))
            cursor.execute(sql.NOTE_DROPPED.encode(), (list(old),))

        await self._change(write)

    async def drained(self, path: str) -> None:
        await self._change(lambda cursor: cursor.execute(sql.DRAINED.encode(), (path,)))

    async def _change(self, write: Callable[[Cursor], Any]) -> None:
        """Change the manifest, if our claim still holds. Raises ArchiveBusy."""
        epoch = self._epoch

        def checked(cursor: Cursor) -> None:
            if cursor.execute(sql.NEXT_GENERATION.encode(), (epoch,)).fetchone() is None:
                raise ArchiveBusy("another node has taken over the archive's upkeep")
            write(cursor)

        await self._writer.submit(checked)

    async def dropped(self, older_ms: int) -> list[str]:
        return [path for (path,) in await self._readers.rows(sql.DROPPED, (older_ms,))]

    async def forget_dropped(self, paths: Sequence[str]) -> None:
        await self._run(sql.FORGET_DROPPED, (list(paths),))

    # -- the rest ----------------------------------------------------------------------------------------------

    async def _run(self, statement: str, bindings: Sequence[Any] = ()) -> int:
        """One statement; the rows that it changed."""
        return await self._writer.submit(lambda cursor: cursor.execute(statement.encode(), bindings).rowcount)

    async def close(self) -> None:
        await self._writer.close()
        await self._readers.close()
