"""A queue of several partitions without a server: each a SQLite file, nodes in one process.

`sharded_sqlite(folder, K)` is one node's view of the partitions in a folder; call it once for each node. `own` takes a
partition from whichever of them has it: what that one had handed in is committed first, what comes later fails.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path

from trunkline.storage.engines.sqlite import queue_sql as sql
from trunkline.storage.engines.sqlite.queue import SWEEP_ROWS, SqliteQueue
from trunkline.storage.queue import PARTITION_BITS, Flight, Owed
from trunkline.storage.sharded import ShardedQueue
from trunkline.storage.survives import Survives
from trunkline.storage.unavailable import StoreUnavailable

_HOLDERS: dict[Path, tuple["SqlitePartition", Callable[[], None]]] = {}
"""Who owns a file now, and how it learns that another does."""
_EPOCHS: dict[Path, int] = {}


class SqlitePartition(SqliteQueue):
    """One partition, with ids that name it."""

    def __init__(self, path: Path, partition: int, several: bool, databases: "SqlitePartitions") -> None:
        super().__init__(path)
        self.partition = partition
        self.epoch = _EPOCHS.get(path, 0)
        self._several = several
        self._databases = databases
        self._ending: asyncio.Future[None] | None = None

    @property
    def failed(self) -> BaseException | None:
        if self._databases.down.get(self._databases.database_of(self.partition)):
            return StoreUnavailable("the test says so")
        return self.writer.failed

    @property
    def takes_writes(self) -> bool:
        return self.failed is None

    def _next_id(self) -> int:
        if not self._several:
            return super()._next_id()
        number = max((self._last_id >> PARTITION_BITS) + 1, time.time_ns() >> PARTITION_BITS)
        self._last_id = number << PARTITION_BITS | self.partition
        return self._last_id

    async def page(
        self, account: str, kind: str, *, before: str, after: str, limit: int, filters: Mapping[str, object]
    ) -> list[tuple[Flight, list[Owed]]]:
        if self._several:
            filters = {
                name: value * 1000 if name.startswith("created_") else value  # type: ignore[operator]
                for name, value in filters.items()
            }
        return await super().page(account, kind, before=before, after=after, limit=limit, filters=dict(filters))

    def sweep(self, now_ms: int, carrier_before_ms: int = 0) -> Awaitable[None]:
        if not self._several:
            return super().sweep(now_ms, carrier_before_ms)

        def write(cursor):
            cursor.execute(sql.SWEEP_REPLAYS, (now_ms, SWEEP_ROWS))
            cursor.execute(sql.SWEEP_CARRIER, (carrier_before_ms * 1_000_000, SWEEP_ROWS))
            cursor.execute(sql.SWEEP_LATE_OWED, (carrier_before_ms * 1_000_000,))
            cursor.execute(sql.SWEEP_ORPHANS, (carrier_before_ms, SWEEP_ROWS))

        return self._writer.submit(write)

    async def release(self) -> None:
        await self.close()

    async def close(self) -> None:
        holder = _HOLDERS.get(self._path)
        if holder is not None and holder[0] is self:
            del _HOLDERS[self._path]
        if self._ending is None:
            self._ending = asyncio.ensure_future(super().close())
        await self._ending


class SqlitePartitions:
    """`trunkline.storage.sharded.Partitions`; `down[place] = True` makes a database look away (it still works)."""

    survives = Survives.POWER

    def __init__(self, folder: Path, partitions: int, databases: int = 2) -> None:
        self.partitions = partitions
        self.databases = min(databases, partitions)
        self.down: dict[int, bool] = {}
        self._folder = folder
        self._readers: dict[int, SqlitePartition] = {}

    def name_of(self, place: int) -> str:
        return f"queue[{place}]"

    def database_of(self, partition: int) -> int:
        return partition % self.databases

    def _open(self, partition: int) -> SqlitePartition:
        return SqlitePartition(self._path(partition), partition, self.partitions > 1, self)

    def _path(self, partition: int) -> Path:
        return (self._folder / f"p{partition:02d}.db").absolute()

    def reader(self, partition: int) -> SqlitePartition:
        if partition not in self._readers:
            self._readers[partition] = self._open(partition)
        return self._readers[partition]

    async def own(self, partition: int, deposed: Callable[[], None], elsewhere: Callable[[], bool]) -> SqlitePartition:
        path = self._path(partition)
        former = _HOLDERS.pop(path, None)
        if former is not None:
            former[1]()
            await former[0].close()
        _EPOCHS[path] = _EPOCHS.get(path, 0) + 1
        engine = self._open(partition)
        _HOLDERS[path] = (engine, deposed)
        return engine

    def find_carrier_id(
        self, owned: Collection[int], connector: str, carrier_id: str, *, whole: bool = True
    ) -> tuple[int, str, str] | None:
        for partition in sorted(range(self.partitions), key=lambda one: one not in owned):
            found = self.reader(partition).find_carrier_id(connector, carrier_id)
            if found is not None:
                return found
        return None

    def problems(self) -> dict[str, str]:
        return {}

    async def close(self) -> None:
        for engine in self._readers.values():
            await engine.close()


def sharded_sqlite(folder: Path, partitions: int, node: str = "") -> ShardedQueue:
    """One node's queue; it owns nothing yet (`await queue.own(p)`)."""
    return ShardedQueue(SqlitePartitions(folder, partitions), node)


async def owning_all(queue: ShardedQueue) -> ShardedQueue:
    """The same, as the owner of everything."""
    for partition in range(queue.partitions):
        await queue.own(partition)
    return queue
