"""Pacing a bind that its SMSC throttles (ESME_RTHROTTLED, ESME_RMSGQFUL): AIMD, without I/O or clock.

Theory: as long as nothing is throttled there is no pace. The first refusal sets one, a little below the rate at which
answers had come back, which is what the SMSC has shown it takes; each later refusal lowers it by a factor. In between
it grows by a fixed share of that rate per second. Refusals shortly after a decrease belong to requests sent before
it, so they change nothing. Without a usable measurement, and once the SMSC has refused nothing for a while, the pace
doubles every second until it is refused.
"""

from typing import Final

INITIAL_RATE: Final = 10.0  # messages/s, when nothing is known
MIN_RATE: Final = 0.5  # messages/s
DECREASE: Final = 0.9
INCREASE_PER_S: Final = 0.05  # of the rate at the last refusal
COOL_DOWN_S: Final = 0.5
QUIET_S: Final = 5.0  # without a refusal: the limit has gone up, so search for it
RELEASE_AFTER_S: Final = 60.0  # without a refusal: no pace any more
BURST_S: Final = 0.05  # what may be caught up after a pause
_MEASURE_S: Final = 1.0
_MIN_MEASURE_S: Final = 0.2


class Pacer:
    """Ask `delay` before each message, tell it `sent`, then `accepted` or `throttled`. Times are seconds."""

    __slots__ = (
        "_accepted",
        "_last_refusal",
        "_measured",
        "_next_send",
        "_rate",
        "_searching",
        "_since",
        "_step",
        "_updated",
    )

    def __init__(self, now: float) -> None:
        self._rate: float | None = None
        self._step = 0.0
        self._searching = False
        self._next_send = now
        self._updated = now
        self._last_refusal = -COOL_DOWN_S
        self._since = now  # start of the current measurement
        self._accepted = 0
        self._measured: float | None = None

    @property
    def rate(self) -> float | None:
        """Messages per second, `None` when unlimited."""
        return self._rate

    def delay(self, now: float) -> float:
        """Seconds to wait before the next message; 0 or less: send it."""
        return 0.0 if self._rate is None else self._next_send - now

    def sent(self, now: float) -> None:
        """A message has gone out."""
        if self._rate is not None:
            self._grow(now)
            self._next_send = max(self._next_send, now - BURST_S) + 1.0 / (self._rate or MIN_RATE)

    def accepted(self, now: float) -> None:
        """The SMSC has taken a message."""
        self._accepted += 1
        elapsed = now - self._since
        if elapsed >= _MEASURE_S:
            self._measured = self._accepted / elapsed
            self._since = now
            self._accepted = 0

    def throttled(self, now: float) -> None:
        """The SMSC has refused a message for its rate; send it again, first, when `delay` allows."""
        if now - self._last_refusal < COOL_DOWN_S:
            return
        self._grow(now)
        taken = self._taken_rate(now)
        guessed = self._rate is None and taken is None and self._accepted > 0
        if guessed:  # too soon to tell; too high a guess is refused again, and measured by then
            taken = self._accepted / _MIN_MEASURE_S
        if self._rate is None and taken is None:
            self._rate = INITIAL_RATE
            self._step = INITIAL_RATE * INCREASE_PER_S
            self._searching = True
        else:
            refused_at = min(rate for rate in (self._rate, taken) if rate)
            self._rate = max(MIN_RATE, refused_at * DECREASE)
            self._step = max(MIN_RATE, refused_at) * INCREASE_PER_S
            self._searching = guessed
        self._last_refusal = self._updated = now
        self._next_send = now + 1.0 / self._rate

    def _taken_rate(self, now: float) -> float | None:
        elapsed = now - self._since
        if elapsed >= _MIN_MEASURE_S and self._accepted:
            return self._accepted / elapsed
        return self._measured

    def _grow(self, now: float) -> None:
        if self._rate is None:
            return
        if now - self._last_refusal >= RELEASE_AFTER_S:
            self._rate = None
            self._measured = None
            return
        if now - self._last_refusal >= QUIET_S:
            self._searching = True
        elapsed = now - self._updated
        self._updated = now
        self._rate = self._rate * 2.0**elapsed if self._searching else self._rate + self._step * elapsed
