"""The statements of the archive's recent documents on PostgreSQL, and its tables (see storage/manifest.py)."""

TABLES = """
create table if not exists archive_documents (
  account text collate "C" not null, key text collate "C" not null, prefix text not null, kind text not null,
  rev bigint not null, recipient text not null, sender text not null, status text not null,
  created_ms bigint not null, sent_ms bigint not null, parent text not null, ended_ms bigint not null,
  body bytea not null, primary key (account, key));
create table if not exists archive_segments (
  id bigint generated always as identity primary key, path text not null unique, late boolean not null,
  rows bigint not null, size bigint not null, min_key text collate "C" not null, max_key text collate "C" not null,
  min_created_ms bigint not null, max_created_ms bigint not null,
  min_sent_ms bigint not null, max_sent_ms bigint not null,
  accounts bytea not null, created_ms bigint not null, draining boolean not null);
create table if not exists archive_dropped (path text primary key, at_ms bigint not null);
create table if not exists archive_floors (
  account text collate "C" not null, key text collate "C" not null, rev bigint not null, at_ms bigint not null,
  private boolean not null, done_ms bigint not null default 0, primary key (account, key));
create table if not exists archive_state (
  one boolean primary key check (one), generation bigint not null, watermark text collate "C" not null,
  epoch bigint not null, holder text not null, until timestamptz not null);
insert into archive_state values (true, 0, '', 0, '', '-infinity') on conflict do nothing;
"""
WITH_CONTENT = ("archive_documents",)
"""Tables that hold customers' content."""

LANDING_LOCK = "select pg_advisory_xact_lock_shared({0}, 1)"
ROLLING_LOCK = "select pg_advisory_xact_lock({0}, 1)"
"""Landings share it, who raises the watermark holds it alone: a landing that did not see the new watermark is committed
before the roll-up's snapshot."""
LOCK_CLASS = 0x7261

_COLUMNS = "account, key, prefix, kind, rev, recipient, sender, status, created_ms, sent_ms, parent, ended_ms, body"
_ARRAYS = (
    "%s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::bigint[], "
    "%s::bigint[], %s::text[], %s::bigint[], %s::bytea[]"
)
_CHANGED = ", ".join(
    f"{name} = excluded.{name}" for name in _COLUMNS.replace(",", "").split() if name not in ("account", "key")
)
UPSERT = f"""
insert into archive_documents as d ({_COLUMNS})
select r.* from unnest({_ARRAYS}) as r({_COLUMNS})
where not exists (select from archive_floors f where f.account = r.account and f.key = r.key and f.rev > r.rev)
on conflict (account, key) do update set {_CHANGED} where excluded.rev > d.rev
"""
_RAISE = """
on conflict (account, key) do update set rev = excluded.rev, done_ms = 0,
  at_ms = case when f.done_ms = 0 then least(f.at_ms, excluded.at_ms) else excluded.at_ms end,
  private = f.private or excluded.private
where excluded.rev > f.rev
"""
RAISE_LATE_FLOORS = f"""
insert into archive_floors as f (account, key, rev, at_ms, private)
select r.account, r.key, r.rev, (extract(epoch from clock_timestamp()) * 1000)::bigint, false
from unnest(%s::text[], %s::text[], %s::bigint[]) as r(account, key, rev)
where r.key <= (select watermark from archive_state)
{_RAISE}
"""
RAISE_FLOOR = f"""
insert into archive_floors as f (account, key, rev, at_ms, private) values (%s, %s, %s, %s, true)
{_RAISE}
"""
UNHIDDEN = """not exists (
  select from archive_floors f where f.account = d.account and f.key = d.key and f.rev > d.rev)"""
