"""What a phone has heard: the audio that came in, each sample at the place that its RTP timestamp gives it.

Nothing is smoothed or concealed: what did not come is silence and is marked as missing, so that a judgement about the
audio can tell loss from quiet. Positions are samples (8000 a second) since the first packet of the call.
"""

from collections import deque
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

RATE: Final = 8000
"""Samples a second of G.711."""
FRAME: Final = 160
"""Samples in 20 ms."""
MAX_HEARD_S: Final = 900
"""Audio that is kept of one call; what comes after is dropped (and `full` says so)."""
MAX_JUMP: Final = 10 * RATE
"""A timestamp that is further away than this starts a new stream (RFC 3550 leaves that to the receiver)."""
MAX_ARRIVALS: Final = 50_000
"""Packets whose time of arrival is kept; the oldest leave first."""
_FIRST: Final = 4 * RATE
_WRAP: Final = 1 << 32

Samples = npt.NDArray[np.int16]
Mask = npt.NDArray[np.bool_]


class Arrival(NamedTuple):
    """One packet of audio."""

    position: int
    length: int
    at_s: float
    """Monotonic seconds."""


class Heard:
    """See the module. Grows as audio comes, up to MAX_HEARD_S."""

    def __init__(self) -> None:
        self._samples: Samples = np.zeros(_FIRST, np.int16)
        self._there: Mask = np.zeros(_FIRST, np.bool_)
        self.end = 0
        """Where the next sample in order would go."""
        self.arrivals: deque[Arrival] = deque(maxlen=MAX_ARRIVALS)
        self.packets = 0
        self.repeated = 0
        """Packets whose place was filled already."""
        self.full = False
        self.longest_gap_s = 0.0
        """Longest time between the arrivals of two packets."""
        self._ssrc = -1
        self._base = 0
        """RTP timestamp of position `_origin`."""
        self._origin = 0

    def take(self, ssrc: int, timestamp: int, samples: Samples, at_s: float) -> None:
        """Put one packet's audio where it belongs."""
        offset = (timestamp - self._base + _WRAP // 2) % _WRAP - _WRAP // 2
        position = self._origin + offset
        if ssrc != self._ssrc or abs(position - self.end) > MAX_JUMP:
            self._ssrc, self._base, self._origin = ssrc, timestamp, self.end
            position = self.end
        length = len(samples)
        if position < 0:
            return
        if position + length > MAX_HEARD_S * RATE:
            self.full = True
            return
        self._make_room(position + length)
        self.packets += 1
        if self.arrivals:
            self.longest_gap_s = max(self.longest_gap_s, at_s - self.arrivals[-1].at_s)
        self.arrivals.append(Arrival(position, length, at_s))
        if self._there[position : position + length].any():
            self.repeated += 1
            return
        self._samples[position : position + length] = samples
        self._there[position : position + length] = True
        self.end = max(self.end, position + length)

    def samples(self, start: int = 0, end: int | None = None) -> Samples:
        """The audio; a view that is only good until more comes."""
        return self._samples[start : self.end if end is None else min(end, self.end)]

    def there(self, start: int = 0, end: int | None = None) -> Mask:
        """Which of those samples came."""
        return self._there[start : self.end if end is None else min(end, self.end)]

    @property
    def missing(self) -> int:
        """Samples that did not come (or have not yet)."""
        return int(self.end - np.count_nonzero(self._there[: self.end]))

    def _make_room(self, needed: int) -> None:
        if needed <= len(self._samples):
            return
        size = min(max(needed, 2 * len(self._samples)), MAX_HEARD_S * RATE)
        for name in ("_samples", "_there"):
            old = getattr(self, name)
            new = np.zeros(size, old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)
