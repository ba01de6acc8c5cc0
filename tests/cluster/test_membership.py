"""One process, real time, short leases. What may go wrong is in tests/simulation."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest

from trunkline.cluster import changes, records
from trunkline.cluster.events import Listener, NameTaken, Timing, View
from trunkline.cluster.fence import Fence
from trunkline.cluster.membership import Membership
from trunkline.cluster.ownership import Hooks, Ownership, Pace
from trunkline.cluster.peers import PeerUnavailable
from trunkline.cluster.placement import Thing, partitions
from trunkline.cluster.records import ClusterMap, NodeRecord, Owner
from trunkline.model.clock import SystemClock
from trunkline.storage.memory import InProcess

TIMING = Timing(lease_s=0.4)
THINGS = [*partitions(4), Thing("connector/acme", "connector")]


class Wire:
    """Calls within this process."""

    def __init__(self) -> None:
        self.nodes: dict[str, dict[str, Callable[[str, bytes], Awaitable[bytes]]]] = {}

    def of(self, name: str) -> "Side":
        self.nodes.setdefault(name, {})
        return Side(self, name)


class Side:
    def __init__(self, wire: Wire, name: str) -> None:
        self._wire, self._name = wire, name

    def handle(self, kind: str, handler: Callable[[str, bytes], Awaitable[bytes]]) -> None:
        self._wire.nodes[self._name][kind] = handler

    def know(self, addresses: Mapping[str, str]) -> None: ...

    async def call(self, node: str, kind: str, payload: bytes, timeout_s: float) -> bytes:
        if node not in self._wire.nodes:
            raise PeerUnavailable(node, sent=False)
        return await self._wire.nodes[node][kind](self._name, payload)


class Told(Listener):
    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def joined(self, member: NodeRecord) -> None:
        self.events.append(("joined", member.name))

    def left(self, member: NodeRecord) -> None:
        self.events.append(("left", member.name))

    def lost(self, member: NodeRecord) -> None:
        self.events.append(("lost", member.name))


class Kept(Hooks):
    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []

    async def gained(self, thing: str, former: str) -> None:
        self.events.append(("gained", thing, former))

    async def released(self, thing: str) -> None:
        self.events.append(("released", thing, ""))

    def lost(self, thing: str) -> None:
        self.events.append(("lost", thing, ""))


class Cluster:
    def __init__(self) -> None:
        self.store = InProcess(SystemClock())
        self.wire = Wire()
        self.nodes: list[tuple[Membership, Ownership]] = []

    def make(self, name: str, place: str = "") -> tuple[Membership, Ownership]:
        me = NodeRecord(name=name, zone=name, address=f"{name}:1", place=place)
        membership = Membership(me, self.store, self.wire.of(name), Fence(), SystemClock(), TIMING)
        ownership = Ownership(membership, None, Pace(handover_after_s=0.1, leaving_s=0.5, again_s=0.2, retry_s=0.05))
        ownership.offer(THINGS)
        self.nodes.append((membership, ownership))
        return membership, ownership

    async def start(self, *names: str) -> None:
        made = [self.make(name) for name in names]
        await asyncio.gather(*(membership.start() for membership, _ in made))
        for _, ownership in made:
            await ownership.start()

    def all_owned(self) -> bool:
        return sum(len(ownership.owned) for _, ownership in self.nodes) == len(THINGS)

    async def end(self) -> None:
        for membership, ownership in self.nodes:
            await ownership.stop()
            await membership.halt()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


@pytest.fixture
async def cluster():  # type: ignore[no-untyped-def]
    made = Cluster()
    yield made
    await made.end()


async def test_nodes_see_each_other_and_own_everything_once(cluster: Cluster) -> None:
    await cluster.start("a", "b")
    await until(cluster.all_owned)
    (a, owner_a), (b, owner_b) = cluster.nodes
    await until(lambda: a.view.map.members == b.view.map.members and len(a.view.map.members) == 2)
    assert {len(owner_a.owned), len(owner_b.owned)} == {2, 3}
    for thing in THINGS:
        assert owner_a.holds(thing.name) != owner_b.holds(thing.name)
        assert await owner_a.wait_for_owner(thing.name, 5) == ("a" if owner_a.holds(thing.name) else "b")
    assert owner_a.owner_of(0) == owner_a.owner_of("p/0")
    assert a.me.heir == "b"
    assert b.view.nodes["a"].address == "a:1"


async def test_a_silent_node_is_lost_once_and_its_heir_is_told_of_whom(cluster: Cluster) -> None:
    await cluster.start("a", "b")
    await until(cluster.all_owned)
    (a, owner_a), (b, owner_b) = cluster.nodes
    await until(lambda: a.me.heir == "b")
    told, kept = Told(), Kept()
    b.listeners.append(told)
    for kind in ("p", "connector"):
        owner_b.register(kind, kept)
    had = set(owner_a.owned)
    await owner_a.stop()
    await a.halt()
    del cluster.wire.nodes["a"]
    cluster.nodes.pop(0)
    await until(cluster.all_owned)
    assert told.events == [("lost", "a")]
    assert {(what, thing, former) for what, thing, former in kept.events} == {("gained", thing, "a") for thing in had}
    assert not a.fence.open


async def test_leaving_hands_over_and_is_told_from_dying(cluster: Cluster) -> None:
    await cluster.start("a", "b")
    await until(cluster.all_owned)
    (a, owner_a), (b, _) = cluster.nodes
    told, kept = Told(), Kept()
    b.listeners.append(told)
    owner_a.register("p", kept)
    owner_a.register("connector", kept)
    had = set(owner_a.owned)
    await owner_a.leave(2)
    await a.stop()
    assert {(what, thing) for what, thing, _ in kept.events} == {("released", thing) for thing in had}
    cluster.nodes.pop(0)
    await until(cluster.all_owned)
    await until(lambda: told.events == [("left", "a")])


async def test_a_newcomer_gets_its_share_by_handover(cluster: Cluster) -> None:
    await cluster.start("a")
    await until(cluster.all_owned)
    await cluster.start("b")
    await until(lambda: cluster.all_owned() and len(cluster.nodes[1][1].owned) >= 2)
    kept = [ownership.owned for _, ownership in cluster.nodes]
    assert not kept[0] & kept[1]


async def test_the_same_name_twice_is_refused(cluster: Cluster) -> None:
    await cluster.start("a")
    second, _ = cluster.make("a")
    with pytest.raises(NameTaken, match=r"node.name a: another process is alive under this name at a:1"):
        await second.start(alone_here=True)
    assert cluster.nodes[0][0].fence.open


async def test_a_former_process_of_the_same_folder_is_succeeded_at_once(cluster: Cluster) -> None:
    first, owner = cluster.make("a", place="here")
    await first.start()
    await owner.start()
    await until(cluster.all_owned)
    await owner.stop()
    await first.halt()
    cluster.nodes.clear()
    second, owner = cluster.make("a", place="here")
    kept = Kept()
    owner.register("p", kept)
    async with asyncio.timeout(TIMING.lease_s * 0.9):
        await second.start(alone_here=True)
        await owner.start()
        await until(cluster.all_owned)
    assert second.epoch > first.epoch
    assert ("gained", "p/0", "a") in kept.events


async def test_a_listener_that_looks_at_the_view_sees_the_new_one(cluster: Cluster) -> None:
    seen: list[int] = []

    class Look(Listener):
        def changed(self, view: View) -> None:
            seen.append(view.map.version)
            assert membership.view is view

    membership, _ = cluster.make("a")
    membership.listeners.append(Look())
    await membership.start()
    assert seen == sorted(seen)
    assert seen


# ---- changes of the map

MAP = ClusterMap(
    lineage="x",
    version=3,
    members={"a": 1, "b": 2},
    things={"p/0": Owner("a", 1), "p/1": Owner("b", 2), "p/2": Owner("gone", 9)},
)


def test_a_dead_nodes_things_go_to_its_heir_in_the_same_change() -> None:
    made = changes.without(MAP, NodeRecord(name="a", epoch=1), "b")
    assert made is not None
    assert made.members == {"b": 2}
    assert made.things == {"p/0": Owner("b", 2, "a"), "p/1": Owner("b", 2), "p/2": Owner("gone", 9)}


def test_without_an_heir_they_are_nobodys() -> None:
    made = changes.without(MAP, NodeRecord(name="a", epoch=1), "")
    assert made is not None
    assert made.owner("p/0") is None


def test_a_node_that_lives_anew_is_not_taken_off_for_its_former_life() -> None:
    assert changes.without(MAP, NodeRecord(name="b", epoch=1), "a") is None
    assert changes.without(MAP, NodeRecord(name="x", epoch=1), "a") is None


def test_a_new_life_takes_up_what_nobody_took() -> None:
    made = changes.with_member(MAP, NodeRecord(name="a", epoch=5))
    assert made is not None
    assert made.members == {"a": 5, "b": 2}
    assert made.things["p/0"] == Owner("a", 5, "a")
    assert changes.with_member(made, NodeRecord(name="a", epoch=5)) is None


def test_owners_that_are_no_members_do_not_count() -> None:
    assert MAP.owner("p/0") == Owner("a", 1)
    assert MAP.owner("p/2") is None
    assert MAP.owner("p/9") is None


def test_records_that_cannot_be_read_are_none() -> None:
    assert records.decode_node(b"\xc1") is None
    assert records.decode_map(b"\x01") is None
    assert records.decode_epoch(b"x!") in (0, ord("x"))
    assert records.decode_map(records.encode(MAP)) == MAP
