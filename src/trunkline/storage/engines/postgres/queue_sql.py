"""All SQL of the PostgreSQL `Queue` engine, named.

The tables are those of the SQLite engine. What the hot path writes goes to the server as one statement for a whole
batch: `trunkline_apply_v1` takes the batch as arrays, one element for each operation, and applies them in their order.
Another signature gets another name, so that two releases can run beside each other.

A queue of several partitions has these tables once for each, in the schemas `p00`, `p01`, ...: the session that writes
has its schema in `search_path`, those that read name it (`Reads`).
"""

from typing import NamedTuple

from trunkline.storage.pivots import lane_split
from trunkline.storage.pivots.model import Shape

SCHEMA = """
create table if not exists flight(
    id bigint primary key, account text collate "C" not null, key text collate "C" not null,
    sid text collate "C" not null, kind text collate "C" not null, status text collate "C" not null,
    rev bigint not null, lane text collate "C" not null, due_ms bigint not null, land_ms bigint not null,
    record bytea not null) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
create unique index if not exists flight_account_key on flight(account, key);
create index if not exists flight_land on flight(land_ms) where land_ms > 0;

create table if not exists owed(
    id bigint primary key, flight bigint not null, sid text collate "C" not null, account text collate "C" not null,
    kind text collate "C" not null, host text collate "C" not null, seq bigint not null, due_ms bigint not null,
    tries bigint not null, state text collate "C" not null, request bytea not null, attempts bytea not null
    ) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
create index if not exists owed_flight on owed(flight);
create index if not exists owed_host on owed(host, id) where state = 'owed';

create table if not exists carrier(
    connector text collate "C" not null, carrier_id text collate "C" not null, flight bigint not null,
    account text collate "C" not null, sid text collate "C" not null, primary key (connector, carrier_id));
create index if not exists carrier_flight on carrier(flight);

create table if not exists orphan(
    id bigint generated always as identity primary key, connector text collate "C" not null,
    carrier_id text collate "C" not null, at_ms bigint not null, receipt bytea not null);
create index if not exists orphan_carrier on orphan(connector, carrier_id);

create table if not exists part(
    connector text collate "C" not null, key text collate "C" not null, number bigint not null, at_ms bigint not null,
    body bytea not null, primary key (connector, key, number));
create index if not exists part_at on part(at_ms);

create table if not exists replay(
    account text collate "C" not null, method text collate "C" not null, path text collate "C" not null,
    key text collate "C" not null, fingerprint bytea not null, state text collate "C" not null, epoch bigint not null,
    status bigint not null, headers bytea not null, body bytea not null, sid text collate "C" not null,
    expires_ms bigint not null, primary key (account, method, path, key));
create index if not exists replay_expires on replay(expires_ms);
create index if not exists replay_sid on replay(account, sid) where sid <> '';

create table if not exists pivot(
    name text primary key, shape text not null, phase text not null, cursor bigint not null, done bigint not null,
    total bigint not null, started_ms bigint not null, changed_ms bigint not null);
"""
"""Without the index of lanes, which is of the shape that the tables have."""
INDEX_OF_OLD = lane_split.OLD_INDEX
PIVOT_COLUMNS = "shape, phase, cursor, done, total, started_ms, changed_ms"

FIELD = r"""
create or replace function trunkline_field(record bytea, name text) returns text language plpgsql immutable as $$
-- A field of a JSON record as text. PostgreSQL refuses the escape of NUL in any part of it: then it is left out.
begin
    return convert_from(record, 'UTF8')::json ->> name;
exception when untranslatable_character then
    return regexp_replace(convert_from(record, 'UTF8'), '(\\\\)|\\u0000', '\1', 'g')::json ->> name;
end $$
"""


class Op(NamedTuple):
    """One operation of a batch; `trunkline_apply_v1` says what its numbers, texts and bytes mean."""

    kind: int
    n1: int = 0
    n2: int = 0
    n3: int = 0
    n4: int = 0
    n5: int = 0
    t1: str = ""
    t2: str = ""
    t3: str = ""
    t4: str = ""
    t5: str = ""
    b1: bytes = b""
    b2: bytes = b""


ACCEPT, OWE_TOO, COMPLETE_TOO, CARRIER_TOO = 1, 2, 3, 4
CLAIM, ADVANCE, ADVANCE_KEEPING_RECORD = 5, 6, 7
OWE, SETTLE, FORGET_OWED, REMOVE, DROP_ORPHAN, PARK, COMPLETE = 8, 9, 10, 11, 12, 13, 14
"""`_TOO`: only if the last operation that was not `_TOO` took effect."""

