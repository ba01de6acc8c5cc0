"""All SQL of the SQLite `Queue` engine, named.

`flight` rows are found by integer id on the hot path (one b-tree), by (account, key) for the API, by lane for
dispatch. The partial indexes hold only what waits, so that they stay small whatever has piled up.
"""

SCHEMA = """
create table if not exists flight(
    id integer primary key, account text not null, key text not null, sid text not null, kind text not null,
    status text not null, rev integer not null, lane text not null, due_ms integer not null,
    land_ms integer not null, record blob not null);
create unique index if not exists flight_account_key on flight(account, key);
create index if not exists flight_lane on flight(lane, due_ms, id) where lane <> '';
create index if not exists flight_land on flight(land_ms) where land_ms > 0;

create table if not exists owed(
    id integer primary key, flight integer not null, sid text not null, account text not null, kind text not null,
    host text not null, seq integer not null, due_ms integer not null, tries integer not null, state text not null,
    request blob not null, attempts blob not null);
create index if not exists owed_flight on owed(flight);
create index if not exists owed_host on owed(host, id) where state = 'owed';

create table if not exists carrier(
    connector text not null, carrier_id text not null, flight integer not null, account text not null,
    sid text not null, primary key (connector, carrier_id)) without rowid;

create table if not exists orphan(
    id integer primary key, connector text not null, carrier_id text not null, at_ms integer not null,
    receipt blob not null);
create index if not exists orphan_carrier on orphan(connector, carrier_id);

create table if not exists part(
    connector text not null, key text not null, number integer not null, at_ms integer not null, body blob not null,
    primary key (connector, key, number)) without rowid;
create index if not exists part_at on part(at_ms);

create table if not exists replay(
    account text not null, method text not null, path text not null, key text not null, fingerprint blob not null,
    state text not null, epoch integer not null, status integer not null, headers blob not null, body blob not null,
    sid text not null, expires_ms integer not null, primary key (account, method, path, key)) without rowid;
create index if not exists replay_expires on replay(expires_ms);
"""

FLIGHT_COLUMNS = "id, sid, account, kind, status, rev, lane, due_ms, land_ms, record"
OWED_COLUMNS = "id, flight, sid, account, kind, host, seq, due_ms, tries, request, attempts, state"

INSERT_FLIGHT = "insert into flight values(?,?,?,?,?,?,?,?,?,?,?)"
INSERT_OWED = "insert into owed values(?,?,?,?,?,?,?,?,?,?,?,?)"
INSERT_CARRIER = "insert or replace into carrier values(?,?,?,?,?)"
CLAIM = "update flight set status = 'sending', lane = '', rev = rev + 1 where id = ? and rev = ? returning id"
ADVANCE = """
update flight set status = ?, lane = ?, due_ms = ?, land_ms = ?, rev = rev + 1, record = ? where id = ? and rev = ?
"""
ADVANCE_KEEPING_RECORD = (
    "update flight set status = ?, lane = ?, due_ms = ?, land_ms = ?, rev = rev + 1 where id = ? and rev = ?"
)
SETTLE = "update owed set state = ?, tries = ?, attempts = ?, due_ms = ?, request = ? where id = ?"
FORGET_OWED = "delete from owed where id = ?"

FLIGHT_BY_ID = f"select {FLIGHT_COLUMNS} from flight where id = ?"
FLIGHT_BY_KEY = f"select {FLIGHT_COLUMNS} from flight where account = ? and key = ?"
OWED_OF_FLIGHT = f"select {OWED_COLUMNS} from owed where flight = ? order by id"
WAITING = f"select {FLIGHT_COLUMNS} from flight where lane = ? and (due_ms, id) > (?, ?) order by due_ms, id limit ?"
LANES = "select lane, count(*), min(due_ms) from flight where lane <> '' group by lane"
IN_STATE = f"select {FLIGHT_COLUMNS} from flight where status = ? and id > ? and kind = ? order by id limit ?"
FIND_CARRIER = "select flight, account, sid from carrier where connector = ? and carrier_id = ?"
OWED_OF_HOST = (
    f"select {OWED_COLUMNS} from owed where host = ? and state = 'owed' and id > ? and due_ms <= ? order by id limit ?"
)
OWED_HOSTS = "select host, count(*), min(due_ms) from owed where state = 'owed' group by host"
LANDABLE = f"""
select {FLIGHT_COLUMNS} from flight f where land_ms > 0 and land_ms <= ?
and not exists (select 1 from owed o where o.flight = f.id and o.state = 'owed') order by land_ms limit ?
"""
DELETE_FLIGHT = "delete from flight where id = ? and rev = ?"
STRIP_OWED = "update owed set request = '{}', attempts = '[]' where flight = ? and state <> 'owed'"
ERASE_FLIGHT = "delete from flight where id = ?"
DELETE_OWED_OF_FLIGHT = "delete from owed where flight = ?"
PAGE = f"select {FLIGHT_COLUMNS} from flight where account = ? and kind = ?"

INSERT_ORPHAN = "insert into orphan(connector, carrier_id, at_ms, receipt) values(?,?,?,?)"
ORPHANS = (
    "select id, connector, carrier_id, at_ms, receipt from orphan where connector = ? and carrier_id = ? order by id"
)
DROP_ORPHAN = "delete from orphan where id = ?"
PARKED = "select connector, carrier_id from orphan limit ?"
TRIM_ORPHANS = "delete from orphan where id <= ?"

KEEP_PART = "insert or ignore into part values(?,?,?,?,?)"
PARTS = "select connector, key, number, at_ms, body from part where connector = ? and key = ? order by number"
DELETE_PARTS = "delete from part where connector = ? and key = ?"
STALE_PARTS = "select connector, key from part group by connector, key having max(at_ms) < ? limit ?"

REPLAY_COLUMNS = "account, method, path, key, fingerprint, state, epoch, status, headers, body, sid, expires_ms"
CLAIM_REPLAY = "insert or ignore into replay values(?,?,?,?,?,?,?,?,?,?,?,?)"
TAKE_OVER_REPLAY = """
update replay set fingerprint = ?, state = 'running', epoch = epoch + 1, expires_ms = ?
where account = ? and method = ? and path = ? and key = ? and expires_ms <= ?
"""
FIND_REPLAY = f"select {REPLAY_COLUMNS} from replay where account = ? and method = ? and path = ? and key = ?"
COMPLETE_REPLAY = """
update replay set state = 'done', status = ?, headers = ?, body = ?, sid = ?, expires_ms = ?
where account = ? and method = ? and path = ? and key = ? and epoch = ?
"""
RELEASE_REPLAY = """
delete from replay where account = ? and method = ? and path = ? and key = ? and epoch = ? and state = 'running'
"""

SWEEP_REPLAYS = """
delete from replay where (account, method, path, key) in
(select account, method, path, key from replay where expires_ms <= ? limit ?)
"""
SWEEP_CARRIER = """
delete from carrier where (connector, carrier_id) in
(select connector, carrier_id from carrier where flight < ? limit ?)
"""
SWEEP_LATE_OWED = "delete from owed where flight = 0 and state <> 'owed' and id < ?"
"""Settled callbacks without a flight that a crash kept from being archived."""
SWEEP_ORPHANS = "delete from orphan where id in (select id from orphan where at_ms <= ? limit ?)"
REDACT_REPLAYS = "update replay set body = ? where account = ? and sid = ?"
