"""Kamailio as a proxy in front of the registrar: a phone registers and calls through it, and is called along the
Path that it left (RFC 3327)."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.interop.baresip import Baresip
from tests.interop.kamailio import Kamailio
from tests.interop.phone_calls import SAID, Start, a_held_call, says, starts  # noqa: F401  (fixtures)
from tests.interop.switch import PROXY, Peers, Switch
from tests.interop.test_sip_domain import PASSWORD, REGISTERED, Office

EDGE = Path(__file__).with_name("edge.cfg")
TRANSPORTS = ["UDP", "TCP"]


class Edge(NamedTuple):
    """A proxy."""

    at: str
    server_port: int


@pytest.fixture(scope="module")
def edge(switch: Switch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """The proxy: where it listens, and the port of the node behind it."""
    peers = Peers()
    running = Kamailio(tmp_path_factory.mktemp("edge"), switch, peers, EDGE)
    yield Edge(f"{PROXY}:{peers.proxy}", running.server_port)
    running.close()


def behind(start: Start, office: Office, edge: Edge, transport: str) -> Baresip:
    """A phone that reaches us through the proxy alone."""
    phone = start(
        user="alice", transport=transport, domain=office.name, password=PASSWORD,
        proxy=f"sip:{edge.at};transport={transport.lower()}",
    )  # fmt: skip
    phone.prints(REGISTERED)
    return phone


def talk(alice: Baresip, bob: Baresip) -> None:
    for phone in (alice, bob):
        phone.sees("CALL_ESTABLISHED")
    for phone in (alice, bob):
        phone.hears(SAID[8000:12_000])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_it_calls_and_is_called(switch: Switch, start: Start, edge: Edge, transport: str) -> None:
    office = Office(switch, f"path-{transport}".lower())
    alice = behind(start, office, edge, transport)
    # of several nodes the one that has a connection calls by it
    bob = office.phone(start, "bob", transport, port=edge.server_port if transport == "TCP" else 0)
    bob.prints(REGISTERED)
    switch.answers(dialled="<Hangup/>")
    switch.app.answers["/domain"] = lambda form: (
        f"<Response><Dial action='/dialled'><Sip>"
        f"sip:{'bob' if form['SipUsername'] == 'alice' else 'alice'}@{office.name}</Sip></Dial></Response>"
    )
    for caller, callee in ((alice, bob), (bob, alice)):
        for phone in (caller, callee):
            phone.forgets()
        caller.does("dial", f"sip:200@{office.name}")
        talk(alice, bob)
        caller.does("hangup")
        callee.sees("CALL_CLOSED")
        caller.sees("CALL_CLOSED")
    assert [form["DialCallStatus"] for form in switch.app.wait("/dialled", 2)] == ["completed"] * 2
    assert switch.ends(2) == ["completed"] * 2


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_it_is_called_and_holds(switch: Switch, start: Start, edge: Edge, transport: str) -> None:
    office = Office(switch, f"path-held-{transport}".lower())
    a_held_call(switch, behind(start, office, edge, transport), f"sip:alice@{office.name}")
