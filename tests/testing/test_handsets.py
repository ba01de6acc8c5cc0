"""Simulated phones, in the process and from outside."""

import asyncio

import orjson
import pytest

from tests.messaging.connectors.contract import OUR_NUMBER, MemorySink, Outcomes, message
from trunkline.messaging.connectors.base import Submission
from trunkline.messaging.connectors.loopback import LoopbackConnector
from trunkline.messaging.connectors.table import Context
from trunkline.settings import Loopback
from trunkline.testing.clock import ManualClock
from trunkline.testing.handsets import MAX_HANDSETS, MAX_INBOX, Handsets, NotReceived, NotTaken
from trunkline.testing.simulator import Simulator

ADA, BOB = "+15555550123", "+15555550124"
JSON = {b"content-type": b"application/json"}


class Network:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.sink = MemorySink()
        context = Context(clock=self.clock, timers=self.clock, owns=lambda number: number == OUR_NUMBER)
        self.connector = LoopbackConnector(Loopback(name="loop", delay_s=1, window=1000), context)
        self.handsets = Handsets(self.connector, self.clock)
        self.simulator = Simulator(self.handsets)
        self.connector.start(self.sink, lambda: None)

    async def deliver(self, to: str, *bodies: str) -> None:
        outcomes = Outcomes()
        for body in bodies:
            self.connector.submit(Submission(message(to, body), OUR_NUMBER, outcomes.done))
        await outcomes.first(len(bodies))
        self.clock.advance(1)


@pytest.fixture
async def network():
    network = Network()
    yield network
    await network.connector.stop(0.1)


@pytest.mark.parametrize("body", ["Hello", "Grüße €", "x" * 161, "[" * 200, "日本語😀" * 60, ""])
async def test_the_phone_shows_the_text_that_was_sent(network, body):
    ada = network.handsets.handset(ADA)
    await network.deliver(ADA, body)
    text = await ada.receives(body)
    assert (text.from_, text.to, text.body, text.id) == (OUR_NUMBER, ADA, body, 1)
    assert text.segments == len(network.sink.receipts)
    assert text.at_ms == network.clock.now_ms()


async def test_what_gsm7_lacks_is_not_invented(network):
    await network.deliver(ADA, "tab\there")
    assert (await network.handsets.handset(ADA).receives()).body == "tab\there"


async def test_receives_waits_and_goes_forward(network):
    ada = network.handsets.handset(ADA)
    waiting = asyncio.ensure_future(ada.receives("two"))
    await asyncio.sleep(0)
    await network.deliver(ADA, "one", "two", "three")
    assert (await waiting).id == 2
    assert (await ada.receives()).body == "three"
    with pytest.raises(NotReceived, match="did not receive 'one'"):
        await ada.receives("one", timeout_s=0.01)


async def test_scripted_replies(network):
    ada = network.handsets.handset(ADA)
    ada.replies("first", lambda text: f"you said {text.body}", lambda text: None)
    await network.deliver(ADA, "a", "b", "c", "d")
    assert [(part.from_, part.to, part.text) for part in network.sink.parts] == [
        (ADA, OUR_NUMBER, "first"),
        (ADA, OUR_NUMBER, "you said b"),
    ]


async def test_send_is_done_when_it_is_kept(network):
    ada = network.handsets.handset(ADA)
    network.sink.mode = "hold"
    sending = asyncio.ensure_future(ada.send(OUR_NUMBER, "Hi", ["https://x/1"]))
    await network.sink.heard(lambda: bool(network.sink.parts))
    await asyncio.sleep(0)
    assert not sending.done()
    network.sink.commit()
    await sending
    assert network.sink.parts[0].media_urls == ["https://x/1"]


async def test_send_that_is_never_kept(network):
    network.sink.mode = "fail"
    sending = asyncio.ensure_future(network.handsets.handset(ADA).send(OUR_NUMBER, "Hi"))
    await asyncio.sleep(0)
    network.clock.advance(1000)
    with pytest.raises(NotTaken):
        await sending


async def test_off_and_on(network):
    ada = network.handsets.handset(ADA)
    ada.off()
    await network.deliver(ADA, "lost")
    assert (network.sink.receipts[-1].state, network.sink.receipts[-1].error_code) == ("expired", 30003)
    assert not ada.inbox
    ada.fails(30006)
    await network.deliver(ADA, "lost")
    assert network.sink.receipts[-1].error_code == 30006
    ada.on()
    await network.deliver(ADA, "found")
    assert network.sink.receipts[-1].state == "delivered"
    assert (await ada.receives()).body == "found"
    with pytest.raises(ValueError, match="30003"):
        ada.fails(1)


