"""Our connector against the SMSC of `smpp34`, and its client against our SMPP server."""

import asyncio

import pytest
import smpp34

from tests.listeners.conftest import PASSWORD, SYSTEM_ID
from tests.listeners.helpers import delivered, message_of
from tests.messaging.connectors.contract import OUR_NUMBER, MemorySink, Outcomes, message, soon
from tests.messaging.world import OURS, THEM
from tests.ports import free_port
from trunkline.messaging.connectors.base import InboundPart, Rejected, Submission, Submitted
from trunkline.messaging.connectors.table import Context, make
from trunkline.settings import Smpp
from trunkline.smpp.receipt import state_of
from trunkline.sms import gsm7, udh

PHONE = "+15555550123"
LONG = "A message that needs more than one part. " * 8


class Peer:
    """smpp34's server, and our connector bound to it."""

    def __init__(self):
        self.port = free_port()
        self.server = smpp34.Server("127.0.0.1", self.port, system_id="smpp34")
        self.sink = MemorySink()

    async def start(self, **settings):
        await self.server.start()
        given = {"name": "peer", "host": "127.0.0.1", "port": self.port, "system_id": "us", "password": "pw"}
        self.connector = make(Smpp(**given | settings), Context())
        self.connector.start(self.sink, lambda: None)
        self.esme = await soon(self.server.next())
        async with asyncio.timeout(60):
            while not self.connector.capacity():
                await asyncio.sleep(0.001)
        return self

    async def stop(self):
        await self.connector.stop(0.2)
        await self.server.stop()

    def submit(self, body):
        outcomes = Outcomes()
        self.connector.submit(Submission(message(PHONE, body), OUR_NUMBER, outcomes.done))
        return outcomes


@pytest.fixture
async def peer():
    peer = Peer()
    yield await peer.start()
    await peer.stop()


@pytest.mark.parametrize(("body", "coding"), [("Hi @ {€}", 0), ("日本 😀", 8)])
async def test_our_submit(peer, body, coding):
    outcomes = peer.submit(body)
    event = await soon(peer.server.next())
    assert (event.source_addr, event.destination_addr) == (OUR_NUMBER[1:], PHONE[1:])
    assert (event.source_addr_ton, event.dest_addr_ton, event.registered_delivery) == (1, 1, 1)
    assert event.data_coding == coding
    text = event.short_message.decode("utf-16-be") if coding else gsm7.decode(event.short_message)
    assert text == body
    event.accept("abc-1")
    assert (await outcomes.first()) == [Submitted(["abc-1"], trace="trx1#2")]


async def test_our_long_submit(peer):
    outcomes = peer.submit(LONG)
    bodies = {}
    for _ in range(3):  # its server hands them out in any order
        event = await soon(peer.server.next())
        header, body = udh.parse(event.short_message)
        assert (event.esm_class, header.concat.total) == (0x40, 3)
        bodies[header.concat.sequence] = body
        event.accept(f"part-{header.concat.sequence}")
    (outcome,) = await outcomes.first()
    assert outcome.ids == ["part-1", "part-2", "part-3"]
    assert gsm7.decode(b"".join(bodies[number] for number in (1, 2, 3))) == LONG


async def test_its_refusal(peer):
    outcomes = peer.submit("no")
    (await soon(peer.server.next())).reject(smpp34.ESME_RINVDSTADR)
    assert (await outcomes.first()) == [Rejected(30005, "ESME_RINVDSTADR")]


async def test_its_receipt_and_message(peer):
    receipt = b"id:abc-1 sub:001 dlvrd:001 submit date:2401011200 done date:2401011201 stat:DELIVRD err:000 text:Hi"
    answer = await soon(
        peer.esme.deliver_sm(
            OUR_NUMBER[1:], receipt, source_addr=PHONE[1:], esm_class=4,
            tlvs=[smpp34.Tlv(smpp34.TLV_RECEIPTED_MESSAGE_ID, b"abc-1\0"), smpp34.Tlv(smpp34.TLV_MESSAGE_STATE, b"\2")],
        )
    )  # fmt: skip
    assert answer.is_success
    (got,) = peer.sink.receipts
    assert (got.carrier_id, got.state, got.done_date) == ("abc-1", "delivered", "2401011201")
    answer = await soon(
        peer.esme.deliver_sm(
            OUR_NUMBER[1:], "😀".encode("utf-16-be"), source_addr=PHONE[1:], source_addr_ton=1, dest_addr_ton=1,
            data_coding=8,
        )
    )  # fmt: skip
    assert answer.is_success
    assert peer.sink.parts == [InboundPart("peer", PHONE, OUR_NUMBER, "😀", "ucs2")]


async def test_our_refusal_reaches_it(peer):
    peer.sink.mode = "fail"
    answer = await soon(peer.esme.deliver_sm(OUR_NUMBER[1:], b"hello", source_addr=PHONE[1:]))
    assert answer.command_status == 0x64


async def test_its_client_with_our_server(node):
    client = smpp34.Client("127.0.0.1", node.server.port, SYSTEM_ID, PASSWORD, bind_type="TRX")
    session = await soon(client.connect())
    response = await soon(
        session.submit_sm(
            THEM[1:], gsm7.encode("Hi {€}"), source_addr=OURS[1:], source_addr_ton=1, registered_delivery=1
        )
    )
    assert response.is_success
    stored = await message_of(node, response.message_id)
    assert (stored.body, stored.from_, stored.to) == ("Hi {€}", OURS, THEM)
    await delivered(node, stored)
    event = await soon(session.next())
    assert event.esm_class == 4
    text = event.short_message.decode()
    assert text.startswith(f"id:{response.message_id} ")
    assert state_of(text.partition("stat:")[2].split()[0]) == "delivered"
    await node.world.inbound.receive(InboundPart("carrier", THEM, OURS, "Привет", "ucs2"))
    event = await soon(session.next())
    assert (event.source_addr, event.short_message.decode("utf-16-be")) == (THEM[1:], "Привет")
    refused = await soon(session.submit_sm("12", b"x", source_addr=OURS[1:], source_addr_ton=1))
    assert refused.command_status == smpp34.ESME_RINVDSTADR
    await soon(session.unbind())
    await soon(client.stop())
