"""Sums and SQL over the whole archive with DuckDB (runs in the worker process, or in a command on the data folder).

Theory: one SQLite snapshot gives the manifest, the floors and the recent rows. What may not be read of the segments is
one small table, `hide` (account, key, rev: rows below that revision), made of the floors and of the recent rows that
a segment may hold too; an anti-join against it leaves each document once, in its newest readable revision.

An operator's SQL runs on a connection that may open the segments and nothing else, and takes no setting. Its parse
tree is looked through beforehand: one SELECT, tables by plain names, and no table function that opens files; so it can
neither read or write files, nor look behind the floors. (Handing it the segments as Arrow data sets would need no such
look, but took 2.8 GB where this takes 0.2.)
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

from trunkline.postflight.files import Files, files_of
from trunkline.postflight.names import SPILL
from trunkline.postflight.segments import COLUMNS, SCHEMA, entry_of, table_of
from trunkline.storage.archive import USAGE_TALLY
from trunkline.storage.manifest import RecentReader, Segment, holds_account

THREADS = 2
RECENT_BATCH = 10_000
"""Recent rows handed over at once."""
MAX_ACCOUNTS_PRUNED = 100
"""Up to so many accounts, segments without any of them are passed over."""
RETRIES = 3
"""Fresh snapshots tried when files vanish under a compaction."""
UNBILLED = ("failed", "canceled")
"""Statuses of messages that do not count as usage; of calls only those that were answered do."""
COUNTED = ["message", "call", USAGE_TALLY]
"""Kinds of documents that are summed."""
_FORMATS = {"day": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y"}
TABLE_FUNCTIONS = frozenset({"unnest", "range", "generate_series", "json_each", "json_tree", "json_array_elements"})
"""Table functions that an operator's SQL may use: none of them opens a file."""
INTERNAL = frozenset({"hide", "no_segments"})
"""Our own tables that are nobody's business."""
PERIODS = {name: f"strftime(make_timestamp(at_ms * 1000), '{text}')" for name, text in _FORMATS.items()} | {"all": "''"}

OWN = """case when direction = 'inbound' then "to" else "from" end"""
PEER = """case when direction = 'inbound' then "from" else "to" end"""
SENDER = f"""case
  when sid like 'CA%' then case when {PEER} like 'sip:%' then 'sip' when {PEER} like 'client:%' then 'client'
    when regexp_matches({OWN}, '^[+]1(800|833|844|855|866|877|888)') then 'tollfree' else 'local' end
  when length({OWN}) > 8 then 'longcode' when regexp_full_match({OWN}, '[0-9]{{3,8}}') then 'shortcode'
  else 'longcode' end"""
"""What the account's side of a message is, and of a call the way it came or went."""

HIDE = pa.schema([("account", pa.string()), ("key", pa.string()), ("rev", pa.int64())])

MESSAGES = """
create view messages as select sid, account as account_sid, rev, status, direction, "from", "to",
  make_timestamp(created_ms * 1000) as created_at,
  case when sent_ms > 0 then make_timestamp(sent_ms * 1000) end as sent_at,
  error_code, num_segments, num_media, price, price_unit, country, connector, messaging_service_sid,
  coalesce(doc::json ->> '$.body', '') as body, doc
from archive_rows where kind = 'message'
"""
CALLS = """
create view calls as
with parts as (select *, doc::json as j from archive_rows where kind = 'call'),
  times as (
    select *, (j ->> '$.answered_ms')::bigint as answered_ms, (j ->> '$.ended_ms')::bigint as ended_ms from parts)
select sid, account as account_sid, rev, status, direction, "from", "to",
  make_timestamp(created_ms * 1000) as created_at, make_timestamp(answered_ms * 1000) as answered_at,
  make_timestamp(ended_ms * 1000) as ended_at,
  coalesce(ceil((ended_ms - answered_ms) / 1000.0)::bigint, 0) as duration, num_segments as minutes,
  price, price_unit, country, coalesce(j ->> '$.trunk', '') as trunk,
  (j ->> '$.sip_response_code')::int as sip_response_code, j ->> '$.hangup_cause' as hangup_cause,
  (j ->> '$.quality.mos')::double as mos, doc
from times
"""
DOCUMENTS = """
create view documents as select sid, account as account_sid, kind, rev,
  make_timestamp(created_ms * 1000) as created_at, doc::json as doc from archive_rows
"""
USAGE = """
select account, {period} as period, direction, country, price_unit,
  case when sid like 'CA%' then 'call' when num_media > 0 or sid like 'MM%' then 'mms' else 'sms' end as channel,
  {sender} as sender, count(*) as count, sum(num_segments) as segments, sum(num_media) as media,
  coalesce(sum(price), 0) as price
from (select *, case when sent_ms > 0 then sent_ms else created_ms end as at_ms from archive_rows)
where kind in $counted and at_ms >= $start and at_ms < $end and status not in $unbilled{accounts}
  and ((kind <> 'call' and sid not like 'CA%') or num_segments > 0)
group by all order by all
"""


