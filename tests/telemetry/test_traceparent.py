"""W3C Trace Context, https://www.w3.org/TR/trace-context/#traceparent-header."""

import pytest

from trunkline.telemetry import traceparent
from trunkline.telemetry.traceparent import Parent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_the_example_of_the_specification() -> None:
    assert traceparent.parse(f"00-{TRACE}-{SPAN}-01") == Parent(TRACE, SPAN, 1)
    assert Parent(TRACE, SPAN, 1).sampled
    assert not Parent(TRACE, SPAN, 0).sampled
    assert traceparent.build(TRACE, SPAN) == f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    "text",
    [
        "", "00", f"00-{TRACE}-{SPAN}", f"ff-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01-more", f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE.upper()}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"01-{TRACE}-{SPAN}-01-{'x' * 600}",
    ],
)  # fmt: skip
def test_what_is_malformed_is_no_parent(text: str) -> None:
    assert traceparent.parse(text) is None


def test_a_later_version_is_read_as_this_one() -> None:
    assert traceparent.parse(f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like") == Parent(TRACE, SPAN, 1)


def test_new_ids_are_well_formed_and_differ() -> None:
    made = [traceparent.build(traceparent.new_trace(), traceparent.new_span()) for _ in range(50)]
    assert len(set(made)) == 50
    assert all(traceparent.parse(one) is not None for one in made)


def test_each_attempt_at_a_callback_has_a_span_of_its_own() -> None:
    given = traceparent.build(TRACE, SPAN)
    ids = {traceparent.of_attempt(given, owed, tries) for owed in (7, 8, 1 << 62) for tries in range(5)}
    assert len(ids) == 15
    for one in ids:
        parent = traceparent.parse(one)
        assert parent is not None
        assert (parent.trace_id, parent.sampled) == (TRACE, True)
    assert traceparent.of_attempt(given, 7, 0).split("-")[2] == traceparent.attempt_span(7, 0)


def test_what_nobody_keeps_is_passed_on_as_it_is() -> None:
    unkept = traceparent.build(TRACE, SPAN, sampled=False)
    assert traceparent.of_attempt(unkept, 7, 0) == unkept
    assert traceparent.of_attempt("nonsense", 7, 0) == ""
