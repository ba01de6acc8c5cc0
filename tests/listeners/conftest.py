"""A messaging node with the SMPP server on it, and clients that bind to it."""

import asyncio

import pytest

from tests.messaging.conftest import make_world, secrets  # noqa: F401  (fixtures)
from tests.messaging.world import AC
from trunkline.listeners import smpp
from trunkline.model.account import Account
from trunkline.settings import Loopback, Messaging, Settings, SmppServer, Webhooks
from trunkline.smpp import pdu as p
from trunkline.smpp import transport
from trunkline.smpp.session import Limits
from trunkline.webhooks.delivery import Delivery

SYSTEM_ID, PASSWORD = "customer", "s3cret"


class Esme(transport.Handler):
    """A client that answers deliver_sm with `status` and keeps what came."""

    def __init__(self):
        self.status = 0
        self.got = []
        self.connection = None
        self._changed = asyncio.Event()

    def on_request(self, connection, sequence, pdu):
        self.got.append(pdu)
        connection.respond(sequence, self.status)
        self._changed.set()

    async def until(self, count):
        async with asyncio.timeout(60):
            while len(self.got) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.got

    async def ask(self, pdu):
        """The response to a request."""
        async with asyncio.timeout(60):
            return (await self.connection.request(pdu)).pdu

    async def submit(self, text="hello", **fields):
        given = {
            "source_ton": 1, "source_npi": 1, "source": "12025550100", "destination": "14155550199",
            "message": text.encode(), "registered_delivery": 1,
        } | fields  # fmt: skip
        return await self.ask(p.SubmitSm(**given))


class Node:
    """World, delivery and SMPP server."""

    def __init__(self, world, settings):
        self.world = world
        self.settings = settings
        self.esmes = []

    async def start(self):
        world = self.world
        self.server = smpp.SmppServer(
            self.settings, world.directory, world.outbound, world.inflight, world.reader, world.alerts
        )
        self.delivery = Delivery(world.queue, world.clock, self.settings.webhooks, self.server.handlers)
        self.server.attach(self.delivery)
        world.inflight.owed = self.delivery.push
        await self.delivery.recover()
        await self.server.start()

    async def stop(self):
        for esme in self.esmes:
            esme.connection.abort("over")
        await self.server.stop(1)
        await self.delivery.stop(1)

    async def restart(self):
        await self.stop()
        await self.world.restart()
        await self.start()

    async def bind(self, kind=p.BindTransceiver, system_id=SYSTEM_ID, password=PASSWORD, window=10, **options):
        esme = Esme()
        esme.connection = await transport.connect(
            "127.0.0.1", self.server.port, kind(system_id=system_id, password=password), esme,
            limits=Limits(window=window), **options,
        )  # fmt: skip
        self.esmes.append(esme)
        return esme


@pytest.fixture
async def make_node(make_world):  # noqa: F811
    nodes = []

    async def make(account=None, messaging=None, webhooks=None, **server):
        settings = Settings(
            smpp_server=SmppServer(**({"enabled": True, "port": 0} | server)),
            messaging=Messaging(**(messaging or {})),
            webhooks=Webhooks(**({"retry_first_s": 0.01, "retry_longest_s": 0.05} | (webhooks or {}))),
            connectors=(Loopback(name="carrier"),),
        )
        world = await make_world(settings)
        found = await world.database.get(Account, AC)
        for name, value in ({"smpp_system_id": SYSTEM_ID, "smpp_password": PASSWORD} | (account or {})).items():
            setattr(found, name, value)
        await world.database.update(found)
        node = Node(world, settings)
        await node.start()
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        await node.stop()


@pytest.fixture
async def node(make_node):
    return await make_node()
