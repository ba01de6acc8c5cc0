"""Owning things: what one that cannot be opened leaves to the others, and what was taken by somebody who came late."""

import asyncio

import msgspec
import pytest

from trunkline.cluster.events import View
from trunkline.cluster.fence import Fence
from trunkline.cluster.ownership import MAX_GAINING, Hooks, Ownership, Pace, partition
from trunkline.cluster.placement import Thing
from trunkline.cluster.records import ClusterMap, Owner
from trunkline.storage.survives import CannotSurvive
from trunkline.storage.unavailable import StoreUnavailable

QUICK = Pace(handover_after_s=0.01, leaving_s=0.1, again_s=0.05, retry_s=0.02)


class Member:
    """Membership that says what the test says."""

    name, epoch, live, embargo_ns = "a", 1, True, 0

    def __init__(self):
        self.fence, self.listeners, self.view = Fence(), [], View()
        self.writes = False
        """Whether what is made of the map is written."""

    def gives(self, *things):
        owners = {thing: Owner("a", 1) for thing in things}
        self.view = View(map=ClusterMap(version=self.view.map.version + 1, members={"a": 1}, things=owners))
        for listener in self.listeners:
            listener.changed(self.view)

    def now_ns(self):
        return 1

    def silent(self, name):
        return False

    async def change(self, make):
        now = make(self.view.map) if self.writes else None
        if now is not None:
            self.view = View(map=msgspec.structs.replace(now, version=self.view.map.version + 1))
            for listener in self.listeners:
                listener.changed(self.view)
        return True


class Parts:
    """Partitions of which some lie in a database that is away."""

    def __init__(self):
        self.away, self.opened, self._owned, self.stuck = set(), [], set(), set()
        self.error = StoreUnavailable("away")

    @property
    def owned(self):
        return frozenset(self._owned)

    async def own(self, number):
        self.opened.append(number)
        if number in self.away:
            raise self.error
        self._owned.add(number)

    async def release(self, number):
        self._owned.discard(number)
        if number in self.stuck:
            await asyncio.Event().wait()


class Told(Hooks):
    def __init__(self):
        self.seen = []
        self.fails = False

    async def released(self, thing):
        self.seen.append(("released", thing))
        if self.fails:
            raise RuntimeError("the test says so")

    async def gained(self, thing, former):
        self.seen.append(("gained", thing))

    def lost(self, thing):
        self.seen.append(("lost", thing))
        if self.fails:
            raise RuntimeError("the test says so")


@pytest.fixture
async def made():
    member, parts, hooks = Member(), Parts(), Told()
    ownership = Ownership(member, parts, QUICK)
    ownership.register("p", hooks)
    ownership.register("connector", hooks)
    await ownership.start()
    yield member, parts, hooks, ownership
    await ownership.stop()


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def test_partitions_of_a_database_that_is_away_hold_up_no_others(made):
    """However many they are: those of other databases, and carriers' binds, are taken at once."""
    member, parts, _, ownership = made
    away = [partition(number) for number in range(2 * MAX_GAINING)]
    well = [partition(40), "connector/carrier"]
    parts.away = set(range(2 * MAX_GAINING))
    ownership.offer(Thing(name, "g") for name in away + well)
    member.gives(*away, *well)
    await until(lambda: ownership.owned == frozenset(well))
    parts.away.clear()
    await until(lambda: ownership.owned == frozenset(away + well))


async def test_a_partition_taken_by_one_who_came_late_is_opened_anew(made):
    """The map has named this node all the time; nobody else would ever open it."""
    member, parts, hooks, ownership = made
    ownership.offer([Thing(partition(3), "g")])
    member.gives(partition(3))
    await until(lambda: parts.owned == {3})
    parts._owned.clear()
    ownership.deposed(3)
    await until(lambda: parts.owned == {3})
    await until(lambda: ownership.owned == {partition(3)})
    assert hooks.seen == [("gained", "p/3"), ("lost", "p/3"), ("gained", "p/3")]


