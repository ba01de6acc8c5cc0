"""Three nodes on PostgreSQL and Redis: one API, whichever is asked; nothing is lost when one is killed.

Counted outside the nodes: at the load generators, at the carrier and at the customer's web server.
"""

import asyncio
import base64
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import orjson
import pytest

from tests.e2e.carrier import Carrier
from tests.e2e.client import Client, until
from tests.e2e.conftest import Tenant, make_tenant
from tests.e2e.load import Load
from tests.e2e.server import Server
from tests.e2e.sink import Sink
from tests.e2e.test_kill import SETTINGS, WINDOW, carrier  # noqa: F401  (fixture)
from tests.ports import free_port
from tests.postgres import PostgresServer, needs_postgres
from tests.redis import RedisServer, needs_redis

pytestmark = [needs_postgres, needs_redis]
PARTITIONS = 6
ZONES = ("a", "b", "c")
BETWEEN = 100
LEASE_S = 3
"""Long, for a machine that does other things as well: a lease that runs out in a pause is a takeover, no failure."""


class Lab(NamedTuple):
    nodes: list[Server]
    carrier: Carrier
    tenant: Tenant
    clients: list[Client]
    sink: Sink


@pytest.fixture
async def lab(
    tmp_path: Path,
    carrier: Carrier,  # noqa: F811
    postgres: PostgresServer,
    session: aiohttp.ClientSession,
    sink: Sink,
) -> AsyncIterator[Lab]:
    memory = await asyncio.to_thread(RedisServer().start)
    storage = {
        "engine": "postgres",
        "queue": [postgres.database(), postgres.database()],
        "database": postgres.database(),
        "partitions": PARTITIONS,
    }
    nodes = []
    for zone in ZONES:
        folder = tmp_path / zone
        folder.mkdir()
        settings = {
            **SETTINGS,
            "storage": storage,
            "memory": {"engine": "valkey", "url": memory.url},
            "objects": {"url": f"file://{tmp_path / 'objects'}"},
            "security": {"master_key": base64.b64encode(b"k" * 32).decode()},
            "node": {"name": f"node-{zone}", "zone": zone, "address": f"127.0.0.1:{free_port()}"},
            "cluster": {"enabled": True, "secret": "s" * 32, "lease_s": LEASE_S},
            "connectors": [carrier.connector(window=WINDOW)],
        }
        nodes.append(Server(folder, settings))
    (tmp_path / "objects").mkdir()
    try:
        tenant = await asyncio.to_thread(nodes[0].seed, make_tenant)
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in nodes))
        clients = [Client(session, node, tenant.account) for node in nodes]
        yield Lab(nodes, carrier, tenant, clients, sink)
    finally:
        for node in nodes:
            await asyncio.to_thread(node.close)
        memory.close()


def form(lab: Lab, key: str) -> dict[str, str]:
    number = lab.tenant.numbers[0].phone_number
    return {"From": number, "To": "+12125550100", "Body": f"K={key}", "StatusCallback": f"{lab.sink.url}/status"}


async def test_every_node_answers_for_all(lab: Lab) -> None:
    await check_command_line(lab)
    sids = []
    for number, client in enumerate(lab.clients):
        created = await client.call("POST", "Messages.json", form(lab, f"m{number}"))
        assert created.status == 201, created.body
        sids.append(created.json["sid"])
    for client in lab.clients:
        for sid in sids:
            await client.settled(sid)
        listed = (await client.call("GET", "Messages.json")).json["messages"]
        assert [one["sid"] for one in listed] == sorted(sids, key=lambda sid: sid[2:], reverse=True)
        assert {one["status"] for one in listed} == {"delivered"}
    assert await lab.carrier.taken() == {"m0": 1, "m1": 1, "m2": 1}
    for client in lab.clients:  # whoever owns it, anyone deletes it
        sid = sids.pop()
        assert (await client.call("DELETE", f"Messages/{sid}.json")).status == 204
        for other in lab.clients:
            assert (await other.call("GET", f"Messages/{sid}.json")).status == 404