class QueryError(ValueError):
    """The operator's SQL cannot be run; the text says why."""


class QueryResult(msgspec.Struct):
    """The answer to an operator's SQL."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    truncated: bool
    """There were more rows than allowed."""


class Bounds(msgspec.Struct, frozen=True):
    """What an analysis may use."""

    memory_bytes: int = 1 << 30
    """DuckDB's memory; more spills to disk."""
    query_rows: int = 100_000
    """Rows that a query may return; `export` is for more."""


DEFAULT_BOUNDS = Bounds()


def _scratch(folder: Path, bounds: Bounds) -> "duckdb.DuckDBPyConnection":
    """An in-memory database that spills beside the segments."""
    return duckdb.connect(
        ":memory:",
        config={
            "memory_limit": f"{bounds.memory_bytes // 1024}KiB",
            "threads": THREADS,
            "temp_directory": str(folder / f"{SPILL}{os.getpid()}"),
            "python_enable_replacements": False,
        },
    )


def _add_recent(
    con: "duckdb.DuckDBPyConnection", reader: RecentReader, accounts: Sequence[str]
) -> Iterator[tuple[str, str, int]]:
    """Copy the recent rows into the table `recent`; yields (account, key, rev + 1) of those a segment may hold too."""
    con.register("batch", SCHEMA.empty_table())
    con.execute("create table recent as from batch")
    watermark = reader.watermark()
    rows = reader.rows("", "g", accounts)
    while batch := [entry_of(row) for row in islice(rows, RECENT_BATCH)]:
        con.unregister("batch")
        con.register("batch", table_of(batch))
        con.execute("insert into recent from batch")
        yield from ((account, key, rev + 1) for account, key, _, _, rev, *_ in batch if key <= watermark)
    con.unregister("batch")


def _hide(con: "duckdb.DuckDBPyConnection", pairs: Iterable[tuple[str, str, int]]) -> int:
    rows = list(pairs)
    columns: list[Any] = list(zip(*rows, strict=True)) or [(), (), ()]
    con.register("hide_rows", pa.table([pa.array(c, f.type) for c, f in zip(columns, HIDE, strict=True)], HIDE))
    con.execute("create table hide as select account, key, max(rev) as rev from hide_rows group by all")
    con.unregister("hide_rows")
    return len(rows)


def _open_segments(con: "duckdb.DuckDBPyConnection", paths: Sequence[Path]) -> str:
    """SQL that names the segments' rows."""
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(path)
    if paths:
        return f"read_parquet([{', '.join(_quoted(path) for path in paths)}])"
    con.register("no_segments", SCHEMA.empty_table())
    return "no_segments"


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _seal(con: "duckdb.DuckDBPyConnection", paths: Sequence[Path]) -> None:
    """From here on the connection opens no file but these, and no setting can be changed."""
    con.execute(f"set allowed_paths = [{', '.join(_quoted(path) for path in paths)}]")
    con.execute("set enable_external_access = false")
    con.execute("set lock_configuration = true")


def check_select(con: "duckdb.DuckDBPyConnection", sql: str) -> None:
    """Raises QueryError unless it is one SELECT over plain table names and harmless table functions."""
    (text,) = con.execute("select json_serialize_sql(?)", [sql]).fetchall()[0]
    tree = msgspec.json.decode(text)
    if tree["error"] or len(tree["statements"]) != 1:
        raise QueryError(f"give one SELECT statement ({tree.get('error_message', 'there is not one')})")
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, dict):
            waiting.extend(node.values())
            name = str(node.get("table_name", ""))
            if node.get("type") == "BASE_TABLE" and (not name.isidentifier() or name.lower() in INTERNAL):
                raise QueryError(f"{name}: the tables are `messages`, `calls` and `documents`")
            function = str(node["function"]["function_name"]) if node.get("type") == "TABLE_FUNCTION" else ""
            if function and function.lower() not in TABLE_FUNCTIONS:
                raise QueryError(f"the table function {function} cannot be used here")


