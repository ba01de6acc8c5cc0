"""Messages of one node by the carrier of another: submits cross, outcomes and receipts come back."""

import asyncio

import pytest

from trunkline.cluster.peers import PeerUnavailable
from trunkline.messaging import leased, receipts
from trunkline.messaging.across import Across
from trunkline.messaging.connectors.base import Receipt, Rejected, Submission, Submitted, Unavailable
from trunkline.messaging.leased import LeasedConnector
from trunkline.storage.engines.sqlite.database import SqliteDatabase
from trunkline.storage.unavailable import StoreUnavailable

from .world import AC, Carrier, MovableClock, World, eventually, none_parked


class Real(Carrier):
    """The carrier as a connector that is started and stopped with the lease."""

    def __init__(self):
        super().__init__()
        self.running = False

    def start(self, sink, wake):
        self.running, self.sink, self.wake = True, sink, wake

    async def stop(self, grace_s):
        self.running = False

    def health(self):
        return not self.down, "down" if self.down else "one bind up"


class Net:
    """The links between nodes; `cut` loses requests, `deaf` answers."""

    def __init__(self):
        self.nodes = {}
        self.holder = None
        self.cut = self.deaf = False
        self.fenced = set()


class Node:
    """One node as `trunkline.bootstrap_cluster` wires it, as far as carriers go."""

    def __init__(self, net, name, world, real):
        self.net, self.name, self.world, self.handlers = net, name, world, {}
        self.connector = LeasedConnector("carrier", lambda: real, self)
        net.nodes[name] = self

    def wire(self):
        world = self.world
        world.carriers["carrier"] = self.connector
        self.across = Across(self, self, world.receipts, world.inbound.receive, {"carrier": self.connector})
        self.across.serve(self.handlers.__setitem__)
        world.receipts.entry = self.across.receipt
        world.dispatcher._outs["carrier"].connector = self.connector
        self.connector.start(self.across, lambda: world.dispatcher.wake("carrier"))

    # Holders
    def holder(self, connector):
        return None if self.net.holder == self.name else self.net.holder

    async def call(self, node, kind, payload, timeout_s):
        if self.net.cut or node not in self.net.nodes:
            raise PeerUnavailable("no way there", sent=False)
        answer = await self.net.nodes[node].handlers[kind](self.name, payload)
        if self.net.deaf:
            raise PeerUnavailable("the link was lost", sent=True)
        return answer

    def open(self):
        return self.name not in self.net.fenced

    # Parts
    def find(self, connector, carrier_id):
        for node in self.net.nodes.values():
            found = node.world.queue.find_carrier_id(connector, carrier_id)
            if found is not None:
                return found[2], node is self
        return None

    async def owner(self, sid):
        for node in self.net.nodes.values():
            if await node.world.queue.get(AC, sid):
                return node.name
        raise StoreUnavailable("nobody owns it")


@pytest.fixture
async def nodes(tmp_path, secrets, monkeypatch):
    """`ours` has messages; `theirs` holds the carrier."""
    monkeypatch.setattr(leased, "LOOK_S", 0.02)
    clock, net, real = MovableClock(), Net(), Real()
    made, databases = [], []
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
        database = SqliteDatabase(tmp_path / name / "control.db", clock, secrets)
        world = World(tmp_path / name, database, clock, None, {"carrier": Carrier()})
        await world.start()
        await world.give_account()
        await world.give_number()
        node = Node(net, name, world, real)
        node.wire()
        databases.append(database)
        made.append(node)
    net.holder = "theirs"
    made[1].connector.gain()
    yield made[0], made[1], real
    for node in made:
        await node.connector.stop(1)
        await node.world.stop()
    for database in databases:
        await database.close()


async def up(node):
    await eventually(lambda: node.connector.capacity() > 0)


async def test_a_message_goes_out_by_another_nodes_bind_and_its_receipt_comes_back(nodes):
    ours, theirs, real = nodes
    await up(ours)
    message = await ours.world.send("hello", status_callback="http://x/s")
    message = await ours.world.until(message, "sent")
    assert [one.sid for one in real.taken] == [message.sid]
    await theirs.across.receipt(Receipt("carrier", message.segments[0].id, "delivered"))
    assert (await ours.world.reader.get(AC, message.sid)).status == "delivered", "committed when it is acknowledged"
    assert await theirs.world.queue.parked() == []


