"""Speech from an engine's sample rate to the telephone's, by a windowed-sinc polyphase filter."""

from functools import lru_cache
from math import gcd
from typing import Final

import numpy as np
import numpy.typing as npt

from trunkline.media.wav import RATE

Wave = npt.NDArray[np.float32]

ZEROS: Final = 20
"""Zero crossings of the filter on each side, at 8 kHz."""
CUTOFF: Final = 0.92
"""Of the narrower side's half sample rate: 3.7 kHz."""
BLOCK: Final = 16_000
"""Output samples made at once."""
MAX_PHASES: Final = 320


@lru_cache(maxsize=64)
def _bank(phases: int, step: int) -> tuple[Wave, int]:
    """The filter of each phase, and how many input samples lie before its middle."""
    narrow = min(1.0, phases / step)  # cycles a sample, of the input's half rate
    half = int(np.ceil(ZEROS / narrow))
    offset = np.arange(phases)[:, None] / phases
    at = np.arange(-half + 1, half + 1)[None, :] - offset
    window = 0.5 + 0.5 * np.cos(np.pi * at / (half + 1))
    bank = np.sinc(at * narrow * CUTOFF) * window
    return (bank / bank.sum(axis=1, keepdims=True)).astype(np.float32), half


def to_telephone(wave: Wave, rate: int) -> Wave:
    """`wave` at `rate` Hz as 8000 Hz."""
    if rate == RATE or not len(wave):
        return wave
    divisor = gcd(rate, RATE)
    phases, step = RATE // divisor, rate // divisor
    if phases > MAX_PHASES:  # an odd rate: the nearest that divides well
        return to_telephone(wave, round(rate / 100) * 100)
    bank, half = _bank(phases, step)
    padded = np.concatenate([np.zeros(half - 1, np.float32), wave, np.zeros(half + 1, np.float32)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half)
    count = -(-len(wave) * phases // step)
    out = np.empty(count, np.float32)
    for start in range(0, count, BLOCK):
        position = np.arange(start, min(count, start + BLOCK), dtype=np.int64) * step
        out[start : start + BLOCK] = np.einsum("ij,ij->i", windows[position // phases], bank[position % phases])
    return out
