"""How many calls may start a second, and run at once."""

import pytest

from trunkline.voice import limits
from trunkline.voice.limits import AccountLimits, CallLimit, Pace


def test_a_pace_lets_a_seconds_worth_start_and_then_one_by_one():
    pace = Pace(4, 0.0)
    assert [pace.take(0.0) for _ in range(5)] == [True] * 4 + [False]
    assert pace.wait_s(0.0) == 0.25
    assert not pace.take(0.2)
    assert pace.take(0.25)
    assert sum(pace.take(100.0) for _ in range(10)) == 4, "a long pause is worth no more"


@pytest.mark.parametrize("rate", [1, 0.5])
def test_a_slow_pace_starts_with_one(rate):
    pace = Pace(rate, 0.0)
    assert [pace.take(0.0), pace.take(0.0)] == [True, False]
    assert pace.wait_s(0.0) == 1 / rate


def test_no_rate_is_no_limit():
    pace = Pace(0, 0.0)
    assert all(pace.take(0.0) for _ in range(1000))
    assert pace.wait_s(0.0) == 0


def test_as_many_as_may_be_at_once():
    limit = CallLimit(0, 2, 0.0)
    assert [limit.begin(0.0), limit.join(), limit.begin(0.0), limit.join()] == [True, True, False, False]
    limit.end()
    assert (limit.full, limit.begin(0.0), limit.running) == (False, True, 2)


def test_a_child_leg_waits_for_no_pace():
    limit = CallLimit(1, 0, 0.0)
    assert limit.begin(0.0)
    assert [limit.begin(0.0), limit.join()] == [False, True]


def test_a_refused_start_takes_nothing_of_the_pace():
    limit = CallLimit(1, 1, 0.0)
    assert limit.join()
    assert not limit.begin(0.0)
    limit.end()
    assert limit.begin(0.0)


def test_idle_accounts_are_forgotten_and_busy_ones_are_not(monkeypatch):
    monkeypatch.setattr(limits, "MAX_IDLE", 3)
    now = [0.0]
    accounts = AccountLimits(1, 0, lambda: now[0])
    busy, waiting = accounts.of("busy"), accounts.of("waiting")
    assert busy.join()
    assert waiting.begin(0.0)
    waiting.end()
    accounts.of("idle")
    accounts.of("new")
    assert accounts.of("busy") is busy
    assert accounts.of("waiting") is waiting, "its pace is not full again"
    now[0] = 10.0
    assert accounts.of("another") is not waiting
    assert accounts.of("waiting") is not waiting
