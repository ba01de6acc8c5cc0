"""Keys as RTP telephone-events (RFC 4733): payloads, and the tracker that tells one press once."""

import struct
from typing import Final

import msgspec

KEYS: Final = "0123456789*#ABCD"
"""Key of each event code (RFC 4733 section 3.2)."""
MIN_PRESS: Final = 320
"""Timestamp units of 8 kHz (40 ms) below which an event is no press (section 2.5.2.2: senders keep to that)."""
MAX_DURATION: Final = 0xFFFF
"""Longest duration of one segment; a longer event goes on in another with a new timestamp (section 2.5.1.3)."""
LATE_MOST: Final = 40_000
"""Timestamp units of 8 kHz (5 s) by which a packet of an earlier event may be late; further back is a new stream."""
END_PACKETS: Final = 3
"""How often the last packet is sent (section 2.5.1.4)."""
VOLUME: Final = 10
"""-dBm0 of the events we send."""
_PAYLOAD: Final = struct.Struct("!BBH")


class Payload(msgspec.Struct, frozen=True):
    """One telephone-event payload; `duration` counts from the event's timestamp."""

    code: int
    end: bool
    duration: int
    volume: int = VOLUME

    def encode(self) -> bytes:
        """Four octets."""
        return _PAYLOAD.pack(
            self.code, (0x80 if self.end else 0) | self.volume & 0x3F, min(self.duration, MAX_DURATION)
        )


def parse(payload: bytes) -> Payload | None:
    """The first event of a payload; None when it is too short."""
    if len(payload) < _PAYLOAD.size:
        return None
    code, flags, duration = _PAYLOAD.unpack_from(payload)
    return Payload(code, bool(flags & 0x80), duration, flags & 0x3F)


class Press(msgspec.Struct):
    """What is known of the latest press of one stream."""

    timestamp: int = -1
    """Of the event's (latest) segment; -1: none yet."""
    code: int = -1
    told: bool = False
    ended: bool = False


def track(press: Press, timestamp: int, payload: Payload, scale: int = 1) -> str:
    """Take in one packet: the key, once per press, as soon as it has lasted MIN_PRESS; else "". `scale`: how many times
    the clock is 8 kHz.

    Told apart by timestamp, so that lost starts and ends, repeated ends and packets out of order do no harm.
    """
    if timestamp != press.timestamp:
        ahead = (timestamp - press.timestamp) & 0xFFFFFFFF
        if press.timestamp >= 0 and ahead >= (1 << 32) - LATE_MOST * scale:
            return ""  # an older event's packet, late
        continued = (
            press.timestamp >= 0
            and payload.code == press.code
            and not press.ended
            and MAX_DURATION - MIN_PRESS * scale <= ahead <= MAX_DURATION
        )
        press.timestamp, press.code, press.ended = timestamp, payload.code, False
        press.told = press.told and continued
    press.ended = press.ended or payload.end
    if press.told or payload.duration < MIN_PRESS * scale or payload.code >= len(KEYS):
        return ""
    press.told = True
    return KEYS[payload.code]
