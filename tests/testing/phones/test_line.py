"""Phones with an account of their own: they register at whatever answers at the platform's address."""

import asyncio

import msgspec
import pytest

from tests.testing.phones.studio import TuneStudio
from trunkline.sip import digest
from trunkline.sip.core import StackConfig
from trunkline.sip.transport import SipTransport
from trunkline.testing.phones.control import Control
from trunkline.testing.phones.exchange import PhoneExchange

DOMAIN = "office.sip.localhost"
ADA = {"user": "ada", "password": "s3cret", "domain": DOMAIN}


class Registrar:
    """Challenges once, then says yes; keeps what it was asked, and takes calls."""

    def __init__(self) -> None:
        self.requests, self.invites, self.flows = [], [], []

    def permitted(self, request, flow):
        return True

    def on_invite(self, invite):
        self.invites.append(invite)
        if "Proxy-Authorization" in invite.request.headers:
            invite.reject(486)
        else:
            invite.challenge(digest.challenge("trunkline", "n", "MD5"), proxy=True)

    def on_request(self, request, flow):
        self.requests.append(request)
        self.flows.append(flow)
        if "Authorization" not in request.headers:
            return 401, [("WWW-Authenticate", digest.challenge("trunkline", "n", "MD5"))]
        return 200, [("Contact", request.headers.get("Contact"))]


@pytest.fixture
async def there():
    core, exchange = Registrar(), PhoneExchange()
    transport = SipTransport(StackConfig(), core)
    await transport.start()
    await exchange.start()
    exchange.platform = (transport.host, transport.port)
    core.stack, core.exchange, core.control = transport.stack, exchange, Control(exchange, TuneStudio())
    yield core
    await exchange.stop()
    await transport.close()


async def ask(there, method, path, body=None, status=200):
    content = msgspec.json.encode(body) if body is not None else b""
    answer = await there.control.handle(method, path, {}, content)
    assert answer.status == status, answer.body
    return msgspec.json.decode(answer.body)


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
async def test_a_phone_registers(there, transport):
    found = await ask(there, "POST", "phones/ada/registration", {**ADA, "transport": transport, "expires_s": 60})
    assert found["status"] == 200
    parameter = ";transport=tcp" if transport == "TCP" else ""
    assert found["contacts"] == [f"<sip:ada@127.0.0.1:{there.exchange.port}{parameter}>;expires=60"]
    first, second = there.requests
    assert second.uri == f"sip:{DOMAIN}"
    assert second.headers.get("To") == f"<sip:ada@{DOMAIN}>"
    assert (second.call_id, second.cseq[0]) == (first.call_id, first.cseq[0] + 1)
    assert {flow.transport for flow in there.flows} == {transport}
    assert (await ask(there, "GET", "phones/ada/registration"))["status"] == 200


async def test_it_registers_again_in_order_and_leaves(there):
    await ask(there, "POST", "phones/ada/registration", ADA)
    await ask(there, "POST", "phones/ada/registration", ADA | {"expires_s": 0})
    assert len({request.call_id for request in there.requests}) == 1
    numbers = [request.cseq[0] for request in there.requests]
    assert numbers == sorted(set(numbers))
    assert there.requests[-1].headers.get("Contact").endswith(";expires=0")


async def test_it_refreshes_by_itself(there):
    await ask(there, "POST", "phones/ada/registration", ADA | {"expires_s": 1})
    async with asyncio.timeout(60):
        while len(there.requests) < 4:
            await asyncio.sleep(0.02)


async def test_it_dials_by_its_domain(there):
    await ask(there, "POST", "phones/ada/registration", ADA)
    made = await ask(there, "POST", "phones/ada/calls", {"to": "bob"}, status=201)
    async with asyncio.timeout(60):
        while (await ask(there, "GET", f"phones/ada/calls/{made['id']}"))["status"] != 486:
            await asyncio.sleep(0.02)
    last = there.invites[-1].request
    assert last.uri == f"sip:bob@{DOMAIN}"
    assert f"<sip:ada@{DOMAIN}>" in last.headers.get("From")
    assert digest.parse_credentials(last.headers.get("Proxy-Authorization")).username == "ada"


async def test_a_phone_without_an_account_has_none(there):
    assert (await ask(there, "GET", "phones/+15555550101/registration"))["status"] == 0


async def test_a_domain_that_is_none(there):
    await ask(there, "POST", "phones/ada/registration", ADA | {"domain": "a b"}, status=400)
    await ask(there, "POST", "phones/ada/registration", {"user": "ada"}, status=400)
