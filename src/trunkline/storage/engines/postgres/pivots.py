"""Pivots of a partition's tables, beside running nodes: each statement waits for its lock only LOCK_MS, then lets the
others pass and tries again, so that what comes behind a waiting ALTER TABLE never waits long."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
import psycopg

from trunkline.storage.engines.postgres import queue_sql as sql
from trunkline.storage.engines.postgres.layout import schema_of
from trunkline.storage.engines.postgres.ownership import LOCK_CLASS
from trunkline.storage.engines.postgres.session import Connection, Servers, is_lost, reason
from trunkline.storage.engines.postgres.shapes import HEARTBEAT_S
from trunkline.storage.pivots import NEWEST
from trunkline.storage.pivots.model import Busy, CannotPivot, Engine, Pivot, Speaker, State
from trunkline.storage.unavailable import StoreUnavailable

T = TypeVar("T")

LOCK_MS = 100
"""How long a statement waits for a lock, and everybody behind it."""
LOCK_TIMEOUT = f"set local lock_timeout = {LOCK_MS}"
LOCK_FOR_S = 60.0
"""How long it is tried."""
LOCK_PAUSE_S = 0.2
ALONE_S = 5.0
"""How long another one is waited for: the session of one that was killed has its lock until the server looks."""
CONCURRENT_LOCK_MS = 60_000
"""The same for CREATE INDEX CONCURRENTLY, behind which only other changes of the table wait."""
LIVES_S = 5 * HEARTBEAT_S
"""A process that has not said anything for so long is taken for gone."""

_STATE = f"select {sql.PIVOT_COLUMNS} from pivot where name = %s"
_SAVE = """
insert into pivot(name, shape, phase, cursor, done, total, started_ms, changed_ms)
values (%s, %s, %s, %s, %s, %s, %s, %s) on conflict (name) do update set shape = excluded.shape,
phase = excluded.phase, cursor = excluded.cursor, done = excluded.done, total = excluded.total,
started_ms = excluded.started_ms, changed_ms = excluded.changed_ms
"""
_SPEAKERS = """
select who, number, shapes, (extract(epoch from now() - seen) * 1000)::bigint from speaker
where seen > now() - %s * interval '1 second'
"""
_SESSIONS = """
select application_name, pid, coalesce(host(client_addr), 'this host') from pg_stat_activity
where datname = current_database() and starts_with(application_name, 'trunkline queue')
and (substring(application_name from ' s([0-9]+)$') is null
     or substring(application_name from ' s([0-9]+)$')::int < %s)
