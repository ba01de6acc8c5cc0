"""The cache of GET responses with a validator."""

from __future__ import annotations

import pytest

from trunkline.webhooks.cache import Cache
from trunkline.webhooks.connection import Response, Timing


def response(body: bytes = b"x", status: int = 200, **headers: str) -> Response:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Response(status, pairs, body, False, Timing(0, 0, 0))


def test_validators_become_conditions() -> None:
    cache = Cache()
    cache.put(("AC1", "u"), response(ETag='"v1"', Last_Modified="Tue, 14 Nov 2023 22:14:20 GMT"))
    entry = cache.get(("AC1", "u"))
    assert entry is not None
    assert entry.conditions() == [
        ("If-None-Match", '"v1"'),
        ("If-Modified-Since", "Tue, 14 Nov 2023 22:14:20 GMT"),
    ]
    assert cache.get(("AC2", "u")) is None


@pytest.mark.parametrize(
    "not_kept",
    [
        response(),
        response(ETag="v", status=404),
        response(ETag="v", Cache_Control="private, No-Store"),
        response(ETag="v", Set_Cookie="a=b"),
        response(ETag="v", Vary="*"),
        response(ETag="\x01"),
    ],
)
def test_what_is_not_kept(not_kept: Response) -> None:
    cache = Cache()
    cache.put(("a", "u"), response(ETag="old"))
    cache.put(("a", "u"), not_kept)
    assert cache.get(("a", "u")) is None


def test_bounds() -> None:
    cache = Cache(max_entries=3, max_bytes=100)
    for n in range(3):
        cache.put(("a", str(n)), response(b"x" * 40, ETag="v"))
    assert [cache.get(("a", str(n))) is not None for n in range(3)] == [False, True, True]
    cache.put(("a", "3"), response(b"", ETag="v"))
    cache.get(("a", "1"))
    cache.put(("a", "4"), response(b"", ETag="v"))
    assert [cache.get(("a", str(n))) is not None for n in range(5)] == [False, True, False, True, True]
    cache.put(("a", "5"), response(b"x" * 101, ETag="v"))
    assert cache.get(("a", "5")) is None
