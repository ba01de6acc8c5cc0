"""Lists are walked while messages are created, go out and land: none is missed, none comes twice."""

import asyncio

import pytest

from tests.e2e.client import Client
from tests.e2e.conftest import Tenant

SENDERS = 8
BEFORE = 150
"""Messages that are there when the walk begins."""
PAGE_SIZE = 7


async def walk(client: Client) -> list[str]:
    """The SIDs of the whole list, page by page, as they come."""
    path: str | None = f"Messages.json?PageSize={PAGE_SIZE}"
    sids: list[str] = []
    while path:
        page = (await client.call("GET", path)).json
        assert len(page["messages"]) <= PAGE_SIZE
        sids += [message["sid"] for message in page["messages"]]
        path = page["next_page_uri"]
    return sids


async def keep_sending(
    client: Client, number: str, sids: list[str], enough: asyncio.Event, ended: asyncio.Event
) -> None:
    while not ended.is_set():
        sids.append((await client.send(to="+12125550150", from_=number, body=f"No {len(sids)}"))["sid"])
        if len(sids) >= BEFORE:
            enough.set()


@pytest.mark.parametrize("walks", [3])
async def test_walk_under_load(client: Client, tenant: Tenant, walks: int) -> None:
    number = tenant.numbers[0].phone_number
    sids: list[str] = []
    enough, ended = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as senders:
        for _ in range(SENDERS):
            senders.create_task(keep_sending(client, number, sids, enough, ended))
        await enough.wait()
        for _ in range(walks):
            before = list(sids)
            found = await walk(client)
            assert len(found) == len(set(found)), "a message came twice"
            assert not set(before) - set(found), "a message was missed"
            assert found == sorted(found, key=lambda sid: sid[2:], reverse=True)
        ended.set()
    assert len(sids) > BEFORE
    assert set(await walk(client)) == set(sids)


async def test_pages_lead_back(client: Client, tenant: Tenant) -> None:
    for index in range(6):
        await client.send(to="+12125550151", from_=tenant.numbers[0].phone_number, body=f"No {index}")
    first = (await client.call("GET", "Messages.json?PageSize=2")).json
    second = (await client.call("GET", first["next_page_uri"])).json
    third = (await client.call("GET", second["next_page_uri"])).json
    assert third["next_page_uri"] is None
    back = (await client.call("GET", third["previous_page_uri"])).json
    assert [m["sid"] for m in back["messages"]] == [m["sid"] for m in second["messages"]]
    assert first["previous_page_uri"] is None
