"""How long a stop may take: one deadline for all that is waited for, one after the other."""

import time
from collections.abc import Callable
from typing import Final

LAST_S: Final = 2.0
"""What each step gets at least, seconds, where those before it have used up the time (less where the whole is less)."""


class Grace:
    """What is left of the time of a stop."""

    def __init__(self, whole_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._whole_s = whole_s
        self._now = now
        self._end: float | None = None

    def begin(self) -> None:
        """The stop begins, if it has not yet."""
        if self._end is None:
            self._end = self._now() + self._whole_s

    def left(self) -> float:
        """Seconds for the next step; the whole time before there is a stop."""
        if self._end is None:
            return self._whole_s
        return max(self._end - self._now(), min(LAST_S, self._whole_s))
