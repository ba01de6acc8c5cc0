"""A node whose queue and database are in PostgreSQL: accepts, delivers, lists, and goes on after kill -9 of itself."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.carrier import Carrier
from tests.e2e.client import Client
from tests.e2e.conftest import make_tenant
from tests.e2e.load import Load
from tests.e2e.server import Server
from tests.e2e.sink import Sink
from tests.e2e.test_kill import BETWEEN, SETTINGS, WINDOW, Lab, carrier, check, crash  # noqa: F401  (fixture)
from tests.postgres import PostgresServer, needs_postgres
from trunkline.settings import load as load_settings

pytestmark = needs_postgres
KILLS = 2


def storage_in(server: PostgresServer) -> dict[str, Any]:
    """Fresh databases."""
    # The server waits as long as a busy machine takes to start PostgreSQL again.
    return {"engine": "postgres", "queue": server.database(), "database": server.database(), "wait_s": 60}


@pytest.fixture
async def lab(
    tmp_path: Path,
    carrier: Carrier,  # noqa: F811
    postgres: PostgresServer,
    session: aiohttp.ClientSession,
    sink: Sink,
) -> AsyncIterator[Lab]:
    storage = storage_in(postgres)
    settings = {**SETTINGS, "storage": storage, "connectors": [carrier.connector(window=WINDOW)]}
    server = Server(tmp_path, settings)
    tenant = await asyncio.to_thread(server.seed, make_tenant)
    await asyncio.to_thread(server.start)
    yield Lab(server, carrier, tenant, Client(session, server, tenant.account), sink)
    await asyncio.to_thread(server.close)


def dsn_of(lab: Lab) -> str:
    """The connection string of the lab's queue."""
    return str(load_settings(lab.server.folder / "trunkline.toml", {}).storage.queue[0])


async def test_accepted_delivered_listed_and_replayed_after_a_kill(lab: Lab) -> None:
    form = {"From": lab.tenant.numbers[0].phone_number, "To": "+12125550100", "Body": "K=one"}
    first = await lab.client.call("POST", "Messages.json", form, {"Idempotency-Key": "one"})
    assert first.status == 201
    sid = first.json["sid"]
    await lab.client.settled(sid)
    assert not (lab.server.data / "queue.db").exists()
    await asyncio.to_thread(lab.server.kill)
    await asyncio.to_thread(lab.server.start)
    again = await lab.client.call("POST", "Messages.json", form, {"Idempotency-Key": "one"})
    assert (again.status, again.body) == (201, first.body)
    listed = (await lab.client.call("GET", "Messages.json")).json["messages"]
    assert [(one["sid"], one["status"]) for one in listed] == [(sid, "delivered")]
    assert sum((await lab.carrier.taken()).values()) == 1


async def test_kills_under_load_lose_nothing(lab: Lab) -> None:
    await crash(lab, KILLS, BETWEEN, 200.0)


async def test_a_crash_of_the_database_under_load_loses_nothing(lab: Lab, postgres: PostgresServer) -> None:
    async with Load(lab.client, lab.tenant, lab.sink, 100.0) as load:
        await load.more(BETWEEN)
        await asyncio.to_thread(postgres.end, signal.SIGQUIT)
        await asyncio.to_thread(postgres.start)
        await load.more(BETWEEN)
    assert not load.refused, "requests wait for the database"
    await check(lab, load, 0)


async def test_a_second_server_on_the_queue_and_unknown_servers_are_refused(
    lab: Lab,
    tmp_path: Path,
    postgres: PostgresServer,
) -> None:
    for queue, why in ((dsn_of(lab), "another server owns this queue"), ("host=/nowhere password=hunter2", "/nowhere")):
        (tmp_path / "second").mkdir(exist_ok=True)
        storage = {"engine": "postgres", "queue": queue, "database": postgres.database()}
        second = Server(tmp_path / "second", {**SETTINGS, "storage": storage})
        with pytest.raises(AssertionError, match="the server ended"):
            await asyncio.to_thread(second.start)
        assert why in second.tail(1)
        assert "hunter2" not in second.tail(100)
