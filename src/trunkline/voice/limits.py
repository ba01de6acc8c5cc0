"""How many calls may start a second, and run at once: of an account, of a trunk.

A `Pace` lets calls start evenly: `calls_per_second` of them a second, the first ones at once up to a second's worth.
A rate or number of 0 is no limit.
"""

from collections.abc import Callable

BURST_S = 1.0
"""Seconds' worth of starts that may come together after a pause (at least one)."""


class Pace:
    """A token bucket on monotonic seconds."""

    __slots__ = ("_at", "_most", "_tokens", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._most = max(1.0, rate * BURST_S)
        self._tokens = self._most
        self._at = now

    def wait_s(self, now: float) -> float:
        """Seconds until one more may start; 0: now."""
        if self.rate <= 0:
            return 0.0
        self._tokens = min(self._most, self._tokens + (now - self._at) * self.rate)
        self._at = now
        return 0.0 if self._tokens >= 1 else (1 - self._tokens) / self.rate

    def take(self, now: float) -> bool:
        """Start one, if it may start now."""
        if self.wait_s(now) > 0:
            return False
        if self.rate > 0:
            self._tokens -= 1
        return True

    def idle(self, now: float) -> bool:
        """Whether it is as if it had never been used."""
        return self.wait_s(now) == 0.0 and self._tokens >= self._most


class CallLimit:
    """The pace and the number of calls of one account or trunk."""

    __slots__ = ("at_once", "pace", "running")

    def __init__(self, calls_per_second: float, at_once: int, now: float) -> None:
        self.pace = Pace(calls_per_second, now)
        self.at_once = at_once
        self.running = 0

    @property
    def full(self) -> bool:
        """Whether one must end before another may begin."""
        return 0 < self.at_once <= self.running

    def begin(self, now: float) -> bool:
        """Count one more, if it may start now; then `end` must follow."""
        if self.full or not self.pace.take(now):
            return False
        self.running += 1
        return True

    def join(self) -> bool:
        """Count one more without regard to the pace (a child leg); False when there are as many as may be."""
        if self.full:
            return False
        self.running += 1
        return True

    def force(self) -> None:
        """Count one more whatever the limits (an emergency call); then `end` must follow."""
        self.running += 1

    def end(self) -> None:
        """One that was counted has ended."""
        self.running = max(0, self.running - 1)


MAX_IDLE = 10_000
"""Accounts whose limits are remembered though nothing of them runs."""


class AccountLimits:
    """The limits of every account that has made calls lately."""

    def __init__(self, calls_per_second: float, at_once: int, now: Callable[[], float]) -> None:
        self._rate = calls_per_second
        self._at_once = at_once
        self._now = now
        self._accounts: dict[str, CallLimit] = {}

    def of(self, account: str) -> CallLimit:
        """An account's own."""
        limit = self._accounts.get(account)
        if limit is None:
            if len(self._accounts) >= MAX_IDLE:
                self._forget()
            limit = self._accounts[account] = CallLimit(self._rate, self._at_once, self._now())
        return limit

    def _forget(self) -> None:
        now = self._now()
        idle = [sid for sid, one in self._accounts.items() if not one.running and one.pace.idle(now)]
        for sid in idle:
            del self._accounts[sid]
