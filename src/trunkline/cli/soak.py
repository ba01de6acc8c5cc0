"""`trunkline soak`: does anything grow under steady load?"""

import asyncio
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from trunkline import __version__
from trunkline.cli.common import CommandError
from trunkline.testing.local import Local, LocalFailed
from trunkline.testing.soak import Result, Soak, compared

KEPT = "soak-"
"""How the files of results begin."""


def soak(
    minutes: Annotated[float, typer.Option(help="How long.", min=0.1, max=100_000)] = 10.0,
    rate: Annotated[float, typer.Option(help="Messages a second.", min=1, max=2000)] = 50.0,
    calls: Annotated[int, typer.Option(help="Calls up all the time.", min=0, max=20)] = 2,
    results: Annotated[Path | None, typer.Option(help="Folder where results are kept, and the last one read.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="Result of the former release; default: the folder's last.")
    ] = None,
) -> None:
    """Run a server of its own under steady load; exit code 1 if memory, files, threads or latency grow, if anything was
    lost, or if it needs more than the release before.

    Example: trunkline soak --minutes 60 --results /var/lib/trunkline/soak
    """
    former = _former(results, against)
    with tempfile.TemporaryDirectory(prefix="trunkline-soak-") as folder:
        try:
            with Local(Path(folder)) as local:
                result = asyncio.run(Soak(local, rate, calls, typer.echo).run(minutes, __version__))
        except LocalFailed as error:
            raise CommandError(str(error)) from None
    if results is not None:
        results.mkdir(parents=True, exist_ok=True)
        file = results / f"{KEPT}{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
        file.write_bytes(msgspec.json.format(msgspec.json.encode(result)))
        typer.echo(f"kept in {file}")
    typer.echo(
        f"{result.accepted} messages and {result.calls} calls: {result.memory_mb:.0f} MB; for 1000 messages "
        f"{result.cpu_s_per_1000:.2f} CPU s and {result.disk_bytes_per_message * 1000 / 1e6:.2f} MB on disk"
    )
    wrong = [*result.problems, *(compared(result, former) if former else ())]
    for line in wrong:
        typer.echo(line)
    if wrong:
        raise typer.Exit(1)
    typer.echo("nothing grows")


def _former(results: Path | None, against: Path | None) -> Result | None:
    """The result to compare with. Raises CommandError."""
    if against is None and results is not None and results.is_dir():
        against = max(results.glob(f"{KEPT}*.json"), default=None)
    if against is None:
        return None
    try:
        return msgspec.json.decode(against.read_bytes(), type=Result)
    except (OSError, msgspec.MsgspecError) as error:
        raise CommandError(f"{against} is no result of a soak: {error}") from None