def said(node: Server, *command: str) -> str:
    """What the command line says beside a node."""
    config = str(node.folder / "trunkline.toml")
    done = subprocess.run(
        [sys.executable, "-m", "trunkline", "--config", config, *command], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def check_command_line(lab: Lab) -> None:
    """It tells who is there, and who owns what."""
    told = orjson.loads(await asyncio.to_thread(said, lab.nodes[1], "cluster", "--json"))
    assert [(one["node"], one["zone"]) for one in told["nodes"]] == [(f"node-{zone}", zone) for zone in ZONES]
    owners = {one["what"]: one["node"] for one in told["things"]}
    assert owners.keys() == {*(f"p/{number}" for number in range(PARTITIONS)), "connector/carrier", "single/archive"}
    for node in told["nodes"]:
        parts = [number for number in range(PARTITIONS) if owners[f"p/{number}"] == node["node"]]
        assert sorted(number % 2 for number in parts) == [0, 1], "a part in each database"
        heir = next(one for one in told["nodes"] if one["node"] == node["heir"])
        assert heir["zone"] != node["zone"]
    advice = await asyncio.to_thread(said, lab.nodes[2], "doctor")
    assert "3 nodes: node-a (a), node-b (b), node-c (c)" in " ".join(advice.split())
    assert "nobody owns" not in advice
    assert "clock is" not in advice


async def test_a_key_acts_once_wherever_it_is_used(lab: Lab) -> None:
    for number in range(6):
        key = {"Idempotency-Key": f"key-{number}"}
        answers = await asyncio.gather(
            *(client.call("POST", "Messages.json", form(lab, f"k{number}"), key) for client in lab.clients)
        )
        created = [answer for answer in answers if answer.status == 201]
        assert created, [answer.body for answer in answers]
        assert len({answer.json["sid"] for answer in created}) == 1
        again = await lab.clients[number % 3].call("POST", "Messages.json", form(lab, f"k{number}"), key)
        assert (again.status, again.body) == (201, created[0].body)
    await until(lab.carrier.taken, lambda taken: len(taken) == 6)
    assert set((await lab.carrier.taken()).values()) == {1}


@pytest.mark.slow  # a shorter one: test_chaos.py
async def test_a_node_that_is_killed_loses_nothing(lab: Lab) -> None:
    """Each node has customers of its own; those of the one that dies get no answers while it is away, the others do."""
    loads = [Load(client, lab.tenant, lab.sink, 60.0) for client in lab.clients]
    for number, load in enumerate(loads):
        load.prefix = f"n{number}-"
    async with loads[0], loads[1], loads[2]:
        for load in loads:
            await load.more(BETWEEN)
        await asyncio.to_thread(lab.nodes[0].kill)
        for load in loads[1:]:
            await load.more(3 * BETWEEN)
        await asyncio.to_thread(lab.nodes[0].start)
        for load in loads:
            await load.more(BETWEEN)
    assert [load.refused for load in loads[1:]] == [[], []], "the others never refuse"
    assert not loads[1].unknown | loads[2].unknown, "nor leave a request without an answer"
    for load in loads:
        await load.delivered()
    taken = await lab.carrier.taken()
    for load in loads:
        lost = [key for key in load.accepted.values() if key not in taken]
        assert not lost, f"{len(lost)} accepted messages never reached the carrier"
        told = load.statuses()
        silent = [sid for sid in load.accepted if not {"sent", "delivered"} <= told[sid]]
        assert not silent, f"{len(silent)} callbacks of {len(load.accepted)} messages were lost"
    twice = [key for key, times in taken.items() if times > 1]
    assert len(twice) <= 2 * WINDOW, f"{len(twice)} went out twice"


async def test_a_rolling_restart_loses_and_repeats_nothing(lab: Lab) -> None:
    """Each node in its turn hands over what it owns, ends and comes again; customers use those that are up."""
    load = Load(lab.clients[1], lab.tenant, lab.sink, 60.0)
    async with load:
        await load.more(BETWEEN)
        for node, other in ((0, 1), (2, 1), (1, 2)):
            load.client = lab.clients[other]
            assert await asyncio.to_thread(lab.nodes[node].stop) == 0
            await load.more(BETWEEN)
            await asyncio.to_thread(lab.nodes[node].start)
        await load.more(BETWEEN)
    assert (load.refused, load.unknown) == ([], set())
    await load.delivered()
    taken = await lab.carrier.taken()
    assert {key for key in load.accepted.values() if key not in taken} == set(), "accepted, and never sent"
    assert [key for key, times in taken.items() if times > 1] == [], "sent twice"
