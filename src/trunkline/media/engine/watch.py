"""Silence, speech and time-outs of legs."""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from trunkline.media.engine.jitter import QUIET
from trunkline.media.engine.state import FRAME, RATE, Rows, State

SPEECH: Final = RATE // 10
"""Samples of voice (100 ms, with pauses up to PAUSE between) that are speech."""
PAUSE: Final = RATE // 5
"""Samples of silence (200 ms) after which voice counts anew."""


class Watch:
    """`silent(row, silent, ms)` and `timed_out(row)` are called when it is so."""

    def __init__(
        self, state: State, *, silent: Callable[[int, bool, int], None], timed_out: Callable[[int], None]
    ) -> None:
        self._state = state
        self._silent = silent
        self._timed_out = timed_out

    def detect(self, row: int, samples: int) -> None:
        """Begin to tell (0: stop telling) about a leg."""
        state = self._state
        state.detect[row], state.quiet_told[row] = samples, -1
        state.quiet[row] = state.voiced[row] = 0

    def listen(self, rows: Rows, energy: npt.NDArray[np.float32]) -> None:
        """Follow the legs' audio."""
        state = self._state
        rows = rows[state.detect[rows] > 0]
        if not len(rows):
            return
        voice = energy[rows] >= QUIET
        quiet = np.where(voice, 0, state.quiet[rows] + FRAME)
        voiced = np.where(voice, state.voiced[rows] + FRAME, np.where(quiet > PAUSE, 0, state.voiced[rows]))
        state.quiet[rows], state.voiced[rows] = quiet, voiced
        told = state.quiet_told[rows]
        fell = (quiet >= state.detect[rows]) & (told != 1)
        rose = (voiced >= SPEECH) & (told != 0)
        for i in np.flatnonzero(fell | rose):
            row = int(rows[i])
            state.quiet_told[row] = int(fell[i])
            self._silent(row, bool(fell[i]), int(quiet[i] if fell[i] else voiced[i]) * 1000 // RATE)

    def check(self, tick: int) -> None:
        """Who has heard nothing, neither RTP nor RTCP, for its time. Legs on hold expect nothing."""
        state = self._state
        waits = (state.active != 0) & (state.timeout > 0) & (state.receive != 0)
        over = waits & (tick - state.last_heard >= state.timeout)
        for row in np.flatnonzero(over & (state.timed_out == 0)).tolist():
            self._timed_out(row)
        state.timed_out[:] = over
