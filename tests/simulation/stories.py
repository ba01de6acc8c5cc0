"""What goes wrong in a run, drawn from its seed."""

import asyncio
from random import Random

from tests.simulation.world import LEASE_S, World

FAULTS = 6
"""In a run."""
SETTLES_S = 60.0
"""Bound within which everything is owned again once nothing is wrong any more: twice HOLD_ALL_S, for nodes that nobody
is left of who knew them."""


class Trouble:
    """Draws a fault, lets it last, takes it back."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random: Random = world.loop.random
        self.told: list[str] = []

    def say(self, what: str) -> None:
        self.told.append(f"{self.world.loop.now:8.3f} {what}")

    def some(self) -> str:
        return self.random.choice(self.world.names)

    def span(self) -> float:
        return self.random.choice((0.05, 0.3, 0.9, 1.1, 1.5, 3.0)) * self.random.uniform(0.7, 1.3) * LEASE_S

    def alive(self, name: str) -> bool:
        node = self.world.nodes[name]
        return not node.process.dead and not node.stopped

    # ---- faults; each takes itself back

    async def kill(self) -> None:
        name = self.some()
        self.say(f"kill {name}")
        self.world.kill(name)
        await asyncio.sleep(self.span())
        if self.alive(name):
            return
        alone = self.random.random() < 0.7
        self.say(f"start {name} (alone_here={alone})")
        self.world.start(name, alone_here=alone)

    async def stop(self) -> None:
        name = self.some()
        self.say(f"stop {name}")
        node = self.world.nodes[name]
        self.world.stop(name)
        await asyncio.sleep(self.span())
        self.say(f"go on {name}")
        self.world.loop.thaw(node.process)

    async def cut_peers(self) -> None:
        name = self.some()
        self.say(f"{name} loses its peers")
        pairs = {frozenset((name, other)) for other in self.world.names if other != name}
        self.world.cuts |= pairs
        await asyncio.sleep(self.span())
        self.world.cuts -= pairs
        self.say(f"{name} has its peers again")

    async def cut_store(self) -> None:
        name = self.some()
        self.say(f"{name} loses the store")
        self.world.store.unreachable.add(name)
        await asyncio.sleep(self.span() * self.random.choice((1, 1, 5)))
        self.world.store.unreachable.discard(name)
        self.say(f"{name} has the store again")

    async def cut(self) -> None:
        name = self.some()
        self.say(f"cut {name} from all")
        pairs = {frozenset((name, other)) for other in self.world.names if other != name}
        self.world.cuts |= pairs
        self.world.store.unreachable.add(name)
        await asyncio.sleep(self.span())
        self.world.cuts -= pairs
        self.world.store.unreachable.discard(name)
        self.say(f"{name} is back")

    async def store_down(self) -> None:
        self.say("the store's primary dies")
        self.world.store.fail()
        await asyncio.sleep(self.span() * self.random.choice((1, 1, 6)))
        if not self.world.store.primary.up:
            self.world.store.fail_over()
            self.say("the store is back")

    async def store_and_node(self) -> None:
        name = self.some()
        self.say(f"{name} dies with the store's primary")
        self.world.kill(name)
        self.world.store.fail()
        await asyncio.sleep(self.span())
        if not self.world.store.primary.up:
            self.world.store.fail_over()
        self.say("the store is back")
        await asyncio.sleep(self.span())
        self.world.start(name, alone_here=True)
        self.say(f"start {name}")

    async def split(self) -> None:
        """The old primary goes on with one node beside it."""
        name = self.some()
        self.say(f"{name} is alone with the old primary")
        store, world = self.world.store, self.world
        pairs = {frozenset((name, other)) for other in world.names if other != name}
        if self.random.random() < 0.5:
            world.cuts |= pairs
        others = set(world.names) - {name}
        store.primary.followed = False
        store.unreachable |= others
        await asyncio.sleep(self.random.uniform(0, 1.5))
        store.fail_over({name})
        store.unreachable -= others
        await asyncio.sleep(self.span())
        world.cuts -= pairs
        store.old, store.old_side = None, set()
        self.say(f"{name} has the new primary")

    async def slow_store(self) -> None:
        self.say("the store is slow")
        self.world.store.slow = self.random.choice((0.02, 0.1, 0.3))
        await asyncio.sleep(self.span())
        self.world.store.slow = 0.0
        self.say("the store is fast")

    async def lagging(self) -> None:
        self.say("replicas lag")
        self.world.store.lag_s = 0.4
        await asyncio.sleep(self.span())
        self.world.store.lag_s = 0.02

    async def flush(self) -> None:
        self.say("the store forgets everything")
        self.world.store.flush()
        await asyncio.sleep(self.span())

    async def clock_jump(self) -> None:
        self.say("wall clocks jump")
        self.world.wall_offset += self.random.uniform(-5000, 5000)
        await asyncio.sleep(0.1)

    async def rolling(self) -> None:
        for name in self.world.names:
            node = self.world.nodes[name]
            if self.alive(name) and not node.process.frozen:
                self.say(f"{name} leaves")
                leaving = self.world.task(node.process, node.leave())
                done, _ = await asyncio.wait([leaving], timeout=5)
                if not done:
                    self.world.kill(name)
                self.say(f"start {name} again")
                self.world.start(name)
                await asyncio.sleep(self.span())

    async def twin(self) -> None:
        """A second process of the same name, elsewhere."""
        name = self.some()
        first = self.world.nodes[name]
        self.say(f"a second {name}")
        second = self.world.start(name, alone_here=False)
        await asyncio.sleep(self.span())
        if second.refused and self.alive(name):
            self.world.kill(name)
            self.world.nodes[name] = first
            self.world.ghosts.remove(first)

    # ---- a run

    async def run(self) -> None:
        world = self.world
        for name in world.names:
            world.start(name, alone_here=self.random.random() < 0.5)
        await world.until(world.all_owned, SETTLES_S)
        faults = [
            self.kill, self.kill, self.stop, self.stop, self.cut, self.cut, self.cut_peers, self.cut_store,
            self.store_down, self.store_and_node, self.split, self.slow_store, self.lagging, self.flush,
            self.clock_jump, self.rolling,
        ]  # fmt: skip
        going = []
        for _ in range(FAULTS):
            going.append(asyncio.ensure_future(self.random.choice(faults)()))
            await asyncio.sleep(self.random.choice((0.0, 0.2, 1.0, 2.5)) * self.random.random())
        await asyncio.gather(*going)
        self.say("all is well")
        self.settle()
        took = await world.until(world.all_owned, SETTLES_S)
        self.say(f"all owned after {took:.1f} s")
        await asyncio.sleep(2.0)
        await world.until(world.all_owned, 5.0)

    def settle(self) -> None:
        world = self.world
        world.cuts.clear()
        world.store.heal()
        for name in world.names:
            node = world.nodes[name]
            if not node.process.dead and node.process.frozen:
                world.go_on(name)
            if not self.alive(name) or node.refused:
                world.start(name)


def tell(seed: int, world: World | None = None) -> Trouble:
    """One run. Raises what went wrong, with the seed and the story."""
    world = world or World(seed)
    trouble = Trouble(world)
    try:
        world.run(trouble.run())
    except BaseException as error:
        error.add_note(f"seed {seed}:\n" + "\n".join(trouble.told))
        raise
    return trouble
