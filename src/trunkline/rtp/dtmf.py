"""Keys heard in the audio (ITU-T Q.23, Q.24): a detector for all legs at once, and the samples of a key.

Each leg's audio is looked at in windows of 120 samples (15 ms) every 80 samples, so a tick of 20 ms brings two
windows, the first of which begins with the last 40 samples of the tick before. A window is a *hit* when one low and
one high tone hold nearly all of its energy, stand out from the other tones of their group, differ by no more than the
permitted twist and have weak second harmonics (speech has strong ones). High tones are tried a little above and below
their frequency, so that 1.5 % of deviation (Q.24) costs no energy: a window of 15 ms is only 67 Hz wide.

A key is told once two consecutive windows hit with the same key, the audio was level between them, and it has lasted
long enough: Q.24 wants 40 ms recognised and 23 ms rejected. The time comes from the energy: a tone of L samples brings
the windows that it touches, together, 1.5 * L / 120 times the energy of a full window. It ends after
`MISSES` windows without the key.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16]
Rows = npt.NDArray[np.intp]

KEYS: Final = "123A456B789C*0#D"
"""The key of each code: low tone * 4 + high tone."""
LOW_HZ: Final = (697, 770, 852, 941)
HIGH_HZ: Final = (1209, 1336, 1477, 1633)
RATE: Final = 8000
"""Samples a second."""
TICK: Final = 160
"""Samples a leg brings to each `feed` (20 ms)."""
WINDOW: Final = 120
HOP: Final = 80
TAIL: Final = WINDOW - HOP
"""Samples kept from one tick to the next."""

NONE: Final = -1
"""The code of no key."""
HITS: Final = 2
"""Windows in a row that make a key."""
ENOUGH: Final = 2.6
"""Least energy of a key's windows up to now (the one before the first hit included), in full windows: 27 to 30 ms."""
MISSES: Final = 4
"""Windows in a row without the key that end it: a lost packet (20 ms) parts no key, a pause of 40 ms always does."""
QUIET_PEAK: Final = 220
"""A tick whose samples stay below is not looked at: -43 dBm0, below any tone that Q.24 wants recognised."""
MIN_RMS: Final = 100
"""Root mean square of a window below which nothing is a key."""
SHARE: Final = 0.72
"""Least part of a window's energy in its two tones."""
TWIST: Final = 8.0
"""Most that the low tone may be above the high one, in energy (9 dB)."""
REVERSE_TWIST: Final = 4.0
"""Most that the high tone may be above the low one, in energy (6 dB)."""
STANDS_OUT: Final = 4.0
"""Least ratio of a tone to the next one of its group, in energy."""
LOW_HARMONIC: Final = 0.3
HIGH_HARMONIC: Final = 0.2
"""Most energy of a tone's second harmonic, as part of the tone's."""
LEVEL: Final = 0.5
"""Least ratio of the energies of a key's two windows: a held key is level, a syllable is not."""
DETUNE: Final = 0.008
"""How far above and below their frequency the high tones are tried."""

STATE: Final = np.dtype(
    [("tail", np.int16, (TAIL,)), ("last", np.int8), ("run", np.uint8), ("current", np.int8), ("misses", np.uint8),
     ("power", np.float32), ("energy", np.float32)]
)  # fmt: skip
"""What the detector knows of a leg; plain bytes, so that it can live in shared memory and move with its leg."""


SCALE: Final = 512
"""What a cosine of 1 is in the tables: 120 full samples of it still fit into 32 bits, so every sum is exact."""
ROW: Final = 128
"""Entries of a tone in the tables: WINDOW, then zeros."""


def _table(frequencies: list[float]) -> Samples:
    """Cosine and sine of each."""
    angle = 2 * np.pi * np.array(frequencies)[:, None] * np.arange(WINDOW)[None, :] / RATE
    waves = np.zeros((len(frequencies), 2, ROW), np.int16)
    waves[:, 0, :WINDOW] = np.rint(SCALE * np.cos(angle))
    waves[:, 1, :WINDOW] = np.rint(SCALE * np.sin(angle))
    return waves


def _columns(table: Samples, kind: type = np.float64) -> npt.NDArray[Any]:
    return np.ascontiguousarray(table.reshape(-1, ROW)[:, :WINDOW].T, kind)


