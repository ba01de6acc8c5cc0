"""How much one account may ask of the API."""

from collections.abc import Callable, Mapping

from trunkline.cluster.shared_counts import Events
from trunkline.model.errors import ApiError


class RequestRate:
    """A token bucket per account, filled at `per_second` and holding one second's worth (at least one request).

    Raises 20429 when it is empty. Accounts have logged in before they are counted, so their number is bounded by
    the accounts there are; full buckets are forgotten when there are more than `max_buckets`.

    A `trunkline.cluster.shared_counts.Shared`: what accounts ask of other nodes is taken from the bucket, too.
    """

    def __init__(self, per_second: float, monotonic: Callable[[], float], max_buckets: int = 10_000) -> None:
        self._per_second = per_second
        self._size = max(per_second, 1.0)
        self._monotonic = monotonic
        self._max_buckets = max_buckets
        self._buckets: dict[str, tuple[float, float]] = {}
        self._events: Events | None = None

    def take(self, account_sid: str) -> None:
        """Count one request."""
        now = self._monotonic()
        left, at = self._buckets.get(account_sid, (self._size, now))
        left = min(self._size, left + (now - at) * self._per_second)
        if left < 1.0:
            wait = (1.0 - left) / self._per_second
            raise ApiError.of(20429, headers=(("Retry-After", str(int(wait) + 1)),))
        self._buckets[account_sid] = left - 1.0, now
        if self._events is not None:
            self._events.note(account_sid)
        if len(self._buckets) > self._max_buckets:
            self._forget_full(now)

    def told(self) -> dict[str, int]:
        """See `Shared`; from the first time on requests are counted for it."""
        if self._events is None:
            self._events = Events()
        return self._events.told()

    def heard(self, node: str, counts: Mapping[str, int]) -> None:
        """What accounts have asked of another node within a second; they owe one second's worth at most for it."""
        now = self._monotonic()
        for account_sid, count in counts.items():
            left, at = self._buckets.get(account_sid, (self._size, now))
            left = min(self._size, left + (now - at) * self._per_second)
            self._buckets[account_sid] = max(left - count, -self._size), now
        if len(self._buckets) > self._max_buckets:
            self._forget_full(now)

    def _forget_full(self, now: float) -> None:
        self._buckets = {
            sid: (left, at)
            for sid, (left, at) in self._buckets.items()
            if left + (now - at) * self._per_second < self._size
        }
