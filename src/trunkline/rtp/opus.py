"""What an Opus packet says of itself (RFC 6716 section 3.1) and of its place in RTP (RFC 7587)."""

from typing import Final

CLOCK: Final = 48_000
"""Of RTP timestamps, whatever the audio's rate."""
PER_SAMPLE: Final = 6
"""Timestamp units of a sample of 8 kHz."""
FRAME_SAMPLES: Final = (*(80, 160, 320, 480) * 3, *(80, 160) * 2, *(20, 40, 80, 160) * 4)
"""Samples of 8 kHz of one frame, by the upper five bits of the first octet: SILK, hybrid, CELT."""
MOST_SAMPLES: Final = 960
"""Of a packet: 120 ms."""


def samples(first: int, second: int) -> int:
    """Samples of 8 kHz of the packet that begins with these octets; 0 when it is none."""
    code = first & 3
    count = (1, 2, 2, second & 63)[code]
    total = FRAME_SAMPLES[first >> 3 & 31] * count
    return total if total <= MOST_SAMPLES else 0