async def test_a_failure_at_the_loss_of_one_thing_leaves_none_of_the_others_owned(made):
    member, parts, hooks, ownership = made
    names = [partition(1), partition(2)]
    ownership.offer(Thing(name, "g") for name in names)
    member.gives(*names)
    await until(lambda: ownership.owned == frozenset(names))
    hooks.fails = True
    member.gives()
    assert ownership.owned == frozenset()
    await until(lambda: not parts.owned)
    assert [seen for seen in hooks.seen if seen[0] == "lost"] == [("lost", name) for name in names]


async def test_a_failure_after_letting_go_does_not_keep_the_next_owner_from_it(made):
    """Were it raised, the map would name this node for ever, which does not take back what it gave away."""
    member, parts, hooks, ownership = made
    ownership.offer([Thing(partition(1), "g")])
    member.gives(partition(1))
    await until(lambda: ownership.owned == {partition(1)})
    asked = []

    async def change(make):
        asked.append(make(member.view.map).things)
        member.gives()

    member.change = change
    hooks.fails = True
    await ownership.leave(1.0)
    assert parts.owned == frozenset()
    assert asked == [{}], "nobody else is there to take it"


async def test_a_node_without_a_partition_gets_its_first_one_soon():
    """The others follow when nobody has come or gone for a while."""
    member, parts = Member(), Parts()
    ownership = Ownership(member, parts, Pace(handover_after_s=10_000, first_after_s=0.01, retry_s=0.02))
    names = [partition(number) for number in range(4)]
    ownership.offer(Thing(name, "g") for name in names)
    given = []

    def now(owners):
        members = {"a": 1, "b": 7}
        things = {name: Owner(node, members[node]) for name, node in owners.items()}
        member.view = View(map=ClusterMap(version=member.view.map.version + 1, members=members, things=things))
        for listener in member.listeners:
            listener.changed(member.view)

    async def change(make):
        after = make(member.view.map)
        if after is not None:
            owners = {name: owner.node for name, owner in after.things.items()}
            given.extend(name for name, node in owners.items() if node == "b")
            now(owners)
        return True

    member.change = change
    try:
        await ownership.start()
        now(dict.fromkeys(names, "a"))
        await until(lambda: given and not ownership._moving)
        assert len(given) == 1
        assert ownership.owned == frozenset(names) - set(given)
        assert ownership._balance(dict.fromkeys(names, "b")) > 1000
    finally:
        await ownership.stop()


@pytest.mark.parametrize(
    "error", [CannotSurvive("a commit waits for 1 standby and 0 are connected"), RuntimeError("odd")]
)
async def test_what_cannot_be_opened_for_any_reason_is_not_tried_all_the_time(made, error):
    member, parts, _, ownership = made
    parts.away, parts.error = {1}, error
    ownership.offer([Thing(partition(1), "g"), Thing(partition(2), "g")])
    began = asyncio.get_running_loop().time()
    member.gives(partition(1), partition(2))
    await until(lambda: parts.opened.count(1) >= 3)
    assert asyncio.get_running_loop().time() - began >= 2 * QUICK.retry_s
    parts.away.clear()
    await until(lambda: ownership.owned == {partition(1), partition(2)})


async def test_one_that_cannot_be_let_go_of_keeps_no_others_from_their_next_owners(made):
    """Its database is away with a batch in doubt, and the node is stopped."""
    member, parts, _, ownership = made
    well = {partition(1), partition(2), "connector/carrier"}
    ownership.offer(Thing(name, "g") for name in (*well, partition(3)))
    member.gives(*well, partition(3))
    await until(lambda: len(ownership.owned) == 4)
    member.view = View(map=msgspec.structs.replace(member.view.map, members={"a": 1, "b": 1}))
    parts.stuck, member.writes = {3}, True
    leaving = asyncio.create_task(ownership.leave(1.0))
    await until(lambda: well == {name for name, owner in member.view.map.things.items() if owner.node == "b"})
    assert not leaving.done()
    await leaving
    assert {owner.node for owner in member.view.map.things.values()} == {"b"}
