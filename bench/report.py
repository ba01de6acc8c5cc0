"""What was measured, against what is aimed at: a table for the terminal, and one for docs/reference/performance.md."""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

SPEEDUP = 2.0
CPU_SHARE = 0.5
LATENCY_MS = 25.0
MEMORY_MB = 150.0


class Row(NamedTuple):
    """A line of the table."""

    what: str
    aim: str
    measured: str
    met: bool | None
    """None: nothing is aimed at."""
    detail: str


def write(folder: Path, name: str, figures: dict[str, Any], *, quick: bool, took_s: float) -> None:
    """Keep a scenario's figures as NAME.json."""
    content = {"name": name, "quick": quick, "at": time.strftime("%Y-%m-%d %H:%M %Z"), "took_s": round(took_s, 1)}
    content |= {"machine": machine(), "figures": figures}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(content)))


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The scenarios that were measured."""
    return {path.stem: msgspec.json.decode(path.read_bytes()) for path in sorted(folder.glob("*.json"))}


def machine() -> dict[str, str]:
    """What it was measured on."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "cpu": f"{os.cpu_count()} cores, {cpu.partition(':')[2].strip() or platform.machine()}",
        "memory": f"{memory:.0f} GiB",
        "kernel": f"Linux {platform.release()}",
        "python": platform.python_version(),
        "kannel": _version("kannel"),
    }


