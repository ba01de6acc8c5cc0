"""One PostgreSQL database, group commit: what is handed in while a commit is under way is committed together.

Theory: the same as the SQLite engine's writer, with the network between. Writes queue up on the event loop; a thread
takes all that have come, applies them in their order in one transaction, and tells their callers after its commit. A
batch of *operations* alone (the hot path) is one statement and one round trip; a *call* (a function of a cursor) makes
its own statements, in a savepoint of its own. A write that raises is undone alone.

**In doubt.** When the connection is lost while a batch is under way, nobody knows whether it was committed. Each batch
writes its number (and which operations had no effect) into this writer's row of `writer`. The thread connects again,
waits until the former session is gone (it holds a lock, so nothing of it can be committed later), and reads that row:
the number is there, then the batch is committed; else it is applied again. Nobody is told before. A commit that was
interrupted may be on the primary alone: so the thread then commits a synchronous write of its own, which no standby
confirms before what precedes it. The same is done when the server warns that it gave up waiting for its standbys. An
error of such a write, or of reading the row, says nothing about the batch: it stays in doubt, and is settled anew.

**Owning.** See `ownership`. A writer whose place another has taken is *deposed*: what it knows to be committed it still
tells, everything else fails, now and later.

While no server can be reached, writes wait up to `wait_s`, then fail; what is in doubt waits on. Writes that may spill
(their work can be made anew elsewhere) do not wait, while `elsewhere` says that there is such a place.
"""

import asyncio
import queue
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import psycopg

from trunkline.storage.engines.postgres import ownership
from trunkline.storage.engines.postgres import queue_sql as sql
from trunkline.storage.engines.postgres.batch import (
    REPEATABLE,
    Decide,
    Deposed,
    Item,
    Outcome,
    apply,
    decide_all,
    has_no_room,
    is_light,
)
from trunkline.storage.engines.postgres.batch import Cursor as Cursor  # re-exported
from trunkline.storage.engines.postgres.ownership import WRITER_TABLE as WRITER_TABLE  # re-exported
from trunkline.storage.engines.postgres.session import STALE, Connection, Servers, cut, is_lost, reason, within
from trunkline.storage.survives import CannotSurvive
from trunkline.storage.unavailable import NotOwned, Spill, StoreUnavailable
from trunkline.storage.written import Written

T = TypeVar("T")

MAX_BATCH = 1000
"""Writes that share one commit."""
MAX_WAITING = 200_000
"""Writes that may wait before callers are refused (memory bound)."""
LAZY_S = 0.004
"""How long a write that nobody waits for may wait for company."""
STALL_S = 5.0
"""A batch that takes longer is in doubt: its primary may have lost its standbys. The next server is tried."""
PREPARE_S = 600.0
"""Longest making of the tables at a start: another process may be at it, and a large table may get an index."""
SLOW_S = 0.5
"""A batch that takes longer makes new work go elsewhere, if it can."""
LOOK_S = 0.5
"""How often stalls and overdue writes are looked for."""
RETRY_FIRST_S = 0.05
RETRY_LONGEST_S = 1.0
CHECK_EVERY_S = 5.0
"""How often the server's settings are read again: a Patroni that is not strict takes the standbys away."""
READ_ONLY = "25006"
"""The server was demoted: nothing that was sent to it took effect."""

_STORED = "select batch, failed from writer where name = %s"
_BARRIER = "update writer set barrier = barrier + 1, at = now() where name = %s"


class WriterFull(StoreUnavailable):
    """Too many writes wait: the server is too slow for the load."""


