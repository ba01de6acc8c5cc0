"""SMPP on both sides of a whole server, by other makers' software: a customer's client (smpp34, Kannel) binds to our
SMPP server, and our connector binds to a carrier's SMSC (smpp34).

The server may be several nodes (`make test-cluster`): each bind then goes to the next node, and one of them holds the
connector.
"""

import asyncio
import secrets
import struct
import threading
from types import SimpleNamespace

import aiohttp
import pytest
import smpp34

from tests.e2e.client import Client
from tests.e2e.nodes import NODES, serving
from tests.interop.conftest import HttpSink
from tests.interop.test_kannel import Kannel
from tests.listeners.conftest import PASSWORD, SYSTEM_ID
from tests.messaging.world import OURS, THEM
from tests.ports import free_port
from trunkline.accounts.directory import create_account
from trunkline.model.numbers import PhoneNumber
from trunkline.model.sid import PHONE_NUMBER, new_sid
from trunkline.smpp.constants import ESME_RINVPASWD
from trunkline.smpp.receipt import state_of
from trunkline.sms import gsm7, udh

BIND_TRANSCEIVER = 9
PATIENCE_S = 60.0
"""For what takes milliseconds, on a busy machine."""
LONG = "A message that needs more than one part. " * 8


class Smsc:
    """The carrier: takes every message, and tells receipts and messages to whoever is bound. It lives in a thread."""

    def __init__(self, port):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="smsc")
        self._thread.start()
        self._server = smpp34.Server("127.0.0.1", port, system_id="smsc")
        self._count = 0
        self._there(self._start()).result(PATIENCE_S)

    def _there(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    async def _start(self):
        self._bound, self._taken, self._esme = asyncio.Event(), asyncio.Queue(), None
        await self._server.start()
        self._task = asyncio.create_task(self._run())

    async def _run(self):
        while True:
            event = await self._server.next()
            if isinstance(event, smpp34.Esme):
                self._esme = event
                self._bound.set()
            elif isinstance(event, smpp34.SubmitSmEvent):
                self._count += 1
                name = f"smsc-{self._count}"
                event.accept(name)
                self._taken.put_nowait((name, event))

    async def _stop(self):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._server.stop()

    def close(self):
        self._there(self._stop()).result(PATIENCE_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    async def takes(self, body):
        """Its id of the message with that text, and the message."""

        async def take():
            while True:
                name, event = await self._taken.get()
                if gsm7.decode(event.short_message) == body:
                    return name, event

        return await soon(asyncio.wrap_future(self._there(take())))

    async def delivers(self, body, esm_class=0, coding=0, to=OURS):
        async def deliver():
            await self._bound.wait()
            return await self._esme.deliver_sm(
                to[1:], body, source_addr=THEM[1:], source_addr_ton=1, dest_addr_ton=1, data_coding=coding,
                esm_class=esm_class,
            )  # fmt: skip

        answer = await soon(asyncio.wrap_future(self._there(deliver())))
        assert answer.is_success

    async def tells(self, name, state="DELIVRD"):
        """A receipt."""
        dates = "submit date:2401011200 done date:2401011201"
        await self.delivers(f"id:{name} sub:001 dlvrd:001 {dates} stat:{state} err:000 text:".encode(), esm_class=4)


async def soon(work):
    async with asyncio.timeout(PATIENCE_S):
        return await work


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One server for all tests here."""
    carrier = free_port()
    connector = {"name": "carrier", "kind": "smpp", "host": "127.0.0.1", "port": carrier, "system_id": "trunkline"}
    server = serving(
        tmp_path_factory.mktemp("smpp"),
        {
            "profile": "development",
            "messaging": {"long_code_mps": 0},
            "smpp_server": {"enabled": True, "port": free_port()},
            "connectors": [{**connector, "reconnect_first_s": 0.1, "reconnect_longest_s": 0.2}],
        },
    )

    async def seed(database, clock):
        account = await create_account(database, clock, "SMPP")
        account.smpp_system_id, account.smpp_password, account.smpp_max_binds = SYSTEM_ID, PASSWORD, 20
        await database.update(account)
        await database.insert(
            PhoneNumber(sid=new_sid(PHONE_NUMBER), account_sid=account.sid, phone_number=OURS, bought_ms=clock.now_ms())
        )
        return account

    account = server.seed(seed)
    server.start()
    yield SimpleNamespace(process=server, account=account, carrier=carrier)
    server.close()


@pytest.fixture(scope="module")
def smsc(server):
    smsc = Smsc(server.carrier)
    yield smsc
    server.process.close()  # the other maker's server ends when nobody is bound any more
    smsc.close()


@pytest.fixture
async def client(server):
    async with aiohttp.ClientSession() as session:
        yield Client(session, server.process, server.account)


@pytest.fixture
async def binds(server):
    """Binds of a client to the next nodes."""
    made = []

    async def bind(kind="TRX"):
        client = smpp34.Client("127.0.0.1", server.process.smpp_port, SYSTEM_ID, PASSWORD, bind_type=kind)
        session = await soon(client.connect())
        made.append((client, session))
        return session

    yield bind
    for client, session in made:
        await soon(session.unbind())
        await soon(client.stop())


def unique(text):
    """A text that no other message has."""
    return f"{text} {secrets.token_hex(4)}"


async def submitted(session, body):
    answer = await soon(
        session.submit_sm(THEM[1:], gsm7.encode(body), source_addr=OURS[1:], source_addr_ton=1, registered_delivery=1)
    )
    assert answer.is_success
    return answer.message_id


async def receipt(session):
    """Whose receipt comes next, and what it says."""
    event = await soon(session.next())
    assert event.esm_class == 4
    text = event.short_message.decode()
    return text.split()[0].removeprefix("id:"), state_of(text.partition("stat:")[2].split()[0])


@pytest.mark.parametrize("turn", range(max(NODES, 1)))
async def test_a_client_s_message_and_its_receipt(server, smsc, binds, client, turn):
    session, body = await binds(), unique("Hi {€}")
    sid = await submitted(session, body)
    name, event = await smsc.takes(body)
    assert (event.source_addr, event.destination_addr) == (OURS[1:], THEM[1:])
    await client.settled(sid, "sent")
    await smsc.tells(name)
    assert await receipt(session) == (sid, "delivered")
    assert (await client.settled(sid))["direction"] == "outbound-api"


@pytest.mark.parametrize("turn", range(max(NODES, 1)))
async def test_a_message_in_reaches_a_client(smsc, binds, turn):
    session = await binds("RX")
    await smsc.delivers("Привет".encode("utf-16-be"), coding=8)
    event = await soon(session.next())
    assert (event.source_addr, event.destination_addr) == (THEM[1:], OURS[1:])
    assert event.short_message.decode("utf-16-be") == "Привет"


async def test_a_receipt_goes_to_whoever_receives(smsc, binds, client):
    """Transmitters and receivers bind apart, at different nodes where there are several."""
    sender, receiver = await binds("TX"), await binds("RX")
    bodies = [unique("to nobody") for _ in range(6)]
    sids = {await submitted(sender, body) for body in bodies}
    for body in bodies:
        name, _ = await smsc.takes(body)
        await smsc.tells(name, "UNDELIV")
    heard = {await receipt(receiver) for _ in sids}
    assert heard == {(sid, "undeliverable") for sid in sids}


async def test_a_long_message_in_comes_whole(smsc, binds, client):
    session = await binds("RX")
    parts = [LONG[at : at + 150] for at in range(0, len(LONG), 150)]
    for number, text in enumerate(parts, 1):
        header = udh.concat_header(77, len(parts), number, 8)
        await smsc.delivers(header + gsm7.encode(text), esm_class=0x40)
    received = {}
    while len(received) < len(parts):
        event = await soon(session.next())
        header, body = udh.parse(event.short_message)
        received[header.concat.sequence] = gsm7.decode(body)
    assert "".join(received[number] for number in sorted(received)) == LONG


async def test_the_api_s_message_goes_by_smpp(smsc, client):
    bodies = [unique("By API") for _ in range(6)]
    sids = [(await client.send(to=THEM, from_=OURS, body=body))["sid"] for body in bodies]
    for body in bodies:
        name, _ = await smsc.takes(body)
        await smsc.tells(name)
    for sid in sids:
        await client.settled(sid)


async def test_a_wrong_password_is_refused_everywhere(server):
    text = b"\0".join((SYSTEM_ID.encode(), b"wrong", b"", b"\x34\0\0"))  # version 3.4, no address range
    bind = struct.pack(">IIII", 16 + len(text) + 1, BIND_TRANSCEIVER, 0, 1) + text + b"\0"
    for _ in range(max(NODES, 1)):
        reader, writer = await soon(asyncio.open_connection("127.0.0.1", server.process.smpp_port))
        writer.write(bind)
        _, command, status, sequence = struct.unpack(">IIII", await soon(reader.readexactly(16)))
        assert (command, status, sequence) == (BIND_TRANSCEIVER | 1 << 31, ESME_RINVPASWD, 1)
        writer.close()


async def test_kannel_sends_and_hears_of_it(tmp_path, server, smsc):
    http_sink = await HttpSink().start()
    kannel = Kannel(tmp_path, server.process.smpp_port, http_sink)
    try:
        await kannel.start()
        body = unique("Grüße from Kannel")
        await kannel.send(body)
        name, _ = await smsc.takes(body)
        await http_sink.until("/receipt", 2, PATIENCE_S)  # its box's own, and that we have taken it
        await smsc.tells(name)
        states = [query["state"] for query in await http_sink.until("/receipt", 3, PATIENCE_S)]
        assert states == ["8", "4", "1"]
        await smsc.delivers(b"to Kannel")
        (query,) = await http_sink.until("/mo", 1, PATIENCE_S)
        assert query["text"] == "to Kannel"
    finally:
        await kannel.stop()
        await http_sink.stop()
