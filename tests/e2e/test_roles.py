"""Nodes of different roles on PostgreSQL and Redis: one answers the API, one has the messages, one the calls."""

import asyncio
import base64
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import orjson
import pytest

from tests.e2e.carrier import Carrier
from tests.e2e.client import Client, until
from tests.e2e.conftest import Tenant, make_tenant
from tests.e2e.server import Server
from tests.e2e.test_cluster import LEASE_S
from tests.e2e.test_kill import carrier  # noqa: F401  (fixture)
from tests.ports import free_port
from tests.postgres import PostgresServer, needs_postgres, postgres  # noqa: F401  (fixture)
from tests.redis import RedisServer, needs_redis
from trunkline.model.sid import shard_of

pytestmark = [needs_postgres, needs_redis, pytest.mark.slow]
PARTITIONS, OF_CALLS = 4, 2
ROLES = {"front": "api", "texts": "messaging", "phones": "voice,media"}
HOME_WAIT_S = 1.0


class Lab(NamedTuple):
    nodes: dict[str, Server]
    carrier: Carrier
    tenant: Tenant
    client: Client
    session: aiohttp.ClientSession


@pytest.fixture
async def lab(
    tmp_path: Path,
    carrier: Carrier,  # noqa: F811
    postgres: PostgresServer,  # noqa: F811
    session: aiohttp.ClientSession,
) -> AsyncIterator[Lab]:
    memory = await asyncio.to_thread(RedisServer().start)
    storage = {
        "engine": "postgres", "queue": [postgres.database(), postgres.database()], "database": postgres.database(),
        "partitions": PARTITIONS,
    }  # fmt: skip
    nodes = {}
    for name, roles in ROLES.items():
        folder = tmp_path / name
        folder.mkdir()
        settings: dict[str, Any] = {
            "profile": "development",
            "messaging": {"long_code_mps": 0},
            "webhooks": {"retry_first_s": 0.2},
            "storage": storage,
            "memory": {"engine": "valkey", "url": memory.url},
            "objects": {"url": f"file://{tmp_path / 'objects'}"},
            "security": {"master_key": base64.b64encode(b"k" * 32).decode()},
            "node": {"name": name, "address": f"127.0.0.1:{free_port()}", "roles": roles.split(",")},
            "cluster": {
                "enabled": True, "secret": "s" * 32, "lease_s": LEASE_S, "voice_partitions": OF_CALLS,
                "home_wait_s": HOME_WAIT_S,
            },
            "sip": {"enabled": True, "port": 0},
            "speech": {"engine": "tones"},
            "connectors": [carrier.connector(window=10)],
        }  # fmt: skip
        nodes[name] = Server(folder, settings)
    (tmp_path / "objects").mkdir()
    try:
        tenant = await asyncio.to_thread(nodes["front"].seed, make_tenant)
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in nodes.values()))
        yield Lab(nodes, carrier, tenant, Client(session, nodes["front"], tenant.account), session)
    finally:
        for node in nodes.values():
            await asyncio.to_thread(node.close)
        memory.close()


def form(lab: Lab, key: str) -> dict[str, str]:
    return {"From": lab.tenant.numbers[0].phone_number, "To": "+12125550100", "Body": f"K={key}"}


def call_form(lab: Lab, twiml: str = "<Response><Pause length='1'/></Response>") -> dict[str, str]:
    return {"From": lab.tenant.numbers[0].phone_number, "To": "+12125550101", "Twiml": twiml}


def said(node: Server, *command: str) -> str:
    """What the command line says beside a node; it complains of what is missing."""
    config = str(node.folder / "trunkline.toml")
    done = subprocess.run(
        [sys.executable, "-m", "trunkline", "--config", config, *command], capture_output=True, text=True, timeout=60
    )
    return done.stdout


