"""What a run shows, and whether it is good enough."""

from typing import Final, NamedTuple

from trunkline.learning.tally import Count, Tally
from trunkline.learning.views import ASPECTS

MINIMUM: Final = 100
"""Pieces of work without which nothing is shown."""
CPU_MORE: Final = 50.0
"""Per cent of CPU, and of median latency, that a candidate may take above the control's."""
UNCLEAR: Final = 0.05
"""Share of an aspect in which the learner may fail to do what production did; above it, the aspect shows nothing."""


class Verdict(NamedTuple):
    """Why a candidate does not agree; nothing: it agrees."""

    problems: list[str]
    told: str
    """In a line, for a release's evidence."""


def judge(tally: Tally, *, minimum: int, expected: frozenset[str], more: float = CPU_MORE) -> Verdict:
    """Whether a candidate did as production. `expected`: aspects in which it is meant to differ."""
    problems = []
    if tally.state.startswith("failed"):
        problems.append(f"the run has {tally.state}")
    if tally.work < minimum:
        problems.append(f"{tally.work} pieces of work were compared, fewer than {minimum}")
    for aspect, count in tally.counts.items():
        total = count.agree + count.disagree + count.unclear
        if count.disagree and aspect not in expected:
            problems.append(f"{aspect}: {count.disagree} of {total} differ")
        if count.unclear > UNCLEAR * total:
            problems.append(f"{aspect}: {count.unclear} of {total} could not be followed")
    cost = tally.candidate
    if cost.errors:
        problems.append(f"{cost.errors} errors")
    if cost.deaths:
        problems.append(f"its process ended {cost.deaths} times")
    problems += _dearer(tally, more)
    counts = ", ".join(f"{name} {_share(tally.counts[name])}" for name in ASPECTS if _total(tally.counts[name]))
    shed = tally.shed_by_node + tally.shed_here
    told = f"{'agrees' if not problems else 'disagrees'}: {tally.work} compared, {counts or 'nothing'}; {shed} shed"
    return Verdict(problems, f"{told}{'; ' if problems else ''}{'; '.join(problems)}")


def _dearer(tally: Tally, more: float) -> list[str]:
    """Where it takes more than production's version under the same conditions."""
    found = []
    for what, own, other in (
        ("CPU", tally.candidate.cpu_each_ms, tally.control.cpu_each_ms),
        ("median latency", tally.candidate.median_ms, tally.control.median_ms),
    ):
        if other and own > other * (1 + more / 100):
            found.append(f"{what} {own:.2f} ms each, {other:.2f} of the control")
    return found


def _total(count: Count) -> int:
    return count.agree + count.disagree + count.unclear


def _share(count: Count) -> str:
    return f"{count.agree}/{_total(count)}"
