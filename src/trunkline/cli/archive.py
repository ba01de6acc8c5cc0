"""`trunkline archive`: ask, export, compact and measure the landed messages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from trunkline.cli.common import CommandError, bootstrap, run, settings_of, show_fields, show_table
from trunkline.postflight.worker_client import WorkerFailed
from trunkline.settings import Settings
from trunkline.storage.manifest import ArchiveBusy

app = typer.Typer(help="The archive of landed messages.", no_args_is_help=True, rich_markup_mode=None)

FORMATS = ("parquet", "csv", "jsonl")
END_MS = 1 << 62
"""No end."""
STATS = """
select coalesce(strftime(created_at, '%Y-%m'), '') as month, direction, status, count(*) as messages,
  sum(num_segments) as segments, count(distinct account_sid) as accounts
from messages group by all order by all
"""


@asynccontextmanager
async def _archive(settings: Settings) -> AsyncIterator[Any]:
    """The archive, beside a running server or without one. Raises CommandError."""
    if not settings.data_path.is_dir():
        raise CommandError(f"there is no data in {settings.data_path}: name its folder with --data")
    archive = bootstrap().open_archive(settings)
    try:
        yield archive
    except ArchiveBusy:
        raise CommandError("the server is rolling up or compacting the archive: try again in a while") from None
    except WorkerFailed as error:
        raise CommandError(str(error)) from None
    finally:
        await archive.close()


@app.command()
def query(
    context: typer.Context,
    sql: Annotated[str, typer.Argument(help="One SELECT over the views `messages`, `calls` and `documents`.")],
) -> None:
    """Run one SELECT over everything landed (DuckDB's SQL).

    Example: trunkline archive query "SELECT status, count(*) FROM messages GROUP BY status"
    """
    settings = settings_of(context)

    async def work() -> tuple[list[str], list[list[Any]]]:
        async with _archive(settings) as archive:
            columns, rows = await archive.query(sql)
            return columns, rows

    columns, rows = run(work())
    show_table(columns, rows)
    if len(rows) >= settings.archive.query_rows:
        typer.echo(f"there may be more: archive.query_rows is {settings.archive.query_rows}", err=True)


@app.command()
def export(
    context: typer.Context,
    target: Annotated[Path, typer.Argument(metavar="FOLDER")],
    form: Annotated[str, typer.Option("--format", help="parquet, csv or jsonl.")] = "jsonl",
    account: Annotated[list[str] | None, typer.Option(help="Only this account's; may be repeated.")] = None,
    start: Annotated[str, typer.Option(help="Created from this day (UTC), like 2026-01-31.")] = "",
    end: Annotated[str, typer.Option(help="Created before this day (UTC).")] = "",
) -> None:
    """Write landed documents to FOLDER/documents.FORMAT.

    Example: trunkline archive export /srv/export --format parquet --start 2026-01-01
    """
    settings = settings_of(context)
    if form not in FORMATS:
        raise CommandError(f"--format is one of {', '.join(FORMATS)}")
    span = {"start_ms": day_ms(start) if start else 0, "end_ms": day_ms(end) if end else END_MS}

    async def work() -> int:
        async with _archive(settings) as archive:
            rows: int = await archive.export(target.absolute(), form, accounts=account or (), **span)
            return rows

    typer.echo(f"{run(work())} documents in {target / f'documents.{form}'}")


def day_ms(text: str) -> int:
    """Unix ms at which a day begins in UTC. Raises CommandError."""
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        raise CommandError(f"{text} is no day, like 2026-01-31") from None


@app.command()
def compact(context: typer.Context) -> None:
    """Roll up what is due, then remove the bytes of what was deleted or redacted from every file.

    Example: trunkline archive compact
    """
    settings = settings_of(context)

    async def work() -> tuple[int, dict[str, int]]:
        async with _archive(settings) as archive:
            return await archive.roll(), await archive.compact()

    rolled, counts = run(work())
    counts["clean"] = int(bool(counts["clean"]) and bootstrap().compact_stores(settings))
    show_fields([("rolled_up", rolled), *counts.items()])
    if not counts["clean"]:
        raise CommandError("a reader held the log: some deleted bytes may remain there, compact again")


@app.command()
def stats(context: typer.Context) -> None:
    """Count landed messages by month, direction and status; say what deletions still wait for a compaction.

    Example: trunkline archive stats
    """
    settings = settings_of(context)

    async def work() -> tuple[list[str], list[list[Any]], tuple[int, int]]:
        async with _archive(settings) as archive:
            columns, rows = await archive.query(STATS)
            return columns, rows, await archive.pending_floors()

    columns, rows, (pending, since_ms) = run(work())
    show_table(columns, rows)
    if pending:
        since = datetime.fromtimestamp(since_ms / 1000, UTC)
        typer.echo(f"{pending} deletions wait for a compaction, the oldest since {since:%Y-%m-%d %H:%M} UTC", err=True)
