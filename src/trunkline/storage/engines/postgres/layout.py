"""How a queue is cut: the number of its partitions and databases, fixed for its life, kept in each of its databases."""

from collections.abc import Sequence
from typing import Any

from trunkline.storage.engines.postgres.session import Connection
from trunkline.storage.survives import CannotSurvive

LAYOUT_TABLE = """
create table if not exists layout(
    one boolean primary key default true check (one), partitions bigint not null, databases bigint not null,
    place bigint not null, ddl text not null)
"""


def schema_of(partition: int, partitions: int) -> str:
    """The schema of a partition; empty: the server's choice."""
    return f"p{partition:02d}" if partitions > 1 else ""


class WrongLayout(CannotSurvive):
    """The database belongs to a queue of another number of partitions or databases, or to another place in the list."""


def read_layout(connection: Connection, partitions: int, databases: int, place: int) -> None:
    """Raises WrongLayout where a queue database was made for another number of partitions, databases, or place."""
    row = connection.execute("select to_regclass('layout') is null").fetchone()
    if row is not None and row[0]:
        return
    (found,) = connection.execute("select partitions, databases, place from layout").fetchall()
    compare(found, partitions, databases, place)


def compare(found: Sequence[Any], partitions: int, databases: int, place: int) -> None:
    """The same, of a row of `layout`."""
    if found[0] != partitions:
        raise WrongLayout(wrong("partitions", partitions, found[0]))
    if found[1] != databases:
        raise WrongLayout(
            f"storage.queue names {databases} databases, this queue was made with {found[1]}: name those, in order"
        )
    if found[2] != place:
        raise WrongLayout(
            f"storage.queue names this database as number {place + 1}, it was made as {found[2] + 1}: keep the order"
        )


def wrong(name: str, given: int, made: int) -> str:
    """A setting that does not fit."""
    return f"storage.{name} is {given}, this queue was made with {made}: say {name} = {made}"
