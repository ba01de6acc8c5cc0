import pytest

from trunkline.cluster import votes
from trunkline.cluster.votes import Answer, Ask, Promises

TTL = 1000
A5 = Ask("a", 1, 5)


@pytest.mark.parametrize("peers", range(1, 64))
def test_whoever_takes_over_has_asked_one_of_those_who_held(peers: int) -> None:
    assert votes.hold_quorum(peers) + votes.takeover_quorum(peers) > peers
    assert 1 <= votes.takeover_quorum(peers) <= peers
    assert 1 <= votes.hold_quorum(peers) <= peers


def test_three_nodes_go_on_when_one_dies_with_the_store() -> None:
    assert votes.hold_quorum(2) == 1


def test_a_promise_stands_against_a_takeover_for_one_lease() -> None:
    promises = Promises(TTL)
    assert promises.hold(A5, 10_000)
    assert not promises.consent(A5, 10_999)
    assert promises.consent(A5, 11_000)


def test_who_has_consented_promises_no_more_until_a_later_renewal_is_shown() -> None:
    promises = Promises(TTL)
    assert promises.consent(A5, 10_000)
    assert not promises.hold(A5, 10_001)
    assert not promises.hold(Ask("a", 1, 4), 10_001)
    assert promises.hold(Ask("a", 1, 6), 10_001)
    assert promises.hold(Ask("b", 1, 1), 10_001)


def test_a_new_life_is_promised_whatever_was_said_of_the_former() -> None:
    promises = Promises(TTL)
    promises.consent(A5, 10_000)
    assert promises.hold(Ask("a", 2, 0), 10_001)


def test_a_life_that_is_over_is_promised_nothing_and_its_promises_run_out() -> None:
    promises = Promises(TTL)
    promises.gone("a", 1, 10_000)
    promises.gone("a", 1, 20_000)
    assert not promises.hold(Ask("a", 1, 9), 10_001)
    assert not promises.spent("a", 1, 11_099)
    assert promises.spent("a", 1, 11_100)
    assert not promises.spent("b", 1, 99_999)
    promises.alive({"a": 1})
    assert not promises.spent("a", 1, 99_999)


def test_strangers_names_take_no_memory() -> None:
    promises = Promises(TTL)
    for number in range(3 * votes.MAX_KNOWN):
        promises.hold(Ask(f"n{number}", 1, 1), 10_000)
        promises.consent(Ask(f"m{number}", 1, 1), 10_000)
        promises.gone(f"g{number}", 1, 10_000)
    assert len(promises._held) == len(promises._consented) == len(promises._gone) == votes.MAX_KNOWN
    assert promises.hold(Ask("later", 1, 1), 20_000), "old ones have run out"


def test_only_votes_of_the_named_lives_count() -> None:
    view = {"b": 1, "c": 2}
    assert votes.enough_to_hold([view], {"b": 1})
    assert not votes.enough_to_hold([view], {"b": 2, "x": 1})
    assert not votes.enough_to_hold([view, {"d": 1}], {"b": 1, "c": 2})
    assert votes.enough_to_take_over(view, {"b": 1, "c": 2})
    assert not votes.enough_to_take_over(view, {"b": 1, "c": 1})
    assert votes.held_by_all([view], {"b": 1, "c": 2})
    assert not votes.held_by_all([view], {"b": 1})


def test_a_node_without_peers_is_held_by_nobody_for_long_and_taken_over_without_votes_never() -> None:
    assert votes.enough_to_hold([{}], {})
    assert not votes.held_by_all([{}], {})
    assert not votes.enough_to_take_over({}, {})


def test_what_cannot_be_read_grants_nothing() -> None:
    assert votes.read_answer(votes.encode(Answer(True, 7))) == Answer(True, 7)
    assert votes.read_answer(b"\xc1rubbish") == Answer(False, 0)
