"""Whose word counts about where a request comes from, when an edge proxy is in between."""

from types import SimpleNamespace

import pytest

from trunkline.sip.flow import Flow
from trunkline.sip.message import Headers, parse
from trunkline.voice.bans import Bans
from trunkline.voice.edges import DIRECT, HEADER, MAX_ADDRESS, Edges
from trunkline.voice.sources import Sources

from .lines import APP, NODE, OURS
from .office import HOST, Office
from .test_doorkeeper import Scanner, guarded

EDGE, PHONE, CARRIER = "192.0.2.10", "198.51.100.7", "127.0.0.2"


def source(edges, said, host=EDGE):
    headers = Headers()
    if said is not None:
        headers.set(HEADER, said)
    return edges.source(SimpleNamespace(headers=headers), Flow("UDP", (host, 5060), ("192.0.2.11", 5060)))


@pytest.mark.parametrize(
    ("said", "host"),
    [
        (PHONE, PHONE),
        (f" {PHONE} ", PHONE),
        ("2001:DB8::0:1", "2001:db8::1"),
        (None, EDGE),
        ("", EDGE),
        ("phone.example", EDGE),
        ("1" * (MAX_ADDRESS + 1), EDGE),
    ],
)
def test_an_edge_says_who_asks(said, host):
    assert source(Edges([EDGE]), said) == host


def test_nobody_else_does():
    assert source(Edges([EDGE]), CARRIER, PHONE) == PHONE
    assert source(DIRECT, CARRIER) == EDGE


def test_an_edge_may_be_written_in_any_form():
    assert source(Edges(["2001:DB8:0::10"]), PHONE, "2001:db8::10") == PHONE


def behind(lines):
    """The node, with an edge in front of it and bans: whether it listens to what the edge passes on from somebody."""
    inbound = lines.inbound
    inbound._sources = inbound.doors._sources = Sources(
        lines.trunk_settings, "us", b"secret", 1000, lines.clock, Edges([EDGE])
    )
    inbound._sources.bans = bans = Bans(lines.settings.sip, lines.memory, lines.clock)
    guarded(lines)

    def listens(said, method="OPTIONS"):
        lines = [
            f"{method} sip:100@{HOST if method == 'REGISTER' else '127.0.0.1'} SIP/2.0", f"Via: SIP/2.0/UDP {EDGE}",
            f"From: <sip:a@{EDGE}>;tag=1", f"To: <sip:a@{EDGE}>", "Call-ID: 1", f"CSeq: 1 {method}",
            *([f"{HEADER}: {said}"] if said else []),
        ]  # fmt: skip
        request = parse("\r\n".join([*lines, "", ""]).encode())
        return inbound.permitted(request, Flow("UDP", (EDGE, 5060), NODE))

    return listens, bans


async def test_a_trunk_is_known_by_its_address_through_an_edge(lines):
    listens, _ = behind(lines)
    assert listens(CARRIER)
    assert not listens(PHONE)
    assert listens(""), "the edge asks whether we are there"
    lines.web.pages[APP + "in"] = "<Say>hi</Say><Pause length='60'/>"
    edge = Scanner(lines.net, (EDGE, 5060))
    assert await edge.answer("OPTIONS", headers=[(HEADER, CARRIER)]) == 200
    assert await edge.calls(f"sip:{OURS}@127.0.0.1") == 403, "and is no trunk itself"


async def test_who_guesses_through_an_edge_is_banned_and_nobody_beside_him(lines):
    listens, bans = behind(lines)
    await Office(lines).open()
    lines.inbound.doorkeeper._domains = lines.inbound._domains
    assert listens(PHONE, "REGISTER")
    for _ in range(20):
        bans.offended(PHONE, "wrong-login", proven=True)
    assert not listens(PHONE, "REGISTER")
    assert listens("198.51.100.8", "REGISTER")
    assert [ban.address for ban in bans.listed()] == [PHONE]