TONES: Final = _table([*LOW_HZ, *(f * (1 - DETUNE) for f in HIGH_HZ), *(f * (1 + DETUNE) for f in HIGH_HZ)])
HARMONICS: Final = _table([2.0 * f for f in (*LOW_HZ, *HIGH_HZ)])
_TONES, _HARMONICS, _LOW = _columns(TONES), _columns(HARMONICS), _columns(TONES[:4], np.float32)
_FULL: Final = WINDOW / 2 * SCALE**2
"""A sine of amplitude a has energy a*a*WINDOW/2 in a window, and _FULL times that in its tone's two columns."""
_LOW_SHARE: Final = SHARE * _FULL / (1 + REVERSE_TWIST)
"""With less, as part of a window's energy, no low tone is a key's. (Halved where sums are not exact.)"""
LIMITS: Final = np.array(
    [QUIET_PEAK, HITS, ENOUGH, MISSES, WINDOW * MIN_RMS**2, SHARE * _FULL, _LOW_SHARE / 2, TWIST, REVERSE_TWIST,
     STANDS_OUT, LOW_HARMONIC, HIGH_HARMONIC, LEVEL], np.float64,
)  # fmt: skip
"""For the compiled detector (media/native/keys.c)."""


def blank(legs: int) -> npt.NDArray[np.void]:
    """The state of legs that heard nothing."""
    state = np.zeros(legs, STATE)
    state["last"] = state["current"] = NONE
    return state


