"""Gateways are asked for OPTIONS, and their names are looked up."""

import random
import time

import pytest

from trunkline.settings import Trunk
from trunkline.sip.flow import Target
from trunkline.voice import trunk_health
from trunkline.voice.trunk_health import TrunkHealth
from trunkline.voice.trunks import Trunks

from ..messaging.world import eventually
from .lines import NODE, Net

TO = "+14155550199"


class Gateway:
    """Answers OPTIONS with `status`, or not at all (0)."""

    def __init__(self, net, address, status=200):
        self.asked, self.status = [], status
        self.stack = net.join(address, self)

    def permitted(self, request, flow):
        return bool(self.status)

    def on_invite(self, invite):
        invite.reject(403)

    def on_request(self, request, flow):
        self.asked.append(request)
        return self.status, []


class Sip:
    """The node's stack with names of its own."""

    def __init__(self, net, hosts=()):
        self.stack = net.join(NODE, None)
        self.hosts = dict(hosts)

    async def resolve(self, host, port, transport="", secure=False):
        if host not in self.hosts:
            raise OSError("no such name")
        return [Target(transport or "UDP", *address, host) for address in self.hosts[host]]


@pytest.fixture
async def net(monkeypatch):
    monkeypatch.setattr(trunk_health, "START_SPREAD_S", 0.01)
    monkeypatch.setattr(trunk_health, "LOOKUP_S", 0.05)
    made = Net()
    yield made
    made.close()


@pytest.fixture
async def start(net):
    """Start the health of one trunk; gives its trunks."""
    running = []

    async def start(hosts=(), **changes):
        trunk = Trunk(**{"name": "acme", "options_ping_s": 0.05, **changes})
        trunks = Trunks((trunk,), random.Random(1), time.monotonic(), time.monotonic)
        sip = Sip(net, hosts)
        health = TrunkHealth(trunks, sip, "us.example", random.Random(1), time.monotonic)
        trunks.changes, trunks.sip, trunks.health = [], sip, health
        health.start(lambda: trunks.changes.append(1))
        running.append(health)
        return trunks

    yield start
    for health in running:
        await health.stop()


def up(trunks):
    return [one.is_up for gateway in trunks.gateways["acme"].all for one in gateway.endpoints]


@pytest.mark.parametrize("status", [200, 403, 404, 405, 483, 501])
async def test_any_answer_is_a_sign_of_life(net, start, status):
    gateway = Gateway(net, ("127.0.0.2", 5060), status)
    trunks = await start(gateways=("sip:127.0.0.2",))
    await eventually(lambda: len(gateway.asked) >= 4)
    assert up(trunks) == [True]
    assert not trunks.changes
    assert str(gateway.asked[0].request_uri) == "sip:127.0.0.2"


async def test_503_and_silence_are_none(net, start):
    sick = Gateway(net, ("127.0.0.2", 5060), 503)
    mute = Gateway(net, ("127.0.0.3", 5060), 0)
    trunks = await start(gateways=("sip:127.0.0.2", "sip:127.0.0.3", "sip:127.0.0.4"))
    Gateway(net, ("127.0.0.4", 5060))
    await eventually(lambda: up(trunks) == [False, False, True])
    assert [way.host for way in trunks.ways(TO)] == ["127.0.0.4", "127.0.0.2", "127.0.0.3"]
    details = [gateway.endpoints[0].detail for gateway in trunks.gateways["acme"].all]
    assert details == ["OPTIONS got 503", "no answer to OPTIONS", ""]
    sick.status = mute.status = 200
    await eventually(lambda: up(trunks) == [True, True, True])
    assert len(trunks.changes) == 4


async def test_without_an_interval_nobody_is_asked(net, start):
    gateway = Gateway(net, ("127.0.0.2", 5060))
    asked = Gateway(net, ("127.0.0.3", 5060))
    await start(gateways=("sip:127.0.0.2",), options_ping_s=0)
    await start(gateways=("sip:127.0.0.3",))
    await eventually(lambda: len(asked.asked) > 3)
    assert not gateway.asked


async def test_names_are_looked_up_and_each_address_is_asked(net, start):
    one, two = Gateway(net, ("127.0.0.2", 5060)), Gateway(net, ("127.0.0.3", 5070), 503)
    told = []
    trunks = await start(
        {"carrier.example": [("127.0.0.2", 5060), ("127.0.0.3", 5070)]}, gateways=("sip:carrier.example",)
    )
    trunks.health.on_hosts = told.append
    await eventually(lambda: up(trunks) == [True, False])
    assert [(way.host, way.port) for way in trunks.ways(TO)] == [("127.0.0.2", 5060), ("127.0.0.3", 5070)]
    assert str(one.asked[0].request_uri) == str(two.asked[0].request_uri) == "sip:carrier.example"
    trunks.sip.hosts["carrier.example"] = [("127.0.0.3", 5070), ("127.0.0.2", 5060)]
    await eventually(lambda: up(trunks) == [False, True])  # what is known of an address stays
    del trunks.sip.hosts["carrier.example"]
    await eventually(lambda: len(told) > 2)
    assert len(up(trunks)) == 2


async def test_the_carriers_domain_stands_in_the_question(net, start):
    gateway = Gateway(net, ("127.0.0.2", 5060))
    await start(gateways=("sip:127.0.0.2",), domain="ims.example", username="u7", password="p")
    await eventually(lambda: gateway.asked)
    assert str(gateway.asked[0].request_uri) == "sip:ims.example"
    assert "<sip:u7@ims.example>" in gateway.asked[0].headers.get("From")
