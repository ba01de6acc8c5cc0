"""Recent documents, the segment manifest and the floors, in one SQLite file (see trunkline.storage.manifest).

All writes go through the one Writer thread. The hot path is `land`: one upsert per document on one index,
(account, key), which is also what a page of an account ranges over.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import msgspec

from trunkline.storage.archive import Document
from trunkline.storage.engines.sqlite.writer import Writer, check_settings, connect
from trunkline.storage.manifest import TOMBSTONE, ArchiveBusy, Floor, Row, Segment
from trunkline.storage.survives import Survives

SCHEMA = """
create table if not exists documents (
  account text not null, key text not null, prefix text not null, kind text not null,
  rev integer not null, recipient text not null, sender text not null, status text not null,
  created_ms integer not null, sent_ms integer not null, body blob not null, primary key (account, key));
create table if not exists segments (
  id integer primary key autoincrement, path text not null unique, late integer not null, rows integer not null,
  size integer not null, min_key text not null, max_key text not null,
  min_created_ms integer not null, max_created_ms integer not null,
  min_sent_ms integer not null, max_sent_ms integer not null,
  accounts blob not null, created_ms integer not null, draining integer not null);
create table if not exists floors (
  account text not null, key text not null, rev integer not null, at_ms integer not null,
  private integer not null, done_ms integer not null default 0, primary key (account, key)) without rowid;
create table if not exists counters (name text primary key, value integer not null) without rowid;
insert or ignore into counters (name, value) values ('generation', 0);
create table if not exists watermark (only integer primary key check (only = 1), key text not null);
insert or ignore into watermark (only, key) select 1, coalesce(max(max_key), '') from segments;
"""

UPSERT = """
insert into documents (account, key, prefix, kind, rev, recipient, sender, status, created_ms, sent_ms, body)
select ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11
where not exists (select 1 from floors where account = ?1 and key = ?2 and rev > ?5)
on conflict (account, key) do update set rev = excluded.rev, kind = excluded.kind, prefix = excluded.prefix,
  recipient = excluded.recipient, sender = excluded.sender, status = excluded.status,
  created_ms = excluded.created_ms, sent_ms = excluded.sent_ms, body = excluded.body where excluded.rev > documents.rev
"""
RAISE_FLOOR = """
insert into floors (account, key, rev, at_ms, private) values (?, ?, ?, ?, ?)
on conflict (account, key) do update set rev = excluded.rev, done_ms = 0,
  at_ms = case when floors.done_ms = 0 then min(floors.at_ms, excluded.at_ms) else excluded.at_ms end,
  private = max(floors.private, excluded.private)
where excluded.rev > floors.rev
"""
WATERMARK = "select key from watermark"
RAISE_WATERMARK = "update watermark set key = max(key, ?)"
GET = "select prefix, kind, rev, body from documents where account = ? and key = ?"
FLOOR = "select rev from floors where account = ? and key = ?"
REMOVE = "delete from documents where account = ? and key = ?"
DRAIN = "delete from documents where account = ? and key = ? and rev = ?"
EXPIRE = """
delete from documents where rowid in
  (select rowid from documents where account = ? and key >= ? and key < ? limit ?)
"""
ADD_SEGMENT = """
insert into segments (path, late, rows, size, min_key, max_key, min_created_ms, max_created_ms, min_sent_ms,
  max_sent_ms, accounts, created_ms, draining) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
SEGMENTS = """
select id, path, late, rows, size, min_key, max_key, min_created_ms, max_created_ms, min_sent_ms, max_sent_ms,
  accounts, created_ms, draining from segments order by min_key
"""
NEXT_GENERATION = "update counters set value = value + 1 where name = 'generation'"
SETTLE_FLOOR = "update floors set done_ms = ? where account = ? and key = ? and rev = ? and rev = ?"
DROP_FLOOR = "delete from floors where account = ? and key = ? and rev = ? and rev < ?"

LOCK = "lock"
"""File in the segments' folder that whoever rolls up or compacts has locked."""
WRITER_BUSY_MS = 60_000
"""How long the writer waits for another process's (a command's VACUUM holds the file for seconds)."""
READERS = 3
"""Threads that read pages at the same time."""
READER_CACHE_KIB = 4 * 1024
"""Page cache of a reading connection, KiB."""
READER_MAP = 1 << 30
"""Bytes of the file that readers map instead of copying page by page (scans take a third of the time)."""
EXPIRE_BATCH = 500
"""Expired rows removed per write, so that landings get their turn."""
LAST_KEY = "g"
"""Sorts after every key (hex digits)."""

