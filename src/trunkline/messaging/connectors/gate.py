"""How many messages a connector may take now: window, pacing and pauses after trouble.

Theory: three independent limits, of which the tightest counts. The *window* bounds what is under way. The *pace* is a
token bucket in segments (a message's segments are spent when it is taken, so the bucket may go below zero and is
repaid by waiting). The *pause* closes the gate after trouble, twice as long each time it comes again; when a pause is
over one message goes first, as a probe, and its success opens the gate wholly. No I/O; times are monotonic seconds.
"""

from typing import Final

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
BURST_S: Final = 0.1  # of the pace, what may go at once after silence
TOLERATED: Final = 5  # failures in a row, each maybe its message's own fault, before they count as the carrier's
MAX_ROOM: Final = 10_000  # messages


class Gate:
    """See the module. Tell it `took`, `answered` and one of `good`, `bad`, `pause` for each message."""

    __slots__ = ("_burst", "_failures", "_filled", "_open_at", "_pauses", "_tokens", "busy", "mps", "window")

    def __init__(self, window: int, mps: float, now: float) -> None:
        self.window = window
        self.mps = mps
        self.busy = 0
        """Messages under way."""
        self._burst = max(1.0, mps * BURST_S)
        self._tokens = self._burst
        self._filled = now
        self._open_at = now
        self._pauses = 0
        self._failures = 0

    @property
    def probing(self) -> bool:
        """Whether nothing has succeeded since the last pause."""
        return self._pauses > 0

    def room(self, now: float) -> int:
        """Messages that may be taken now."""
        if now < self._open_at:
            return 0
        room = (1 if self._pauses else self.window) - self.busy
        if self.mps:
            self._fill(now)
            room = min(room, int(self._tokens))
        return max(0, room)

    def wait_s(self, now: float) -> float:
        """Seconds until time alone may make room; 0: it cannot, or there is room."""
        wait = max(0.0, self._open_at - now)
        if self.mps:
            self._fill(now)
            if self._tokens < 1:
                wait = max(wait, (1 - self._tokens) / self.mps)
        return wait

    def took(self, segments: int, now: float) -> None:
        """A message is under way."""
        self.busy += 1
        if self.mps:
            self._fill(now)
            self._tokens -= segments

    def answered(self) -> None:
        """It no longer is."""
        self.busy -= 1

    def good(self) -> None:
        """The carrier works."""
        self._failures = self._pauses = 0

    def bad(self, now: float, *, certain: bool) -> float:
        """It does not; `certain` where a message cannot be at fault. Returns the pause in seconds, 0 for none."""
        self._failures += 1
        if now < self._open_at:
            return self._open_at - now  # these were under way when the pause began
        if not certain and self._failures < TOLERATED:
            return 0.0
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**self._pauses)
        self._pauses = min(self._pauses + 1, 16)
        self._open_at = now + pause
        return pause

    def pause(self, seconds: float, now: float) -> None:
        """The carrier asked for patience; that is no failure."""
        self._open_at = max(self._open_at, now + min(seconds, LONGEST_PAUSE_S))

    def _fill(self, now: float) -> None:
        if now > self._filled:
            self._tokens = min(self._burst, self._tokens + (now - self._filled) * self.mps)
            self._filled = now
