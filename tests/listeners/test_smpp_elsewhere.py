"""A client bound to one node gets what another node owes it."""

import asyncio

import pytest

from tests.listeners.conftest import PASSWORD, SYSTEM_ID, Node
from tests.listeners.helpers import carrier, delivered, message_of
from tests.messaging.world import AC, Carrier, MovableClock, World, eventually
from trunkline.cluster.peers import PeerError
from trunkline.listeners import smpp_elsewhere
from trunkline.settings import Loopback, Settings, SmppServer, Webhooks
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp import receipt
from trunkline.storage.engines.sqlite.database import SqliteDatabase
from trunkline.storage.unavailable import StoreUnavailable


class Peer(Node):
    """A node that knows the others."""

    def __init__(self, world, settings, name, net):
        super().__init__(world, settings)
        self.name, self.net, self.handlers = name, net, {}
        net[name] = self
        self.sids, self.owners = set(), []

    async def start(self):
        await super().start()
        self.elsewhere = self.server.join(self, self.handlers.__setitem__)
        self.delivery._handlers = self.server.handlers

    def others(self):
        return [name for name in self.net if name != self.name]

    def is_our_sid(self, sid):
        return sid in self.sids

    async def owner(self, shard):
        return self.owners.pop(0)

    async def call(self, node, kind, payload, timeout_s):
        return await self.net[node].handlers[kind](self.name, payload)


@pytest.fixture
async def nodes(tmp_path, secrets):
    net, clock, databases = {}, MovableClock(), []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        database = SqliteDatabase(tmp_path / name / "control.db", clock, secrets)
        settings = Settings(
            smpp_server=SmppServer(enabled=True, port=0),
            webhooks=Webhooks(retry_first_s=0.01, retry_longest_s=0.05),
            connectors=(Loopback(name="carrier"),),
        )
        world = World(tmp_path / name, database, clock, settings, {"carrier": Carrier()})
        await world.start()
        await world.give_account(smpp_system_id=SYSTEM_ID, smpp_password=PASSWORD)
        await world.give_number()
        await Peer(world, settings, name, net).start()
        databases.append(database)
    yield net["a"], net["b"]
    for node in net.values():
        await node.elsewhere.stop()
        await node.stop()
        await node.world.stop()
    for database in databases:
        await database.close()


async def submitted(node):
    """A message submitted at `node` by a client that takes no receipts."""
    sender = await node.bind(p.BindTransmitter)
    response = await sender.submit()
    return await message_of(node, response.message_id)


async def test_a_receipt_goes_by_the_node_where_the_client_is(nodes):
    a, b = nodes
    esme = await b.bind(p.BindReceiver)
    await eventually(lambda: a.elsewhere.node(AC) == "b")
    message = await submitted(a)
    await delivered(a, message)
    (pdu,) = await esme.until(1)
    assert receipt.parse(pdu).message_id == message.sid
    await eventually(lambda: a.delivery.delivered == 1)


async def test_it_waits_for_a_client_anywhere(nodes):
    a, b = nodes
    message = await submitted(a)
    await delivered(a, message)
    await asyncio.sleep(0.05)
    (owed,) = (await a.world.queue.get(AC, message.sid))[1]
    assert (owed.state, owed.tries) == ("owed", 0)
    esme = await b.bind(p.BindReceiver)
    (pdu,) = await esme.until(1)
    assert receipt.parse(pdu).message_id == message.sid


async def test_a_refusal_there_is_tried_again(nodes):
    a, b = nodes
    esme = await b.bind(p.BindReceiver)
    esme.status = c.ESME_RX_T_APPN
    await eventually(lambda: a.elsewhere.node(AC) == "b")
    await delivered(a, await submitted(a))
    await esme.until(2)
    esme.status = 0
    await eventually(lambda: a.delivery.delivered == 1)


