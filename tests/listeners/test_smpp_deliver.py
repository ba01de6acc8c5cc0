"""Receipts and received messages to clients."""

import asyncio
from types import SimpleNamespace

import pytest

from tests.listeners.conftest import PASSWORD, SYSTEM_ID, Esme
from tests.listeners.helpers import carrier, delivered, message_of
from tests.messaging.world import AC, OURS, THEM, eventually
from trunkline.listeners import smpp
from trunkline.messaging import smpp_clients
from trunkline.messaging.connectors.base import InboundPart, Rejected
from trunkline.model.numbers import Alert, PhoneNumber
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp import receipt, transport
from trunkline.sms import udh
from trunkline.storage.queue import Owed
from trunkline.storage.unavailable import StoreUnavailable

# -- receipts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("registered", "state", "wanted"),
    [
        (1, "delivered", ["DELIVRD"]),
        (1, "undeliverable", ["UNDELIV"]),
        (2, "delivered", []),
        (2, "undeliverable", ["UNDELIV"]),
        (3, "delivered", ["DELIVRD"]),
        (3, "undeliverable", []),
        (0, "delivered", []),
        (0x11, "delivered", ["ENROUTE", "DELIVRD"]),
    ],
)
async def test_receipts_as_asked_for(node, registered, state, wanted):
    esme = await node.bind()
    response = await esme.submit(registered_delivery=registered)
    message = await message_of(node, response.message_id)
    await delivered(node, message, state, "001")
    marker = await esme.submit("marker", registered_delivery=1)
    await delivered(node, await message_of(node, marker.message_id))
    got = [receipt.parse(pdu) for pdu in await esme.until(len(wanted) + 1)]
    mine = [one for one in got if one.message_id == response.message_id]
    assert [one.raw_state for one in mine] == wanted
    for one in mine:
        assert one.intermediate == (one.raw_state == "ENROUTE")
        if not one.intermediate:
            assert one.done_date == "2401021504"


async def test_a_receipt_goes_from_the_recipient_to_the_sender(node):
    esme = await node.bind()
    response = await esme.submit()
    await delivered(node, await message_of(node, response.message_id))
    (pdu,) = await esme.until(1)
    assert (pdu.source_ton, pdu.source, pdu.destination_ton, pdu.destination) == (1, THEM[1:], 1, OURS[1:])
    assert p.tlv(pdu.tlvs, c.TAG_RECEIPTED_MESSAGE_ID) == response.message_id.encode() + b"\0"
    assert p.tlv_int(pdu.tlvs, c.TAG_MESSAGE_STATE) == 2


async def test_a_message_that_fails_is_told(node):
    carrier(node).answer = lambda submission: Rejected(30005, "ESME_RINVDSTADR")
    esme = await node.bind()
    response = await esme.submit(registered_delivery=2)
    (pdu,) = await esme.until(1)
    parsed = receipt.parse(pdu)
    assert (parsed.message_id, parsed.raw_state, parsed.error) == (response.message_id, "REJECTD", "005")


async def test_receipts_wait_for_a_receiver(node):
    transmitter = await node.bind(p.BindTransmitter)
    response = await transmitter.submit()
    await delivered(node, await message_of(node, response.message_id))
    await asyncio.sleep(0.02)
    (owed,) = (await node.world.queue.get(AC, response.message_id))[1]
    assert (owed.state, owed.tries) == ("owed", 0), "nobody to deliver to burns no attempt"
    receiver = await node.bind(p.BindReceiver)
    (pdu,) = await receiver.until(1)
    assert receipt.parse(pdu).message_id == response.message_id
    assert transmitter.got == []


async def test_receipts_outlive_a_restart(node):
    transmitter = await node.bind(p.BindTransmitter)
    response = await transmitter.submit()
    await delivered(node, await message_of(node, response.message_id))
    await node.restart()
    receiver = await node.bind(p.BindReceiver)
    (pdu,) = await receiver.until(1)
    assert receipt.parse(pdu).message_id == response.message_id


async def test_a_refused_receipt_comes_again(node):
    esme = await node.bind()
    esme.status = c.ESME_RX_T_APPN
    response = await esme.submit()
    await delivered(node, await message_of(node, response.message_id))
    await esme.until(2)
    esme.status = 0
    await eventually(lambda: node.delivery.delivered == 1)


async def test_a_receipt_refused_for_good_is_given_up_and_told(node):
    esme = await node.bind()
    esme.status = c.ESME_RX_P_APPN
    response = await esme.submit()
    await delivered(node, await message_of(node, response.message_id))
    await eventually(lambda: node.delivery.exhausted == 1)
    assert await node.world.alert_codes() == [15003]


async def owe(node, count):
    """So many receipts, a day and more ago."""
    request = b'{"url":"x","params":[],"token":"t"}'
    lane = smpp_clients.lane(AC)
    await node.world.queue.owe(
        [
            Owed(sid=f"SM{number:032x}", account=AC, kind=smpp_clients.RECEIPT, host=lane, request=request)
            for number in range(count)
        ]
    )
    node.world.clock.offset_ms += 86_401_000


