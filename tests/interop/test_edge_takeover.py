"""A node behind the SIP edge is killed with a call up: its peer hears the heir, whichever way it is reached."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.test_takeover import eventually
from tests.e2e.voice_app import response
from tests.interop.edge import EDGE, speaks_tls
from tests.interop.edge_site import (
    ABROAD,
    NODES,
    NUMBER,
    PATIENCE_S,
    TRANSPORTS,
    Site,
    caller,
    calls_at,
    ended,
    host_of,
    rings,
)
from tests.interop.outsider import INSIDE, Outsider
from tests.interop.phone_calls import GREETING, THANKS
from tests.interop.pjsua import Pjsua
from tests.interop.switch import HOST
from tests.interop.test_sip_domain import PASSWORD
from tests.postgres import PostgresServer, needs_postgres
from tests.redis import needs_redis

pytestmark = [needs_postgres, needs_redis, pytest.mark.slow]


@pytest.fixture
def doomed(tmp_path: Path, postgres: PostgresServer) -> Iterator[Site]:
    """A site of which a part will be lost."""
    speaks_tls()
    made = Site(tmp_path, postgres)
    try:
        yield made.start()
    finally:
        made.close()


# -- takeover ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_call_goes_on_at_the_heir_through_the_edge(doomed: Site, transport: str) -> None:
    """The re-INVITE comes to the phone over the connection that it has to the edge, whoever sends it."""
    office = doomed.office(f"heir-{transport}".lower())
    phone = doomed.phone(office, "alice", transport)
    rings(doomed, doomed.nodes[0], office)
    phone.sees("CALL_ESTABLISHED")
    phone.hears(GREETING)
    phone.does("sndcode", "4")
    goes_on(doomed, lambda: phone.does("sndcode", "2"))
    phone.hears(THANKS)
    phone.sees("CALL_CLOSED")
    ended(doomed)


def test_a_call_that_a_phone_made_goes_on_with_new_keys(doomed: Site) -> None:
    """TLS and SRTP all the way, which its domain wants; the way back to the caller leads through the edge."""
    office = doomed.office("keys", secure=True)
    phone = doomed.pjsua(office, "alice", "TLS", srtp="srtp")
    doomed.app.answers["/domain"] = doomed.app.answers["/menu"]
    phone.does("dial", uri=f"sip:200@{office.name}")
    assert phone.sees("media")["srtp"] is True
    phone.hears(GREETING)
    phone.does("press", digits="4")
    goes_on(doomed, lambda: phone.does("press", digits="2"))
    phone.hears(THANKS)
    ended(doomed)


def test_without_an_edge_the_heir_connects_to_a_phone_that_takes_connections(doomed: Site) -> None:
    """TLS both ways with verified certificates, and SRTP: the lost host's keys are never used again."""
    first = doomed.nodes[0]
    port = doomed.behind[0].tls_port
    phone = Pjsua(
        doomed.folder / "direct", doomed.said, user="alice", password=PASSWORD, domain=f"{NODES[0]}:{port}",
        proxy=f"sip:{NODES[0]}:{port};transport=tls", transport="TLS", srtp="srtp", certificate=doomed.certificate,
    )  # fmt: skip
    try:
        phone.does("dial", uri=f"sip:{NUMBER}@{NODES[0]}:{port};transport=tls")
        assert phone.sees("media")["srtp"] is True
        phone.hears(GREETING)
        assert calls_at(first) == 1
        phone.does("press", digits="4")
        goes_on(doomed, lambda: phone.does("press", digits="2"))
        phone.hears(THANKS)
        ended(doomed)
    finally:
        phone.close()


def test_a_phone_behind_a_nat_goes_on_too(doomed: Site) -> None:
    """All that it says of itself is the inside of its NAT: Via, Contact and SDP."""
    phone = Outsider(HOST, doomed.edge, says=INSIDE)
    try:
        phone.calls()
        phone.is_heard()
        talks_on(doomed, phone)
        ended(doomed)
    except BaseException:
        print(doomed.log())
        raise
    finally:
        phone.close()


