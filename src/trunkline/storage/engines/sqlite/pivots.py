"""Pivots of the queue's file, beside a running server: short transactions, so that its writes wait little."""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from trunkline.storage.engines.sqlite import queue_sql as sql
from trunkline.storage.engines.sqlite.shapes import folder_of, read_state, speakers
from trunkline.storage.engines.sqlite.writer import connect
from trunkline.storage.pivots.model import Busy, CannotPivot, Engine, Pivot, Speaker, State

LOCK_MS = 200
"""How long a transaction waits for the server's to end."""
LOCK_TRIES = 100
MAX_REWRITTEN = 200_000
"""SQLite writes a table anew when a column is dropped, and the server's writes wait meanwhile (about 1 s for so many
rows); with more in flight it is refused."""

_SAVE = f"insert or replace into pivot(name, {sql.PIVOT_COLUMNS}) values(?,?,?,?,?,?,?,?)"


class SqliteBench:
    """See `trunkline.storage.pivots.model.Bench`. `server_lock`: held by a server of whatever release."""

    engine: Engine = "sqlite"
    part = ""

    def __init__(self, path: Path, server_lock: Path) -> None:
        """Raises CannotPivot while another one works on it."""
        self._path = path
        self._server_lock = server_lock
        folder_of(path).mkdir(exist_ok=True, mode=0o700)
        self._mine = os.open(folder_of(path) / "pivot.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._mine)
            raise CannotPivot(f"another `trunkline schema` works on {path.name}") from None
        self._connection = connect(path)
        self._connection.set_busy_timeout(LOCK_MS)
        self._patiently(lambda: self._connection.execute(sql.SCHEMA))

    def close(self) -> None:
        """Let another one work on it."""
        self._connection.close()
        os.close(self._mine)

    def state(self, pivot: Pivot) -> State:
        """See `Bench`."""
        return read_state(self._connection, pivot.name)

    def ddl(self, pivot: Pivot, statements: Sequence[str]) -> None:
        """See `Bench`. Columns that are there are not added again."""
        for statement in statements:
            have = {str(row[1]) for row in self._connection.execute(f"pragma table_info({pivot.table})")}
            words = statement.split()
            if words[3:5] == ["add", "column"] and words[5] in have:
                continue
            self._patiently(lambda statement=statement: self._run([statement]))  # type: ignore[misc]

    def save(self, pivot: Pivot, state: State) -> None:
        """See `Bench`."""
        self._patiently(lambda: self._run((), pivot, state))

    def leave(self, pivot: Pivot, statements: Sequence[str], state: State) -> None:
        """See `Bench`. Raises CannotPivot where too many rows would be written anew."""
        rows = self.count(pivot)
        if rows > MAX_REWRITTEN:
            raise CannotPivot(
                f"{rows} rows are in {pivot.table}: SQLite would write them anew at one go, for more than a second;"
                f" do this with at most {MAX_REWRITTEN} in flight"
            )
        self._patiently(lambda: self._run(statements, pivot, state))

    def count(self, pivot: Pivot) -> int:
        """See `Bench`."""
        return _number(self._connection.execute(f"select count(*) from {pivot.table}"))

    def fill(self, pivot: Pivot, state: State, rows: int) -> State | None:
        """See `Bench`."""
        words = pivot.words(self.engine)
        with self._transaction():
            last, found = self._next(pivot.table, state.cursor, rows)
            if not found:
                return None
            self._connection.execute(
                f"update {pivot.table} set {words.side(state.other).fill} where id > ? and id <= ? and {words.differs}",
                (state.cursor, last),
            )
            done = State(
                shape=state.shape, phase=state.phase, cursor=last, done=state.done + found, total=state.total,
                started_ms=state.started_ms, changed_ms=state.changed_ms,
            )  # fmt: skip
            self._connection.execute(_SAVE, _row(pivot, done))
        return done

    def differing(self, pivot: Pivot, after: int, rows: int) -> tuple[int, int] | None:
        """See `Bench`."""
        words = pivot.words(self.engine)
        last, found = self._next(pivot.table, after, rows)
        if not found:
            return None
        differ = f"select count(*) from {pivot.table} where id > ? and id <= ? and {words.differs}"
        return last, _number(self._connection.execute(differ, (after, last)))

    def speakers(self) -> list[Speaker]:
        """See `Bench`. A server that says nothing is of a release that does not."""
        found = speakers(self._path)
        if not found and self._is_served():
            found = [Speaker(who=f"the server on {self._path.parent}, of a release before pivots", number=-1)]
        return found

    def _is_served(self) -> bool:
        try:
            lock = os.open(self._server_lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(lock)
        return False

    def _next(self, table: str, after: int, rows: int) -> tuple[int, int]:
        """(last id, number) of the next rows."""
        (found,) = self._connection.execute(
            f"select coalesce(max(id), 0), count(*) from (select id from {table} where id > ? order by id limit ?)",
            (after, rows),
        ).fetchall()
        return int(found[0]), int(found[1])  # type: ignore[arg-type]

    def _run(self, statements: Sequence[str], pivot: Pivot | None = None, state: State | None = None) -> None:
        with self._transaction():
            for statement in statements:
                self._connection.execute(statement)
            if pivot is not None and state is not None:
                self._connection.execute(_SAVE, _row(pivot, state))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Raises Busy."""
        try:
            self._connection.execute("begin immediate")
        except apsw.BusyError:
            raise Busy(f"{self._path.name} is locked by the server's writes") from None
        try:
            yield
            self._connection.execute("commit")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("rollback")
            raise

    def _patiently(self, work: Callable[[], Any]) -> None:
        for _ in range(LOCK_TRIES):
            try:
                work()
                return
            except (Busy, apsw.BusyError):
                continue  # LOCK_MS have passed
        raise Busy(f"{self._path.name} is locked by the server's writes")


def _row(pivot: Pivot, s: State) -> tuple[Any, ...]:
    return pivot.name, s.shape, s.phase, s.cursor, s.done, s.total, s.started_ms, s.changed_ms


def _number(cursor: apsw.Cursor) -> int:
    value: Any = cursor.get
    return int(value)
