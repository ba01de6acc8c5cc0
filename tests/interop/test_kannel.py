"""Kannel as an account's SMPP client: its bearerbox binds to our server, its smsbox speaks HTTP."""

import asyncio
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from tests.interop.conftest import program
from tests.listeners.conftest import PASSWORD, SYSTEM_ID
from tests.listeners.helpers import delivered
from tests.messaging.world import OURS, THEM, eventually
from tests.ports import free_port
from trunkline.messaging.connectors.base import InboundPart

CONFIGURATION = """
group = core
admin-port = {admin}
admin-interface = "127.0.0.1"
admin-password = test
smsbox-port = {boxes}
smsbox-interface = "127.0.0.1"
box-allow-ip = "127.0.0.1"
log-file = "{folder}/bearerbox.log"
log-level = 0
store-type = file
store-location = "{folder}/kannel.store"
dlr-storage = internal

group = smsc
smsc = smpp
smsc-id = trunkline
host = 127.0.0.1
port = {smpp}
smsc-username = {system_id}
smsc-password = {password}
system-type = ""
transceiver-mode = true
source-addr-ton = 1
source-addr-npi = 1
dest-addr-ton = 1
dest-addr-npi = 1
reconnect-delay = 1

group = smsbox
bearerbox-host = 127.0.0.1
sendsms-port = {http}
sendsms-interface = "127.0.0.1"
log-file = "{folder}/smsbox.log"
log-level = 0

group = sendsms-user
username = test
password = test
concatenation = true
max-messages = 10

group = sms-service
keyword = default
catch-all = true
max-messages = 0
get-url = "http://127.0.0.1:{sink}/mo?from=%p&to=%P&text=%b&coding=%c"
"""
PATIENCE_S = 60


class Kannel:
    """bearerbox and smsbox, with their files in a folder of the test."""

    def __init__(self, folder, smpp, sink):
        self.sink = sink
        self.http = free_port()
        self.admin = free_port()
        self.folder = folder
        self.configuration = folder / "kannel.conf"
        self.configuration.write_text(
            CONFIGURATION.format(
                admin=self.admin, boxes=free_port(), http=self.http, smpp=smpp, sink=sink.port, folder=folder,
                system_id=SYSTEM_ID, password=PASSWORD,
            )
        )  # fmt: skip
        self.processes = []

    async def start(self):
        """Ready when bearerbox says that both its smsbox and our server are connected."""
        await self._run("bearerbox")
        await eventually(lambda: self._status("Status: running"), PATIENCE_S)
        await self._run("smsbox")
        await eventually(lambda: self._status("smsbox:", "(online"), PATIENCE_S)
        return self

    async def _run(self, name):
        with (self.folder / f"{name}.out").open("wb") as out:
            self.processes.append(
                await asyncio.create_subprocess_exec(
                    program(name, "kannel"), str(self.configuration), stdout=out, stderr=out, cwd=self.folder
                )
            )

    async def _status(self, *wanted):
        url = f"http://127.0.0.1:{self.admin}/status.txt?password=test"
        try:
            text = await asyncio.to_thread(lambda: urlopen(url, timeout=PATIENCE_S).read().decode())
        except OSError:
            return False
        return all(each in text for each in wanted)

    async def stop(self):
        for process in reversed(self.processes):
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 60)
            except TimeoutError:
                process.kill()
                await process.wait()

    async def send(self, text, **more):
        receipt = quote(f"http://127.0.0.1:{self.sink.port}/receipt?state=%d", safe="")
        query = "".join(f"&{name}={quote(str(value), safe='')}" for name, value in more.items())
        url = (
            f"http://127.0.0.1:{self.http}/cgi-bin/sendsms?username=test&password=test&from={quote(OURS)}"
            f"&to={quote(THEM)}&charset=utf-8&text={quote(text, safe='')}&dlr-mask=31&dlr-url={receipt}{query}"
        )
        return await asyncio.to_thread(lambda: urlopen(url, timeout=PATIENCE_S).read())


@pytest.fixture
async def kannel(tmp_path, node, http_sink):
    kannel = Kannel(tmp_path, node.server.port, http_sink)
    try:
        await kannel.start()
        await eventually(lambda: node.server.bound_clients == 1, PATIENCE_S)
        yield kannel
    finally:
        await kannel.stop()


async def taken(node, count):
    messages = node.world.carriers["carrier"].taken
    await eventually(lambda: len(messages) == count, PATIENCE_S)
    return messages[count - 1]


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("Grüße @home {€} [x_y]", {}),
        ("日本語 и кириллица 😀", {"coding": 2}),
        ("A long message, number one of several parts. " * 8, {}),
        ("Длинное сообщение из нескольких частей. " * 5, {"coding": 2}),
    ],
)
async def test_a_message_from_kannel_and_its_receipt(node, kannel, http_sink, text, more):
    await kannel.send(text, **more)
    message = await taken(node, 1)
    assert (message.body, message.from_, message.to) == (text, OURS, THEM)
    await delivered(node, message)
    states = [query["state"] for query in await http_sink.until("/receipt", 3)]
    assert states == ["8", "4", "1"], "accepted by us, on its way, delivered"


async def test_failure_reaches_kannel(node, kannel, http_sink):
    await kannel.send("will not arrive")
    await delivered(node, await taken(node, 1), "undeliverable", "001")
    states = [query["state"] for query in await http_sink.until("/receipt", 3)]
    assert states == ["8", "4", "2"]


async def test_a_refusal_reaches_kannel(node, kannel, http_sink):
    receipt = quote(f"http://127.0.0.1:{http_sink.port}/receipt?state=%d", safe="")
    url = (
        f"http://127.0.0.1:{kannel.http}/cgi-bin/sendsms?username=test&password=test&from=Nobodys&to=12"
        f"&text=x&dlr-mask=31&dlr-url={receipt}"
    )
    await asyncio.to_thread(lambda: urlopen(url, timeout=PATIENCE_S).read())
    assert (await http_sink.until("/receipt"))[0]["state"] == "16", "refused by us"


@pytest.mark.parametrize("text", ["Hello @ {€}", "Привет 😀", "A long answer in several parts, from a handset. " * 8])
async def test_a_message_to_kannel(node, kannel, http_sink, text):
    await node.world.inbound.receive(InboundPart("carrier", THEM, OURS, text))
    (query,) = await http_sink.until("/mo")
    assert query["from"].endswith(THEM[1:])
    assert query["to"].endswith(OURS[1:])
    octets = query["text"].encode("latin-1")
    assert octets.decode("utf-16-be" if query["coding"] == "2" else "utf-8") == text
    await eventually(lambda: node.delivery.delivered == 1)
