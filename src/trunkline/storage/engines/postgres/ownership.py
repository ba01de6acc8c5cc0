"""Who may write: the holder of a lock, or of an epoch.

**A lock** (`Locked`) makes one process the owner; it dies with the session that writes, so that no batch of a former
owner can come after the first of the next one. Whoever comes meanwhile is refused. The next one may find a row of the
former one under the same name: it counts its batches from there on, so that no number is ever that of two batches.

**An epoch** (`Fenced`) is for a partition of a cluster, where the heir must not wait for a host that is frozen or cut
off. Each owner writes under a name of its own, `<partition>/<epoch>`, which has a row in `writer`; every batch updates
that row, and only if it is not `fenced`. The heir, in one transaction, counts up the epoch, fences all rows and adds
its own. The locks of rows order the two: a batch that has updated its row first is committed before the heir begins,
and the heir sees it; one that comes later finds its row fenced and is rolled back. So the heir need not wait for the
former owner's session (it ends it all the same, lest it hold locks), and clocks play no part. The former owner learns
from its row, which stays, whether a batch in doubt was committed: once it is fenced, what it says is final.
"""

import threading
import time
from typing import Protocol

import psycopg

from trunkline.storage.engines.postgres import queue_sql as sql
from trunkline.storage.engines.postgres.session import Connection, Servers, within
from trunkline.storage.survives import CannotSurvive

LOCK_CLASS = 0x7472
OWN_WAIT_S = 15.0
"""How long a start waits for the former owner's session to end."""
POLL_S = 0.05
"""Between two looks at a lock."""
CLAIM_MS = 300_000
"""Longer than any claim of an idempotency key."""
FENCE_WAIT_MS = 300
"""How long a taking over waits for a batch of the former owner to end by itself."""
TAKE_S = 5.0
"""Longest taking over in one session: its primary may have lost its standbys. The next server is tried."""

WRITER_TABLE = """
create table if not exists writer(
    name text collate "C" primary key, batch bigint not null, failed int[] not null, barrier bigint not null default 0,
    at timestamptz not null) with (fillfactor = 50)
"""
OWNER_TABLE = """
alter table writer add column if not exists fenced boolean not null default false;
create table if not exists owner(
    one boolean primary key default true check (one), epoch bigint not null, node text not null,
    at timestamptz not null);
insert into owner values (true, 0, '', now()) on conflict do nothing
"""
_END_CLAIMS = """
update replay set expires_ms = 0
where state = 'running' and expires_ms <= (extract(epoch from clock_timestamp()) * 1000)::bigint + %s
"""
"""Requests with an idempotency key that a former owner had begun: it can commit nothing of them any more, so whoever
comes again with such a key need not wait for the claim's end. (By the index of ends: those that are over tomorrow are
not looked at.)"""
_PRUNE = f"""
with old as materialized (select name from writer where at < now() - interval '30 days' and name <> %s)
delete from writer w using old where w.name = old.name and w.at < now() - interval '30 days'
and pg_try_advisory_xact_lock({LOCK_CLASS}, hashtext(w.name))
"""
"""Rows of writers that are gone: whoever is only idle has the lock of its row. (Only the old ones' locks are tried: the
others' would be taken for a moment. The time is looked at again, of a row that has been written meanwhile.)"""
_ENROL = "insert into writer values (%s, 0, '{}', 0, now()) on conflict do nothing"
_COUNTED = "select batch from writer where name = %s"
_MARK = "update writer set batch = %s, failed = '{}', at = now() where name = %s"
_LOCK = "select pg_try_advisory_lock(%s::int, hashtext(%s))"
_LOCK_SHARED = "select pg_try_advisory_lock_shared(%s::int, hashtext(%s))"
_RAISE_EPOCH = "update owner set epoch = epoch + 1, node = %s, at = now() returning epoch"
_FENCE = "update writer set fenced = true where not fenced and starts_with(name, %s)"
_IS_FENCED = "select fenced from writer where name = %s"
_END_SESSIONS = """
select pg_terminate_backend(l.pid) from pg_locks l where l.locktype = 'advisory' and l.granted and l.objsubid = 2
and l.database = (select oid from pg_database where datname = current_database()) and l.classid = %s::oid
and l.pid <> pg_backend_pid() and l.objid::bigint in
(select hashtext(name)::bigint & 4294967295 from writer where {rows})
"""
_END_FORMER = _END_SESSIONS.format(rows="fenced and starts_with(name, %s)")
_END_ALL = _END_SESSIONS.format(rows="starts_with(name, %s)")
_END_OWN = _END_SESSIONS.format(rows="name = %s")
_GIVE_UP = "update owner set node = '', at = now() where epoch = %s"


class Owned(CannotSurvive):
    """Another process owns this queue."""


