"""The `Queue` primitive on PostgreSQL: one database, one owner that writes (see `writer`), readers beside it.

Ids are Unix microseconds, counted up where two fall together, as in the SQLite engine: known before the write is handed
in. They are above every id that the database holds, so a clock that is behind the former owner's does no harm.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import psycopg

from trunkline.storage.carrier_ids import CarrierIds, Place
from trunkline.storage.engines.postgres import durability
from trunkline.storage.engines.postgres import queue_sql as sql
from trunkline.storage.engines.postgres.layout import read_layout
from trunkline.storage.engines.postgres.ownership import WRITER_TABLE
from trunkline.storage.engines.postgres.queue_sql import Op, Reads
from trunkline.storage.engines.postgres.readers import NEAR_LONG_S, Readers
from trunkline.storage.engines.postgres.session import Connection, Servers
from trunkline.storage.engines.postgres.shapes import SPEAKER_TABLE, Shapes, has_old_shape
from trunkline.storage.engines.postgres.writer import Cursor, Writer
from trunkline.storage.pivots import NEWEST
from trunkline.storage.pivots.model import Shape
from trunkline.storage.queue import Advance, Exists, Flight, Orphan, Owed, Part, Replay
from trunkline.storage.survives import Survives
from trunkline.storage.unavailable import StoreUnavailable

MAX_ORPHANS = 100_000
"""Parked receipts; beyond it the oldest leave."""
SWEEP_ROWS = 2000
"""Rows that one sweep deletes of each table at the most."""
READER_THREADS = 3
MIGRATION_LOCK = 0x74726B
"""Key of the lock under which a schema is brought up to date."""
COMPACT_LOCK_MS = 5000
"""How long a compaction waits for a table."""

_OUR_TABLES = """
select format('%%I.%%I', schemaname, tablename) from pg_tables
where (schemaname = current_schema() or schemaname ~ '^p[0-9][0-9]$') and tablename = any(%s::text[])
"""


def prepare(connection: Connection) -> None:
    """Create what the database lacks, in one transaction. Raises WrongLayout."""
    read_layout(connection, 1, 1, 0)
    connection.execute("begin")
    try:
        connection.execute("select pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
        for statement in (WRITER_TABLE, SPEAKER_TABLE, sql.SCHEMA, sql.FIELD, *sql.FUNCTIONS):
            connection.execute(statement.encode())
        if has_old_shape(connection):
            connection.execute(sql.INDEX_OF_OLD.encode())
        connection.execute("commit")
    except psycopg.Error:
        connection.execute("rollback")
        raise


def rewrite_tables(dsn: str, name: str, tables: Sequence[str]) -> bool:
    """Rewrite tables, so that no deleted byte is left in them; works beside a running server, which
    waits meanwhile. False when one was in use: ask again."""
    connection = Servers(dsn, name).connect(f"trunkline {name} compacting")
    try:
        connection.execute(f"set lock_timeout = {COMPACT_LOCK_MS}")
        found = connection.execute(_OUR_TABLES, (list(tables),)).fetchall()
        try:
            for (table,) in found:
                connection.execute(f"vacuum (full) {table}".encode())
        except psycopg.errors.LockNotAvailable:
            return False
        return True
    finally:
        connection.close()


def clean(text: str) -> str:
    """PostgreSQL's text has no NUL; a foreign name with one is kept, and found, under another character."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


def _flight(row: Any) -> Flight:
    return Flight(
        id=row[0], sid=row[1], account=row[2], kind=row[3], status=row[4], rev=row[5], lane=row[6], due_ms=row[7],
        land_ms=row[8], record=row[9],
    )  # fmt: skip


def _owed(row: Any) -> Owed:
    return Owed(
        id=row[0], flight=row[1], sid=row[2], account=row[3], kind=row[4], host=row[5], seq=row[6], due_ms=row[7],
        tries=row[8], request=row[9], attempts=row[10], state=row[11],
    )  # fmt: skip


def _owe(kind: int, o: Owed) -> Op:
    return Op(
        kind, o.id, o.flight, o.seq, o.due_ms, o.tries, o.sid, o.account, o.kind, clean(o.host), o.state,
        bytes(o.request), bytes(o.attempts),
    )  # fmt: skip


def _complete(kind: int, r: Replay) -> Op:
    return Op(
        kind, r.status, r.epoch, r.expires_ms, 0, 0, r.account, r.method, r.path, clean(r.key), r.sid,
        bytes(r.headers), bytes(r.body),
    )  # fmt: skip


