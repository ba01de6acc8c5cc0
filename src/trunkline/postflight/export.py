"""Export of the archive into files of a folder: Parquet, CSV or JSON lines (runs in the worker or a command)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from trunkline.postflight.analysis import DEFAULT_BOUNDS, Bounds, opened
from trunkline.postflight.files import Files
from trunkline.storage.manifest import RecentReader

FORMATS = ("parquet", "csv", "jsonl")
BATCH_ROWS = 2048
"""Documents written at once."""

ROWS = """
select account, sid, kind, rev, make_timestamp(created_ms * 1000) as created_at,
  case when sent_ms > 0 then make_timestamp(sent_ms * 1000) end as sent_at, direction, "from", "to", status, error_code,
  num_segments, num_media, price, price_unit, country, connector, messaging_service_sid, doc
from archive_rows where created_ms >= {start} and created_ms < {end}{accounts}
"""


class Exported(msgspec.Struct):
    """What an export wrote."""

    path: str
    rows: int


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def export(
    where: Files | Path,
    reader: RecentReader,
    target: Path,
    format: str,  # noqa: A002 (the word of the command line)
    accounts: Sequence[str] = (),
    start_ms: int = 0,
    end_ms: int = 1 << 62,
    bounds: Bounds = DEFAULT_BOUNDS,
) -> Exported:
    """Write the readable documents created in the span, in no promised order, to `target`/documents.FORMAT.

    The file appears whole or not at all; an earlier one is replaced. Raises ValueError for an unknown format.
    """
    if format not in FORMATS:
        raise ValueError(f"format is one of {', '.join(FORMATS)}")
    target.mkdir(parents=True, exist_ok=True)
    path, part = target / f"documents.{format}", target / f"documents.{format}.part"
    condition = ""
    if accounts:
        condition = f" and account in ({', '.join(_quoted(account) for account in accounts)})"
    sql = ROWS.format(start=int(start_ms), end=int(end_ms), accounts=condition)
    with opened(where, reader, accounts=accounts, span=(start_ms, end_ms), sealed=False, bounds=bounds) as con:
        if format == "jsonl":
            rows = _write_lines(con, sql, part)
        else:
            options = "format parquet, compression zstd" if format == "parquet" else "format csv, header true"
            rows = int(con.execute(f"copy ({sql}) to {_quoted(str(part))} ({options})").fetchall()[0][0])
    os.replace(part, path)
    return Exported(path=str(path), rows=rows)


def _write_lines(con: Any, sql: str, part: Path) -> int:
    """One document per line."""
    rows = 0
    with open(part, "wb") as file:
        cursor = con.execute(f"select doc from ({sql})")  # noqa: S608 (SQL of our own)
        while batch := cursor.fetchmany(BATCH_ROWS):
            file.write(b"".join(doc.encode() + b"\n" for (doc,) in batch))
            rows += len(batch)
        file.flush()
        os.fsync(file.fileno())
    return rows
