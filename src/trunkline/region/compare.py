"""What a region that was lost had beyond what was replicated, counted from its own databases. Blocks.

Of the queue (messages, calls, callbacks owed, idempotency keys) and of the recent documents everything there is looked
for here, row by row: what is under way is little, and a SID is where it was made, in flight or landed. Of the records
(accounts, numbers, ...) what was made or changed after the last heartbeat that this region has. Nothing is written.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import psycopg

from trunkline.region.databases import APPLICATION, writable
from trunkline.region.records import Handover
from trunkline.storage.engines.postgres.partitions import schema_of
from trunkline.storage.engines.postgres.session import Connection, Servers, reason
from trunkline.storage.engines.sqlite.database_schema import TABLES
from trunkline.storage.manifest import TOMBSTONE
from trunkline.storage.unavailable import StoreUnavailable

BATCH = 1000
SLACK_MS = 60_000
"""Records are compared from so long before the last heartbeat on: clocks of nodes differ."""

_FLIGHTS = "select account, key, sid, kind, status from {p}flight"
_DOCUMENTS = "select account, key, prefix || key, kind, status from archive_documents"
_FLIGHTS_HERE = """
select r.account, r.key from unnest(%s::text[], %s::text[]) as r(account, key)
where exists (select from {p}flight f where f.account = r.account and f.key = r.key)
"""
_DOCUMENTS_HERE = """
select r.account, r.key from unnest(%s::text[], %s::text[]) as r(account, key)
where exists (select from archive_documents d where d.account = r.account and d.key = r.key)
or exists (select from archive_floors f where f.account = r.account and f.key = r.key and f.rev >= %s)
"""
_KEYS = "select account, method, path, key from {p}replay where expires_ms > %s and state = 'done'"
_KEYS_HERE = """
select r.account, r.method, r.path, r.key from unnest(%s::text[], %s::text[], %s::text[], %s::text[])
as r(account, method, path, key) where exists (select from {p}replay o where o.account = r.account
and o.method = r.method and o.path = r.path and o.key = r.key)
"""
_OWED = "select count(*) from {p}owed where state = 'owed' and sid = any(%s::text[])"


class Missing(msgspec.Struct, frozen=True):
    """A message or call that was there and is not here."""

    sid: str
    account: str
    kind: str
    status: str
    """As it was there: `queued` and the like were not handed to a carrier, `sending` perhaps, others were."""


class Comparison(msgspec.Struct, kw_only=True):
    """What is missing."""

    region: str
    epoch: int
    flights: list[Missing]
    by_status: dict[str, int]
    """Of the flights, `kind status` -> how many."""
    callbacks: int
    """Owed for them, there."""
    keys: int
    """Idempotency keys whose answer is not known here."""
    records_new: dict[str, int]
    """Table -> rows that were made there and are not here."""
    records_changed: dict[str, int]
    """Table -> rows that are newer there."""
    looked_at: int
    """Messages and calls that were there."""


class Side:
    """The databases of one region, to be read."""

    def __init__(self, databases: Mapping[str, str]) -> None:
        """Raises StoreUnavailable."""
        self._databases = databases
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> "Side":
        for name, dsn in self._databases.items():
            self._connections[name] = _connect(dsn, name)
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections.values():
            connection.close()

    @property
    def queues(self) -> list[str]:
        """Names of the queue's databases."""
        return [name for name in self._databases if name != "database"]

    def rows(self, name: str, statement: str, bindings: Sequence[Any] = ()) -> list[Any]:
        """All rows. Raises StoreUnavailable."""
        try:
            return self._connections[name].execute(statement.encode(), bindings).fetchall()
        except psycopg.Error as error:
            raise StoreUnavailable(f"{name}: {reason(error)}") from None

    def batches(self, name: str, statement: str, bindings: Sequence[Any] = ()) -> Iterator[list[Any]]:
        """The rows, some at a time. Raises StoreUnavailable."""
        connection = self._connections[name]
        try:
            with connection.transaction(), connection.cursor("compare") as cursor:
                cursor.execute(statement.encode(), bindings)
                while found := cursor.fetchmany(BATCH):
                    yield found
        except psycopg.Error as error:
            raise StoreUnavailable(f"{name}: {reason(error)}") from None

    def has(self, name: str, table: str) -> bool:
        """Whether there is such a table."""
        return bool(self.rows(name, "select to_regclass(%s) is not null", (table,))[0][0])

    def schemas(self, name: str) -> list[str]:
        """Prefixes of the tables of the queue's partitions in one database."""
        if not self.has(name, "layout"):
            return [""] if self.has(name, "flight") else []
        partitions, databases, place = self.rows(name, "select partitions, databases, place from layout")[0]
        schemas = [schema_of(number, partitions) for number in range(place, partitions, databases)]
        return [f"{schema}." if schema else "" for schema in schemas]


