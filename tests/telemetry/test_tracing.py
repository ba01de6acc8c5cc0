"""Who is traced, and where spans wait."""

import time

from trunkline.model.message import Direction, Message
from trunkline.telemetry import tracing
from trunkline.telemetry.traceparent import build, parse
from trunkline.telemetry.tracing import NS_PER_S, Tracer

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = build(TRACE, SPAN)


def test_without_a_collector_what_was_given_is_passed_on_and_nothing_is_sampled() -> None:
    tracer = Tracer(exporting=False, sample=1.0)
    assert tracer.begin(GIVEN) == (GIVEN, "")
    assert tracer.begin("") == ("", "")
    assert tracer.begin("nonsense") == ("", "")
    tracer.span(GIVEN, "message accept", 0.1)
    assert not tracer.spans
    assert tracer.begun == 0


def test_a_sampled_parent_gets_a_child() -> None:
    tracer = Tracer(exporting=True, sample=0.0)
    ours, above = tracer.begin(GIVEN)
    parent = parse(ours)
    assert parent is not None
    assert (parent.trace_id, above) == (TRACE, SPAN)
    assert parent.span_id != SPAN
    unkept = build(TRACE, SPAN, sampled=False)
    assert tracer.begin(unkept) == (unkept, "")
    assert tracer.begin("") == ("", "")


def test_sampling_chooses_some() -> None:
    assert all(Tracer(exporting=True, sample=1.0).begin("")[0] for _ in range(20))
    tracer = Tracer(exporting=True, sample=0.5)
    chosen = sum(bool(tracer.begin("")[0]) for _ in range(400))
    assert 100 < chosen < 300
    assert tracer.begun == chosen
    replaced, _ = Tracer(exporting=True, sample=1.0).begin("malformed")
    assert parse(replaced) is not None


def test_a_span_says_when_and_of_what() -> None:
    tracer = Tracer(exporting=True)
    record = Message(
        sid="SM1", account_sid="AC1", direction=Direction.OUTBOUND_API, token="t", valid_until_ms=9, traceparent=GIVEN
    )
    before = time.time_ns()
    tracer.stage(record, "message accept", 2.0, False, root_of="aaaaaaaaaaaaaaaa")
    tracer.stage(record, "message submit", 0.5, True)
    accept, submit = tracer.spans
    assert (accept.trace_id, accept.span_id, accept.parent_id) == (TRACE, SPAN, "aaaaaaaaaaaaaaaa")
    assert accept.end_ns - accept.start_ns == 2 * NS_PER_S
    assert accept.end_ns >= before
    assert dict(accept.attributes) == {
        "trunkline.sid": "SM1", "trunkline.account": "AC1", "trunkline.origin": "outbound-api", "trunkline.token": "t",
        "trunkline.deadline_ms": 9,
    }  # fmt: skip
    assert (submit.parent_id, submit.failed, dict(submit.attributes)) == (SPAN, True, {"trunkline.sid": "SM1"})
    assert submit.span_id not in (SPAN, accept.span_id)


def test_the_queue_is_bounded_and_what_is_dropped_is_counted() -> None:
    tracer = Tracer(exporting=True)
    for _ in range(tracing.MAX_SPANS + 7):
        tracer.span(GIVEN, "x", 0.0)
    assert (len(tracer.spans), tracer.dropped) == (tracing.MAX_SPANS, 7)
