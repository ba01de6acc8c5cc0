import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.smpp.codec import HEADER
from trunkline.smpp.framer import Framer


def pdu(sequence: int, body: bytes = b"") -> bytes:
    return HEADER.pack(16 + len(body), 4, 0, sequence) + body


def feed_all(framer: Framer, pieces: list[bytes]) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    for piece in pieces:
        frames, error = framer.feed(piece)
        assert error is None
        found += [(sequence, buffer[start:end]) for _, _, sequence, buffer, start, end in frames]
    return found


@given(st.lists(st.binary(max_size=60), max_size=8), st.lists(st.integers(0, 600), max_size=12))
def test_any_cutting_gives_the_same_pdus(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(pdu(n, body) for n, body in enumerate(bodies))
    at = [0, *sorted(cut for cut in cuts if cut <= len(stream)), len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(at)]
    assert feed_all(Framer(), pieces) == list(enumerate(bodies))


def test_octet_by_octet() -> None:
    stream = pdu(1, b"abc") + pdu(2)
    assert feed_all(Framer(), [stream[i : i + 1] for i in range(len(stream))]) == [(1, b"abc"), (2, b"")]


@pytest.mark.parametrize("length", [0, 15, 101, 0xFFFFFFFF])
def test_a_bad_length_ends_the_stream_after_the_good_pdus(length: int) -> None:
    frames, error = Framer(limit=100).feed(pdu(1) + HEADER.pack(length, 4, 0, 9))
    assert [frame[2] for frame in frames] == [1]
    assert error is not None
    assert error.sequence == 9


def test_the_limit_is_inclusive() -> None:
    assert feed_all(Framer(limit=100), [pdu(1, b"x" * 84)]) == [(1, b"x" * 84)]


@given(st.lists(st.binary(max_size=100), max_size=10))
def test_any_octets_never_raise(pieces: list[bytes]) -> None:
    framer = Framer(limit=1000)
    for piece in pieces:
        frames, error = framer.feed(piece)
        assert all(16 <= start <= end <= len(buffer) for _, _, _, buffer, start, end in frames)
        if error is not None:
            break
