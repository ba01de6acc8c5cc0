"""Registrations at a registrar of the test's own: logins, renewals, other servers, and the end."""

import asyncio
import logging
import random
import time

import pytest

from trunkline.settings import Trunk
from trunkline.sip import digest
from trunkline.sip.flow import Target, is_numeric
from trunkline.voice.trunk_contact import contact_user
from trunkline.voice.trunk_registration import TrunkRegistrations, registrars

from ..messaging.world import eventually
from .lines import NODE, Net

SECRET = b"s" * 32
REGISTRAR, SPARE = ("127.0.0.2", 5060), ("127.0.0.3", 5060)
TRUNK = Trunk(name="acme", register=True, username="u", password="secret", gateways=("sip:carrier.example",))
USER = contact_user(TRUNK, SECRET)


class Registrar:
    """Asks for a login, and grants `seconds`; or answers with `status` and `headers`."""

    def __init__(self, net, address, seconds=600):
        self.asked, self.bound = [], {}
        self.seconds, self.status, self.stays, self.headers = seconds, 0, True, []
        self.stack = net.join(address, self)

    def permitted(self, request, flow):
        return True

    def on_invite(self, invite):
        invite.reject(403)

    def on_request(self, request, flow):
        self.asked.append(request)
        if self.status:
            status, self.status = self.status, self.status if self.stays else 0
            return status, list(self.headers)
        value = request.headers.get("Authorization")
        if not value:
            return 401, [("WWW-Authenticate", digest.challenge("carrier.example", "nonce1", "MD5"))]
        hashes = {"MD5": digest.ha1("MD5", "u", "carrier.example", "secret")}
        if not digest.verify(digest.parse_credentials(value), hashes, "REGISTER", b""):
            return 403, []
        contact = request.headers.get("Contact")
        uri, _, seconds = contact.partition(";expires=")
        if seconds == "0":
            self.bound.pop(uri, None)
        else:
            self.bound[uri] = self.seconds
        return 200, [("Contact", f"{one};expires={left}") for one, left in self.bound.items()]


class Sip:
    """The node's stack with names of its own."""

    def __init__(self, net, hosts):
        self.stack = net.join(NODE, None)
        self.hosts, self.held, self.lookups = hosts, [], 0

    async def resolve(self, host, port, transport="", secure=False):
        self.lookups += 1
        if host not in self.hosts and not is_numeric(host):
            raise OSError("no such name")
        return [Target(transport or "UDP", *address, host) for address in self.hosts[host]]

    def hold(self, flow):
        self.held.append(flow)

    def release(self, flow):
        self.held.remove(flow)


@pytest.fixture
async def net():
    made = Net()
    yield made
    made.close()


def running(sip, *trunks):
    made = TrunkRegistrations(trunks or (TRUNK,), sip, SECRET, random.Random(1), time.monotonic)
    for one in made:
        one.start(0.0)
    return made


async def test_it_logs_in_and_is_taken_back_at_the_end(net, caplog):
    registrar = Registrar(net, REGISTRAR)
    changes = []
    made = TrunkRegistrations(
        (TRUNK,), Sip(net, {"carrier.example": [REGISTRAR]}), SECRET, random.Random(1), time.monotonic
    )
    with caplog.at_level(logging.INFO):
        made.start(lambda: changes.append(1))
        (one,) = made
        await eventually(lambda: one.standing().up)
    assert list(registrar.bound) == [f"<sip:{USER}@127.0.0.1:5060>"]
    first, second = registrar.asked
    assert first.headers.get("Call-ID") == second.headers.get("Call-ID")
    assert second.cseq[0] == first.cseq[0] + 1
    assert str(first.request_uri) == "sip:carrier.example"
    assert "<sip:u@carrier.example>" in first.headers.get("To")
    assert (one.standing().state, one.standing().trunk, list(one.hosts)) == ("registered", "acme", ["127.0.0.2"])
    assert len(changes) == 1
    assert [record.message for record in caplog.records if "registered" in record.message] == [
        "trunk acme: sip:u@carrier.example at sip:carrier.example is registered for 600 s"
    ]
    await made.stop()
    assert not registrar.bound
    assert registrar.asked[-1].headers.get("Expires") == "0"
    assert registrar.asked[-1].cseq[0] > second.cseq[0]
    assert registrar.asked[-1].headers.get("Call-ID") == first.headers.get("Call-ID")


async def test_it_is_renewed_in_time(net):
    registrar = Registrar(net, REGISTRAR, seconds=1)
    made = running(Sip(net, {"carrier.example": [REGISTRAR]}))
    (one,) = made
    await eventually(lambda: len([request for request in registrar.asked if request.headers.get("Authorization")]) >= 2)
    assert one.client.cseq > 10
    await made.stop()


