"""What waits for senders at the other nodes of a cluster: a sender's queue is full (21611) by all nodes together."""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from trunkline.cluster.shared_counts import MAX_TOLD

NOTABLE: Final = 50
"""Segments of a sender that wait at a node before the others are told."""
OLD_S: Final = 5.0
"""What a node said so long ago counts no more."""


class Queues(Protocol):
    """What is needed of `trunkline.messaging.outbound.Outbound`."""

    waiting: dict[str, int]
    waiting_elsewhere: dict[str, int]


class SharedWaiting:
    """A `trunkline.cluster.shared_counts.Shared`. `now` is monotonic seconds."""

    def __init__(self, queues: Queues, now: Callable[[], float]) -> None:
        self._queues = queues
        self._now = now
        self._heard: dict[str, tuple[Mapping[str, int], float]] = {}

    def told(self) -> dict[str, int]:
        """The longest."""
        if any(self._now() - at > OLD_S for _, at in self._heard.values()):
            self._add_up()
        found = [(key, count) for key, count in self._queues.waiting.items() if count >= NOTABLE]
        if len(found) > MAX_TOLD:
            found = sorted(found, key=lambda one: -one[1])[:MAX_TOLD]
        return dict(found)

    def heard(self, node: str, counts: Mapping[str, int]) -> None:
        """All that waits there."""
        if counts or node in self._heard:
            self._heard[node] = (counts, self._now())
            self._add_up()

    def _add_up(self) -> None:
        now = self._now()
        self._heard = {node: heard for node, heard in self._heard.items() if now - heard[1] <= OLD_S}
        total: dict[str, int] = {}
        for counts, _ in self._heard.values():
            for key, count in counts.items():
                total[key] = total.get(key, 0) + count
        self._queues.waiting_elsewhere = total