async def test_each_does_its_part_and_the_rest_is_handed_on(lab: Lab) -> None:
    told = orjson.loads(await asyncio.to_thread(said, lab.nodes["front"], "cluster", "--json"))
    owners = {one["what"]: one["node"] for one in told["things"]}
    assert owners == {
        "p/0": "texts", "p/1": "texts", "p/2": "phones", "p/3": "phones", "connector/carrier": "texts",
        "single/archive": "texts",
    }  # fmt: skip
    for number, key in enumerate(({}, {"Idempotency-Key": "one"}, {"Idempotency-Key": "two"})):
        created = await lab.client.call("POST", "Messages.json", form(lab, f"m{number}"), key)
        assert created.status == 201, created.body
        assert shard_of(created.json["sid"]) % PARTITIONS < PARTITIONS - OF_CALLS
        assert (await lab.client.settled(created.json["sid"]))["status"] == "delivered"
        if key:
            again = await lab.client.call("POST", "Messages.json", form(lab, f"m{number}"), key)
            assert (again.status, again.body) == (201, created.body)
    answers = f"{lab.nodes['phones'].base_url}/_simulator/phones/{call_form(lab)['To']}"
    async with lab.session.post(answers, json={"does": "answers"}) as played:
        assert played.status < 300, await played.text()
    for key in ({}, {"Idempotency-Key": "three"}, {"Idempotency-Key": "four"}):
        created = await lab.client.call("POST", "Calls.json", call_form(lab), key)
        assert created.status == 201, created.body
        assert shard_of(created.json["sid"]) % PARTITIONS >= PARTITIONS - OF_CALLS
        assert (await ended(lab, created.json["sid"]))["status"] == "completed"
    listed = (await lab.client.call("GET", "Calls.json")).json["calls"]
    assert len(listed) == 3
    await check_message_of_a_call(lab)
    for name in ("texts", "phones"):
        async with lab.session.get(f"{lab.nodes[name].base_url}/2010-04-01/Accounts.json") as refused:
            assert refused.status == 503
            assert (await refused.json())["message"].startswith("This node does not answer the API")
        async with lab.session.get(f"{lab.nodes[name].base_url}/healthz") as healthy:
            assert healthy.status == 200


async def ended(lab: Lab, sid: str) -> dict[str, Any]:
    async def fetched() -> dict[str, Any]:
        answer = await lab.client.call("GET", f"Calls/{sid}.json")
        assert answer.status == 200, answer.body
        return answer.json

    return await until(fetched, lambda call: call["status"] in ("completed", "failed", "busy", "no-answer"), 30.0)


async def check_message_of_a_call(lab: Lab) -> None:
    """It is taken on by the node with the messages."""
    before = await lab.carrier.taken()
    twiml = "<Response><Message to='+12125550100'>K=spoken</Message></Response>"
    created = await lab.client.call("POST", "Calls.json", call_form(lab, twiml))
    call = await ended(lab, created.json["sid"])
    assert call["status"] == "completed", call
    await until(lab.carrier.taken, lambda taken: set(taken) - set(before) == {"spoken"})


async def test_what_nobody_does_any_more_is_a_clear_503_and_doctor_says_so(lab: Lab) -> None:
    assert await asyncio.to_thread(lab.nodes["texts"].stop) == 0

    async def refused() -> Any:
        return await lab.client.call("POST", "Messages.json", form(lab, "gone"))

    # One that comes just as it leaves is refused in general words.
    answer = await until(refused, lambda answer: answer.status == 503 and "role" in answer.json["message"])
    assert (answer.json["code"], answer.headers["Retry-After"]) == (20503, "1")
    assert answer.json["message"] == "No live node has the role messaging, please try again"
    advice = " ".join((await asyncio.to_thread(said, lab.nodes["front"], "doctor")).split())
    assert "no live node has the role messaging" in advice
    assert "no live node has the role voice" not in advice
    created = await lab.client.call("POST", "Calls.json", call_form(lab))
    assert created.status == 201, created.body
    await asyncio.to_thread(lab.nodes["texts"].start)
    answer = await until(refused, lambda answer: answer.status == 201)
    await lab.client.settled(answer.json["sid"])
