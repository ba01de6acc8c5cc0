"""Faults under load: what the outside saw of each."""

import asyncio
import json
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.console import Console

from lab import ledgers, report, verdict
from lab.calls import STALE, Calls
from lab.cluster import Lab, say
from lab.fault import Fault
from lab.faults import APART, FAULTS
from lab.load import Load
from lab.marks import Marks
from lab.plan import Plan
from lab.report import Run
from lab.system import Failed

WARM_S, AFTER_S = 5.0, 5.0
"""Of load before the fault and after everything is whole again."""
WHOLE_S = 180.0
SETTLE_S = 90.0
"""How long callbacks are waited for after the load."""
POLL_S = 0.25
WIDTH = 200
"""Characters of the table, wherever it is printed."""


class Burden(NamedTuple):
    """What the cluster carries meanwhile."""

    rate: float
    """Messages a second."""
    calls: int
    """Calls that are up."""


def chosen(names: str) -> list[type[Fault]]:
    """The faults of these names, or all. Raises Failed."""
    wanted = [name for name in names.replace(",", " ").split() if name]
    unknown = [name for name in wanted if name not in FAULTS]
    if unknown:
        raise Failed(f"no fault {unknown[0]}: there are {', '.join((*FAULTS, *APART))}")
    return [FAULTS[name] for name in wanted] if wanted else list(FAULTS.values())


def chaos(plan: Plan, names: str, runs: int, burden: Burden, results: Path) -> int:
    """Every fault, `runs` times; 0 when all zeros were zero."""
    kinds = [kind for kind in chosen(names) if kind.nodes <= plan.nodes]
    if any(kind.disks for kind in kinds):
        plan = msgspec.structs.replace(plan, disks=True)
    done: list[Run] = []
    waiting = [(kind, number) for kind in kinds for number in range(runs)]
    while waiting:
        edge = plan.edge or waiting[0][0].edge
        with Lab(msgspec.structs.replace(plan, edge=edge)) as lab:  # a new one after each run that did not end whole
            while waiting and (plan.edge or waiting[0][0].edge) == edge:
                kind, number = waiting.pop(0)
                say(f"{kind.name} {number + 1}/{runs}: {kind.what}")
                prefix = f"{kind.name.replace('-', '')}{len(done)}."  # the carrier's ledger lasts as long as the lab
                run = asyncio.run(one(lab, kind(lab), prefix, burden))
                done.append(run)
                keep(run, results)
                show_line(run)
                if not good(run):
                    say(f"  logs: {lab.keep_logs(f'{kind.name}-{int(time.time())}')}")
                if run.problem:
                    break
    console = Console()
    Console(width=max(console.width, WIDTH)).print(report.table(done))
    return int(not all(map(good, done)))


def good(run: Run) -> bool:
    """Whether it ended whole and its zeros are zero."""
    calls = run.calls
    wrong = calls is not None and (
        calls.answered < calls.calls or calls.stuck or calls.wrong_final or calls.stale > STALE
    )
    return not (run.problem or wrong) and verdict.good(run.messages)


async def one(lab: Lab, fault: Fault, prefix: str, burden: Burden) -> Run:
    """One run."""
    assert lab.customer is not None
    problem, hit, whole, struck = "", "", 0.0, 0.0
    await asyncio.to_thread(lab.spread)
    await asyncio.to_thread(fault.prepare)
    async with ledgers.Webhooks() as webhooks:
        async with Load(lab.customer, webhooks, prefix, rate=burden.rate) as load, Calls(lab, webhooks) as calls:
            await calls.begin(burden.calls)
            await calls.say(bool(fault.says))
            await asyncio.sleep(WARM_S)
            try:
                struck = time.monotonic()
                hit = await asyncio.to_thread(fault.inject)
                say(f"  hit: {hit}")
                await calls.say(fault.says)
                await asyncio.sleep(fault.hold_s)
                began = time.monotonic()
                await asyncio.to_thread(fault.heal)
                await asyncio.to_thread(until_back, lab)
                whole = time.monotonic() - began
            except Failed as error:
                problem = str(error).splitlines()[0]
            await asyncio.sleep(AFTER_S)
            await load.stop()
            heard = await calls.end(struck)
        await settle(load, webhooks)
        await asyncio.to_thread(fault.after)
        taken = await asyncio.to_thread(ledgers.carrier)
        doubled = [t.sid for r in load.requests if taken.get(r.key, 0) > 1 for t in webhooks.messages.get(r.key, ())]
        marks = await Marks.read(lab, doubled)
        found = verdict.messages(load.requests, taken, webhooks.messages, marks.marked)
    return Run(
        fault=fault.name, hit=hit, nodes=len(lab.nodes), clusters=len(lab.plan.clusters), edge=lab.plan.edge,
        hold_s=fault.hold_s, whole_s=round(whole, 1), messages=found, calls=heard, problem=problem, version=lab.version,
    )  # fmt: skip


def until_back(lab: Lab) -> None:
    """Wait until engines and nodes are back. Raises Failed."""
    lab.until_whole(WHOLE_S)
    for zone in lab.nodes:
        lab.node(zone).until_ready(timeout_s=WHOLE_S)


async def settle(load: Load, webhooks: ledgers.Webhooks, but: Collection[str] = ()) -> None:
    """Wait until every accepted message has its final callback, SETTLE_S at most. `but`: SIDs not waited for."""
    deadline = time.monotonic() + SETTLE_S
    waiting = {request.key for request in load.requests if request.sid and request.sid not in but}
    while waiting and time.monotonic() < deadline:
        await asyncio.sleep(POLL_S)
        waiting = {k for k in waiting if not any(t.status in ledgers.FINAL for t in webhooks.messages.get(k, ()))}


# -- results -----------------------------------------------------------------------------------------------------


def keep(run: Run, results: Path) -> Path:
    """Add it to the file of its fault."""
    results.mkdir(parents=True, exist_ok=True)
    beside = "-edge" if run.edge and not FAULTS[run.fault].edge else ""
    file = results / f"{run.fault}-{run.nodes}{beside}.jsonl"
    with file.open("ab") as out:
        out.write(msgspec.json.encode({**msgspec.to_builtins(run), "at": int(time.time())}) + b"\n")
    return file


def show_line(run: Run) -> None:
    found = run.messages
    say(
        f"  accepted {found.accepted}, lost {found.lost}, callbacks lost {found.callbacks_lost},"
        f" wrong {found.wrong_final}, duplicates {found.duplicates} (unmarked {found.unmarked}),"
        f" failed {json.dumps(found.failed)}, retried {found.retried},"
        f" gap {found.gap_s} s, slowest {found.slowest_s} s, whole after {run.whole_s} s"
        + (f"; {run.problem}" if run.problem else "")
    )
    for example in found.examples:
        say(f"    {example}")
    if run.calls is not None:
        say("\n    ".join([f"  {run.calls}", *run.calls.trace]))
