import heapq

import pytest

from trunkline.smpp.throttle import COOL_DOWN_S, DECREASE, INITIAL_RATE, RELEASE_AFTER_S, Pacer


class Smsc:
    """Takes `limit` messages/s with a token bucket of a tenth of a second."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.tokens = limit / 10
        self.at = 0.0

    def takes(self, now: float) -> bool:
        self.tokens = min(self.limit / 10, self.tokens + (now - self.at) * self.limit)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def run(smsc: Smsc, pacer: Pacer, start: float, seconds: float, demand: float) -> tuple[int, int]:
    """Accepted and refused messages of a sender with that much to send and answers after 5 ms."""
    now, accepted, refused = start, 0, 0
    answers: list[tuple[float, bool]] = []
    while now < start + seconds:
        while answers and answers[0][0] <= now:
            _, ok = heapq.heappop(answers)
            if ok:
                pacer.accepted(now)
                accepted += 1
            else:
                pacer.throttled(now)
                refused += 1
        if pacer.delay(now) <= 0:
            pacer.sent(now)
            heapq.heappush(answers, (now + 0.005, smsc.takes(now)))
        now += 1 / demand
    return accepted, refused


@pytest.mark.parametrize("limit", [20.0, 200.0, 1500.0])
def test_throughput_stays_near_the_limit_and_refusals_stay_few(limit: float) -> None:
    smsc, pacer = Smsc(limit), Pacer(0.0)
    run(smsc, pacer, 0.0, 10.0, 3 * limit)
    accepted, refused = run(smsc, pacer, 10.0, 30.0, 3 * limit)
    assert accepted > 0.85 * limit * 30
    assert refused < 0.05 * accepted


def test_a_higher_limit_is_found() -> None:
    smsc, pacer = Smsc(50.0), Pacer(0.0)
    run(smsc, pacer, 0.0, 10.0, 2000)
    smsc.limit = 1000.0
    run(smsc, pacer, 10.0, 15.0, 2000)
    accepted, _ = run(smsc, pacer, 25.0, 10.0, 2000)
    assert accepted > 0.8 * 1000 * 10


def test_nothing_is_paced_before_the_first_refusal() -> None:
    pacer = Pacer(0.0)
    for _ in range(1000):
        assert pacer.delay(0.0) == 0.0
        pacer.sent(0.0)
    assert pacer.rate is None


def test_the_first_refusal_without_a_measurement_starts_low() -> None:
    pacer = Pacer(0.0)
    pacer.throttled(0.0)
    assert pacer.rate == INITIAL_RATE
    assert pacer.delay(0.0) == pytest.approx(1 / INITIAL_RATE)


def test_the_pace_starts_below_the_rate_that_was_taken() -> None:
    pacer = Pacer(0.0)
    for n in range(101):
        pacer.accepted(n / 100)
    pacer.throttled(1.0)
    assert pacer.rate == pytest.approx(101 * DECREASE)


def test_refusals_of_one_burst_count_once() -> None:
    pacer = Pacer(0.0)
    for n in range(101):
        pacer.accepted(n / 100)
    pacer.throttled(1.0)
    before = pacer.rate
    for n in range(20):
        pacer.throttled(1.0 + n * COOL_DOWN_S / 21)
    assert pacer.rate == before


def test_the_pace_is_given_up_after_a_quiet_time() -> None:
    pacer = Pacer(0.0)
    pacer.throttled(0.0)
    pacer.sent(RELEASE_AFTER_S)
    assert pacer.rate is None
    assert pacer.delay(RELEASE_AFTER_S) == 0.0


def test_a_pause_is_not_caught_up_in_a_burst() -> None:
    pacer = Pacer(0.0)
    pacer.throttled(0.0)
    sent = 0
    while pacer.delay(3.0) <= 0:
        pacer.sent(3.0)
        sent += 1
    assert 1 <= sent <= 10


@pytest.mark.parametrize("limit", [200.0, 1500.0])
def test_a_refusal_in_the_first_moments_does_not_begin_from_nothing(limit: float) -> None:
    """A full window at once is refused before any rate can have been measured."""
    pacer = Pacer(0.0)
    for _ in range(int(limit / 10)):
        pacer.accepted(0.01)
    pacer.throttled(0.02)
    accepted, _ = run(Smsc(limit), pacer, 0.02, 3.0, 3 * limit)
    assert accepted > 0.7 * limit * 3