def _connect(dsn: str, name: str) -> Connection:
    """Its primary, be it fenced: a standby may lack what was acknowledged last, and would count too little. Raises
    StoreUnavailable."""
    try:
        return Servers(writable(dsn), name).connect(f"{APPLICATION} compare", writes=True)
    except StoreUnavailable as error:
        raise StoreUnavailable(f"{error}; comparing needs a primary: wait until Patroni has one") from None


def compare(
    here: Side, there: Side, region: str, handover: Handover, landed: Callable[[str, str], bool], now_ms: int
) -> Comparison:
    """What `there` has beyond `here`. `landed(account, sid)`: whether it is in this region's archive. Raises
    StoreUnavailable."""
    missing: dict[str, Missing] = {}
    seen: set[str] = set()
    keys = 0
    for name in there.queues:
        for p in there.schemas(name):
            for rows in there.batches(name, _FLIGHTS.format(p=p)):
                seen.update(row[2] for row in rows)
                _note(missing, _absent(here, rows, [(name, _FLIGHTS_HERE.format(p=p), ())]))
            for rows in there.batches(name, _KEYS.format(p=p), (now_ms,)):
                found = here.rows(name, _KEYS_HERE.format(p=p), [list(column) for column in zip(*rows, strict=True)])
                keys += len(rows) - len(found)
    if there.has("database", "archive_documents"):
        for rows in there.batches("database", _DOCUMENTS):
            seen.update(row[2] for row in rows)
            places = [(name, _FLIGHTS_HERE.format(p=p), ()) for name in here.queues for p in here.schemas(name)]
            _note(missing, _absent(here, rows, places))
    lost = [one for one in missing.values() if not landed(one.account, one.sid)]
    by_status: dict[str, int] = {}
    for one in lost:
        by_status[f"{one.kind} {one.status}"] = by_status.get(f"{one.kind} {one.status}", 0) + 1
    sids = [one.sid for one in lost]
    callbacks = sum(
        int(there.rows(name, _OWED.format(p=p), (sids,))[0][0]) for name in there.queues for p in there.schemas(name)
    )
    new, changed = _records(here, there, handover)
    return Comparison(
        region=region, epoch=handover.epoch.epoch, flights=sorted(lost, key=lambda one: one.sid),
        by_status=dict(sorted(by_status.items())), callbacks=callbacks, keys=keys, records_new=new,
        records_changed=changed, looked_at=len(seen),
    )  # fmt: skip


def _note(missing: dict[str, Missing], rows: Sequence[Any]) -> None:
    for account, _, sid, kind, status in rows:
        missing[sid] = Missing(sid, account, kind, status)


def _absent(here: Side, rows: Sequence[Any], places: Sequence[tuple[str, str, tuple[Any, ...]]]) -> list[Any]:
    """Rows (account, key, ...) that are neither in one of the places here nor among the recent documents."""
    if here.has("database", "archive_documents"):
        places = [*places, ("database", _DOCUMENTS_HERE, (TOMBSTONE,))]
    left = list(rows)
    for name, statement, more in places:
        if not left:
            break
        found = set(here.rows(name, statement, ([row[0] for row in left], [row[1] for row in left], *more)))
        left = [row for row in left if (row[0], row[1]) not in found]
    return left


def _records(here: Side, there: Side, handover: Handover) -> tuple[dict[str, int], dict[str, int]]:
    beat = next((one.beat_ms for one in handover.positions if one.database == "database"), 0)
    since = beat - SLACK_MS
    new: dict[str, int] = {}
    changed: dict[str, int] = {}
    for kind in TABLES:
        table = kind.TABLE
        if not (there.has("database", table) and here.has("database", table)):
            continue
        statement = f"select sid, created_ms, updated_ms, rev from {table} where updated_ms >= %s"  # noqa: S608
        for rows in there.batches("database", statement, (since,)):
            own = {
                row[0]: row[1:]
                for row in here.rows(
                    "database",
                    f"select sid, updated_ms, rev from {table} where sid = any(%s::text[])",  # noqa: S608
                    ([row[0] for row in rows],),
                )
            }
            for sid, created_ms, updated_ms, rev in rows:
                if sid not in own:
                    if created_ms >= since:
                        new[table] = new.get(table, 0) + 1
                elif own[sid][0] < updated_ms or own[sid][1] < rev:
                    changed[table] = changed.get(table, 0) + 1
    return new, changed
