"""What waits: in the lanes of the queue by connector, for webhooks, and at carriers' binds.

The queue is asked at a scrape, at most every LOOK_S; what it said last is shown meanwhile, and while it is away.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily

from trunkline.storage.queue import Queue
from trunkline.storage.unavailable import StoreUnavailable

LOOK_S: Final = 5.0
"""Shortest time between two looks into the queue."""
WAIT_S: Final = 2.0
"""What a scrape waits for the queue, seconds."""

log = logging.getLogger("trunkline.metrics")


class Depths:
    """See the module."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._looked = float("-inf")
        self._lanes: Counter[str] = Counter()
        self._oldest_due_ms: dict[str, int] = {}
        self._owed = 0
        self._hosts = 0

    async def look(self) -> None:
        """Ask the queue, if that was not done just now."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        try:
            async with asyncio.timeout(WAIT_S):
                lanes = await self._queue.lanes()
                hosts = await self._queue.owed_hosts()
        except (StoreUnavailable, TimeoutError) as error:
            log.warning("the depth of the queue cannot be told: %s", error or "it takes too long")
            return
        found: Counter[str] = Counter()
        oldest: dict[str, int] = {}
        for name, count, due_ms in lanes:
            kind = name.partition("|")[0]
            found[kind] += count
            oldest[kind] = min(due_ms, oldest.get(kind, due_ms))
        self._lanes, self._oldest_due_ms = found, oldest
        self._owed, self._hosts = sum(count for _, count, _ in hosts), len(hosts)

    def families(self, delivery: Any) -> Iterator[Any]:
        """The gauges."""
        waiting = GaugeMetricFamily("trunkline_lane_waiting", "Messages in the lanes of a connector", labels=["kind"])
        late = GaugeMetricFamily(
            "trunkline_lane_late_seconds", "How long the first of them has been due", labels=["kind"]
        )
        now_ms = time.time_ns() // 1_000_000
        for kind, count in sorted(self._lanes.items()):
            waiting.add_metric([kind], count)
            late.add_metric([kind], max(0, now_ms - self._oldest_due_ms[kind]) / 1000)
        yield waiting
        yield late
        yield GaugeMetricFamily("trunkline_callbacks_owed", "Callbacks that are not delivered yet", self._owed)
        yield GaugeMetricFamily("trunkline_callback_hosts", "Hosts that they are for", self._hosts)
        yield GaugeMetricFamily("trunkline_callbacks_under_way", "Attempts under way", delivery.under_way)


def of_binds(connectors: Mapping[str, Any], smpp_server: Any) -> Iterator[Any]:
    """SMPP binds to carriers by their state, and those of customers' own clients."""
    binds = GaugeMetricFamily(
        "trunkline_smpp_binds", "SMPP binds to carriers, by what they are and whether they are up",
        labels=["connector", "bind", "state"],
    )  # fmt: skip
    for name, connector in connectors.items():
        real = getattr(connector, "real", connector)  # of a connector that several nodes share, only the holder's
        told: list[tuple[str, bool]] = real.binds() if hasattr(real, "binds") else []
        for (kind, up), count in sorted(Counter(told).items()):
            binds.add_metric([name, kind, "up" if up else "down"], count)
    yield binds
    yield GaugeMetricFamily("trunkline_smpp_clients", "Binds of customers' SMPP clients", smpp_server.bound_clients)
