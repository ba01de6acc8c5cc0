"""Traces: who decides that work is traced, and where its spans wait to be exported.

Spans are made only for work whose record carries a sampled `traceparent`; everything else costs one look at an empty
string. A span is a tuple in a bounded queue; what does not fit is dropped and counted.
"""

import random
import time
from collections import deque
from typing import Final, NamedTuple

from trunkline.telemetry import traceparent
from trunkline.telemetry.envelope import Envelope

MAX_SPANS: Final = 4096
"""Spans that wait for the exporter (about 0.5 KB each)."""
NS_PER_S: Final = 1_000_000_000
INTERNAL, CLIENT = 1, 3
"""Span kinds of OTLP."""


class Span(NamedTuple):
    """One stage of one piece of work, at its end. Times are Unix nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start_ns: int
    end_ns: int
    failed: bool
    attributes: tuple[tuple[str, str | int], ...]
    kind: int = INTERNAL


class Tracer:
    """See the module. `sample`: share of new work that is traced where nobody has decided yet."""

    def __init__(self, *, exporting: bool = False, sample: float = 0.0) -> None:
        self.exporting = exporting
        self.sample = sample if exporting else 0.0
        self.spans: deque[Span] = deque()
        self.dropped = 0
        """Spans that found the queue full, or that the collector would not take."""
        self.begun = 0
        """Pieces of work that are traced."""

    def begin(self, given: str) -> tuple[str, str]:
        """The `traceparent` of new work, and the span that it is a child of. `given`: what the request brought; it is
        passed on as it is where this node makes no span of its own. Empty strings: neither."""
        parent = traceparent.parse(given) if given else None
        if parent is not None:
            if not (parent.sampled and self.exporting):
                return given.strip(), ""
            self.begun += 1
            return traceparent.build(parent.trace_id, traceparent.new_span()), parent.span_id
        if self.sample and random.random() < self.sample:
            self.begun += 1
            return traceparent.build(traceparent.new_trace(), traceparent.new_span()), ""
        return "", ""

    def span(
        self,
        given: str,
        name: str,
        seconds: float,
        *,
        failed: bool = False,
        own_id: str = "",
        root_of: str | None = None,
        attributes: tuple[tuple[str, str | int], ...] = (),
        kind: int = INTERNAL,
    ) -> None:
        """A stage of work with the `traceparent` `given` has ended just now. `root_of`: it is the span that the
        `traceparent` itself names, and this is its parent's id (or empty)."""
        parent = traceparent.parse(given) if self.exporting else None
        if parent is None or not parent.sampled:
            return
        if len(self.spans) >= MAX_SPANS:
            self.dropped += 1
            return
        end = time.time_ns()
        own, above = (parent.span_id, root_of) if root_of is not None else (own_id, parent.span_id)
        self.spans.append(
            Span(
                parent.trace_id, own or traceparent.new_span(), above, name, end - int(seconds * NS_PER_S), end, failed,
                attributes, kind,
            )
        )  # fmt: skip

    def stage(self, record: Envelope, name: str, seconds: float, failed: bool, root_of: str | None = None) -> None:
        """A stage of a flight has ended."""
        attributes: tuple[tuple[str, str | int], ...] = (("trunkline.sid", record.sid),)
        if root_of is not None:
            attributes += (
                ("trunkline.account", record.account_sid), ("trunkline.origin", record.origin),
                ("trunkline.token", record.token), ("trunkline.deadline_ms", record.deadline_ms),
            )  # fmt: skip
        self.span(record.traceparent, name, seconds, failed=failed, root_of=root_of, attributes=attributes)


NOT_TRACED: Final = Tracer()
"""Passes on what was given, and makes nothing."""
