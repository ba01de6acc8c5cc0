"""A node that is set up unlike the others: it does not start, or the doctor names what is wrong, in one line."""

import asyncio
import base64
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from lab.wrong_clock import environment

from tests.e2e.server import START_S, Server
from tests.ports import free_port
from tests.postgres import PostgresServer, needs_postgres
from tests.redis import RedisServer, needs_redis

pytestmark = [needs_postgres, needs_redis, pytest.mark.slow]
LEASE_S = 10
"""Long, for a machine that does other things as well."""
Tables = dict[str, Any]


class World:
    """One node that is right, `a`, and how another one is set up."""

    def __init__(self, folder: Path, tables: Tables) -> None:
        self._folder = folder
        self._tables = tables
        self.first = self.node("a")

    def node(self, name: str, prefix: tuple[str, ...] = (), **changes: Mapping[str, object]) -> Server:
        """A node that is set up like the first one, but for `changes`."""
        folder = self._folder / f"node-{name}-{free_port()}"
        folder.mkdir()
        own = {"node": {"name": name, "zone": name, "address": f"127.0.0.1:{free_port()}"}}
        tables = {**self._tables, **own}
        for section, more in changes.items():
            tables[section] = {**tables[section], **more}
        return Server(folder, tables, prefix)


@pytest.fixture
async def world(tmp_path: Path, postgres: PostgresServer) -> AsyncIterator[World]:
    memory = await asyncio.to_thread(RedisServer({"min-replicas-max-lag": "5"}).start)
    (tmp_path / "objects").mkdir()
    tables = {
        "storage": {
            "engine": "postgres", "partitions": 4, "database": postgres.database(),
            "queue": [postgres.database(), postgres.database()],
        },
        "memory": {"engine": "valkey", "url": memory.url},
        "objects": {"url": f"file://{tmp_path / 'objects'}"},
        "security": {"master_key": base64.b64encode(b"k" * 32).decode()},
        "cluster": {"enabled": True, "secret": "s" * 32, "lease_s": LEASE_S},
    }  # fmt: skip
    made = World(tmp_path, tables)
    try:
        await asyncio.to_thread(made.first.start)
        yield made
    finally:
        made.first.close()
        memory.close()


def run(node: Server, *command: str) -> tuple[int, list[str]]:
    """The exit code of a command with a node's settings, and what it says."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
    done = subprocess.run(
        [sys.executable, "-m", "trunkline", "--config", str(node.config), *command],
        capture_output=True, text=True, timeout=START_S, env=environment,
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).splitlines()


async def refused(node: Server) -> str:
    """The line with which it does not start."""
    code, lines = await asyncio.to_thread(run, node, "serve")
    (line,) = [one for one in lines if one.startswith("trunkline: ")]
    assert code == 1
    return line


async def doctor(node: Server) -> list[str]:
    """What the doctor says with a node's settings."""
    return (await asyncio.to_thread(run, node, "doctor"))[1]


async def test_a_node_unlike_the_others_does_not_start(world: World) -> None:
    secret = world.node("b", cluster={"secret": "t" * 32})
    line = "trunkline: cluster.secret: node a has another one; it must be the same on each node"
    assert await refused(secret) == line
    assert any("it refuses this node: is cluster.secret the same on both?" in line for line in await doctor(secret))
    partitions = await refused(world.node("b", storage={"partitions": 8}))
    assert partitions.endswith("storage.partitions is 8, this queue was made with 4: say partitions = 4")
    named = await refused(world.node("a"))
    assert "node.name a: another process is alive under this name" in named
    zones = await refused(world.node("b", storage={"survives": "zone"}))
    assert zones.endswith("synchronous_standby_names is empty: a zone lost takes what only its primary has")
    replicas = await refused(world.node("b", memory={"survives": "zone"}))
    assert replicas.endswith("has no replica: a zone lost takes what only it has")
    _, told = await asyncio.to_thread(run, world.first, "cluster")
    assert not [line for line in told if line.startswith("b\t")], "none of them is a member"


async def test_the_doctor_names_what_does_not_stop_a_node(world: World) -> None:
    beside = await doctor(world.node("b", node={"zone": "a"}))
    assert any("node.zone: all 2 nodes say zone a; nothing tells which of them fail together" in one for one in beside)
    for name in ("storage.survives", "memory.survives"):
        (line,) = [one for one in beside if f"\t{name}\t" in one]
        assert "one host lost may take what is kept" in line


async def test_a_node_whose_clock_is_wrong_is_named(world: World, tmp_path: Path) -> None:
    off = tmp_path / "clock"
    off.write_text("+30\n")
    ahead = world.node("b", ("env", *(f"{name}={value}" for name, value in environment(off).items())))
    try:
        await asyncio.to_thread(ahead.start)
        (line,) = [one for one in await doctor(world.first) if "node b: its clock is" in one]
        assert "s ahead of this one's; run chrony on each" in line
    finally:
        ahead.close()
