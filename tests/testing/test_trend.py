"""What grows and what only looks so."""

import random

import pytest

from trunkline.testing.trend import LEAST, trend


def series(values):
    return [(float(place), value) for place, value in enumerate(values)]


def test_a_leak_is_seen_under_noise():
    draw = random.Random(1)
    found = trend(series([100 + place * 0.5 + draw.gauss(0, 2) for place in range(60)]))
    assert found.grows(10.0)
    assert found.growth == pytest.approx(21, abs=4)


def test_filling_up_at_the_begin_is_no_growth():
    draw = random.Random(2)
    found = trend(series([min(place, 15) * 10 + draw.gauss(0, 1) for place in range(60)]))
    assert not found.grows(1.0)


@pytest.mark.parametrize("seed", range(20))
def test_noise_and_outliers_are_no_growth(seed):
    draw = random.Random(seed)
    values = [100 + draw.gauss(0, 5) + (500 if draw.random() < 0.05 else 0) for _ in range(60)]
    assert not trend(series(values)).grows(10.0)


def test_what_shrinks_or_stands_does_not_grow():
    assert not trend(series([100.0 - place for place in range(60)])).grows(1.0)
    assert trend(series([7.0] * 60)) == (7.0, 0.0, 1.0)


def test_little_says_nothing():
    assert trend(series([1.0, 2.0, 3.0])).chance == 1.0
    assert trend([]) == (0.0, 0.0, 1.0)
    assert trend(series([float(n) for n in range(LEAST)])).chance == 1.0