@contextmanager
def opened(
    where: Files | Path,
    reader: RecentReader,
    *,
    accounts: Sequence[str] = (),
    span: tuple[int, int] | None = None,
    sealed: bool,
    bounds: Bounds = DEFAULT_BOUNDS,
) -> Iterator["duckdb.DuckDBPyConnection"]:
    """A database with the view `archive_rows` (COLUMNS of every readable document).

    `accounts` and `span` (Unix ms, start and end) only save work: rows outside may still be there. `sealed`: for an
    operator's SQL, with the views `messages`, `calls` and `documents`.
    """
    files = files_of(where)
    con = _scratch(files.folder, bounds)
    with ExitStack() as stack:
        stack.callback(con.close)
        reader.begin()
        try:
            segments = [s for s in reader.segments() if _relevant(s, accounts, span)]
            hidden = [(floor.account, floor.key, floor.rev) for floor in reader.all_floors()]
            hidden.extend(_add_recent(con, reader, accounts))
        finally:
            reader.end()
        paths = [path.resolve() for path in stack.enter_context(files.held(segments))]
        source = _open_segments(con, paths)
        names = ", ".join(f'"{name}"' for name in COLUMNS)
        unseen = ""
        if _hide(con, hidden):
            unseen = " s anti join hide h on s.account = h.account and s.key = h.key and s.rev < h.rev"
        segments_sql = f"select {names} from {source}{unseen}"  # noqa: S608 (names and paths of our own)
        con.execute(f"create view archive_rows as {segments_sql} union all select {names} from recent")  # noqa: S608
        if sealed:
            con.execute(MESSAGES)
            con.execute(CALLS)
            con.execute(DOCUMENTS)
            _seal(con, paths)
        yield con


def _relevant(segment: Segment, accounts: Sequence[str], span: tuple[int, int] | None) -> bool:
    if span is not None and segment.min_created_ms:
        latest = max(segment.max_created_ms, segment.max_sent_ms)
        if segment.min_created_ms >= span[1] or latest < span[0]:
            return False
    if not accounts or len(accounts) > MAX_ACCOUNTS_PRUNED:
        return True
    return any(holds_account(segment.accounts, account) for account in accounts)


def _retry(call: Any) -> Any:
    """Files may be replaced by a compaction between the snapshot and their opening."""
    for _ in range(RETRIES - 1):
        try:
            return call()
        except (FileNotFoundError, duckdb.IOException):
            continue
    return call()


def usage(
    where: Files | Path,
    reader: RecentReader,
    accounts: Sequence[str],
    start_ms: int,
    end_ms: int,
    granularity: str,
    bounds: Bounds = DEFAULT_BOUNDS,
) -> list[dict[str, Any]]:
    """See `Archive.usage`; times are when a message was sent (else created), periods in UTC.

    Raises ValueError for an unknown granularity.
    """
    if granularity not in PERIODS:
        raise ValueError(f"granularity is one of {', '.join(PERIODS)}")
    values: dict[str, Any] = {"start": start_ms, "end": end_ms, "unbilled": list(UNBILLED), "counted": COUNTED}
    condition = ""
    if accounts:
        values["accounts"] = list(accounts)
        condition = " and account in $accounts"

    def run() -> list[dict[str, Any]]:
        with opened(where, reader, accounts=accounts, span=(start_ms, end_ms), sealed=False, bounds=bounds) as con:
            cursor = con.execute(USAGE.format(accounts=condition, period=PERIODS[granularity], sender=SENDER), values)
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        for row in rows:
            row["price"] = format(row["price"].normalize(), "f")
            row["segments"], row["media"] = int(row["segments"] or 0), int(row["media"] or 0)
        return rows

    result: list[dict[str, Any]] = _retry(run)
    return result


def query(where: Files | Path, reader: RecentReader, sql: str, bounds: Bounds = DEFAULT_BOUNDS) -> QueryResult:
    """Run one SELECT over the views `messages`, `calls` and `documents`. Raises QueryError."""

    def run() -> QueryResult:
        with opened(where, reader, sealed=True, bounds=bounds) as con:
            check_select(con, sql)
            cursor = con.execute(sql)
            columns = [column[0] for column in cursor.description]
            rows = cursor.fetchmany(bounds.query_rows + 1)
        return QueryResult(columns, rows[: bounds.query_rows], len(rows) > bounds.query_rows)

    try:
        result: QueryResult = _retry(run)
        return result
    except duckdb.Error as error:
        raise QueryError(str(error)) from error
