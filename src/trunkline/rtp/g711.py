"""G.711 (ITU-T): mu-law and A-law, as tables over bytes and 16-bit samples.

PCM is 16-bit signed little-endian. Encoding picks the nearest level on 14 bits, bit-exact with FFmpeg's pcm_mulaw and
pcm_alaw encoders; decoding is exact by definition.
"""

from array import array
from bisect import bisect_right
from sys import byteorder
from typing import Final

PCMU: Final = 0
PCMA: Final = 8
"""Static payload types (RFC 3551 section 6)."""
_INVERT: Final = {PCMU: 0xFF, PCMA: 0xD5}
"""What the bits of a code are inverted with, so that magnitude order becomes numeric order."""


def _ulaw_level(code: int) -> int:
    code = ~code & 0xFF
    magnitude = (((code & 15) << 3) + 132) << (code >> 4 & 7)
    return 132 - magnitude if code & 0x80 else magnitude - 132


def _alaw_level(code: int) -> int:
    code ^= 0x55
    segment, step = code >> 4 & 7, code & 15
    magnitude = (step * 2 + 33) << (segment + 2) if segment else (step * 2 + 1) << 3
    return magnitude if code & 0x80 else -magnitude


def _encoder(levels: "array[int]", invert: int) -> bytes:
    """Code of each 16-bit sample, indexed by its unsigned value."""
    borders = [(levels[i ^ invert] + levels[(i + 1) ^ invert] + 4) >> 3 for i in range(127)]
    positive = bytes(bisect_right(borders, i) ^ invert for i in range(8192))
    negative = bytes(bisect_right(borders, min(i, 8191)) ^ invert ^ 0x80 for i in range(8193))
    table = bytearray(65536)
    for sample in range(-32768, 32768):
        short = sample >> 2
        table[sample & 0xFFFF] = positive[short] if short >= 0 else negative[-short]
    return bytes(table)


LEVELS: Final = {
    PCMU: array("h", (_ulaw_level(code) for code in range(256))),
    PCMA: array("h", (_alaw_level(code) for code in range(256))),
}
"""Sample of each code, by payload type."""
CODES: Final = {law: _encoder(LEVELS[law], _INVERT[law]) for law in LEVELS}
"""Code of each sample (index: the sample as an unsigned 16-bit number), by payload type."""
SILENCE: Final = {law: CODES[law][0] for law in CODES}
"""Code of the sample 0."""
_LOW: Final = {law: bytes(level & 0xFF for level in LEVELS[law]) for law in LEVELS}
_HIGH: Final = {law: bytes(level >> 8 & 0xFF for level in LEVELS[law]) for law in LEVELS}


def decode(data: bytes, law: int = PCMU) -> bytes:
    """PCM of G.711 octets; `law` is PCMU or PCMA."""
    pcm = bytearray(2 * len(data))
    pcm[0::2] = data.translate(_LOW[law])
    pcm[1::2] = data.translate(_HIGH[law])
    return bytes(pcm)


def encode(pcm: bytes, law: int = PCMU) -> bytes:
    """G.711 octets of PCM; an odd last byte is left out."""
    samples = array("H", pcm[: len(pcm) & ~1])
    if byteorder == "big":
        samples.byteswap()
    return bytes(map(CODES[law].__getitem__, samples))
