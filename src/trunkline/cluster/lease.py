"""This node's own record: the lease that others watch.

Theory. A renewal is one compare-and-set of the whole record, counted up, and is worth something once it is settled.
What became of an attempt that did not return is not known: it may stand in the store, also later. So every attempt
since the last settled one is kept in mind, where it names other peers than that one: whoever extends the lease by
promises must have enough of the peers of each.
"""

import os
from collections.abc import Callable, Mapping

import msgspec

from trunkline.cluster import records, votes
from trunkline.cluster.events import Expelled, Timing
from trunkline.cluster.fence import NS_PER_MS, Fence
from trunkline.cluster.records import NodeRecord
from trunkline.storage.memory import MemoryStore


class Lease:
    """See the module. `me`: as last written, or tried to."""

    def __init__(
        self,
        me: NodeRecord,
        store: MemoryStore,
        fence: Fence,
        timing: Timing,
        now_ns: Callable[[], int],
        forgotten: Callable[[], None],
    ) -> None:
        """`forgotten`: told when the store had lost the record."""
        self.me = msgspec.structs.replace(me, run=me.run or os.urandom(8).hex())
        self.base: bytes | None = None
        """What the store has of this node, as far as is known."""
        self.settled_seq = -1
        """The last renewal that is settled."""
        self._key = records.node_key(me.name)
        self._store = store
        self._fence = fence
        self._timing = timing
        self._now = now_ns
        self._forgotten = forgotten
        self._views: list[Mapping[str, int]] = []
        self._settled_ns = 0
        self._limit_from_ns = 0

    def begin(self, epoch: int, started_ms: int) -> bytes:
        """A new life; returns its first record, to be written."""
        self.me = msgspec.structs.replace(
            self.me, epoch=epoch, seq=0, state="live", view={}, heir="", started_ms=started_ms
        )
        self._views, self.settled_seq = [], -1
        self._limit_from_ns = self._settled_ns = self._now()
        return records.encode(self.me)

    def end(self) -> None:
        """The life is over."""
        self.base = None
        self.me = msgspec.structs.replace(self.me, epoch=0)

    async def renew(self, view: Mapping[str, int], heir: str) -> int | None:
        """Count the record up, naming the peers and the heir. When the renewal began (CLOCK_BOOTTIME, ns), if it is
        settled. Raises Expelled; StoreUnavailable or a cancellation leave it in doubt."""
        self.me = msgspec.structs.replace(self.me, seq=self.me.seq + 1, view=view, heir=heir)
        if view not in self._views:
            self._views.append(view)
        start = self._now()
        if not await self._write(records.encode(self.me)):
            return None
        self._views, self.settled_seq = [view], self.me.seq
        self._limit_from_ns = self._settled_ns = start
        return start

    async def leave(self) -> bool:
        """Say that this life ends in order."""
        gone = records.encode(msgspec.structs.replace(self.me, state="left", seq=self.me.seq + 1))
        return await self._store.compare_and_set(self._key, self.base, gone)

    async def _write(self, value: bytes) -> bool:
        """Over what this node wrote last, whichever attempt of its own that was."""
        for _ in range(2):
            if await self._store.compare_and_set(self._key, self.base, value):
                self.base = value
                return await self._store.settled(self._timing.step_s)
            current = await self._store.get(self._key)
            if current is None:
                return await self._write_anew(value)
            found = records.decode_node(current)
            if found is None or (found.run, found.epoch, found.state) != (self.me.run, self.me.epoch, "live"):
                raise Expelled(f"its record is another one ({found.state if found else 'unreadable'})")
            self.base = current
        return False

    async def _write_anew(self, value: bytes) -> bool:
        """The store has forgotten this node. As long as its fence is open nobody has called it lost before that."""
        open_before = self._fence.open
        done = open_before and await self._store.compare_and_set(self._key, None, value)
        if not self._fence.open:
            raise Expelled("the store has forgotten it, and its lease is over")
        if not done:
            return False
        self.base = value
        self._forgotten()
        return await self._store.settled(self._timing.step_s)

    # ---- promises

    def voters(self) -> list[str]:
        """Who can extend the lease while the store is away."""
        return sorted({name for view in self._views for name in view})

    def held_ms(self, start_ns: int, granted: Mapping[str, int]) -> float:
        """By how much the promises of those who granted (name -> epoch), asked for at `start_ns`, extend the lease from
        then; not above 0: not at all."""
        if not self._views or not votes.enough_to_hold(self._views, granted):
            return 0.0
        limit_from_ns, limit_s = self._limit_from_ns, self._timing.hold_limit_s
        if votes.held_by_all(self._views, granted):
            self._limit_from_ns = max(self._limit_from_ns, start_ns)
            limit_from_ns, limit_s = self._settled_ns, self._timing.hold_all_s
        return min(self._timing.ttl_ms, (limit_from_ns - start_ns) / NS_PER_MS + limit_s * 1000)