async def test_a_receipt_that_comes_before_the_carriers_answer(nodes):
    ours, theirs, real = nodes
    await up(ours)
    real.answer = lambda submission: None
    message = await ours.world.send("hello")
    await eventually(lambda: real.open)
    await theirs.across.receipt(Receipt("carrier", "id-1", "delivered"))
    assert await theirs.world.queue.parked() == [("carrier", "id-1")]
    real.settle(message.sid, Submitted(["id-1"]))
    await ours.world.until(message, "delivered")
    await eventually(lambda: none_parked(theirs.world))


async def test_a_receipt_for_a_node_that_is_not_there_is_not_acknowledged(nodes):
    ours, theirs, _ = nodes
    await up(ours)
    message = await ours.world.until(await ours.world.send("hello"), "sent")
    ours.net.cut = True
    receipt = Receipt("carrier", message.segments[0].id, "delivered")
    with pytest.raises(StoreUnavailable):
        await theirs.across.receipt(receipt)
    ours.net.cut = False
    await theirs.across.receipt(receipt)
    assert (await ours.world.reader.get(AC, message.sid)).status == "delivered"


async def test_early_receipts_whose_node_is_away_are_taken_there_later(nodes, monkeypatch):
    monkeypatch.setattr(receipts, "AGAIN_S", 0.02)
    ours, theirs, real = nodes
    await up(ours)
    real.answer = lambda submission: None
    message = await ours.world.send("hello")
    await eventually(lambda: real.open)
    await theirs.across.receipt(Receipt("carrier", "id-1", "delivered"))
    ours.net.cut = True
    real.settle(message.sid, Submitted(["id-1"]))
    await asyncio.sleep(0.1)
    assert await theirs.world.queue.parked() == [("carrier", "id-1")]
    ours.net.cut = False
    await ours.world.until(message, "delivered")
    await eventually(lambda: none_parked(theirs.world))


async def test_ids_that_a_lost_node_borrowed_are_nobodys(nodes):
    _, theirs, _ = nodes
    theirs.across._lent["carrier", "id-9"] = "ours"
    theirs.net.cut = True
    with pytest.raises(StoreUnavailable):
        await theirs.across.receipt(Receipt("carrier", "id-9", "delivered"))
    theirs.across.lost("ours")
    await theirs.across.receipt(Receipt("carrier", "id-9", "delivered"))
    assert await theirs.world.queue.parked() == [("carrier", "id-9")]


async def test_what_the_carrier_refuses_is_told(nodes):
    ours, _, real = nodes
    await up(ours)
    real.answer = lambda submission: Rejected(30003, "gone")
    message = await ours.world.until(await ours.world.send("hello"), "failed")
    assert (message.error_code, message.carrier_error) == (30003, "gone")


async def test_an_answer_that_is_lost_between_nodes_is_in_doubt(nodes):
    ours, _, real = nodes
    await up(ours)
    ours.net.deaf = True
    message = await ours.world.send("hello")
    await eventually(lambda: len(real.taken) >= 1)
    ours.net.deaf = False
    message = await ours.world.until(message, "sent")
    assert message.in_doubt, "it may have gone twice, and says so"


async def test_a_request_that_did_not_get_there_burns_nothing(nodes):
    ours, _, real = nodes
    await up(ours)
    ours.net.cut = True
    message = await ours.world.send("hello")
    await asyncio.sleep(0.1)
    assert real.taken == []
    ours.net.cut = False
    message = await ours.world.until(message, "sent")
    assert not message.in_doubt
    assert message.tried == []


async def test_the_lease_comes_here(nodes):
    ours, theirs, real = nodes
    await theirs.connector.lose()
    assert not real.running
    ours.net.holder = "ours"
    ours.connector.gain()
    assert real.running
    await ours.world.until(await ours.world.send("hello"), "sent")
    assert ours.connector.health() == (True, "one bind up")


async def test_nobody_holds_it(nodes):
    ours, theirs, _ = nodes
    await theirs.connector.lose()
    ours.net.holder = None
    assert ours.connector.capacity() == 0
    assert ours.connector.health() == (False, "no node holds its binds")


async def test_health_is_the_holders(nodes):
    ours, _, real = nodes
    await up(ours)
    assert ours.connector.health() == (True, "held by theirs: one bind up")
    real.down = True
    await eventually(lambda: ours.connector.health() == (False, "held by theirs: down"))


async def test_a_fenced_node_submits_nothing(nodes):
    _, theirs, real = nodes
    theirs.net.fenced = {"theirs"}
    assert theirs.connector.capacity() == 0
    told = []
    theirs.connector.submit(Submission(message=None, sender="", done=told.append))
    await eventually(lambda: told)
    assert isinstance(told[0], Unavailable)
    assert (told[0].in_doubt, told[0].burns_attempt) == (False, False)
    assert real.taken == []


