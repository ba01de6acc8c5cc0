"""Every command's help has an example, and the example is one that it takes."""

import re
import shlex
from collections.abc import Iterator

import click
import pytest
import typer

from trunkline.cli import app

ROOT: click.Group = typer.main.get_command(app)  # type: ignore[assignment]
BEFORE = {"--config", "--data"}


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command, and how it is called."""
    inner = getattr(command, "commands", {})
    for name, one in inner.items():
        yield from leaves(one, (*path, name))
    if not inner or getattr(command, "invoke_without_command", False):
        yield path, command


COMMANDS = dict(leaves(ROOT))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_there_is_an_example_that_it_takes(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    text = " ".join((command.help or "").split())
    found = re.search(r"Example: trunkline (.+?)(?=$|\. [A-Z]| Exit )", text)
    assert found, f"trunkline {' '.join(path)} --help has no example"
    words = shlex.split(found[1].rpartition(" -- trunkline ")[2])  # given to another command
    while words[0] in BEFORE:
        del words[:2]
    assert tuple(words[: len(path)]) == path
    try:
        command.make_context(path[-1], words[len(path) :])
    except click.BadParameter as error:
        if "does not exist" not in error.message:  # a file that only the reader has
            raise