async def test_ours_are_taken_first(nodes):
    a, b = nodes
    far = await b.bind(p.BindReceiver)
    near = await a.bind(p.BindReceiver)
    await eventually(lambda: a.elsewhere.node(AC) == "b")
    await delivered(a, await submitted(a))
    await near.until(1)
    assert far.got == []


async def test_a_client_that_leaves_and_a_node_that_is_lost(nodes):
    a, b = nodes
    esme = await b.bind(p.BindReceiver)
    await eventually(lambda: a.elsewhere.node(AC) == "b")
    esme.connection.abort("over")
    await eventually(lambda: a.elsewhere.node(AC) is None)
    await b.bind(p.BindReceiver)
    await eventually(lambda: a.elsewhere.node(AC) == "b")
    a.elsewhere.lost("b")
    message = await submitted(a)
    await delivered(a, message)
    await asyncio.sleep(0.05)
    (owed,) = (await a.world.queue.get(AC, message.sid))[1]
    assert (owed.state, owed.tries) == ("owed", 0), "nobody to deliver to burns no attempt"


async def test_a_node_that_comes_later_is_told(nodes):
    a, b = nodes
    await b.bind(p.BindReceiver)
    await eventually(lambda: a.elsewhere.node(AC) == "b")
    a.elsewhere.lost("b")
    b.elsewhere.joined("a")
    await eventually(lambda: a.elsewhere.node(AC) == "b")


async def test_a_node_that_was_taken_for_dead_tells_of_its_clients_again(nodes, monkeypatch):
    """It goes on, and so do its clients' binds: nothing has changed for it to tell of."""
    monkeypatch.setattr(smpp_elsewhere, "TELL_AGAIN_S", 0.01)
    a, b = nodes
    esme = await b.bind(p.BindReceiver)
    await eventually(lambda: a.elsewhere.node(AC) == "b")
    a.elsewhere.lost("b")
    assert a.elsewhere.node(AC) is None
    telling = asyncio.create_task(b.elsewhere.run())
    message = await submitted(a)
    await delivered(a, message)
    (pdu,) = await esme.until(1)
    assert receipt.parse(pdu).message_id == message.sid
    telling.cancel()


async def test_a_message_of_another_node_is_cancelled_there(nodes):
    a, b = nodes
    carrier(a).down = True
    sender = await a.bind(p.BindTransmitter)
    sid = (await sender.submit()).message_id
    a.sids.add(sid)
    esme = await b.bind()
    b.owners = ["a"] * 2
    assert (await esme.ask(p.CancelSm(message_id=sid))).status == c.ESME_ROK
    assert (await esme.ask(p.CancelSm(message_id=sid))).status == c.ESME_RCANCELFAIL
    assert (await a.world.reader.get(AC, sid)).status == "canceled"
    b.owners = ["a"]
    a.sids.add("SM" + "0" * 32)
    assert (await esme.ask(p.CancelSm(message_id="SM" + "0" * 32))).status == c.ESME_RINVMSGID


async def test_a_cancel_follows_a_message_that_moves_and_gives_up(nodes, monkeypatch):
    a, b = nodes
    carrier(a).down = True
    sid = (await (await a.bind(p.BindTransmitter)).submit()).message_id
    esme = await b.bind()
    called = []

    async def call(node, kind, payload, timeout_s):
        called.append(node)
        if len(called) < 2:
            raise PeerError("failed", "the partition has just left")
        return await a.handlers[kind]("b", payload)

    monkeypatch.setattr(b, "call", call)
    b.owners = ["c", "a"]
    a.sids.add(sid)
    assert (await esme.ask(p.CancelSm(message_id=sid))).status == c.ESME_ROK
    assert called == ["c", "a"]

    async def away(shard):
        raise StoreUnavailable("nobody owns it")

    monkeypatch.setattr(b, "owner", away)
    assert (await esme.ask(p.CancelSm(message_id=sid))).status == c.ESME_RSYSERR
