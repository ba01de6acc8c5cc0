"""The stages of the pipeline (trunkline.telemetry.stages), and what tells of them."""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from trunkline.telemetry.stages import BOUNDS_S, Line

ENDS = [str(bound) for bound in BOUNDS_S] + ["+Inf"]
LABELS = ["line", "stage"]


def of_stages(node: Any) -> Iterator[Any]:
    """Count, errors, time and waiting time of each stage, and how much stands in it."""
    seconds = HistogramMetricFamily("trunkline_stage_seconds", "Time in a stage of the pipeline", labels=LABELS)
    waits = HistogramMetricFamily("trunkline_stage_wait_seconds", "Time before a stage began to work", labels=LABELS)
    errors = CounterMetricFamily("trunkline_stage_errors", "Work that left a stage in error", labels=LABELS)
    lines: Sequence[Line] = node.telemetry.lines
    for line in lines:
        for stage in line.stages.values():
            labels = [line.name, stage.name]
            seconds.add_metric(labels, buckets=_buckets(stage.buckets), sum_value=stage.sum_s)
            errors.add_metric(labels, stage.errors)
            if any(stage.wait_buckets):
                waits.add_metric(labels, buckets=_buckets(stage.wait_buckets), sum_value=stage.wait_s)
    yield seconds
    yield waits
    yield errors
    inside = GaugeMetricFamily("trunkline_stage_in_flight", "Work in memory that stands in a stage", labels=LABELS)
    standing = {"message": node.inflight.standing()}
    if node.voice is not None:
        standing["call"] = node.voice.flights.standing()
    for name, counts in standing.items():
        for stage_name, count in sorted(counts.items()):
            inside.add_metric([name, stage_name], count)
    yield inside


def of_telemetry(telemetry: Any) -> Iterator[Any]:
    """What became of spans and events."""
    tracer, exporter, events = telemetry.tracer, telemetry.exporter, telemetry.events
    yield CounterMetricFamily("trunkline_traces", "Messages and calls that are traced", tracer.begun)
    spans = CounterMetricFamily("trunkline_spans", "Spans, by what became of them", labels=["what"])
    spans.add_metric(["exported"], exporter.exported if exporter is not None else 0)
    spans.add_metric(["dropped"], tracer.dropped)
    yield spans
    lines = CounterMetricFamily("trunkline_events", "Events, by what became of them", labels=["what"])
    lines.add_metric(["written"], events.written if events is not None else 0)
    lines.add_metric(["dropped"], events.dropped if events is not None else 0)
    yield lines


def _buckets(counts: Sequence[int]) -> list[tuple[str, float]]:
    return list(zip(ENDS, map(float, accumulate(counts)), strict=True))
