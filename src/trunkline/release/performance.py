"""Whether the new version costs more: both run the same command in turns, and CPU seconds are compared.

CPU seconds of the command and all that it started, not the clock: a busy machine delays both alike. The test: the new
version costs more when the median of its runs is above the old one's by more than `tolerance`, and the Mann-Whitney U
test, exact and one-sided, gives less than 5 % for runs that are alike.
"""

import itertools
import os
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

CHANCE: Final = 0.05
TOLERANCE: Final = 0.03
MIN_ROUNDS: Final = 4
"""Fewer cannot reach the chance of 5 %."""
MAX_ROUNDS: Final = 9


class CannotMeasure(Exception):
    """A run failed; the text is one line."""


class Cost(msgspec.Struct, frozen=True):
    """What was measured."""

    old: tuple[float, ...]
    """CPU seconds of each run."""
    new: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """New over old, by the medians."""
        return statistics.median(self.new) / max(statistics.median(self.old), 1e-9)

    @property
    def chance(self) -> float:
        """Of so great a difference if both cost the same."""
        return mann_whitney(self.new, self.old)

    def is_more(self, tolerance: float = TOLERANCE) -> bool:
        """Whether the new version costs more."""
        return self.ratio > 1 + tolerance and self.chance < CHANCE


def measure(old: Path, new: Path, command: Sequence[str], rounds: int) -> Cost:
    """Run the command in both folders in turns, a first pair for warming up. Raises CannotMeasure."""
    folders = {"old": old, "new": new}
    seconds: dict[str, list[float]] = {"old": [], "new": []}
    for turn in range(rounds + 1):
        for name in ("old", "new") if turn % 2 else ("new", "old"):
            took = cpu_seconds(folders[name], command)
            if turn:
                seconds[name].append(took)
    return Cost(tuple(seconds["old"]), tuple(seconds["new"]))


def cpu_seconds(folder: Path, command: Sequence[str]) -> float:
    """What one run costs. Raises CannotMeasure."""
    try:
        process = subprocess.Popen(command, cwd=folder)  # noqa: S603 - the operator's own
    except OSError as error:
        raise CannotMeasure(f"{command[0]} cannot be run in {folder}: {error}") from None
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise CannotMeasure(f"{command[0]} in {folder} ended with status {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def mann_whitney(greater: Sequence[float], less: Sequence[float]) -> float:
    """The chance, over all ways to deal the values out, that `greater` wins at least as many comparisons."""
    values = [*greater, *less]

    def wins(chosen: Sequence[int]) -> float:
        mine = set(chosen)
        others = [value for place, value in enumerate(values) if place not in mine]
        return sum((values[place] > each) + (values[place] == each) / 2 for place in chosen for each in others)

    seen = wins(range(len(greater)))
    deals = list(itertools.combinations(range(len(values)), len(greater)))
    return sum(wins(deal) >= seen for deal in deals) / len(deals)