async def test_bounds(network, monkeypatch):
    ada = network.handsets.handset(ADA)
    await network.deliver(ADA, *["x"] * (MAX_INBOX + 5))
    assert len(ada.inbox) == MAX_INBOX
    assert ada.inbox[-1].id == ada.received == MAX_INBOX + 5
    for number in range(MAX_HANDSETS - 1):
        network.handsets.handset(f"+1555{number:07}")
    with pytest.raises(OverflowError):
        network.handsets.handset(BOB)
    for number in range(MAX_HANDSETS + 5):
        await network.deliver(f"+1666{number:07}", "x")
    assert len(network.handsets._others) == MAX_HANDSETS


# -- from outside -----------------------------------------------------------------------------------------------


async def call(network, method: str, path: str, body: object = None, query: str = "", headers=JSON):
    content = orjson.dumps(body) if body is not None else b""
    status, _, answer = await network.simulator.handle(path, method, headers, query.encode(), content)
    return status, orjson.loads(answer)


async def test_reading_an_inbox(network):
    path = f"handsets/{ADA}/messages"
    assert await call(network, "GET", path) == (200, {"messages": []})
    await network.deliver(ADA, "one", "zwei €")
    status, answer = await call(network, "GET", f"handsets/%2B{ADA[1:]}/messages")
    assert status == 200
    assert [text["body"] for text in answer["messages"]] == ["one", "zwei €"]
    assert answer["messages"][0]["from"] == OUR_NUMBER
    status, answer = await call(network, "GET", path, query="after=1")
    assert [text["id"] for text in answer["messages"]] == [2]


async def test_waiting_for_a_message(network):
    waiting = asyncio.ensure_future(call(network, "GET", f"handsets/{ADA}/messages", query="after=0&wait_s=5"))
    await asyncio.sleep(0)
    await network.deliver(ADA, "here")
    status, answer = await waiting
    assert (status, answer["messages"][0]["body"]) == (200, "here")
    assert await call(network, "GET", f"handsets/{ADA}/messages", query="after=1&wait_s=0.01") == (
        200,
        {"messages": []},
    )


async def test_sending_and_behaving_from_outside(network):
    status, _ = await call(network, "POST", f"handsets/{ADA}/messages", {"to": OUR_NUMBER, "body": "Hi"})
    assert status == 201
    assert network.sink.parts[0].text == "Hi"
    assert (await call(network, "POST", f"handsets/{ADA}", {"fails": 30005, "replies": ["x"]}))[0] == 200
    await network.deliver(ADA, "lost")
    assert network.sink.receipts[-1].error_code == 30005


@pytest.mark.parametrize(
    ("method", "path", "body", "query", "status"),
    [
        ("GET", "", None, "", 404),
        ("GET", "handsets/abc/messages", None, "", 404),
        ("GET", "phones", None, "", 404),
        ("GET", f"handsets/{ADA}/other", None, "", 404),
        ("GET", f"handsets/{ADA}/messages", None, "after=x", 400),
        ("GET", f"handsets/{ADA}", None, "", 405),
        ("DELETE", f"handsets/{ADA}/messages", None, "", 405),
        ("POST", f"handsets/{ADA}/messages", {"to": "nobody"}, "", 400),
        ("POST", f"handsets/{ADA}/messages", {"body": "x"}, "", 400),
        ("POST", f"handsets/{ADA}/messages", {"to": OUR_NUMBER, "more": 1}, "", 400),
        ("POST", f"handsets/{ADA}", {"fails": 7}, "", 400),
        ("POST", f"handsets/{ADA}", {"replies": ["x"] * 101}, "", 400),
        ("POST", f"handsets/{ADA}/messages", {"to": OUR_NUMBER, "body": "x" * 70_000}, "", 413),
    ],
)
async def test_bad_requests(network, method, path, body, query, status):
    assert (await call(network, method, path, body, query))[0] == status


async def test_a_web_page_cannot_make_a_handset_send(network):
    body = {"to": OUR_NUMBER, "body": "x"}
    assert (await call(network, "POST", f"handsets/{ADA}/messages", body, headers={b"content-type": b"text/plain"}))[
        0
    ] == 415
    assert not network.sink.parts
