"""A server whose fast state is in Valkey: losing the store costs no call, and what it held is there again."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.call_server import CallServer
from tests.e2e.test_calls_crash import UNINTERRUPTED_S, Scene, eventually, goes_on, works
from tests.redis import RedisServer, needs_redis

pytestmark = needs_redis
CALLS = 4


@pytest.fixture
def store() -> Iterator[RedisServer]:
    server = RedisServer().start()
    yield server
    server.close()


@pytest.fixture
def stage(tmp_path: Path, store: RedisServer) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    (tmp_path / "node").mkdir()
    scene.server = CallServer(tmp_path / "node", scene.air.port, memory={"engine": "valkey", "url": store.url})
    yield scene
    scene.close()


@pytest.fixture
def scene(stage: Scene) -> Scene:
    return stage.start()


def legs(store: RedisServer) -> int:
    with store.client() as client:
        return sum(1 for key in client.scan_iter(match="trunkline:call/*/leg"))


def ready(scene: Scene) -> dict[str, object]:
    with urllib.request.urlopen(f"{scene.server.base_url}/readyz", timeout=5) as answer:
        return json.loads(answer.read())


def test_calls_outlive_the_store_and_then_their_node(scene: Scene, store: RedisServer) -> None:
    calls = scene.dial(CALLS)
    eventually(lambda: legs(store) == CALLS, "checkpoints")
    store.kill()
    eventually(lambda: "memory" in ready(scene), "a word of readiness")
    later = scene.dial(1)  # calls begin without it, too
    assert all(call.up for call in calls)
    store.start()  # empty
    eventually(lambda: legs(store) == CALLS + 1, "checkpoints once more")
    eventually(lambda: "memory" not in ready(scene), "readiness")
    killed = scene.kill("node")
    on, gaps = goes_on(scene, [*calls, *later], killed, UNINTERRUPTED_S)
    assert len(on) == CALLS + 1, (gaps, scene.server.tail())
    works(scene, [*calls, *later], 2)
    eventually(lambda: legs(store) == 0, "the end of the checkpoints")


def test_a_server_that_cannot_keep_it_is_refused(stage: Scene, store: RedisServer) -> None:
    refused = stage.server.again({"memory": {"engine": "valkey", "url": store.url, "survives": "host"}})
    assert refused.returncode == 1
    last = refused.stderr.strip().splitlines()[-1]
    assert "has no replica" in last or "min-replicas-max-lag" in last
    assert "Traceback" not in refused.stderr
