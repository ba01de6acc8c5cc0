"""The `Queue` primitive on SQLite: one file, one writer thread, group commit (see `writer`), two readers.

Ids are Unix microseconds, counted up where two fall together: they order by time, are never used twice, and are known
before the write is handed in, so the hot path need not wait for them.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import apsw
import orjson

from trunkline.storage.engines.sqlite import queue_sql as sql
from trunkline.storage.engines.sqlite.shapes import Shapes
from trunkline.storage.engines.sqlite.writer import Writer, check_settings, connect
from trunkline.storage.pivots import NEWEST
from trunkline.storage.queue import Advance, Exists, Flight, Orphan, Owed, Part, Replay
from trunkline.storage.survives import Survives

MAX_ORPHANS = 100_000
"""Parked receipts; beyond it the oldest leave."""
SWEEP_ROWS = 2000
"""Rows that one sweep deletes of each table at the most."""
READER_CACHE_KIB = 2 * 1024

_FILTERS = {
    "to": "cast(record as text) ->> '$.to' = ?",
    "from": "cast(record as text) ->> '$.from' = ?",
    "status": "status = ?",
    "status_or_initiated": "status in (?, 'initiated')",
    "parent": "cast(record as text) ->> '$.parent_sid' = ?",
    "started_ge_ms": "cast(record as text) ->> '$.started_ms' >= ?",
    "started_lt_ms": "coalesce(cast(record as text) ->> '$.started_ms', 0) between 1 and ? - 1",
    "ended_ge_ms": "cast(record as text) ->> '$.ended_ms' >= ?",
    "ended_lt_ms": "coalesce(cast(record as text) ->> '$.ended_ms', 0) between 1 and ? - 1",
    "sent_ge_ms": "cast(record as text) ->> '$.sent_ms' >= ?",
    "sent_lt_ms": "coalesce(cast(record as text) ->> '$.sent_ms', 0) between 1 and ? - 1",
    "created_ge_ms": "id >= ? * 1000",
    "created_lt_ms": "id < ? * 1000",
}


def _flight(row: Any) -> Flight:
    return Flight(
        id=row[0],
        sid=row[1],
        account=row[2],
        kind=row[3],
        status=row[4],
        rev=row[5],
        lane=row[6],
        due_ms=row[7],
        land_ms=row[8],
        record=row[9],
    )


def _owed(row: Any) -> Owed:
    return Owed(
        id=row[0],
        flight=row[1],
        sid=row[2],
        account=row[3],
        kind=row[4],
        host=row[5],
        seq=row[6],
        due_ms=row[7],
        tries=row[8],
        request=row[9],
        attempts=row[10],
        state=row[11],
    )


def _owed_row(o: Owed) -> tuple[Any, ...]:
    return (
        o.id,
        o.flight,
        o.sid,
        o.account,
        o.kind,
        o.host,
        o.seq,
        o.due_ms,
        o.tries,
        o.state,
        o.request,
        o.attempts,
    )


def _part_row(part: Part) -> tuple[Any, ...]:
    return part.connector, part.key, part.number, part.at_ms, part.body


def _execute(statement: str, bindings: Sequence[Any]) -> Callable[[apsw.Cursor], None]:
    """A write of one statement."""

    def write(cursor: apsw.Cursor) -> None:
        cursor.execute(statement, bindings)

    return write


def _replay_key(row: Replay) -> tuple[str, str, str, str]:
    return (row.account, row.method, row.path, row.key)


class SqliteQueue:
    """See `trunkline.storage.queue.Queue`."""

    survives = Survives.POWER
    ordered = True

    def __init__(self, path: Path, *, own: bool = False, speaks: int = NEWEST) -> None:
        """`own`: it is the server's. `speaks`: the newest pivot whose new shape it may use. Raises CannotSurvive."""
        self._path = path
        self._writer = Writer(path, sql.SCHEMA, "queue")
        check_settings(self._writer.connection)
        self.sql = sql.SHAPES["old", False]
        """The statements for the shape that the file has now."""
        self._shapes = Shapes(path, speaks, self._use)
        self._shapes.look(self._writer.connection)
        if self.sql is sql.SHAPES["old", False]:
            self._writer.connection.execute(sql.INDEX_OF_OLD)
        self._writer.stale = self._stale
        if own:
            self._shapes.announce()
        self._near = connect(path, read_only=True, cache_kib=READER_CACHE_KIB).cursor()
        self._far = connect(path, read_only=True, cache_kib=READER_CACHE_KIB)
        self._far_lock = asyncio.Lock()
        self._far_use = threading.Lock()
        """Held by the thread that reads: a cancelled wait does not end the read."""
        newest: Any = self._near.execute(
            "select max(coalesce((select max(id) from flight), 0), coalesce((select max(id) from owed), 0))"
        ).get
        self._last_id = int(newest)

    @property
    def writer(self) -> Writer:
        """The writer thread (its counters and failure are shown by /metrics and /readyz)."""
        return self._writer

    def _use(self, statements: sql.FlightSql) -> None:
        self.sql = statements

    def _stale(self, cursor: apsw.Cursor) -> bool:
        """A write's statement did not fit: whether there are others for it by now."""
        return self._shapes.look(cursor)

    def _next_id(self) -> int:
        self._last_id = max(self._last_id + 1, time.time_ns() // 1000)
        return self._last_id

    async def _read(self, make: Callable[[], str], bindings: Sequence[Any]) -> list[Any]:
        """A read that may be long, off the event loop."""
        async with self._far_lock:
            return await asyncio.to_thread(self._read_now, make, bindings)

    def _read_now(self, make: Callable[[], str], bindings: Sequence[Any]) -> list[Any]:
        with self._far_use:
            return self._rows(self._far, make, bindings)

    def _rows(self, on: apsw.Connection | apsw.Cursor, make: Callable[[], str], bindings: Sequence[Any]) -> list[Any]:
        """The rows of a statement, made anew where the table has changed its shape."""
        seen = self.sql
        try:
            return on.execute(make(), bindings).fetchall()
        except apsw.SQLError:
            if not self._shapes.looked_again(on, seen, self.sql):
                raise
        return on.execute(make(), bindings).fetchall()

    # -- flights ---------------------------------------------------------------------------------------------

    def accept(self, flight: Flight, owed: Sequence[Owed] = (), replay: Replay | None = None) -> Awaitable[None]:
        row, owed_rows = self._flight_rows(flight, owed)

        def write(cursor: apsw.Cursor) -> None:
            try:
                cursor.execute(self.sql.insert_flight, row)
            except apsw.ConstraintError:
                raise Exists(flight.sid) from None
            if owed_rows:
                cursor.executemany(sql.INSERT_OWED, owed_rows)
            if replay is not None:
                _complete(cursor, replay)

        return self._writer.submit_light(write)

    def accept_inbound(
        self,
        flight: Flight,
        owed: Sequence[Owed],
        connector: str,
        consumed: Sequence[str],
        carrier_id: str = "",
        kept: Part | None = None,
    ) -> Awaitable[bool]:
        row, owed_rows = self._flight_rows(flight, owed)
        carrier = (connector, carrier_id, flight.id, flight.account, flight.sid)

        def write(cursor: apsw.Cursor) -> bool:
            cursor.executemany(sql.DELETE_PARTS, [(connector, key) for key in consumed])
            if kept is not None:
                cursor.execute(sql.KEEP_PART, _part_row(kept))
            if cursor.execute(self.sql.flight_by_key, (row[1], row[2])).fetchall():
                return False
            if carrier_id:
                if cursor.execute(sql.FIND_CARRIER, (connector, carrier_id)).fetchall():
                    return False
                cursor.execute(sql.INSERT_CARRIER, carrier)
            cursor.execute(self.sql.insert_flight, row)
            if owed_rows:
                cursor.executemany(sql.INSERT_OWED, owed_rows)
            return True

        return self._writer.submit(write)

    def _flight_rows(self, flight: Flight, owed: Sequence[Owed]) -> tuple[tuple[Any, ...], list[tuple[Any, ...]]]:
        flight.id = self._next_id()
        row = (
            flight.id,
            flight.account,
            flight.sid[2:],
            flight.sid,
            flight.kind,
            flight.status,
            flight.rev,
            flight.lane,
            flight.due_ms,
            flight.land_ms,
            flight.record,
        )
        return row, self._owed_rows(owed, flight.id) if owed else []

    def _owed_rows(self, owed: Sequence[Owed], flight_id: int | None) -> list[tuple[Any, ...]]:
        for item in owed:
            item.id = self._next_id()
            if flight_id is not None:
                item.flight = flight_id
        return [_owed_row(item) for item in owed]

    def claim(self, flights: Sequence[tuple[int, int]]) -> Awaitable[list[int]]:
        def write(cursor: apsw.Cursor) -> list[int]:
            rows: list[Any] = cursor.executemany(self.sql.claim, flights).fetchall()
            if len(rows) == len(flights):
                return []
            ours = {row[0] for row in rows}
            return [flight_id for flight_id, _ in flights if flight_id not in ours]

        return self._writer.submit_light(write)

    def advance(self, step: Advance) -> Awaitable[bool]:
        owed_rows = self._owed_rows(step.owed, step.id) if step.owed else None
        keeping = step.record is None
        if keeping:
            bindings: tuple[Any, ...] = (step.status, step.lane, step.due_ms, step.land_ms, step.id, step.rev)
        else:
            bindings = (step.status, step.lane, step.due_ms, step.land_ms, step.record, step.id, step.rev)
        carriers = [(connector, cid, step.id, step.account, step.sid) for connector, cid in step.carrier_ids]

        def write(cursor: apsw.Cursor) -> bool:
            cursor.execute(self.sql.advance_keeping_record if keeping else self.sql.advance, bindings)
            if not cursor.connection.changes():
                return False
            if owed_rows:
                cursor.executemany(sql.INSERT_OWED, owed_rows)
            if carriers:
                cursor.executemany(sql.INSERT_CARRIER, carriers)
            return True

        return self._writer.submit_light(write, lazy=True)

    async def waiting(self, lane: str, after: tuple[int, int], limit: int) -> list[Flight]:
        return [_flight(row) for row in await self._read(lambda: self.sql.waiting, (lane, *after, limit))]

    async def lanes(self) -> list[tuple[str, int, int]]:
        return [tuple(row) for row in await self._read(lambda: self.sql.lanes, ())]

    async def get(self, account: str, sid: str) -> tuple[Flight, list[Owed]] | None:
        rows = self._rows(self._near, lambda: self.sql.flight_by_key, (account, sid[2:]))
        if not rows or rows[0][1] != sid:
            return None
        flight = _flight(rows[0])
        return flight, [_owed(row) for row in self._near.execute(sql.OWED_OF_FLIGHT, (flight.id,)).fetchall()]

    def by_id(self, flight_id: int) -> Flight | None:
        try:
            rows: list[Any] = self._near.execute(self.sql.flight_by_id, (flight_id,)).fetchall()
        except apsw.SQLError:
            rows = self._rows(self._near, lambda: self.sql.flight_by_id, (flight_id,))
        return _flight(rows[0]) if rows else None

    async def in_state(self, kind: str, status: str, after: int, limit: int) -> list[Flight]:
        rows = await self._read(lambda: self.sql.in_state, (status, after, kind, limit))
        return [_flight(row) for row in rows]

    async def page(
        self, account: str, kind: str, *, before: str, after: str, limit: int, filters: dict[str, object]
    ) -> list[tuple[Flight, list[Owed]]]:
        statement, bindings = "", [account, kind]
        for name, value in filters.items():
            statement += f" and {_FILTERS[name]}"
            bindings.append(value)  # type: ignore[arg-type]
        if before:
            statement += " and key < ?"
            bindings.append(before)
        if after:
            statement += " and key > ?"
            bindings.append(after)
        statement += f" order by key {'asc' if after and not before else 'desc'} limit {int(limit)}"
        flights = [_flight(row) for row in await self._read(lambda: self.sql.page + statement, bindings)]
        flights.sort(key=lambda flight: flight.sid[2:], reverse=True)
        return [(flight, []) for flight in flights]

    # -- receipts --------------------------------------------------------------------------------------------

    def find_carrier_id(self, connector: str, carrier_id: str) -> tuple[int, str, str] | None:
        rows: list[Any] = self._near.execute(sql.FIND_CARRIER, (connector, carrier_id)).fetchall()
        return tuple(rows[0]) if rows else None

    def park(self, orphan: Orphan) -> Awaitable[None]:
        row = (orphan.connector, orphan.carrier_id, orphan.at_ms, orphan.receipt)

        def write(cursor: apsw.Cursor) -> None:
            cursor.execute(sql.INSERT_ORPHAN, row)
            cursor.execute(sql.TRIM_ORPHANS, (cursor.connection.last_insert_rowid() - MAX_ORPHANS,))

        return self._writer.submit_light(write)

    def orphans(self, connector: str, carrier_ids: Sequence[str]) -> Awaitable[list[Orphan]]:
        def write(cursor: apsw.Cursor) -> list[Orphan]:
            found = []
            for carrier_id in carrier_ids:
                rows: list[Any] = cursor.execute(sql.ORPHANS, (connector, carrier_id)).fetchall()
                for row in rows:
                    found.append(Orphan(id=row[0], connector=row[1], carrier_id=row[2], at_ms=row[3], receipt=row[4]))
            return found

        return self._writer.submit(write)

    def drop_orphans(self, orphans: Sequence[Orphan]) -> Awaitable[None]:
        rows = [(orphan.id,) for orphan in orphans]

        def write(cursor: apsw.Cursor) -> None:
            cursor.executemany(sql.DROP_ORPHAN, rows)

        return self._writer.submit_light(write)

    async def parked(self) -> list[tuple[str, str]]:
        return [tuple(row) for row in await self._read(lambda: sql.PARKED, (MAX_ORPHANS,))]

    async def known(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        asked = orjson.dumps(pairs).decode()
        return [tuple(row) for row in await self._read(lambda: sql.KNOWN, (asked,))]

    # -- callbacks -------------------------------------------------------------------------------------------

    def owe(self, owed: Sequence[Owed]) -> Awaitable[None]:
        rows = self._owed_rows(owed, None)

        def write(cursor: apsw.Cursor) -> None:
            cursor.executemany(sql.INSERT_OWED, rows)

        return self._writer.submit_light(write)

    async def owed(self, host: str, after: int, limit: int, now_ms: int) -> list[Owed]:
        return [_owed(row) for row in await self._read(lambda: sql.OWED_OF_HOST, (host, after, now_ms, limit))]

    async def owed_hosts(self) -> list[tuple[str, int, int]]:
        return [tuple(row) for row in await self._read(lambda: sql.OWED_HOSTS, ())]

    def settle(self, owed: Owed) -> Awaitable[None]:
        bindings = (owed.state, owed.tries, owed.attempts, owed.due_ms, owed.request, owed.id)
        return self._writer.submit_light(_execute(sql.SETTLE, bindings), lazy=True)

    def forget(self, owed_id: int) -> Awaitable[None]:
        return self._writer.submit_light(_execute(sql.FORGET_OWED, (owed_id,)), lazy=True)

    def strip_owed(self, flight_id: int) -> Awaitable[None]:
        return self._writer.submit(_execute(sql.STRIP_OWED, (flight_id,)))

    def erase(self, flight_id: int) -> Awaitable[None]:
        def write(cursor: apsw.Cursor) -> None:
            cursor.execute(sql.ERASE_FLIGHT, (flight_id,))
            cursor.execute(sql.DELETE_OWED_OF_FLIGHT, (flight_id,))

        return self._writer.submit(write)

    # -- landing ---------------------------------------------------------------------------------------------

    async def landable(self, now_ms: int, limit: int) -> list[tuple[Flight, list[Owed]]]:
        async with self._far_lock:
            return await asyncio.to_thread(self._landable, now_ms, limit)

    def _landable(self, now_ms: int, limit: int) -> list[tuple[Flight, list[Owed]]]:
        with self._far_use:
            return self._landable_now(now_ms, limit)

    def _landable_now(self, now_ms: int, limit: int) -> list[tuple[Flight, list[Owed]]]:
        cursor = self._far.cursor()
        flights = [_flight(row) for row in self._rows(cursor, lambda: self.sql.landable, (now_ms, limit))]
        return [
            (flight, [_owed(row) for row in cursor.execute(sql.OWED_OF_FLIGHT, (flight.id,)).fetchall()])
            for flight in flights
        ]

    def remove(self, flights: Sequence[tuple[int, int]]) -> Awaitable[int]:
        def write(cursor: apsw.Cursor) -> int:
            gone = 0
            for flight_id, rev in flights:
                cursor.execute(sql.DELETE_FLIGHT, (flight_id, rev))
                if cursor.connection.changes():
                    gone += 1
                    cursor.execute(sql.DELETE_OWED_OF_FLIGHT, (flight_id,))
            return gone

        return self._writer.submit(write)

    # -- long inbound messages -------------------------------------------------------------------------------

    def keep_part(self, part: Part) -> Awaitable[None]:
        return self._writer.submit(_execute(sql.KEEP_PART, _part_row(part)))

    async def parts(self, connector: str, key: str) -> list[Part]:
        rows: list[Any] = self._near.execute(sql.PARTS, (connector, key)).fetchall()
        return [Part(connector=r[0], key=r[1], number=r[2], at_ms=r[3], body=r[4]) for r in rows]

    def drop_parts(self, keys: Sequence[tuple[str, str]]) -> Awaitable[None]:
        def write(cursor: apsw.Cursor) -> None:
            cursor.executemany(sql.DELETE_PARTS, keys)

        return self._writer.submit(write)

    async def stale_parts(self, before_ms: int, limit: int) -> list[tuple[str, str]]:
        return [tuple(row) for row in await self._read(lambda: sql.STALE_PARTS, (before_ms, limit))]

    # -- idempotency -----------------------------------------------------------------------------------------

    def claim_replay(self, row: Replay, now_ms: int) -> Awaitable[Replay | None]:
        bindings = (
            *_replay_key(row),
            row.fingerprint,
            row.state,
            row.epoch,
            row.status,
            row.headers,
            row.body,
            row.sid,
            row.expires_ms,
        )

        def write(cursor: apsw.Cursor) -> Replay | None:
            cursor.execute(sql.CLAIM_REPLAY, bindings)
            if cursor.connection.changes():
                return None
            found: Any = cursor.execute(sql.FIND_REPLAY, _replay_key(row)).fetchall()[0]
            holder = Replay(**dict(zip(Replay.__struct_fields__, found, strict=True)))
            if holder.expires_ms > now_ms:
                return holder
            cursor.execute(sql.TAKE_OVER_REPLAY, (row.fingerprint, row.expires_ms, *_replay_key(row), now_ms))
            row.epoch = holder.epoch + 1
            return None

        return self._writer.submit(write)

    def complete_replay(self, row: Replay) -> Awaitable[None]:
        return self._writer.submit(lambda cursor: _complete(cursor, row))

    def release_replay(self, row: Replay) -> Awaitable[None]:
        bindings = (*_replay_key(row), row.epoch)
        return self._writer.submit(_execute(sql.RELEASE_REPLAY, bindings))

    def forget_replays(self, account: str, sid: str) -> Awaitable[None]:
        """Blank the stored responses that show a resource (privacy deletion)."""
        return self._writer.submit(_execute(sql.REDACT_REPLAYS, (b"", account, sid)))

    # -- upkeep ----------------------------------------------------------------------------------------------

    def sweep(self, now_ms: int, carrier_before_ms: int = 0) -> Awaitable[None]:
        def write(cursor: apsw.Cursor) -> None:
            cursor.execute(sql.SWEEP_REPLAYS, (now_ms, SWEEP_ROWS))
            cursor.execute(sql.SWEEP_CARRIER, (carrier_before_ms * 1000, SWEEP_ROWS))
            cursor.execute(sql.SWEEP_LATE_OWED, (carrier_before_ms * 1000,))
            cursor.execute(sql.SWEEP_ORPHANS, (carrier_before_ms, SWEEP_ROWS))

        return self._writer.submit(write)

    async def close(self) -> None:
        await asyncio.to_thread(self._shapes.close)
        await self._writer.close()
        self._near.connection.close()
        await asyncio.to_thread(self._close_far)

    def _close_far(self) -> None:
        with self._far_use:
            self._far.close()


def _complete(cursor: apsw.Cursor, row: Replay) -> None:
    bindings = (row.status, row.headers, row.body, row.sid, row.expires_ms, *_replay_key(row), row.epoch)
    cursor.execute(sql.COMPLETE_REPLAY, bindings)
