"""RTP packets (RFC 3550 section 5.1), one at a time: for phones, tests and tools. The media engine reads and writes
whole batches by array operations (trunkline.media.engine) and is tested against this."""

import struct
from typing import Final

import msgspec

VERSION: Final = 2
HEADER_BYTES: Final = 12
_HEADER: Final = struct.Struct("!BBHII")


class MalformedPacket(Exception):
    """Not an RTP packet."""


class Packet(msgspec.Struct, frozen=True, kw_only=True):
    """Padding, contributing sources and extensions are dropped in parsing."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    marker: bool = False
    payload: bytes = b""

    def encode(self) -> bytes:
        """The datagram."""
        second = self.payload_type | (0x80 if self.marker else 0)
        header = _HEADER.pack(0x80, second, self.sequence & 0xFFFF, self.timestamp & 0xFFFFFFFF, self.ssrc & 0xFFFFFFFF)
        return header + self.payload


def parse(data: bytes) -> Packet:
    """A datagram's packet; raises MalformedPacket."""
    if len(data) < HEADER_BYTES or data[0] >> 6 != VERSION:
        raise MalformedPacket("no RTP header")
    first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
    start, end = HEADER_BYTES + 4 * (first & 15), len(data)
    if first & 0x10:
        if start + 4 > end:
            raise MalformedPacket("cut off in the extension")
        start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
    if first & 0x20:
        end -= data[-1]
        if not data[-1]:
            raise MalformedPacket("empty padding")
    if start > end:
        raise MalformedPacket("shorter than its header says")
    return Packet(
        payload_type=second & 0x7F,
        marker=bool(second & 0x80),
        sequence=sequence,
        timestamp=timestamp,
        ssrc=ssrc,
        payload=data[start:end],
    )


def is_rtcp(data: bytes) -> bool:
    """Whether a datagram on a port shared by RTP and RTCP is RTCP (RFC 5761 section 4)."""
    return len(data) >= 8 and data[0] >> 6 == VERSION and 192 <= data[1] <= 223
