"""Codecs of simulated phones: what an RTP payload holds, for one stream each way.

A phone decodes packets as they come, so that G.722 and Opus, which remember, sound wrong for a moment after loss, as
they do in phones without a jitter buffer. Opus repairs the packet before a single loss (in-band FEC).
"""

from array import array
from typing import Final, NamedTuple

import numpy as np

from trunkline.media.native import libopus
from trunkline.media.native.coding import OpusSettings
from trunkline.rtp import g711, g722, opus
from trunkline.testing.phones.heard import FRAME, Samples

NAMES: Final = ("PCMU", "PCMA", "G722", "opus")
"""What phones speak (sip.offer_answer.CODECS)."""
LAWS: Final = {"PCMU": g711.PCMU, "PCMA": g711.PCMA}
LOSS: Final = 10
"""Percent of loss that a phone's Opus reckons with."""
_LEVELS: Final = {law: np.array(g711.LEVELS[law], np.int16) for law in LAWS.values()}
_CODES: Final = {law: np.frombuffer(g711.CODES[law], np.uint8) for law in LAWS.values()}
_MASK32: Final = 0xFFFFFFFF


def decoded(payload: bytes, law: int) -> Samples:
    """Samples of G.711."""
    return _LEVELS[law][np.frombuffer(payload, np.uint8)]


def encoded(samples: Samples, law: int) -> bytes:
    """G.711 of samples."""
    return _CODES[law][samples.view(np.uint16)].tobytes()


def units(codec: str) -> int:
    """Timestamp units of a sample."""
    return opus.PER_SAMPLE if codec == "opus" else 1


class Piece(NamedTuple):
    """Audio and its place."""

    timestamp: int
    """In samples of 8 kHz."""
    samples: Samples


class Mouth:
    """One stream out."""

    def __init__(self) -> None:
        self._g722 = g722.Encoder()
        self._opus: libopus.Encoder | None = None

    def encode(self, codec: str, samples: Samples) -> bytes:
        """20 ms. Raises NoCodec."""
        if codec in LAWS:
            return encoded(samples, LAWS[codec])
        if codec == "G722":
            return self._g722.encode(array("h", samples.tobytes()))
        if self._opus is None:
            self._opus = libopus.Encoder(OpusSettings(), LOSS)
        return self._opus.encode(samples.tobytes())


class Ear:
    """One stream in. Timestamps come out as samples, whatever the codec's clock, without a jump where it changes."""

    def __init__(self) -> None:
        self._g722 = g722.Decoder()
        self._opus: libopus.Decoder | None = None
        self._units = 0
        self._raw = self._base = 0
        self._next = -1
        """Where the packet after the last one of Opus begins."""

    def decode(self, codec: str, payload: bytes, timestamp: int) -> list[Piece]:
        """The audio of a packet, that of a lost one before it where Opus has it. Raises NoCodec."""
        at = self._place(timestamp, units(codec))
        if codec in LAWS:
            return [Piece(at, decoded(payload, LAWS[codec]))]
        if codec == "G722":
            return [Piece(at, np.frombuffer(self._g722.decode(payload), np.int16))]
        if self._opus is None:
            self._opus = libopus.Decoder()
        pieces = []
        if self._next >= 0 and (at - self._next) & _MASK32 == FRAME:
            pieces.append(Piece(self._next, np.frombuffer(self._opus.repair(payload, FRAME), np.int16)))
        pieces.append(Piece(at, np.frombuffer(self._opus.decode(payload), np.int16)))
        self._next = (at + len(pieces[-1].samples)) & _MASK32
        return pieces

    def _place(self, timestamp: int, scale: int) -> int:
        if scale != self._units:
            self._base = self._base + FRAME if self._units else timestamp // scale
            self._units, self._raw = scale, timestamp
        step = ((timestamp - self._raw + 0x80000000) & _MASK32) - 0x80000000
        whole = step // scale
        self._raw = (self._raw + whole * scale) & _MASK32
        self._base = (self._base + whole) & _MASK32
        return self._base