def test_a_carrier_that_knows_one_address_is_called_and_goes_on_at_the_heir(doomed: Site) -> None:
    """It sees nothing but the edge."""
    carrier = doomed.carrier
    doomed.nodes[0].client.calls.create(
        to=f"{ABROAD}5550177", from_=NUMBER, url=f"{doomed.app.url}/menu", status_callback=f"{doomed.app.url}/status"
    )
    try:
        carrier.takes_invite()
        carrier.is_heard()
        talks_on(doomed, carrier)
        assert carrier.sources == {(EDGE, doomed.edge.port)}
        ended(doomed)
    except BaseException:
        print(doomed.log())
        raise


def talks_on(site: Site, peer: Outsider) -> None:
    """The host of its call dies; the heir invites it anew, to another place, and hears it."""
    before = peer.remote_rtp
    site.owner().dies()
    peer.takes_invite()
    assert peer.remote_rtp != before
    peer.is_heard()
    assert peer.hang_up() == 200


def goes_on(site: Site, press: Callable[[], object]) -> None:
    """The host of the only call dies; the other one has it, and the keys from before."""
    owner = site.owner()
    heir = next(node for node in site.nodes if node is not owner)
    owner.dies()
    try:
        eventually(lambda: "were taken over: 1 legs" in heir.text(), "the takeover")
        assert "1 reached, 0 gone" in heir.text()
        press()
        (form,) = site.app.wait("/thanks", timeout_s=PATIENCE_S)
        assert form["Digits"] == "42"
    except BaseException:
        print(site.log())
        raise


def test_a_dead_node_is_passed_over(doomed: Site) -> None:
    doomed.nodes[0].dies()
    for _ in range(8):
        one = caller(doomed).calls()
        assert host_of(one.target) == NODES[1]
        assert one.hang_up() == 200


def test_a_caller_who_hears_it_ring_is_called_on_at_the_next_node(doomed: Site) -> None:
    """The heir refuses him with 503 by the Via of the lost host's INVITE, and the edge asks the next node."""
    doomed.app.answers["/rings"] = response('<Pause length="8"/><Play loop="0">/greeting.wav</Play>')
    doomed.nodes[0].answer_at(f"{doomed.app.url}/rings", f"{doomed.app.url}/status")
    one = caller(doomed)
    try:
        one.send(one.message("INVITE", body=one.offer()))
        one.receive(lambda message: message.status == 180)
        owner = doomed.owner()
        doomed.app.wait("/rings")
        owner.dies()
        answer = one.final()
        assert answer.status == 200
        one.up(answer)
        assert host_of(one.target) == NODES[1 - doomed.nodes.index(owner)]
        one.is_heard()
        assert one.hang_up() == 200
        told = doomed.app.wait("/status", 2, PATIENCE_S)
        assert sorted(form["CallStatus"] for form in told) == ["completed", "failed"]
    except BaseException:
        print(doomed.log())
        raise


def test_a_carrier_that_rings_is_told_to_stop(doomed: Site) -> None:
    """CANCEL comes through the edge, though another node sends it."""
    carrier = doomed.carrier
    doomed.nodes[0].client.calls.create(
        to=f"{ABROAD}5550178", from_=NUMBER, url=f"{doomed.app.url}/menu", status_callback=f"{doomed.app.url}/status",
        status_callback_event=["ringing", "completed"],
    )  # fmt: skip
    try:
        carrier.rings()
        doomed.app.wait("/status")
        doomed.owner().dies()
        carrier.receive(lambda message: message.method == "CANCEL")
        told = doomed.app.wait("/status", 2, PATIENCE_S)
        assert [form["CallStatus"] for form in told] == ["ringing", "failed"]
    except BaseException:
        print(doomed.log())
        raise
