"""A queue of several partitions, as one node sees it: it writes those that it owns, and reads all.

Theory. A flight's partition is its SID's virtual shard modulo the number of partitions; its id names it again in the
low 8 bits, as do the ids of callbacks. So each write goes to one partition, by id or by SID, and is one commit there;
where that partition is not owned here, it fails with NotOwned and nothing is written. `waiting`, `lanes`, `owed`,
`owed_hosts`, `landable`, `in_state`, `parked`, `parts`, `stale_parts` and `orphans` are of the partitions owned here;
`get`, `by_id`, `page`, `find_carrier_id` and `known` of all. What has no flight (receipts whose message is not known,
parts of long messages) is written to whichever partition of ours takes writes, and found in all of ours.

**A database that is away** takes its partitions out, not the others. What a node does all day (`waiting`, `lanes`,
`owed`, `owed_hosts`, `landable`, `stale_parts`, `orphans`, `claim`) goes on with the partitions that answer; the others
are *missed*, and `regained` is told of each once it answers again: take up then what waits in it, as after `own`. What
must be whole (`page`, `find_carrier_id`, `known`, `in_state`, `parked`) raises StoreUnavailable. New work is made in a
shard of a partition that takes writes (`shard_for_new`); what had been handed in for another and was not sent yet fails
with Spill at once rather than wait, unless it carries a customer's idempotency key, which only its home can judge.

**A key of idempotency** lies in its home, and the message that it makes in the same partition, so that both
are one commit: the owner of the home makes the SID in that shard (`home_of`).
"""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from trunkline.storage.partitions import Engine, OwnPartitions, Partitions, plain
from trunkline.storage.queue import PARTITION_BITS, Advance, Flight, Orphan, Owed, Part, Replay
from trunkline.storage.unavailable import NotOwned, StoreUnavailable
from trunkline.storage.written import Written

T = TypeVar("T")

MAX_PART_PLACES = 100_000
"""Long messages whose parts' partitions are remembered; of others all of ours are asked."""


