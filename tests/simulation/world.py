"""A cluster in virtual time: its nodes, the store they share, the network between them, and what goes wrong.

The store is a primary with two replicas that follow after a while; what is settled is on one replica at least. A
fail-over takes the replica that has most; what was not settled is forgotten. A node on the old primary's side of a cut
goes on writing there, unsettled, as with the real thing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import copy_context
from random import Random
from typing import Any

import msgspec

from tests.simulation.loop import NODE, Loop, Process
from trunkline.cluster import votes
from trunkline.cluster.events import NameTaken, Timing
from trunkline.cluster.fence import Fence
from trunkline.cluster.membership import Membership
from trunkline.cluster.ownership import Hooks, Ownership, Pace
from trunkline.cluster.peers import PeerError, PeerUnavailable
from trunkline.cluster.placement import MESSAGES, UPKEEP, Thing, able, partitions
from trunkline.cluster.records import NodeRecord
from trunkline.storage.memory import StoreInDoubt
from trunkline.storage.unavailable import StoreUnavailable

LEASE_S = 1.0
HOLD_LIMIT_S = 8.0
"""Shorter than the real one, so that runs reach it."""
HOLD_ALL_S = 20.0
START_S = 100.0
"""The virtual clock at the start."""


class Server:
    """One server of the store: its data, and what it has written in order."""

    def __init__(self, data: dict[str, bytes] | None = None) -> None:
        self.data = dict(data or {})
        self.log: list[tuple[float, str, bytes | None]] = []
        self.up = True
        self.followed = True
        """Whether replicas follow it."""


class Store:
    """All servers of the store, as the nodes reach them."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.primary = Server()
        self.old: Server | None = None
        self.old_side: set[str] = set()
        """Nodes that still talk to the old primary."""
        self.unreachable: set[str] = set()
        self.slow: float = 0.0
        self.base: dict[str, bytes] = {}
        self.lag_s = 0.02

    def server_of(self, node: str) -> Server | None:
        server = self.old if node in self.old_side and self.old is not None else self.primary
        return server if server.up and node not in self.unreachable else None

    def write(self, server: Server, key: str, value: bytes | None) -> None:
        if value is None:
            server.data.pop(key, None)
        else:
            server.data[key] = value
        lag = self.loop.random.uniform(0, self.lag_s)
        before = server.log[-1][0] if server.log else 0.0
        server.log.append((max(before, self.loop.now + lag), key, value))
        if len(server.log) > 2000:
            self.base = self.replayed(server, 1000)
            del server.log[:1000]

    def replayed(self, server: Server, count: int) -> dict[str, bytes]:
        data = dict(self.base)
        for _, key, value in server.log[:count]:
            if value is None:
                data.pop(key, None)
            else:
                data[key] = value
        return data

    def fail(self) -> None:
        """The primary dies."""
        self.primary.up = False

    def fail_over(self, old_side: set[str] | None = None) -> None:
        """A replica takes the primary's place; nodes of `old_side` go on with the old one."""
        old = self.primary
        kept = sum(at <= self.loop.now for at, _, _ in old.log)
        self.primary = Server(self.replayed(old, kept))
        self.base = dict(self.primary.data)
        old.followed = False
        self.old, self.old_side = (old, set(old_side)) if old_side else (None, set())

    def heal(self) -> None:
        if not self.primary.up:
            self.fail_over()
        self.old, self.old_side, self.unreachable, self.slow = None, set(), set(), 0.0

    def flush(self) -> None:
        """Everything is forgotten."""
        self.primary, self.base = Server(), {}


class Client:
    """The store as one node's process sees it: trunkline.storage.memory.MemoryStore, as far as it is needed."""

    survives = None

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._wrote: tuple[Server, float] | None = None

    async def _travel(self) -> None:
        random = self._store.loop.random
        await asyncio.sleep(random.uniform(0.0002, 0.003) + self._store.slow * random.random())

    async def _ask(self, act: Callable[[Server], Any]) -> Any:
        """There, done, and back; lost on either way when it cannot be reached."""
        await self._travel()
        server = self._store.server_of(self._name)
        if server is None:
            if self._store.loop.random.random() < 0.5:
                await asyncio.sleep(3600)
            raise StoreUnavailable("the store is away")
        delayed = self._store.loop.random.random()
        if delayed < 0.002:  # held up in the network for long
            await asyncio.sleep(self._store.loop.random.uniform(0.2, 3.0))
            server = self._store.server_of(self._name) or server
        told = act(server)
        await self._travel()
        if self._store.server_of(self._name) is not server:
            raise StoreInDoubt("the answer was lost")
        return told

    async def get(self, key: str) -> bytes | None:
        return await self._ask(lambda server: server.data.get(key))

    async def scan(self, prefix: str) -> list[tuple[str, bytes]]:
        return await self._ask(lambda server: [one for one in server.data.items() if one[0].startswith(prefix)])

    async def compare_and_set(self, key: str, old: bytes | None, new: bytes, ttl_ms: int = 0) -> bool:
        def act(server: Server) -> bool:
            if server.data.get(key) != old:
                return False
            self._store.write(server, key, new)
            self._wrote = (server, server.log[-1][0])
            return True

        # the command is on its way once it is sent, whatever becomes of who sent it
        sent = asyncio.ensure_future(self._ask(act))
        sent.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(sent)

    async def settled(self, timeout_s: float) -> bool:
        if self._wrote is None:
            return True
        server, at = self._wrote
        wait = at - self._store.loop.now
        if wait > timeout_s or not server.followed:
            await asyncio.sleep(timeout_s)
            return False
        await asyncio.sleep(max(wait, 0.0))
        return server.followed and self._store.server_of(self._name) is server


