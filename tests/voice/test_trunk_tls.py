"""Trunks over TLS on real sockets: certificates open the door, and a registration's connection brings the calls."""

import random
import time

import pytest

from tests.sip.link import OFFER, Caller
from tests.sip.test_transport import until
from tests.sip.test_transport_tls import CLIENT, NAME, secure_nodes
from trunkline.model.clock import SystemClock
from trunkline.settings import Trunk
from trunkline.voice.edges import DIRECT
from trunkline.voice.sources import Nobody
from trunkline.voice.trunk_contact import contact_user
from trunkline.voice.trunk_doors import TrunkDoors
from trunkline.voice.trunk_registration import TrunkRegistrations

SECRET = b"s" * 32


class NoSources:
    bans = Nobody()
    edges = DIRECT

    def trunk_of(self, request, host):
        return None


@pytest.fixture
async def nodes(tmp_path):
    async with secure_nodes(tmp_path) as make:
        yield make


@pytest.mark.parametrize(("names", "enters"), [((CLIENT,), True), (("*.example.net",), True), ((NAME,), False)])
async def test_a_certificate_opens_the_door_that_names_it(nodes, names, enters):
    server = await nodes(client_ca=str(nodes.authority.path))
    pbx = await nodes("client", (CLIENT,))
    trunk = Trunk(name="pbx", tls_names=names)
    doors = TrunkDoors((trunk,), NoSources(), SystemClock())
    doors.certificate = server.transport.peer_certificate
    caller = pbx.call(server.tls_port, "TLS")
    await until(lambda: caller.dialog is not None)
    invite = server.invites[-1]
    assert doors.trunk_of(invite.request, invite.flow) is (trunk if enters else None)


async def test_calls_come_in_over_the_connection_that_was_registered(nodes):
    carrier, office = await nodes(), await nodes("office", ("office.example",))
    registered = []

    def on_request(request, flow):
        if request.method == "REGISTER":
            registered.append((request, flow))
            return 200, [("Contact", request.headers.get("Contact"))]
        return None

    carrier.on_request = on_request
    trunk = Trunk(
        name="acme", register=True, username="u", password="p",
        registrars=(f"sip:127.0.0.1:{carrier.tls_port};transport=tls",),
    )  # fmt: skip
    registrations = TrunkRegistrations((trunk,), office.transport, SECRET, random.Random(1), time.monotonic)
    (one,) = registrations
    one.start(0)
    await until(lambda: one.standing().up)
    request, flow = registered[0]
    user = contact_user(trunk, SECRET)
    assert str(request.contact.uri) == f"sip:{user}@127.0.0.1:{office.tls_port};transport=tls"
    caller = Caller(carrier)
    carrier.stack.invite(str(request.contact.uri), from_="<sips:a@a>", target=flow, sdp=OFFER, listener=caller)
    await until(lambda: caller.dialog is not None)
    doors = TrunkDoors((trunk,), NoSources(), SystemClock())
    doors.know_contacts(SECRET)
    invite = office.invites[-1]
    assert doors.trunk_of(invite.request, invite.flow) is trunk
    assert carrier.transport.connections == office.transport.connections == 1
    await registrations.stop()
    await until(lambda: len(registered) == 2)
    assert registered[1][0].headers.get("Expires") == "0"