def _version(package: str) -> str:
    try:
        done = subprocess.run(
            ["dpkg-query", "-W", "-f=${Version}", package], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout


def rows(results: dict[str, dict[str, Any]]) -> list[Row]:
    """The lines, of the scenarios that were measured."""
    found: list[Row] = []
    for name, make in MAKERS.items():
        if name in results:
            found += make(results[name]["figures"])
    return found


def _pairs(figures: dict[str, Any], field: str) -> tuple[list[float], list[float], list[float]]:
    """Trunkline's values, Kannel's, and their ratios pair by pair."""
    runs = figures["runs"]
    ours, theirs = ([float(run[field]) for run in runs[name]] for name in ("trunkline", "kannel"))
    return ours, theirs, [a / b for a, b in zip(ours, theirs, strict=True) if b]


def _list(values: Sequence[float], digits: int = 2) -> str:
    return ", ".join(f"{value:.{digits}f}" for value in values)


def _compare(figures: dict[str, Any]) -> list[Row]:
    runs = figures["runs"]["trunkline"]
    found = []
    ours, theirs, ratios = _pairs(figures, "delivered_per_s")
    a, b, ratio = (statistics.median(values) for values in (ours, theirs, ratios))
    detail = f"{a:,.0f} against {b:,.0f} a second; pairs {_list(ratios)}"
    found.append(
        Row("messages a second, end to end", f">= {SPEEDUP:g} x Kannel", f"{ratio:.2f} x", ratio >= SPEEDUP, detail)
    )
    ours, theirs, ratios = _pairs(figures, "cpu_s_per_1000")
    a, b, ratio = (statistics.median(values) for values in (ours, theirs, ratios))
    loop = statistics.median(run["main_thread_cpu_s_per_1000"] for run in runs)
    detail = f"{a:.3f} s ({loop:.3f} in the event loop) against {b:.3f} s; pairs {_list(ratios)}"
    found.append(
        Row("CPU of 1000 messages", f"<= {CPU_SHARE:g} x Kannel", f"{ratio:.2f} x", ratio <= CPU_SHARE, detail)
    )
    ours, theirs, ratios = _pairs(figures, "pss_mb")
    a, b = statistics.median(ours), statistics.median(theirs)
    found.append(Row("memory under this load (peak PSS)", "", f"{a:.0f} MB", None, f"Kannel {b:.0f} MB"))
    lost = sum(run["tally"]["lost"] + run["tally"]["untold"] + run["tally"]["duplicates"] for run in runs)
    checked, forged = sum(run["signatures"] for run in runs), sum(run["forged"] for run in runs)
    detail = f"{sum(run['accepted'] for run in runs):,} messages; {checked} signatures checked, {forged} wrong"
    found.append(Row("lost, untold or submitted twice", "0", str(lost), not lost and not forged, detail))
    return found


def _latency(figures: dict[str, Any]) -> list[Row]:
    medians = {
        name: [statistics.median(run["request_to_submit"][field] for run in runs) for field in ("p50", "p99")]
        for name, runs in figures["runs"].items()
    }
    ours, theirs = medians["trunkline"], medians["kannel"]
    cpu, other = (
        statistics.median(run["cpu_s_per_1000"] for run in figures["runs"][name]) for name in ("trunkline", "kannel")
    )
    detail = f"p50 {ours[0]:.1f} ms, CPU {cpu:.2f} s/1000; "
    detail += f"Kannel p50 {theirs[0]:.1f}, p99 {theirs[1]:.1f} ms, {other:.2f} s/1000"
    what = f"request to submit, p99 at {figures['rate']:g}/s"
    return [Row(what, f"<= {LATENCY_MS:g} ms", f"{ours[1]:.1f} ms", ours[1] <= LATENCY_MS, detail)]


def _queued(figures: dict[str, Any]) -> list[Row]:
    memory, other = figures["queued_mb"], figures["other"]["request_to_submit"]
    peak = max(memory, figures["other"]["pss_mb"])
    count = f"{figures['queued']:,} queued"
    return [
        Row(
            f"memory with {count} (PSS of all processes)",
            f"< {MEMORY_MB:g} MB",
            f"{memory:.0f} MB",
            memory < MEMORY_MB,
            f"{figures['empty_mb']:.0f} MB when empty, peak under load {peak:.0f} MB",
        ),
        Row(
            f"another account's p99 beside them, {figures['rate']:g}/s",
            f"<= {LATENCY_MS:g} ms",
            f"{other['p99']:.1f} ms",
            other["p99"] <= LATENCY_MS,
            f"p50 {other['p50']:.1f}, longest {other['max']:.1f} ms; the slow sender sent {figures['slow_sent']}",
        ),
    ]


def _throttle(figures: dict[str, Any]) -> list[Row]:
    ours, theirs = figures["held"]["trunkline"], figures["held"]["kannel"]
    rate, limit, counted = ours["held_per_s"], figures["limit"], ours["run"]["tally"]
    refused = ours["run"]["smsc"].get("refused_0x58", 0)
    wrong = counted["lost"] + counted["duplicates"]
    detail = f"{ours['after_load_per_s']:.0f}/s once no more came in; {refused} refusals; lost or doubled {wrong}; "
    detail += f"Kannel holds {theirs['held_per_s']:.0f}/s"
    what = f"held when the SMSC allows {limit:g}/s"
    return [Row(what, "", f"{rate:.0f}/s", None, detail)]


def _reconnect(figures: dict[str, Any]) -> list[Row]:
    ours, theirs = figures["systems"]["trunkline"], figures["systems"]["kannel"]
    counts, others = ours["run"]["tally"], theirs["run"]["tally"]
    detail = (
        f"{counts['duplicates']} duplicates, {ours['in_doubt']} messages marked in doubt; Kannel: "
        f"lost {others['lost']}, untold {others['untold']}, {others['duplicates']} duplicates"
    )
    wrong = counts["lost"] + counts["untold"] + ours["unmarked_duplicates"]
    what = f"{figures['cuts']} cuts at {figures['rate']:g}/s: lost, untold or doubled unmarked"
    return [Row(what, "0", str(wrong), not wrong, detail)]


MAKERS: dict[str, Callable[[dict[str, Any]], list[Row]]] = {
    "compare": _compare,
    "latency": _latency,
    "queued": _queued,
    "throttle": _throttle,
    "reconnect": _reconnect,
}
BEGIN, END = "<!-- figures: make bench ARGS=--update -->\n", "\n<!-- end of figures -->"
VERDICTS = {True: "yes", False: "**no**", None: ""}


def markdown(folder: Path) -> str:
    """The table, and what it was measured on."""
    results = read(folder)
    lines = ["| what | aim | measured | met | detail |", "|---|---|---|---|---|"]
    lines += [f"| {r.what} | {r.aim} | {r.measured} | {VERDICTS[r.met]} | {r.detail} |" for r in rows(results)]
    for line in dict.fromkeys(_origin(result) for result in results.values()):
        lines += ["", line]
    return "\n".join(lines)


def _origin(result: dict[str, Any]) -> str:
    own = result["machine"]
    quick = " (quick: rough figures)" if result["quick"] else ""
    return (
        f"{result['at'][:10]}{quick}: {own['cpu']}, {own['memory']}, {own['kernel']}, Python {own['python']}, "
        f"Kannel {own['kannel'] or 'of unknown version'}."
    )


def update(page: Path, folder: Path) -> None:
    """Put the table into the page, between its marks."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(before + BEGIN + "\n" + markdown(folder) + "\n" + END + after)


def terminal(folder: Path) -> str:
    """The table for people."""
    results = read(folder)
    table = Table("what", "aim", "measured", "met", "detail")
    for row in rows(results):
        table.add_row(row.what, row.aim, row.measured, {True: "yes", False: "NO", None: ""}[row.met], row.detail)
    console = Console(width=None if os.isatty(1) else 180)
    with console.capture() as captured:
        console.print(table)
        for line in dict.fromkeys(_origin(result) for result in results.values()):
            console.print(line)
    return captured.get().rstrip()
