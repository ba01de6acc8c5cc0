"""Wiring of traces and events: from the settings to the parts' lines, and the loops behind them."""

import asyncio
import contextlib
import socket
from time import monotonic
from typing import Any, Final

from trunkline import __version__
from trunkline.model.clock import Clock
from trunkline.settings import Settings
from trunkline.settings.telemetry import OFF
from trunkline.storage.written import Written
from trunkline.telemetry.events import Events
from trunkline.telemetry.otlp import Exporter
from trunkline.telemetry.stages import ARCHIVE, Line
from trunkline.telemetry.tracing import Tracer
from trunkline.webhooks.connection import Timeouts
from trunkline.webhooks.failures import Failure
from trunkline.webhooks.http import Client, Origin, build_request
from trunkline.webhooks.target import target

COLLECTOR_TIMEOUTS: Final = Timeouts(connect_s=2.0, read_s=5.0, total_s=5.0)
STOP_S: Final = 2.0
"""What a stop waits for the collector, seconds."""
MAX_ANSWER_BYTES: Final = 4096


class Collector:
    """Posts to the collector. Unlike a customer's URL, the operator's may be anywhere."""

    def __init__(self, url: str, authorization: str) -> None:
        self._to = target(url)
        self._headers = [("Content-Type", "application/json"), ("User-Agent", f"trunkline/{__version__}")]
        if authorization:
            self._headers.append(("Authorization", authorization))
        self._client = Client(max_per_host=1, max_total=1, max_waiting=4)

    async def post(self, body: bytes) -> int:
        """See `telemetry.otlp.Post`."""
        to = self._to
        try:
            async with asyncio.timeout(COLLECTOR_TIMEOUTS.total_s):
                found = await asyncio.get_running_loop().getaddrinfo(to.host, to.port, type=socket.SOCK_STREAM)
            origin = Origin(to.scheme, to.host, to.port, str(found[0][4][0]))
            payload = build_request("POST", to.path, to.host_header, self._headers, body)
            answer = await self._client.request(
                origin, payload, timeouts=COLLECTOR_TIMEOUTS, max_body_bytes=MAX_ANSWER_BYTES, truncate=True
            )
        except (Failure, OSError, TimeoutError):
            return 0
        return answer.status

    async def close(self) -> None:
        await self._client.close()


class Telemetry:
    """Traces and events of one node. `lines` are the parts' hand-overs; all of them make spans for one tracer."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        own = settings.telemetry
        self.tracer = Tracer(exporting=bool(own.otlp_endpoint), sample=own.sample)
        self.inbound = Line("inbound", more=("accept", ARCHIVE))
        """Messages that came in: accepted as soon as they are stored."""
        self.receipts = Line("receipt", more=("apply",))
        """Delivery receipts, until what they say is stored."""
        self.lines: list[Line] = [self.inbound, self.receipts]
        self.collector: Collector | None = None
        self.exporter: Exporter | None = None
        self.events: Events | None = None
        if own.otlp_endpoint:
            self.collector = Collector(own.otlp_endpoint, str(own.otlp_authorization))
            resource = {
                "service.name": "trunkline", "service.version": __version__,
                "service.instance.id": settings.node.name or socket.gethostname(),
                "deployment.environment.name": settings.profile,
            }  # fmt: skip
            self.exporter = Exporter(self.tracer, self.collector.post, resource, own.flush_s)
        if own.events != OFF:
            self.events = Events(own.events, settings.node.name, own.flush_s, clock.now_ms)
        self._tasks: list[asyncio.Task[None]] = []

    def wire(self, node: Any) -> None:
        """Take the parts' lines in, once they are all made."""
        self.lines[:0] = [node.inflight.line, *([node.voice.flights.line] if node.voice is not None else [])]
        self.lines.append(node.delivery.line)
        for line in self.lines:
            line.tracer = self.tracer
        node.landing.stages["inbound"] = self.inbound.stages[ARCHIVE]
        if node.voice is not None:
            node.landing.stages["call"] = node.voice.flights.line.stages[ARCHIVE]
        if self.events is not None:
            node.landing.told = self.events.landed

    def start(self) -> None:
        """Export and write until `stop`."""
        loop = asyncio.get_running_loop()
        parts = [part for part in (self.exporter, self.events) if part is not None]
        self._tasks = [loop.create_task(part.run()) for part in parts]

    async def stop(self) -> None:
        """What waits goes out, if that is done soon."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.events is not None:
            await self.events.flush()
        if self.exporter is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await self.exporter.flush(tries=1)
        if self.collector is not None:
            await self.collector.close()


class TimedSink:
    """What connectors hand over to (`messaging.connectors.base.Sink`), timed until it is kept."""

    def __init__(self, sink: Any, telemetry: Telemetry) -> None:
        self._sink = sink
        self._inbound = telemetry.inbound.stages["accept"]
        self._receipt = telemetry.receipts.stages["apply"]

    def receipt(self, receipt: Any) -> Any:
        """Next: trunkline.messaging.receipts.Receipts.apply"""
        return timed(self._receipt, self._sink.receipt(receipt))

    def inbound(self, part: Any) -> Any:
        """Next: trunkline.messaging.inbound.Inbound.receive"""
        return timed(self._inbound, self._sink.inbound(part))


def timed(stage: Any, kept: Any) -> Any:
    """`kept` (a future or a `Written`), whose time until it is done the stage gets."""
    began = monotonic()

    def left(done: Any) -> None:
        failed = (type(done) is not Written and done.cancelled()) or done.exception() is not None
        stage.left(monotonic() - began, failed)

    kept.add_done_callback(left)
    return kept
