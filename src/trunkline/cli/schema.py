"""`trunkline schema`: change a table's shape while servers of two releases run (docs/howto/schema-pivots.md)."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from trunkline.cli.common import CommandError, settings_of, show_table
from trunkline.model.clock import SystemClock
from trunkline.settings import Settings
from trunkline.storage.pivots import PIVOTS, pivot_named
from trunkline.storage.pivots.lint import lint as findings_in
from trunkline.storage.pivots.lint import lint_pivot
from trunkline.storage.pivots.lint import split as statements_of
from trunkline.storage.pivots.model import Bench, CannotPivot, Pivot, State
from trunkline.storage.pivots.steps import BATCH_ROWS, Walk

app = typer.Typer(
    help="Change a table's shape while servers of two releases run.", no_args_is_help=True, rich_markup_mode=None
)
STATUS_COLUMNS = ("partition", "pivot", "number", "in use", "phase", "filled", "changed")
SPEAKER_COLUMNS = ("partition", "process", "speaks", "uses", "seen")
LOCK_TIMEOUT = "set local lock_timeout = 100"
"""What goes before the statements of every pivot on PostgreSQL (`engines.postgres.pivots`)."""

Name = Annotated[str, typer.Argument(help="The pivot, as `trunkline schema status` names it.")]
Wait = Annotated[float, typer.Option(help="Seconds to wait for processes that still use the other shape.", min=0)]


@contextmanager
def _benches(context: typer.Context) -> Iterator[list[Any]]:
    from trunkline.bootstrap_stores import CannotStart, open_benches

    settings: Settings = settings_of(context)
    try:
        benches = open_benches(settings)
    except CannotStart as error:
        raise CommandError(str(error)) from None
    try:
        yield benches
    finally:
        for bench in benches:
            bench.close()


def _pivot(name: str) -> Pivot:
    try:
        return pivot_named(name)
    except KeyError:
        known = ", ".join(pivot.name for pivot in PIVOTS)
        raise CommandError(f"there is no pivot {name}: this release has {known}") from None


def _tell(line: str) -> None:
    typer.echo(line)
    sys.stdout.flush()


def _each(context: typer.Context, name: str, step: Any) -> None:
    """Take a step in every partition; those that cannot are named at the end, and the others have gone on."""
    pivot, refused = _pivot(name), []
    with _benches(context) as benches:
        for bench in benches:
            walk = Walk(bench, pivot, SystemClock().now_ms, _tell)
            try:
                state: State = step(walk)
            except CannotPivot as error:
                refused.append(str(error))
                continue
            _tell(f"{bench.part or 'queue'}: {name} is {state.phase}, {state.shape} shape in use")
    if refused:
        raise CommandError("; ".join(dict.fromkeys(refused)))


@app.command()
def status(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Show where each partition stands with each pivot, and which processes use it.

    Example: trunkline --config trunkline.toml schema status
    """
    with _benches(context) as benches:
        found = [(bench, [(pivot, bench.state(pivot)) for pivot in PIVOTS], bench.speakers()) for bench in benches]
    if as_json:
        shown = [_as_json(*one) for one in found]
        typer.echo(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode())
        return
    rows = [_status_row(bench, pivot, state) for bench, states, _ in found for pivot, state in states]
    show_table(STATUS_COLUMNS, rows)
    show_table(
        SPEAKER_COLUMNS,
        [
            (bench.part or "queue", one.who, one.number if one.number >= 0 else "does not say",
             " ".join(f"{pivot}={shape}" for pivot, shape in one.shapes.items()), f"{one.seen_ms / 1000:.1f} s ago")
            for bench, _, speakers in found for one in speakers
        ],
    )  # fmt: skip
    for pivot in PIVOTS:
        typer.echo(f"{pivot.name}: {pivot.what}")


def _status_row(bench: Bench, pivot: Pivot, state: State) -> tuple[object, ...]:
    changed = f"{datetime.fromtimestamp(state.changed_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}" if state.changed_ms else "-"
    filled = f"{state.done} of {max(state.total, state.done)}" if state.phase != "plain" else "-"
    return bench.part or "queue", pivot.name, pivot.number, state.shape, state.phase, filled, changed


def _as_json(bench: Bench, states: list[tuple[Pivot, State]], speakers: list[Any]) -> dict[str, Any]:
    return {
        "partition": bench.part,
        "pivots": {
            pivot.name: {name: getattr(state, name) for name in state.__struct_fields__} for pivot, state in states
        },
        "processes": [{name: getattr(one, name) for name in one.__struct_fields__} for one in speakers],
    }


@app.command()
def expand(
    context: typer.Context,
    name: Name,
    back: Annotated[bool, typer.Option("--back", help="From the new shape to the old one.")] = False,
) -> None:
    """Add the other shape beside the one in use, and what keeps the two in step.

    Example: trunkline --config trunkline.toml schema expand lane_split
    """
    _each(context, name, lambda walk: walk.expand(back=back))


@app.command()
def backfill(
    context: typer.Context,
    name: Name,
    rows: Annotated[int, typer.Option(help="Rows of one batch.", min=1, max=100_000)] = BATCH_ROWS,
    pause_ms: Annotated[int, typer.Option(help="Shortest rest between two batches, ms.", min=0)] = 0,
) -> None:
    """Fill the other shape of the rows of before, in batches; begun again, it goes on where it ended.

    Example: trunkline --config trunkline.toml schema backfill lane_split --rows 500 --pause-ms 20
    """
    _each(context, name, lambda walk: walk.backfill(rows, pause_ms / 1000))


@app.command()
def verify(context: typer.Context, name: Name) -> None:
    """Compare every row; where none differs, servers that know the other shape use it from now on.

    Example: trunkline --config trunkline.toml schema verify lane_split
    """
    _each(context, name, lambda walk: walk.verify())


@app.command()
def contract(context: typer.Context, name: Name, wait: Wait = 15.0) -> None:
    """Drop the former shape. Refused, with their names, while processes live that use it.

    Example: trunkline --config trunkline.toml schema contract lane_split --wait 15
    """
    _each(context, name, lambda walk: walk.contract(wait))


@app.command()
def undo(context: typer.Context, name: Name, wait: Wait = 15.0) -> None:
    """Before contract: back to the shape that was there, nothing lost.

    Example: trunkline --config trunkline.toml schema undo lane_split
    """
    _each(context, name, lambda walk: walk.undo(wait))


@app.command()
def lint(
    files: Annotated[list[Path] | None, typer.Argument(help="SQL for PostgreSQL; none: this release's pivots.")] = None,
) -> None:
    """Refuse statements that would hold up the hot path, or take away what an old process needs.

    Example: trunkline schema lint migration.sql
    """
    found = []
    for file in files or []:
        found += [(str(file), one) for one in findings_in(statements_of(file.read_text(encoding="utf-8")))]
    if not files:
        found += [(pivot.name, one) for pivot in PIVOTS for one in lint_pivot(pivot, LOCK_TIMEOUT)]
    for place, one in found:
        typer.echo(f"{place}: {one.rule}: {one.why}\n    {one.statement[:200]}")
    if found:
        raise typer.Exit(1)