class Peers:
    """Calls between simulated processes."""

    def __init__(self, world: "World", process: Process) -> None:
        self._world = world
        self.process = process
        self.handlers: dict[str, Callable[[str, bytes], Awaitable[bytes]]] = {}

    def handle(self, kind: str, handler: Callable[[str, bytes], Awaitable[bytes]]) -> None:
        self.handlers[kind] = handler

    def know(self, addresses: Mapping[str, str]) -> None:
        pass

    async def call(self, node: str, kind: str, payload: bytes, timeout_s: float) -> bytes:
        world, me = self._world, self.process.name
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.sleep(world.loop.random.uniform(0.0002, 0.003))
                other = world.nodes.get(node)
                if other is None or other.process.dead or frozenset((me, node)) in world.cuts:
                    if world.loop.random.random() < 0.5:
                        await asyncio.sleep(3600)
                    raise PeerUnavailable(node, sent=False)
                told = await world.within(other.process, other.peers.handlers[kind](me, payload))
                await asyncio.sleep(world.loop.random.uniform(0.0002, 0.003))
                if other.process.dead or frozenset((me, node)) in world.cuts or world.loop.random.random() < 0.01:
                    raise PeerUnavailable("the answer was lost", sent=True)
                return told
        except TimeoutError:
            raise PeerUnavailable("timeout", sent=True) from None