FILTERS = {
    "to": "recipient = ?",
    "from": "sender = ?",
    "status": "status = ?",
    "sent_ge_ms": "sent_ms > 0 and sent_ms >= ?",  # 0: not sent, in no range
    "sent_lt_ms": "sent_ms > 0 and sent_ms < ?",
    "created_ge_ms": "created_ms > 0 and created_ms >= ?",
    "created_lt_ms": "created_ms > 0 and created_ms < ?",
    "parent": "cast(body as text) ->> '$.parent_sid' = ?",
    "ended_ge_ms": "cast(body as text) ->> '$.ended_ms' >= ?",
    "ended_lt_ms": "coalesce(cast(body as text) ->> '$.ended_ms', 0) between 1 and ? - 1",
}


class _Facts(msgspec.Struct):
    """The fields of a body that pages are filtered by; the rest is passed over."""

    to: Any = ""
    from_: Any = msgspec.field(name="from", default="")
    status: Any = ""
    created_ms: Any = 0
    sent_ms: Any = 0
    started_ms: Any = 0
    """When a call started: it stands where a message's sending does."""


_decode_facts = msgspec.json.Decoder(_Facts).decode
_NO_FACTS = _Facts()
_MOST_MS = 1 << 62


def _row(document: Document) -> tuple[Any, ...]:
    """The parameters of UPSERT. A body that is no JSON object is kept, but passes no filter."""
    sid = document.sid
    try:
        facts = _decode_facts(document.body)
    except msgspec.DecodeError:
        facts = _NO_FACTS
    to, sender, status, created, sent = (
        facts.to,
        facts.from_,
        facts.status,
        facts.created_ms,
        facts.sent_ms or facts.started_ms,
    )
    return (
        document.account,
        sid[2:],
        sid[:2],
        document.kind,
        document.rev,
        to if type(to) is str else "",
        sender if type(sender) is str else "",
        status if type(status) is str else "",
        created if type(created) is int and 0 <= created < _MOST_MS else 0,
        sent if type(sent) is int and 0 <= sent < _MOST_MS else 0,
        document.body,
    )


