"""`trunkline trunks`: which gateways of a running server are up, and which registrations stand."""

from datetime import UTC, datetime
from typing import Annotated

import orjson
import typer

from trunkline.cli.common import CommandError, settings_of, show_table
from trunkline.model.clock import SystemClock
from trunkline.voice import trunk_status
from trunkline.voice.trunk_status import REFRESH_S

COLUMNS = ("trunk", "kind", "what", "state", "since", "details")


def trunks(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False
) -> None:
    """Show gateways and registrations of the running server. Exit code 1 if one is down.

    Example: trunkline trunks
    """
    settings = settings_of(context)
    snapshot = trunk_status.read(settings.data_path)
    if snapshot is None or SystemClock().now_ms() - snapshot.at_ms > 2 * REFRESH_S * 1000:
        raise CommandError(
            f"no server with calls runs on {settings.data_path}: start it, or use `trunkline doctor sip`"
        )
    if as_json:
        rows = [
            {"trunk": one.trunk, "kind": one.kind, "what": one.what, "up": one.up, "state": one.state,
             "since": _time(one.since_ms), "details": one.detail}
            for one in snapshot.lines
        ]  # fmt: skip
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
    else:
        show_table(
            COLUMNS,
            [(one.trunk, one.kind, one.what, one.state, _time(one.since_ms), one.detail) for one in snapshot.lines],
        )
    if not all(one.up for one in snapshot.lines):
        raise typer.Exit(1)


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