class Ownership(Protocol):
    """How a writer comes to own what it writes, and how each of its transactions sees that it still does."""

    row: str
    """Name of its row in `writer`."""
    apply: bytes
    """The statement that applies a batch of operations."""
    mark: str
    """The statement by which a transaction counts its batch; no row: it is not the owner any more."""
    lost: bool
    """Whether another has taken its place, for good."""
    counted: int
    """Number of the last batch that its row had when it was taken first; the next one is the number behind it."""

    def take(self, connection: Connection, patience_s: float, closing: threading.Event) -> None:
        """Make a new session the one that writes. Raises Owned."""


class Locked:
    """See the module. `owner` names the lock, `row` this process."""

    apply = sql.APPLY.encode()
    mark = _MARK
    lost = False

    def __init__(self, owner: str, row: str, servers: Servers) -> None:
        self.row = row
        self.counted = 0
        self._owner = owner
        self._servers = servers
        self._taken = False

    def take(self, connection: Connection, patience_s: float, closing: threading.Event) -> None:
        until = time.monotonic() + patience_s
        while not _try(connection, _LOCK, self._owner):
            if time.monotonic() > until or closing.is_set():
                raise Owned(f"storage.{self._servers.name}: another server owns this {self._owner}: stop it first")
            time.sleep(POLL_S)
        if not self._taken:
            connection.execute(_PRUNE, (self.row,))
        connection.execute(_ENROL, (self.row,))
        if not self._taken:
            (row,) = connection.execute(_COUNTED, (self.row,)).fetchall()
            self.counted = int(row[0])
        self._taken = True


class Fenced:
    """See the module. `part` names the partition, `node` who asks (shown to operators), `beside` the lock of those
    servers that know of no epochs: while one runs, nobody takes the partition (empty: there can be none)."""

    apply = sql.FENCED_APPLY.encode()
    mark = f"{_MARK} and not fenced"
    counted = 0

    def __init__(self, part: str, node: str, beside: str = "") -> None:
        self.row = ""
        self.lost = False
        self.epoch = 0
        self._part = part
        self._node = node
        self._beside = beside

    def take(self, connection: Connection, patience_s: float, closing: threading.Event) -> None:
        """The first time, take the partition, whoever has it; later, find out whether it was taken meanwhile."""
        with within(connection, TAKE_S):
            if self._beside and not _try(connection, _LOCK_SHARED, self._beside):
                raise Owned(f"a server that is no member of the cluster owns this {self._beside}: stop it first")
            if not self.epoch:
                self._raise_epoch(connection, patience_s, closing)
            else:
                self._take_again(connection, patience_s, closing)

    def _raise_epoch(self, connection: Connection, patience_s: float, closing: threading.Event) -> None:
        prefix = f"{self._part}/"
        until = time.monotonic() + patience_s
        while True:
            try:
                with connection.transaction():
                    connection.execute(f"set local lock_timeout = {FENCE_WAIT_MS}")
                    (row,) = connection.execute(_RAISE_EPOCH, (self._node,)).fetchall()
                    connection.execute(_FENCE, (prefix,))
                    connection.execute(_ENROL, (f"{prefix}{row[0]}",))
                    connection.execute(_END_CLAIMS, (CLAIM_MS,))
                break
            except psycopg.errors.LockNotAvailable:
                if time.monotonic() > until or closing.is_set():
                    raise
                _end(connection, _END_ALL, prefix)
        self.epoch = int(row[0])
        self.row = f"{prefix}{self.epoch}"
        _try(connection, _LOCK, self.row)  # nobody else asks for this one
        connection.execute(_PRUNE, (self.row,))
        _end(connection, _END_FORMER, prefix)

    def _take_again(self, connection: Connection, patience_s: float, closing: threading.Event) -> None:
        """After our former session has ended, or can commit nothing any more."""
        until = time.monotonic() + patience_s
        while not self._is_fenced(connection) and not _try(connection, _LOCK, self.row):
            if time.monotonic() > until or closing.is_set():
                raise Owned("our own former session does not end")
            _end(connection, _END_OWN, self.row)
            time.sleep(POLL_S)

    def _is_fenced(self, connection: Connection) -> bool:
        row = connection.execute(_IS_FENCED, (self.row,)).fetchone()
        self.lost = row is None or bool(row[0])
        return self.lost

    def give_up(self, cursor: "psycopg.Cursor[tuple[object, ...]]") -> None:
        """Note, for those who look, that nobody owns it."""
        cursor.execute(_GIVE_UP, (self.epoch,))


def _try(connection: Connection, statement: str, key: str) -> bool:
    row = connection.execute(statement.encode(), (LOCK_CLASS, key)).fetchone()
    return row is not None and bool(row[0])


def _end(connection: Connection, statement: str, rows: str) -> None:
    """End the sessions that hold the locks of these rows of `writer`."""
    try:
        connection.execute(statement.encode(), (LOCK_CLASS, rows))
    except psycopg.errors.InsufficientPrivilege:
        return  # another role's: it can commit nothing, and its server ends it when it idles
