"""`trunkline phone`: play a simulated phone of a running development server from the terminal."""

from typing import Annotated

import typer

from trunkline.cli.common import CommandError
from trunkline.testing.phones.client import RemotePhone
from trunkline.testing.phones.script import HttpSimulator, Script, StepFailed

URL = "http://127.0.0.1:8080"


def phone(
    number: Annotated[str, typer.Argument(help="The phone's number, like +15555550123.")],
    steps: Annotated[
        list[str],
        typer.Argument(
            help="What it does, one after the other: 'dials +12025550142', answers, rings, 'hears TEXT', "
            "'hears-tone 440', 'says TEXT', 'plays FILE.wav', 'presses 1#', holds, resumes, hangs-up, ends, "
            "'saves FILE.wav', 'waits 2', answers-it (a call that rings); "
            "from now on: picks-up, declines, is-busy, is-off, is-on."
        ),
    ],
    url: Annotated[str, typer.Option(help="Where the server is.")] = URL,
) -> None:
    """Play a simulated phone of a running development server.

    Example: trunkline phone +15555550123 'dials +12025550142' 'hears Welcome' 'presses 1' ends
    """
    try:
        Script(RemotePhone(HttpSimulator(url), number), typer.echo).run(steps)
    except (StepFailed, ValueError) as error:
        raise CommandError(str(error)) from None
