"""Membership: this node's lease, and which others are alive.

Theory. A node's record `node/<name>` counts up with each renewal (compare-and-set, then settled: on as many servers as
the store promises). A renewal extends the fence from the moment at which it began. Others read the record and note on
their own clocks since when it has not changed; after one lease without change, and with the consent of enough peers
(trunkline.cluster.votes), one replaces it by a tombstone: by compare-and-set of the very value it saw, so that either
the renewal or the tombstone stands, never both. Only a node with a tombstone is taken off the map, and all it owned
goes to its heir in that same write. No clock of the store and no expiry decides anything.

Nothing is believed because a write returned: what the map says counts once it was read, something of ours was settled
after that, and it was read again unchanged (a store that fails over may forget what was not settled).

The store away: the peers hold each other's leases (`hold`), so that running calls go on; nothing changes hands. The
store empty: records and map are written again by those who know them, and nobody claims anything for one lease.

A node whose record has a tombstone, or whose fence closed before it could write its record anew, is *expelled*: it
drops what it owned and joins again in a new epoch.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Final

import msgspec

from trunkline.cluster import changes, placement, records, votes
from trunkline.cluster.events import Expelled, Listener, NameTaken, Peers, Timing, View
from trunkline.cluster.fence import NS_PER_MS, Fence, boottime_ns, margin_ns
from trunkline.cluster.lease import Lease
from trunkline.cluster.observed import Observed
from trunkline.cluster.peers import PeerError, PeerUnavailable
from trunkline.cluster.records import ClusterMap, NodeRecord
from trunkline.model.clock import Clock
from trunkline.storage.memory import MemoryStore
from trunkline.storage.unavailable import StoreUnavailable

RENEWALS_PER_LEASE: Final = 4
TURN_SHARE: Final = 0.5
"""How much longer than the heir the others wait before they call a node lost, as a part of the lease."""
MAX_CHANGE_TRIES: Final = 8
"""Attempts at one change of the map, when others change it meanwhile."""
RESTORED_MS: Final = 10_000
"""A map written back less than this ago may lack what changed hands just before, for a node that did not see it."""
HOLD: Final = "hold"
CONSENT: Final = "consent"

log = logging.getLogger(__name__)


class Membership:
    """See the module. `start`, then `stop`; `view` is what is believed."""

    def __init__(
        self,
        me: NodeRecord,
        store: MemoryStore,
        peers: Peers,
        fence: Fence,
        clock: Clock,
        timing: Timing | None = None,
        now_ns: Callable[[], int] = boottime_ns,
    ) -> None:
        """`me`: name, zone, region, addresses, place, roles; the rest is filled in here."""
        self.timing = timing or Timing()
        self.fence = fence
        self.view = View()
        self.listeners: list[Listener] = []
        self.away = False
        """Whether the store did not answer last time."""
        self.embargo_ns = 0
        """Until then nothing is claimed: the store had forgotten something."""
        self._lease = Lease(me, store, fence, self.timing, now_ns, self._forgotten)
        self._store = store
        self._peers = peers
        self._clock = clock
        self._now = now_ns
        self._promises = votes.Promises(self.timing.ttl_ns)
        self._observed = Observed()
        self._map_value: bytes | None = None
        self._newest = ClusterMap()
        self._looked_ns = 0
        self._verified_ns = -self.timing.ttl_ns
        self._began_ns = 0
        self._hurry = asyncio.Event()
        self._calling: dict[str, asyncio.Task[None]] = {}
        self._closing: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        fence.on_extend.append(self._watch_fence)
        peers.handle(HOLD, self._on_hold)
        peers.handle(CONSENT, self._on_consent)

    @property
    def name(self) -> str:
        return self.me.name

    @property
    def epoch(self) -> int:
        """Of this life; 0 before the first."""
        return self.me.epoch

    def now_ns(self) -> int:
        """CLOCK_BOOTTIME."""
        return self._now()

    @property
    def me(self) -> NodeRecord:
        """This node's record, as last written."""
        return self._lease.me

    @property
    def live(self) -> bool:
        """Whether this node is a member in its present epoch, as far as it believes."""
        return self.epoch > 0 and self.view.map.members.get(self.name) == self.epoch

    def members(self) -> list[placement.Place]:
        """Names, zones and roles of all members, this one included."""
        return [placement.Place(one.name, one.zone, one.roles) for one in self.view.nodes.values()]

    def _watch_fence(self, deadline_ns: int) -> None:
        """Tell when it closes, at that moment."""
        if self._closing is not None:
            self._closing.cancel()
        wait_s = (deadline_ns - self._now()) / 1e9
        self._closing = asyncio.get_running_loop().call_later(wait_s + 0.001, self.fence.check) if wait_s > 0 else None

    # ---- life

    async def start(self, alone_here: bool = False) -> None:
        """Join; returns when this node is a member and its fence is open. Raises NameTaken, and StoreUnavailable when
        the store is away.

        `alone_here`: the caller holds the lock of the data folder that `place` names, so that a former process of this
        node is surely dead, its media processes too: it is succeeded at once, with all that it owned."""
        await self._join(alone_here)
        while not (self.live and self.fence.open):
            try:
                await self._cycle()
            except Expelled:
                await self._rejoin()
            if not self._hurry.is_set():
                await asyncio.sleep(self.timing.step_s)
            self._hurry.clear()
        self._task = asyncio.create_task(self._run(), name="membership")

    async def stop(self) -> None:
        """Leave in order: nothing is owned any more (see Ownership.leave)."""
        await self.halt()
        self.fence.close()
        try:
            async with asyncio.timeout(self.timing.lease_s):
                if await self._lease.leave():
                    await self.change(lambda now: changes.without(now, self.me, ""))
        except (StoreUnavailable, TimeoutError, OSError) as error:
            log.warning("node %s leaves without saying so: %s", self.name, error)

    async def halt(self) -> None:
        """End without a word, as a crash does."""
        tasks = [*self._calling.values(), *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._task = None

    def hurry(self) -> None:
        """Look at the store now rather than at the next beat."""
        self._hurry.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._cycle()
            except Expelled as reason:
                log.warning("node %s, epoch %d: %s; it joins again", self.name, self.epoch, reason)
                await self._rejoin()
            except Exception:  # the fence closes by itself if this goes on
                log.exception("node %s: a beat of the membership failed", self.name)
            try:
                async with asyncio.timeout(self._pause_s()):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            self._hurry.clear()

    def _pause_s(self) -> float:
        """To the next beat; sooner when somebody's lease ends before that."""
        now = self._now()
        beat = self._began_ns + self.timing.ttl_ns // RENEWALS_PER_LEASE
        soon = min([beat, *(due for due in self._due().values() if due > now)])
        return max(soon - now, NS_PER_MS) / 1e9

    async def _rejoin(self) -> None:
        self._expel()
        while True:
            try:
                return await self._join(alone_here=True)
            except (StoreUnavailable, TimeoutError, OSError, NameTaken) as error:
                log.warning("node %s cannot join: %s", self.name, error)
                await asyncio.sleep(self.timing.lease_s)

    def _expel(self) -> None:
        self.fence.close()
        self._newest, self._map_value = ClusterMap(), None
        self._observed.map_seen()
        self._lease.end()
        for listener in self.listeners:
            listener.expelled()

    # ---- joining

    async def _join(self, alone_here: bool) -> None:
        key = records.node_key(self.name)
        value = await self._get(key)
        found = records.decode_node(value)
        if value is not None and found is not None and found.state == "live" and found.run != self.me.run:
            same = found.place != "" and (found.place, found.address) == (self.me.place, self.me.address)
            sure = alone_here and same
            if not sure:
                value, found = await self._outlive(value, found)
        elif value is None and not alone_here:
            await asyncio.sleep((self.timing.ttl_ns + margin_ns(self.timing.ttl_ms)) / 1e9)
        epoch = await self._next_epoch(found.epoch if found else 0)
        self._map_value = None
        fresh = self._lease.begin(epoch, self._clock.now_ms())
        async with asyncio.timeout(self.timing.step_s):
            if not await self._store.compare_and_set(key, value, fresh):
                raise NameTaken(f"node.name {self.name}: another process has just started under this name, too")
        self._lease.base = fresh
        self._observed.forget(self.name)

    async def _outlive(self, value: bytes | None, found: NodeRecord) -> tuple[bytes | None, NodeRecord | None]:
        """Wait until a former life of this name is over by everybody's reckoning. Raises NameTaken if it goes on."""
        log.info("node %s: a former process may still be alive; waiting until its lease is over", self.name)
        while True:
            current = await self._get(records.node_key(self.name))
            record = records.decode_node(current)
            if current is None or record is None or record.state != "live":
                return current, record or found
            if (record.run, record.seq) != (found.run, found.seq):
                raise NameTaken(
                    f"node.name {self.name}: another process is alive under this name"
                    f"{f' at {record.address}' if record.address else ''}; each node needs its own"
                )
            self._observed.see(found.name, current, record, self._now())
            due = self._observed.unchanged_since(found.name) + self._patience_ns
            if self._now() >= due:
                await self._call_lost(found.name, found.epoch)
            await asyncio.sleep(self.timing.step_s)

    async def _next_epoch(self, at_least: int) -> int:
        """Above all former ones, even when the store has forgotten them: no less than Unix seconds."""
        key = records.epoch_key(self.name)
        for _ in range(MAX_CHANGE_TRIES):
            value = await self._get(key)
            epoch = max(records.decode_epoch(value) + 1, at_least + 1, self._clock.now_ms() // 1000)
            if await self._set(key, value, records.encode(epoch)):
                return epoch
        raise NameTaken(f"node.name {self.name}: several processes start under this name; give each its own")

    # ---- one beat

    async def _cycle(self) -> None:
        """Renew, look, adopt, and call lost who is. Raises Expelled."""
        self._began_ns = self._now()
        self.fence.check()
        try:
            if await self._renew_or_hold():
                async with asyncio.timeout(self.timing.step_s):
                    await self._look()
                self._looked_ns = self._now()
        except (StoreUnavailable, TimeoutError, OSError) as error:
            self._note_away(True, error)
        self.fence.check()

    async def _renew_or_hold(self) -> bool:
        if not self.away:
            try:
                if await self._renew():
                    return True
                self._note_away(True, None)
            except (StoreUnavailable, TimeoutError, OSError) as error:
                self._note_away(True, error)
            await self._ask_to_hold()
            return False
        held = asyncio.ensure_future(self._ask_to_hold())
        try:
            renewed = await self._renew()
            self._note_away(not renewed, None)
            return renewed
        finally:
            await held

    def _note_away(self, away: bool, error: Exception | None) -> None:
        if away and not self.away:
            why = str(error or "") or "slow"
            log.warning("node %s: the memory store is away (%s); its peers hold its lease", self.name, why)
        elif self.away and not away:
            log.info("node %s: the memory store is back", self.name)
        self.away = away

    async def _renew(self) -> bool:
        """Count the record up; that extends the fence if it is settled: a closed one only right after the map was
        looked at. Raises Expelled."""
        view = {name: epoch for name, epoch in self.view.map.members.items() if name != self.name}
        async with asyncio.timeout(self.timing.step_s):
            start = await self._lease.renew(view, placement.heir(self.name, self.members()))
        if start is not None and self.live and self._knows_its_own(start):
            self.fence.extend(start, self.timing.ttl_ms)
        return start is not None

    def _knows_its_own(self, start_ns: int) -> bool:
        """Whether the map was looked at lately: while the fence is open within a lease, else just now."""
        if self.fence.open:
            return start_ns - self._looked_ns < self.timing.ttl_ns
        return start_ns - self._verified_ns < self.timing.ttl_ns // 2

    def _forgotten(self) -> None:
        self.embargo_ns = self._now() + self.timing.ttl_ns + margin_ns(self.timing.ttl_ms)

    # ---- looking

    async def _look(self) -> None:
        """Read the map and the others' records; believe what is new once it is confirmed."""
        value, now = await self._read_map()
        if now is None or now.version < self._newest.version or self._newest.lineage not in ("", now.lineage):
            await self._restore(value, now)
            return
        self._observed.map_seen()
        for name in sorted({*now.members, *self._newest.members} - {self.name}):
            await self._read_member(name)
        fallen = self._observed.fallen(now)
        if value != self._map_value or fallen or now.members.get(self.name) != self.epoch or not self.fence.open:
            if not await self._renew():
                return
            again, _ = await self._read_map()
            for name in fallen:
                await self._read_member(name)
            if again == value and self._observed.fallen(now) == fallen:
                if value != self._map_value:
                    if self._restored_since(now):
                        self._forgotten()
                    self._map_value, self._newest = value, now
                    self._adopt(now)
                self._verified_ns = self._now()
                if not self.fence.open:
                    self.hurry()
                self._observed.keep(now.members)
                await self._tidy(now, fallen)
        self._call_out(now)

    def _restored_since(self, now: ClusterMap) -> bool:
        """Whether the store lost the map since this node looked at it last: others may not yet know what they lost."""
        if self._newest.version:
            return now.restored_ms != self._newest.restored_ms or now.version == self._newest.version
        return abs(self._clock.now_ms() - now.restored_ms) < RESTORED_MS

    async def _read_map(self) -> tuple[bytes | None, ClusterMap | None]:
        value = await self._get(records.MAP_KEY)
        return value, records.decode_map(value)

    async def _read_member(self, name: str) -> None:
        value = await self._get(records.node_key(name))
        self._observed.see(name, value, records.decode_node(value), self._now())

    async def _restore(self, value: bytes | None, now: ClusterMap | None) -> None:
        """The store has no map, or an older one than this node knows: write the newest back. A node that knows none
        first waits one lease for somebody who does."""
        if self._newest.version:
            self._forgotten()
            newest = self._newest
            if now is not None and now.lineage != newest.lineage:
                raise Expelled("the cluster was begun anew without it")
        elif now is None:
            since = self._observed.map_missing_since(self._now())
            if self._now() < since + self.timing.ttl_ns + margin_ns(self.timing.ttl_ms):
                return
            newest = ClusterMap(lineage=os.urandom(8).hex(), members=await self._all_live())
        else:
            return
        version = max(newest.version, now.version if now else 0) + 1
        restored_ms = self._clock.now_ms() if self._newest.version else 0
        if await self._set(
            records.MAP_KEY,
            value,
            records.encode(msgspec.structs.replace(newest, version=version, restored_ms=restored_ms)),
        ):
            self.hurry()

    async def _all_live(self) -> dict[str, int]:
        """Whoever has a record that says it lives: what it owns is not known, so that it must be heard, or called lost,
        before anything is claimed."""
        async with asyncio.timeout(self.timing.step_s):
            found = await self._store.scan(records.node_key(""))
        nodes = [record for _, value in found if (record := records.decode_node(value)) is not None]
        return {node.name: node.epoch for node in nodes if node.state == "live"} | {self.name: self.epoch}

    async def _tidy(self, now: ClusterMap, fallen: list[str]) -> None:
        """Off the map with whom a tombstone is seen of, onto it with this node."""
        for name in fallen:
            record = self._observed.record(name)
            if record is not None:
                await self._remove(record)
        if now.members.get(self.name) != self.epoch:
            await self.change(lambda latest: changes.with_member(latest, self.me))

    # ---- believing

    def _adopt(self, now: ClusterMap) -> None:
        before = self.view
        nodes = {name: record for name in now.members if (record := self._record_of(name, before)) is not None}
        self.view = View(map=now, nodes=nodes)
        stamp = self._now()
        self._promises.alive(now.members)
        for name, epoch in before.map.members.items():
            if now.members.get(name) != epoch:
                self._promises.gone(name, epoch, stamp)
        self._peers.know({name: one.address for name, one in nodes.items() if name != self.name})
        self._tell(before)

    def _record_of(self, name: str, before: View) -> NodeRecord | None:
        return self.me if name == self.name else self._observed.record(name) or before.nodes.get(name)

    def _tell(self, before: View) -> None:
        old, new = before.map.members, self.view.map.members
        for listener in self.listeners:
            for name, epoch in old.items():
                if (name in new and new[name] == epoch) or name == self.name:
                    continue
                record = before.nodes.get(name)
                if record is not None:
                    orderly = self._observed.how_gone(name, epoch) == "left"
                    (listener.left if orderly else listener.lost)(record)
            for name, epoch in new.items():
                if old.get(name) != epoch and name in self.view.nodes:
                    listener.joined(self.view.nodes[name])
            listener.changed(self.view)

    # ---- changing the map

    async def change(self, make: Callable[[ClusterMap], ClusterMap | None]) -> bool:
        """Change the map by compare-and-set, `make` being asked again with the newest one when others change it too;
        None: nothing to do. True: it was written, which is no reason to believe it: wait for the view. Raises
        StoreUnavailable or TimeoutError: it may be written, now or later."""
        for _ in range(MAX_CHANGE_TRIES):
            value, now = await self._read_map()
            if now is None or now.version < self._newest.version or now.lineage != self._newest.lineage:
                return False
            made = make(now)
            if made is None:
                return False
            new = records.encode(msgspec.structs.replace(made, version=now.version + 1))
            if await self._set(records.MAP_KEY, value, new):
                self.hurry()
                return True
        return False

    # ---- others' leases

    @property
    def _patience_ns(self) -> int:
        return int(self.timing.ttl_ns * self.timing.patience)

    def _due(self) -> dict[str, int]:
        """Member -> when this node calls it lost if it stays silent."""
        turn = int(self.timing.ttl_ns * TURN_SHARE)
        due = {}
        for name in self.view.map.members:
            record = self._observed.record(name)
            if name != self.name and (record is None or record.state == "live"):
                late = 0 if record is not None and record.heir == self.name else turn
                due[name] = self._observed.unchanged_since(name) + self._patience_ns + late
        return due

    def _call_out(self, now: ClusterMap) -> None:
        stamp = self._now()
        for name, due in self._due().items():
            if name in now.members and stamp >= due and name not in self._calling:
                task = asyncio.create_task(self._call_lost(name, now.members[name]), name=f"call {name} lost")
                self._calling[name] = task
                task.add_done_callback(lambda done, name=name: self._called(name, done))  # type: ignore[misc]

    def _called(self, name: str, done: asyncio.Task[None]) -> None:
        del self._calling[name]
        if done.cancelled() or (error := done.exception()) is None:
            return
        if not isinstance(error, StoreUnavailable | TimeoutError | OSError):
            raise error

    def silent(self, name: str) -> bool:
        """Whether a member has not renewed for a lease, as far as this node sees."""
        return name != self.name and self._now() >= self._observed.unchanged_since(name) + self.timing.ttl_ns

    async def _call_lost(self, name: str, epoch: int) -> None:
        """Replace a silent node's record by a tombstone, if enough of its peers consent."""
        value = self._observed.value(name)
        record = self._observed.record(name) or NodeRecord(name=name, epoch=epoch)
        if not await self._may_call_lost(record):
            return
        tombstone = msgspec.structs.replace(record, state="lost")
        if not await self._set(records.node_key(name), value, records.encode(tombstone)):
            return
        log.warning("node %s, epoch %d, is lost; its heir is %s", name, record.epoch, record.heir or "nobody yet")
        await self._remove(tombstone)

    async def _may_call_lost(self, record: NodeRecord) -> bool:
        ask = votes.Ask(record.name, record.epoch, record.seq)
        now = self._now()
        named = record.view.get(self.name) == self.epoch
        for name, epoch in record.view.items():
            if self.view.map.members.get(name) != epoch:
                self._promises.gone(name, epoch, now)
        granted = {name: epoch for name, epoch in record.view.items() if self._promises.spent(name, epoch, now)}
        if not self._promises.consent(ask, now):
            return False
        if named:
            granted[self.name] = self.epoch
        others = [name for name in record.view if name != self.name and name not in granted]
        if not votes.enough_to_take_over(record.view, granted):
            granted |= await self._ask(CONSENT, ask, others)
        if votes.enough_to_take_over(record.view, granted):
            return True
        silent_ns = now - max(self._observed.unchanged_since(record.name), self._promises.held_ns(record.name))
        limit_s = self.timing.hold_limit_s if named or not record.view else self.timing.hold_all_s
        return silent_ns >= int(limit_s * (1 + votes.MAX_DRIFT) * 1e9) + self.timing.ttl_ns

    async def _remove(self, gone: NodeRecord) -> None:
        places = [placement.Place(one.name, one.zone, one.roles) for one in (*self.view.nodes.values(), gone)]
        await self.change(lambda now: changes.without(now, gone, changes.heir_of(gone, now, places)))

    # ---- promises

    async def _ask_to_hold(self) -> None:
        """Extend the fence by the peers' promises. They do not open a closed one: what this node owns is verified
        before that."""
        if not self.live:
            return
        lease = self._lease
        start, ask = self._now(), votes.Ask(self.name, self.epoch, lease.settled_seq)
        granted = await self._ask(HOLD, ask, lease.voters())
        held_ms = lease.held_ms(start, granted)
        if self.live and ask.epoch == self.epoch and held_ms > 0 and self.fence.open:
            self.fence.extend(start, held_ms)

    async def _ask(self, kind: str, ask: votes.Ask, names: list[str]) -> dict[str, int]:
        """Who grants, with the epoch in which he does."""
        payload = votes.encode(ask)
        asked = [self._peers.call(name, kind, payload, self.timing.step_s) for name in names]
        granted = {}
        for name, told in zip(names, await asyncio.gather(*asked, return_exceptions=True), strict=True):
            if isinstance(told, bytes):
                answer = votes.read_answer(told)
                if answer.granted:
                    granted[name] = answer.epoch
            elif not isinstance(told, PeerUnavailable | PeerError | TimeoutError):
                raise told
        return granted

    async def _on_hold(self, node: str, payload: bytes) -> bytes:
        ask = votes.decode_ask(payload)
        mine = node == ask.name and self.live and self.fence.open
        return votes.encode(votes.Answer(mine and self._promises.hold(ask, self._now()), self.epoch))

    async def _on_consent(self, node: str, payload: bytes) -> bytes:
        ask = votes.decode_ask(payload)
        seen = self._observed.record(ask.name)
        newer = seen is not None and (seen.epoch, seen.seq) > (ask.epoch, ask.seq)
        granted = self.epoch > 0 and not newer and self._promises.consent(ask, self._now())
        return votes.encode(votes.Answer(granted, self.epoch))

    # ---- the store, with a bound on each step

    async def _get(self, key: str) -> bytes | None:
        async with asyncio.timeout(self.timing.step_s):
            return await self._store.get(key)

    async def _set(self, key: str, old: bytes | None, new: bytes) -> bool:
        """Compare-and-set, settled."""
        async with asyncio.timeout(self.timing.step_s):
            return await self._store.compare_and_set(key, old, new) and await self._store.settled(self.timing.step_s)