"""A landing on one node and a deletion on another do not wait for each other: readers look at the floor themselves."""
GET = f"""
select prefix, kind, rev, body from archive_documents d where account = %s and key = %s and {UNHIDDEN}
"""
PAGE = f"""
select prefix, key, kind, rev, body from archive_documents d
where account = %s and key < %s and key > %s and kind = %s{{where}} and {UNHIDDEN} order by key desc limit %s
"""
ROWS = f"""
select account, key, prefix, kind, rev, body from archive_documents d
where (account, key) > (%s, %s) and key > %s and key <= %s and {UNHIDDEN} order by account, key limit %s
"""
ACCOUNT_ROWS = f"""
select account, key, prefix, kind, rev, body from archive_documents d
where account = %s and key > %s and key <= %s and {UNHIDDEN} order by key limit %s
"""
REMOVE = "delete from archive_documents where account = %s and key = %s"
DRAIN = """
delete from archive_documents d using unnest(%s::text[], %s::text[], %s::bigint[]) as r(account, key, rev)
where d.account = r.account and d.key = r.key and d.rev = r.rev
"""
EXPIRE = """
delete from archive_documents where (account, key) in
  (select account, key from archive_documents where account = %s and key >= %s and key < %s limit %s)
"""
WATERMARK = "select watermark from archive_state"
RAISE_WATERMARK = "update archive_state set watermark = greatest(watermark, %s) where watermark < %s"
TOP_SEGMENT = "select coalesce(max(max_key), '') from archive_segments"
GENERATION = "select generation from archive_state"
CUT = """
select coalesce(max(key), '') from (
  select key from archive_documents where key > %s and key < %s order by key limit %s) oldest
"""
COUNTS = """
select count(*) filter (where key <= %(top)s), count(*) filter (where key > %(top)s and key < %(below)s),
  coalesce(min(key) filter (where key > %(top)s), '') from archive_documents
"""
FLOORS = "select key, rev from archive_floors where account = %s and key = any(%s::text[])"
ALL_FLOORS = "select account, key, rev, at_ms, private from archive_floors where done_ms = 0"
PENDING_FLOORS = "select count(*), coalesce(min(at_ms), 0) from archive_floors where done_ms = 0"
DROP_FLOORS = """
delete from archive_floors f using unnest(%s::text[], %s::text[], %s::bigint[]) as r(account, key, rev)
where f.account = r.account and f.key = r.key and f.rev = r.rev and f.rev < %s
"""
SETTLE_FLOORS = """
update archive_floors f set done_ms = %s from unnest(%s::text[], %s::text[], %s::bigint[]) as r(account, key, rev)
where f.account = r.account and f.key = r.key and f.rev = r.rev and f.rev = %s
"""
FORGET_FLOORS = "delete from archive_floors where done_ms > 0 and done_ms < %s"
REMOVE_HIDDEN = """
delete from archive_documents d using archive_floors f
where f.account = d.account and f.key = d.key and f.rev > d.rev
"""
ADD_SEGMENT = """
insert into archive_segments (path, late, rows, size, min_key, max_key, min_created_ms, max_created_ms, min_sent_ms,
  max_sent_ms, accounts, created_ms, draining) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
SEGMENTS = """
select id, path, late, rows, size, min_key, max_key, min_created_ms, max_created_ms, min_sent_ms, max_sent_ms,
  accounts, created_ms, draining from archive_segments order by min_key, id
"""
DROP_SEGMENTS = "delete from archive_segments where path = any(%s::text[])"
DRAINED = "update archive_segments set draining = false where path = %s"
NOTE_DROPPED = """
insert into archive_dropped select path, (extract(epoch from clock_timestamp()) * 1000)::bigint
from unnest(%s::text[]) as r(path) on conflict do nothing
"""
DROPPED = "select path from archive_dropped where at_ms <= (extract(epoch from clock_timestamp()) * 1000)::bigint - %s"
ALL_DROPPED = "select path from archive_dropped"
FORGET_DROPPED = "delete from archive_dropped where path = any(%s::text[])"
CLAIM = """
update archive_state set epoch = epoch + 1, holder = %s, until = clock_timestamp() + %s * interval '1 second'
where holder = '' or holder = %s or until < clock_timestamp() returning epoch
"""
RENEW = """
update archive_state set until = clock_timestamp() + %s * interval '1 second' where epoch = %s and holder = %s
returning epoch
"""
GIVE_UP = "update archive_state set holder = '', until = '-infinity' where epoch = %s and holder = %s"
NEXT_GENERATION = "update archive_state set generation = generation + 1 where epoch = %s returning generation"
"""Compare and set: no change of the manifest is committed by a node whose claim another one has taken over."""

FILTERS = {
    "to": "recipient = %s",
    "from": "sender = %s",
    "status": "status = %s",
    "sent_ge_ms": "sent_ms > 0 and sent_ms >= %s",  # 0: not sent, in no range
    "sent_lt_ms": "sent_ms > 0 and sent_ms < %s",
    "created_ge_ms": "created_ms > 0 and created_ms >= %s",
    "created_lt_ms": "created_ms > 0 and created_ms < %s",
    "parent": "parent = %s",
    "ended_ge_ms": "ended_ms >= %s",
    "ended_lt_ms": "ended_ms between 1 and %s - 1",
}
