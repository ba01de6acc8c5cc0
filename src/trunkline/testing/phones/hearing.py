"""Hearing: whether some audio contains a reference recording, by the audio alone.

The reference is cut into windows of 100 ms. Where the whole may lie is found by normalised cross-correlation of a few
half-second anchors; then every window must correlate with what was heard at its place. A few windows may fit but for
up to two of their 20 ms (a packet was lost, dropped or repeated on the way), and fewer still (MAX_FAILED) not at all:
another word fails. Windows that the phone knows to be lost do not count. Places may slip by whole packets, as a jitter
buffer drops or repeats one, never by less.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from trunkline.testing.phones.heard import FRAME, Mask, Samples

WINDOW: Final = 800
HOP: Final = 400
"""Samples: windows of 100 ms, each half over the next."""
WINDOW_MATCH: Final = 0.65
"""Correlation of a window that fits: G.711 alone leaves 0.99, two lost packets of five 0.77."""
PATCHED_MATCH: Final = 0.8
"""Correlation of what is left of a window without its two worst parts of 20 ms."""
SWALLOWED: Final = 0.15
"""A part whose level is below this share of what it should be was swallowed."""
MAX_PATCHED: Final = 0.12
"""Share of the windows that may fit only so, and two more."""
ANCHOR: Final = 4000
ANCHOR_MATCH: Final = 0.5
ANCHOR_CANDIDATES: Final = 8
"""Best places of an anchor that are looked at, per piece of audio."""
MAX_CANDIDATES: Final = 64
MAX_FAILED: Final = 0.02
"""Share of the sounding windows that may fail."""
MAX_RUN: Final = 2
"""Windows in a row that may fail."""
MAX_LOST: Final = 0.4
"""Share of the windows that may be lost on the way."""
SLIP: Final = 12
"""Samples (1.5 ms) that a window may lie beside its place."""
FRAMES: Final = (0, -1, 1, -2, 2)
"""Packets that may have been dropped or repeated between two windows."""
QUIET: Final = 0.1
"""A window whose level is below this share of the reference's loudest is silence..."""
TOO_LOUD: Final = 0.35
"""... and must not be louder than this share of it where it is heard."""
LEAST_LEVEL: Final = 20.0
"""RMS below which nothing sounds (about -61 dBm0)."""
APART: Final = 80
"""Two candidates are at least so many samples apart."""

Floats = npt.NDArray[np.float64]


class Match(NamedTuple):
    """Where the reference was heard: positions of its first sample and after its last, and the share that fitted."""

    start: int
    end: int
    score: float


class Silent(ValueError):
    """The reference has no sound to listen for."""


