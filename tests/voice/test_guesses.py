"""Guesses of a user's password, from one address and from many."""

from trunkline.testing.clock import ManualClock
from trunkline.voice.guesses import ELSEWHERE, MAX_USERS, Guesses


def made(most=3):
    clock = ManualClock()
    return clock, Guesses(most, 60, clock.monotonic)


def test_one_address_has_so_many_guesses_in_a_window():
    clock, guesses = made()
    for _ in range(3):
        assert not guesses.exhausted("ada", "192.0.2.1")
        guesses.wrong("ada", "192.0.2.1")
    assert guesses.exhausted("ada", "192.0.2.1")
    assert not guesses.exhausted("ada", "192.0.2.2")
    assert not guesses.exhausted("bob", "192.0.2.1")
    clock.advance(61)
    assert not guesses.exhausted("ada", "192.0.2.1")


def test_many_addresses_share_a_limit_which_does_not_hold_for_her_own():
    _, guesses = made()
    guesses.right("ada", "198.51.100.4")
    for number in range(3 * ELSEWHERE):
        guesses.wrong("ada", f"192.0.2.{number}")
    assert guesses.exhausted("ada", "203.0.113.9")
    assert not guesses.exhausted("ada", "198.51.100.4")


def test_a_right_login_begins_anew():
    _, guesses = made()
    for _ in range(2):
        guesses.wrong("ada", "192.0.2.1")
    guesses.right("ada", "192.0.2.1")
    for _ in range(2):
        guesses.wrong("ada", "192.0.2.1")
    assert not guesses.exhausted("ada", "192.0.2.1")


def test_without_a_limit():
    _, guesses = made(0)
    for _ in range(1000):
        guesses.wrong("ada", "192.0.2.1")
    assert not guesses.exhausted("ada", "192.0.2.1")


def test_what_is_remembered_is_bounded():
    _, guesses = made()
    for number in range(2 * MAX_USERS):
        guesses.wrong(f"user{number}" + "x" * 1000, "192.0.2.1")
        guesses.right(f"user{number}", "192.0.2.1")
    assert len(guesses._wrong) <= 2 * MAX_USERS
    assert len(guesses._right) <= MAX_USERS
    assert max(len(user) for user, _ in guesses._wrong) <= 128