class Partitions:
    """Databases that take a while, and now and then refuse."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.owned: frozenset[int] = frozenset()

    async def own(self, p: int) -> None:
        await asyncio.sleep(self._loop.random.uniform(0.001, 0.1))
        if self._loop.random.random() < 0.05:
            raise StoreUnavailable("the database is away")
        self.owned |= {p}

    async def release(self, p: int) -> None:
        await asyncio.sleep(self._loop.random.uniform(0.001, 0.05))
        self.owned -= {p}


class SlowHooks(Hooks):
    """Things that now and then cannot be let go of."""

    def __init__(self, random: Random) -> None:
        self._random = random

    async def leaving(self, thing: str) -> bool:
        await asyncio.sleep(self._random.uniform(0, 0.2))
        return self._random.random() < 0.8


class Clock:
    def __init__(self, world: "World") -> None:
        self._world = world

    def now_ms(self) -> int:
        return int((self._world.loop.now + self._world.wall_offset) * 1000)

    def monotonic(self) -> float:
        return self._world.loop.now


class Node:
    """One process of a node: killed, it is gone for good; the next one has the same name and place."""

    def __init__(self, world: "World", name: str, zone: str, timing: Timing) -> None:
        self.world = world
        self.name = name
        self.process = Process(name)
        self.peers = Peers(world, self.process)
        self.rate = 1 + world.loop.random.uniform(-2e-4, 2e-4)
        self.offset = world.loop.random.uniform(1, 1000)
        self.fence = Fence(self.now_ns)
        self.refused = ""
        self.stopped = False
        me = NodeRecord(name=name, zone=zone, place=f"data of {name}", roles=world.roles.get(name, ()))
        store: Any = Client(world.store, name)
        world.within_now(self.process, lambda: self._build(me, store, timing))

    def _build(self, me: NodeRecord, store: Any, timing: Timing) -> None:
        self.membership = Membership(me, store, self.peers, self.fence, Clock(self.world), timing, self.now_ns)
        self.ownership = Ownership(
            self.membership, Partitions(self.world.loop), Pace(handover_after_s=1.0, leaving_s=1.0, again_s=2.0)
        )
        self.ownership.register("p", SlowHooks(self.world.loop.random))
        self.ownership.offer(self.world.things)

    def now_ns(self) -> int:
        return int((self.world.loop.now * self.rate + self.offset) * 1e9)

    async def run(self, alone_here: bool) -> None:
        while True:
            try:
                await self.membership.start(alone_here)
                break
            except NameTaken as error:
                self.refused = str(error)
                return
            except (StoreUnavailable, TimeoutError):
                await asyncio.sleep(0.3)
        await self.ownership.start()

    async def leave(self) -> None:
        await self.ownership.leave(1.0)
        await self.membership.stop()
        self.stopped = True


class TwoOwners(AssertionError):
    """Two nodes may send for one thing."""


class World:
    """See the module. `timing` may be wrong on purpose."""

    def __init__(
        self,
        seed: int,
        names: str = "abc",
        partition_count: int = 5,
        timing: Timing | None = None,
        roles: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        """`roles`: of nodes that have not all; then a third of the partitions is for calls."""
        self.loop = Loop(seed)
        self.loop.now = START_S
        self.timing = timing or Timing(lease_s=LEASE_S, hold_limit_s=HOLD_LIMIT_S, hold_all_s=HOLD_ALL_S)
        self.store = Store(self.loop)
        self.cuts: set[frozenset[str]] = set()
        self.wall_offset = 1.7e9
        self.roles = dict(roles or {})
        self.things = [
            *partitions(partition_count, 2, partition_count // 3 if roles else 0),
            Thing("connector/acme", "connector", MESSAGES),
            Thing("single/x", "single", UPKEEP),
        ]
        self.nodes: dict[str, Node] = {}
        self.ghosts: list[Node] = []
        """Former processes; they may still be alive."""
        self.names = names
        self.steps = 0
        self.loop.after_each = self.check

    # ---- processes

    def within_now(self, process: Process, make: Callable[[], Any]) -> Any:
        context = copy_context()
        context.run(NODE.set, process)
        return context.run(make)

    def task(self, process: Process, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        context = copy_context()
        context.run(NODE.set, process)
        return self.loop.create_task(work, context=context)

    async def within(self, process: Process, work: Any) -> Any:
        """Have another process do something; no answer comes if it is stopped or killed."""
        return await asyncio.shield(self.task(process, work))

    def start(self, name: str, alone_here: bool = True) -> Node:
        """A new process of a node; a former one that lives goes on beside it if `alone_here` is false."""
        former = self.nodes.get(name)
        if former is not None:
            self.ghosts.append(former)
            if alone_here:  # that is what it says
                for ghost in self.ghosts:
                    ghost.process.dead |= ghost.name == name
        node = Node(self, name, f"zone {name}", self.timing)
        self.nodes[name] = node
        self.task(node.process, node.run(alone_here))
        return node

    def kill(self, name: str) -> None:
        self.nodes[name].process.dead = True

    def stop(self, name: str) -> None:
        self.nodes[name].process.frozen = True

    def go_on(self, name: str) -> None:
        self.loop.thaw(self.nodes[name].process)

    # ---- what must hold

    def check(self) -> None:
        """At no moment may two nodes send for one thing."""
        owner: dict[str, str] = {}
        for node in (*self.nodes.values(), *self.ghosts):
            if node.process.dead or not node.ownership._granted or not node.fence.open:
                continue
            assert node.ownership._granted >= node.ownership._owned.keys()
            for thing in node.ownership._granted:
                if thing in owner:
                    raise TwoOwners(f"{self.loop.now:.3f}: {thing}: {owner[thing]} and {node.name}")
                owner[thing] = node.name

    def owners(self) -> dict[str, str]:
        return {
            thing.name: node.name
            for thing in self.things
            for node in self.nodes.values()
            if not node.process.dead and node.ownership.holds(thing.name)
        }

    async def until(self, true: Callable[[], bool], within_s: float) -> float:
        """Wait; returns how long it took. Raises TimeoutError."""
        began = self.loop.now
        while not true():
            if self.loop.now - began > within_s:
                raise TimeoutError
            await asyncio.sleep(0.05)
        return self.loop.now - began

    def all_owned(self) -> bool:
        return len(self.owners()) == len(self.things)

    def all_able(self) -> bool:
        """Whether each thing is owned by a node that has the roles for it."""
        owners, needs = self.owners(), {thing.name: thing.needs for thing in self.things}
        return len(owners) == len(needs) and all(
            node in able(needs[thing], self.names, self.roles) for thing, node in owners.items()
        )

    def run(self, story: Coroutine[Any, Any, Any]) -> Any:
        asyncio.set_event_loop(self.loop)
        try:
            told = self.loop.run_until_complete(story)
            self.steps = self.loop.steps
            assert not self.loop.errors, self.loop.errors[0]
            return told
        finally:
            self._end()

    def _end(self) -> None:
        for node in (*self.nodes.values(), *self.ghosts):
            node.process.dead = False
            self.loop.thaw(node.process)
        self.loop.after_each = lambda: None
        self.loop.set_exception_handler(lambda loop, context: None)
        for task in (tasks := asyncio.all_tasks(self.loop)):
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        asyncio.set_event_loop(None)
        self.loop.close()


def changed(timing: Timing, **fields: Any) -> Timing:
    return msgspec.structs.replace(timing, **fields)


__all__ = ["PeerError", "World", "changed", "votes"]
