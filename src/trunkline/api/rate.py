"""How much one account may ask of the API."""

from collections.abc import Callable

from trunkline.model.errors import ApiError


class RequestRate:
    """A token bucket per account, filled at `per_second` and holding one second's worth (at least one request).

    Raises 20429 when it is empty. Accounts have logged in before they are counted, so their number is bounded by
    the accounts there are; full buckets are forgotten when there are more than `max_buckets`.
    """

    def __init__(self, per_second: float, monotonic: Callable[[], float], max_buckets: int = 10_000) -> None:
        self._per_second = per_second
        self._size = max(per_second, 1.0)
        self._monotonic = monotonic
        self._max_buckets = max_buckets
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, account_sid: str) -> None:
        """Count one request."""
        now = self._monotonic()
        left, at = self._buckets.get(account_sid, (self._size, now))
        left = min(self._size, left + (now - at) * self._per_second)
        if left < 1.0:
            wait = (1.0 - left) / self._per_second
            raise ApiError.of(20429, headers=(("Retry-After", str(int(wait) + 1)),))
        self._buckets[account_sid] = left - 1.0, now
        if len(self._buckets) > self._max_buckets:
            self._forget_full(now)

    def _forget_full(self, now: float) -> None:
        self._buckets = {
            sid: (left, at)
            for sid, (left, at) in self._buckets.items()
            if left + (now - at) * self._per_second < self._size
        }
