"""What a tally is good for."""

import pytest

from trunkline.learning.report import judge
from trunkline.learning.tally import MAX_TIMES, Cost, Count, Sample, Tally


def tally(**more: object) -> Tally:
    found = Tally(state="learning", work=200, **more)
    found.counts["route"] = Count(agree=200)
    for cost in (found.candidate, found.control):
        for _ in range(10):
            cost.add(2.0, 1.0)
    return found


def told(found: Tally, expected: str = "", minimum: int = 100) -> list[str]:
    return judge(found, minimum=minimum, expected=frozenset(filter(None, [expected]))).problems


def test_agreement_is_told_in_a_line() -> None:
    verdict = judge(tally(shed_by_node=3, shed_here=4), minimum=100, expected=frozenset())
    assert verdict.problems == []
    assert verdict.told == "agrees: 200 compared, route 200/200; 7 shed"


def test_too_little_shows_nothing() -> None:
    assert told(tally(), minimum=201) == ["200 pieces of work were compared, fewer than 201"]


def test_a_difference_counts_unless_it_is_meant() -> None:
    found = tally()
    found.counts["route"].disagree = 1
    assert told(found) == ["route: 1 of 201 differ"]
    assert told(found, "route") == []


def test_errors_and_ends_count() -> None:
    found = tally()
    found.candidate.errors, found.candidate.deaths = 2, 3
    assert told(found) == ["2 errors", "its process ended 3 times"]


def test_what_the_learner_cannot_follow_shows_nothing() -> None:
    found = tally()
    found.counts["pdu"] = Count(agree=96, unclear=4)
    assert told(found) == []
    found.counts["pdu"] = Count(agree=90, unclear=10)
    assert told(found) == ["pdu: 10 of 100 could not be followed"]


def test_what_it_costs_is_held_against_the_control() -> None:
    found = tally()
    found.candidate.cpu_ms *= 1.4
    assert told(found) == []
    found.candidate.cpu_ms *= 1.2
    assert told(found) == ["CPU 1.68 ms each, 1.00 of the control"]


@pytest.mark.parametrize("state", ["failed: no namespaces"])
def test_a_run_that_failed_shows_nothing(state: str) -> None:
    found = tally()
    found.state = state
    assert told(found) == ["the run has failed: no namespaces"]


def test_samples_and_times_are_bounded() -> None:
    found = Tally()
    for number in range(10):
        found.note("pdu", f"SM{number}", "a" * 10_000, ["b"], number, 3)
        found.note("route", f"SM{number}", ["a"], ["b"], number, 3)
    assert [(one.aspect, one.sid) for one in found.samples if one.aspect == "pdu"] == [
        ("pdu", "SM0"), ("pdu", "SM1"), ("pdu", "SM2"),
    ]  # fmt: skip
    assert len(found.samples[0].production) == 4000
    assert found.samples[1] == Sample("route", "SM0", '["a"]', '["b"]', 0)
    cost = Cost()
    for number in range(MAX_TIMES + 10):
        cost.add(float(number), 0.0)
    assert len(cost.times_ms) == MAX_TIMES
    assert cost.done == MAX_TIMES + 10
    assert cost.quantile(0.99) == 10 + MAX_TIMES * 0.99
