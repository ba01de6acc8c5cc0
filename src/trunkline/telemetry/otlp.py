"""Export of spans by OTLP/HTTP with JSON (opentelemetry.io/docs/specs/otlp, section OTLP/HTTP).

One batch is under way at a time. A collector that says "not now" (429, 502, 503, 504), or is away, is asked again a
few times; then the batch is dropped and counted. Meanwhile spans wait in the tracer's bounded queue, or are dropped
there: a collector that is away costs the pipeline nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import orjson

from trunkline.telemetry.tracing import Span, Tracer

MAX_BATCH: Final = 256
"""Spans of one request."""
TRIES: Final = 3
"""Requests for one batch."""
RETRY_S: Final = 1.0
"""Wait before the second request for a batch; the third waits twice that."""
AGAIN: Final = frozenset({429, 502, 503, 504})
"""Statuses that the specification calls retryable."""
ERROR: Final = 2
"""STATUS_CODE_ERROR."""

Post = Callable[[bytes], Awaitable[int]]
"""Posts a body to the collector; the answer's HTTP status, 0 where none came. Never raises."""

log = logging.getLogger("trunkline.telemetry")


class Exporter:
    """See the module. `resource`: what is said of this process, e.g. `service.name`."""

    def __init__(self, tracer: Tracer, post: Post, resource: dict[str, str], flush_s: float) -> None:
        self._tracer = tracer
        self._post = post
        self._resource = [_attribute(name, value) for name, value in resource.items()]
        self._flush_s = flush_s
        self._told = False
        self.exported = 0
        """Spans that the collector took."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._flush_s)
            try:
                await self.flush()
            except Exception:
                log.exception("spans could not be exported")

    async def flush(self, tries: int = TRIES) -> None:
        """Export what waits now."""
        waiting = len(self._tracer.spans)
        while waiting > 0:
            batch = [self._tracer.spans.popleft() for _ in range(min(MAX_BATCH, len(self._tracer.spans)))]
            if not batch:
                return
            waiting -= len(batch)
            await self._export(batch, tries)

    async def _export(self, batch: Sequence[Span], tries: int) -> None:
        body = encode(batch, self._resource)
        status = 0
        try:
            for attempt in range(tries):
                status = await self._post(body)
                if status and status not in AGAIN:
                    break
                if attempt + 1 < tries:
                    await asyncio.sleep(RETRY_S * (attempt + 1))
        finally:  # a stop may come between two tries
            if 200 <= status < 300:
                self.exported += len(batch)
            else:
                self._tracer.dropped += len(batch)
        if 200 <= status < 300:
            self._told = False
            return
        if not self._told:
            self._told = True
            log.warning("spans are dropped: the collector %s", f"answers {status}" if status else "cannot be reached")


def encode(spans: Sequence[Span], resource: list[dict[str, Any]]) -> bytes:
    """An ExportTraceServiceRequest as JSON: ids in hex, 64-bit integers as strings."""
    scope = {"scope": {"name": "trunkline"}, "spans": [_span(span) for span in spans]}
    return orjson.dumps({"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [scope]}]})


def _span(span: Span) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(span.start_ns),
        "endTimeUnixNano": str(span.end_ns),
        "attributes": [_attribute(name, value) for name, value in span.attributes],
    }
    if span.parent_id:
        shown["parentSpanId"] = span.parent_id
    if span.failed:
        shown["status"] = {"code": ERROR}
    return shown


def _attribute(name: str, value: str | int) -> dict[str, Any]:
    return {"key": name, "value": {"stringValue": value} if isinstance(value, str) else {"intValue": str(value)}}
