"""From node to node, and back."""

import math

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from trunkline.model.clock import SystemClock
from trunkline.postflight.archive import SegmentedArchive
from trunkline.release.canary import LOOKS, Sample
from trunkline.release.evidence import Records
from trunkline.release.gates import standing
from trunkline.release.steps import BadCanary, MoveFailed, Node, Run, canaries
from trunkline.settings.release import Release
from trunkline.storage.engines.sqlite.archive import SqliteRecent

OLD, NEW = "a" * 40, "b" * 40
NODES = [Node(f"n{number}", f"z{number % 3}", "127.0.0.1", f"http://n{number}") for number in range(6)]


class World:
    """Nodes that answer 100 requests between looks, of which the new version fails some."""

    def __init__(self, records, errors=0, requests=100, breaks=""):
        self.versions = {node.name: OLD for node in NODES}
        self.moves = []
        self.looks = 0
        self.abort_at = 0
        self._records, self._errors, self._requests, self._breaks = records, errors, requests, breaks
        self._answered = dict.fromkeys(self.versions, (0, 0))
        self.release = ""

    async def move(self, node, version):
        self.moves.append((node.name, version))
        if node.name == self._breaks and version == NEW:
            raise MoveFailed(f"{node.name} does not start")
        self.versions[node.name] = version

    async def sample(self, node):
        requests, errors = self._answered[node.name]
        return Sample(requests, errors, {1.0: requests, math.inf: requests})

    async def sleep(self, seconds):
        self.looks += 1
        if self.looks == self.abort_at:
            await self._records.ask_to_abort(self.release, "ops@example.com")
        for name, version in self.versions.items():
            requests, errors = self._answered[name]
            self._answered[name] = requests + self._requests, errors + (self._errors if version == NEW else 0)

    def say(self, text):
        pass


@pytest.fixture
async def records(tmp_path):
    archive = SegmentedArchive(SqliteRecent(tmp_path / "archive.db"), tmp_path / "segments", SystemClock())
    yield Records(archive, Ed25519PrivateKey.generate(), "production", SystemClock().now_ms)
    await archive.close()


async def start(records, world, canary="zone=z1"):
    chain = [await records.plan(OLD, NEW, "handler", "x", {})]
    world.release = chain[0].release
    run = Run(records, chain, world, Release(watch_s=10.0, minimum=100), "x")
    done = await run.go(NODES, canaries(NODES, canary) if canary else [])
    assert await records.chain(chain[0].release) == chain
    return done, chain


async def test_canaries_first_then_zone_by_zone(records):
    world = World(records)
    done, chain = await start(records, world)
    assert (done, standing(chain), set(world.versions.values())) == (True, "done", {NEW})
    assert [name for name, _ in world.moves] == ["n1", "n4", "n0", "n3", "n2", "n5"]
    assert [one.status for one in chain] == ["planned", "started", "moved", "moved", "judged", *["moved"] * 4, "done"]
    assert world.looks == LOOKS


async def test_bad_canaries_roll_themselves_back_at_the_first_sight(records):
    world = World(records, errors=20)
    done, chain = await start(records, world)
    assert (done, standing(chain), set(world.versions.values())) == (False, "rolled back", {OLD})
    assert world.looks == 1
    assert "more requests fail" in chain[-1].what["reason"]
    assert {name for name, _ in world.moves} == {"n1", "n4"}


async def test_without_traffic_nothing_is_proven(records):
    done, chain = await start(records, World(records, requests=1))
    assert (done, chain[-1].what["reason"]) == (False, "too little traffic to judge the canaries")


async def test_a_node_that_does_not_start_takes_all_back(records):
    world = World(records, breaks="n3")
    done, chain = await start(records, world)
    assert (done, set(world.versions.values()), chain[-1].what["reason"]) == (False, {OLD}, "n3 does not start")
    assert [name for name, version in world.moves if version == OLD] == ["n3", "n0", "n4", "n1"]


async def test_a_node_that_cannot_go_back_is_named(records):
    class Stuck(World):
        async def move(self, node, version):
            if node.name == "n1" and version == OLD:
                raise MoveFailed("n1 is gone")
            await super().move(node, version)

    _, chain = await start(records, Stuck(records, errors=20))
    assert chain[-1].what["stuck"] == {"n1": "n1 is gone"}


@pytest.mark.parametrize("canary", ["zone=z1", ""])
async def test_an_abort_is_heard_while_canaries_are_watched_and_between_nodes(records, canary):
    world = World(records)
    world.abort_at = 3
    if not canary:
        real = world.move

        async def move(node, version):
            await real(node, version)
            if node.name == "n3":
                await records.ask_to_abort(world.release, "ops@example.com")

        world.move = move
    done, chain = await start(records, world, canary)
    assert (done, set(world.versions.values())) == (False, {OLD})
    assert chain[-1].what["reason"] == "aborted by ops@example.com"


@pytest.mark.parametrize(
    ("wanted", "names"),
    [("zone=z2", ["n2", "n5"]), ("1", ["n0"]), ("34%", ["n0", "n3"]), ("99", ["n0", "n3", "n1", "n4", "n2"])],
)
def test_which_nodes_go_first(wanted, names):
    assert [node.name for node in canaries(NODES, wanted)] == names


@pytest.mark.parametrize("wanted", ["zone=nowhere", "0", "100", "-5", "half", "zone="])
def test_canaries_that_cannot_be(wanted):
    with pytest.raises(BadCanary):
        canaries(NODES, wanted)
    with pytest.raises(BadCanary, match="another node"):
        canaries(NODES[:1], "50")
