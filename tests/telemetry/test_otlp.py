"""Export by OTLP/HTTP with JSON: what a collector gets, and what becomes of spans that it does not take."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from trunkline.telemetry import otlp
from trunkline.telemetry.otlp import MAX_BATCH, Exporter
from trunkline.telemetry.traceparent import build
from trunkline.telemetry.tracing import CLIENT, Tracer

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = build(TRACE, SPAN)


class Answers:
    """A collector that answers in this order, the last for ever."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)
        self.bodies: list[bytes] = []

    async def post(self, body: bytes) -> int:
        self.bodies.append(body)
        return self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "RETRY_S", 0.0)


def spans(tracer: Tracer, count: int) -> None:
    for number in range(count):
        tracer.span(GIVEN, f"stage {number}", 0.25)


def counts(bodies: Sequence[bytes]) -> list[int]:
    return [len(json.loads(body)["resourceSpans"][0]["scopeSpans"][0]["spans"]) for body in bodies]


async def test_the_request_is_as_the_protocol_has_it() -> None:
    tracer, answers = Tracer(exporting=True), Answers(200)
    tracer.span(
        GIVEN, "callback status", 0.5, failed=True, own_id="00000000000000aa", kind=CLIENT,
        attributes=(("trunkline.sid", "SM1"), ("trunkline.try", 2)),
    )  # fmt: skip
    tracer.span(GIVEN, "message accept", 0.5, root_of="")
    exporter = Exporter(tracer, answers.post, {"service.name": "trunkline"}, 1.0)
    await exporter.flush()
    (body,) = answers.bodies
    (resource,) = json.loads(body)["resourceSpans"]
    assert resource["resource"]["attributes"] == [{"key": "service.name", "value": {"stringValue": "trunkline"}}]
    (scope,) = resource["scopeSpans"]
    callback, accept = scope["spans"]
    took = int(callback["endTimeUnixNano"]) - int(callback["startTimeUnixNano"])
    assert took == 500_000_000
    del callback["endTimeUnixNano"], callback["startTimeUnixNano"]
    assert callback == {
        "traceId": TRACE, "spanId": "00000000000000aa", "parentSpanId": SPAN, "name": "callback status", "kind": 3,
        "status": {"code": 2},
        "attributes": [
            {"key": "trunkline.sid", "value": {"stringValue": "SM1"}},
            {"key": "trunkline.try", "value": {"intValue": "2"}},
        ],
    }  # fmt: skip
    assert (accept["spanId"], "parentSpanId" in accept, "status" in accept) == (SPAN, False, False)
    assert (exporter.exported, tracer.dropped) == (2, 0)


async def test_batches_are_bounded() -> None:
    tracer, answers = Tracer(exporting=True), Answers(200)
    spans(tracer, MAX_BATCH + 3)
    await Exporter(tracer, answers.post, {}, 1.0).flush()
    assert counts(answers.bodies) == [MAX_BATCH, 3]
    assert not tracer.spans


@pytest.mark.parametrize("status", [0, 429, 503])
async def test_a_collector_that_is_busy_is_asked_again(status: int) -> None:
    tracer, answers = Tracer(exporting=True), Answers(status, 200)
    spans(tracer, 2)
    exporter = Exporter(tracer, answers.post, {}, 1.0)
    await exporter.flush()
    assert counts(answers.bodies) == [2, 2]
    assert (exporter.exported, tracer.dropped) == (2, 0)


async def test_a_stop_between_two_tries_is_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "RETRY_S", 3600.0)
    tracer, answers = Tracer(exporting=True), Answers(503)
    spans(tracer, 3)
    task = asyncio.ensure_future(Exporter(tracer, answers.post, {}, 1.0).flush())
    async with asyncio.timeout(20):
        while not answers.bodies:
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (tracer.dropped, len(tracer.spans)) == (3, 0)


@pytest.mark.parametrize(("status", "requests"), [(0, 3), (400, 1)])
async def test_what_it_will_not_take_is_dropped_and_counted(status: int, requests: int) -> None:
    tracer, answers = Tracer(exporting=True), Answers(status)
    spans(tracer, 5)
    exporter = Exporter(tracer, answers.post, {}, 1.0)
    await exporter.flush()
    assert len(answers.bodies) == requests
    assert (exporter.exported, tracer.dropped, len(tracer.spans)) == (0, 5, 0)