class Detector:
    """Finds keys in the audio of many legs. `state`: given arrays of `STATE`, one row per leg, to work on."""

    def __init__(self, legs: int, state: npt.NDArray[np.void] | None = None) -> None:
        self.state = blank(legs) if state is None else state
        self._tail: Samples = self.state["tail"]
        self._last: npt.NDArray[np.int8] = self.state["last"]
        self._run: npt.NDArray[np.uint8] = self.state["run"]
        self._current: npt.NDArray[np.int8] = self.state["current"]
        self._misses: npt.NDArray[np.uint8] = self.state["misses"]
        self._power: npt.NDArray[np.float32] = self.state["power"]
        self._energy: npt.NDArray[np.float32] = self.state["energy"]

    def reset(self, rows: Rows | int) -> None:
        """Forget what legs heard: rows that begin a new call."""
        self._tail[rows] = 0
        self._last[rows] = self._current[rows] = NONE
        self._run[rows] = self._misses[rows] = 0
        self._power[rows] = self._energy[rows] = 0

    def feed(self, rows: Rows, block: Samples) -> tuple[Rows, npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
        """Take the next 20 ms of some legs: `block[i]` is the audio of leg `rows[i]`.

        Returns what happened, in order of time: the legs' rows, the codes of the keys (`KEYS[code]`) and whether the
        key ended (True) or was pressed (False).
        """
        peak = np.maximum(block.max(axis=1), -(block.min(axis=1) + 1))
        busy = (peak >= QUIET_PEAK) | (self._last[rows] != NONE) | (self._current[rows] != NONE)
        at = np.flatnonzero(busy)
        if len(at) < len(rows):
            self._power[rows[~busy]] = 0
        if not len(at):
            self._tail[rows] = block[:, -TAIL:]
            return _NOTHING
        legs = rows[at]
        audio = np.empty((len(at), TAIL + TICK), np.int16)
        audio[:, :TAIL] = self._tail[legs]
        audio[:, TAIL:] = block[at]
        self._tail[rows] = block[:, -TAIL:]
        windows = np.concatenate((audio[:, :WINDOW], audio[:, HOP : HOP + WINDOW]))
        wide = windows.astype(np.float32)
        exact = np.einsum("ij,ij->i", windows, windows, dtype=np.int64, casting="safe")
        codes, power = _codes(windows, wide, exact), exact.astype(np.float32)
        half = len(at)
        first = self._step(legs, codes[:half], power[:half])
        second = self._step(legs, codes[half:], power[half:])
        happened = [part for part in (*first, *second) if len(part[0])]
        if not happened:
            return _NOTHING
        ended = np.concatenate([np.full(len(part[0]), part[2]) for part in happened])
        return np.concatenate([p[0] for p in happened]), np.concatenate([p[1] for p in happened]), ended

    def _step(
        self, legs: Rows, codes: npt.NDArray[np.int8], power: npt.NDArray[np.float32]
    ) -> tuple[tuple[Rows, npt.NDArray[np.int8], bool], tuple[Rows, npt.NDArray[np.int8], bool]]:
        """Advance the legs by one window: who ended a key, who pressed one."""
        hit = codes != NONE
        before = self._power[legs]
        level = (power > before * LEVEL) & (before > power * LEVEL)
        goes_on = hit & level & (codes == self._last[legs])
        run = np.where(goes_on, self._run[legs] + 1, hit)
        energy = power + np.where(goes_on, self._energy[legs], np.minimum(before, power))
        self._energy[legs] = energy
        self._last[legs] = codes
        self._power[legs] = power
        self._run[legs] = np.minimum(run, 200)
        current = self._current[legs]
        misses = np.where(codes == current, 0, np.minimum(self._misses[legs], 200) + 1)
        pressed = hit & (run >= HITS) & (energy >= ENOUGH * np.maximum(power, before)) & (codes != current)
        over = (current != NONE) & ((misses >= MISSES) | pressed)
        self._misses[legs] = np.where(pressed, 0, misses)
        self._current[legs] = np.where(pressed, codes, np.where(over, NONE, current))
        return (legs[over], current[over], True), (legs[pressed], codes[pressed], False)


_NOTHING: tuple[Rows, npt.NDArray[np.int8], npt.NDArray[np.bool_]] = (
    np.empty(0, np.intp), np.empty(0, np.int8), np.empty(0, np.bool_),
)  # fmt: skip


def _codes(windows: Samples, wide: npt.NDArray[np.float32], power: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
    """The key of each window, or NONE. `wide` is the same; `power` the sum of its squares."""
    codes = np.full(len(windows), NONE, np.int8)
    sums = wide @ _LOW
    sums *= sums
    at = np.flatnonzero(
        (power > WINDOW * MIN_RMS**2) & ((sums[:, ::2] + sums[:, 1::2]).max(axis=1) > _LOW_SHARE / 2 * power)
    )
    if not len(at):
        return codes
    energy = _energy(windows[at], _TONES)
    low = energy[:, :4]
    high = np.maximum(energy[:, 4:8], energy[:, 8:])
    best_low, best_high = low.max(axis=1), high.max(axis=1)
    hit = (
        (best_low + best_high > (SHARE * _FULL) * power[at])
        & (best_low < best_high * TWIST)
        & (best_high < best_low * REVERSE_TWIST)
    )
    at, low, high = at[hit], low[hit], high[hit]
    if not len(at):
        return codes
    which_low, which_high = low.argmax(axis=1), high.argmax(axis=1)
    best_low, best_high = best_low[hit], best_high[hit]
    overtone = _energy(windows[at], _HARMONICS)
    each = np.arange(len(at))
    good = (
        (best_low > STANDS_OUT * np.partition(low, 2, axis=1)[:, 2])
        & (best_high > STANDS_OUT * np.partition(high, 2, axis=1)[:, 2])
        & (overtone[each, which_low] < LOW_HARMONIC * best_low)
        & (overtone[each, 4 + which_high] < HIGH_HARMONIC * best_high)
    )
    codes[at[good]] = (which_low * 4 + which_high)[good]
    return codes


def _energy(windows: Samples, columns: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Of each tone in each window, exactly: doubles hold the sums as they are."""
    sums: npt.NDArray[np.int64] = (windows.astype(np.float64) @ columns).astype(np.int64)
    sums *= sums
    energy: npt.NDArray[np.int64] = sums[:, ::2] + sums[:, 1::2]
    return energy


def tone(frequencies: tuple[int, ...], ms: int, level_db: float = -16.0) -> Samples:
    """Sine waves, each of `level_db` dBm0 (0 dBm0: a sine 3.17 dB below full scale, ITU-T G.711)."""
    n = np.arange(ms * RATE // 1000)
    peak = amplitude(level_db)
    wave = np.zeros(len(n))
    for frequency in frequencies:
        wave += peak * np.sin(2 * np.pi * frequency * n / RATE)
    return np.clip(np.rint(wave), -32768, 32767).astype(np.int16)


def amplitude(level_db: float) -> float:
    """The peak sample value of a sine of `level_db` dBm0."""
    return float(32767 * 10 ** ((level_db - 3.17) / 20))


def key(digit: str, ms: int = 100, level_db: float = -10.0) -> Samples:
    """The samples of a key (0-9 * # A-D, in either case); `level_db` is each tone's. Raises ValueError."""
    code = KEYS.index(digit.upper())
    return tone((LOW_HZ[code // 4], HIGH_HZ[code % 4]), ms, level_db)
