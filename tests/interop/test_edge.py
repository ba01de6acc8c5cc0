"""The SIP edge of docs/howto/sip-edge.md in front of a cluster: phones behind Kamailio with the configuration that we
ship, two nodes on PostgreSQL and Redis."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.voice_app import response
from tests.interop.baresip import Baresip
from tests.interop.edge import Behind, Edge, speaks_tls
from tests.interop.edge_site import NODE_S, NODES, NUMBER, PATIENCE_S, TRANSPORTS, Site, caller, ended, host_of, rings
from tests.interop.outsider import Outsider, Refusing
from tests.interop.phone_calls import GREETING, THANKS
from tests.interop.switch import HOST
from tests.interop.test_sip_domain import Office
from tests.postgres import PostgresServer, needs_postgres
from tests.redis import needs_redis

pytestmark = [needs_postgres, needs_redis, pytest.mark.slow]
AGAIN, AGAIN_S = 30, 5
"""Calls to a phone that has to register again, and between two."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Site]:
    """A site whose nodes stay alive."""
    speaks_tls()
    made = Site(tmp_path_factory.mktemp("edge"), postgres)
    try:
        yield made.start()
    finally:
        made.close()


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    """The same, for one test: its phones end with it."""
    running.app.hooks.clear()
    try:
        yield running
    except BaseException:
        print(running.log())
        raise
    finally:
        running.hush()


# -- phones behind it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_phone_is_called_from_any_node_and_calls(site: Site, transport: str) -> None:
    office = site.office(f"edge-{transport}".lower())
    phone = site.phone(office, "alice", transport)
    site.app.answers["/domain"] = response(
        '<Gather numDigits="2" timeout="60" action="/thanks"><Play loop="0">/greeting.wav</Play></Gather>'
    )
    for node in site.nodes:
        site.app.hooks.clear()
        phone.forgets()
        rings(site, node, office)
        talks(site, phone)
    site.app.hooks.clear()
    phone.forgets()
    phone.does("dial", f"sip:200@{office.name}")
    talks(site, phone)
    (asked,) = site.app.at("/domain")
    assert asked["SipSourceIp"] == HOST


def talks(site: Site, phone: Baresip) -> None:
    """It hears the menu, is heard there, and is hung up."""
    phone.sees("CALL_ESTABLISHED")
    phone.hears(GREETING)
    for key in "42":
        phone.does("sndcode", key)
    (form,) = site.app.wait("/thanks")
    assert form["Digits"] == "42"
    phone.hears(THANKS)
    phone.sees("CALL_CLOSED")
    ended(site)


# -- what it does with requests ------------------------------------------------------------------------------------


def test_calls_are_spread_over_the_nodes_and_keep_to_theirs(site: Site) -> None:
    hosts: set[str] = set()
    for _ in range(100):
        one = caller(site).calls()
        hosts.add(host_of(one.target))
        assert one.hang_up() == 200
        if len(hosts) == len(NODES):
            break
    assert hosts == set(NODES)


def test_a_node_that_refuses_is_passed_over(site: Site, tmp_path: Path) -> None:
    refusing = Refusing("127.0.0.7")
    edge = Edge(tmp_path / "edge", [Behind(refusing.host, refusing.port), site.behind[0]])
    try:
        edge.start()
        for _ in range(100):
            one = caller(site, edge).calls()
            assert host_of(one.target) == NODES[0]
            assert one.hang_up() == 200
            if "INVITE" in refusing.asked:
                break
        assert "INVITE" in refusing.asked
    finally:
        edge.close()
        refusing.close()


def test_it_is_no_relay(site: Site) -> None:
    """Neither by a Route, nor within what pretends to be a call, nor along a Path; and nobody says who he is."""
    victim, edge = Outsider("127.0.0.8"), site.edge
    site.callers.append(victim)
    received = f"sip:{victim.contact}".replace(":", "%3a")
    ours = f"sip:{edge.host}:{edge.port}"
    for headers, to, target in (
        ([f"Route: <sip:{victim.contact};lr>"], "", f"sip:{NUMBER}@{edge.host}:{edge.port}"),
        ([f"Route: <{ours};lr>"], ";tag=x", f"sip:x@{victim.contact}"),
        ([f"Route: <{ours};lr>, <sip:{victim.contact};lr>"], ";tag=x", f"sip:x@{NODES[0]}"),
        ([f"Route: <sip:phones@{edge.host}:{edge.port};lr;received={received}>"], "", f"sip:x@{victim.contact}"),
        ([], "", f"sip:x@{victim.contact}"),
        (["P-Edge-Source: 127.0.0.5"], "", f"sip:{NUMBER}@{edge.host}:{edge.port}"),
    ):
        stranger = Outsider("127.0.0.9", edge)
        site.callers.append(stranger)
        stranger.target, stranger.to = target, f"<{target}>{to}"
        stranger.send(stranger.message("INVITE", headers=headers, body=stranger.offer()))
        try:
            status = stranger.final(timeout_s=NODE_S * len(NODES) + 2).status
        except TimeoutError:
            status = 0  # strangers get no answer
        assert status in (0, 403, 481), (status, headers)
    victim.sip.settimeout(1)
    with pytest.raises(TimeoutError):
        victim.sip.recvfrom(2048)
    assert caller(site).calls().hang_up() == 200, "that strangers get no answer does not make a node a dead one"


def test_an_edge_that_was_lost(site: Site) -> None:
    """Calls go on, for audio does not pass it. Who has no connection notices nothing; others register again."""
    office = site.office("restart")
    phones = {transport: site.phone(office, transport.lower(), transport) for transport in TRANSPORTS}
    for transport in TRANSPORTS:
        rings(site, site.nodes[0], office, transport.lower())
    for phone in phones.values():
        phone.sees("CALL_ESTABLISHED")
    site.edge.dies()
    for phone in phones.values():
        phone.receives(50)
    site.edge.start()
    for phone in phones.values():
        phone.does("sndcode", "4")
        phone.does("sndcode", "2")
    site.app.wait("/thanks", len(TRANSPORTS), PATIENCE_S)
    phones["UDP"].sees("CALL_CLOSED")
    told = site.app.wait("/status", len(TRANSPORTS), PATIENCE_S)
    assert {one["CallStatus"] for one in told} == {"completed"}
    for transport in ("TCP", "TLS"):
        phone = phones[transport]
        phone.does("hangup")  # what the nodes said of the end came to a connection that is no more
        phone.sees("CALL_CLOSED")
        is_back(site, office, phone, transport.lower())


def is_back(site: Site, office: Office, phone: Baresip, user: str) -> None:
    """Call until the phone is registered again: until its next refresh the edge says 430."""
    for _ in range(AGAIN):
        rings(site, site.nodes[1], office, user)
        try:
            phone.sees("CALL_ESTABLISHED", AGAIN_S)
        except AssertionError:
            continue
        return
    raise AssertionError(f"{user} is not registered again")
