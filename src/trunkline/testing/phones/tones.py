"""Tones, keys and silence in what was heard, window by window, and a description of it in words."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from trunkline.testing.phones.heard import RATE, Mask, Samples

WINDOW: Final = 240
HOP: Final = 80
"""Samples: 30 ms, every 10 ms."""
PURITY: Final = 0.85
"""Share of a window's energy that its tones must have."""
TOLERANCE: Final = 0.02
"""Of a frequency."""
LEAST_TONE_HZ: Final = 20.0
"""Two frequencies closer than this are not told apart in a window."""
SECOND: Final = 0.1
"""A second tone has at least this share of the first one's power."""
SILENCE_RMS: Final = 60.0
"""RMS up to which there is silence (about -52 dBm0)."""
FULL_SCALE_DBM0: Final = 3.14
"""Level of a sine at full scale in G.711 mu-law (ITU-T G.711)."""
LEAST_MS: Final = 30
"""Shorter stretches are left out."""
MAX_STRETCHES: Final = 40
"""Stretches that a description names."""

ROWS: Final = (697, 770, 852, 941)
COLUMNS: Final = (1209, 1336, 1477, 1633)
KEYS: Final = ("123A", "456B", "789C", "*0#D")

Floats = npt.NDArray[np.float64]


class Stretch(NamedTuple):
    """A time in which one thing was heard. Positions are samples."""

    start: int
    end: int
    what: str
    """`silence`, `lost`, `sound`, `tone` or `key`."""
    frequencies: tuple[int, ...] = ()
    key: str = ""
    level_db: float = 0.0
    """dBm0."""

    @property
    def ms(self) -> int:
        return (self.end - self.start) * 1000 // RATE


