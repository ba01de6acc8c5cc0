"""Which partitions of the queue are this node's: taking and losing them, and reading those that answer.

The engine comes in as `Partitions`; `trunkline.storage.sharded` makes the `Queue` of it.
"""

import asyncio
import hashlib
import itertools
import logging
import zlib
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, Protocol, TypeVar

from trunkline.model.sid import SHARDS, shard_of
from trunkline.storage.queue import PARTITION_MASK, Queue
from trunkline.storage.survives import Survives
from trunkline.storage.unavailable import NotOwned, StoreUnavailable

T = TypeVar("T")

PATIENCE_S = 5.0
"""How long a read of several partitions waits for the slower ones."""
LOOK_S = 1.0
"""How often a partition that was missed is tried."""

log = logging.getLogger(__name__)


class Engine(Queue, Protocol):
    """The queue of one partition."""

    @property
    def epoch(self) -> int:
        """Of this owner: higher than those before it."""

    @property
    def failed(self) -> BaseException | None:
        """Why nothing can be written now."""

    @property
    def takes_writes(self) -> bool:
        """Whether what is handed in now is likely to be committed soon."""

    @property
    def writer(self) -> Any:
        """Counts `writes` and `commits`."""

    def release(self) -> Awaitable[None]:
        """Commit what was handed in, then let go."""


class Partitions(Protocol):
    """All partitions, of all databases; an engine's part."""

    survives: Survives
    partitions: int
    databases: int

    def name_of(self, place: int) -> str:
        """A database's name, for operators."""

    def database_of(self, partition: int) -> int:
        """Number of the database that a partition lies in."""

    def reader(self, partition: int) -> Queue:
        """A partition to be read."""

    def own(
        self, partition: int, deposed: Callable[[], None], elsewhere: Callable[[], bool]
    ) -> Coroutine[Any, Any, Engine]:
        """Take a partition, whoever has it; `deposed` is called when another has. `elsewhere`: whether there is another
        database for work that may go there. Raises StoreUnavailable, CannotSurvive."""

    def find_carrier_id(
        self, owned: Collection[int], connector: str, carrier_id: str, *, whole: bool = True
    ) -> tuple[int, str, str] | None:
        """See `Queue.find_carrier_id`; what is in `owned` counts first. Unless the `whole` queue must be asked, what
        cannot be reached is left out. Raises StoreUnavailable."""

    def problems(self) -> dict[str, str]:
        """What is wrong with reading, by the database's name."""

    def close(self) -> Awaitable[None]:
        """Finish the reads under way."""


class Writers:
    """The writers of all partitions owned here, as one (for /metrics and /readyz)."""

    def __init__(self, owned: dict[int, Engine]) -> None:
        self._owned = owned
        self._leaving: list[Engine] = []
        self._former = [0, 0]

    def leave(self, engine: Engine, end: Awaitable[None]) -> Coroutine[Any, Any, None]:
        """Have one that is owned here no longer end, and keep its counts."""
        self._leaving.append(engine)
        return self._end(engine, end)

    async def _end(self, engine: Engine, end: Awaitable[None]) -> None:
        try:
            await end
        finally:
            self._leaving.remove(engine)
            self._former[0] += engine.writer.writes
            self._former[1] += engine.writer.commits

    @property
    def writes(self) -> int:
        """Writes committed."""
        return self._former[0] + sum(int(engine.writer.writes) for engine in self._all())

    @property
    def commits(self) -> int:
        """Commits."""
        return self._former[1] + sum(int(engine.writer.commits) for engine in self._all())

    def _all(self) -> list[Engine]:
        return [*self._owned.values(), *self._leaving]

    @property
    def failed(self) -> BaseException | None:
        """Why no partition of ours takes writes; None while one does, or none is ours."""
        errors = [engine.failed for engine in self._owned.values()]
        return errors[0] if errors and all(errors) else None


def home(account: str, key: str) -> int:
    """The shard (0..255) that judges an account's idempotency key."""
    return hashlib.sha256(f"{account}/{key}".encode(errors="surrogatepass")).digest()[0]


