"""What a run has found so far: counts, a bounded sample of disagreements with both sides, and what it cost."""

import statistics
from typing import Any, Final

import msgspec

from trunkline.learning.views import ASPECTS

MAX_TIMES: Final = 2000
"""Latencies kept of each side: the newest."""
MAX_SHOWN: Final = 4000
"""Characters of one side of a sample."""
ERRORS: Final = "errors"


class Count(msgspec.Struct):
    """Of one aspect."""

    agree: int = 0
    disagree: int = 0
    unclear: int = 0
    """The candidate and the control agree with each other and not with production: the learner could not follow."""


class Sample(msgspec.Struct):
    """One disagreement."""

    aspect: str
    sid: str
    production: str
    candidate: str
    at_ms: int


class Cost(msgspec.Struct):
    """Of one side."""

    done: int = 0
    cpu_ms: float = 0.0
    times_ms: list[float] = []
    errors: int = 0
    """Work that raised."""
    deaths: int = 0
    """Ends of the process that nobody asked for, and those because it took too long."""
    missed: int = 0
    """Work of which it had not seen the beginning."""

    def add(self, ms: float, cpu_ms: float) -> None:
        """One piece of work."""
        self.done += 1
        self.cpu_ms += cpu_ms
        self.times_ms = [*self.times_ms[-MAX_TIMES + 1 :], ms]

    def quantile(self, share: float) -> float:
        """Of its latencies, milliseconds."""
        times = sorted(self.times_ms)
        return times[min(len(times) - 1, int(share * len(times)))] if times else 0.0

    @property
    def median_ms(self) -> float:
        """Of its latencies."""
        return statistics.median(self.times_ms) if self.times_ms else 0.0

    @property
    def cpu_each_ms(self) -> float:
        """CPU of a piece of work, on average."""
        return self.cpu_ms / self.done if self.done else 0.0


class Tally(msgspec.Struct):
    """`tally.json`."""

    state: str = "starting"
    """`starting`, `learning`, or why it has ended."""
    updated_ms: int = 0
    nodes: int = 0
    """Nodes that feed it now."""
    work: int = 0
    """Pieces of work that were followed and compared."""
    shed_by_node: int = 0
    """What the node did not hand over: too fast, too large, or the learner was not there."""
    shed_here: int = 0
    """What was handed over and could not wait."""
    counts: dict[str, Count] = msgspec.field(default_factory=lambda: {name: Count() for name in ASPECTS})
    samples: list[Sample] = []
    candidate: Cost = msgspec.field(default_factory=Cost)
    control: Cost = msgspec.field(default_factory=Cost)

    def note(self, aspect: str, sid: str, production: Any, candidate: Any, at_ms: int, most: int) -> None:
        """Keep a sample, if there is room for it."""
        if sum(one.aspect == aspect for one in self.samples) < most:
            self.samples.append(Sample(aspect, sid, _shown(production), _shown(candidate), at_ms))


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode(errors="replace")
    return text[:MAX_SHOWN]
