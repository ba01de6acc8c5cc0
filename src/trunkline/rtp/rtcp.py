"""RTCP (RFC 3550 section 6): sender and receiver reports, SDES CNAME and BYE, read and written as compound packets."""

import struct
from typing import Final

import msgspec

SR, RR, SDES, BYE = 200, 201, 202, 203
INTERVAL_S: Final = 5.0
"""Between two reports, before randomising by 0.5 to 1.5 (section 6.2)."""
MAX_PACKETS: Final = 32
"""Packets of one compound that are read."""
NTP_EPOCH_S: Final = 2_208_988_800
"""Seconds from 1900 to 1970."""
_HEADER: Final = struct.Struct("!BBHI")
_SENDER: Final = struct.Struct("!IIIII")
_BLOCK: Final = struct.Struct("!IIIIII")
_CNAME: Final = 1


class MalformedRtcp(Exception):
    """Not a compound RTCP packet."""


class Block(msgspec.Struct, frozen=True):
    """One reception report (section 6.4.1). Times are in 1/65536 s, jitter in timestamp units."""

    ssrc: int
    fraction_lost: int = 0
    """Of 256, since the last report."""
    lost: int = 0
    """Since the start; may be negative when packets came twice."""
    highest: int = 0
    """Highest sequence number, extended by its cycles."""
    jitter: int = 0
    last_sr: int = 0
    since_last_sr: int = 0

    def encode(self) -> bytes:
        lost = max(-0x800000, min(self.lost, 0x7FFFFF)) & 0xFFFFFF
        return _BLOCK.pack(
            self.ssrc,
            (self.fraction_lost & 0xFF) << 24 | lost,
            self.highest & 0xFFFFFFFF,
            min(self.jitter, 0xFFFFFFFF),
            self.last_sr,
            self.since_last_sr & 0xFFFFFFFF,
        )


class Sender(msgspec.Struct, frozen=True):
    """The sender's part of an SR; `ntp` is 64 bits of NTP time."""

    ntp: int
    timestamp: int
    packets: int
    octets: int

    @property
    def middle(self) -> int:
        """The middle 32 bits of the NTP time, which the peer names as `last_sr`."""
        return self.ntp >> 16 & 0xFFFFFFFF


class Report(msgspec.Struct, frozen=True):
    """What one compound said."""

    ssrc: int
    sender: Sender | None = None
    blocks: tuple[Block, ...] = ()
    bye: bool = False


def ntp(unix_ns: int) -> int:
    """Unix nanoseconds as 64 bits of NTP time."""
    seconds, rest = divmod(unix_ns, 1_000_000_000)
    return (seconds + NTP_EPOCH_S) << 32 | (rest << 32) // 1_000_000_000


def round_trip_ms(block: Block, now_ntp: int) -> float:
    """From a report about us (section 6.4.1); 0 when it names no SR of ours or makes no sense."""
    if not block.last_sr:
        return 0.0
    units = ((now_ntp >> 16 & 0xFFFFFFFF) - block.last_sr - block.since_last_sr) & 0xFFFFFFFF
    return units * 1000 / 65536 if units < 1 << 31 else 0.0


def compound(
    ssrc: int, cname: str, *, sender: Sender | None, blocks: tuple[Block, ...] = (), bye: bool = False
) -> bytes:
    """SR (or RR when nothing was sent), SDES with CNAME, and BYE when asked for."""
    body = b"".join(block.encode() for block in blocks[:31])
    if sender is not None:
        octets = _SENDER.pack(
            sender.ntp >> 32,
            sender.ntp & 0xFFFFFFFF,
            sender.timestamp & 0xFFFFFFFF,
            sender.packets & 0xFFFFFFFF,
            sender.octets & 0xFFFFFFFF,
        )
        parts = [_packet(SR, len(blocks), ssrc, octets + body)]
    else:
        parts = [_packet(RR, len(blocks), ssrc, body)]
    name = cname.encode("utf-8", "replace")[:255]
    item = bytes((_CNAME, len(name))) + name + b"\0"
    parts.append(_packet(SDES, 1, ssrc, item + b"\0" * (-len(item) % 4)))
    if bye:
        parts.append(_packet(BYE, 1, ssrc, b""))
    return b"".join(parts)


def _packet(kind: int, count: int, ssrc: int, body: bytes) -> bytes:
    return _HEADER.pack(0x80 | count, kind, (4 + len(body)) // 4, ssrc) + body


def parse(data: bytes) -> Report:
    """Read a compound packet; raises MalformedRtcp when its first packet is none or a length runs over the end.
    Unknown packets in it are skipped."""
    ssrc, sender, bye = -1, None, False
    blocks: list[Block] = []
    at = 0
    for _ in range(MAX_PACKETS):
        if at + 8 > len(data):
            break
        first, kind, words, source = _HEADER.unpack_from(data, at)
        end = at + 4 + 4 * words
        if first >> 6 != 2 or end > len(data) or (at == 0 and not 192 <= kind <= 223):
            raise MalformedRtcp("bad RTCP header")
        ssrc = source if ssrc < 0 else ssrc
        start = at + 8
        if kind == SR and start + _SENDER.size <= end:
            high, low, timestamp, packets, octets = _SENDER.unpack_from(data, start)
            sender = Sender(high << 32 | low, timestamp, packets, octets)
            start += _SENDER.size
        if kind in (SR, RR):
            blocks += _blocks(data, start, end, first & 31)
        bye = bye or kind == BYE
        at = end
    if ssrc < 0:
        raise MalformedRtcp("too short")
    return Report(ssrc, sender, tuple(blocks), bye)


def _blocks(data: bytes, start: int, end: int, count: int) -> list[Block]:
    blocks = []
    for at in range(start, min(start + count * _BLOCK.size, end - _BLOCK.size + 1), _BLOCK.size):
        ssrc, loss, highest, jitter, last_sr, since = _BLOCK.unpack_from(data, at)
        lost = loss & 0xFFFFFF
        blocks.append(
            Block(ssrc, loss >> 24, lost - 0x1000000 if lost & 0x800000 else lost, highest, jitter, last_sr, since)
        )
    return blocks
