"""The `[telemetry]` section: traces and events (metrics are always there, at `/metrics`)."""

import re
from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from trunkline.settings.kinds import Seconds, Secret, Section

Share = Annotated[float, Meta(ge=0, le=1)]
"""A part of the whole, 0 to 1."""
OFF, STDERR = "off", "stderr"


class Telemetry(Section, frozen=True, kw_only=True):
    """Traces by OpenTelemetry's OTLP/HTTP, and one line of JSON a flight."""

    otlp_endpoint: str = ""
    """Where spans are posted as OTLP/JSON, e.g. `http://127.0.0.1:4318/v1/traces`; empty: none are made. A request's
    own `traceparent` is passed on all the same."""
    otlp_authorization: Secret = Secret("")
    """`Authorization` header for the collector, e.g. `Bearer ...`; empty: none."""
    sample: Share = 0.01
    """Share of messages and calls that is traced where the request brought no `traceparent`."""
    flush_s: Seconds = 1.0
    """Longest time that a span or an event waits for others to leave with it."""
    events: str = OFF
    """Where one JSON line of every message and call that has landed goes: the path of a file, `stderr` or `off`."""


def telemetry_problems(own: Telemetry) -> Iterator[str]:
    """What does not fit together, one line each."""
    if own.otlp_endpoint and not re.match(r"https?://[^/\s@]+/\S*\Z", own.otlp_endpoint):
        yield f"telemetry.otlp_endpoint: {own.otlp_endpoint[:80]!r} is not http://HOST:4318/v1/traces (or https)"
    if own.otlp_authorization and not own.otlp_endpoint:
        yield "telemetry.otlp_authorization: is of no use without telemetry.otlp_endpoint; add that or remove this"