_APPLY_FUNCTION = """
create or replace function trunkline_apply_v1(
    writer text, batch bigint, kinds bigint[], n1s bigint[], n2s bigint[], n3s bigint[], n4s bigint[], n5s bigint[],
    t1s text[], t2s text[], t3s text[], t4s text[], t5s text[], b1s bytea[], b2s bytea[])
returns int[] language plpgsql as $$
-- Applies the operations in their order; returns the places (from 0) of those that had no effect.
declare
    op record;
    place int := -1;
    ok boolean := true;
    places int[] := '{}';
begin
    for op in select * from unnest(kinds, n1s, n2s, n3s, n4s, n5s, t1s, t2s, t3s, t4s, t5s, b1s, b2s)
        as u(kind, n1, n2, n3, n4, n5, t1, t2, t3, t4, t5, b1, b2)
    loop
        place := place + 1;
        case op.kind
        when 1 then  -- accept: id, rev, due_ms, land_ms; account, sid, kind, status, lane; record
            insert into flight(id, account, key, sid, kind, status, rev, due_ms, land_ms, record, @lane@)
                values (op.n1, op.t1, substr(op.t2, 3), op.t2, op.t3, op.t4, op.n2, op.n3, op.n4, op.b1, @inserted@)
                on conflict do nothing;
            ok := found;
        when 2, 8 then  -- owe: id, flight, seq, due_ms, tries; sid, account, kind, host, state; request, attempts
            if op.kind = 8 or ok then
                insert into owed(id, flight, sid, account, kind, host, seq, due_ms, tries, state, request, attempts)
                    values (op.n1, op.n2, op.t1, op.t2, op.t3, op.t4, op.n3, op.n4, op.n5, op.t5,
                    op.b1, op.b2) on conflict do nothing;
            end if;
        when 3, 14 then  -- complete a replay: status, epoch, expires_ms; account, method, path, key, sid; headers, body
            if op.kind = 14 or ok then
                update replay set state = 'done', status = op.n1, headers = op.b1, body = op.b2, sid = op.t5,
                    expires_ms = op.n3
                    where account = op.t1 and method = op.t2 and path = op.t3 and key = op.t4 and epoch = op.n2;
            end if;
        when 4 then  -- carrier's id: flight; connector, carrier_id, account, sid
            if ok then
                insert into carrier(connector, carrier_id, flight, account, sid)
                    values (op.t1, op.t2, op.n1, op.t3, op.t4) on conflict (connector, carrier_id)
                    do update set flight = excluded.flight, account = excluded.account, sid = excluded.sid;
            end if;
        when 5 then  -- claim: id, rev
            update flight set status = 'sending', @taken@, rev = rev + 1 where id = op.n1 and rev = op.n2;
            ok := found;
        when 6 then  -- advance: id, rev, due_ms, land_ms; status, lane; record
            update flight set status = op.t1, @left@, due_ms = op.n3, land_ms = op.n4, rev = rev + 1,
                record = op.b1 where id = op.n1 and rev = op.n2;
            ok := found;
        when 7 then  -- the same, record left as it is
            update flight set status = op.t1, @left@, due_ms = op.n3, land_ms = op.n4, rev = rev + 1
                where id = op.n1 and rev = op.n2;
            ok := found;
        when 9 then  -- settle: id, tries, due_ms; state; attempts, request
            update owed set state = op.t1, tries = op.n2, attempts = op.b1, due_ms = op.n3, request = op.b2
                where id = op.n1;
        when 10 then  -- forget: id
            delete from owed where id = op.n1;
        when 11 then  -- remove: id, rev
            delete from flight where id = op.n1 and rev = op.n2;
            ok := found;
            if ok then
                delete from owed where flight = op.n1;
            end if;
        when 12 then  -- drop an orphan: id
            delete from orphan where id = op.n1;
        when 13 then  -- park: at_ms, most orphans; connector, carrier_id; receipt
            insert into orphan(connector, carrier_id, at_ms, receipt) values (op.t1, op.t2, op.n1, op.b1);
            delete from orphan where id <= currval(pg_get_serial_sequence('orphan', 'id')) - op.n2;
        end case;
        if not ok and op.kind in (1, 5, 6, 7, 11) then
            places := places || place;
        end if;
    end loop;
    if batch > 0 then
        update writer w set batch = trunkline_apply_v1.batch, failed = places, at = now()
            where w.name = trunkline_apply_v1.writer;
    end if;
    return places;
end $$
"""

_CONNECTOR, _LINE = lane_split.postgres_connector, lane_split.postgres_line


def _lanes_as(**words: str) -> str:
    """The function for one shape of `flight`."""
    text = _APPLY_FUNCTION
    for name, word in words.items():
        text = text.replace(f"@{name}@", word)
    return text