async def left(node):
    return sum(count for _, count, _ in await node.world.queue.owed_hosts())


async def alerts(node):
    await node.world.alerts.close()
    return [alert.alert_text.partition(": ")[2] for alert in await node.world.database.find(Alert)]


async def test_more_than_a_page_is_given_up_at_once_with_one_alert(node, monkeypatch):
    monkeypatch.setattr(smpp, "EXPIRE_PAGE", 10)
    await owe(node, 35)
    await node.server.expire()
    assert await left(node) == 0
    assert await alerts(node) == ["no client was bound in time (35 given up)"]


async def test_what_cannot_be_given_up_now_holds_up_nothing_else(node, monkeypatch):
    monkeypatch.setattr(smpp, "EXPIRE_PAGE", 10)
    await owe(node, 35)
    settle = node.world.queue.settle

    async def some(owed):
        if int(owed.sid[2:], 16) == 3:
            raise StoreUnavailable("its partition is away")
        await settle(owed)

    monkeypatch.setattr(node.world.queue, "settle", some)
    await node.server.expire()
    assert await left(node) == 1
    monkeypatch.undo()
    await node.server.expire()
    assert await left(node) == 0
    assert sorted(await alerts(node)) == [f"no client was bound in time ({count} given up)" for count in (1, 34)]


async def test_what_a_client_of_another_node_can_get_is_not_given_up(node):
    node.server.elsewhere = SimpleNamespace(node=lambda account: "b")
    await owe(node, 3)
    await node.server.expire()
    assert await left(node) == 3
    node.server.elsewhere = None


async def test_an_unanswered_receipt_comes_again(make_node):
    node = await make_node(response_timeout_s=0.05)

    class Mute(Esme):
        def on_request(self, connection, sequence, pdu):
            self.got.append(pdu)
            if len(self.got) > 1:
                connection.respond(sequence, 0)
            self._changed.set()

    esme = Mute()
    esme.connection = await transport.connect(
        "127.0.0.1", node.server.port, p.BindTransceiver(system_id=SYSTEM_ID, password=PASSWORD), esme
    )
    node.esmes.append(esme)
    response = await esme.submit()
    await delivered(node, await message_of(node, response.message_id))
    await esme.until(2)
    await eventually(lambda: node.delivery.delivered == 1)


async def test_a_receipt_lost_with_its_connection_goes_to_the_next(node):
    class Cut(Esme):
        def on_request(self, connection, sequence, pdu):
            connection.abort("cut")

    esme = Cut()
    esme.connection = await transport.connect(
        "127.0.0.1", node.server.port, p.BindTransceiver(system_id=SYSTEM_ID, password=PASSWORD), esme
    )
    response = await esme.submit()
    await delivered(node, await message_of(node, response.message_id))
    await esme.connection.closed
    second = await node.bind()
    (pdu,) = await second.until(1)
    assert receipt.parse(pdu).message_id == response.message_id


async def test_what_nobody_fetches_is_given_up_in_time(node):
    transmitter = await node.bind(p.BindTransmitter)
    response = await transmitter.submit()
    await delivered(node, await message_of(node, response.message_id))
    await node.server.expire()
    (owed,) = (await node.world.queue.get(AC, response.message_id))[1]
    assert owed.state == "owed"
    node.world.clock.offset_ms += 86_401_000
    await node.server.expire()
    (owed,) = (await node.world.queue.get(AC, response.message_id))[1]
    assert owed.state == "exhausted"
    assert await node.world.alert_codes() == [15003]


# -- received messages --------------------------------------------------------------------------------------------


async def receive(node, text, **fields):
    await node.world.inbound.receive(
        InboundPart(**({"connector": "carrier", "from_": THEM, "to": OURS, "text": text} | fields))
    )


@pytest.mark.parametrize("text", ["Hello @ home", "日本 😀", "z" * 400, "日" * 200])
async def test_received_messages(node, text):
    esme = await node.bind()
    await receive(node, text)
    pdus = await esme.until({"z" * 400: 3, "日" * 200: 3}.get(text, 1))
    (pdu, *_) = pdus
    assert (pdu.source_ton, pdu.source, pdu.destination) == (1, THEM[1:], OURS[1:])
    bodies = [udh.parse(each.message)[1] if each.esm_class & c.ESM_UDHI else each.message for each in pdus]
    if pdu.data_coding == 8:
        assert b"".join(bodies).decode("utf-16-be") == text
    else:
        assert b"".join(bodies).replace(b"\0", b"@").decode() == text
    await eventually(lambda: node.delivery.delivered == 1)


async def test_a_number_with_a_webhook_keeps_it(node):
    number = (await node.world.database.find(PhoneNumber))[0]
    number.sms_url = "http://127.0.0.1:1/sms"
    await node.world.database.update(number)
    esme = await node.bind()
    await receive(node, "for the webhook")
    await eventually(lambda: node.delivery.exhausted == 1)  # no handler of webhooks here
    assert esme.got == []


async def test_received_messages_wait_for_a_client(node):
    await receive(node, "early")
    await asyncio.sleep(0.02)
    esme = await node.bind()
    (pdu,) = await esme.until(1)
    assert pdu.message == b"early"
