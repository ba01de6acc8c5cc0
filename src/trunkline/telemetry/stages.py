"""Stages: what each part of the pipeline costs its work, without code in the part.

Theory. A flight's status is the stage that it stands in: a change of status *is* the hand-over between two stages. So
the stores that keep working copies (`inflight.store`, `voice.flights`) hand every change to their `Line`, which knows
from a table which stage has ended and which begins; count, errors, time and spans follow. What has no status (a
callback, a document, an inbound message until it is stored) is timed where it is called, by `Stage.left`.

Costs: about a microsecond a hand-over; no object a flight beyond two fields of the working copy.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Any, Final, Protocol

from trunkline.telemetry.envelope import Envelope
from trunkline.telemetry.tracing import NOT_TRACED, Tracer

BOUNDS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0, 3600.0,
)  # fmt: skip
"""Upper bounds of the histograms, seconds."""
NOTED: Final = 512
"""Times of a stage that are sorted into its histogram together."""
ACCEPT, LANE, SUBMIT, RECEIPT, ARCHIVE = "accept", "lane", "submit", "receipt", "archive"
SET_UP, UP, DOCUMENT, VERB = "set-up", "up", "document", "verb"


class Stage:
    """The figures of one stage. Only an event loop's thread writes them.

    Times are noted as they come, and sorted into the histogram some hundreds at once: that is half of the cost.
    """

    __slots__ = ("_buckets", "_sum_s", "_wait_buckets", "_wait_s", "errors", "name", "noted", "span", "waits")

    def __init__(self, name: str, line: str) -> None:
        self.name = name
        self.span = f"{line} {name}"
        self.errors = 0
        self.noted: list[float] = []
        """Seconds not sorted yet; who appends calls `sort` when there are NOTED."""
        self.waits: list[float] = []
        self._buckets = [0] * (len(BOUNDS_S) + 1)
        self._sum_s = 0.0
        self._wait_buckets = [0] * (len(BOUNDS_S) + 1)
        self._wait_s = 0.0

    @property
    def buckets(self) -> list[int]:
        """How often it took up to BOUNDS_S[i]; the last: longer."""
        self.sort()
        return self._buckets

    @property
    def sum_s(self) -> float:
        """Seconds altogether."""
        self.sort()
        return self._sum_s

    @property
    def wait_buckets(self) -> list[int]:
        """As `buckets`, of the time before the stage began to work."""
        self.sort()
        return self._wait_buckets

    @property
    def wait_s(self) -> float:
        """As `sum_s`, of the time before the stage began to work."""
        self.sort()
        return self._wait_s

    @property
    def count(self) -> int:
        """How much work has left it."""
        return sum(self.buckets)

    def left(self, seconds: float, failed: bool = False) -> None:
        """Work has left the stage."""
        noted = self.noted
        noted.append(seconds)
        if failed:
            self.errors += 1
        if len(noted) >= NOTED:
            self.sort()

    def waited(self, seconds: float) -> None:
        """Work that came so long ago is begun."""
        waits = self.waits
        waits.append(seconds)
        if len(waits) >= NOTED:
            self.sort()

    def sort(self) -> None:
        """Put what is noted into the histograms."""
        self._sum_s += _into(self._buckets, self.noted)
        self._wait_s += _into(self._wait_buckets, self.waits)


def _into(buckets: list[int], seconds: list[float]) -> float:
    """Count them in the buckets and forget them; their sum."""
    if not seconds:
        return 0.0
    seconds.sort()
    total, before = sum(seconds), 0
    for place, bound in enumerate(BOUNDS_S):
        upto = bisect_right(seconds, bound, before)
        buckets[place] += upto - before
        before = upto
    buckets[-1] += len(seconds) - before
    seconds.clear()
    return total


class Standing(Protocol):
    """A working copy, as far as its stage is concerned."""

    stage: Stage | None
    since: float
    """When it came into the stage (`time.monotonic`)."""


class Line:
    """The stages of one kind of work. `statuses`: which stage a flight of a status stands in; `failures`: the statuses
    that make the stage before them an error; `more`: stages without a status of their own."""

    def __init__(
        self,
        name: str,
        statuses: Mapping[str, str] | None = None,
        *,
        failures: Iterable[str] = (),
        more: Iterable[str] = (),
    ) -> None:
        self.name = name
        statuses = statuses or {}
        names = dict.fromkeys([*more, *statuses.values()])
        self.stages = {stage: Stage(stage, name) for stage in names}
        self._of = {status: self.stages[stage] for status, stage in statuses.items()}
        self._failures = frozenset(failures)
        self.tracer: Tracer = NOT_TRACED

    def of_kind(self, name: str) -> Stage:
        """A stage by its name, made when it is first asked for: the names must be from a table."""
        stage = self.stages.get(name)
        if stage is None:
            stage = self.stages[name] = Stage(name, self.name)
        return stage

    def begin(self, one: Standing, record: Envelope) -> str:
        """New work is being accepted; its record gets its `traceparent`. Returns the id of the parent's span."""
        one.stage = self.stages[ACCEPT]
        one.since = monotonic()
        if record.traceparent or self.tracer.sample:
            record.traceparent, parent = self.tracer.begin(record.traceparent)
            return parent
        return ""

    def accepted(self, one: Standing, record: Envelope, status: str, now_ms: int, parent: str, failed: bool) -> None:
        """It is stored, or could not be."""
        stage, now = self.stages[ACCEPT], monotonic()
        if one.stage is not stage:
            return  # it has gone on meanwhile (a caller who hangs up at once)
        seconds = now - one.since
        stage.left(seconds, failed)
        if record.traceparent:
            self.tracer.stage(record, stage.span, seconds, failed, parent)
        record.stages[ACCEPT] = now_ms - record.created_ms
        one.stage, one.since = self._of.get(status), now

    def take_up(self, one: Standing, status: str, age_s: float) -> None:
        """Work is read from the store, where it has stood for so long."""
        one.stage, one.since = self._of.get(status), monotonic() - max(0.0, age_s)

    def hand_over(self, one: Standing, record: Envelope, status: str, now_ms: int, failed: bool = False) -> None:
        """Work goes on to another status. `failed`: what it comes from has not done its part."""
        stage, following = one.stage, self._of.get(status)
        if stage is following:
            return
        now = monotonic()
        if stage is not None:
            seconds = now - one.since
            failed = failed or status in self._failures
            noted = stage.noted
            noted.append(seconds)
            if failed:
                stage.errors += 1
            if len(noted) >= NOTED:
                stage.sort()
            record.stages[stage.name] = now_ms - record.created_ms
            if record.traceparent:
                self.tracer.stage(record, stage.span, seconds, failed)
        one.stage, one.since = following, now


def standing(copies: Iterable[Any]) -> dict[str, int]:
    """How many working copies stand in each stage, by its name."""
    counts: dict[str, int] = {}
    for copy in copies:
        if copy.stage is not None:
            counts[copy.stage.name] = counts.get(copy.stage.name, 0) + 1
    return counts


def of_messages() -> Line:
    """The line of messages that go out (model.message.Status)."""
    ends = dict.fromkeys(("delivered", "undelivered", "failed", "canceled", "read", "received"), ARCHIVE)
    statuses = {"accepted": LANE, "queued": LANE, "sending": SUBMIT, "sent": RECEIPT, **ends}
    return Line("message", statuses, failures=("failed", "undelivered"), more=(ACCEPT,))


def of_calls() -> Line:
    """The line of calls (model.call.Status); documents and verbs run while it is set up or up."""
    ends = dict.fromkeys(("completed", "busy", "failed", "no-answer", "canceled"), ARCHIVE)
    statuses = {"queued": LANE, "initiated": SET_UP, "ringing": SET_UP, "in-progress": UP, **ends}
    return Line("call", statuses, failures=("failed",), more=(ACCEPT, DOCUMENT, VERB))