class Listener:
    """Looks for one reference in audio that grows. Raises Silent."""

    def __init__(self, reference: Samples, start: int = 0) -> None:
        """`start`: the position in the audio from which on it may lie."""
        self._reference = trimmed(reference)
        if not len(self._reference):
            raise Silent("there is no sound in it")
        if len(self._reference) < WINDOW:
            self._reference = np.pad(self._reference, (0, WINDOW - len(self._reference)))
        floats = self._reference.astype(np.float64)
        self._starts = np.array([*range(0, len(floats) - WINDOW, HOP), len(floats) - WINDOW])
        self._windows = np.stack([floats[start : start + WINDOW] for start in self._starts])
        levels = np.sqrt((self._windows**2).mean(axis=1))
        self._loudest = float(levels.max())
        self._sounds = levels >= max(QUIET * self._loudest, LEAST_LEVEL)
        if not self._sounds.any():
            raise Silent("it is too quiet to listen for")
        self._anchors = self._choose_anchors(floats)
        self._searched = start
        self._start = start
        self._candidates: list[int] = []
        self.best = Match(start, start, 0.0)
        """The best that was found so far, whether it is a match or not."""

    def _choose_anchors(self, floats: Floats) -> list[tuple[int, Floats]]:
        """(offset, audio): the beginning, the end and the loudest part."""
        size = min(ANCHOR, len(floats))
        energy = np.concatenate(([0.0], np.cumsum(floats**2)))
        loudest = int(np.argmax(energy[size:] - energy[:-size]))
        return [(at, floats[at : at + size]) for at in sorted({0, loudest, len(floats) - size})]

    def listen(self, heard: Samples, there: Mask) -> Match | None:
        """Look at all that was heard so far (from position 0 on); the match, once it is there."""
        end = len(heard)
        size = len(self._anchors[0][1])
        if end - self._searched >= size:
            region = heard[self._searched : end].astype(np.float64)
            for offset, anchor in self._anchors:
                for place in _places(region, anchor):
                    self._add(self._searched + place - offset)
            self._searched = end - size + 1
        later = []
        for candidate in self._candidates:
            if candidate + len(self._reference) > end:
                later.append(candidate)
                continue
            match, good = self._judge(candidate, heard, there)
            if match.score >= self.best.score:
                self.best = match
            if good:
                return match
        self._candidates = later
        return None

    def _add(self, candidate: int) -> None:
        if candidate < self._start - SLIP or any(abs(candidate - other) < APART // 4 for other in self._candidates):
            return
        self._candidates.append(candidate)
        if len(self._candidates) > MAX_CANDIDATES:
            del self._candidates[0]

    def _judge(self, place: int, heard: Samples, there: Mask) -> tuple[Match, bool]:
        """How well the reference fits at a place, and whether that is enough."""
        fits = patched = failed = run = longest = counted = lost = slip = 0
        for start, window, sounds in zip(self._starts, self._windows, self._sounds, strict=True):
            at = max(place + int(start) + slip, 0)
            if np.count_nonzero(there[at : at + WINDOW]) < WINDOW * (1 - MAX_LOST):
                lost += 1
                continue
            if sounds:
                counted += 1
                before = slip
                good, whole, slip = _fits(window, heard, place + int(start), slip)
                if slip != before and 0 < run <= MAX_RUN:  # those before it lie over the cut
                    failed, patched = failed - run, patched + run
                fits += good
                patched += good and not whole
            else:
                piece = heard[at : at + WINDOW].astype(np.float64)
                good = not len(piece) or rms(piece) <= TOO_LOUD * self._loudest
            run = 0 if good else run + 1
            failed += not good
            longest = max(longest, run)
        score = fits / counted if counted else 0.0
        enough = counted >= (1 - MAX_LOST) * np.count_nonzero(self._sounds) and lost <= MAX_LOST * len(self._starts)
        few = failed <= MAX_FAILED * len(self._starts) and patched <= MAX_PATCHED * counted + 2
        good = bool(enough and few and longest <= MAX_RUN)
        return Match(max(place, 0), place + len(self._reference) + slip, round(score, 3)), good


def rms(piece: Floats) -> float:
    """Its level."""
    return float(np.sqrt((piece**2).mean()))


def trimmed(samples: Samples) -> Samples:
    """The audio without silence at its ends."""
    loud = np.nonzero(np.abs(samples.astype(np.int32)) > LEAST_LEVEL * 2)[0]
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples[:0]


def _fits(window: Floats, heard: Samples, place: int, slip: int) -> tuple[bool, bool, int]:
    """Whether a window is heard at its place, whether whole, and how much the places have slipped since the start."""
    patched = -1
    for frames in FRAMES:
        at = place + slip + frames * FRAME - SLIP
        piece = heard[max(at, 0) : at + WINDOW + 2 * SLIP].astype(np.float64)
        if len(piece) < WINDOW:
            continue
        best = correlation(piece, window)
        where = int(best.argmax())
        if float(best[where]) >= WINDOW_MATCH:
            return True, True, (max(at, 0) + where - place if frames else slip)
        if patched < 0 and _patched(piece[where : where + WINDOW], window) >= PATCHED_MATCH:
            patched = frames
    return patched >= 0, False, slip


def _patched(piece: Floats, window: Floats) -> float:
    """Correlation without the two of the five parts that fit worst."""
    pieces, windows = piece.reshape(-1, FRAME), window.reshape(-1, FRAME)
    products = (pieces * windows).sum(axis=1)
    one, other = (pieces**2).sum(axis=1), (windows**2).sum(axis=1)
    share = products / np.maximum(np.sqrt(one * other), 1.0)
    share[one < SWALLOWED**2 * other] = -2.0  # silence instead of sound: that packet is lost
    kept = share.argsort()[2:]
    norm = float(np.sqrt(one[kept].sum() * other[kept].sum()))
    certain = share.min() == -2.0 or other[kept].sum() >= other.sum() / 3
    return float(products[kept].sum()) / norm if norm and certain else 0.0


def correlation(audio: Floats, pattern: Floats) -> Floats:
    """Normalised cross-correlation of a pattern with each place of the audio: -1 to 1, 0 where it is silent."""
    size = len(pattern)
    places = len(audio) - size + 1
    if places <= 0:
        return np.zeros(0)
    if places <= 4 * SLIP:
        products = np.lib.stride_tricks.sliding_window_view(audio, size) @ pattern
    else:
        length = 1 << (len(audio) - 1).bit_length()
        spectrum = np.fft.rfft(audio, length) * np.conj(np.fft.rfft(pattern, length))
        products = np.fft.irfft(spectrum, length)[:places]
    energy = np.concatenate(([0.0], np.cumsum(audio**2)))
    energies = np.maximum(energy[size:] - energy[:-size], 0.0)
    norm = np.sqrt(energies * float(pattern @ pattern))
    least = LEAST_LEVEL * np.sqrt(size) * np.sqrt(float(pattern @ pattern))
    return np.where(norm >= least / 4, products / np.maximum(norm, 1e-9), 0.0)


def _places(audio: Floats, anchor: Floats) -> list[int]:
    """The best places of an anchor, at least APART samples from each other."""
    scores = correlation(audio, anchor)
    found: list[int] = []
    for _ in range(ANCHOR_CANDIDATES):
        if not len(scores):
            break
        place = int(scores.argmax())
        if scores[place] < ANCHOR_MATCH:
            break
        found.append(place)
        scores[max(place - APART, 0) : place + APART] = 0
    return found
