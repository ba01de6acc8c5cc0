"""Messages that are followed: the real pipeline, a sink for a carrier, the outcomes that production had."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trunkline.learning import views
from trunkline.learning.keeper import _production, _refusals
from trunkline.learning.messages import Messages, SetClock
from trunkline.learning.sink import Sink, knows
from trunkline.learning.wire import Step, Submit, Work
from trunkline.messaging.connectors.smpp import SmppConnector
from trunkline.messaging.connectors.table import Context
from trunkline.messaging.routing import Router
from trunkline.model.message import Attempt, Direction, Message, SegmentState, encode
from trunkline.settings import Route, Settings, Smpp
from trunkline.storage.engines.sqlite.queue import SqliteQueue

CREATED = 1_700_000_000_000
LIMIT_S = 30.0


class World:
    """A learner with two carriers, shut in with its sinks."""

    def __init__(
        self, queue: SqliteQueue, sinks: dict[str, Sink], connectors: dict[str, Any], messages: Messages
    ) -> None:
        self.queue, self.sinks, self.connectors, self.messages = queue, sinks, connectors, messages

    async def follow(self, item: Step, submitted_ms: int = 0) -> dict[str, Any] | None:
        for name, sink in self.sinks.items():
            sink.expect((_refusals(Work(item)) or {}).get(name, ()))
        return await asyncio.wait_for(self.messages.follow(item, submitted_ms), LIMIT_S)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    sinks = {name: Sink() for name in ("first", "second")}
    for sink in sinks.values():
        await sink.start()
    own = tuple(Smpp(name=name, host="127.0.0.1", port=sink.port, system_id="learner") for name, sink in sinks.items())
    routes = (
        Route(name="first", connector="first", priority=2), Route(name="second", connector="second", priority=1),
    )  # fmt: skip
    settings = Settings(connectors=own, routes=routes)
    quick = msgspec.structs.replace(settings.messaging, long_code_mps=0, retry_first_s=0.001, retry_longest_s=0.001)
    settings = msgspec.structs.replace(settings, messaging=quick)
    clock = SetClock()
    connectors = {one.name: SmppConnector(one, Context(clock=clock)) for one in own}
    queue = SqliteQueue(tmp_path / "queue.sqlite", own=True)
    messages = Messages(settings, connectors, queue, clock, Router(routes, (), list(connectors)))
    messages.start()
    async with asyncio.timeout(LIMIT_S):
        while not messages.ready:
            await asyncio.sleep(0.01)
    yield World(queue, sinks, connectors, messages)
    for connector in connectors.values():
        await connector.stop(0.1)
    for sink in sinks.values():
        sink.close()
    await queue.close()


def step(status: str = "sent", **more: Any) -> Step:
    given: dict[str, Any] = {
        "sid": "SM" + "0" * 31 + "7", "account_sid": "AC" + "1" * 32, "direction": Direction.OUTBOUND_API,
        "from_": "+12025550100", "to": "+12025550101", "body": "hello €", "created_ms": CREATED,
        "valid_until_ms": CREATED + 60_000, "status_callback": "http://app.example/status", "connector": "first",
        "route": "first", "segments": [SegmentState("77")],
    }  # fmt: skip
    bound, avoid = more.pop("bound", ""), more.pop("avoid", [])
    return Step(given["sid"], status, encode(Message(**{**given, **more})), [], bound, avoid)


async def test_a_message_goes_through_the_whole_pipeline(world: World) -> None:
    found = await world.follow(step())
    assert found is not None
    assert found[views.ROUTE] == ["first", "first"]
    assert found[views.SEGMENTS] == [1, "gsm7"]
    assert found[views.STATUS] == ["sent", 0]
    ((name, status),) = [one for one in found[views.CALLBACKS][0]["params"] if one[0] == "MessageStatus"]
    assert (name, status) == ("MessageStatus", "sent")
    (pdu,) = world.sinks["first"].taken
    assert b"hello \x1be" in pdu
    assert b"231114221420000+" in pdu  # the validity counts from production's time


async def test_receipts_follow(world: World) -> None:
    await world.follow(step())
    found = await world.follow(
        step("undelivered", segments=[SegmentState("77", "undeliverable", "5")], error_code=30005)
    )
    assert found is not None
    assert found[views.STATUS] == ["undelivered", 30005]
    assert ["MessageStatus", "undelivered"] in found[views.CALLBACKS][0]["params"]


async def test_a_receipt_of_a_message_that_was_not_followed_tells_nothing(world: World) -> None:
    assert await world.follow(step("delivered", segments=[SegmentState("77", "delivered")])) is None


async def test_a_refusal_is_given_again_and_another_route_taken(world: World) -> None:
    tried = [Attempt(CREATED, "first", "+12025550100", "rejected", "ESME_RINVSRCADR")]
    found = await world.follow(step(tried=tried, connector="second", route="second"))
    assert found is not None
    assert found[views.ROUTE] == ["second", "second"]
    assert [len(sink.taken) for sink in world.sinks.values()] == [1, 1]


async def test_a_number_that_is_bound_and_a_carrier_that_is_down_decide(world: World) -> None:
    found = await world.follow(step(bound="second"))
    assert found is not None
    assert found[views.ROUTE] == ["second", "second"]
    down = await world.follow(step(sid="SM" + "0" * 31 + "8", avoid=["first"]))
    assert down is not None
    assert down[views.ROUTE] == ["second", "second"]


def test_what_carriers_have_said_is_found_in_the_record() -> None:
    def of(status: str = "sent", *tried: Attempt) -> dict[str, list[str]] | None:
        return _refusals(Work(step(status, tried=list(tried))))

    throttled = Attempt(1, "first", "", "unavailable", "ESME_RMSGQFUL")
    assert knows("ESME_RMSGQFUL")
    assert of() == {}
    assert of("sent", throttled, throttled) == {"first": ["ESME_RMSGQFUL"] * 2}
    assert of("sent", Attempt(1, "first", "", "in-doubt", "lost")) is None
    assert of("sent", Attempt(1, "first", "", "unavailable", "no bind is up")) is None
    assert of("failed") is None


def test_sequence_numbers_and_the_order_of_segments_do_not_count() -> None:
    one, two = bytes(12) + b"\0\0\0\1" + b"one", bytes(12) + b"\0\0\0\2" + b"two"
    submits = [Submit("SM7", "first", 5, [one, two])]
    told = _production(Work(step(), submits))
    assert told[views.PDU] == {"first": sorted(views.pdus([two, one]))}
    assert views.pdus([one]) == views.pdus([bytes(16) + b"one"])
