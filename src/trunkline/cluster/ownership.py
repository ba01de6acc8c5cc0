"""Owning things: partitions of the queue, connectors, trunk registrations, singletons.

Theory. The map says whose a thing is (trunkline.cluster.membership decides when it is believed); this file makes it so
here. A thing that the map newly gives to this node is *granted*: nobody else sends for it any more, so this node may.
Then it is *gained*: a partition is opened in its database first, which makes the former owner's later commits fail, and
which takes as long as that database is away. One that the map no longer gives to this node is dropped at once. What
nobody owns is claimed by the node that placement names. What placement would rather see elsewhere is handed over, one
at a time and only while nobody comes or goes: it gets no new work, what is under way is waited for, it is released,
and only then does the map name the next owner.

A write of the map that did not return may still be done later. So a node that has tried to give a thing away does not
take it back before it has seen a later version of the map that still names it.

`holds` is true while the thing is owned *and* the fence is open. A fence that opens again finds what it had: it opens
only by a renewal or by promises, both of which show that nobody took anything meanwhile.
"""

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping
from typing import Final, Protocol

import msgspec

from trunkline.cluster import placement
from trunkline.cluster.events import Listener, View
from trunkline.cluster.membership import Membership
from trunkline.cluster.placement import Thing
from trunkline.cluster.records import ClusterMap, Owner
from trunkline.storage.survives import CannotSurvive
from trunkline.storage.unavailable import StoreUnavailable

MAX_GAINING: Final = 4
"""Things opened at once: a takeover must not flood what is left of the cluster."""
RETRY_S: Final = 0.5
"""Wait after the store, or a partition's database, did not answer."""
HANDOVER_AFTER_S: Final = 5.0
"""How long nobody must have come or gone before things move for balance alone."""
FIRST_AFTER_S: Final = 1.0
"""The same, for the first partition of a node that has none: it can begin no call without one."""
LEAVING_S: Final = 30.0
"""Longest wait for what is under way of a thing that is to be handed over."""
GIVE_S: Final = 1.0
"""What a node that leaves takes at least to tell who owns its things now."""
TOGETHER_S: Final = 0.05
"""What is let go of within so long is given away in one write of the map."""
HANDOVER_AGAIN_S: Final = 60.0
"""Wait after a thing could not be let go of (a call is up)."""

NOT_BACK: Final = 1 << 62
"""The version of the map from which on a thing that was given away is taken back: none yet."""

log = logging.getLogger(__name__)


class Partitions(Protocol):
    """The queue in parts (trunkline.storage.sharded)."""

    @property
    def owned(self) -> frozenset[int]: ...

    async def own(self, p: int) -> None:
        """Open it for writing; the former owner's later commits fail. Raises StoreUnavailable."""

    async def release(self, p: int) -> None:
        """Commit what was handed in and let go."""


