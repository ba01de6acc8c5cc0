"""Messages from a TCP stream."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sip.samples import INVITE, OFFER, invite
from trunkline.sip.message import MAX_HEAD_BYTES, MalformedMessage, Request
from trunkline.sip.stream import KEEPALIVE, PING, Item, StreamParser

BYE = invite("Content-Length: 0").replace(b"INVITE", b"BYE")


def only_error(items: list[Item]) -> MalformedMessage:
    (item,) = items
    assert isinstance(item, MalformedMessage)
    return item


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_messages_in_pieces_of_any_size(size: int) -> None:
    stream = PING + INVITE + b"\r\n" + BYE + INVITE
    parser = StreamParser()
    items: list[Item] = []
    for at in range(0, len(stream), size):
        items += parser.feed(stream[at : at + size])
    assert KEEPALIVE in items
    methods = [item.method for item in items if isinstance(item, Request)]
    assert methods == ["INVITE", "BYE", "INVITE"]
    assert [item.body for item in items if isinstance(item, Request)] == [OFFER, b"", OFFER]
    assert parser.held == 0


def test_keep_alives() -> None:
    parser = StreamParser()
    assert parser.feed(PING) == [KEEPALIVE]
    assert parser.feed(b"\r\n") == []
    assert parser.feed(b"\r\n") == [KEEPALIVE]
    assert parser.feed(PING * 1000) == [KEEPALIVE]
    assert parser.held == 0
    assert parser.feed(b"\r\n") == []
    assert [type(item) for item in parser.feed(BYE)] == [Request]


def test_a_malformed_message_does_not_end_the_stream_when_its_length_is_known() -> None:
    bad = invite("Content-Length: 3", "CSeq: x INVITE", drop=("CSeq",), body=b"abc")
    parser = StreamParser()
    first, second = parser.feed(bad + BYE)
    assert isinstance(first, MalformedMessage)
    assert first.partial is not None
    assert isinstance(second, Request)
    assert not parser.failed


@pytest.mark.parametrize(
    ("data", "status", "answerable"),
    [
        (invite(), 400, True),
        (invite("Content-Length: -5"), 400, True),
        (invite("Content-Length: 1", "Content-Length: 2"), 400, True),
        (invite("Content-Length: 999999"), 513, True),
        (b"nonsense\r\n\r\n", 400, False),
        (b"\x16\x03\x01" + bytes(MAX_HEAD_BYTES + 1), 513, False),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400, False),
    ],
)
def test_what_leaves_no_next_message_ends_the_stream(data: bytes, status: int, answerable: bool) -> None:
    parser = StreamParser()
    error = only_error(parser.feed(data + BYE))
    assert error.status == status
    assert (error.partial is not None) == answerable
    assert parser.failed
    assert parser.feed(BYE) == []
    assert parser.held == 0


def test_a_small_bound_holds_for_heads_and_bodies() -> None:
    assert only_error(StreamParser(500).feed(b"a" * 501)).status == 513
    assert only_error(StreamParser(len(INVITE) - 1).feed(INVITE)).status == 513
    assert len(StreamParser(len(INVITE)).feed(INVITE)) == 1


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [INVITE, BYE, PING, b"\r\n", INVITE[:300], INVITE[300:], b"\r\n\r\n", b"\x00", b"Content-Length: 9"]
        )
        | st.binary(max_size=50),
        max_size=30,
    )
)
def test_no_stream_raises_or_is_held_beyond_the_bound(pieces: list[bytes]) -> None:
    parser = StreamParser(4000)
    for piece in pieces:
        for item in parser.feed(piece):
            assert item is KEEPALIVE or isinstance(item, MalformedMessage) or item.encode()
        assert parser.held <= 4000