async def held(ours, theirs, real, count=3):
    """A carrier with room for one: the first message is with it, the others of `ours` wait at `theirs`."""
    await up(ours)
    real.window = 1
    real.answer = lambda submission: None
    messages = [await ours.world.send(f"number {number}") for number in range(count)]
    await eventually(lambda: len(real.open) == 1 and len(theirs.connector._waiting) == count - 1)
    return messages


async def test_submits_that_find_no_room_wait_for_it_in_their_order(nodes):
    ours, theirs, real = nodes
    messages = await held(ours, theirs, real, count=5)
    mine = await theirs.world.send("the holder's own")
    while real.open or len(real.taken) <= len(messages):
        await eventually(lambda: real.open)
        sid = next(iter(real.open))
        real.settle(sid, Submitted([f"id-{sid}"]))
    for message in messages:
        await ours.world.until(message, "sent")
    await theirs.world.until(mine, "sent")
    assert theirs.connector._admitted == len(messages), "none was offered twice"
    assert [one.sid for one in real.taken if one.sid != mine.sid] == [one.sid for one in messages]


async def test_what_waits_for_a_holder_that_loses_the_carrier_is_offered_again(nodes):
    ours, theirs, real = nodes
    messages = await held(ours, theirs, real)
    theirs.connector.cut("for the test")
    assert not theirs.connector._waiting
    real.window, real.answer = 9, Carrier().answer
    theirs.connector.gain()
    for message in messages[1:]:
        sent = await ours.world.until(message, "sent")
        assert not sent.in_doubt


async def test_what_waits_for_room_too_long_or_whose_node_has_gone_is_not_sent(nodes, monkeypatch):
    ours, theirs, real = nodes
    monkeypatch.setattr(leased, "ROOM_S", 0.05)
    await up(ours)
    real.down = True
    told = []
    theirs.connector.admit("ours", Submission(message=None, sender="s", done=told.append))
    await eventually(lambda: told)
    assert isinstance(told[0], Unavailable)
    assert (told[0].in_doubt, told[0].burns_attempt) == (False, False)
    monkeypatch.setattr(leased, "ROOM_S", 60)
    theirs.connector.admit("ours", Submission(message=None, sender="s", done=told.append))
    theirs.connector.admit("another", Submission(message=None, sender="s", done=told.append))
    theirs.across.lost("ours")
    assert len(told) == 2
    theirs.across.lost("another")
    assert len(told) == 3
    assert real.taken == []


async def test_each_that_waits_for_room_too_long_goes_back_in_its_time(nodes, monkeypatch):
    ours, theirs, real = nodes
    monkeypatch.setattr(leased, "ROOM_S", 0.05)
    await up(ours)
    real.down = True
    told = []
    for name in ("first", "second", "third"):
        theirs.connector.admit(
            "ours", Submission(message=None, sender=name, done=lambda _, name=name: told.append(name))
        )
        await asyncio.sleep(0.02)
    await eventually(lambda: len(told) == 3)
    assert told == ["first", "second", "third"]
    assert real.taken == []


async def test_no_more_is_lent_than_the_carrier_takes_at_once(nodes):
    ours, _, _ = nodes
    few = LeasedConnector("carrier", Real, ours, window=3)
    few._health = leased.Health(True, "")
    assert few.capacity() == 3


async def test_a_receipt_right_behind_the_carriers_answer_is_not_parked(nodes):
    ours, theirs, real = nodes
    await up(ours)
    real.answer = lambda submission: None
    message = await ours.world.send("hello")
    await eventually(lambda: real.open)
    real.settle(message.sid, Submitted(["id-1"]))
    told = theirs.across.receipt(Receipt("carrier", "id-1", "delivered"))
    assert theirs.across._lent["carrier", "id-1"] == "ours"
    await told
    await ours.world.until(message, "delivered")
    assert await theirs.world.queue.parked() == []


async def test_what_came_while_the_holders_fence_was_shut_goes_when_it_opens(nodes):
    """Nothing else comes that would wake its lane."""
    _, theirs, real = nodes
    theirs.net.fenced.add("theirs")
    message = await theirs.world.send("hello")
    await eventually(lambda: theirs.world.dispatcher.waiting(f"carrier|{AC}|{message.from_}"))
    await asyncio.sleep(0)
    assert real.taken == []
    theirs.net.fenced.discard("theirs")
    theirs.connector.mend()
    await theirs.world.until(message, "sent")
