"""Whether a node is fit for new requests, as a balancer is told."""

from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from trunkline.metrics.page import Metrics

WAIT_S = 60.0


class World:
    """A node whose stores fail when they are told to."""

    def __init__(self, *, clustered: bool) -> None:
        self.now = 100.0
        self.queue, self.database = self.store(), self.store()
        cluster = SimpleNamespace(health=lambda: "", queue=SimpleNamespace(healthy={})) if clustered else None
        node: Any = SimpleNamespace(
            settings=SimpleNamespace(storage=SimpleNamespace(wait_s=WAIT_S)),
            queue=self.queue, database=self.database, cluster=cluster, connectors={}, voice=None, ready=True,
            outbound=SimpleNamespace(refuse=""), archive=SimpleNamespace(problem=""),
        )  # fmt: skip
        self.metrics = Metrics(node)
        self.metrics.monotonic = lambda: self.now

    def store(self) -> Any:
        return SimpleNamespace(writer=SimpleNamespace(failed=None))

    async def ask(self, path: str = "/readyz") -> tuple[int, Any]:
        answer: Any = await self.metrics.mounts()[path](None)  # type: ignore[arg-type]
        return answer.status, orjson.loads(answer.body)


@pytest.mark.parametrize("name", ["queue", "database"])
async def test_a_node_that_is_alone_is_unfit_at_once(name: str) -> None:
    world = World(clustered=False)
    assert (await world.ask())[0] == 200
    assert (await world.ask("/readyz/drain"))[0] == 200
    getattr(world, name).writer.failed = OSError("gone")
    assert (await world.ask())[0] == 503
    assert (await world.ask("/readyz/drain"))[0] == 404


async def test_a_cluster_holds_requests_open_while_its_queues_are_switched_over() -> None:
    world = World(clustered=True)
    world.queue.writer.failed = OSError("no primary")
    assert await world.ask() == (200, {"ready": True, "problems": [], "connectors": {}, "queue": "no primary"})
    world.now += WAIT_S
    assert (await world.ask())[0] == 503
    world.queue.writer.failed = None
    assert (await world.ask())[0] == 200
    world.queue.writer.failed = OSError("again")
    assert (await world.ask())[0] == 200


async def test_a_cluster_takes_messages_without_the_database_of_records() -> None:
    world = World(clustered=True)
    world.database.writer.failed = OSError("no primary")
    await world.ask()
    world.now += 10 * WAIT_S
    assert await world.ask() == (200, {"ready": True, "problems": [], "connectors": {}, "database": "no primary"})
