"""The `Database` primitive: the control plane's records (accounts, keys, numbers, services, scheduled work).

Records are `trunkline.model.record.Record` structs; each field is a column. Updates are compare-and-set on `rev`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from trunkline.model.record import Record
from trunkline.storage.survives import Survives

R = TypeVar("R", bound=Record)
Watcher = Callable[[Sequence[str]], Awaitable[None] | None]


class Duplicate(Exception):
    """A unique column already holds that value."""


class Conflict(Exception):
    """The record has moved on since it was read (its `rev` differs) or is gone."""


class Database(Protocol):
    """Every write returns after its commit."""

    survives: Survives

    def insert(self, *records: Record) -> Awaitable[None]:
        """Insert records in one transaction. Raises Duplicate."""

    def update(self, *records: Record) -> Awaitable[None]:
        """Write records back in one transaction and count up their `rev`. Raises Conflict, Duplicate."""

    def put(self, record: Record) -> Awaitable[None]:
        """Insert or replace, without a guard (sticky senders, opt-outs)."""

    def delete(self, *records: Record) -> Awaitable[None]:
        """Delete records in one transaction; deleting what is gone is no error."""

    def get(self, kind: type[R], sid: str) -> Awaitable[R | None]:
        """One record by its SID. Cheap: a primary-key read without a thread hop."""

    def find(
        self,
        kind: type[R],
        where: Mapping[str, Any] | None = None,
        *,
        order: str = "sid",
        newest_first: bool = False,
        after: str = "",
        limit: int = 1000,
    ) -> Awaitable[list[R]]:
        """Records whose columns equal `where`, keyset-paged on `order`.

        A key of `where` may end in an operator: `name__ge`, `__gt`, `__le`, `__lt`, `__ne`, `__prefix`,
        `__contains`, `__in`.
        """

    def count(self, kind: type[Record], where: Mapping[str, Any] | None = None) -> Awaitable[int]:
        """How many records match."""

    def watch(self, kind: type[Record], changed: Watcher) -> None:
        """Call `changed(sids)` on the event loop after each commit that touched records of `kind`; an empty sequence
        says that another process has written, so any may have changed. What it returns (None: nothing) ends once the
        watcher has the change: a committer whose engine reads over a network waits for it, for a bounded time."""

    def close(self) -> Awaitable[None]:
        """Finish what was handed in, then stop."""
