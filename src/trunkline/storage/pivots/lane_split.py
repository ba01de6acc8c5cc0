# ruff: noqa: S608  (statements are made of constants)
"""Pivot 1: `flight.lane` becomes `flight.connector` and `flight.line`.

A lane's name is `connector|account|sender`, or empty when the flight waits for nothing. The new shape keeps the
connector apart, so that what waits for one carrier is found by an index; `line` is the rest with its bar, so that the
two joined are the name, whatever it holds. Both are null when the flight waits for nothing.

    lane                            connector   line
    ''                              null        null
    carrier|AC1|+12125550100        carrier     |AC1|+12125550100
    l                               l           (empty)
"""

from trunkline.storage.pivots.model import Pivot, Side, Words

NAME = "lane_split"

JOINED = "coalesce(connector || line, '')"
"""The lane's name, of the new columns."""


def sqlite_connector(lane: str) -> str:
    """The connector in a lane's name (an SQL expression), null of an empty one."""
    return f"case when {lane} <> '' then substr({lane}, 1, instr({lane} || '|', '|') - 1) end"


def sqlite_line(lane: str) -> str:
    """The rest of it."""
    return f"case when {lane} <> '' then substr({lane}, instr({lane} || '|', '|')) end"


def postgres_connector(lane: str) -> str:
    """The same for PostgreSQL."""
    return f"case when {lane} <> '' then split_part({lane}, '|', 1) end"


def postgres_line(lane: str) -> str:
    """The same for PostgreSQL."""
    return f"case when {lane} <> '' then substr({lane}, length(split_part({lane}, '|', 1)) + 1) end"


OLD_INDEX = "create index if not exists flight_lane on flight(lane, due_ms, id) where lane <> ''"
NEW_INDEX = "create index if not exists flight_line on flight(connector, line, due_ms, id) where connector is not null"

_SQLITE_NEW = f"connector = {sqlite_connector('lane')}, line = {sqlite_line('lane')}"
_SQLITE_OF_NEW_ROW = "coalesce(new.connector || new.line, '')"
_SQLITE = Words(
    old=Side(
        add=("alter table flight add column lane text not null default ''",),
        index=(OLD_INDEX,),
        fill=f"lane = {JOINED}",
        drop=("drop index if exists flight_lane", "alter table flight drop column lane"),
    ),
    new=Side(
        add=("alter table flight add column connector text", "alter table flight add column line text"),
        index=(NEW_INDEX,),
        fill=_SQLITE_NEW,
        drop=(
            "drop index if exists flight_line",
            "alter table flight drop column connector",
            "alter table flight drop column line",
        ),
    ),
    sync=(
        f"""create trigger if not exists lane_split_old_row after insert on flight
when new.lane <> '' and new.connector is null
begin update flight set {_SQLITE_NEW} where id = new.id; end""",
        f"""create trigger if not exists lane_split_new_row after insert on flight
when new.connector is not null and new.lane <> {_SQLITE_OF_NEW_ROW}
begin update flight set lane = {JOINED} where id = new.id; end""",
        f"""create trigger if not exists lane_split_old_write after update of lane on flight
when new.lane <> old.lane and new.lane <> {_SQLITE_OF_NEW_ROW}
begin update flight set {_SQLITE_NEW} where id = new.id; end""",
        f"""create trigger if not exists lane_split_new_write after update of connector, line on flight
when (new.connector is not old.connector or new.line is not old.line) and new.lane <> {_SQLITE_OF_NEW_ROW}
begin update flight set lane = {JOINED} where id = new.id; end""",
    ),
    unsync=tuple(
        f"drop trigger if exists lane_split_{which}" for which in ("old_row", "new_row", "old_write", "new_write")
    ),
    differs=f"lane is not {JOINED}",
)

_CREATE_CONCURRENTLY = ("create index if not exists", "create index concurrently if not exists")
_POSTGRES = Words(
    old=Side(
        add=("""alter table flight add column if not exists lane text collate "C" not null default ''""",),
        index=(OLD_INDEX.replace(*_CREATE_CONCURRENTLY),),
        fill=f"lane = {JOINED}",
        drop=("alter table flight drop column if exists lane",),
    ),
    new=Side(
        add=(
            """alter table flight add column if not exists connector text collate "C",
add column if not exists line text collate "C", alter column lane set default ''""",
        ),
        index=(NEW_INDEX.replace(*_CREATE_CONCURRENTLY),),
        fill=f"connector = {postgres_connector('lane')}, line = {postgres_line('lane')}",
        drop=("alter table flight drop column if exists connector, drop column if exists line",),
    ),
    sync=(
        f"""create or replace function trunkline_lane_split() returns trigger language plpgsql as $$
-- Whichever shape a statement writes, the other follows.
begin
    if tg_op = 'INSERT' then
        if new.lane <> '' then
            new.connector := {postgres_connector("new.lane")};
            new.line := {postgres_line("new.lane")};
        else
            new.lane := coalesce(new.connector || new.line, '');
        end if;
    elsif new.lane <> old.lane then
        new.connector := {postgres_connector("new.lane")};
        new.line := {postgres_line("new.lane")};
    elsif new.connector is distinct from old.connector or new.line is distinct from old.line then
        new.lane := coalesce(new.connector || new.line, '');
    end if;
    return new;
end $$""",
        """do $$ begin
    if not exists (select from pg_trigger where tgname = 'lane_split' and tgrelid = 'flight'::regclass) then
        create trigger lane_split before insert or update of lane, connector, line on flight
            for each row execute function trunkline_lane_split();
    end if;
end $$""",
    ),
    unsync=("drop trigger if exists lane_split on flight", "drop function if exists trunkline_lane_split()"),
    differs=f"lane is distinct from {JOINED}",
)

PIVOT = Pivot(
    number=1,
    name=NAME,
    table="flight",
    what="flight.lane is split into connector and line, so that what waits for one carrier is found by an index",
    sqlite=_SQLITE,
    postgres=_POSTGRES,
)
