"""`trunkline bans`: addresses whose SIP is not listened to, and how to listen to one again."""

from typing import Annotated

import typer

from trunkline.cli.common import bootstrap, settings_of, show_table
from trunkline.model.clock import SystemClock
from trunkline.voice.bans import LIFT_FILE, PREFIX, read

COLUMNS = ("address", "why", "over", "left_s")


def bans(
    context: typer.Context,
    lift: Annotated[str, typer.Option(metavar="ADDRESS", help="End the ban of this address, within seconds.")] = "",
) -> None:
    """List the addresses that are banned, or lift a ban.

    Example: trunkline bans --lift 192.0.2.7
    """
    settings = settings_of(context)
    if lift:
        with (settings.data_path / LIFT_FILE).open("a", encoding="ascii") as file:
            file.write(f"{lift.strip()}\n")
        typer.echo(f"{lift}: a running server lifts the ban within seconds")
        return
    now = SystemClock().now_ms()
    found = [read(value) for _, value in bootstrap().peek_memory(settings, PREFIX)]
    standing = [ban for ban in found if ban is not None and ban.until_ms > now]
    rows = [(b.address, b.why, "all" if b.proven else "UDP", (b.until_ms - now) // 1000) for b in standing]
    show_table(COLUMNS, sorted(rows))