def filter_sql(filters: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Conditions and their values. Raises KeyError for a filter that is not there."""
    conditions = "".join(f" and {FILTERS[name]}" for name in filters)
    return conditions, [int(value) if name.endswith("_ms") else str(value) for name, value in filters.items()]


class SqliteReader:
    """A `RecentReader` on a file that another process may be writing."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path, read_only=True, cache_kib=READER_CACHE_KIB)
        self._connection.execute(f"pragma mmap_size={READER_MAP}")

    def begin(self) -> None:
        self._connection.execute("begin")

    def end(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("rollback")

    def generation(self) -> int:
        return int(self._connection.execute("select value from counters where name = 'generation'").get)

    def segments(self) -> list[Segment]:
        return [_segment(row) for row in self._connection.execute(SEGMENTS)]

    def watermark(self) -> str:
        return self._connection.execute("select coalesce(max(max_key), '') from segments").get or ""

    def raised_watermark(self) -> str:
        """The highest key that a segment may hold, or may soon."""
        return str(self._connection.execute(WATERMARK).get)

    def floors(self, account: str, keys: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        execute = self._connection.execute
        for key in keys:
            for (rev,) in execute(FLOOR, (account, key)):
                found[key] = rev
        return found

    def all_floors(self) -> list[Floor]:
        rows = self._connection.execute("select account, key, rev, at_ms, private from floors where done_ms = 0")
        return [Floor(account=a, key=k, rev=r, at_ms=at, private=bool(p)) for a, k, r, at, p in rows]

    def dropped(self) -> list[str]:
        return []

    def cut(self, rows: int, below: str) -> str:
        sql = """select max(key) from (select key from documents where key > ? and key < ? order by key limit ?)"""
        return self._connection.execute(sql, (self.watermark(), below, rows)).get or ""

    def counts(self, below: str) -> tuple[int, int, str]:
        sql = """select count(*) filter (where key <= ?1), count(*) filter (where key > ?1 and key < ?2),
            coalesce(min(key) filter (where key > ?1), '') from documents"""
        late, rows, oldest = self._connection.execute(sql, (self.watermark(), below)).fetchall()[0]
        return int(late or 0), int(rows or 0), str(oldest)

    def rows(self, above: str, upto: str, accounts: Sequence[str] = ()) -> Iterator[Row]:
        columns = "select account, key, prefix, kind, rev, body from documents"
        if not accounts:
            sql = f"{columns} where key > ? and key <= ? order by account, key"
            yield from _rows(self._connection.execute(sql, (above, upto)))
        for account in sorted(accounts):
            sql = f"{columns} where account = ? and key > ? and key <= ? order by key"
            yield from _rows(self._connection.execute(sql, (account, above, upto)))

    def page(self, account: str, kind: str, before: str, after: str, limit: int, where: str, values: Any) -> list[Any]:
        """(prefix, key, kind, rev, body) rows, newest first."""
        sql = f"""select prefix, key, kind, rev, body from documents
            where account = ? and key < ? and key > ? and kind = ?{where} order by key desc limit ?"""
        return self._connection.execute(sql, (account, before, after, kind, *values, limit)).fetchall()

    def get(self, account: str, sid: str) -> Document | None:
        for prefix, kind, rev, body in self._connection.execute(GET, (account, sid[2:])):
            if prefix == sid[:2]:
                return Document(sid=sid, account=account, kind=kind, rev=rev, body=body)
        return None

    def close(self) -> None:
        self._connection.close()


def open_reader(path: str) -> SqliteReader:
    """What `SqliteRecent.reader_spec` names."""
    return SqliteReader(Path(path))


def _rows(cursor: Any) -> Iterator[Row]:
    for account, key, prefix, kind, rev, body in cursor:
        yield Row(account=account, key=key, prefix=prefix, kind=kind, rev=rev, body=body)


def _segment(row: Any) -> Segment:
    return Segment(
        id=row[0], path=row[1], late=bool(row[2]), rows=row[3], size=row[4], min_key=row[5], max_key=row[6],
        min_created_ms=row[7], max_created_ms=row[8], min_sent_ms=row[9], max_sent_ms=row[10],
        accounts=row[11], created_ms=row[12], draining=bool(row[13]),
    )  # fmt: skip


class SqliteRecent:
    """The recent store of the serving process (`trunkline.storage.manifest.Recent`)."""

    survives = Survives.POWER

    def __init__(self, path: Path) -> None:
        """Raises CannotSurvive when the file's settings would lose acknowledged writes."""
        self._path = path
        probe = connect(path)
        check_settings(probe)
        probe.close()
        self._writer = Writer(path, SCHEMA, "archive")
        self._writer.connection.set_busy_timeout(WRITER_BUSY_MS)
        self._reader = SqliteReader(path)
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="archive-read")
        self._idle_readers: list[SqliteReader] = []

    @property
    def reader_spec(self) -> tuple[str, str]:
        return f"{__name__}:open_reader", str(self._path)

    async def high(self) -> str:
        return self._reader.raised_watermark()

    @asynccontextmanager
    async def alone(self, folder: Path) -> AsyncIterator[None]:
        """See `Recent.alone`: over all processes of this machine."""
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArchiveBusy("another process rolls up or compacts this archive") from None
        else:
            yield
        finally:
            os.close(handle)

    @property
    def writer(self) -> Writer:
        """For health checks: its `failed` and counters."""
        return self._writer

    async def land(self, documents: Sequence[Document]) -> None:
        if not documents:
            return
        rows = [_row(document) for document in documents]

        def write(cursor: apsw.Cursor) -> None:
            cursor.executemany(UPSERT, rows)
            watermark = str(cursor.execute(WATERMARK).fetchall()[0][0])
            late = [row for row in rows if row[1] <= watermark]
            if late:
                at_ms = _now_ms(cursor)
                cursor.executemany(RAISE_FLOOR, [(row[0], row[1], row[4], at_ms, False) for row in late])

        await self._writer.submit(write)

    async def revise(self, document: Document, now_ms: int) -> None:
        d = document
        row = _row(d)

        def write(cursor: apsw.Cursor) -> None:
            cursor.execute(UPSERT, row)
            cursor.execute(RAISE_FLOOR, (d.account, d.sid[2:], d.rev, now_ms, True))

        await self._writer.submit(write)

    async def delete(self, account: str, sid: str, now_ms: int) -> None:
        def write(cursor: apsw.Cursor) -> None:
            cursor.execute(REMOVE, (account, sid[2:]))
            cursor.execute(RAISE_FLOOR, (account, sid[2:], TOMBSTONE, now_ms, True))

        await self._writer.submit(write)

    async def get(self, account: str, sid: str) -> Document | None:
        """Without a thread hop."""
        return self._reader.get(account, sid)

    async def page(
        self, account: str, kind: str, *, before: str, after: str, limit: int, filters: Mapping[str, Any]
    ) -> list[Document]:
        where, values = filter_sql(filters)
        rows = await self._read(
            lambda reader: reader.page(account, kind, before or LAST_KEY, after, limit, where, values)
        )
        return [Document(sid=p + key, account=account, kind=k, rev=rev, body=body) for p, key, k, rev, body in rows]

    async def counts(self, below: str) -> tuple[int, int, str]:
        found: tuple[int, int, str] = await self._read(lambda reader: reader.counts(below))
        return found

    async def segments(self) -> list[Segment]:
        found: list[Segment] = await self._read(lambda reader: reader.segments())
        return found

    async def all_floors(self) -> list[Floor]:
        found: list[Floor] = await self._read(lambda reader: reader.all_floors())
        return found

    async def drop_floors(self, floors: Sequence[tuple[str, str, int]]) -> None:
        await self._writer.submit(lambda cursor: cursor.executemany(DROP_FLOOR, [(*f, TOMBSTONE) for f in floors]))

    async def pending_floors(self) -> tuple[int, int]:
        sql = "select count(*), coalesce(min(at_ms), 0) from floors where done_ms = 0"
        count, oldest = await self._read(lambda reader: reader._connection.execute(sql).fetchall()[0])
        return count, oldest

    async def raise_watermark(self, key: str) -> None:
        await self._writer.submit(lambda cursor: cursor.execute(RAISE_WATERMARK, (key,)))

    async def add_segments(self, segments: Sequence[Segment]) -> None:
        await self.replace_segments((), segments)

    async def replace_segments(self, old: Sequence[str], new: Sequence[Segment]) -> None:
        rows = [
            (s.path, s.late, s.rows, s.size, s.min_key, s.max_key, s.min_created_ms, s.max_created_ms,
             s.min_sent_ms, s.max_sent_ms, s.accounts, s.created_ms, s.draining)
            for s in new
        ]  # fmt: skip

        def write(cursor: apsw.Cursor) -> None:
            cursor.executemany(ADD_SEGMENT, rows)
            cursor.executemany(RAISE_WATERMARK, [(segment.max_key,) for segment in new])
            cursor.executemany("delete from segments where path = ?", [(path,) for path in old])
            cursor.execute(NEXT_GENERATION)

        await self._writer.submit(write)

    async def dropped(self, older_ms: int) -> list[str]:
        return []  # files are removed at once: who reads them has them open

    async def forget_dropped(self, paths: Sequence[str]) -> None:
        return None

    async def drain(self, rows: Sequence[tuple[str, str, int]]) -> None:
        await self._writer.submit(lambda cursor: cursor.executemany(DRAIN, rows))

    async def drained(self, path: str) -> None:
        def write(cursor: apsw.Cursor) -> None:
            cursor.execute("update segments set draining = 0 where path = ?", (path,))
            cursor.execute(NEXT_GENERATION)

        await self._writer.submit(write)

    async def expire(self, account: str, first: str, below: str) -> int:
        def write(cursor: apsw.Cursor) -> int:
            cursor.execute(EXPIRE, (account, first, below, EXPIRE_BATCH))
            return int(cursor.connection.changes())

        removed = batch = await self._writer.submit(write)
        while batch == EXPIRE_BATCH:
            batch = await self._writer.submit(write)
            removed += batch
        return removed

    async def scrub(self, floors: Sequence[Floor], now_ms: int) -> bool:
        return await self._writer.submit(lambda cursor: _scrub(cursor, floors, now_ms))

    async def forget_floors(self, before_ms: int) -> None:
        sql = "delete from floors where done_ms > 0 and done_ms < ?"
        await self._writer.submit(lambda cursor: cursor.execute(sql, (before_ms,)))

    async def close(self) -> None:
        await self._writer.close()
        self._pool.shutdown(wait=True)
        for reader in (self._reader, *self._idle_readers):
            reader.close()

    async def _read(self, function: Any) -> Any:
        """Run `function(reader)` in a reading thread; a connection is used by one thread at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._with_reader, function)

    def _with_reader(self, function: Any) -> Any:
        try:
            reader = self._idle_readers.pop()
        except IndexError:
            reader = SqliteReader(self._path)
        try:
            return function(reader)
        finally:
            self._idle_readers.append(reader)


def _now_ms(cursor: apsw.Cursor) -> int:
    """The wall clock as SQLite reads it, Unix ms (only ages floors, which are settled daily)."""
    return int(cursor.execute("select cast(unixepoch('now', 'subsec') * 1000 as integer)").get or 0)


def _scrub(cursor: apsw.Cursor, floors: Sequence[Floor], now_ms: int) -> bool:
    """VACUUM cannot run inside a transaction, so the batch's is committed first and a new one opened after.

    Its copy goes to a temporary file, not into this process's memory.
    """
    cursor.execute("commit")
    try:
        cursor.execute("pragma temp_store=file")
        cursor.execute("vacuum")
        cursor.execute("pragma temp_store=memory")
        busy = cursor.execute("pragma wal_checkpoint(truncate)").fetchall()[0][0]
    finally:
        cursor.execute("begin immediate")
    if busy:
        return False
    cursor.executemany(SETTLE_FLOOR, [(now_ms, f.account, f.key, f.rev, TOMBSTONE) for f in floors])
    cursor.executemany(DROP_FLOOR, [(f.account, f.key, f.rev, TOMBSTONE) for f in floors])
    return True
