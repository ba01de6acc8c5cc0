"""All SQL of the SQLite `Queue` engine, named.

What names a lane comes in the shapes of `pivots.lane_split` (`FlightSql`); bindings are the same in all of them.

`flight` rows are found by integer id on the hot path (one b-tree), by (account, key) for the API, by lane for
dispatch. The partial indexes hold only what waits, so that they stay small whatever has piled up.
"""

from trunkline.storage.pivots import lane_split
from trunkline.storage.pivots.model import Shape

SCHEMA = """
create table if not exists flight(
    id integer primary key, account text not null, key text not null, sid text not null, kind text not null,
    status text not null, rev integer not null, lane text not null, due_ms integer not null,
    land_ms integer not null, record blob not null);
create unique index if not exists flight_account_key on flight(account, key);
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

create table if not exists pivot(
    name text primary key, shape text not null, phase text not null, cursor integer not null, done integer not null,
    total integer not null, started_ms integer not null, changed_ms integer not null) without rowid;
"""
"""Without the index of lanes, which is of the shape that the file has."""

OWED_COLUMNS = "id, flight, sid, account, kind, host, seq, due_ms, tries, request, attempts, state"

INSERT_OWED = """
insert into owed(id, flight, sid, account, kind, host, seq, due_ms, tries, state, request, attempts)
values(?,?,?,?,?,?,?,?,?,?,?,?)
"""
INSERT_CARRIER = "insert or replace into carrier(connector, carrier_id, flight, account, sid) values(?,?,?,?,?)"
SETTLE = "update owed set state = ?, tries = ?, attempts = ?, due_ms = ?, request = ? where id = ?"
FORGET_OWED = "delete from owed where id = ?"

OWED_OF_FLIGHT = f"select {OWED_COLUMNS} from owed where flight = ? order by id"
FIND_CARRIER = "select flight, account, sid from carrier where connector = ? and carrier_id = ?"
OWED_OF_HOST = (
    f"select {OWED_COLUMNS} from owed where host = ? and state = 'owed' and id > ? and due_ms <= ? order by id limit ?"
)
OWED_HOSTS = "select host, count(*), min(due_ms) from owed where state = 'owed' group by host"
DELETE_FLIGHT = "delete from flight where id = ? and rev = ?"
STRIP_OWED = "update owed set request = '{}', attempts = '[]' where flight = ? and state <> 'owed'"
ERASE_FLIGHT = "delete from flight where id = ?"
DELETE_OWED_OF_FLIGHT = "delete from owed where flight = ?"

INSERT_ORPHAN = "insert into orphan(connector, carrier_id, at_ms, receipt) values(?,?,?,?)"
ORPHANS = (
    "select id, connector, carrier_id, at_ms, receipt from orphan where connector = ? and carrier_id = ? order by id"
)
DROP_ORPHAN = "delete from orphan where id = ?"
PARKED = "select connector, carrier_id from orphan limit ?"
KNOWN = """
select c.connector, c.carrier_id from json_each(?) asked
cross join carrier c on c.connector = asked.value ->> 0 and c.carrier_id = asked.value ->> 1
"""
"""Of the pairs in a JSON array, each looked up by the primary key."""
TRIM_ORPHANS = "delete from orphan where id <= ?"

KEEP_PART = "insert or ignore into part(connector, key, number, at_ms, body) values(?,?,?,?,?)"
PARTS = "select connector, key, number, at_ms, body from part where connector = ? and key = ? order by number"
DELETE_PARTS = "delete from part where connector = ? and key = ?"
STALE_PARTS = "select connector, key from part group by connector, key having max(at_ms) < ? limit ?"

REPLAY_COLUMNS = "account, method, path, key, fingerprint, state, epoch, status, headers, body, sid, expires_ms"
CLAIM_REPLAY = f"insert or ignore into replay({REPLAY_COLUMNS}) values(?,?,?,?,?,?,?,?,?,?,?,?)"
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


