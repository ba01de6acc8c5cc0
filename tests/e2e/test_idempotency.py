"""An Idempotency-Key gives the first answer again, byte for byte, also after a restart and after a crash."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.client import Client
from tests.e2e.conftest import LOOPBACK, make_tenant
from tests.e2e.server import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, LOOPBACK)
    yield server
    server.close()


async def test_replay(server: Server, session: aiohttp.ClientSession) -> None:
    tenant = await asyncio.to_thread(server.seed, make_tenant)
    await asyncio.to_thread(server.start)
    client = Client(session, server, tenant.account)
    form = {"To": "+12125550160", "From": tenant.numbers[0].phone_number, "Body": "Once"}
    key = {"Idempotency-Key": "order-4711"}
    first = await client.call("POST", "Messages.json", form, key)
    assert first.status == 201
    twins = await asyncio.gather(*(client.call("POST", "Messages.json", form, key) for _ in range(5)))
    assert {(twin.status, twin.body) for twin in twins} == {(201, first.body)}
    changed = await client.call("POST", "Messages.json", {**form, "Body": "Twice"}, key)
    assert changed.status == 422
    await client.settled(first.json["sid"])

    assert await asyncio.to_thread(server.stop) == 0
    await asyncio.to_thread(server.start)
    again = await client.call("POST", "Messages.json", form, key)
    assert (again.status, again.body) == (201, first.body)

    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    again = await client.call("POST", "Messages.json", form, key)
    assert (again.status, again.body) == (201, first.body)
    assert again.headers["Content-Type"] == first.headers["Content-Type"]

    listed = (await client.call("GET", "Messages.json")).json["messages"]
    assert [message["sid"] for message in listed] == [first.json["sid"]]
    other = await client.call("POST", "Messages.json", form, {"Idempotency-Key": "order-4712"})
    assert other.json["sid"] != first.json["sid"]


async def test_twins_at_the_same_time_make_one_message(server: Server, session: aiohttp.ClientSession) -> None:
    tenant = await asyncio.to_thread(server.seed, make_tenant)
    await asyncio.to_thread(server.start)
    client = Client(session, server, tenant.account)
    form = {"To": "+12125550161", "From": tenant.numbers[0].phone_number, "Body": "Once"}
    for key in ("a", "b", "c"):
        twins = [client.call("POST", "Messages.json", form, {"Idempotency-Key": key}) for _ in range(10)]
        answers = await asyncio.gather(*twins)
        assert {answer.body for answer in answers if answer.status == 201}
        assert len({answer.body for answer in answers if answer.status == 201}) == 1
        assert {answer.status for answer in answers} <= {201, 409}
    assert len((await client.call("GET", "Messages.json")).json["messages"]) == 3