class OwnPartitions:
    """See the module. Used by one event loop."""

    def __init__(self, parts: Partitions, node: str = "") -> None:
        """`node`: nodes of different names begin with different partitions."""
        self.survives = parts.survives
        self.partitions = parts.partitions
        self.lost: Callable[[int], None] = lambda partition: None
        """Told when another node has taken a partition that was ours (it is in `owned` no longer)."""
        self.regained: Callable[[int], None] = lambda partition: None
        """Told when a partition of ours that was missed answers again."""
        self.closing: set[int] = set()
        """Partitions of ours that are to leave: they get no new work while there is another."""
        self._parts = parts
        self._mask = PARTITION_MASK if parts.partitions > 1 else 0
        self._owned: dict[int, Engine] = {}
        self._moves = [asyncio.Lock() for _ in range(parts.partitions)]
        self._order = sorted(range(parts.partitions), key=lambda one: zlib.crc32(f"{node}/{one}".encode()))
        self.voice_partitions = 0
        """As many of the last partitions hold calls alone, the others none; 0: all hold everything."""
        self.home_of: Callable[[str, str, str], int] = lambda account, key, path: home(account, key)
        """The shard (0..255) that judges an account's idempotency key for a path."""
        self._favourites = [-1, -1]
        """For all but calls, and for calls."""
        self._turn = itertools.count()
        self._missed: set[int] = set()
        self._looker: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Future[Any]] = set()
        self.writer = Writers(self._owned)

    # -- ownership -------------------------------------------------------------------------------------------

    @property
    def owned(self) -> frozenset[int]:
        """The partitions that are written here."""
        return frozenset(self._owned)

    def epoch_of(self, partition: int) -> int:
        """The epoch in which a partition is ours. Raises NotOwned."""
        return self._engine(partition).epoch

    def partition(self, partition: int) -> Queue:
        """One partition alone: to take up what waits in it, right after `own`."""
        return self._owned.get(partition) or self._parts.reader(partition)

    async def own(self, partition: int) -> None:
        """Write a partition from now on, whoever wrote it before: what that one commits later fails. Returns once a
        commit of ours has shown that it is so. Raises StoreUnavailable, CannotSurvive; then it may be nobody's."""
        async with self._moves[partition]:
            if partition in self._owned:
                return
            taken: list[Engine] = []
            early: list[int] = []

            def deposed() -> None:
                if taken and self._owned.get(partition) is taken[0]:
                    self._lose(partition)
                else:
                    early.append(partition)

            making = asyncio.ensure_future(self._parts.own(partition, deposed, lambda: self._elsewhere(partition)))
            try:
                engine = await asyncio.shield(making)
            except asyncio.CancelledError:
                self._keep(asyncio.ensure_future(self._let_go(making)))
                raise
            if early:
                await engine.close()
                raise NotOwned(f"partition {partition}: another node took it at once")
            taken.append(engine)
            self._owned[partition] = engine
            self._missed.discard(partition)
            self._favourites = [-1, -1]

    async def release(self, partition: int) -> None:
        """Take no more writes for a partition, commit those that were handed in, and let go."""
        async with self._moves[partition]:
            engine = self._drop(partition)
            if engine is not None:
                await self.writer.leave(engine, engine.release())

    async def _let_go(self, making: "asyncio.Future[Engine]") -> None:
        try:
            engine = await making
        except (StoreUnavailable, OSError) as error:
            log.info("a partition that is not wanted any more was not taken: %s", error)
            return
        await engine.release()

    def _drop(self, partition: int) -> Engine | None:
        self._missed.discard(partition)
        self._favourites = [-1, -1]
        return self._owned.pop(partition, None)

    def _lose(self, partition: int) -> None:
        engine = self._drop(partition)
        if engine is not None:
            self._keep(asyncio.ensure_future(self.writer.leave(engine, engine.close())))
            log.warning("partition %d of the queue was taken by another node", partition)
            self.lost(partition)

    def _engine(self, partition: int) -> Engine:
        engine = self._owned.get(partition)
        if engine is None:
            raise NotOwned(f"partition {partition} of the queue is not this node's")
        return engine

    def _keep(self, task: "asyncio.Future[Any]") -> None:
        self._tasks.add(task)  # the loop itself keeps no reference
        task.add_done_callback(self._tasks.discard)

    # -- where things belong ---------------------------------------------------------------------------------

    def partition_of(self, sid: str) -> int:
        """The partition that a SID's flight is in."""
        try:
            return shard_of(sid) % self.partitions
        except ValueError:
            return 0  # no SID: it is nowhere

    def partition_of_shard(self, shard: int) -> int:
        """The partition that a virtual shard belongs to."""
        return shard % self.partitions

    def shard_for_new(self, calls: bool = False) -> int:
        """A shard for new work: of the first of our partitions that takes writes now, the same as long as it does. When
        none does, of one of ours, where the work waits; when none is ours, of one that is not, where it is refused.
        `calls`: for a call."""
        favourite = self._favourites[calls]
        engine = self._owned.get(favourite)
        if engine is None or not engine.takes_writes or favourite in self.closing:
            ours = [one for one in self._order if one in self._owned and self._holds(one, calls)]
            ours = [one for one in ours if one not in self.closing] or ours
            if not ours:
                return self.partitions - 1 if calls else 0
            favourite = next((one for one in ours if self._owned[one].takes_writes), ours[0])
            self._favourites[calls] = favourite
        step = self.partitions
        return favourite + step * (next(self._turn) % ((SHARDS - 1 - favourite) // step + 1))

    def _holds(self, partition: int, calls: bool) -> bool:
        return not self.voice_partitions or calls == (partition >= self.partitions - self.voice_partitions)

    def _elsewhere(self, partition: int) -> bool:
        """Whether another database has a partition of ours that takes writes; asked on any thread."""
        place = self._parts.database_of(partition)
        return any(
            engine.takes_writes
            for other, engine in list(self._owned.items())
            if self._parts.database_of(other) != place
        )

    def _here(self) -> int:
        """The partition of ours for what belongs to no flight. Raises NotOwned."""
        if not self._owned:
            raise NotOwned("no partition of the queue is this node's")
        partition = self.shard_for_new() % self.partitions
        return partition if partition in self._owned else self.shard_for_new(calls=True) % self.partitions

    @property
    def healthy(self) -> dict[str, str]:
        """What is wrong, by database; empty: nothing is. A database whose trouble is told takes no writes, or answers
        no reads, now; while another one is well, new work goes there."""
        wrong = self._parts.problems()
        for partition, engine in self._owned.items():
            if engine.failed is not None:
                wrong[self._parts.name_of(self._parts.database_of(partition))] = str(engine.failed)
        return wrong

    # -- reading the partitions that are ours ----------------------------------------------------------------

    def _of_owned(
        self, read: Callable[[Engine], Awaitable[list[T]]], *, whole: bool = False
    ) -> Coroutine[Any, Any, list[list[T]]]:
        return self._of_each(lambda partition, engine: read(engine), whole=whole)

    async def _of_each(
        self, read: Callable[[int, Engine], Awaitable[list[T]]], *, whole: bool = False
    ) -> list[list[T]]:
        """What each partition of ours answers; unless the `whole` is asked for, one that does not is missed. Raises
        StoreUnavailable when none does."""
        owned = list(self._owned.items())
        if len(owned) == 1:
            return [await read(*owned[0])]
        away = [] if whole else [one for one, engine in owned if engine.failed is not None]
        asked = [item for item in owned if len(away) == len(owned) or item[0] not in away]
        tasks = {one: asyncio.ensure_future(plain(read(one, engine))) for one, engine in asked}
        if not tasks:
            return []
        await asyncio.wait(tasks.values(), timeout=None if whole else PATIENCE_S)
        found: list[list[T]] = []
        error: BaseException | None = None
        for one, task in tasks.items():
            if not task.done():
                self._keep(task)
                task.add_done_callback(_noticed)
                away.append(one)
                error = StoreUnavailable(f"partition {one}: no answer in {PATIENCE_S:g} s")
            elif task.exception() is None:
                found.append(task.result())
            else:
                error = task.exception()
                away.append(one)
                if whole or not isinstance(error, StoreUnavailable):
                    break
        if error is not None and (whole or not found or not isinstance(error, StoreUnavailable)):
            raise error
        for one in away:
            self._miss(one)
        return found

    def _miss(self, partition: int) -> None:
        """Something of this partition was left out: look for when it answers again."""
        self._missed.add(partition)
        if self._looker is None or self._looker.done():
            self._looker = asyncio.get_running_loop().create_task(self._look())

    async def _look(self) -> None:
        while self._missed:
            await asyncio.sleep(LOOK_S)
            for partition in list(self._missed):
                engine = self._owned.get(partition)
                if engine is None:
                    self._missed.discard(partition)
                elif engine.failed is None:
                    try:
                        await asyncio.wait_for(plain(engine.stale_parts(0, 1)), PATIENCE_S)
                    except (StoreUnavailable, TimeoutError):
                        continue
                    if partition in self._missed:
                        self._missed.discard(partition)
                        self.regained(partition)

    async def _close_all(self) -> None:
        if self._looker is not None:
            self._looker.cancel()
        engines = list(self._owned.values())
        self._owned.clear()
        await asyncio.gather(*(plain(engine.close()) for engine in engines), *self._tasks, return_exceptions=True)
        await self._parts.close()


async def plain(awaitable: Awaitable[T]) -> T:
    """Any awaitable as a coroutine."""
    return await awaitable


def _noticed(task: "asyncio.Future[Any]") -> None:
    """What came too late fails unheard."""
    if not task.cancelled():
        task.exception()
