"""The gate's three limits."""

from trunkline.messaging.connectors.gate import FIRST_PAUSE_S, LONGEST_PAUSE_S, TOLERATED, Gate


def test_window():
    gate = Gate(3, 0, 0.0)
    for _ in range(3):
        gate.took(5, 0.0)
    assert gate.room(0.0) == 0
    assert gate.wait_s(0.0) == 0, "time alone does not help"
    gate.answered()
    assert gate.room(0.0) == 1


def test_pace_over_a_long_time():
    gate, taken, now = Gate(1000, 50, 0.0), 0, 0.0
    while now < 10:
        for _ in range(gate.room(now)):
            gate.took(1, now)
            gate.answered()
            taken += 1
        now += max(gate.wait_s(now), 0.0001)
    assert 495 <= taken <= 510


def test_a_slow_pace_takes_one_at_a_time():
    gate = Gate(10, 0.5, 0.0)
    assert gate.room(0.0) == 1
    gate.took(1, 0.0)
    gate.answered()
    assert gate.room(1.9) == 0
    assert gate.room(2.0) == 1
    assert gate.room(100.0) == 1, "silence saves nothing up"


def test_certain_trouble_closes_at_once_and_longer_each_time():
    gate = Gate(10, 0, 0.0)
    assert gate.bad(0.0, certain=True) == FIRST_PAUSE_S
    assert gate.room(0.5) == 0
    assert gate.wait_s(0.25) == FIRST_PAUSE_S - 0.25
    assert gate.bad(0.5, certain=True) == 0.5, "those under way do not prolong it"
    assert gate.room(1.0) == 1, "a probe"
    gate.took(1, 1.0)
    assert gate.room(1.0) == 0
    gate.answered()
    assert gate.bad(1.0, certain=True) == 2 * FIRST_PAUSE_S
    now = 3.0
    for _ in range(40):
        pause = gate.bad(now, certain=True)
        now += pause
    assert pause == LONGEST_PAUSE_S
    gate.good()
    assert gate.room(now) == 10


def test_uncertain_trouble_is_tolerated_for_a_while():
    gate = Gate(10, 0, 0.0)
    for _ in range(TOLERATED - 1):
        assert gate.bad(0.0, certain=False) == 0
    assert gate.room(0.0) == 10
    assert gate.bad(0.0, certain=False) > 0
    assert gate.room(0.0) == 0


def test_patience_is_no_failure():
    gate = Gate(10, 0, 0.0)
    gate.pause(5, 0.0)
    assert gate.room(4.9) == 0
    assert gate.room(5.0) == 10
    gate.pause(1e9, 5.0)
    assert gate.room(5.0 + LONGEST_PAUSE_S) == 10
