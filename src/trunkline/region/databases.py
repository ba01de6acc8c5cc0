"""The databases of a region: asked, kept beating, fenced and promoted. Blocks; raises StoreUnavailable.

`region` holds the epoch, `region_beat` a number that the active region counts up every second: as both are replicated
with everything else, a standby's own copy says how far behind it is, whatever its link does.
"""

import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from trunkline.region.records import Epoch, Handover, Server
from trunkline.region.rules import Seen
from trunkline.storage.engines.postgres.queue import MIGRATION_LOCK
from trunkline.storage.engines.postgres.session import BadDsn, Connection, Servers, reason
from trunkline.storage.unavailable import StoreUnavailable

APPLICATION = "trunkline region"
"""By which our sessions here are told from the nodes'."""
STATEMENT_MS = 5000
POLL_S = 0.2
BEAT_EVERY_MS = 900
"""A beat is counted when the last one is so old: several nodes beat, one counts."""
PROMOTE_S = 60
"""How long a standby may take to become a primary."""

TABLES = """
create table if not exists region(
    one boolean primary key default true check (one), name text not null, epoch bigint not null,
    since_ms bigint not null);
create table if not exists region_beat(
    one boolean primary key default true check (one), seq bigint not null, at_ms bigint not null);
create table if not exists region_handover(epoch bigint primary key, told bytea not null);
insert into region_beat values (true, 0, 0) on conflict do nothing
"""
_NOW = "(extract(epoch from clock_timestamp()) * 1000)::bigint"
_STATE = f"""
select pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on',
    pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end,
        '0/0')::bigint,
    coalesce(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0'), 0)::bigint, {_NOW},
    to_regclass('region') is not null and to_regclass('region_beat') is not null
"""
_TOLD = "select r.name, r.epoch, b.seq, b.at_ms from region_beat b left join region r on true"
BEAT = f"update region_beat set seq = seq + 1, at_ms = {_NOW} where at_ms <= {_NOW} - {BEAT_EVERY_MS}"  # noqa: S608
_REIGN = """
insert into region values (true, %s, %s, %s) on conflict (one) do update set name = excluded.name,
    epoch = excluded.epoch, since_ms = excluded.since_ms where excluded.epoch >= region.epoch
"""
_SESSIONS = """
from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
and backend_type = 'client backend' and application_name <> %s and usename = current_user
"""
_KEEP = "insert into region_handover values (%s, %b) on conflict (epoch) do update set told = excluded.told"


def each_server(dsn: str) -> list[str]:
    """A DSN of each server that a DSN names. Raises BadDsn."""
    try:
        given: dict[str, Any] = dict(conninfo_to_dict(dsn))
    except psycopg.Error:
        raise BadDsn("not a PostgreSQL connection string") from None
    hosts = str(given.pop("host", "") or "").split(",")
    ports = str(given.pop("port", "") or "").split(",")
    return [
        make_conninfo(**{**given, "host": host or None, "port": ports[at % len(ports)] or None})
        for at, host in enumerate(hosts)
    ]


def writable(dsn: str) -> str:
    """The same database, for sessions that write though it is fenced."""
    given: dict[str, Any] = dict(conninfo_to_dict(dsn))
    options = f"{given.get('options') or ''} -c default_transaction_read_only=off".strip()
    return make_conninfo(**{**given, "options": options})


def _ask(dsn: str, name: str) -> Server:
    place = conninfo_to_dict(dsn)
    connection = Servers(dsn, name).connect(APPLICATION, writes=False, statement_ms=STATEMENT_MS)
    try:
        (state,) = connection.execute(_STATE.encode()).fetchall()
        told = connection.execute(_TOLD.encode()).fetchone() if state[5] else None
    except psycopg.Error as error:
        raise StoreUnavailable(f"{name}: {reason(error)}") from None
    finally:
        connection.close()
    region, epoch, beat, beat_ms = told or ("", 0, 0, 0)
    return Server(
        host=str(place.get("host") or ""), port=str(place.get("port") or ""), standby=state[0], read_only=state[1],
        lsn=int(state[2] or 0), received=int(state[3]), now_ms=int(state[4]), region=region or "", epoch=epoch or 0,
        beat=beat, beat_ms=beat_ms,
    )  # fmt: skip


def _try(dsn: str, name: str) -> Server | None:
    try:
        return _ask(dsn, name)
    except StoreUnavailable:
        return None


def look(dsn: str, name: str) -> Server | None:
    """What a database's primary says or, where there is none, the standby that is furthest; None: no server answers."""
    return look_at({name: dsn})[name]


def look_at(databases: Mapping[str, str]) -> Seen:
    """The same of several: name -> DSN. All servers at once: those of a lost region may swallow packets."""
    asked = [(name, one) for name, dsn in databases.items() for one in each_server(dsn)]
    with ThreadPoolExecutor(max(1, len(asked))) as threads:
        answers = list(threads.map(lambda one: _try(one[1], one[0]), asked))
    found: dict[str, Server | None] = dict.fromkeys(databases)
    for (name, _), server in zip(asked, answers, strict=True):
        if server is not None:
            found[name] = max(filter(None, (server, found[name])), key=_rank)
    return found


def _rank(server: Server) -> tuple[bool, int]:
    return server.takes_writes, max(server.lsn, server.received)


def _write(dsn: str, name: str) -> Connection:
    return Servers(writable(dsn), name).connect(APPLICATION, statement_ms=STATEMENT_MS)


