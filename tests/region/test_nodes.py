"""Two regions with a real node each: messages accepted in one are there in the other, and only one of them serves."""

import asyncio
import base64
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.client import Client, until
from tests.e2e.conftest import make_tenant
from tests.e2e.server import Server
from tests.ports import free_port
from tests.postgres import needs_postgres
from tests.redis import RedisServer, needs_redis
from tests.region.regions import PARTITIONS, Regions, dsns
from trunkline.region.promotion import begin, promote

pytestmark = [needs_postgres, needs_redis, pytest.mark.slow]
PATIENCE_S = 90.0


def settings(regions: Regions, tmp_path: Path, name: str, memory: RedisServer) -> Server:
    servers = {"one": regions.one, "two": regions.two}
    (other,) = servers.keys() - {name}
    own, its = dsns(servers[name]), dsns(servers[other])
    folder = tmp_path / name
    folder.mkdir()
    return Server(
        folder,
        {
            "profile": "development",
            "messaging": {"long_code_mps": 0},
            "server": {"shutdown_s": 3.0},
            "storage": {"engine": "postgres", "queue": own["queue0"], "database": own["database"],
                        "partitions": PARTITIONS},
            "memory": {"engine": "valkey", "url": memory.url},
            "objects": {"url": f"file://{tmp_path / 'objects'}"},
            "security": {"master_key": base64.b64encode(b"k" * 32).decode()},
            "node": {"name": f"node-{name}", "zone": name, "region": name, "address": f"127.0.0.1:{free_port()}"},
            "cluster": {"enabled": True, "secret": "s" * 32, "lease_s": 3},
            "regions": [{"name": other, "queue": its["queue0"], "database": its["database"]}],
        },
    )  # fmt: skip


async def has_said(server: Server, text: str) -> None:
    """Wait until a node's log has it."""
    await until(lambda: asyncio.to_thread(server.tail, 200), lambda log: text in log, PATIENCE_S)


async def test_a_region_is_handed_over_and_the_former_one_does_not_start_again(tmp_path: Path) -> None:
    regions = await asyncio.to_thread(Regions, tmp_path)
    memories = [await asyncio.to_thread(RedisServer().start) for _ in range(2)]
    one, two = (
        settings(regions, tmp_path, name, memory) for name, memory in zip(("one", "two"), memories, strict=True)
    )
    try:
        async with aiohttp.ClientSession() as session:
            tenant = await asyncio.to_thread(one.seed, make_tenant)
            await asyncio.to_thread(begin, regions.ways("one"))
            await asyncio.to_thread(one.start)
            waits = asyncio.create_task(asyncio.to_thread(two.start))
            await has_said(two, "waiting: standby: one is active in epoch 1")
            client = Client(session, one, tenant.account)
            form = {"From": tenant.numbers[0].phone_number, "To": "+12125550100", "Body": "hello"}
            key = {"Idempotency-Key": '"once"'}
            made = (await client.call("POST", "Messages.json", form, key)).json["sid"]
            await client.settled(made)
            assert not waits.done()
            handover = await asyncio.to_thread(promote, regions.ways("two", drain_s=30.0))
            assert handover.lost_s == 0
            assert await asyncio.to_thread(one.wait, PATIENCE_S) == 0
            assert "region one was replaced: two is active in epoch 2" in one.tail(200)
            await waits
            there = Client(session, two, tenant.account)
            assert (await there.message(made))["status"] == "delivered"
            again = await there.call("POST", "Messages.json", form, key)
            assert (again.status, again.json["sid"]) == (201, made)
            fresh = (await there.call("POST", "Messages.json", form)).json["sid"]
            await there.settled(fresh)
            with pytest.raises(AssertionError, match="region one was replaced"):
                await asyncio.to_thread(one.start)
    finally:
        for server in (one, two):
            server.close()
        for memory in memories:
            memory.close()
        regions.close()
