"""A clock that moves only when it is told, with the timers that hang on it."""

import heapq
import itertools
from collections.abc import Callable

START_MS = 1_767_225_600_000
"""2026-01-01T00:00:00Z."""


class ManualTimer:
    """A call that is to come."""

    __slots__ = ("_callback", "when")

    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self._callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """It will not come."""
        self._callback = None

    def fire(self) -> None:
        """Call it, once, unless it was cancelled."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class ManualClock:
    """A `model.clock.Clock` and the `Timers` of connectors in one; `advance` moves both."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self._start_ms = now_ms
        self._elapsed_s = 0.0
        self._timers: list[tuple[float, int, ManualTimer]] = []
        self._order = itertools.count()

    def now_ms(self) -> int:
        """Unix milliseconds."""
        return self._start_ms + round(self._elapsed_s * 1000)

    def monotonic(self) -> float:
        """Seconds since the clock was made."""
        return self._elapsed_s

    def call_later(self, delay: float, callback: Callable[[], object], /) -> ManualTimer:
        """Call `callback` when the clock has been advanced by `delay` seconds."""
        timer = ManualTimer(self._elapsed_s + max(0.0, delay), callback)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Move on, firing what comes due in order, each at its own time; equal times in the order they were set."""
        end = self._elapsed_s + seconds
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            self._elapsed_s = max(self._elapsed_s, when)
            timer.fire()
        self._elapsed_s = max(self._elapsed_s, end)