class ShardedQueue(OwnPartitions):
    """`trunkline.storage.queue.Queue`; see the module. Used by one event loop. Owns nothing at first."""

    def __init__(self, parts: Partitions, node: str = "") -> None:
        """`node`: nodes of different names begin with different partitions."""
        super().__init__(parts, node)
        self.ordered = parts.partitions == 1
        self._part_places: OrderedDict[tuple[str, str], set[int]] = OrderedDict()

    # -- flights ---------------------------------------------------------------------------------------------

    def accept(self, flight: Flight, owed: Sequence[Owed] = (), replay: Replay | None = None) -> Awaitable[None]:
        """To the partition of the SID's shard; with a `replay`, that must be its key's home too. Raises besides
        NotOwned, Spill (see the module)."""
        partition = self.partition_of(flight.sid)
        at = partition if replay is None else self._home(replay)
        if at != partition:
            if at not in self._owned:
                return _not_owned(at)  # since a moment ago: the SID was made elsewhere for that very reason
            return _failed(ValueError(f"{flight.sid} was not made in the home of its idempotency key"))
        engine = self._owned.get(partition)
        return engine.accept(flight, owed, replay) if engine else _not_owned(partition)

    async def accept_inbound(
        self,
        flight: Flight,
        owed: Sequence[Owed],
        connector: str,
        consumed: Sequence[str],
        carrier_id: str = "",
        kept: Part | None = None,
    ) -> bool:
        """A message that came before, to whatever partition, is refused as far as that can be asked now."""
        partition = self.partition_of(flight.sid)
        engine = self._engine(partition)
        if self.partitions > 1 and carrier_id and self._is_known(connector, carrier_id):
            await self.drop_parts([(connector, key) for key in consumed])
            if kept is not None:
                await self.keep_part(kept)
            return False
        inserted = await engine.accept_inbound(flight, owed, connector, consumed, carrier_id, kept)
        if consumed:
            await self._drop_elsewhere(partition, connector, consumed)
        if kept is not None:
            self._note_part(kept.connector, kept.key, partition)
        return inserted

    def _is_known(self, connector: str, carrier_id: str) -> bool:
        """As far as the databases can be asked now."""
        return self._parts.find_carrier_id(self._owned, connector, carrier_id, whole=False) is not None

    def claim(self, flights: Sequence[tuple[int, int]]) -> Awaitable[list[int]]:
        """Those of a partition that takes no writes are told as not ours; it is missed."""
        groups = self._grouped(flights, lambda one: one[0])
        if len(groups) == 1:
            ((partition, group),) = groups.items()
            engine = self._owned.get(partition)
            return engine.claim(group) if engine else _not_owned(partition)
        under_way = {}
        for partition, group in groups.items():
            engine = self._owned.get(partition)
            under_way[partition] = engine.claim(group) if engine else _not_owned(partition)
        return asyncio.ensure_future(self._claimed(groups, under_way))

    async def _claimed(
        self, groups: dict[int, list[tuple[int, int]]], under_way: dict[int, Awaitable[list[int]]]
    ) -> list[int]:
        results = await asyncio.gather(*(plain(one) for one in under_way.values()), return_exceptions=True)
        errors = [one for one in results if isinstance(one, BaseException)]
        if len(errors) == len(results) or any(not isinstance(one, StoreUnavailable) for one in errors):
            raise errors[0]
        lost: list[int] = []
        for partition, result in zip(under_way, results, strict=True):
            if isinstance(result, BaseException):
                lost += [flight_id for flight_id, _ in groups[partition]]
                self._miss(partition)
            else:
                lost += result
        return lost

    def _grouped(self, items: Iterable[T], number: Callable[[T], int]) -> dict[int, list[T]]:
        groups: dict[int, list[T]] = {}
        for item in items:
            groups.setdefault(number(item) & self._mask, []).append(item)
        return groups

    def advance(self, step: Advance) -> Awaitable[bool]:
        partition = step.id & self._mask
        engine = self._owned.get(partition)
        return engine.advance(step) if engine else _not_owned(partition)

    def strip_owed(self, flight_id: int) -> Awaitable[None]:
        return self._by_id(flight_id, lambda engine: engine.strip_owed(flight_id))

    def erase(self, flight_id: int) -> Awaitable[None]:
        return self._by_id(flight_id, lambda engine: engine.erase(flight_id))

    def _by_id(self, number: int, write: Callable[[Engine], Awaitable[T]]) -> Awaitable[T]:
        partition = number & self._mask
        engine = self._owned.get(partition)
        return write(engine) if engine else _not_owned(partition)

    async def remove(self, flights: Sequence[tuple[int, int]]) -> int:
        """Those of a partition that takes no writes stay, and are found landable again."""
        groups = self._grouped(flights, lambda one: one[0])
        removed = await _all(self._by_id(partition, _remove(group)) for partition, group in groups.items())
        return sum(_some(removed))

    async def waiting(self, lane: str, after: tuple[int, int], limit: int) -> list[Flight]:
        """Not of partitions that are about to leave, while there are others: what waits in them would stand before what
        can go."""

        async def read(partition: int, engine: Engine) -> list[Flight]:
            return [] if partition in self.closing else await engine.waiting(lane, after, limit)

        found = await self._of_each(read)
        return sorted(itertools.chain(*found), key=lambda one: (one.due_ms, one.id))[:limit]

    async def lanes(self) -> list[tuple[str, int, int]]:
        return _summed(await self._of_owned(lambda engine: engine.lanes()))

    async def in_state(self, kind: str, status: str, after: int, limit: int) -> list[Flight]:
        found = await self._of_owned(lambda engine: engine.in_state(kind, status, after, limit), whole=True)
        return sorted(itertools.chain(*found), key=lambda one: one.id)[:limit]

    async def landable(self, now_ms: int, limit: int) -> list[tuple[Flight, list[Owed]]]:
        found = await self._of_owned(lambda engine: engine.landable(now_ms, limit))
        return sorted(itertools.chain(*found), key=lambda one: one[0].land_ms)[:limit]

    async def get(self, account: str, sid: str) -> tuple[Flight, list[Owed]] | None:
        return await self.partition(self.partition_of(sid)).get(account, sid)

    def by_id(self, flight_id: int) -> Flight | None:
        partition = flight_id & self._mask
        return self.partition(partition).by_id(flight_id) if partition < self.partitions else None

    async def page(
        self, account: str, kind: str, *, before: str, after: str, limit: int, filters: dict[str, object]
    ) -> list[tuple[Flight, list[Owed]]]:
        """Over all partitions. Raises StoreUnavailable when one cannot be read."""
        found = await _all(
            self.partition(one).page(account, kind, before=before, after=after, limit=limit, filters=filters)
            for one in range(self.partitions)
        )
        merged = sorted(itertools.chain(*_whole(found)), key=lambda one: one[0].sid[2:], reverse=True)
        return merged[-limit:] if after and not before else merged[:limit]

    # -- receipts --------------------------------------------------------------------------------------------

    def find_carrier_id(self, connector: str, carrier_id: str) -> tuple[int, str, str] | None:
        """In all partitions: one round trip for each database, none for what was written here lately. An id that a
        carrier has used again belongs to our own flight first, then to the newest. Raises StoreUnavailable when it is
        not found and a database cannot be asked."""
        return self._parts.find_carrier_id(self._owned, connector, carrier_id)

    def park(self, orphan: Orphan) -> Awaitable[None]:
        try:
            return self._owned[self._here()].park(orphan)
        except NotOwned as error:
            return _failed(error)

    async def orphans(self, connector: str, carrier_ids: Sequence[str]) -> list[Orphan]:
        """Their ids hold for this queue, not for one partition of it."""

        async def read(partition: int, engine: Engine) -> list[Orphan]:
            orphans = await engine.orphans(connector, carrier_ids)
            for orphan in orphans if self._mask else ():
                orphan.id = orphan.id << PARTITION_BITS | partition
            return orphans

        found = await self._of_each(read)
        return sorted(itertools.chain(*found), key=lambda one: one.at_ms)

    async def drop_orphans(self, orphans: Sequence[Orphan]) -> None:
        drops = []
        for partition, group in self._grouped(orphans, lambda one: one.id).items():
            engine = self._engine(partition)
            bits = PARTITION_BITS if self._mask else 0
            local = [
                Orphan(
                    id=one.id >> bits, connector=one.connector, carrier_id=one.carrier_id, at_ms=one.at_ms,
                    receipt=one.receipt,
                )
                for one in group
            ]  # fmt: skip
            drops.append(engine.drop_orphans(local))
        _whole(await _all(drops))

    async def parked(self) -> list[tuple[str, str]]:
        """Those of the partitions owned here."""
        return list(itertools.chain(*await self._of_owned(lambda engine: engine.parked(), whole=True)))

    async def known(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """In all partitions, one after the other: other reads need not wait for it. Raises StoreUnavailable when one
        cannot be asked."""
        found: dict[tuple[str, str], None] = {}
        for partition in range(self.partitions):
            asked = [pair for pair in pairs if pair not in found]
            if asked:
                found |= dict.fromkeys(await self.partition(partition).known(asked))
        return list(found)

    # -- callbacks -------------------------------------------------------------------------------------------

    def owe(self, owed: Sequence[Owed]) -> Awaitable[None]:
        """Those of a flight go to its partition; others to their SID's if it is ours, else to another of ours."""
        try:
            groups: dict[int, list[Owed]] = {}
            for item in owed:
                partition = item.flight & self._mask if item.flight else self.partition_of(item.sid)
                if not item.flight and partition not in self._owned:
                    partition = self._here()
                groups.setdefault(partition, []).append(item)
            if len(groups) == 1:
                ((partition, group),) = groups.items()
                return self._engine(partition).owe(group)
            under_way = [engine.owe(group) for engine, group in [(self._engine(p), g) for p, g in groups.items()]]
        except NotOwned as error:
            return _failed(error)
        return asyncio.ensure_future(_done(under_way))

    def forget(self, owed_id: int) -> Awaitable[None]:
        return self._by_id(owed_id, lambda engine: engine.forget(owed_id))

    async def owed(self, host: str, after: int, limit: int, now_ms: int) -> list[Owed]:
        found = await self._of_owned(lambda engine: engine.owed(host, after, limit, now_ms))
        return sorted(itertools.chain(*found), key=lambda one: one.id)[:limit]

    async def owed_hosts(self) -> list[tuple[str, int, int]]:
        return _summed(await self._of_owned(lambda engine: engine.owed_hosts()))

    def settle(self, owed: Owed) -> Awaitable[None]:
        return self._by_id(owed.id, lambda engine: engine.settle(owed))

    # -- long inbound messages -------------------------------------------------------------------------------

    def keep_part(self, part: Part) -> Awaitable[None]:
        try:
            partition = self._here()
        except NotOwned as error:
            return _failed(error)
        self._note_part(part.connector, part.key, partition)
        return self._owned[partition].keep_part(part)

    def _note_part(self, connector: str, key: str, partition: int) -> None:
        places = self._part_places
        places.setdefault((connector, key), set()).add(partition)
        places.move_to_end((connector, key))
        if len(places) > MAX_PART_PLACES:
            places.popitem(last=False)

    async def parts(self, connector: str, key: str) -> list[Part]:
        """Those in the partitions owned here. Parts that another node has are not waited for: when the binds of a
        carrier move between two parts of a message, each node delivers what it has."""

        async def read(partition: int, engine: Engine) -> list[Part]:
            found = await engine.parts(connector, key)
            if found:
                self._note_part(connector, key, partition)
            return found

        numbers = {part.number: part for part in itertools.chain(*await self._of_each(read))}
        return [numbers[number] for number in sorted(numbers)]

    async def drop_parts(self, keys: Sequence[tuple[str, str]]) -> None:
        groups: dict[int, list[tuple[str, str]]] = {}
        for key in keys:
            for partition in self._part_places.pop(key, None) or self._owned:
                groups.setdefault(partition, []).append(key)
        drops = [self._owned[one].drop_parts(group) for one, group in groups.items() if one in self._owned]
        _whole(await _all(drops))

    async def _drop_elsewhere(self, partition: int, connector: str, keys: Sequence[str]) -> None:
        """Of a message that is made: what of its parts lies beside its own partition."""
        for key in keys:
            places = self._part_places.get((connector, key), set())
            places.discard(partition)
            if not places:
                self._part_places.pop((connector, key), None)
        left = [(connector, key) for key in keys if (connector, key) in self._part_places]
        if left:
            await self.drop_parts(left)

    async def stale_parts(self, before_ms: int, limit: int) -> list[tuple[str, str]]:
        found = await self._of_owned(lambda engine: engine.stale_parts(before_ms, limit))
        return list(dict.fromkeys(itertools.chain(*found)))[:limit]

    # -- idempotency -----------------------------------------------------------------------------------------

    def claim_replay(self, row: Replay, now_ms: int) -> Awaitable[Replay | None]:
        return self._at_home(row, lambda engine: engine.claim_replay(row, now_ms))

    def complete_replay(self, row: Replay) -> Awaitable[None]:
        return self._at_home(row, lambda engine: engine.complete_replay(row))

    def release_replay(self, row: Replay) -> Awaitable[None]:
        return self._at_home(row, lambda engine: engine.release_replay(row))

    def _home(self, row: Replay) -> int:
        return self.home_of(row.account, row.key, row.path) % self.partitions

    def _at_home(self, row: Replay, write: Callable[[Engine], Awaitable[T]]) -> Awaitable[T]:
        partition = self._home(row)
        engine = self._owned.get(partition)
        return write(engine) if engine else _not_owned(partition)

    async def forget_replays(self, account: str, sid: str) -> None:
        """In the partitions owned here. A message's key has its home in the message's own partition, so whoever deletes
        it there has done all for it. What other resources' responses show may lie anywhere: for those the API asks
        every other owner to call this too, before it answers."""
        _whole(await _all(engine.forget_replays(account, sid) for engine in list(self._owned.values())))

    # -- upkeep ----------------------------------------------------------------------------------------------

    async def sweep(self, now_ms: int, carrier_before_ms: int = 0) -> None:
        _some(await _all(engine.sweep(now_ms, carrier_before_ms) for engine in list(self._owned.values())))

    async def close(self) -> None:
        """Finish what was handed in; let go of everything."""
        await self._close_all()


def _failed(error: Exception) -> Written[Any]:
    written: Written[Any] = Written()
    written.settle(None, error)
    return written


def _not_owned(partition: int) -> Written[Any]:
    return _failed(NotOwned(f"partition {partition} of the queue is not this node's"))


def _remove(group: list[tuple[int, int]]) -> Callable[[Engine], Awaitable[int]]:
    return lambda engine: engine.remove(group)


async def _all(awaitables: Iterable[Awaitable[T]]) -> list[T | BaseException]:
    """All outcomes; everything is handed in before anything is waited for."""
    return await asyncio.gather(*(plain(one) for one in list(awaitables)), return_exceptions=True)


async def _done(awaitables: Iterable[Awaitable[Any]]) -> None:
    _whole(await _all(awaitables))


def _whole(outcomes: Sequence[T | BaseException]) -> list[T]:
    """The results. Raises what one of them raised."""
    results: list[T] = []
    for one in outcomes:
        if isinstance(one, BaseException):
            raise one
        results.append(one)
    return results


def _some(outcomes: Sequence[T | BaseException]) -> list[T]:
    """The results of those partitions that answered. Raises when none did."""
    results = [one for one in outcomes if not isinstance(one, BaseException)]
    errors = [one for one in outcomes if isinstance(one, BaseException)]
    if errors and (not results or any(not isinstance(one, StoreUnavailable) for one in errors)):
        raise errors[0]
    return results


def _summed(found: Iterable[list[tuple[str, int, int]]]) -> list[tuple[str, int, int]]:
    """Counts added up, the first due time kept, by name."""
    sums: dict[str, tuple[int, int]] = {}
    for name, count, due_ms in itertools.chain(*found):
        before = sums.get(name)
        sums[name] = (count, due_ms) if before is None else (before[0] + count, min(before[1], due_ms))
    return [(name, count, due_ms) for name, (count, due_ms) in sums.items()]
