"""What waits to be written, and what would be written again: order, bounds, ownership. No server."""

import pytest

from trunkline.storage.engines.valkey import posts as module
from trunkline.storage.engines.valkey.posts import Posts
from trunkline.storage.memory import MAX_VALUE_BYTES, ValueTooLarge


class Time:
    ms = 1000

    def __call__(self):
        return self.ms


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def posts(time):
    return Posts(time)


def values(batch):
    return [(key, change.value) for key, change in batch]


def drained(posts):
    found = []
    while not posts.idle:
        found += values(posts.take())
        posts.done()
    return found


def test_the_latest_value_of_each_key_in_the_order_of_posting(posts):
    posts.post([("a", b"1"), ("b", b"2")], 0)
    posts.post([("c", b"3"), ("a", b"4"), ("b", None)], 0)
    assert values(posts.take()) == [("a", b"4"), ("b", None), ("c", b"3")]
    posts.done()
    assert posts.idle


def test_a_batch_that_failed_goes_first_again_but_never_over_what_is_newer(posts):
    posts.post([("a", b"1"), ("b", b"1")], 0)
    posts.take()
    posts.post([("c", b"2"), ("a", b"2")], 0)
    posts.failed()
    assert drained(posts) == [("a", b"2"), ("b", b"1"), ("c", b"2")]


def test_written_counts_up_only_over_what_has_no_gap(posts):
    posts.post([("a", b"1")], 0)
    posts.post([("b", b"1")], 0)
    posts.take()
    assert posts.written == 0
    posts.post([("c", b"1"), ("a", b"2")], 0)
    posts.done()
    assert posts.written == 2
    posts.post([("c", b"2")], 0)
    assert (posts.written, posts.number) == (2, 5)
    posts.take()
    posts.failed()
    assert posts.written == 2
    posts.take()
    posts.done()
    assert posts.written == 5


def test_batches_are_bounded_in_number_and_size(posts, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 10)
    posts.post([(f"k{n}", b"x") for n in range(25)], 0)
    sizes = []
    while not posts.idle:
        sizes.append(len(posts.take()))
        posts.done()
    assert sizes == [10, 10, 5]
    posts.post([(f"k{n}", b"x" * MAX_VALUE_BYTES) for n in range(3)], 0)
    assert len(posts.take()) == 1
    with pytest.raises(ValueTooLarge):
        posts.post([("small", b"1"), ("large", b"x" * (MAX_VALUE_BYTES + 1))], 0)
    assert posts.unwritten("small") is None


def test_what_waits_is_bounded_and_the_oldest_is_dropped(time):
    posts = Posts(time, waiting=(3, 10_000_000))
    for n in range(5):
        posts.post([(f"k{n}", b"%d" % n)], 60_000)
    assert posts.dropped == 2
    assert posts.overflowed
    assert drained(posts) == [("k2", b"2"), ("k3", b"3"), ("k4", b"4")]
    posts.again()  # what was dropped is remembered
    assert drained(posts) == [(f"k{n}", b"%d" % n) for n in range(5)]
    by_bytes = Posts(time, waiting=(1000, 10_000))
    for n in range(100):
        by_bytes.post([(f"k{n}", b"x" * 1000)], 0)
    assert 5 < len(drained(by_bytes)) < 10


def test_what_is_remembered_is_bounded(time):
    posts = Posts(time, kept=(10, 10_000_000))
    posts.post([(f"k{n}", b"1") for n in range(50)], 60_000)
    drained(posts)
    posts.again()
    assert [key for key, _ in drained(posts)] == [f"k{n}" for n in range(40, 50)]


def test_again_writes_what_was_not_removed_with_what_is_left_of_its_time(posts, time):
    posts.post([("kept", b"1"), ("gone", b"1"), ("short", b"1")], 0)
    posts.post([("kept", b"2"), ("gone", b"2")], 10_000)
    posts.post([("short", b"2")], 100)
    posts.post([("gone", None)], 0)
    posts.post([("plain", b"3")], 0)
    drained(posts)
    time.ms += 1000
    posts.again()
    again = dict(posts.take())
    assert {key: change.value for key, change in again.items()} == {"kept": b"2", "gone": None, "plain": b"3"}
    assert again["kept"].expires_ms - time.ms == 9000
    posts.done()
    time.ms += module.RECENT_MS
    posts.again()
    assert drained(posts) == []


def test_again_never_goes_over_what_is_newer(posts):
    posts.post([("a", b"1"), ("b", b"1")], 60_000)
    drained(posts)
    posts.again()
    posts.post([("a", b"2")], 60_000)
    assert drained(posts) == [("b", b"1"), ("a", b"2")]
    posts.again()
    posts.take()
    posts.post([("b", b"3")], 60_000)
    posts.failed()
    assert drained(posts)[-1] == ("b", b"3")


def test_what_was_kept_before_does_not_hold_up_what_is_waited_for(posts, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 8)
    posts.post([(f"k{n}", b"1") for n in range(20)], 60_000)
    drained(posts)
    kept = posts.written
    posts.post([("new", b"1"), ("gone", None)], 60_000)
    drained(posts)
    posts.again(kept)
    posts.post([("later", b"1")], 60_000)
    assert posts.written == 0
    first = [key for key, _ in posts.take()]
    assert {"new", "gone", "later"} <= set(first)
    posts.failed()
    assert posts.written == 0
    assert {"new", "gone", "later"} <= {key for key, _ in posts.take()}
    posts.done()
    assert posts.written == posts.number
    assert not posts.idle
    assert len(drained(posts)) > 15


def test_a_forgotten_key_is_not_written_again(posts):
    posts.post([("a", b"1"), ("b", b"1")], 60_000)
    drained(posts)
    posts.forget("a")
    posts.again()
    assert drained(posts) == [("b", b"1")]


def test_what_expired_while_it_waited_is_removed(posts, time):
    posts.post([("a", b"1")], 100)
    time.ms += 100
    assert drained(posts) == [("a", None)]


def test_what_is_not_ours_any_more_is_dropped_where_it_leaves(posts):
    posts.post([("call/a", b"1"), ("call/b", b"1")], 60_000)
    drained(posts)
    posts.post([("call/a", None), ("call/b", b"2")], 60_000)
    posts.owns = lambda key: key != "call/a"
    assert drained(posts) == [("call/b", b"2")]
    posts.again()
    assert drained(posts) == [("call/b", b"2")]
    posts.owns = None
    posts.again()
    assert drained(posts) == [("call/b", b"2")]


def test_expired_values_are_forgotten_in_time(posts, time):
    for n in range(20_000):
        posts.post([(f"k{n}", b"1")], 10)
        time.ms += 1
        if n % 100 == 99:
            drained(posts)
    assert len(posts._kept.entries) < 2000
