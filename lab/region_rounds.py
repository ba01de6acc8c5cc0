"""Faults of whole regions, run as often as asked for; kept, and put into docs/reference/regions.md."""

import asyncio
import time
from pathlib import Path
from typing import TypeVar

import msgspec

from lab.cluster import say
from lab.plan import RESULTS, Plan
from lab.region import RegionLab
from lab.region_calls import Told
from lab.region_handover import Handover, there_and_back
from lab.region_loss import WAYS, Loss, lose
from lab.report import spread, versions
from lab.system import ROOT, Failed

Kind = TypeVar("Kind", Loss, Handover)
PAGE = ROOT / "docs/reference/regions.md"
MARK = "<!-- {name}: {edge} -->"
LOSS, HANDOVER = "region-loss", "region-handover"
RATE, CALLS = 20.0, 6
"""Messages a second and calls up: two regions are more than this machine is made for."""
LOSS_COLUMNS = (
    "way", "runs", "accepted", "lost: carrier never had it", "accepted, unknown in two", "`region compare` counts",
    "lost or without final callback, not counted by it", "sent twice", "two takes messages after, s",
    "calls up: told, wrong", "told within, s", "told too short by, s", "recordings, heard", "calls in two: answered",
    "both ready", "one follows after, s", "version",
)  # fmt: skip
HANDOVER_COLUMNS = (
    "runs", "accepted", "lost", "callbacks lost", "wrong final", "duplicates", "failed with key",
    "without an acceptance, there and back, s", "bytes missing", "both ready", "calls up: hung up, told, wrong",
    "recordings, heard", "calls in two: answered", "follows after, one and two, s", "version",
)  # fmt: skip


def rounds(plan: Plan, names: list[str], runs: int, rate: float, calls: int, results: Path) -> int:
    """Each of them, `runs` times (a loss each way); 0 when all were as they should be. Raises Failed."""
    plan = Plan(name=plan.name, home=plan.home, queues=1, own_database=False, nodes=2, lease_s=plan.lease_s)
    bad = 0
    for name in names:
        for number in range(runs):
            for way in WAYS if name == LOSS else ("",):
                say(f"{name} {number + 1}/{runs} {way}".rstrip())
                done = once(RegionLab(plan), way, min(rate, RATE), calls or CALLS)
                done.at = int(time.time())
                results.mkdir(parents=True, exist_ok=True)
                with (results / f"{name}.jsonl").open("ab") as out:
                    out.write(msgspec.json.encode(done) + b"\n")
                bad += not done.good()
                verdict = "as it should be" if done.good() else "NOT as it should be"
                say(f"  {verdict}: {msgspec.json.encode(done).decode()}")
    return int(bad > 0)


def once(made: RegionLab, way: str, rate: float, calls: int) -> Loss | Handover:
    """One run in a lab of its own: a loss that way, or a handover."""
    with made as lab:
        try:
            done = asyncio.run(lose(lab, way, rate, calls) if way else there_and_back(lab, rate, calls))
        except Failed:
            say(f"  logs: {lab.keep_logs(f'region-{int(time.time())}')}")
            raise
        if not done.good():
            say(f"  logs: {lab.keep_logs(f'region-{int(time.time())}')}")
        return done


# -- the page ----------------------------------------------------------------------------------------------------------


def read(kind: type[Kind], folder: Path, name: str) -> list[Kind]:
    """The results that are kept, those of today's shape."""
    file = folder / f"{name}.jsonl"
    lines = file.read_bytes().splitlines() if file.exists() else []
    found = [msgspec.json.decode(line, type=kind) for line in lines if b'"calls":{' in line]
    return [one for one in found if not one.problem]


def losses(found: list[Loss]) -> str:
    """Their table, a line for each way."""
    return _table(LOSS_COLUMNS, [_lost(way, own) for way in WAYS if (own := [one for one in found if one.way == way])])


def _lost(way: str, own: list[Loss]) -> list[object]:
    told = [one.calls for one in own if one.calls is not None]
    compared, keys = sum(one.compared for one in own), sum(one.keys for one in own)
    return [
        way, len(own), sum(one.accepted for one in own), sum(one.lost for one in own),
        sum(one.unknown for one in own), f"{compared} and {keys} keys",
        f"**{sum(len(one.not_counted) for one in own)}**", sum(one.duplicates for one in own),
        spread([one.promoted_s for one in own]), f"{sum(one.up for one in told)}: {sum(one.final for one in told)},"
        f" {sum(len(one.wrong) for one in told)}", spread([one.told_s for one in told]),
        spread([one.short_s for one in told]), _pair(told, "recordings", "recordings_heard"),
        _pair(told, "new", "new_answered"),
        sum(one.both for one in own), _times([one.rejoined_s for one in own if one.rejoined_s]), versions(own),
    ]  # fmt: skip


def handovers(found: list[Handover]) -> str:
    """Their table."""
    if not found:
        return _table(HANDOVER_COLUMNS, [])
    messages, told = [one.messages for one in found], [one.calls for one in found]
    row = [
        len(found), sum(one.accepted for one in messages), sum(one.lost for one in messages),
        sum(one.callbacks_lost for one in messages), sum(one.wrong_final for one in messages),
        sum(one.duplicates for one in messages), sum(one.failed.get("keyed", 0) for one in messages),
        ", ".join(spread([one.away_s[at] for one in found]) for at in (0, 1)),
        sum(sum(one.missing_bytes) for one in found), sum(one.both for one in found),
        f"{sum(one.up for one in told)}: {sum(one.ended for one in told)}, {sum(one.final for one in told)},"
        f" {sum(len(one.wrong) for one in told)}",
        _pair(told, "recordings", "recordings_heard"), _pair(told, "new", "new_answered"),
        ", ".join(spread([one.rejoined_s[at] for one in found]) for at in (0, 1)), versions(found),
    ]  # fmt: skip
    return _table(HANDOVER_COLUMNS, [row])


def _times(values: list[float]) -> str:
    return spread(values) if values else "-"


def _pair(told: list[Told], first: str, second: str) -> str:
    return f"{sum(getattr(one, first) for one in told)}: {sum(getattr(one, second) for one in told)}"


def _table(columns: tuple[str, ...], rows: list[list[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def update(page: Path = PAGE, folder: Path = RESULTS) -> int:
    """Put the tables into the page; how many runs there are."""
    lost, handed = read(Loss, folder, LOSS), read(Handover, folder, HANDOVER)
    text = page.read_text()
    for name, table in ((LOSS, losses(lost)), (HANDOVER, handovers(handed))):
        begin, end = (MARK.format(name=name, edge=edge) for edge in ("begin", "end"))
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
    page.write_text(text)
    return len(lost) + len(handed)
