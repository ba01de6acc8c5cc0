"""Failed logins by source address, in fixed windows; bounded in sources, the longest unseen goes first."""

from collections import OrderedDict
from collections.abc import Callable, Mapping

from trunkline.cluster.shared_counts import Events


class FailedLogins:
    """Up to `most` failures of one source in `window_s`, of at most `sources` of them.

    A `trunkline.cluster.shared_counts.Shared`: what fails at other nodes counts here, too.
    """

    def __init__(self, most: int, window_s: float, sources: int, monotonic: Callable[[], float]) -> None:
        self._most = most
        self._window_s = window_s
        self._sources = sources
        self._monotonic = monotonic
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._events: Events | None = None

    def __len__(self) -> int:
        return len(self._windows)

    def left_s(self, source: str) -> float:
        """For how long this source is not to be heard; 0: it may try."""
        window = self._windows.get(source)
        if window is None or window[1] < self._most:
            return 0.0
        left = window[0] + self._window_s - self._monotonic()
        if left > 0:
            return left
        del self._windows[source]
        return 0.0

    def record(self, source: str) -> None:
        """Count one failure."""
        if self._events is not None:
            self._events.note(source)
        self._add(source, 1)

    def told(self) -> dict[str, int]:
        """See `Shared`; from the first time on failures are counted for it."""
        if self._events is None:
            self._events = Events()
        return self._events.told()

    def heard(self, node: str, counts: Mapping[str, int]) -> None:
        """What failed at another node."""
        for source, count in counts.items():
            self._add(source, count)

    def _add(self, source: str, failures: int) -> None:
        now = self._monotonic()
        start, count = self._windows.pop(source, (now, 0))
        if now - start >= self._window_s:
            start, count = now, 0
        self._windows[source] = start, count + failures
        if len(self._windows) > self._sources:
            self._windows.popitem(last=False)
