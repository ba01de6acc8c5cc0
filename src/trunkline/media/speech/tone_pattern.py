"""A tone pattern of its own for every text: speech for tests, which a simulated phone can tell apart by ear.

A pattern is a mark (3100 Hz) and eight symbols of 60 ms each, one of sixteen tones a symbol, out of the text's SHA-256:
distinct for all practical purposes, the same on every machine, and no DTMF. It survives G.711, other levels, some
noise and a lost packet.
"""

import hashlib
from typing import Final

import numpy as np
import numpy.typing as npt

from trunkline.media.wav import RATE

Samples = npt.NDArray[np.int16]
Pattern = tuple[int, ...]

SYMBOL: Final = RATE * 60 // 1000
SYMBOLS: Final = 8
TONES_HZ: Final = tuple(500 + 150 * k for k in range(16))
MARK_HZ: Final = 3100
MARK: Final = len(TONES_HZ)
PEAK: Final = 9000
REST: Final = SYMBOL
"""Silence after a pattern, samples."""
MS: Final = ((SYMBOLS + 1) * SYMBOL + REST) * 1000 // RATE
"""Length of one pattern."""

_WINDOW: Final = RATE * 20 // 1000
_HOP: Final = RATE * 10 // 1000
_MIN_SHARE: Final = 0.5
"""Least part of a window's energy in its loudest tone."""
_MIN_RMS: Final = 60
_ANGLES: Final = 2 * np.pi * np.outer(np.arange(_WINDOW), (*TONES_HZ, MARK_HZ)) / RATE
_BANK: Final = np.concatenate([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1).astype(np.float32)


def pattern(text: str) -> Pattern:
    """The symbols of a text; white space does not count beyond parting words."""
    digest = hashlib.sha256(" ".join(text.split()).encode("utf-8", "replace")).digest()
    return tuple(nibble for byte in digest[: SYMBOLS // 2] for nibble in (byte >> 4, byte & 15))


def samples(text: str) -> Samples:
    """The pattern's audio, 8000 Hz."""
    n = np.arange(SYMBOL) / RATE
    edge = np.minimum(1.0, np.minimum(np.arange(SYMBOL), np.arange(SYMBOL)[::-1]) / 16)
    frequencies = [MARK_HZ, *(TONES_HZ[symbol] for symbol in pattern(text))]
    tones = [PEAK * edge * np.sin(2 * np.pi * frequency * n) for frequency in frequencies]
    return np.concatenate([*tones, np.zeros(REST)]).astype(np.int16)


def _loudest(audio: Samples) -> npt.NDArray[np.intp]:
    """The tone of each window (every 10 ms), -1 where none stands out."""
    windows = np.lib.stride_tricks.sliding_window_view(audio, _WINDOW)[::_HOP].astype(np.float32)
    sums = (windows @ _BANK) ** 2
    half = len(TONES_HZ) + 1
    energy = sums[:, :half] + sums[:, half:]
    best = energy.argmax(axis=1)
    power = (windows**2).sum(axis=1)
    strong = energy[np.arange(len(best)), best] > _MIN_SHARE * power * _WINDOW / 2
    return np.where(strong & (power > _WINDOW * _MIN_RMS**2), best, -1)


def heard(audio: Samples) -> list[tuple[int, Pattern]]:
    """Every whole pattern in the audio: (ms at which it begins, its symbols). The mark must come through; a symbol is
    what most of its windows say."""
    if len(audio) < _WINDOW:
        return []
    tones = _loudest(audio)
    per_symbol = SYMBOL // _HOP
    found: list[tuple[int, Pattern]] = []
    at = 0
    while at < len(tones):
        if tones[at] != MARK:
            at += 1
            continue
        end = at
        while end < len(tones) and tones[end] == MARK:
            end += 1
        symbols = [_most(tones[end + per_symbol * k : end + per_symbol * k + 5]) for k in range(SYMBOLS)]
        if end - at >= 2 and end + per_symbol * SYMBOLS - 2 <= len(tones) and -1 not in symbols and MARK not in symbols:
            found.append((max(0, end * 10 - 60), tuple(symbols)))
            at = end + per_symbol * SYMBOLS - 2
        else:
            at = end
    return found


def _most(tones: npt.NDArray[np.intp]) -> int:
    certain = tones[tones >= 0]
    return int(np.bincount(certain).argmax()) if len(certain) else -1


def hears(audio: Samples, text: str) -> bool:
    """Whether the text's pattern is in the audio."""
    wanted = pattern(text)
    return any(symbols == wanted for _, symbols in heard(audio))