def sine(frequencies: Sequence[float], ms: int, level_db: float = -16.0) -> Samples:
    """Tones together, each at a level in dBm0; no frequency is silence."""
    time = np.arange(ms * RATE // 1000) / RATE
    peak = 32124 * 10 ** ((level_db - FULL_SCALE_DBM0) / 20)
    total = np.zeros(len(time))
    for frequency in frequencies:
        total += peak * np.sin(2 * np.pi * frequency * time)
    return np.clip(total, -32124, 32124).astype(np.int16)


def keys(digits: str, on_ms: int = 100, off_ms: int = 100) -> Samples:
    """DTMF in the audio, -8 dBm0 a tone. Raises ValueError for what is no key."""
    pieces = []
    for digit in digits:
        pieces += [sine(pair_of(digit), on_ms, -8), sine((), off_ms)]
    return np.concatenate(pieces) if pieces else sine((), 0)


def pair_of(digit: str) -> tuple[int, int]:
    """The two frequencies of a key. Raises ValueError."""
    for row, line in zip(ROWS, KEYS, strict=True):
        if digit and digit.upper() in line:
            return row, COLUMNS[line.index(digit.upper())]
    raise ValueError(f"{digit!r} is no key of a telephone")


def stretches(samples: Samples, there: Mask | None = None) -> list[Stretch]:
    """What was heard, one after the other; stretches shorter than LEAST_MS are left out."""
    found: list[Stretch] = []
    for start in range(0, len(samples) - WINDOW + 1, HOP):
        lost = there is not None and not there[start : start + WINDOW].any()
        now = Stretch(start, start + HOP, "lost") if lost else _window(samples[start : start + WINDOW], start)
        if found and _alike(found[-1], now):
            last = found[-1]
            found[-1] = last._replace(end=now.end, level_db=max(last.level_db, now.level_db))
        else:
            found.append(now)
    return [stretch for stretch in found if stretch.ms >= LEAST_MS]


def keys_in(samples: Samples) -> str:
    """The DTMF keys in the audio, in order."""
    return "".join(stretch.key for stretch in stretches(samples) if stretch.what == "key")


def find_tone(samples: Samples, frequencies: Sequence[float], least_ms: int, start: int = 0) -> tuple[int, int] | None:
    """Where these tones (and nothing else) sound for so long, from `start` on: positions; None if nowhere."""
    began = -1
    for at in range(start, len(samples) - WINDOW + 1, HOP):
        piece = samples[at : at + WINDOW].astype(np.float64)
        if float(np.sqrt((piece**2).mean())) > SILENCE_RMS and _explained(piece, frequencies) >= PURITY:
            began = at if began < 0 else began
            if at + WINDOW - began >= least_ms * RATE // 1000:
                return began, at + WINDOW
        else:
            began = -1
    return None


def find_silence(samples: Samples, least_ms: int, start: int = 0) -> tuple[int, int] | None:
    """Where it is silent for so long, from `start` on: positions; None if nowhere."""
    needed = least_ms * RATE // 1000
    began = start
    for at in range(start, len(samples) - HOP + 1, HOP):
        piece = samples[at : at + HOP].astype(np.float64)
        if float(np.sqrt((piece**2).mean())) > SILENCE_RMS:
            began = at + HOP
        elif at + HOP - began >= needed:
            return began, at + HOP
    return None


def describe(samples: Samples, there: Mask | None = None) -> str:
    """In words: `0.3 s silence, 1.0 s tone 440 Hz at -16 dBm0, key 5, 2.1 s sound at -20 dBm0`."""
    found = stretches(samples, there)
    words = [_words(stretch) for stretch in _joined(found)]
    if len(words) > MAX_STRETCHES:
        words = [*words[: MAX_STRETCHES // 2], "...", *words[-MAX_STRETCHES // 2 :]]
    return ", ".join(words) or "nothing"


def _joined(found: Iterable[Stretch]) -> list[Stretch]:
    """Sound with short tones in it (as speech has) is sound."""
    joined: list[Stretch] = []
    for stretch in found:
        if stretch.what == "tone" and stretch.ms < 3 * LEAST_MS:
            stretch = stretch._replace(what="sound", frequencies=())
        if joined and joined[-1].what == stretch.what and stretch.what in ("sound", "silence", "lost"):
            last = joined[-1]
            joined[-1] = last._replace(end=stretch.end, level_db=max(last.level_db, stretch.level_db))
        else:
            joined.append(stretch)
    return joined


def _words(stretch: Stretch) -> str:
    seconds = f"{stretch.ms / 1000:.1f} s"
    level = f" at {stretch.level_db:.0f} dBm0"
    if stretch.what == "key":
        return f"key {stretch.key}"
    if stretch.what == "tone":
        return f"{seconds} tone {'+'.join(map(str, stretch.frequencies))} Hz{level}"
    return f"{seconds} {stretch.what}" + (level if stretch.what == "sound" else "")


def _alike(one: Stretch, other: Stretch) -> bool:
    if (one.what, one.key) != (other.what, other.key) or len(one.frequencies) != len(other.frequencies):
        return False
    return all(
        abs(a - b) <= max(TOLERANCE * a, LEAST_TONE_HZ) for a, b in zip(one.frequencies, other.frequencies, strict=True)
    )


def _window(samples: Samples, start: int) -> Stretch:
    piece = samples.astype(np.float64)
    rms = float(np.sqrt((piece**2).mean()))
    if rms <= SILENCE_RMS:
        return Stretch(start, start + HOP, "silence")
    level = 20 * np.log10(rms * np.sqrt(2) / 32124) + FULL_SCALE_DBM0
    frequencies = _frequencies(piece)
    if not frequencies or _explained(piece, frequencies) < PURITY:
        return Stretch(start, start + HOP, "sound", level_db=level)
    key = _key(frequencies)
    if key:
        return Stretch(start, start + HOP, "key", key=key, level_db=level)
    return Stretch(start, start + HOP, "tone", tuple(round(one) for one in frequencies), level_db=level)


def _frequencies(piece: Floats) -> tuple[float, ...]:
    """The one or two strongest frequencies of a window, lowest first."""
    size = 2048
    power = np.abs(np.fft.rfft(piece * np.hanning(len(piece)), size)) ** 2
    first = int(power.argmax())
    strongest = power[first]
    found = [_peak(power, first) * RATE / size]
    near = int(68 * size / RATE)  # the width of the window's own peak
    power[max(first - near, 0) : first + near] = 0
    second = int(power.argmax())
    if power[second] >= SECOND * strongest:
        found.append(_peak(power, second) * RATE / size)
    return tuple(sorted(found))


def _peak(power: Floats, at: int) -> float:
    """The place of a peak between the bins, by a parabola."""
    if not 0 < at < len(power) - 1:
        return float(at)
    left, middle, right = (float(np.log(power[at + step] + 1e-9)) for step in (-1, 0, 1))
    curve = left - 2 * middle + right
    return at + (0.5 * (left - right) / curve if curve else 0.0)


def _explained(piece: Floats, frequencies: Sequence[float]) -> float:
    """The share of a window's energy that sines of these frequencies (any phase, none much weaker) make up."""
    time = np.arange(len(piece)) / RATE
    columns = [wave(2 * np.pi * frequency * time) for frequency in frequencies for wave in (np.sin, np.cos)]
    basis = np.stack(columns, axis=1)
    solution, *_ = np.linalg.lstsq(basis, piece, rcond=None)
    powers = solution[::2] ** 2 + solution[1::2] ** 2
    if powers.min() < SECOND * powers.max():
        return 0.0
    rest = piece - basis @ solution
    return 1 - float(rest @ rest) / max(float(piece @ piece), 1e-9)


def _key(frequencies: tuple[float, ...]) -> str:
    if len(frequencies) != 2:
        return ""
    row, column = (
        next((index for index, exact in enumerate(bank) if abs(one - exact) <= TOLERANCE * exact), -1)
        for one, bank in zip(frequencies, (ROWS, COLUMNS), strict=True)
    )
    return KEYS[row][column] if row >= 0 and column >= 0 else ""
