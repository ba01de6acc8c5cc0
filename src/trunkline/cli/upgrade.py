"""`trunkline restart` and `trunkline upgrade`: one node, without a failed request (docs/howto/upgrade.md)."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from trunkline.bootstrap_processes import ORDERS_SOCKET, socket_path
from trunkline.cli.common import CommandError, settings_of
from trunkline.settings import Settings
from trunkline.supervisor.handover import Patience
from trunkline.supervisor.orders import NoSupervisor, give

TRY_S = 60.0
"""How long a new version may take to say its name."""
LAYOUT = "from trunkline.media.engine.state import LAYOUT; print(LAYOUT)"

Grace = Annotated[float, typer.Option(help="Seconds in which the new process may not end or become unwell.")]
Ready = Annotated[float, typer.Option(help="Seconds that the new process has to load, and to begin.")]
Media = Annotated[
    bool, typer.Option("--media", help="Replace the media process and the recorder too; calls hear a short gap.")
]


def restart(
    context: typer.Context, media: Media = False, grace: Grace = Patience.grace_s, ready: Ready = Patience.ready_s
) -> None:
    """Replace the running server's process by a new one of the same version: no request fails, calls go on.

    Example: trunkline --config trunkline.toml restart
    """
    settings = settings_of(context)
    order(settings, {"do": "restart", "media": media, "grace_s": grace, "ready_s": ready})


def upgrade(
    context: typer.Context,
    python: Annotated[Path | None, typer.Option(help="Interpreter of the new version's environment.")] = None,
    media: Media = False,
    back: Annotated[bool, typer.Option("--back", help="In the grace time: the old version back.")] = False,
    status: Annotated[bool, typer.Option("--status", help="What runs, as JSON.")] = False,
    grace: Grace = Patience.grace_s,
    ready: Ready = Patience.ready_s,
) -> None:
    """Put the running server on another version: no request fails, calls go on. If the new version does not become
    ready, ends, or is not well within the grace time, the old one comes back by itself, and the exit code is 1.

    Example: trunkline --config trunkline.toml upgrade --python /opt/trunkline-2/bin/python
    """
    settings = settings_of(context)
    if status:
        typer.echo(orjson.dumps(_last(settings, {"do": "status"}), option=orjson.OPT_INDENT_2).decode())
    elif back:
        order(settings, {"do": "back", "why": "the operator wants it"})
    else:
        new = str((python or Path(sys.executable)).absolute())
        typer.echo(f"{new} is trunkline {version_of(new)}")
        if media:
            check_media(new, _last(settings, {"do": "status"}))
        order(settings, {"do": "upgrade", "python": new, "media": media, "grace_s": grace, "ready_s": ready})


def order(settings: Settings, wanted: dict[str, Any]) -> None:
    """Give an order and print what is done. Raises CommandError where it was not."""
    said: dict[str, Any] = {}
    try:
        for said in give(socket_path(settings, ORDERS_SOCKET), wanted):
            if said.get("text") and not said.get("over"):
                typer.echo(said["text"])
    except NoSupervisor as error:
        raise CommandError(str(error)) from None
    if not said.get("ok"):
        raise CommandError(str(said.get("text") or "not done"))
    typer.echo(said.get("text") or f"done; connections waited {said.get('pause_s', 0):.2f} s")


def _last(settings: Settings, wanted: dict[str, Any]) -> dict[str, Any]:
    try:
        return list(give(socket_path(settings, ORDERS_SOCKET), wanted, 10.0))[-1]
    except NoSupervisor as error:
        raise CommandError(str(error)) from None


def version_of(python: str) -> str:
    """What version an interpreter has. Raises CommandError where it has none."""
    return _ask(python, "-m", "trunkline", "version")


def check_media(new: str, status: dict[str, Any]) -> None:
    """Raises CommandError where the new version's media process could not go on with the calls of the old one."""
    found = [child for child in status.get("children", ()) if child.get("name") == "media"]
    if found and _ask(new, "-c", LAYOUT) != _ask(found[0]["python"], "-c", LAYOUT):
        raise CommandError(
            "the new media process has another memory layout: calls that are up would end. Upgrade without --media: "
            "it takes over by itself as soon as no call is up"
        )


def _ask(python: str, *arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - the operator names it
            [python, *arguments], capture_output=True, text=True, timeout=TRY_S, check=False, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"{python}: {error}") from None
    if done.returncode:
        raise CommandError(f"{python} {' '.join(arguments)}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
    return done.stdout.strip()