def _replay_key(row: Replay) -> tuple[str, str, str, str]:
    return (row.account, row.method, row.path, clean(row.key))


def _whether(effects: list[bool]) -> bool:
    return effects[0]


class PostgresQueue:
    """See `trunkline.storage.queue.Queue`. An owner writes; without `own` it can only be read."""

    ordered = True
    _fenced = False

    def __init__(
        self,
        dsn: str,
        *,
        survives: Survives = Survives.POWER,
        zones: Mapping[str, str] | None = None,
        wait_s: float = 10.0,
        own: bool = True,
        speaks: int = NEWEST,
    ) -> None:
        """`speaks`: the newest pivot whose new shape it may use. Raises StoreUnavailable, CannotSurvive."""
        self.survives = survives
        servers = Servers(dsn, "queue")
        servers.speaks = min(speaks, NEWEST)
        self._shape_with("", 1000)
        self._per_ms = 1000
        """Ids given out in a millisecond, as `made_ms` has it."""
        self._carrier_ids = CarrierIds()
        self._readers = Readers(servers, "queue", READER_THREADS)
        self._shapes = shapes = Shapes(self._readers, [""], speaks)
        self._writer: Writer | None = None

        def check(connection: Connection) -> None:
            durability.check(durability.read(connection), survives, zones or {})
            shapes.look(connection)

        if own:
            self._writer = Writer(
                servers,
                "queue",
                owner="queue",
                prepare=prepare,
                check=check,
                wait_s=wait_s,
            )
            self._writer.stale = shapes.look
        self._shapes.follow("", self)
        if own:
            self._shapes.announce()
        self._last_id = int(self._readers.near(self._reads.newest, (), NEAR_LONG_S)[0][0]) if own else 0

    @property
    def writer(self) -> Writer:
        """The writer thread (its counters and failure are shown by /metrics and /readyz)."""
        if self._writer is None:
            raise StoreUnavailable("this queue is open for reading only")
        return self._writer

    def _shape_with(self, schema: str, per_ms: int) -> None:
        shapes: tuple[Shape, ...] = ("old", "new")
        self._shaped = {shape: Reads(schema, per_ms, shape) for shape in shapes}
        self._shape: Shape = "old"

    @property
    def _reads(self) -> Reads:
        return self._shaped[self._shape]

    def use_shape(self, shape: Shape) -> None:
        """Make statements for this shape from now on (called on any thread)."""
        self._shape = shape
        if self._writer is not None:
            self._writer.apply_by(sql.APPLIES[shape, self._fenced])

    def _next_id(self) -> int:
        self._last_id = max(self._last_id + 1, time.time_ns() // 1000)
        return self._last_id

    # -- flights ---------------------------------------------------------------------------------------------

    def accept(self, flight: Flight, owed: Sequence[Owed] = (), replay: Replay | None = None) -> Awaitable[None]:
        flight.id = self._next_id()
        f = flight
        ops = [
            Op(
                sql.ACCEPT, f.id, f.rev, f.due_ms, f.land_ms, 0, f.account, f.sid, f.kind, f.status, clean(f.lane),
                bytes(f.record),
            )
        ]  # fmt: skip
        if owed:
            self._number(owed, f.id)
            ops += [_owe(sql.OWE_TOO, item) for item in owed]
        if replay is not None:
            ops.append(_complete(sql.COMPLETE_TOO, replay))

        def decide(effects: list[bool]) -> None:
            if not effects[0]:
                raise Exists(f.sid)

        return self.writer.apply(ops, decide, may_spill=replay is None)

    def accept_inbound(
        self,
        flight: Flight,
        owed: Sequence[Owed],
        connector: str,
        consumed: Sequence[str],
        carrier_id: str = "",
        kept: Part | None = None,
    ) -> Awaitable[bool]:
        flight.id = self._next_id()
        self._number(owed, flight.id)
        f, key = flight, flight.sid[2:]
        row = (
            f.id, f.account, key, f.sid, f.kind, f.status, f.rev, f.due_ms, f.land_ms, bytes(f.record), clean(f.lane),
        )  # fmt: skip
        rows = [
            (
                o.id, o.flight, o.sid, o.account, o.kind, clean(o.host), o.seq, o.due_ms, o.tries, o.state,
                bytes(o.request), bytes(o.attempts),
            )
            for o in owed
        ]  # fmt: skip
        carrier = (clean(connector), clean(carrier_id), f.id, f.account, f.sid)

        def write(cursor: Cursor) -> bool:
            if consumed:
                cursor.execute(sql.DELETE_PARTS, (clean(connector), [clean(one) for one in consumed]))
            if kept is not None:
                cursor.execute(sql.KEEP_PART, _part_row(kept))
            if cursor.execute(self._reads.flight_by_key.encode(), (f.account, key)).fetchall():
                return False
            if carrier_id and not cursor.execute(sql.INSERT_CARRIER, carrier).rowcount:
                return False
            cursor.execute(sql.INSERT_FLIGHT[self._shape].encode(), row)
            for owed_row in rows:
                cursor.execute(sql.INSERT_OWED, owed_row)
            return True

        return self.writer.submit(write)

    def _number(self, owed: Sequence[Owed], flight_id: int | None) -> None:
        for item in owed:
            item.id = self._next_id()
            if flight_id is not None:
                item.flight = flight_id

    def claim(self, flights: Sequence[tuple[int, int]]) -> Awaitable[list[int]]:
        ids = [flight_id for flight_id, _ in flights]

        def decide(effects: list[bool]) -> list[int]:
            return [flight_id for flight_id, ours in zip(ids, effects, strict=True) if not ours]

        return self.writer.apply([Op(sql.CLAIM, flight_id, rev) for flight_id, rev in flights], decide)

    def advance(self, step: Advance) -> Awaitable[bool]:
        s = step
        kind = sql.ADVANCE_KEEPING_RECORD if s.record is None else sql.ADVANCE
        ops = [
            Op(kind, s.id, s.rev, s.due_ms, s.land_ms, t1=s.status, t2=clean(s.lane), b1=bytes(s.record or b""))
        ]  # fmt: skip
        if s.owed:
            self._number(s.owed, s.id)
            ops += [_owe(sql.OWE_TOO, item) for item in s.owed]
        for connector, carrier_id in s.carrier_ids:
            ops.append(Op(sql.CARRIER_TOO, s.id, t1=clean(connector), t2=clean(carrier_id), t3=s.account, t4=s.sid))
        return self.writer.apply(ops, self._knowing(s) if s.carrier_ids else _whether, lazy=True)

    def _knowing(self, step: Advance) -> Callable[[list[bool]], bool]:
        """The outcome of a step; its carrier's ids are remembered with it."""
        pairs, carrier_ids = step.carrier_ids, self._carrier_ids
        place = Place(step.id, step.account, step.sid)

        def decide(effects: list[bool]) -> bool:
            if effects[0]:
                carrier_ids.remember(pairs, place)
            return effects[0]

        return decide

    async def waiting(self, lane: str, after: tuple[int, int], limit: int) -> list[Flight]:
        return [
            _flight(row) for row in await self._readers.rows(lambda: self._reads.waiting, (clean(lane), *after, limit))
        ]

    async def lanes(self) -> list[tuple[str, int, int]]:
        return [tuple(row) for row in await self._readers.rows(lambda: self._reads.lanes)]

    async def get(self, account: str, sid: str) -> tuple[Flight, list[Owed]] | None:
        def read(connection: Connection) -> tuple[Flight, list[Owed]] | None:
            bindings = (clean(account), clean(sid[2:]))
            row = connection.execute(self._reads.flight_by_key.encode(), bindings).fetchone()
            if row is None or row[1] != sid:
                return None
            rows = connection.execute(self._reads.owed_of_flight.encode(), (row[0],)).fetchall()
            return _flight(row), [_owed(one) for one in rows]

        return await self._readers.read(read)

    def by_id(self, flight_id: int) -> Flight | None:
        rows = self._readers.near(lambda: self._reads.flight_by_id, (flight_id,))
        return _flight(rows[0]) if rows else None

    async def in_state(self, kind: str, status: str, after: int, limit: int) -> list[Flight]:
        return [
            _flight(row) for row in await self._readers.rows(lambda: self._reads.in_state, (status, after, kind, limit))
        ]

    async def page(
        self, account: str, kind: str, *, before: str, after: str, limit: int, filters: dict[str, object]
    ) -> list[tuple[Flight, list[Owed]]]:
        statement, bindings = "", [account, kind]
        for name, value in filters.items():
            statement += f" and {self._reads.filters[name]}"
            bindings.append(clean(value) if isinstance(value, str) else value)  # type: ignore[arg-type]
        if before:
            statement += " and key < %s"
            bindings.append(clean(before))
        if after:
            statement += " and key > %s"
            bindings.append(clean(after))
        statement += f" order by key {'asc' if after and not before else 'desc'} limit {int(limit)}"
        flights = [_flight(row) for row in await self._readers.rows(lambda: self._reads.page + statement, bindings)]
        flights.sort(key=lambda flight: flight.sid[2:], reverse=True)
        return [(flight, []) for flight in flights]

    # -- receipts --------------------------------------------------------------------------------------------

    @property
    def find_carrier_sql(self) -> str:
        """Finds (flight id, account, SID) by connector and carrier's id."""
        return self._reads.find_carrier

    def find_carrier_id(self, connector: str, carrier_id: str) -> tuple[int, str, str] | None:
        known = self._carrier_ids.find(connector, carrier_id)
        if known is not None:
            return known
        rows = self._readers.near(self._reads.find_carrier, (clean(connector), clean(carrier_id)))
        return tuple(rows[0]) if rows else None

    def park(self, orphan: Orphan) -> Awaitable[None]:
        o = orphan
        op = Op(
            sql.PARK, o.at_ms, MAX_ORPHANS, t1=clean(o.connector), t2=clean(o.carrier_id), b1=bytes(o.receipt)
        )  # fmt: skip
        return self.writer.apply([op])

    def orphans(self, connector: str, carrier_ids: Sequence[str]) -> Awaitable[list[Orphan]]:
        asked = [clean(one) for one in carrier_ids]

        def read(cursor: Cursor) -> list[Orphan]:
            rows = cursor.execute(sql.ORPHANS, (clean(connector), asked)).fetchall()
            return [Orphan(id=r[0], connector=r[1], carrier_id=r[2], at_ms=r[3], receipt=r[4]) for r in rows]

        return self.writer.submit(read)

    def drop_orphans(self, orphans: Sequence[Orphan]) -> Awaitable[None]:
        return self.writer.apply([Op(sql.DROP_ORPHAN, orphan.id) for orphan in orphans])

    async def parked(self) -> list[tuple[str, str]]:
        return [tuple(row) for row in await self._readers.rows(lambda: self._reads.parked, (MAX_ORPHANS,))]

    async def known(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        found = [pair for pair in pairs if self._carrier_ids.find(*pair) is not None]
        asked = set(pairs).difference(found)
        if asked:
            names = ([clean(connector) for connector, _ in asked], [clean(carrier_id) for _, carrier_id in asked])
            found += [tuple(row) for row in await self._readers.rows(lambda: self._reads.known, names)]
        return found

    # -- callbacks -------------------------------------------------------------------------------------------

    def owe(self, owed: Sequence[Owed]) -> Awaitable[None]:
        self._number(owed, None)
        return self.writer.apply([_owe(sql.OWE, item) for item in owed])

    async def owed(self, host: str, after: int, limit: int, now_ms: int) -> list[Owed]:
        bindings = (clean(host), after, now_ms, limit)
        return [_owed(row) for row in await self._readers.rows(self._reads.owed_of_host, bindings)]

    async def owed_hosts(self) -> list[tuple[str, int, int]]:
        return [tuple(row) for row in await self._readers.rows(self._reads.owed_hosts)]

    def settle(self, owed: Owed) -> Awaitable[None]:
        o = owed
        op = Op(sql.SETTLE, o.id, o.tries, o.due_ms, t1=o.state, b1=bytes(o.attempts), b2=bytes(o.request))
        return self.writer.apply([op], lazy=True)

    def forget(self, owed_id: int) -> Awaitable[None]:
        return self.writer.apply([Op(sql.FORGET_OWED, owed_id)], lazy=True)

    def strip_owed(self, flight_id: int) -> Awaitable[None]:
        return self.writer.submit(_statements((sql.STRIP_OWED, (flight_id,))))

    def erase(self, flight_id: int) -> Awaitable[None]:
        statements = ((sql.ERASE_FLIGHT, (flight_id,)), (sql.DELETE_OWED_OF_FLIGHT, (flight_id,)))
        return self.writer.submit(_statements(*statements))

    # -- landing ---------------------------------------------------------------------------------------------

    async def landable(self, now_ms: int, limit: int) -> list[tuple[Flight, list[Owed]]]:
        def read(connection: Connection) -> list[tuple[Flight, list[Owed]]]:
            rows = connection.execute(self._reads.landable.encode(), (now_ms, limit)).fetchall()
            owed: dict[int, list[Owed]] = {row[0]: [] for row in rows}
            for row in connection.execute(self._reads.owed_of_flights.encode(), (list(owed),)) if rows else ():
                owed[row[1]].append(_owed(row))
            return [(_flight(row), owed[row[0]]) for row in rows]

        return await self._readers.read(read)

    def remove(self, flights: Sequence[tuple[int, int]]) -> Awaitable[int]:
        return self.writer.apply([Op(sql.REMOVE, flight_id, rev) for flight_id, rev in flights], sum)

    # -- long inbound messages -------------------------------------------------------------------------------

    def keep_part(self, part: Part) -> Awaitable[None]:
        return self.writer.submit(_statements((sql.KEEP_PART, _part_row(part))))

    async def parts(self, connector: str, key: str) -> list[Part]:
        rows = await self._readers.rows(self._reads.parts, (clean(connector), clean(key)))
        return [Part(connector=r[0], key=r[1], number=r[2], at_ms=r[3], body=r[4]) for r in rows]

    def drop_parts(self, keys: Sequence[tuple[str, str]]) -> Awaitable[None]:
        rows = [(clean(connector), [clean(key)]) for connector, key in keys]
        return self.writer.submit(_statements(*((sql.DELETE_PARTS, row) for row in rows)))

    async def stale_parts(self, before_ms: int, limit: int) -> list[tuple[str, str]]:
        return [tuple(row) for row in await self._readers.rows(self._reads.stale_parts, (before_ms, limit))]

    # -- idempotency -----------------------------------------------------------------------------------------

    def claim_replay(self, row: Replay, now_ms: int) -> Awaitable[Replay | None]:
        epoch = row.epoch
        bindings = (
            *_replay_key(row), bytes(row.fingerprint), row.state, epoch, row.status, bytes(row.headers),
            bytes(row.body), row.sid, row.expires_ms,
        )  # fmt: skip

        def write(cursor: Cursor) -> Replay | None:
            row.epoch = epoch  # this may run again
            if cursor.execute(sql.CLAIM_REPLAY, bindings).rowcount:
                return None
            (found,) = cursor.execute(sql.FIND_REPLAY.encode(), _replay_key(row)).fetchall()
            holder = Replay(**dict(zip(Replay.__struct_fields__, found, strict=True)))
            if holder.expires_ms > now_ms:
                return holder
            taken = (bytes(row.fingerprint), row.expires_ms, *_replay_key(row), now_ms)
            cursor.execute(sql.TAKE_OVER_REPLAY, taken)
            row.epoch = holder.epoch + 1
            return None

        return self.writer.submit(write)

    def complete_replay(self, row: Replay) -> Awaitable[None]:
        return self.writer.apply([_complete(sql.COMPLETE, row)])

    def release_replay(self, row: Replay) -> Awaitable[None]:
        return self.writer.submit(_statements((sql.RELEASE_REPLAY, (*_replay_key(row), row.epoch))))

    def forget_replays(self, account: str, sid: str) -> Awaitable[None]:
        """Blank the stored responses that show a resource (privacy deletion)."""
        return self.writer.submit(_statements((sql.REDACT_REPLAYS, (account, sid))))

    # -- upkeep ----------------------------------------------------------------------------------------------

    def sweep(self, now_ms: int, carrier_before_ms: int = 0) -> Awaitable[None]:
        self._carrier_ids.forget(carrier_before_ms * self._per_ms)
        return self.writer.submit(
            _statements(
                (sql.SWEEP_REPLAYS, (now_ms, SWEEP_ROWS)),
                (sql.SWEEP_CARRIER, (carrier_before_ms * self._per_ms, SWEEP_ROWS)),
                (sql.SWEEP_LATE_OWED, (carrier_before_ms * self._per_ms,)),
                (sql.SWEEP_ORPHANS, (carrier_before_ms, SWEEP_ROWS)),
            )
        )

    async def close(self) -> None:
        await asyncio.to_thread(self._shapes.close)
        if self._writer is not None:
            await self._writer.close()
        await self._readers.close()


def _part_row(part: Part) -> tuple[Any, ...]:
    return clean(part.connector), clean(part.key), part.number, part.at_ms, bytes(part.body)


def _statements(*statements: tuple[str, Sequence[Any]]) -> Callable[[Cursor], None]:
    """A call of several statements."""

    def write(cursor: Cursor) -> None:
        for statement, bindings in statements:
            cursor.execute(statement.encode(), bindings)

    return write
