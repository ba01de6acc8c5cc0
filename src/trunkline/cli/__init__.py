"""The `trunkline` command: one file per group of commands. Every error is one line on standard error.

Exit codes: 0 done, 1 not possible, 2 wrong use of the command.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import apsw
import typer

from trunkline import __version__
from trunkline.cli import (
    accounts,
    archive,
    backup,
    bans,
    calls,
    cluster,
    doctor,
    keys,
    learn,
    numbers,
    phone,
    promote,
    region,
    registrations,
    release,
    rollout,
    routes,
    schema,
    serve,
    soak,
    top,
    trunks,
    upgrade,
)
from trunkline.cli.common import CommandError, State
from trunkline.model.errors import ApiError
from trunkline.settings import SettingsError
from trunkline.storage.database import Conflict, Duplicate
from trunkline.storage.pivots.model import CannotPivot
from trunkline.storage.secrets import BadMasterKey, CannotOpen
from trunkline.storage.survives import CannotSurvive
from trunkline.storage.unavailable import StoreUnavailable

EXPECTED = (
    CommandError,
    SettingsError,
    ApiError,
    BadMasterKey,
    CannotOpen,
    CannotPivot,
    CannotSurvive,
    Conflict,
    Duplicate,
    StoreUnavailable,
    apsw.Error,
    OSError,
)
"""Errors whose text is for the operator; anything else is a defect and shows its traceback."""

app = typer.Typer(
    name="trunkline",
    help="A self-hosted voice and SMS platform that speaks Twilio's public API.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
GROUPS = {
    "accounts": accounts.app,
    "keys": keys.app,
    "numbers": numbers.app,
    "routes": routes.app,
    "schema": schema.app,
    "archive": archive.app,
    "region": region.app,
    "doctor": doctor.app,
    "release": release.app,
    "learn": learn.app,
}
for name, group in GROUPS.items():
    app.add_typer(group, name=name)
app.command()(serve.serve)
app.command()(serve.dev)
app.command()(calls.calls)
app.command()(calls.call)
app.command()(phone.phone)
app.command()(registrations.registrations)
app.command()(bans.bans)
app.command()(trunks.trunks)
app.command()(cluster.cluster)
app.command()(top.top)
app.command()(promote.promote)
app.command()(soak.soak)
app.command()(upgrade.restart)
app.command()(upgrade.upgrade)
app.command()(rollout.rollout)
app.command()(backup.backup)
app.command()(backup.restore)


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="Settings file (TOML).", envvar="TRUNKLINE_CONFIG")] = None,
    data: Annotated[Path | None, typer.Option(help="Data folder, over the settings'.")] = None,
) -> None:
    """A self-hosted voice and SMS platform that speaks Twilio's public API."""
    os.umask(0o077)  # what it writes (messages, keys, backups) is for the owner's eyes alone
    context.obj = State(config, data)


@app.command()
def version() -> None:
    """Print the version.

    Example: trunkline version
    """
    typer.echo(__version__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    try:
        code = app(args=list(sys.argv[1:] if arguments is None else arguments), standalone_mode=False)
    except EXPECTED as error:
        return _say(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        message, wrong = getattr(error, "format_message", None), getattr(error, "exit_code", None)
        if message is None or wrong is None:
            raise
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(message())
            return int(wrong)
        command = getattr(getattr(error, "ctx", None), "command_path", "").partition(" ")[2]
        return _say(f"{message()} (see {f'trunkline {command}'.strip()} --help)", int(wrong))
    return code if isinstance(code, int) else 0


def _say(text: str, code: int) -> int:
    """One line, whatever the text."""
    try:
        print(f"trunkline: {' '.join(text.split())}", file=sys.stderr)
    except BrokenPipeError:
        os.close(2)
    return code
