"""The request rate of an account."""

import pytest

from trunkline.api.rate import RequestRate
from trunkline.model.errors import ApiError


def test_a_bucket_fills_with_time() -> None:
    now = 100.0
    rate = RequestRate(2, lambda: now)
    rate.take("a")
    rate.take("a")
    with pytest.raises(ApiError) as caught:
        rate.take("a")
    assert (caught.value.code, caught.value.headers) == (20429, (("Retry-After", "1"),))
    rate.take("b")
    now += 0.5
    rate.take("a")
    now += 1000.0
    rate.take("a")
    rate.take("a")
    with pytest.raises(ApiError):
        rate.take("a")


def test_full_buckets_are_forgotten() -> None:
    now = 0.0
    rate = RequestRate(1, lambda: now, max_buckets=3)
    for sid in "abcdefgh":
        rate.take(sid)
        now += 2.0
    assert len(rate._buckets) <= 3
