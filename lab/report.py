"""The results of chaos: kept in var/lab, shown as a table, and put into docs/reference/availability.md."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from rich.table import Table

from lab.calls import Heard
from lab.faults import APART, FAULTS
from lab.plan import RESULTS
from lab.system import ROOT
from lab.verdict import Messages

PAGE = ROOT / "docs/reference/availability.md"
BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"
NODES = 3
"""Results of other sizes of the cluster do not go into the page."""
NOT_MEASURED = "not measured"


class Versioned(Protocol):
    """The result of a run."""

    @property
    def version(self) -> str: ...


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one fault."""

    fault: str
    hit: str
    nodes: int
    clusters: int
    edge: bool = False
    """Whether calls came through the SIP edge; such results do not go into the page."""
    hold_s: float
    whole_s: float
    """From the end of the fault until every engine and node was back."""
    messages: Messages
    calls: Heard | None = None
    problem: str = ""
    at: int = 0
    """When it was kept, Unix seconds."""
    version: str = ""
    """What was measured: the commit, with a `+` where files differed from it."""


def spread(values: list[float]) -> str:
    """Median and the largest."""
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:g} / {ordered[-1]:g}"


COLUMNS = (
    "fault", "runs", "accepted", "lost", "callbacks lost", "wrong final", "duplicates (unmarked)",
    "failed without key", "failed with key", "gap, s", "calls up", "struck", "survived", "silence p50, p95, max, s",
    "stuck, wrong", "version",
)  # fmt: skip


def row(name: str, runs: list[Run]) -> list[str]:
    """One fault's line."""
    found = [run.messages for run in runs]
    heard = [run.calls for run in runs if run.calls is not None]
    failed = [float(sum(one.failed.get(kind, 0) for kind in ("raw", "sdk"))) for one in found]
    cells: list[object] = [
        name, len(runs), sum(one.accepted for one in found), sum(one.lost for one in found),
        sum(one.callbacks_lost for one in found), sum(one.wrong_final for one in found),
        f"{sum(one.duplicates for one in found)} ({sum(max(one.unmarked, 0) for one in found)})",
        spread(failed), sum(one.failed.get("keyed", 0) for one in found), spread([one.gap_s for one in found]),
        *_calls(heard), versions(runs),
    ]  # fmt: skip
    return [str(cell) for cell in cells]


def versions(runs: Sequence[Versioned]) -> str:
    """The first and the last of what was measured."""
    found = list(dict.fromkeys(run.version or "older" for run in runs))
    return found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"


def _calls(heard: list[Heard]) -> list[object]:
    if not heard:
        return ["-"] * 5
    silences = " ".join(f"{max(getattr(one, f'silence_{name}') for one in heard):g}" for name in ("p50", "p95", "max"))
    return [
        sum(one.up for one in heard), sum(one.struck for one in heard), sum(one.survived for one in heard), silences,
        f"{sum(one.stuck for one in heard)}, {sum(one.wrong_final for one in heard)}",
    ]  # fmt: skip


def table(runs: list[Run]) -> Table:
    """For the terminal."""
    shown = Table(title="what the outside saw")
    for column in COLUMNS:
        shown.add_column(column)
    for name in dict.fromkeys(run.fault for run in runs):
        shown.add_row(*row(name, [run for run in runs if run.fault == name]))
    return shown


def read(folder: Path = RESULTS) -> list[Run]:
    """All results that are kept of faults in the table; others lie beside them."""
    found: list[Run] = []
    for file in sorted(one for one in folder.glob("*.jsonl") if one.stem.rpartition("-")[0] in FAULTS):
        found += [msgspec.json.decode(line, type=Run) for line in file.read_bytes().splitlines()]
    return found


def markdown(runs: list[Run], since: int = 0) -> str:
    """The page's table: every fault, also those that were not measured, and why. Runs from before `since` (Unix
    seconds) only where there are no later ones."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for name in FAULTS:
        own = [run for run in runs if run.fault == name and run.nodes == NODES and not run.problem]
        own = [run for run in own if run.at >= since] or own
        cells = row(name, own) if own else [name, NOT_MEASURED, *[""] * (len(COLUMNS) - 2)]
        lines.append("| " + " | ".join(cells) + " |")
    for name, where in APART.items():
        lines.append(f"| {name} | {where} |" + " |" * (len(COLUMNS) - 2))
    return "\n".join(lines)


def update(page: Path = PAGE, folder: Path = RESULTS, since: int = 0) -> int:
    """Put the table into the page; returns how many runs are kept."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    runs = read(folder)
    page.write_text(f"{before}{BEGIN}\n{markdown(runs, since)}\n{END}{after}")
    return len(runs)