class Writer:
    """The writer of one database, or of a schema of it. `prepare` is run on the first connection (the schema; None: it
    is there), `check` on each, and also before anything is prepared (raises CannotSurvive). `owner`: what only one
    process may hold at a time, or another way of owning."""

    def __init__(
        self,
        servers: Servers,
        name: str,
        *,
        owner: str | ownership.Ownership,
        prepare: Callable[[Connection], None] | None,
        check: Callable[[Connection], None],
        wait_s: float,
        schema: str = "",
    ) -> None:
        """Connects, and waits `ownership.OWN_WAIT_S` to own it. Raises StoreUnavailable, CannotSurvive."""
        self._servers = servers
        self._name = name
        self._ownership: ownership.Ownership = (
            ownership.Locked(owner, name, servers) if isinstance(owner, str) else owner
        )
        self._check = check
        self._wait_s = wait_s
        self._schema = schema
        self.elsewhere: Callable[[], bool] = lambda: False
        """Whether there is a place for work that may spill; asked on any thread."""
        self.on_deposed: Callable[[], None] = lambda: None
        """Called on the event loop, once, after everything that waited has failed."""
        self.stale: Callable[[Connection], None] = lambda connection: None
        """Called on its thread when a statement did not fit the tables; then the batch is applied anew, once."""
        self._reshaped = 0
        self._deposed = False
        self._told_deposed = False
        self.commits = 0
        self.writes = 0
        self.failed: BaseException | None = None
        """Why nothing can be written now; None while all is well."""
        self._down_since = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[Item] = deque()
        self._busy = False
        self._urgent = 0
        self._timer: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._closed = False
        self._closing = threading.Event()
        self._drained: asyncio.Future[None] | None = None
        self._began = 0.0
        """When what is under way for a batch was begun (monotonic): a statement, or a look at the server before it; 0:
        nothing is."""
        self._checked = 0.0
        self._gave_up = False
        self._connection: Connection | None = None
        self._connection = self._connect(ownership.OWN_WAIT_S, prepare)
        self._batch = self._ownership.counted
        self._jobs: queue.SimpleQueue[list[Item] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=f"writer-{name}", daemon=True)
        self._thread.start()

    # -- on the event loop's thread ----------------------------------------------------------------------------

    def apply(
        self, ops: Sequence[sql.Op], decide: Decide | None = None, *, lazy: bool = False, may_spill: bool = False
    ) -> Written[Any]:
        """Hand in operations. A `lazy` write may wait LAZY_S for others to share its commit; the order stays."""
        now = time.monotonic()
        return self._hand_in(Item(Written(), ops=ops, decide=decide, lazy=lazy, may_spill=may_spill, since=now))

    def submit(self, call: Callable[[Cursor], T]) -> "asyncio.Future[T]":
        """Hand in a call, which may be run more than once; the future resolves with its result after the commit."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def told(written: Written[T]) -> None:
            if future.done():
                return
            error = written.exception()
            if error is None:
                future.set_result(written.result())
            else:
                future.set_exception(error)

        self._hand_in(Item(Written(), call=call, since=time.monotonic())).add_done_callback(told)
        return future

    def _hand_in(self, item: Item) -> Written[Any]:
        written = item.written
        if self._deposed:
            written.settle(None, self._not_owned())
        elif self._closed:
            written.settle(None, WriterFull("the store is closed"))
        elif item.may_spill and (self.failed is not None or self._began) and self._should_spill():
            written.settle(None, Spill(str(self.failed or "its server is slow")))
        elif self._is_down():
            written.settle(None, StoreUnavailable(str(self.failed)))
        elif len(self._waiting) >= MAX_WAITING:
            written.settle(None, WriterFull("too many writes wait for the database"))
        else:
            self._waiting.append(item)
            self._urgent += not item.lazy
            if not self._busy:
                self._schedule(item.lazy)
        return written

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have news told on `loop` also before the first write."""
        self._loop = loop

    @property
    def takes_writes(self) -> bool:
        """Whether what is handed in now is likely to be committed soon."""
        began = self._began
        return self.failed is None and not self._closed and not (began and time.monotonic() - began > SLOW_S)

    def _should_spill(self) -> bool:
        return not self.takes_writes and self.elsewhere()

    def _not_owned(self) -> NotOwned:
        return NotOwned(f"{self._name}: another node owns it now")

    def _is_down(self) -> bool:
        """Whether no server was reached for longer than writes may wait."""
        since = self._down_since
        return bool(since) and time.monotonic() - since > self._wait_s

    def _schedule(self, lazy: bool) -> None:
        """Begin a batch at the end of this pass of the loop, so that all of a pass share a commit; or later."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        if self._look is None:
            self._look = loop.call_later(LOOK_S, self._look_after)
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
        self._timer = None
        if not self._busy and self._waiting:
            self._busy = True
            self._begin()

    def _begin(self) -> None:
        waiting = self._waiting
        if not waiting:
            self._busy = False
            if self._drained is not None:
                self._drained.set_result(None)
            return
        batch = [waiting.popleft() for _ in range(min(len(waiting), MAX_BATCH))]
        self._urgent -= sum(not item.lazy for item in batch)
        self._jobs.put(batch)

    def _committed(self, batch: list[Item], outcomes: list[Outcome]) -> None:
        for item, (result, error) in zip(batch, outcomes, strict=True):
            item.written.settle(result, error)
        if self._deposed:
            self._depose()
        if self._waiting and not self._urgent and not self._closed:
            self._busy = False
            self._schedule(True)
            return
        assert self._loop is not None
        self._loop.call_soon(self._begin)

    def _depose(self) -> None:
        """On the event loop: fail all that waits."""
        if not self._told_deposed:
            self._told_deposed = True
            self._fail_waiting(self._not_owned())
            self.on_deposed()

    def _fail_waiting(self, error: StoreUnavailable, spilling: bool = False) -> None:
        """Fail what has not been sent: all of it, or what may spill."""
        waiting = self._waiting
        gone = [item for item in waiting if item.may_spill or not spilling]
        if gone:
            self._waiting = deque(item for item in waiting if spilling and not item.may_spill)
            self._urgent = sum(not item.lazy for item in self._waiting)
        for item in gone:
            item.written.settle(None, error)

    def _look_after(self) -> None:
        """Cut a connection on which a batch has stalled; fail what has waited too long without being sent."""
        assert self._loop is not None
        self._look = None
        if not (self._busy or self._waiting):
            return
        self._look = self._loop.call_later(LOOK_S, self._look_after)
        # In this order: what has begun is told to be newer before its connection can be seen.
        connection, began = self._connection, self._began
        if began and connection is not None and time.monotonic() - began > STALL_S:
            cut(connection)
        if self._is_down():
            self._fail_waiting(StoreUnavailable(str(self.failed)))
        elif self._waiting and self._should_spill():
            self._fail_waiting(Spill(str(self.failed or "its server is slow")), spilling=True)

    async def close(self, *, in_a_hurry: bool = True) -> None:
        """Commit what was handed in and end the thread. While no server answers, fail it: at once in a hurry, else
        after the usual time, and what is in doubt not at all."""
        if self._closed:
            return
        self._closed = True
        if in_a_hurry:
            self._closing.set()
        if self._waiting and not self._busy:
            self._schedule(False)
        if self._busy:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        if self._look is not None:
            self._look.cancel()
        self._closing.set()
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    # -- on the writer thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                batch = self._jobs.get(timeout=RETRY_LONGEST_S if self.failed and not self._deposed else None)
            except queue.Empty:
                self._try_again()
                continue
            if batch is None:
                break
            outcomes = self._finish(batch)
            loop = self._loop
            try:
                if loop is not None:
                    loop.call_soon_threadsafe(self._committed, batch, outcomes)
            except RuntimeError:
                continue  # the loop has closed: nobody waits any more
        self._drop()

    def _try_again(self) -> None:
        """Nothing waits, but no server was reached: is one there by now?"""
        try:
            self._usable()
        except (StoreUnavailable, CannotSurvive, psycopg.Error) as error:
            self._lost(error)
            return
        if self._ownership.lost:
            self._give_up_place()
            try:
                if self._loop is not None:
                    self._loop.call_soon_threadsafe(self._depose)
            except RuntimeError:
                return  # the loop has closed: nobody waits any more

    def _finish(self, batch: list[Item]) -> list[Outcome]:
        """Have a batch committed, whatever happens to connections meanwhile; or learn surely that it is not."""
        self._batch += 1
        began, pause = time.monotonic(), RETRY_FIRST_S
        known: list[Outcome] | None = None
        doubtful = careful = False
        while True:
            applying = False
            self._began = time.monotonic()
            try:
                connection = self._usable()
                self._began = time.monotonic()
                if doubtful and self._has_committed(connection):
                    return self._told(batch, known if known is not None else self._stored(connection, batch))
                if self._ownership.lost:
                    return self._without_place(batch)
                known = None
                doubtful = applying = True
                known = self._apply_all(connection, batch, careful)
                if not self._is_light(batch, careful):
                    connection.execute("commit")
                applying = False
                self._confirm(connection)
                return self._told(batch, known)
            except Deposed:
                return self._without_place(batch)
            except (CannotSurvive, StoreUnavailable) as error:
                self._lost(error)
            except psycopg.Error as error:
                if (doubtful and not applying) or is_lost(error, self._connection):
                    # Behind a commit, or before it is known: only the row tells, read in another session.
                    self._lost(error)
                    doubtful = doubtful and not (applying and error.sqlstate == READ_ONLY)
                elif has_no_room(error) or (careful and error.sqlstate not in REPEATABLE):
                    return self._refused(batch, error)
                else:
                    doubtful = False
                    self._roll_back()
                    careful = careful or not (error.sqlstate in REPEATABLE or self._reshape(error))
                    continue
            except Exception as error:  # one operation cannot even be sent
                if doubtful and not applying:
                    self._lost(error)
                elif careful:
                    return self._refused(batch, error)
                else:
                    careful, doubtful = True, False
                    self._roll_back()
                    continue
            finally:
                self._began = 0.0
            overdue = time.monotonic() - began > self._wait_s
            if self._closing.is_set() or (overdue and not doubtful):
                return [(None, StoreUnavailable(str(self.failed)))] * len(batch)
            if not doubtful:
                self._spill(batch)
            self._closing.wait(pause)
            pause = min(2 * pause, RETRY_LONGEST_S)

    def _is_light(self, batch: list[Item], careful: bool) -> bool:
        return is_light(batch, careful)

    def _apply_all(self, connection: Connection, batch: list[Item], careful: bool) -> list[Outcome]:
        """Everything but the commit; a light batch is one statement and commits itself."""
        return apply(connection, self._ownership, batch, self._batch, careful)

    def _told(self, batch: list[Item], outcomes: list[Outcome]) -> list[Outcome]:
        self._well()
        self.commits += 1
        self.writes += len(batch)
        return outcomes

    def _refused(self, batch: list[Item], error: Exception) -> list[Outcome]:
        """Surely nothing of the batch was written."""
        self._roll_back()
        self.failed = error
        unavailable = StoreUnavailable(reason(error))
        unavailable.__cause__ = error
        return [(None, unavailable)] * len(batch)

    def _without_place(self, batch: list[Item]) -> list[Outcome]:
        """Nothing of the batch was written, and nothing more will be."""
        self._give_up_place()
        return [(None, self._not_owned())] * len(batch)

    def _give_up_place(self) -> None:
        self._deposed = True
        self.failed = self._not_owned()
        self._drop()

    def _spill(self, batch: list[Item]) -> None:
        """Tell those of a batch that nothing was sent of, and whose work can be made anew elsewhere."""
        loop = self._loop
        gone = [item for item in batch if item.may_spill]
        if not gone or loop is None or not self.elsewhere():
            return
        batch[:] = [item for item in batch if not item.may_spill]
        error = Spill(str(self.failed))

        def tell() -> None:
            for item in gone:
                item.written.settle(None, error)

        try:
            loop.call_soon_threadsafe(tell)
        except RuntimeError:
            return  # the loop has closed: nobody waits any more

    def apply_by(self, statement: bytes) -> None:
        """Have operations applied by this statement from now on."""
        self._ownership.apply = statement

    def _reshape(self, error: psycopg.Error) -> bool:
        """Whether a batch that did not fit the tables may do so now, once."""
        connection = self._connection
        if error.sqlstate not in STALE or self._reshaped == self._batch or connection is None:
            return False
        self._reshaped = self._batch
        try:
            connection.execute("deallocate all")
            self.stale(connection)
        except psycopg.Error as lost:
            self._lost(lost)
        return True

    def _roll_back(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            connection.execute("rollback")
        except psycopg.Error as error:
            self._lost(error)

    # -- doubt -------------------------------------------------------------------------------------------------

    def _has_committed(self, connection: Connection) -> bool:
        """Whether the batch in doubt is in the database; its standbys have it then, too."""
        row = connection.execute(_STORED, (self._ownership.row,)).fetchone()
        if row is None or row[0] != self._batch:
            return False
        self._gave_up = True
        self._confirm(connection)
        return True

    def _stored(self, connection: Connection, batch: list[Item]) -> list[Outcome]:
        """The outcomes of a light batch whose answer got lost."""
        row = connection.execute(_STORED, (self._ownership.row,)).fetchone()
        return decide_all(batch, row[1] if row else ())

    def _confirm(self, connection: Connection) -> None:
        """After a doubtful commit: one more, which standbys confirm only after everything before it."""
        while self._gave_up:
            self._gave_up = False
            self._began = time.monotonic()
            connection.execute(_BARRIER, (self._ownership.row,))

    def _noticed(self, notice: Any) -> None:
        """`canceling wait for synchronous replication`, in whatever language: nothing else of ours makes a warning."""
        if notice.severity_nonlocalized == "WARNING":
            self._gave_up = True

    # -- connections -------------------------------------------------------------------------------------------

    def _usable(self) -> Connection:
        """The connection, made if need be, to a server that still keeps its promise."""
        connection = self._connection
        if connection is None:
            connection = self._connect(STALL_S, None)
            self._began = self._began and time.monotonic()
            self._connection = connection  # from here on it is cut when what has begun takes too long
            self._well()
        elif time.monotonic() - self._checked > CHECK_EVERY_S or self.failed is not None:
            with within(connection, STALL_S):
                self._check(connection)
            self._checked = time.monotonic()
            self._well()
        elif self._heard.poll(0):
            # The server has said something unasked, its farewell most likely: what is sent now would be in doubt.
            with within(connection, STALL_S):
                connection.execute("select 1")
        return connection

    def _connect(self, patience_s: float, prepare: Callable[[Connection], None] | None) -> Connection:
        connection = self._servers.connect(f"trunkline {self._name}", schema=self._schema)
        try:
            connection.add_notice_handler(self._noticed)
            if prepare is not None:
                with within(connection, STALL_S):
                    self._check(connection)  # where a standby is away, what is written to prepare would wait for it
                with within(connection, PREPARE_S):
                    prepare(connection)
            with within(connection, STALL_S):
                self._check(connection)
            with within(connection, patience_s + STALL_S):
                self._ownership.take(connection, patience_s, self._closing)
        except psycopg.Error as error:
            connection.close()
            raise StoreUnavailable(f"{self._servers!r}: {reason(error)}") from error
        except BaseException:
            connection.close()
            raise
        self._heard = select.poll()
        self._heard.register(connection.fileno(), select.POLLIN)
        self._checked = time.monotonic()
        return connection

    def _lost(self, error: BaseException) -> None:
        self._drop()
        self._servers.rotate()
        self.failed = error if isinstance(error, StoreUnavailable | CannotSurvive) else StoreUnavailable(reason(error))
        self._down_since = self._down_since or time.monotonic()

    def _well(self) -> None:
        self.failed = None
        self._down_since = 0.0

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except psycopg.Error:
                return