class FlightSql:
    """The statements that name a lane, for one shape of `flight`."""

    def __init__(self, lane: str, insert: str, take: str, leave: str, waiting: str, lanes: str) -> None:
        """`lane`: how it is read; `insert`: columns and values; `take`, `leave`: assignments of no lane, and of the
        lane bound to ?2; the rest: how what waits is found."""
        columns = f"id, sid, account, kind, status, rev, {lane}, due_ms, land_ms, record"
        self.insert_flight = f"insert into flight{insert}"
        self.claim = (
            f"update flight set status = 'sending', {take}, rev = rev + 1 where id = ? and rev = ? returning id"
        )
        self.advance = (
            f"update flight set status = ?1, {leave}, due_ms = ?3, land_ms = ?4, rev = rev + 1, record = ?5"
            " where id = ?6 and rev = ?7"
        )
        self.advance_keeping_record = (
            f"update flight set status = ?1, {leave}, due_ms = ?3, land_ms = ?4, rev = rev + 1"
            " where id = ?5 and rev = ?6"
        )
        self.flight_by_id = f"select {columns} from flight where id = ?"
        self.flight_by_key = f"select {columns} from flight where account = ? and key = ?"
        self.waiting = (
            f"select {columns} from flight where {waiting} and (due_ms, id) > (?2, ?3) order by due_ms, id limit ?4"
        )
        self.lanes = f"select {lane}, count(*), min(due_ms) from flight where {lanes}"
        self.in_state = f"select {columns} from flight where status = ? and id > ? and kind = ? order by id limit ?"
        self.landable = f"""
select {columns} from flight f where land_ms > 0 and land_ms <= ?
and not exists (select 1 from owed o where o.flight = f.id and o.state = 'owed') order by land_ms limit ?
"""
        self.page = f"select {columns} from flight where account = ? and kind = ?"


_BEFORE_LANE = "id, account, key, sid, kind, status, rev"
_OLD_COLUMNS = f"({_BEFORE_LANE}, lane, due_ms, land_ms, record)"
_OLD_VALUES = "values(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)"
_CONNECTOR, _LINE = lane_split.sqlite_connector, lane_split.sqlite_line
_NEW = {
    "lane": lane_split.JOINED,
    "take": "connector = null, line = null",
    "leave": f"connector = {_CONNECTOR('?2')}, line = {_LINE('?2')}",
    "waiting": f"connector = {_CONNECTOR('?1')} and line = {_LINE('?1')}",
    "lanes": "connector is not null group by connector, line",
}
SHAPES: dict[tuple[Shape, bool], FlightSql] = dict.fromkeys(
    (("old", False), ("old", True)),
    FlightSql(
        lane="lane",
        insert=f"{_OLD_COLUMNS} {_OLD_VALUES}",
        take="lane = ''",
        leave="lane = ?2",
        waiting="lane = ?1",
        lanes="lane <> '' group by lane",
    ),
)
"""By the shape that is used, and whether the table has both."""
SHAPES["new", False] = FlightSql(
    insert=f"({_BEFORE_LANE}, due_ms, land_ms, record, connector, line)"
    f" values(?1,?2,?3,?4,?5,?6,?7,?9,?10,?11,{_CONNECTOR('?8')},{_LINE('?8')})",
    **_NEW,
)
SHAPES["new", True] = FlightSql(
    insert=f"({_BEFORE_LANE}, lane, due_ms, land_ms, record, connector, line)"
    f" values(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,{_CONNECTOR('?8')},{_LINE('?8')})",
    **_NEW,
)
"""The old column of a file that was made with it has no default, so a row is inserted with both."""
INDEX_OF_OLD = lane_split.OLD_INDEX
PIVOT_COLUMNS = "shape, phase, cursor, done, total, started_ms, changed_ms"
PIVOT = f"select {PIVOT_COLUMNS} from pivot where name = ?"
