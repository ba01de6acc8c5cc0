"""What a pivot is: two shapes of one table, how each is made and dropped, and what keeps them in step.

A database is always in one `State`. In *plain* it has one shape. Then the other is added, with triggers that carry each
write across, whoever makes it (*filling*); rows of before are filled in batches (*filled*); a comparison finds no
difference, and from then on processes that know the other shape use it (*turned*: both are complete); at last the
former one is dropped (*plain* again). Either shape may be the one to begin with, so the same pivot also goes back.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

Shape = Literal["old", "new"]
Phase = Literal["plain", "filling", "filled", "turned"]
Engine = Literal["sqlite", "postgres"]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Where one database (of a partitioned queue: one partition) stands with one pivot."""

    shape: Shape = "old"
    """What processes that know both use."""
    phase: Phase = "plain"
    cursor: int = 0
    """Id up to which rows have been filled."""
    done: int = 0
    """Rows looked at by the backfill."""
    total: int = 0
    """Rows that there were when it began."""
    started_ms: int = 0
    changed_ms: int = 0

    @property
    def other(self) -> Shape:
        return "new" if self.shape == "old" else "old"


@dataclass(frozen=True)
class Side:
    """One shape in one engine's SQL. Every statement may be run again after it was interrupted."""

    add: tuple[str, ...]
    """Adds its columns to a table of the other shape, without looking at a row."""
    index: tuple[str, ...]
    """Its indexes, each `create index [concurrently] if not exists NAME on ...`."""
    fill: str
    """The assignments that make it of the other shape."""
    drop: tuple[str, ...]
    """Takes it away."""


@dataclass(frozen=True)
class Words:
    """A pivot in one engine's SQL."""

    old: Side
    new: Side
    sync: tuple[str, ...]
    """Makes the triggers that carry each write to the other shape, both ways."""
    unsync: tuple[str, ...]
    """Drops them."""
    differs: str
    """Condition: the row's two shapes do not say the same."""

    def side(self, shape: Shape) -> Side:
        """One shape's statements."""
        return self.old if shape == "old" else self.new


@dataclass(frozen=True)
class Pivot:
    """A module of this package makes one (docs/howto/schema-pivots.md)."""

    number: int
    """Counted up by one; what a process says it speaks."""
    name: str
    table: str
    """Has an integer key `id`, by which it is filled in order."""
    what: str
    """One line for operators."""
    sqlite: Words
    postgres: Words

    def words(self, engine: Engine) -> Words:
        """In an engine's SQL."""
        return self.sqlite if engine == "sqlite" else self.postgres


class Speaker(msgspec.Struct, frozen=True, kw_only=True):
    """A process that uses the database."""

    who: str
    """For operators: node, process id, host."""
    number: int
    """The newest pivot it knows; -1: it is of a release that does not say."""
    shapes: dict[str, str] = {}
    """Pivot -> the shape that it uses now, where it has said so."""
    seen_ms: int = 0
    """How long ago it said so, ms."""

    def uses(self, pivot: Pivot, shape: Shape) -> bool:
        """Whether it may still use a shape. Without a word of its own, one that knows the pivot is taken for one that
        looked at the database when it started."""
        if self.number < pivot.number:
            return shape == "old"
        return self.shapes.get(pivot.name, shape) == shape


class Bench(Protocol):
    """One database (partition) to work on; an engine's part. Each call is one or more short transactions of its own.

    Raises Busy when the table's lock could not be had in time, StoreUnavailable."""

    engine: Engine
    part: str
    """The partition's name; empty: there is one."""

    def state(self, pivot: Pivot) -> State:
        """Where it stands."""

    def ddl(self, pivot: Pivot, statements: tuple[str, ...]) -> None:
        """Run statements, each in a transaction of its own, that may be run again."""

    def save(self, pivot: Pivot, state: State) -> None:
        """Note a state."""

    def leave(self, pivot: Pivot, statements: tuple[str, ...], state: State) -> None:
        """Run statements and note a state, in one transaction."""

    def count(self, pivot: Pivot) -> int:
        """Rows of the table."""

    def fill(self, pivot: Pivot, state: State, rows: int) -> State | None:
        """Fill the next rows and note how far that is, in one transaction; None: there are no more."""

    def differing(self, pivot: Pivot, after: int, rows: int) -> tuple[int, int] | None:
        """(last id, rows that differ) of the next rows after an id; None: there are no more."""

    def speakers(self) -> list[Speaker]:
        """The processes that use this database, those seen lately included."""


class CannotPivot(Exception):
    """A step cannot be taken now; the text is one line for the operator."""


class Busy(CannotPivot):
    """The table's lock could not be had in time: others were let pass."""
