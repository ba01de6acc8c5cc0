"""A node with the loopback connector for all stories, one account with two numbers for each."""

from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import aiohttp
import pytest

from tests.e2e.audio_world import audio_switch, legs, line, wire  # noqa: F401  (fixtures)
from tests.e2e.client import Client
from tests.e2e.nodes import serving
from tests.e2e.server import Server
from tests.e2e.sink import Sink
from trunkline.accounts.directory import create_account
from trunkline.model.account import Account
from trunkline.model.clock import Clock
from trunkline.model.numbers import PhoneNumber
from trunkline.model.sid import PHONE_NUMBER, new_sid
from trunkline.storage.database import Database

LOOPBACK = {
    "profile": "development",
    "messaging": {"long_code_mps": 0},
    "connectors": [{"name": "air", "kind": "loopback", "delay_s": 0.02}],
    "webhooks": {"retry_first_s": 0.2},
}
TENANTS = 20


class Tenant(NamedTuple):
    """An account and its numbers."""

    account: Account
    numbers: tuple[PhoneNumber, PhoneNumber]


async def make_tenant(database: Database, clock: Clock, index: int = 0) -> Tenant:
    """An account with two numbers."""
    account = await create_account(database, clock, f"Tenant {index}")
    numbers = [
        PhoneNumber(
            sid=new_sid(PHONE_NUMBER),
            account_sid=account.sid,
            phone_number=f"+1{area}5550{100 + index}",
            bought_ms=clock.now_ms(),
        )
        for area in (201, 202)
    ]
    await database.insert(*numbers)
    return Tenant(account, (numbers[0], numbers[1]))


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, list[Tenant]]]:
    """The shared server and the accounts that nobody has used yet."""
    server = serving(tmp_path_factory.mktemp("node"), LOOPBACK)

    async def work(database: Database, clock: Clock) -> list[Tenant]:
        return [await make_tenant(database, clock, index) for index in range(TENANTS)]

    tenants = server.seed(work)
    server.start()
    yield server, tenants
    server.close()


@pytest.fixture
def tenant(node: tuple[Server, list[Tenant]]) -> Tenant:
    """An account of this test's own."""
    return node[1].pop()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Connections to servers."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


@pytest.fixture
def client(session: aiohttp.ClientSession, node: tuple[Server, list[Tenant]], tenant: Tenant) -> Client:
    """The tenant at the shared server."""
    return Client(session, node[0], tenant.account)


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """The tenant's web server."""
    async with Sink() as sink:
        yield sink