class Hooks:
    """What is done with the things of one kind; override what is of interest."""

    def granted(self, thing: str) -> None:
        """Nobody else may send for it any more: what takes no write in its partition can begin; `gained`, or `lost`,
        follows."""

    async def gained(self, thing: str, former: str) -> None:
        """It is ours. `former`: the dead node that we inherited it from (our own name: a former life of this node);
        empty: claimed, or handed over. Must not raise."""

    async def leaving(self, thing: str) -> bool:
        """Give it no new work and wait until nothing of it is under way. False: not now. Cancelled after LEAVING_S,
        which counts as False; `stays` follows."""
        return True

    def stays(self, thing: str) -> None:
        """It does not leave after all."""

    async def released(self, thing: str) -> None:
        """It is no longer ours, in order."""

    def lost(self, thing: str) -> None:
        """It is no longer ours, at once: nothing of it may be sent or written."""


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds; see the constants."""

    handover_after_s: float = HANDOVER_AFTER_S
    first_after_s: float = FIRST_AFTER_S
    leaving_s: float = LEAVING_S
    again_s: float = HANDOVER_AGAIN_S
    retry_s: float = RETRY_S


def partition(number: int) -> str:
    """The name of a partition of the queue as a thing."""
    return f"p/{number}"


class Ownership(Listener):
    """See the module."""

    def __init__(self, membership: Membership, partitions: Partitions | None = None, pace: Pace | None = None) -> None:
        self.leaving: set[str] = set()
        """Things that are ours, but are to get no new work."""
        self._membership = membership
        self._partitions = partitions
        self._pace = pace or Pace()
        self._hooks: dict[str, Hooks] = {}
        self._things: dict[str, Thing] = {}
        self._granted: set[str] = set()
        self._owned: dict[str, str] = {}
        self._given: dict[str, int] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._gaining: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(MAX_GAINING)
        self._refused: dict[str, float] = {}
        self._steady_since = 0.0
        self._last_members: Mapping[str, int] = {}
        self._moving = False
        self.retiring = False
        """Whether this node leaves: everything goes, and nothing is gained any more."""
        self._news = asyncio.Event()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        membership.listeners.append(self)

    # ---- what others ask

    @property
    def owned(self) -> frozenset[str]:
        """What is ours, whether or not the fence is open."""
        return frozenset(self._owned)

    def holds(self, thing: str) -> bool:
        """Whether this node may act for a thing now."""
        return thing in self._owned and self._membership.fence.open

    def grants(self, thing: str) -> bool:
        """Whether nobody else sends for a thing, though it may not have been opened here yet."""
        return thing in self._granted

    def owner_of(self, thing: int | str) -> str | None:
        """The node that owns a partition or another thing, as this node believes."""
        owner = self._membership.view.map.owner(partition(thing) if isinstance(thing, int) else thing)
        return owner.node if owner else None

    async def wait_for_owner(self, thing: int | str, timeout_s: float) -> str | None:
        """`owner_of`, waiting for there to be one; None: not within `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while (owner := self.owner_of(thing)) is None:
                    await self._changed.wait()
                return owner
        except TimeoutError:
            return None

    # ---- life

    def register(self, kind: str, hooks: Hooks) -> None:
        """`kind`: what stands before the slash in a thing's name (`p`, `connector`, ...)."""
        self._hooks[kind] = hooks

    def offer(self, things: Iterable[Thing]) -> None:
        """All that there is to own; every node is given the same."""
        self._things = {thing.name: thing for thing in things}
        self._news.set()

    def claimable(self) -> set[str]:
        """Things that a live node may own."""
        now = self._membership.view.map
        return set(self._placed(now, self._present(now)))

    async def start(self) -> None:
        """Begin to own what is ours."""
        self.retiring = False
        self._steady_since = asyncio.get_running_loop().time()
        self._task = asyncio.create_task(self._run(), name="ownership")
        self._news.set()

    async def leave(self, timeout_s: float) -> None:
        """Hand everything over, waiting up to `timeout_s` for what is under way; nothing is gained any more. The next
        owners are told in what is left of that time, a second at least. What cannot be let go of (a database that is
        away) holds up nothing else, and is given away when the time is over: its next owner's epoch fences it."""
        self.retiring = True
        clock = asyncio.get_running_loop().time
        end = clock() + timeout_s
        self.leaving.update(self._owned)
        going = {asyncio.create_task(self._let_go(thing, timeout_s, always=True)): thing for thing in self._owned}
        while going and clock() < end:
            await asyncio.wait(going, timeout=end - clock(), return_when=asyncio.FIRST_COMPLETED)
            gone, _ = await asyncio.wait(going, timeout=TOGETHER_S)
            for task in gone:
                if error := task.exception():
                    log.error("%s could not be let go of in order", going[task], exc_info=error)
            await self._give([going.pop(task) for task in gone], max(end - clock(), min(GIVE_S, timeout_s)))
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)
        await self._give([thing for thing in going.values() if thing in self._given], min(GIVE_S, timeout_s))
        self._granted.clear()
        await self.stop()

    async def stop(self) -> None:
        """End without a word."""
        tasks = [*self._tasks, *self._gaining.values(), *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._task = None

    # ---- what membership tells

    def changed(self, view: View) -> None:
        if view.map.members != self._last_members:
            self._last_members = view.map.members
            self._steady_since = asyncio.get_running_loop().time()
        for thing in [thing for thing in sorted(self._granted) if not self._is_mine(thing)]:
            self._drop(thing)
        for thing in [thing for thing in self._given if not self._is_mine(thing)]:
            del self._given[thing]
        self._news.set()
        self._changed.set()
        self._changed = asyncio.Event()

    def expelled(self) -> None:
        for thing in sorted(self._granted):
            self._drop(thing)
        self._given.clear()

    # ---- making it so

    def _is_mine(self, thing: str) -> bool:
        owner = self._membership.view.map.things.get(thing)
        return owner is not None and (owner.node, owner.epoch) == (self._membership.name, self._membership.epoch)

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            wait_s = None
            try:
                wait_s = await self._reconcile()
            except (StoreUnavailable, TimeoutError, OSError) as error:
                log.warning("what nobody owns is claimed later: %s", error or "the store is slow")
                wait_s = self._pace.retry_s
            except Exception:  # what is owned goes on; the rest is tried again
                log.exception("node %s: looking after what is owned failed", self._membership.name)
                wait_s = self._pace.retry_s
            if wait_s is not None:
                asyncio.get_running_loop().call_later(max(wait_s, 0.001), self._news.set)

    async def _reconcile(self) -> float | None:
        """Gain what is ours, claim what is nobody's, hand over what is too much; returns when to look again."""
        now = self._membership.view.map
        if not self._membership.live or self.retiring:
            return None
        embargo_s = (self._membership.embargo_ns - self._membership.now_ns()) / 1e9
        if embargo_s > 0:
            return embargo_s
        for thing in now.things:
            if thing not in self._things or thing in self._owned or thing in self._gaining:
                continue
            if self._is_mine(thing) and now.version > self._given.get(thing, -1):
                self._given.pop(thing, None)
                self._gain(thing)
        wanted = self._placed(now, self._present(now))
        me = self._membership.name
        free = any(now.owner(thing) is None for thing, node in wanted.items() if node == me)
        if free and not await self._membership.change(self._claim):
            return self._pace.retry_s
        return self._balance(wanted)

    def _present(self, now: ClusterMap) -> list[str]:
        return [name for name in now.members if not self._membership.silent(name)]

    def _placed(self, now: ClusterMap, nodes: Iterable[str]) -> dict[str, str]:
        current = {name: owner.node for name in now.things if (owner := now.owner(name)) is not None}
        roles = {name: record.roles for name, record in self._membership.view.nodes.items()}
        return placement.place(self._things.values(), nodes, current, roles)

    def _claim(self, now: ClusterMap) -> ClusterMap | None:
        me, epoch = self._membership.name, self._membership.epoch
        if now.members.get(me) != epoch or self._membership.embargo_ns > self._membership.now_ns():
            return None
        present = self._present(now)
        wanted = self._placed(now, present)
        free = {thing: Owner(me, epoch) for thing, node in wanted.items() if node == me and now.owner(thing) is None}
        if len(present) < len(now.members):  # who is silent might own what the store has forgotten the owner of
            free = {thing: owner for thing, owner in free.items() if thing in now.things}
        return msgspec.structs.replace(now, things={**now.things, **free}) if free else None

    # ---- gaining

    def _gain(self, thing: str) -> None:
        task = asyncio.create_task(self._gain_it(thing), name=f"gain {thing}")
        self._gaining[thing] = task
        task.add_done_callback(lambda done: self._gained(thing))

    def _gained(self, thing: str) -> None:
        self._gaining.pop(thing, None)
        self._news.set()

    async def _gain_it(self, thing: str) -> None:
        epoch = self._membership.epoch
        owner = self._membership.view.map.things[thing]
        async with self._lock(thing):
            while self._is_mine(thing) and self._membership.epoch == epoch and not self.retiring:
                self._grant(thing)
                async with self._slots:  # not while it waits: a database that is away must not hold up the others
                    if await self._open(thing, epoch):
                        self._grant(thing)  # it may have been lost and come back meanwhile
                        self._owned[thing] = owner.former
                        former = f", of {owner.former}" if owner.former else ""
                        log.info("node %s owns %s%s", self._membership.name, thing, former)
                        await self._hooks_of(thing).gained(thing, owner.former)
                        return
                await asyncio.sleep(self._pace.retry_s)

    def _grant(self, thing: str) -> None:
        if thing in self._granted:
            return
        self._granted.add(thing)
        try:
            self._hooks_of(thing).granted(thing)
        except Exception:  # it is opened all the same
            log.exception("what can begin of %s before it is opened did not", thing)

    async def _open(self, thing: str, epoch: int) -> bool:
        """Open a partition, if it can be done now and is still ours then."""
        number = _number(thing)
        if self._partitions is None or number is None:
            return True
        try:
            await self._partitions.own(number)
        except (StoreUnavailable, CannotSurvive) as error:
            log.warning("partition %d cannot be opened yet: %s", number, error)
            return False
        except Exception:  # whatever it is, it is tried again no sooner
            log.exception("partition %d cannot be opened", number)
            return False
        if self._is_mine(thing) and self._membership.epoch == epoch:
            return True
        await self._close(thing)
        return False

    def deposed(self, number: int) -> None:
        """A partition was taken from us in its database. As a rule the map says so in a moment. If it goes on to name
        this node, then somebody was late who is not the owner any more: it is opened anew."""
        self._spawn(self._reopen(partition(number), number))

    async def _reopen(self, thing: str, number: int) -> None:
        await asyncio.sleep(2 * self._pace.retry_s)
        async with self._lock(thing):
            if self._partitions is not None and thing in self._owned and number not in self._partitions.owned:
                self._drop(thing)
                self._news.set()

    # ---- losing

    def _drop(self, thing: str) -> None:
        """Not ours any more, at once; the partition is closed behind it."""
        self._granted.discard(thing)
        self._owned.pop(thing, None)
        self.leaving.discard(thing)
        try:
            self._hooks_of(thing).lost(thing)
        except Exception:  # the others that are lost with it must be told of, too
            log.exception("what was to be done at the loss of %s was not done", thing)
        log.warning("node %s has lost %s", self._membership.name, thing)
        self._spawn(self._close_dropped(thing))

    async def _close_dropped(self, thing: str) -> None:
        async with self._lock(thing):
            if thing not in self._owned:
                await self._close(thing)

    async def _close(self, thing: str) -> None:
        number = _number(thing)
        if self._partitions is not None and number is not None:
            try:
                await self._partitions.release(number)
            except StoreUnavailable as error:
                log.info("partition %d: %s", number, error)

    # ---- handing over

    def _balance(self, wanted: dict[str, str]) -> float | None:
        loop = asyncio.get_running_loop()
        me = self._membership.name
        surplus = [thing for thing in sorted(self._owned) if wanted.get(thing, me) != me and thing not in self.leaving]
        if not surplus or self._moving:
            return None
        after_s = self._pace.handover_after_s
        first = [thing for thing in surplus if _number(thing) is not None and self._has_none(wanted[thing])]
        if first:
            surplus, after_s = first, min(after_s, self._pace.first_after_s)
        steady_s = self._steady_since + after_s - loop.time()
        if steady_s > 0:
            return steady_s
        due = {thing: self._refused.get(thing, 0.0) + self._pace.again_s for thing in surplus if thing in self._refused}
        ready = [thing for thing in surplus if due.get(thing, 0.0) <= loop.time()]
        if not ready:
            return min(due.values()) - loop.time()
        self._moving = True
        self._spawn(self._hand_over(ready[0]))
        return None

    def _has_none(self, node: str) -> bool:
        """Whether a node owns no partition."""
        things = self._membership.view.map.things
        return not any(owner.node == node for name, owner in things.items() if _number(name) is not None)

    async def _hand_over(self, thing: str) -> None:
        try:
            self.leaving.add(thing)
            if await self._let_go(thing, self._pace.leaving_s):
                await self._give([thing], None)
            else:
                self._refused[thing] = asyncio.get_running_loop().time()
        finally:
            self._moving = False
            self._news.set()

    async def _let_go(self, thing: str, timeout_s: float, always: bool = False) -> bool:
        """Wait for what is under way, then release. False: it stays ours, or was lost meanwhile."""
        hooks = self._hooks_of(thing)
        ready = False
        try:
            async with asyncio.timeout(timeout_s):
                ready = await hooks.leaving(thing)
        except TimeoutError:
            log.info("%s stays for now: something of it is still under way", thing)
        except Exception:
            log.exception("%s could not be made ready to leave", thing)
        async with self._lock(thing):
            if thing not in self._owned:
                return False
            self.leaving.discard(thing)
            if not ready and not always:
                hooks.stays(thing)
                return False
            self._given[thing] = NOT_BACK
            self._granted.discard(thing)
            del self._owned[thing]
            await self._close(thing)
            try:
                await hooks.released(thing)
            except Exception:  # it is let go of all the same: somebody must be told to take it
                log.exception("what was to be done after %s has left was not done", thing)
            return True

    async def _give(self, things: list[str], timeout_s: float | None) -> None:
        """Have the map name the next owners, until it does (or names this node again, which then takes them back)."""
        epoch = self._membership.epoch
        try:
            async with asyncio.timeout(timeout_s):
                while self._membership.epoch == epoch and any(self._still_given(thing) for thing in things):
                    try:
                        await self._membership.change(lambda now: self._passed_on(now, things))
                    except (StoreUnavailable, TimeoutError, OSError) as error:
                        log.warning("%s cannot be passed on yet: %s", ", ".join(things), error or "the store is slow")
                    changed = self._changed
                    if any(self._still_given(thing) for thing in things):
                        try:
                            async with asyncio.timeout(self._pace.retry_s):
                                await changed.wait()
                        except TimeoutError:
                            continue
        except TimeoutError:
            log.warning("%s: nobody was told to take them", ", ".join(things))

    def _still_given(self, thing: str) -> bool:
        version = self._given.get(thing)
        return version is not None and self._is_mine(thing) and self._membership.view.map.version <= version

    def _passed_on(self, now: ClusterMap, things: list[str]) -> ClusterMap | None:
        me, epoch = self._membership.name, self._membership.epoch
        owners = {name: now.things[name] for name in things if name in now.things}
        mine = [
            name for name, owner in owners.items() if (owner.node, owner.epoch) == (me, epoch) and name in self._given
        ]
        if not mine or now.members.get(me) != epoch:
            return None
        others = [name for name in self._present(now) if name != me or not self.retiring]
        wanted = self._placed(now, others)
        moved = dict(now.things)
        for thing in mine:
            node = me if self._given[thing] != NOT_BACK else wanted.get(thing, "")
            if node == me:  # once that is decided it stays so
                self._given[thing] = now.version
            if node in now.members:
                moved[thing] = Owner(node, now.members[node])
            else:
                del moved[thing]
        return msgspec.structs.replace(now, things=moved)

    # ---- odds and ends

    def _hooks_of(self, thing: str) -> Hooks:
        return self._hooks.get(thing.partition("/")[0], _NO_HOOKS)

    def _lock(self, thing: str) -> asyncio.Lock:
        return self._locks.setdefault(thing, asyncio.Lock())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_NO_HOOKS: Final = Hooks()


def _number(thing: str) -> int | None:
    """The number of a partition; None for other things."""
    kind, _, number = thing.partition("/")
    return int(number) if kind == "p" and number.isdigit() else None