def prepare(connection: Connection) -> None:
    """Create what is missing."""
    row = connection.execute("select to_regclass('region_handover') is null").fetchone()
    if row is not None and row[0]:
        with connection.transaction():  # nodes that are first at once would all make them
            connection.execute("select pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
            for statement in TABLES.split(";"):
                connection.execute(statement.encode())


def reign(dsn: str, name: str, epoch: Epoch) -> None:
    """Write the epoch down, and lift a fence."""
    connection = _write(dsn, name)
    try:
        prepare(connection)
        connection.execute(_REIGN.encode(), (epoch.region, epoch.epoch, epoch.since_ms))
        set_read_only(connection, False)
    except psycopg.Error as error:
        raise StoreUnavailable(f"{name}: {reason(error)}") from None
    finally:
        connection.close()


def keep(dsn: str, handover: Handover) -> None:
    """Put down how the epoch began."""
    connection = _write(dsn, "database")
    try:
        prepare(connection)
        connection.execute(_KEEP.encode(), (handover.epoch.epoch, msgspec.json.encode(handover)))
    except psycopg.Error as error:
        raise StoreUnavailable(f"database: {reason(error)}") from None
    finally:
        connection.close()


def handovers(dsn: str) -> list[Handover]:
    """How epochs began, the newest first, as the database knows."""
    connection = Servers(dsn, "database").connect(APPLICATION, writes=False, statement_ms=STATEMENT_MS)
    try:
        row = connection.execute("select to_regclass('region_handover') is null").fetchone()
        if row is None or row[0]:
            return []
        rows = connection.execute("select told from region_handover order by epoch desc").fetchall()
        return [msgspec.json.decode(bytes(one[0]), type=Handover) for one in rows]
    except psycopg.Error as error:
        raise StoreUnavailable(f"database: {reason(error)}") from None
    finally:
        connection.close()


def set_read_only(connection: Connection, on: bool) -> None:
    """Let no session of a node write from its next transaction on, or let it again. Needs the database's owner."""
    row = connection.execute("select quote_ident(current_database())").fetchone()
    assert row is not None
    what = "set default_transaction_read_only = on" if on else "reset default_transaction_read_only"
    connection.execute(f"alter database {row[0]} {what}".encode())


def sessions(dsn: str, name: str) -> int:
    """How many of the nodes' sessions there are."""
    connection = _write(dsn, name)
    try:
        row = connection.execute(f"select count(*) {_SESSIONS}".encode(), (APPLICATION,)).fetchone()
        return int(row[0]) if row is not None else 0
    except psycopg.Error as error:
        raise StoreUnavailable(f"{name}: {reason(error)}") from None
    finally:
        connection.close()


def fence(dsn: str, name: str) -> int:
    """No node commits anything any more; returns the position up to which there is something. Sessions that are under
    way are ended; new ones find a database that is read-only, which the nodes do not take."""
    connection = _write(dsn, name)
    try:
        set_read_only(connection, True)
        connection.execute(f"select pg_terminate_backend(pid) {_SESSIONS}".encode(), (APPLICATION,))
        deadline = time.monotonic() + PROMOTE_S
        while time.monotonic() < deadline:
            row = connection.execute(f"select count(*) {_SESSIONS}".encode(), (APPLICATION,)).fetchone()
            if row is not None and not row[0]:
                break
            connection.execute(f"select pg_terminate_backend(pid) {_SESSIONS}".encode(), (APPLICATION,))
            time.sleep(POLL_S)
        else:
            raise StoreUnavailable(f"{name}: sessions of nodes do not end")
        row = connection.execute("select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").fetchone()
        assert row is not None
        return int(row[0])
    except psycopg.Error as error:
        raise StoreUnavailable(f"{name}: {reason(error)}") from None
    finally:
        connection.close()


def unfence(dsn: str, name: str) -> None:
    """Take `fence` back."""
    connection = _write(dsn, name)
    try:
        set_read_only(connection, False)
    except psycopg.Error as error:
        raise StoreUnavailable(f"{name}: {reason(error)}") from None
    finally:
        connection.close()


def clusters(databases: Mapping[str, str]) -> dict[str, str]:
    """The databases, one of each cluster of servers (two may lie in one)."""
    found: dict[tuple[str, str], str] = {}
    for name, dsn in databases.items():
        place = conninfo_to_dict(dsn)
        found.setdefault((str(place.get("host") or ""), str(place.get("port") or "")), name)
    return {name: databases[name] for name in found.values()}


def promote(dsn: str, name: str, command: str) -> None:
    """Make the standby a primary, and wait until it is one."""
    first = conninfo_to_dict(each_server(dsn)[0])
    if command:
        words = [
            word.format(name=name, host=first.get("host") or "", port=first.get("port") or "5432")
            for word in shlex.split(command)
        ]
        _run(words)
    else:
        _promote_plain(dsn, name)
    deadline = time.monotonic() + PROMOTE_S
    while (server := look(dsn, name)) is None or server.standby:
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"{name} has not become a primary within {PROMOTE_S} s")
        time.sleep(POLL_S)


def _run(words: Sequence[str]) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=PROMOTE_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StoreUnavailable(f"region.promote_command: {error}") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise StoreUnavailable(f"region.promote_command: {lines[-1] if lines else f'exit code {done.returncode}'}")


def _promote_plain(dsn: str, name: str) -> None:
    furthest = max(each_server(dsn), key=lambda one: -1 if (seen := _try(one, name)) is None else _rank(seen)[1])
    connection = Servers(furthest, name).connect(APPLICATION, writes=False)
    try:
        connection.execute(f"select pg_promote(true, {PROMOTE_S})".encode())
    except psycopg.Error as error:
        raise StoreUnavailable(f"{name}: {reason(error)}; see region.promote_command") from None
    finally:
        connection.close()
