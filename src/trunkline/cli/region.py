"""`trunkline region`: which region is active, how far the others are behind; promotion, and what it cost."""

import importlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import orjson
import typer

from trunkline.cli.common import CommandError, settings_of, show_table
from trunkline.settings import Settings

if TYPE_CHECKING:
    from trunkline.region.compare import Comparison
    from trunkline.region.records import Handover, Server

app = typer.Typer(help="Regions: which one is active, and how another one takes its place.", rich_markup_mode=None)
COLUMNS = ("region", "database", "server", "state", "epoch", "position", "behind", "heartbeat", "silent s")
WELL = frozenset({"active", "standby", "first"})


def wiring() -> Any:
    """Imported late, with the driver."""
    return importlib.import_module("trunkline.bootstrap_region")


def regions_of(context: typer.Context) -> Settings:
    """The settings, where they name regions. Raises CommandError."""
    settings = settings_of(context)
    if not settings.regions:
        raise CommandError("there is one region only: [[regions]] names no other (docs/howto/regions.md)")
    return settings


@app.command()
def status(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Say which region is active, and how far each database of a standby is behind. Exit code 1 unless this region is
    active or a standby.

    Example: trunkline --config trunkline.toml region status
    """
    settings = regions_of(context)
    parts = wiring()
    standing = parts.standing(settings)
    seen = {settings.node.region: parts.databases.look_at(parts.own(settings)), **parts.look_at_others(settings)}
    last = _last(settings, standing.epoch)
    if as_json:
        shown = {
            "region": settings.node.region, "role": standing.role.value, "text": standing.text,
            "epoch": standing.epoch, "databases": seen, "last": last,
        }  # fmt: skip
        typer.echo(orjson.dumps(msgspec.to_builtins(shown), option=orjson.OPT_INDENT_2).decode())
    else:
        typer.echo(f"region {settings.node.region}: {standing.text}")
        show_table(COLUMNS, [row for name, found in seen.items() for row in _rows(name, found, seen)])
        if last is not None:
            typer.echo(_told(last))
    if standing.role.value not in WELL:
        raise typer.Exit(1)


def _rows(
    region: str, found: Mapping[str, "Server | None"], seen: Mapping[str, Mapping[str, "Server | None"]]
) -> list[tuple[object, ...]]:
    from trunkline.region.records import lsn_text

    rows: list[tuple[object, ...]] = []
    for name, one in found.items():
        if one is None:
            rows.append((region, name, "", "cannot be reached", "", "", "", "", ""))
            continue
        primary = next((o for others in seen.values() if (o := others.get(name)) and o.takes_writes), None)
        behind = "" if one.takes_writes or primary is None else f"{max(0, primary.lsn - one.lsn)} bytes"
        state = "standby" if one.standby else "read-only" if one.read_only else "takes writes"
        rows.append(
            (region, name, f"{one.host}:{one.port}", state, f"{one.epoch} {one.region}".strip(), lsn_text(one.lsn),
             behind, one.beat, f"{one.silent_s:.1f}")
        )  # fmt: skip
    return rows


def _last(settings: Settings, epoch: Any) -> "Handover | None":
    """How the present epoch began, if the databases know."""
    from trunkline.storage.unavailable import StoreUnavailable

    parts = wiring()
    try:
        found: list[Handover] = parts.databases.handovers(parts.own(settings)["database"])
    except StoreUnavailable:
        return None
    return found[0] if found and epoch is not None and found[0].epoch.epoch == epoch.epoch else None


def _told(handover: "Handover") -> str:
    """What a promotion cost, as far as it knows."""
    from trunkline.region.records import lsn_text

    epoch = handover.epoch
    lines = [
        f"epoch {epoch.epoch} began at {_time(handover.at_ms)}: {epoch.region} took the place of {epoch.former}"
        f" ({'handed over in order' if epoch.planned else 'the former region was lost'})"
    ]
    for one in handover.positions:
        missing = (
            "nothing is missing" if one.missing_bytes == 0
            else f"{one.missing_bytes} bytes are missing" if one.missing_bytes > 0
            else f"what was committed in the {one.silent_s:.1f} s before the promotion may be missing"
        )  # fmt: skip
        lines.append(
            f"  {one.database}: up to {lsn_text(one.lsn)}, heartbeat {one.beat} of {_time(one.beat_ms)}; {missing}"
        )
    return "\n".join(lines)


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}" if ms else "never"


@app.command()
def promote(
    context: typer.Context,
    to: Annotated[str, typer.Option("--to", help="This region's name, said once more.")],
    lost: Annotated[
        bool, typer.Option("--lost", help="The active region cannot be reached: take its place without it.")
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="With --lost: it is known to be off; do not wait region.alone_s.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report, for programs.")] = False,
) -> None:
    """Make this region the active one. Run it in the region that is to be promoted.

    Without --lost the active region is stopped first, in order, and nothing is lost. It can be run again.

    Example: trunkline --config trunkline.toml region promote --to two --lost
    """
    settings = regions_of(context)
    if to != settings.node.region:
        raise CommandError(f"this is region {settings.node.region}: run it in {to}")
    if no_wait and not lost:
        raise CommandError("--no-wait goes with --lost")
    from trunkline.region.promotion import CannotPromote
    from trunkline.region.promotion import promote as do

    ways = wiring().ways(settings, lambda line: typer.echo(f"{datetime.now(UTC):%H:%M:%S} {line}", err=True))
    try:
        handover = do(ways, lost=lost, wait=not no_wait)
    except CannotPromote as error:
        raise CommandError(str(error)) from None
    if as_json:
        typer.echo(orjson.dumps(msgspec.to_builtins(handover), option=orjson.OPT_INDENT_2).decode())
        return
    typer.echo(_told(handover))
    if lost:
        typer.echo(f"once its databases can be read: trunkline region compare --with {handover.epoch.former}")


@app.command()
def compare(
    context: typer.Context,
    region: Annotated[str, typer.Option("--with", help="The region that was lost; its databases must answer.")] = "",
    out: Annotated[
        Path | None, typer.Option(help="File for the missing messages and calls, one JSON object a line.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Count what a lost region had accepted that is not here. Before its databases are made standbys: that ends it.

    Exit code 1 if something is missing.

    Example: trunkline --config trunkline.toml region compare --with one --out missing.jsonl
    """
    settings = regions_of(context)
    parts = wiring()
    known = parts.databases.handovers(parts.own(settings)["database"])
    region = region or (known[0].epoch.former if known else "")
    if region not in parts.others(settings):
        raise CommandError(f"[[regions]] does not name {region or 'a former region'}: say --with NAME")
    handover = next((one for one in known if one.epoch.former == region), None)
    if handover is None:
        raise CommandError(f"no region has taken the place of {region}: there is nothing to compare")
    found: Comparison = parts.compare_with(settings, region, handover, int(time.time() * 1000))
    if out is not None:
        with out.open("wb") as file:
            file.writelines(msgspec.json.encode(one) + b"\n" for one in found.flights)
    if as_json:
        typer.echo(orjson.dumps(msgspec.to_builtins(found), option=orjson.OPT_INDENT_2).decode())
    else:
        _say(found, out)
    if found.flights or found.keys or found.records_new or found.records_changed:
        raise typer.Exit(1)


def _say(found: "Comparison", out: Path | None) -> None:
    typer.echo(f"{found.looked_at} messages and calls of {found.region} looked for; {len(found.flights)} are missing")
    for what, count in found.by_status.items():
        typer.echo(f"  {count} {what}")
    typer.echo(f"{found.callbacks} callbacks were owed for them; {found.keys} idempotency keys are missing")
    for what, tables in (("made", found.records_new), ("changed", found.records_changed)):
        for table, count in tables.items():
            typer.echo(f"  {count} of {table} were {what} there and are not so here")
    if out is not None:
        typer.echo(f"the missing ones are in {out}")
