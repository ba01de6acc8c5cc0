"""Connection overrides, from Twilio's table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.webhooks.overrides import DEFAULTS, Overrides, parse, split

URL = "https://x.test/a?b=c"


def test_defaults() -> None:
    assert split(URL) == (URL, Overrides())
    assert (DEFAULTS.connect_ms, DEFAULTS.read_ms, DEFAULTS.total_ms) == (5000, 15_000, 15_000)
    assert (DEFAULTS.retries, DEFAULTS.retry_on, DEFAULTS.sni) == (1, frozenset({"ct"}), True)


def test_all_of_them() -> None:
    bare, overrides = split(URL + "#ct=2000&rt=3000&tt=4000&rc=5&rp=4xx,5xx,rt&sni=n&e=ashburn")
    assert bare == URL
    assert overrides == Overrides(2000, 3000, 4000, 5, frozenset({"4xx", "5xx", "rt"}), False, "ashburn")


@pytest.mark.parametrize(
    ("key", "low", "high", "field"),
    [
        ("ct", 100, 10_000, "connect_ms"),
        ("rt", 100, 15_000, "read_ms"),
        ("tt", 100, 15_000, "total_ms"),
        ("rc", 0, 5, "retries"),
    ],
)
def test_ranges(key: str, low: int, high: int, field: str) -> None:
    for value in (low, high):
        overrides = parse(f"{key}={value}")
        assert getattr(overrides, field) == value
        assert overrides.problems == ()
    for bad in (low - 1, high + 1, "x", "", "1e3", "٣٠٠", "9" * 50):
        overrides = parse(f"{key}={bad}")
        assert getattr(overrides, field) == getattr(DEFAULTS, field)
        assert len(overrides.problems) == 1


def test_all_means_every_policy() -> None:
    assert parse("rp=all").retry_on == {"4xx", "5xx", "ct", "rt"}


@pytest.mark.parametrize(
    ("fragment", "code"),
    [("rp=6xx", 11243), ("rp=", 11243), ("e=", 11240), ("sni=yes", 11100), ("zz=1", 11100), ("section", 11100)],
)
def test_what_is_not_understood_is_told_and_ignored(fragment: str, code: int) -> None:
    overrides = parse("ct=200&" + fragment)
    assert overrides.connect_ms == 200
    assert [problem[0] for problem in overrides.problems] == [code]


def test_the_last_of_a_key_counts() -> None:
    assert parse("rc=1&rc=3").retries == 3


def test_an_endless_fragment_is_not_read() -> None:
    overrides = parse("rc=3&" * 200)
    assert overrides.retries == 1
    assert len(overrides.problems) == 1


def test_results_are_cached() -> None:
    assert split(URL + "#rc=2")[1] is split(URL + "#rc=2")[1]


@given(st.text(max_size=600))
def test_no_fragment_raises(fragment: str) -> None:
    overrides = parse(fragment)
    assert 0 <= overrides.retries <= 5
    assert 100 <= overrides.connect_ms <= 10_000
