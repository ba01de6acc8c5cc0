"""REGISTER in the stack: answered without keeping anything, whatever it is."""

import random

import pytest

from trunkline.sip.core import StackConfig
from trunkline.sip.flow import Flow
from trunkline.sip.message import parse
from trunkline.sip.stack import Stack

FLOW = Flow("UDP", ("127.0.0.9", 5062), ("127.0.0.1", 5060))
WIRE = Flow("TCP", ("127.0.0.9", 40_000), ("127.0.0.1", 5060), 7)
GOOD = """\
REGISTER sip:acme.sip.localhost SIP/2.0
Via: SIP/2.0/UDP 10.0.0.1:5062;branch=z9hG4bK1;rport
From: <sip:alice@acme.sip.localhost>;tag=1
To: <sip:alice@acme.sip.localhost>
Call-ID: one
CSeq: 1 REGISTER
Contact: <sip:alice@10.0.0.1:5062>;expires=600
Content-Length: 0

"""


class Core:
    """Says what it is told to; keeps what it was asked."""

    def __init__(self) -> None:
        self.answer = (200, [("Contact", "<sip:alice@10.0.0.1:5062>;expires=600")])
        self.asked = []
        self.permits = True

    def permitted(self, request, flow):
        return self.permits

    def on_request(self, request, flow):
        self.asked.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Place:
    def __init__(self) -> None:
        self.core, self.sent = Core(), []
        self.stack = Stack(
            StackConfig(user_agent=""), lambda data, flow: self.sent.append((data, flow)) or True, lambda: 0.0,
            lambda: "token", self.core,
        )  # fmt: skip

    def takes(self, text=GOOD, flow=FLOW):
        self.stack.receive(text.replace("\n", "\r\n").encode(), flow)
        assert self.stack.transactions == 0
        assert self.stack.timeout() is None
        return [parse(data) for data, _ in self.sent]


def test_it_is_answered_and_forgotten():
    here = Place()
    (response,) = here.takes()
    assert response.status == 200
    assert response.to_tag
    assert response.headers.get("Contact").endswith(";expires=600")
    assert response.via.received == "127.0.0.9"
    assert here.sent[0][1] == FLOW


def test_the_same_again_is_asked_again_and_tagged_the_same():
    here = Place()
    here.takes()
    first, second = here.takes()
    assert len(here.core.asked) == 2
    assert first.to_tag == second.to_tag


def test_over_a_connection():
    here = Place()
    here.takes(flow=WIRE)
    assert here.sent[0][1] == WIRE


@pytest.mark.parametrize(
    ("require", "status", "lacking"),
    [
        ("path", 200, ""),
        ("outbound, Path", 200, ""),
        ("gruu", 420, "gruu"),
        ("path, gruu, x", 420, "gruu, x"),
        ("100rel", 420, "100rel"),
    ],
)
def test_what_it_requires(require, status, lacking):
    here = Place()
    (response,) = here.takes(GOOD.replace("Contact:", f"Require: {require}\nContact:"))
    assert (response.status, response.headers.get("Unsupported")) == (status, lacking)
    assert len(here.core.asked) == (status == 200)


def test_without_a_registrar_the_method_is_not_allowed():
    here = Place()
    here.core.answer = None
    (response,) = here.takes()
    assert response.status == 405
    assert "INVITE" in response.headers.get("Allow")


def test_a_fault_of_the_registrar_is_told():
    here = Place()
    here.core.answer = RuntimeError("boom")
    (response,) = here.takes()
    assert response.status == 500


def test_who_is_not_permitted_hears_nothing():
    here = Place()
    here.core.permits = False
    assert here.takes() == []
    assert here.core.asked == []


def test_who_closes_a_connection_is_told_of():
    here = Place()
    closed = []
    here.stack.on_flow_closed = closed.append
    here.stack.flow_closed(WIRE)
    here.stack.flow_closed(WIRE._replace(id=0))  # one that could not be made
    assert closed == [WIRE]


@pytest.mark.parametrize("seed", range(4))
def test_noise_leaves_nothing_behind(seed):
    """Messages with letters changed, lines lost, repeated or cut."""
    dice = random.Random(seed)
    here = Place()
    lines = GOOD.replace("\n", "\r\n").encode()
    for _ in range(1500):
        data = bytearray(lines)
        for _ in range(dice.randrange(1, 6)):
            at = dice.randrange(len(data))
            kind = dice.randrange(4)
            if kind == 0:
                data[at] = dice.randrange(256)
            elif kind == 1:
                del data[at : at + dice.randrange(40)]
            elif kind == 2:
                data[at:at] = data[at : at + dice.randrange(200)]
            else:
                data[at:at] = bytes(dice.choices(b'<>;,="\\*@:\r\n \t%', k=dice.randrange(20)))
            if not data:
                break
        here.stack.receive(bytes(data), FLOW)
    registers = [request for request in here.core.asked if request.method == "REGISTER"]
    assert registers
    assert here.stack.metrics.get("errors", 0) == 0
