"""One batch of writes in one transaction: operations as one statement, calls each in a savepoint of their own."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import psycopg

from trunkline.storage.engines.postgres import queue_sql as sql
from trunkline.storage.engines.postgres.ownership import Ownership
from trunkline.storage.engines.postgres.session import STALE, Connection, is_lost
from trunkline.storage.written import Written

Cursor = psycopg.Cursor[tuple[Any, ...]]
Call = Callable[[Cursor], Any]
Decide = Callable[[list[bool]], Any]
"""Makes the result of a write (or raises its error) of which of its operations took effect."""
Outcome = tuple[Any, BaseException | None]

REPEATABLE = frozenset({"40001", "40P01"})
"""Serialisation failure, deadlock."""
NO_ROOM = ("53", "58", "XX")
"""Classes of errors of the server's machine: disk full, out of memory, I/O, corruption."""


class Deposed(Exception):
    """The transaction under way found that another owner has begun; nothing of it is kept."""


class Item(msgspec.Struct, gc=False):
    """A write that waits for its batch: operations, or a call."""

    written: Written[Any]
    ops: Sequence[sql.Op] = ()
    decide: Decide | None = None
    call: Call | None = None
    lazy: bool = False
    may_spill: bool = False
    since: float = 0.0


def is_light(batch: Sequence[Item], careful: bool) -> bool:
    """Whether a batch is a single statement, which commits itself."""
    return not careful and all(item.call is None for item in batch)


def apply(
    connection: Connection, ownership: Ownership, batch: Sequence[Item], number: int, careful: bool
) -> list[Outcome]:
    """Everything but the commit of what is not light. `careful`: each write by itself. Raises Deposed."""
    if is_light(batch, careful):
        return decide_all(batch, _operate(connection, ownership, batch, number))
    connection.execute("begin")
    outcomes: list[Outcome] = []
    run: list[Item] = []
    for item in batch:
        if item.call is None and not careful:
            run.append(item)
            continue
        if run:
            outcomes += decide_all(run, _operate(connection, ownership, run, 0))
            run = []
        outcomes.append(_in_savepoint(connection, ownership, item, careful))
    if run:
        outcomes += decide_all(run, _operate(connection, ownership, run, 0))
    if not connection.execute(ownership.mark.encode(), (number, ownership.row)).rowcount:
        raise Deposed
    return outcomes


def _operate(connection: Connection, ownership: Ownership, items: Sequence[Item], number: int) -> Sequence[int]:
    """Apply operations; the places of those without effect."""
    columns = [list(column) for column in zip(*[op for item in items for op in item.ops], strict=True)]
    if not columns:
        return ()
    try:
        row = connection.execute(ownership.apply, (ownership.row, number, *columns)).fetchone()
    except psycopg.Error as error:
        if error.sqlstate == sql.FENCED:
            raise Deposed from error
        raise
    return row[0] if row else ()


def _in_savepoint(connection: Connection, ownership: Ownership, item: Item, careful: bool) -> Outcome:
    """Apply one write; what it raises is its own, unless the connection is gone, the server has no room, or (when not
    `careful`) the tables may have changed their shape."""
    connection.execute("savepoint one")
    try:
        if item.call is not None:
            outcome: Outcome = (item.call(connection.cursor()), None)
        else:
            (outcome,) = decide_all([item], _operate(connection, ownership, [item], 0))
    except psycopg.Error as error:
        if is_lost(error, connection) or error.sqlstate in REPEATABLE or has_no_room(error):
            raise
        if error.sqlstate in STALE and not careful:
            raise
        connection.execute("rollback to savepoint one")
        outcome = (None, error)
    except Exception as error:
        connection.execute("rollback to savepoint one")
        outcome = (None, error)
    connection.execute("release savepoint one")
    return outcome


def decide_all(items: Sequence[Item], failed: Sequence[int]) -> list[Outcome]:
    """The outcomes of writes whose operations at the places `failed` had no effect."""
    lost = set(failed)
    outcomes: list[Outcome] = []
    place = 0
    for item in items:
        decide, end = item.decide, place + len(item.ops)
        if decide is None:
            outcomes.append((None, None))
        else:
            try:
                outcomes.append((decide([index not in lost for index in range(place, end)]), None))
            except Exception as error:
                outcomes.append((None, error))
        place = end
    return outcomes


def has_no_room(error: psycopg.Error) -> bool:
    """Whether the server's machine is in trouble."""
    return (error.sqlstate or "").startswith(NO_ROOM)