async def test_a_wrong_password_is_said_once_and_not_insisted_on(net, caplog):
    registrar = Registrar(net, REGISTRAR)
    trunk = Trunk(name="acme", register=True, username="u", password="wrong", gateways=("sip:carrier.example",))
    made = running(Sip(net, {"carrier.example": [REGISTRAR]}), trunk)
    (one,) = made
    await eventually(lambda: one.standing().state == "refused")
    assert one.client.due - time.monotonic() > 30
    assert len(registrar.asked) == 2
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "trunk acme: sip:u@carrier.example at sip:carrier.example is not registered: "
        "403 Forbidden (wrong username or password?)"
    ]
    await made.stop()
    assert len(registrar.asked) == 2


async def test_a_brief_interval_is_asked_again_with_what_is_wanted(net):
    registrar = Registrar(net, REGISTRAR)
    registrar.status, registrar.stays, registrar.headers = 423, False, [("Min-Expires", "1800")]
    made = running(Sip(net, {"carrier.example": [REGISTRAR]}))
    await eventually(lambda: registrar.bound)
    assert registrar.asked[-1].headers.get("Expires") == "1800"
    await made.stop()


async def test_the_next_server_of_the_name_takes_over(net):
    spare = Registrar(net, SPARE)
    sick = Registrar(net, REGISTRAR)
    sick.status = 503
    made = running(Sip(net, {"carrier.example": [REGISTRAR, SPARE]}))
    await eventually(lambda: spare.bound)
    assert len(sick.asked) == 1
    await made.stop()


async def test_silence_and_unknown_names_are_no_end(net):
    made = running(Sip(net, {"carrier.example": [("127.0.0.9", 5060)]}))
    (one,) = made
    await eventually(lambda: one.standing().state == "unreachable")
    assert one.standing().detail == "no answer"
    await made.stop()
    made = running(Sip(net, {}))
    (one,) = made
    await eventually(lambda: one.standing().state == "unreachable")
    assert one.standing().detail == "carrier.example cannot be resolved: no such name"
    await made.stop()


async def test_a_connection_is_held_while_it_carries_a_registration(net):
    registrar = Registrar(net, REGISTRAR)
    sip = Sip(net, {"carrier.example": [REGISTRAR]})
    trunk = Trunk(
        name="acme", register=True, username="u", password="secret", registrars=("sip:carrier.example;transport=tcp",)
    )
    made = running(sip, trunk)
    await eventually(lambda: registrar.bound)
    await eventually(lambda: sip.held)
    assert list(registrar.bound) == [f"<sip:{USER}@127.0.0.1:5060;transport=tcp>"]
    assert [flow.transport for flow in sip.held] == ["TCP"]
    await made.stop()
    assert not sip.held


async def test_every_registrar_gets_one(net):
    one, two = Registrar(net, REGISTRAR), Registrar(net, SPARE)
    trunk = Trunk(
        name="acme", register=True, username="u", password="secret", domain="carrier.example",
        register_user="+4930123456",
        registrars=("sip:127.0.0.2", "sip:127.0.0.3"),
    )  # fmt: skip
    made = running(Sip(net, {"127.0.0.2": [REGISTRAR], "127.0.0.3": [SPARE]}), trunk)
    await eventually(lambda: one.bound and two.bound)
    assert "<sip:+4930123456@carrier.example>" in two.asked[0].headers.get("To")
    assert str(two.asked[0].request_uri) == "sip:carrier.example"
    await asyncio.wait_for(made.stop(), 60)
    assert not one.bound
    assert not two.bound


def test_where_a_trunk_registers():
    assert registrars(TRUNK) == ("sip:carrier.example",)
    assert registrars(Trunk(name="a", registrars=("sip:x", "sip:y"), gateways=("sip:z",))) == ("sip:x", "sip:y")


async def test_of_several_nodes_the_one_that_holds_the_trunk_registers(net):
    registrar = Registrar(net, REGISTRAR)
    made = TrunkRegistrations(
        (TRUNK,), Sip(net, {"carrier.example": [REGISTRAR]}), SECRET, random.Random(1), time.monotonic
    )
    made.leased = True
    made.start()
    (one,) = made
    made.gain("other")
    await asyncio.sleep(0.05)
    assert registrar.asked == []
    made.gain("acme")
    await eventually(lambda: one.standing().up)
    await made.release("acme")
    assert not registrar.bound, "handed over: taken back"
    assert not one.standing().up
    made.gain("acme")
    await eventually(lambda: one.standing().up)
    asked = len(registrar.asked)
    made.lose("acme")
    await made.stop()
    assert len(registrar.asked) == asked, "another has it already: not a word"
    assert registrar.bound