APPLY_FUNCTION = _lanes_as(lane="lane", inserted="op.t5", taken="lane = ''", left="lane = op.t2")
_NEW_APPLY_FUNCTION = _lanes_as(
    lane="connector, line",
    inserted=f"{_CONNECTOR('op.t5')}, {_LINE('op.t5')}",
    taken="connector = null, line = null",
    left=f"connector = {_CONNECTOR('op.t2')}, line = {_LINE('op.t2')}",
).replace("trunkline_apply_v1", "trunkline_apply_v3")
APPLY = "select trunkline_apply_v1(" + ", ".join(["%b"] * 15) + ")"

FENCED = "TL001"
"""SQLSTATE of what a writer that has been fenced off sends; nothing of it is kept."""


def _fenced(function: str, name: str, new_name: str) -> str:
    return function.replace(name, new_name).replace(
        f"{new_name}.writer;",
        f"""{new_name}.writer and not w.fenced;
        if not found then
            raise exception using errcode = '{FENCED}', message = 'another node owns this partition';
        end if;""",
    )


FENCED_APPLY_FUNCTION = _fenced(APPLY_FUNCTION, "trunkline_apply_v1", "trunkline_apply_v2")
_NEW_FENCED_APPLY_FUNCTION = _fenced(_NEW_APPLY_FUNCTION, "trunkline_apply_v3", "trunkline_apply_v4")
FENCED_APPLY = APPLY.replace("_v1", "_v2")
FUNCTIONS = (APPLY_FUNCTION, _NEW_APPLY_FUNCTION)
FENCED_FUNCTIONS = (FENCED_APPLY_FUNCTION, _NEW_FENCED_APPLY_FUNCTION)
APPLIES: dict[tuple[Shape, bool], bytes] = {
    ("old", False): APPLY.encode(),
    ("old", True): FENCED_APPLY.encode(),
    ("new", False): APPLY.replace("_v1", "_v3").encode(),
    ("new", True): APPLY.replace("_v1", "_v4").encode(),
}
"""By shape, and whether the writer is fenced."""

_INSERT_FLIGHT = "insert into flight(id, account, key, sid, kind, status, rev, due_ms, land_ms, record, "
INSERT_FLIGHT: dict[Shape, str] = {
    "old": f"{_INSERT_FLIGHT}lane) values(%s,%s,%s,%s,%s,%s,%s,%s,%s,%b,%s)",
    "new": f"{_INSERT_FLIGHT}connector, line) select %s,%s,%s,%s,%s,%s,%s,%s,%s,%b,"
    f" {_CONNECTOR('asked.name')}, {_LINE('asked.name')} from (select %s::text as name) asked",
}
INSERT_OWED = """
insert into owed(id, flight, sid, account, kind, host, seq, due_ms, tries, state, request, attempts)
values(%s,%s,%s,%s,%s,%s,%s,%s,%s,%s,%b,%b)
"""
INSERT_CARRIER = """
insert into carrier(connector, carrier_id, flight, account, sid) values(%s,%s,%s,%s,%s) on conflict do nothing
"""
STRIP_OWED = "update owed set request = '{}', attempts = '[]' where flight = %s and state <> 'owed'"
ERASE_FLIGHT = "delete from flight where id = %s"
DELETE_OWED_OF_FLIGHT = "delete from owed where flight = %s"

ORPHANS = """
select id, connector, carrier_id, at_ms, receipt from orphan where connector = %s and carrier_id = any(%s::text[])
order by id
"""

KEEP_PART = "insert into part(connector, key, number, at_ms, body) values(%s,%s,%s,%s,%b) on conflict do nothing"
DELETE_PARTS = "delete from part where connector = %s and key = any(%s::text[])"

REPLAY_COLUMNS = "account, method, path, key, fingerprint, state, epoch, status, headers, body, sid, expires_ms"
CLAIM_REPLAY = (
    f"insert into replay({REPLAY_COLUMNS}) values(%s,%s,%s,%s,%b,%s,%s,%s,%b,%b,%s,%s) on conflict do nothing"
)
TAKE_OVER_REPLAY = """
update replay set fingerprint = %b, state = 'running', epoch = epoch + 1, expires_ms = %s
where account = %s and method = %s and path = %s and key = %s and expires_ms <= %s
"""
FIND_REPLAY = f"select {REPLAY_COLUMNS} from replay where account = %s and method = %s and path = %s and key = %s"
RELEASE_REPLAY = """
delete from replay where account = %s and method = %s and path = %s and key = %s and epoch = %s and state = 'running'
"""
REDACT_REPLAYS = "update replay set body = '' where account = %s and sid = %s"

SWEEP_REPLAYS = """
delete from replay where (account, method, path, key) in
(select account, method, path, key from replay where expires_ms <= %s limit %s)
"""
SWEEP_CARRIER = """
delete from carrier where (connector, carrier_id) in
(select connector, carrier_id from carrier where flight < %s limit %s)
"""
SWEEP_LATE_OWED = "delete from owed where flight = 0 and state <> 'owed' and id < %s"
SWEEP_ORPHANS = "delete from orphan where id in (select id from orphan where at_ms <= %s limit %s)"

