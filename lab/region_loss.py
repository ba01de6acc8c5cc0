"""The loss of a whole region under load: `python -m lab.region_loss --runs 2`.

Two ways. `at-once`: everything of the first region is killed in one moment. `line-first`: the line between the regions
breaks some seconds before, so that what was accepted in between exists there alone. Then the second region is
promoted, and the load goes on there. What was lost is counted twice: by the ledgers of the customers and the carrier,
and by `trunkline region compare` from the first region's disks, which are looked at afterwards. Both must agree.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from lab import ledgers, probe, verdict
from lab.chaos import settle
from lab.cluster import say
from lab.load import Load
from lab.plan import HOME, HTTP_PORT, RESULTS, Plan
from lab.region import TWO, RegionLab, old_primary
from lab.system import Failed, need_root

WARM_S, AFTER_S = 8.0, 15.0
BROKEN_S = 4.0
"""How long the line is broken before the loss."""
READY_S = 180.0
REFUSES_S = 90.0
WAYS = ("at-once", "line-first")


class Loss(msgspec.Struct, kw_only=True):
    """What one run showed."""

    way: str
    accepted: int
    lost: int
    """Accepted, and the carrier has never had it."""
    unknown: int
    """Accepted, and the second region does not know it (the carrier may have it)."""
    compared: int
    """What `region compare` counts, whether it was acknowledged or not."""
    keys: int
    not_counted: list[str]
    """Lost by the ledgers, or without a final callback, and not counted by `region compare`: must be empty."""
    silent_s: float
    """The lag, as the promotion reports it: seconds since the last heartbeat that came over."""
    before_s: float
    """From the acceptance of the oldest lost message to the loss of the region."""
    promoted_s: float
    """From the loss until the second region took messages."""
    duplicates: int
    failed: dict[str, int]
    refused: str
    """What a node of the first region said when it was started again."""
    problem: str = ""


async def one(lab: RegionLab, way: str, rate: float) -> Loss:
    """One loss; the lab is of no more use afterwards."""
    assert lab.customer is not None
    async with ledgers.Webhooks() as webhooks:
        async with Load(lab.customer, webhooks, f"{way[:2]}.", rate=rate) as load:
            await asyncio.sleep(WARM_S)
            if way == "line-first":
                await asyncio.to_thread(lab.cut)
                await asyncio.sleep(BROKEN_S)
            await asyncio.to_thread(kill, lab)
            struck = time.monotonic()
            if way == "line-first":
                await asyncio.to_thread(lab.join)
            say("  region one is gone; promoting two")
            said = await asyncio.to_thread(
                lab.trunkline, "region", "promote", "--to", "two", "--lost", "--no-wait", "--json"
            )
            handover = json.loads(said)
            await asyncio.to_thread(until_ready)
            promoted = time.monotonic() - struck
            say(f"  region two takes messages after {promoted:.1f} s")
            await asyncio.sleep(AFTER_S)
            await load.stop()
        await settle(load, webhooks)
        taken = await asyncio.to_thread(ledgers.carrier)
    say("  looking at the disks of region one")
    await asyncio.to_thread(old_primary, lab)
    found = await asyncio.to_thread(compare, lab)
    refused = await asyncio.to_thread(start_old, lab)
    accepted = {request.sid: request for request in load.requests if request.sid}
    lost = {sid for sid, request in accepted.items() if request.key not in taken}
    untold = {
        sid for sid, request in accepted.items()
        if not any(told.status in ledgers.FINAL for told in webhooks.messages.get(request.key, ()))
    }  # fmt: skip
    missing = {entry["sid"] for entry in found["flights"]}
    seen = verdict.messages(load.requests, taken, webhooks.messages)
    return Loss(
        way=way, accepted=len(accepted), lost=len(lost), unknown=len(missing & accepted.keys()), compared=len(missing),
        keys=found["keys"], not_counted=sorted((lost | untold) - missing), duplicates=seen.duplicates,
        failed=seen.failed, silent_s=max(entry["silent_s"] for entry in handover["positions"]),
        before_s=round(max((struck - accepted[sid].ended for sid in lost), default=0.0), 2),
        promoted_s=round(promoted, 1), refused=refused,
    )  # fmt: skip


def kill(lab: RegionLab) -> None:
    """The whole first region, everything in each host at once."""
    for host in lab.first_hosts():
        host.kill()


def until_ready() -> None:
    """Raises Failed."""
    deadline = time.monotonic() + READY_S
    while not probe.answers_http(TWO.node, HTTP_PORT, "/readyz"):
        if time.monotonic() > deadline:
            raise Failed(f"region two's node is not ready within {READY_S:.0f} s")
        time.sleep(0.1)


def compare(lab: RegionLab) -> dict[str, Any]:
    """What `region compare` finds."""
    said = lab.trunkline("region", "compare", "--with", "one", "--json", check=False)
    if not said.strip():
        raise Failed("region compare says nothing")
    return dict(json.loads(said))


def start_old(lab: RegionLab) -> str:
    """Start a node of the first region again; its last line once it has ended. Raises Failed."""
    host = lab.node(lab.nodes[0])
    host.start("trunkline")
    deadline = time.monotonic() + REFUSES_S
    while host.running("trunkline"):
        if probe.answers_http(lab.nodes[0].node, HTTP_PORT, "/readyz"):
            raise Failed("a node of the lost region takes messages again")
        if time.monotonic() > deadline:
            raise Failed("a node of the lost region neither refuses nor serves")
        time.sleep(0.2)
    return host.tail("trunkline").splitlines()[-1]


def good(loss: Loss) -> bool:
    """Whether nothing was lost that is not counted, and no more than the lag."""
    return not loss.problem and not loss.not_counted and loss.lost <= loss.unknown and "replaced" in loss.refused


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m lab.region_loss", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", default="tlr", help="of this lab")
    parser.add_argument("--home", type=Path, default=HOME)
    parser.add_argument("--runs", type=int, default=1, help="of each way")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--rate", type=float, default=20.0, help="messages a second")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, _ended)
    bad = 0
    try:
        need_root()
        for way in [way for way in given.ways.split(",") for _ in range(given.runs)]:
            say(f"region-loss, {way}")
            lab = RegionLab(Plan(name=given.name, home=given.home, queues=1, own_database=False, nodes=2))
            with lab:
                try:
                    loss = asyncio.run(one(lab, way, given.rate))
                except Failed:
                    say(f"  logs: {lab.keep_logs('region-loss')}")
                    raise
            given.results.mkdir(parents=True, exist_ok=True)
            with (given.results / "region-loss.jsonl").open("ab") as out:
                out.write(msgspec.json.encode({"at": int(time.time()), **msgspec.to_builtins(loss)}) + b"\n")
            bad += not good(loss)
            say(f"  {'as it should be' if good(loss) else 'NOT as it should be'}: {msgspec.json.encode(loss).decode()}")
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return int(bad > 0)


def _ended(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # threads of the SDK may still wait for answers
