"""Stages by the status that a flight leaves."""

from types import SimpleNamespace
from typing import Any

import pytest

from trunkline.model import call, message
from trunkline.telemetry import stages
from trunkline.telemetry.stages import BOUNDS_S, Line, Stage, of_calls, of_messages


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [100.0]
    monkeypatch.setattr(stages, "monotonic", lambda: time[0])
    return time


def record(**changes: Any) -> message.Message:
    return message.Message(sid="SM1", account_sid="AC1", direction=message.Direction.OUTBOUND_API, **changes)


def flight() -> Any:
    return SimpleNamespace(stage=None, since=0.0)


def test_every_status_stands_in_a_stage() -> None:
    messages, calls = of_messages(), of_calls()
    outside = {message.Status.SCHEDULED, message.Status.RECEIVING}
    for line, statuses in ((messages, set(message.Status) - outside), (calls, set(call.Status))):
        for status in statuses:
            one = flight()
            line.take_up(one, status, 0.0)
            assert one.stage is not None, status


def test_a_message_from_acceptance_to_its_receipt(now: list[float]) -> None:
    line, one, own = of_messages(), flight(), record(created_ms=1000)
    assert line.begin(one, own) == ""
    now[0] += 0.004
    line.accepted(one, own, "queued", 1004, "", False)
    now[0] += 2.0
    line.hand_over(one, own, "sending", 3004)
    now[0] += 0.03
    line.hand_over(one, own, "sent", 3034)
    now[0] += 20
    line.hand_over(one, own, "delivered", 23034)
    assert own.stages == {"accept": 4, "lane": 2004, "submit": 2034, "receipt": 22034}
    assert one.stage is line.stages["archive"]
    for name, seconds in (("accept", 0.004), ("lane", 2.0), ("submit", 0.03), ("receipt", 20.0)):
        stage = line.stages[name]
        assert (stage.count, stage.errors) == (1, 0)
        assert stage.sum_s == pytest.approx(seconds)
        at = stage.buckets.index(1)
        assert (BOUNDS_S[at - 1] if at else 0) < seconds <= BOUNDS_S[at]


def test_errors_belong_to_the_stage_that_is_left(now: list[float]) -> None:
    line, one, own = of_messages(), flight(), record()
    line.take_up(one, "sending", 0.0)
    line.hand_over(one, own, "queued", 0, True)  # not taken: once more
    line.hand_over(one, own, "sending", 0)
    line.hand_over(one, own, "failed", 0)
    assert (line.stages["submit"].count, line.stages["submit"].errors) == (2, 2)
    assert line.stages["lane"].errors == 0
    line.take_up(one, "sent", 0.0)
    line.hand_over(one, own, "undelivered", 0)
    assert line.stages["receipt"].errors == 1


def test_a_late_receipt_is_no_hand_over(now: list[float]) -> None:
    line, one, own = of_messages(), flight(), record()
    line.take_up(one, "undelivered", 0.0)
    line.hand_over(one, own, "delivered", 0)
    assert all(stage.count == 0 for stage in line.stages.values())


def test_what_was_read_from_the_store_has_stood_since_then(now: list[float]) -> None:
    line, one = of_messages(), flight()
    line.take_up(one, "sent", 30.0)
    line.hand_over(one, record(), "delivered", 0)
    assert line.stages["receipt"].sum_s == pytest.approx(30.0)


def test_work_that_moves_on_before_it_is_stored_is_accepted_once(now: list[float]) -> None:
    line, one, own = of_calls(), flight(), record()
    line.begin(one, own)
    line.hand_over(one, own, "no-answer", 5)
    line.accepted(one, own, "no-answer", 9, "", False)
    assert line.stages["accept"].count == 1
    assert one.stage is line.stages["archive"]


def test_a_write_that_fails_is_an_error_of_the_acceptance(now: list[float]) -> None:
    line, one, own = of_messages(), flight(), record()
    line.begin(one, own)
    line.accepted(one, own, "queued", 0, "", True)
    assert (line.stages["accept"].count, line.stages["accept"].errors) == (1, 1)


def test_the_longest_time_has_a_bucket_of_its_own() -> None:
    stage = Stage("x", "y")
    stage.left(BOUNDS_S[0])
    stage.left(BOUNDS_S[-1] + 1)
    stage.waited(0.002)
    assert (stage.buckets[0], stage.buckets[-1], len(stage.buckets)) == (1, 1, len(BOUNDS_S) + 1)
    assert (stage.wait_buckets[1], stage.wait_s) == (1, 0.002)


def test_stages_by_name_and_who_stands_where() -> None:
    line = Line("callback")
    assert line.of_kind("status") is line.of_kind("status")
    one, two, three = flight(), flight(), flight()
    one.stage = two.stage = line.of_kind("status")
    assert stages.standing([one, two, three]) == {"status": 2}
