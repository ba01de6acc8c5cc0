"""What the commands share: settings, stores, tables."""

import asyncio
import importlib
import os
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from trunkline.model.account import Account
from trunkline.model.sid import is_sid
from trunkline.settings import Settings, load
from trunkline.settings.load import PROFILE_ENV
from trunkline.storage.database import Database

T = TypeVar("T")
DATA_MODE = 0o700
"""The data folder is for its owner alone."""


class CommandError(Exception):
    """The command cannot be done; the text is one line."""


class State(NamedTuple):
    """The options that stand before the command."""

    config: Path | None
    data: Path | None


def settings_of(
    context: typer.Context,
    profile: str = "",
    given: Mapping[str, Mapping[str, Any]] | None = None,
    candidate: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings that this call of the command uses, with what is `given` over the rest, and a `candidate` tree over
    the file's. Raises SettingsError."""
    state: State = context.obj
    overrides = {**(given or {}), **({"data": {"path": str(state.data.absolute())}} if state.data else {})}
    environment = {**os.environ, PROFILE_ENV: profile} if profile else None
    return load(state.config, environment, overrides, candidate)


def bootstrap() -> Any:
    """The wiring, imported late: `version` and `--help` must not wait for it."""
    return importlib.import_module("trunkline.bootstrap")


def serving() -> Any:
    """What runs a node, imported late as well."""
    return importlib.import_module("trunkline.bootstrap_serve")


def supervising() -> Any:
    """What becomes the supervisor, imported late and without the rest."""
    return importlib.import_module("trunkline.bootstrap_supervise")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    return asyncio.run(work)


@asynccontextmanager
async def database_of(settings: Settings, *, create: bool = False) -> AsyncIterator[Database]:
    """The control plane's store; `create` makes the data folder if it is not there."""
    folder = settings.data_path
    if not folder.is_dir():
        if not create:
            raise CommandError(f"there is no data in {folder}: begin with `trunkline dev` or `accounts create`")
        folder.mkdir(mode=DATA_MODE, parents=True)
    database: Database = bootstrap().open_database(settings)
    try:
        yield database
    finally:
        await database.close()


async def account_of(database: Database, sid: str) -> Account:
    """The account with this SID. Raises CommandError."""
    account = await database.get(Account, sid) if is_sid(sid, "AC") else None
    if account is None:
        raise CommandError(f"there is no account {sid}: see `trunkline accounts list`")
    return account


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table for people on a terminal; lines of tab-separated values, head first, for anything else."""
    texts = [[str(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in [list(columns), *texts]:
            typer.echo("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in row))
        return
    table = Table(*columns)
    for row in texts:
        table.add_row(*row)
    Console().print(table)


def show_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Name and value, one a line."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        typer.echo(f"{name.ljust(width)}  {value}")
