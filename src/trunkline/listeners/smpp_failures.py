"""Failed binds: an address that has failed too often is not listened to for a while."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from trunkline.cluster.shared_counts import Events

MAX_FAILED_BINDS: Final = 20
"""Of one address in a minute; then its connections are closed unheard."""
FAILED_BIND_WINDOW_S: Final = 60.0
MAX_SOURCES: Final = 10_000
"""Addresses with failed binds that are remembered; the longest unseen goes first."""


class Failures:
    """See the module; a `trunkline.cluster.shared_counts.Shared`: what fails at other nodes counts here, too."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._events: Events | None = None

    def banned(self, source: str) -> bool:
        """Whether an address has failed too often."""
        count, since = self._failed.get(source, (0, 0.0))
        return count >= MAX_FAILED_BINDS and self._monotonic() - since < FAILED_BIND_WINDOW_S

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
        count, since = self._failed.pop(source, (0, now))
        if now - since >= FAILED_BIND_WINDOW_S:
            count, since = 0, now
        self._failed[source] = (count + failures, since)
        if len(self._failed) > MAX_SOURCES:
            self._failed.popitem(last=False)
