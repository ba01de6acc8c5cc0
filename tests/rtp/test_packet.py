import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.rtp.packet import MalformedPacket, Packet, is_rtcp, parse

PACKET = Packet(payload_type=101, sequence=65535, timestamp=0xFFFFFFFF, ssrc=7, marker=True, payload=b"abc")


def test_a_packet_survives_the_wire() -> None:
    assert PACKET.encode()[:2] == b"\x80\xe5"
    assert parse(PACKET.encode()) == PACKET


def test_sources_extension_and_padding_are_dropped() -> None:
    header = bytearray(PACKET.encode()[:12])
    header[0] |= 0x20 | 0x10 | 2
    data = bytes(header) + b"s" * 8 + b"\xbe\xde\x00\x01" + b"e" * 4 + b"abc" + b"\0\0\3"
    assert parse(data) == PACKET


MALFORMED = {
    "empty": b"",
    "short": b"\x80" * 11,
    "version": b"\x40" + bytes(11),
    "extension cut off": b"\x90" + bytes(12),
    "empty padding": b"\xa0" + bytes(11),
    "sources cut off": b"\x8f" + bytes(20),
    "padding too long": b"\xa0" + bytes(11) + b"\x63",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_packet_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedPacket):
        parse(data)


@given(st.binary(max_size=80))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        assert len(parse(data).payload) <= len(data)
    except MalformedPacket:
        pass


def test_rtcp_is_told_from_rtp() -> None:
    assert is_rtcp(b"\x80\xc8" + bytes(6))
    assert not is_rtcp(PACKET.encode())
