"""Registrations, health, own addresses and status together."""

import random
from types import SimpleNamespace

import pytest

from trunkline.settings import Trunk
from trunkline.sip.flow import Target
from trunkline.voice import trunk_health, trunk_registration, trunk_status
from trunkline.voice.edges import DIRECT
from trunkline.voice.sources import Nobody
from trunkline.voice.trunk_contact import contact_user
from trunkline.voice.trunk_doors import TrunkDoors
from trunkline.voice.trunk_service import TrunkService
from trunkline.voice.trunks import Trunks

from ..messaging.world import MovableClock, eventually
from .lines import NODE, Net
from .test_trunk_registration import Registrar

SECRET = b"s" * 32
REGISTERED = Trunk(
    name="acme",
    register=True,
    username="u",
    password="secret",
    gateways=("sip:carrier.example",),
    contact_user="4930123",
)
OWN = Trunk(
    name="own", gateways=("sip:10.0.0.1", "sip:many.example"), addresses=("10.0.0.7",), advertised="203.0.113.9"
)


class Sip:
    def __init__(self, net):
        self.stack = net.join(NODE, None)
        self.hosts = {"carrier.example": [("127.0.0.2", 5060)], "many.example": [("192.0.2.1", 5060)]}

    async def resolve(self, host, port, transport="", secure=False):
        return [Target(transport or "UDP", *address, host) for address in self.hosts[host]]

    def peer_certificate(self, flow):
        return SimpleNamespace(names=("a.example",))

    def hold(self, flow):
        pass

    def release(self, flow):
        pass


@pytest.fixture
async def net():
    made = Net()
    yield made
    made.close()


@pytest.fixture
async def build(net, tmp_path, monkeypatch):
    monkeypatch.setattr(trunk_health, "START_SPREAD_S", 0.01)
    monkeypatch.setattr(trunk_registration, "START_SPREAD_S", 0.01)
    monkeypatch.setattr(trunk_status, "SETTLE_S", 0.01)
    running = []

    async def build(*settings):
        clock = MovableClock()
        trunks = Trunks(settings, random.Random(1), clock.monotonic(), clock.monotonic)
        sources = SimpleNamespace(trunk_of=lambda request, host: None, bans=Nobody(), edges=DIRECT)
        doors = TrunkDoors(settings, sources, clock)
        by_address = {"10.0.0.7": OWN}.get
        sip = Sip(net)
        made = TrunkService(
            trunks, sip, doors, by_address, secret=SECRET, domain="us.example", folder=tmp_path, clock=clock
        )
        made.doors, made.trunks, made.sip = doors, trunks, sip
        running.append(made)
        return made

    yield build
    for one in running:
        await one.stop()


def asked(user):
    return SimpleNamespace(request_uri=SimpleNamespace(user=user))


async def test_calls_come_in_by_what_is_registered(net, build, tmp_path):
    Registrar(net, ("127.0.0.2", 5060))
    service = await build(REGISTERED)
    invite = asked(contact_user(REGISTERED, SECRET))
    flow = SimpleNamespace(remote=("127.0.0.2", 5060), transport="UDP")
    assert service.doors.trunk_of(invite, flow) is None  # nobody knows yet where its registrar is
    service.start()
    await eventually(lambda: service.doors.trunk_of(invite, flow) is REGISTERED)
    stranger = SimpleNamespace(remote=("127.0.0.3", 5060), transport="UDP")
    assert service.doors.trunk_of(invite, stranger) is None
    await eventually(lambda: any(line.state == "registered" for line in trunk_status.read(tmp_path).lines))
    await service.stop()
    assert trunk_status.read(tmp_path) is None


async def test_own_addresses_hold_for_gateways_and_for_who_calls(build):
    service = await build(OWN)
    service.start()
    assert service.advertised("10.0.0.1") == "203.0.113.9"
    assert service.advertised("10.0.0.7") == "203.0.113.9"
    assert service.advertised("10.0.0.8") == ""
    await eventually(lambda: service.advertised("192.0.2.1") == "203.0.113.9")
    assert service.sip.stack.advertised == service.advertised


async def test_nothing_is_asked_where_no_trunk_has_an_address_of_its_own(build):
    service = await build(REGISTERED)
    assert service.advertised("10.0.0.7") == ""
    assert service.sip.stack.advertised is None


async def test_certificates_are_the_transports(build):
    service = await build(Trunk(name="tls", tls_names=("a.example",)))
    flow = SimpleNamespace(remote=("10.0.0.9", 5061), transport="TLS")
    assert service.doors.trunk_of(asked("x"), flow).name == "tls"
