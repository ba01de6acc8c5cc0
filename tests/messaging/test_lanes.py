"""Turns of lanes, and the rate that an account's lanes share."""

from types import SimpleNamespace

import pytest

from trunkline.messaging.lanes import BURST_S, Lane, Pace, Rotation, lane_name


def lane(account, sender, pace, waiting=100, connector="one"):
    made = Lane(lane_name(connector, account, sender), 0.0, pace)
    made.head.extend(SimpleNamespace(id=n) for n in range(waiting))
    return made


def sent(rotations, until, step=0.001):
    """(time, lane) of every message, when each connector takes whatever its turn gives."""
    taken = []
    for tick in range(int(until / step)):
        now = 100.0 + tick * step
        for rotation in rotations:
            while found := rotation.next_ready(now):
                found.head.popleft()
                found.spend(1, now)
                taken.append((now, found))
                rotation.offer(found, now)
    return taken


def offered(*lanes):
    rotation = Rotation()
    for each in lanes:
        rotation.offer(each, 100.0)
    return rotation


def test_lanes_of_an_account_share_its_rate_and_take_turns():
    pace = Pace(10.0)
    lanes = [lane("a", f"s{n}", pace) for n in range(5)]
    taken = sent([offered(*lanes)], 2.0)
    assert 18 <= len(taken) <= 21  # ten a second
    counts = [sum(one is each for _, one in taken) for each in lanes]
    assert max(counts) - min(counts) <= 1


def test_an_account_without_a_limit_is_not_held_up():
    slow, free = lane("a", "s", Pace(1.0)), lane("b", "s", Pace(), waiting=50)
    taken = sent([offered(slow, free)], 0.1)
    assert [one for _, one in taken].count(free) == 50
    assert [one for _, one in taken].count(slow) == 1


def test_connectors_share_the_accounts_rate():
    pace = Pace(50.0)
    one, two = lane("a", "s", pace, 1000), lane("a", "s", pace, 1000, "two")
    taken = sent([offered(one), offered(two)], 4.0)
    assert 195 <= len(taken) <= 203
    assert min([each for _, each in taken].count(x) for x in (one, two)) >= 40


def test_nothing_new_skips_lanes_that_wait_for_the_account():
    pace = Pace(10.0)
    rotation, fresh = offered(lane("a", "s", pace)), lane("a", "new", pace, waiting=0)
    assert fresh.may_skip(100.0)
    found = rotation.next_ready(100.0)
    found.spend(1, 100.0)
    rotation.offer(found, 100.0)
    assert not fresh.may_skip(100.0), "the rate is used up"
    assert rotation.next_ready(100.0) is None
    assert not fresh.may_skip(100.0 + 0.1 + BURST_S), "others wait for it"
    assert rotation.next_time() == pytest.approx(100.09, abs=0.015 + BURST_S)
    assert rotation.next_ready(100.1 + BURST_S) is found


def test_a_lane_offered_while_its_account_rests_waits_with_the_others():
    pace = Pace(10.0)
    first, second = lane("a", "s1", pace), lane("a", "s2", pace)
    rotation = offered(first)
    first.spend(1, 100.0)
    assert rotation.next_ready(100.0) is None
    rotation.offer(second, 100.0)
    assert rotation.next_ready(100.0) is None
    assert rotation.is_idle
    assert rotation.next_ready(100.2) is first
    assert rotation.next_ready(100.2) is second
    assert pace.paused == 0