"""
_INVALID = """
select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid
where i.indrelid = to_regclass(%s) and not i.indisvalid
"""


class PostgresBench:
    """One partition: see `trunkline.storage.pivots.model.Bench`."""

    engine: Engine = "postgres"

    def __init__(self, servers: Servers, partition: int, partitions: int) -> None:
        self._servers = servers
        self._schema = schema_of(partition, partitions)
        self.part = self._schema
        self._connection: Connection | None = None

    def close(self) -> None:
        """Let another one work on it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def state(self, pivot: Pivot) -> State:
        """See `Bench`."""
        with self._session() as session:
            rows = session.execute(_STATE.encode(), (pivot.name,)).fetchall()
        fields = sql.PIVOT_COLUMNS.split(", ")
        return msgspec.convert(dict(zip(fields, rows[0], strict=True)), State) if rows else State()

    def ddl(self, pivot: Pivot, statements: Sequence[str]) -> None:
        """See `Bench`. What an interrupted CREATE INDEX CONCURRENTLY left is removed first."""
        for statement in statements:
            if " concurrently " in statement:
                self._concurrently(pivot, statement)
            else:
                self._patiently(lambda session, statement=statement: session.execute(statement.encode()))  # type: ignore[misc]

    def save(self, pivot: Pivot, state: State) -> None:
        """See `Bench`."""
        self._patiently(lambda session: session.execute(_SAVE.encode(), _row(pivot, state)))

    def leave(self, pivot: Pivot, statements: Sequence[str], state: State) -> None:
        """See `Bench`."""

        def work(session: Connection) -> None:
            for statement in statements:
                session.execute(statement.encode())
            session.execute(_SAVE.encode(), _row(pivot, state))

        self._patiently(work)

    def count(self, pivot: Pivot) -> int:
        """See `Bench`."""
        return self._number(f"select count(*) from {pivot.table}")

    def fill(self, pivot: Pivot, state: State, rows: int) -> State | None:
        """See `Bench`. Waits for a row as long as for a table: before a deadlock is one."""
        words = pivot.words(self.engine)
        with self._transaction() as session:
            last, found = self._next(session, pivot.table, state.cursor, rows)
            if not found:
                return None
            session.execute(
                f"update {pivot.table} set {words.side(state.other).fill}"
                f" where id > %s and id <= %s and {words.differs}".encode(),
                (state.cursor, last),
            )
            done = State(
                shape=state.shape, phase=state.phase, cursor=last, done=state.done + found, total=state.total,
                started_ms=state.started_ms, changed_ms=state.changed_ms,
            )  # fmt: skip
            session.execute(_SAVE.encode(), _row(pivot, done))
        return done

    def differing(self, pivot: Pivot, after: int, rows: int) -> tuple[int, int] | None:
        """See `Bench`."""
        words = pivot.words(self.engine)
        with self._session() as session:
            last, found = self._next(session, pivot.table, after, rows)
        if not found:
            return None
        differ = f"select count(*) from {pivot.table} where id > %s and id <= %s and {words.differs}"
        return last, self._number(differ, (after, last))

    def speakers(self) -> list[Speaker]:
        """See `Bench`. Those seen lately, and the sessions of releases that say too little."""
        found = []
        with self._default() as session:
            for who, number, shapes, seen_ms in session.execute(_SPEAKERS.encode(), (LIVES_S,)).fetchall():
                own = msgspec.json.decode(shapes, type=dict[str, dict[str, str]]).get(self._schema, {})
                found.append(Speaker(who=who, number=int(number), shapes=own, seen_ms=int(seen_ms)))
            for name, pid, host in session.execute(_SESSIONS.encode(), (NEWEST,)).fetchall():
                number = name.rpartition(" s")[2]
                who = f"session {pid} from {host} ({name})"
                found.append(Speaker(who=who, number=int(number) if number.isdigit() else -1))
        return found

    def _concurrently(self, pivot: Pivot, statement: str) -> None:
        with self._session() as session:
            try:
                session.execute(f"set lock_timeout = {CONCURRENT_LOCK_MS}".encode())
                for (name,) in session.execute(_INVALID.encode(), (pivot.table,)).fetchall():
                    session.execute(f"drop index concurrently if exists {name}".encode())
                session.execute(statement.encode())
            finally:
                if not session.closed:
                    session.execute("set lock_timeout = 0")

    def _number(self, statement: str, bindings: Sequence[Any] = ()) -> int:
        with self._session() as session:
            (row,) = session.execute(statement.encode(), bindings).fetchall()
        return int(row[0])

    def _next(self, session: Connection, table: str, after: int, rows: int) -> tuple[int, int]:
        """(last id, number) of the next rows."""
        (found,) = session.execute(
            f"select coalesce(max(id), 0), count(*) from"
            f" (select id from {table} where id > %s order by id limit %s) next".encode(),
            (after, rows),
        ).fetchall()
        return int(found[0]), int(found[1])

    # -- sessions --------------------------------------------------------------------------------------------

    @contextmanager
    def _session(self) -> Iterator[Connection]:
        """The one that works on the partition, alone. Raises CannotPivot, StoreUnavailable."""
        if self._connection is None or self._connection.closed:
            session = self._servers.connect("trunkline schema", schema=self._schema)
            until = time.monotonic() + ALONE_S
            while not self._is_alone(session):
                if time.monotonic() >= until:
                    session.close()
                    raise CannotPivot(f"another `trunkline schema` works on {self._schema or 'the queue'}")
                time.sleep(LOCK_PAUSE_S)
            self._connection = session
        try:
            yield self._connection
        except psycopg.Error as error:
            if is_lost(error, self._connection):
                self.close()
            if error.sqlstate == "55P03":
                raise Busy(f"{self._schema or 'the queue'}: its tables are in use: {reason(error)}") from error
            raise StoreUnavailable(f"{self._servers!r}: {reason(error)}") from error

    def _is_alone(self, session: Connection) -> bool:
        key = LOCK_CLASS, f"pivot {self._schema}"
        row = session.execute("select pg_try_advisory_lock(%s::int, hashtext(%s))", key).fetchone()
        return row is not None and bool(row[0])

    @contextmanager
    def _default(self) -> Iterator[Connection]:
        """A session in the schema of the database's own tables. Raises StoreUnavailable."""
        session = self._servers.connect("trunkline schema speakers")
        try:
            yield session
        except psycopg.Error as error:
            raise StoreUnavailable(f"{self._servers!r}: {reason(error)}") from error
        finally:
            session.close()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self._session() as session, session.transaction():
            session.execute(LOCK_TIMEOUT.encode())
            yield session

    def _patiently(self, work: Callable[[Connection], T]) -> T:
        """Run a transaction, again and again while the table is in use. Raises Busy."""
        until = time.monotonic() + LOCK_FOR_S
        while True:
            try:
                with self._transaction() as session:
                    return work(session)
            except Busy:
                if time.monotonic() > until:
                    raise
                time.sleep(LOCK_PAUSE_S)


def _row(pivot: Pivot, s: State) -> tuple[Any, ...]:
    return pivot.name, s.shape, s.phase, s.cursor, s.done, s.total, s.started_ms, s.changed_ms