WITH_CONTENT = ("flight", "owed", "orphan", "part", "replay")
"""Tables whose dead rows show what customers wrote."""

OWED_COLUMNS = "id, flight, sid, account, kind, host, seq, due_ms, tries, request, attempts, state"


class Reads:
    """What is read, of the tables in `search_path` or, with a `schema`, in that one (a trusted name)."""

    def __init__(self, schema: str = "", per_ms: int = 1000, shape: Shape = "old") -> None:
        """`per_ms`: ids given out in a millisecond of Unix time. `shape`: of the lane."""
        p = f"{schema}." if schema else ""
        lane = "lane" if shape == "old" else lane_split.JOINED
        columns = f"id, sid, account, kind, status, rev, {lane}, due_ms, land_ms, record"
        self.flight_by_id = f"select {columns} from {p}flight where id = %s"
        self.flight_by_key = f"select {columns} from {p}flight where account = %s and key = %s"
        self.owed_of_flight = f"select {OWED_COLUMNS} from {p}owed where flight = %s order by id"
        self.owed_of_flights = f"select {OWED_COLUMNS} from {p}owed where flight = any(%s::bigint[]) order by id"
        if shape == "old":
            waiting, waits = f"{p}flight where lane = %s and lane <> ''", "lane <> '' group by lane"
        else:
            waiting = f"""(select %s::text as name) asked, {p}flight
where connector = {_CONNECTOR("asked.name")} and line = {_LINE("asked.name")}"""
            waits = "connector is not null group by connector, line"
        self.waiting = f"select {columns} from {waiting} and (due_ms, id) > (%s, %s) order by due_ms, id limit %s"
        self.lanes = f"select {lane}, count(*), min(due_ms) from {p}flight where {waits}"
        self.in_state = (
            f"select {columns} from {p}flight where status = %s and id > %s and kind = %s order by id limit %s"
        )
        self.find_carrier = f"select flight, account, sid from {p}carrier where connector = %s and carrier_id = %s"
        self.owed_of_host = f"""
select {OWED_COLUMNS} from {p}owed where host = %s and state = 'owed' and id > %s and due_ms <= %s
order by id limit %s
"""
        self.owed_hosts = f"select host, count(*), min(due_ms) from {p}owed where state = 'owed' group by host"
        self.landable = f"""
select {columns} from {p}flight f where land_ms > 0 and land_ms <= %s
and not exists (select 1 from {p}owed o where o.flight = f.id and o.state = 'owed') order by land_ms limit %s
"""
        self.page = f"select {columns} from {p}flight where account = %s and kind = %s"
        self.newest = (
            f"select greatest((select coalesce(max(id), 0) from {p}flight), (select coalesce(max(id), 0) from {p}owed))"
        )
        self.known = f"""
select c.connector, c.carrier_id from unnest(%s::text[], %s::text[]) asked(connector, carrier_id)
join {p}carrier c on c.connector = asked.connector and c.carrier_id = asked.carrier_id
"""
        self.parked = f"select connector, carrier_id from {p}orphan limit %s"
        self.parts = (
            f"select connector, key, number, at_ms, body from {p}part where connector = %s and key = %s order by number"
        )
        self.stale_parts = f"select connector, key from {p}part group by connector, key having max(at_ms) < %s limit %s"
        self.filters = _filters(f"{p}trunkline_field", per_ms)


def _filters(field: str, per_ms: int) -> dict[str, str]:
    """What `Queue.page` filters by; `field` reads one of a record."""

    def ms(name: str) -> str:
        return f"{field}(record, '{name}')::numeric"

    return {
        "to": f"{field}(record, 'to') = %s",
        "from": f"{field}(record, 'from') = %s",
        "status": "status = %s",
        "status_or_initiated": "status in (%s, 'initiated')",
        "parent": f"{field}(record, 'parent_sid') = %s",
        "started_ge_ms": f"{ms('started_ms')} >= %s",
        "started_lt_ms": f"coalesce({ms('started_ms')}, 0) between 1 and %s - 1",
        "ended_ge_ms": f"{ms('ended_ms')} >= %s",
        "ended_lt_ms": f"coalesce({ms('ended_ms')}, 0) between 1 and %s - 1",
        "sent_ge_ms": f"{ms('sent_ms')} >= %s",
        "sent_lt_ms": f"coalesce({ms('sent_ms')}, 0) between 1 and %s - 1",
        "created_ge_ms": f"id >= %s * {per_ms}",
        "created_lt_ms": f"id < %s * {per_ms}",
    }
