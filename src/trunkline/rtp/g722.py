"""G.722 (ITU-T) at 64 kbit/s for telephony: its lower band alone, which is audio at 8 kHz.

G.722 splits 16 kHz audio in two bands of 8 kHz each and codes them apart: six bits of every octet are the lower band
(0 to 4 kHz), two the upper. Who speaks and hears 8 kHz needs neither the filters nor the upper band: coding writes an
upper band that is silent, decoding leaves it out, and one octet is one sample. Block numbers are the recommendation's.

Plain Python, about 1 ms for 20 ms of audio: for phones, and where there is no compiler. The media engine has the same
in C (trunkline.media.native.codecs), which is tested against this, bit by bit.
"""

from array import array
from typing import Final

PAYLOAD_TYPE: Final = 9
"""Static (RFC 3551); its clock is called 8000 there although the audio is sampled at 16 kHz."""
SILENT_UPPER: Final = 0xC0
"""Upper band of an octet: the least level of a step that falls to nothing."""

_Q6: Final = (
    0, 35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1023, 1121, 1219, 1339,
    1458, 1612, 1765, 1980, 2195, 2557, 2919,
)  # fmt: skip
"""Decision levels of the quantiser (table 14)."""
_CODE_NEGATIVE: Final = (0, 63, 62, *range(31, 3, -1))
_CODE_POSITIVE: Final = (0, *range(61, 31, -1))
"""Code by interval (table 15)."""
_QM6_MAGNITUDES: Final = (
    24808, 21904, 19008, 16704, 14984, 13512, 12280, 11192, 10232, 9360, 8576, 7856, 7192, 6576, 6000, 5456, 4944, 4464,
    4008, 3576, 3168, 2776, 2400, 2032, 1688, 1360, 1040, 728,
)  # fmt: skip
_QM6: Final = (
    *(-136,) * 4, *(-level for level in _QM6_MAGNITUDES), *_QM6_MAGNITUDES, 432, 136, -432, -136,
)  # fmt: skip
"""Output by six bits (table 17)."""
_QM4_MAGNITUDES: Final = (20456, 12896, 8968, 6288, 4240, 2584, 1200)
_QM4: Final = (0, *(-level for level in _QM4_MAGNITUDES), *_QM4_MAGNITUDES, 0)
"""Output by the upper four of them, which adapts the predictor (table 18)."""
_WL: Final = (-60, 3042, 1198, 538, 334, 172, 58, -30, 3042, 1198, 538, 334, 172, 58, -30, -60)
"""What those four add to the step's logarithm (tables 19 and 20)."""
_ILB: Final = (
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834, 2896, 2960, 3025,
    3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
)  # fmt: skip
"""Antilogarithm (table 21)."""
_STEP_MOST: Final = 18432


def _limit(value: int) -> int:
    """To 16 bits."""
    return -32768 if value < -32768 else 32767 if value > 32767 else value


class _Band:
    """Quantiser step and predictor of the lower band: the same in coder and decoder."""

    __slots__ = ("a1", "a2", "b", "d", "p1", "p2", "predicted", "r1", "step", "step_log", "zero")

    def __init__(self) -> None:
        self.step, self.step_log = 32, 0
        self.predicted = self.zero = 0
        self.a1 = self.a2 = self.r1 = self.p1 = self.p2 = 0
        self.b = [0] * 6
        self.d = [0] * 6

    def adapt(self, code: int) -> None:
        """Go on by one sample of which `code` is the upper four bits: blocks 2L to 4L."""
        difference = self.step * _QM4[code] >> 15
        log = (self.step_log * 127 >> 7) + _WL[code]
        self.step_log = log = 0 if log < 0 else min(log, _STEP_MOST)
        shift = 8 - (log >> 11)
        level = _ILB[log >> 6 & 31]
        self.step = (level << -shift if shift < 0 else level >> shift) << 2
        self._predict(difference)

    def _predict(self, d: int) -> None:
        r, p = _limit(self.predicted + d), _limit(self.zero + d)
        sign, sign1, sign2 = p < 0, self.p1 < 0, self.p2 < 0
        self._poles(same1=sign == sign1, same2=sign == sign2)
        turn, negative = 0 if d == 0 else 128, d < 0
        b = self.b
        for i, old in enumerate(self.d):
            b[i] = _limit((turn if (old < 0) is negative else -turn) + (b[i] * 32640 >> 15))
        self.d = delayed = [d, *self.d[:5]]
        poles = (self.a1 * _limit(2 * r) >> 15) + (self.a2 * _limit(2 * self.r1) >> 15)
        self.r1, self.p1, self.p2 = r, p, self.p1
        zero = 0
        for weight, value in zip(b, delayed, strict=True):
            zero += weight * _limit(2 * value) >> 15
        self.zero = _limit(zero)
        self.predicted = _limit(_limit(poles) + self.zero)

    def _poles(self, *, same1: bool, same2: bool) -> None:
        """Blocks UPPOL1 and UPPOL2."""
        four = _limit(self.a1 << 2)
        second = (min(-four, 32767) if same1 else four) >> 7
        second += (128 if same2 else -128) + (self.a2 * 32512 >> 15)
        self.a2 = second = max(-12288, min(second, 12288))
        first = _limit((192 if same1 else -192) + (self.a1 * 32640 >> 15))
        most = _limit(15360 - second)
        self.a1 = max(-most, min(first, most))


class Decoder:
    """One stream in. Octets must come in their order; what was lost is left out."""

    def __init__(self) -> None:
        self._band = _Band()

    def decode(self, data: bytes) -> "array[int]":
        """A sample of each octet."""
        band, samples = self._band, array("h")
        for octet in data:
            code = octet & 63
            value = band.predicted + (band.step * _QM6[code] >> 15)
            samples.append((-16384 if value < -16384 else 16383 if value > 16383 else value) * 2)
            band.adapt(code >> 2)
        return samples


class Encoder:
    """One stream out."""

    def __init__(self) -> None:
        self._band = _Band()

    def encode(self, samples: "array[int]") -> bytes:
        """An octet of each sample."""
        band, octets = self._band, bytearray()
        for sample in samples:
            difference = _limit((sample >> 1) - band.predicted)
            size = difference if difference >= 0 else -(difference + 1)
            step, interval = band.step, 1
            while interval < 30 and size >= _Q6[interval] * step >> 12:
                interval += 1
            code = _CODE_NEGATIVE[interval] if difference < 0 else _CODE_POSITIVE[interval]
            octets.append(SILENT_UPPER | code)
            band.adapt(code >> 2)
        return bytes(octets)
