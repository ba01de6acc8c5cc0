"""Verdicts find what they look for."""

from lab.ledgers import Request, Told
from lab.verdict import gap, good, messages


def request(key: str, *, kind: str = "raw", sid: str = "SM1", began: float = 1.0, took: float = 0.5) -> Request:
    outcome = "201" if sid else "503"
    return Request(kind, key, began, began + took, outcome, sid, 1)


def told(*statuses: str, sid: str = "SM1") -> list[Told]:
    return [Told(2.0, status, sid) for status in statuses]


def test_all_is_well() -> None:
    found = messages([request("a")], {"a": 1}, {"a": told("sent", "delivered")})
    assert good(found)
    assert (found.accepted, found.lost, found.duplicates, found.failed) == (1, 0, 0, {})
    assert found.slowest_s == 0.5


def test_what_the_carrier_never_had_is_lost() -> None:
    found = messages([request("a"), request("b")], {"a": 1}, {"a": told("delivered"), "b": told("delivered")})
    assert found.lost == 1
    assert not good(found)


def test_what_was_refused_is_not_lost_but_failed() -> None:
    found = messages([request("a", sid=""), request("b", sid="", kind="sdk")], {}, {})
    assert (found.lost, found.callbacks_lost, found.failed) == (0, 0, {"raw": 1, "sdk": 1})
    assert good(found)


def test_a_callback_that_never_came() -> None:
    found = messages([request("a")], {"a": 1}, {"a": told("sent")})
    assert found.callbacks_lost == 1
    assert not good(found)


def test_a_final_callback_that_contradicts() -> None:
    assert messages([request("a")], {"a": 1}, {"a": told("failed")}).wrong_final == 1
    assert messages([request("a")], {"a": 1}, {"a": told("delivered", "failed")}).wrong_final == 1
    assert messages([request("a")], {"a": 1}, {"a": told("delivered", "delivered")}).repeated_callbacks == 1


def test_duplicates_are_the_carriers_word_and_their_marks_ours() -> None:
    both = [request("a", sid="SM1"), request("b", sid="SM2")]
    calls = {"a": told("delivered"), "b": told("delivered", sid="SM2")}
    found = messages(both, {"a": 2, "b": 3}, calls, lambda sid: sid == "SM1")
    assert (found.duplicates, found.unmarked) == (3, 1)
    assert not good(found)
    assert good(messages(both, {"a": 2, "b": 3}, calls, lambda _: True))
    assert messages(both, {"a": 2, "b": 3}, calls).unmarked == -1


def test_a_doubled_message_whose_answer_was_lost_is_known_by_its_callback() -> None:
    found = messages([request("a", sid="")], {"a": 2}, {"a": told("delivered", sid="SM9")}, lambda sid: sid == "SM9")
    assert (found.duplicates, found.unmarked, found.lost) == (1, 0, 0)


def test_a_key_that_made_two_messages() -> None:
    calls = {"a": told("delivered") + told("delivered", sid="SM2")}
    found = messages([request("a", kind="keyed")], {"a": 2}, calls, lambda _: True)
    assert found.twice == 1
    assert not good(found)


def test_the_longest_gap() -> None:
    assert gap([5.0, 1.0, 2.5]) == 2.5
    assert gap([]) == gap([1.0]) == 0.0
