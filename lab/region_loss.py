"""The loss of a whole region under load, and its handover: `python -m lab chaos --faults region-loss,region-handover`.

The loss has three ways. `at-once`: everything of the first region is killed in one moment. `line-first`: the line
between the regions breaks some seconds before, so that what was accepted in between exists there alone. `cut-off`:
nothing is killed, but the line and the first region's way to the object store break; customers and carrier still reach
it, and it has to stop by itself within `alone_s`, which the promotion waits for. Then the second region
is promoted, and load and calls go on there. What was lost is counted twice: by the ledgers of customers and carrier,
and by `trunkline region compare` from the first region's disks, which are looked at afterwards. Both must agree. At
last the first region's databases follow the second one's.
"""

import asyncio
import json
import time
from typing import Any

import msgspec

from lab import ledgers, probe, verdict
from lab.chaos import settle
from lab.cluster import say
from lab.load import Load
from lab.plan import HTTP_PORT, Zone
from lab.region import FIRST, TWO, RegionLab, old_primary
from lab.region_calls import CallWebhooks, RegionCalls, Told
from lab.system import Failed

WARM_S, AFTER_S = 8.0, 15.0
BROKEN_S = 4.0
"""How long the line is broken before the loss."""
READY_S = 180.0
REFUSES_S = 90.0
AT_ONCE, LINE_FIRST, CUT_OFF = WAYS = ("at-once", "line-first", "cut-off")


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
    wrong_final: int = 0
    """Messages whose final callback says otherwise than the carrier's receipt."""
    failed: dict[str, int]
    refused: str
    """What a node of the first region said when it was started again."""
    calls: Told | None = None
    rejoined_s: float = 0.0
    """How long it took until the first region's databases followed."""
    both: int = 0
    """Looks that found both regions ready."""
    problem: str = ""
    at: int = 0
    version: str = ""

    def good(self) -> bool:
        """Whether nothing was lost that is not counted, nothing told wrong, and the old nodes keep still."""
        calls = self.calls
        told = calls is None or calls.good()
        counted = not self.not_counted and self.lost <= self.unknown and not self.wrong_final
        return not (self.problem or self.both) and counted and told and "replaced" in self.refused


class Watch:
    """`async with`: looks all the time whether both regions say that they are ready."""

    def __init__(self, lab: RegionLab) -> None:
        self._lab = lab
        self.both = 0

    async def __aenter__(self) -> "Watch":
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        while True:
            two = await asyncio.to_thread(ready, TWO)
            one = [await asyncio.to_thread(ready, zone) for zone in self._lab.nodes]
            self.both += two and any(one) and await asyncio.to_thread(ready, TWO)
            await asyncio.sleep(0.1)


def ready(zone: Zone) -> bool:
    return probe.answers_http(zone.node, HTTP_PORT, "/readyz")


async def lose(lab: RegionLab, way: str, rate: float, count: int) -> Loss:
    """One loss; the lab is of no more use afterwards."""
    assert lab.customer is not None
    async with CallWebhooks() as webhooks, RegionCalls(lab, webhooks) as calls, Watch(lab) as watch:
        async with Load(lab.customer, webhooks, f"{way[:2]}.", rate=rate) as load:
            await calls.begin(count)
            await asyncio.sleep(WARM_S)
            if way == LINE_FIRST:
                await asyncio.to_thread(lab.cut)
                await asyncio.sleep(BROKEN_S)
            calls.strike()
            await asyncio.to_thread(strike, lab, way)
            struck = time.monotonic()
            say("  region one is gone; promoting two")
            wait = () if way == CUT_OFF else ("--no-wait",)
            said = await asyncio.to_thread(lab.trunkline, "region", "promote", "--to", "two", "--lost", "--json", *wait)
            await asyncio.to_thread(until_ready, TWO)
            promoted = time.monotonic() - struck
            if way == CUT_OFF:
                calls.quiet()
            say(f"  region two takes messages after {promoted:.1f} s")
            calls.move(TWO)
            await calls.begin(count)
            await asyncio.sleep(AFTER_S)
            await load.stop()
        told = await calls.verdict(lab.customer)
        say(f"  {told}")
        say("  looking at the disks of region one")
        if way == CUT_OFF:
            await asyncio.to_thread(come_back, lab)
        await asyncio.to_thread(old_primary, lab)
        found = await asyncio.to_thread(compare, lab)
        missing = {entry["sid"] for entry in found["flights"]}
        await settle(load, webhooks, missing)
        taken = await asyncio.to_thread(ledgers.carrier)
    refused = await asyncio.to_thread(start_old, lab)
    rejoined = await asyncio.to_thread(lab.follow, FIRST) if way == LINE_FIRST else 0.0
    loss = counted(way, load, webhooks, taken, missing, told)
    loss.keys, loss.refused, loss.rejoined_s, loss.both = found["keys"], refused, rejoined, watch.both
    loss.silent_s = max(entry["silent_s"] for entry in json.loads(said)["positions"])
    accepted = [one for one in load.requests if one.sid in missing and one.key not in taken]
    loss.before_s = round(max((struck - one.ended for one in accepted), default=0.0), 2)
    loss.promoted_s, loss.version = round(promoted, 1), lab.version
    return loss


def counted(
    way: str, load: Load, webhooks: CallWebhooks, taken: Any, missing: set[str], told: Told | None
) -> Loss:  # fmt: skip
    """What the ledgers say, and what of it `region compare` (`missing`) does not."""
    accepted = {request.sid: request for request in load.requests if request.sid}
    lost = {sid for sid, request in accepted.items() if request.key not in taken}
    untold = {
        sid for sid, request in accepted.items()
        if not any(one.status in ledgers.FINAL for one in webhooks.messages.get(request.key, ()))
    }  # fmt: skip
    calls = set(told.untold) if told is not None else set()
    seen = verdict.messages(load.requests, taken, webhooks.messages)
    return Loss(
        way=way, accepted=len(accepted), lost=len(lost), unknown=len(missing & accepted.keys()), compared=len(missing),
        keys=0, not_counted=sorted((lost | untold | calls) - missing), duplicates=seen.duplicates,
        wrong_final=seen.wrong_final, failed=seen.failed, silent_s=0.0, before_s=0.0, promoted_s=0.0, refused="",
        calls=told,
    )  # fmt: skip


def strike(lab: RegionLab, way: str) -> None:
    """The first region is lost: everything in each host at once, or every way to the other one and the witness."""
    if way == CUT_OFF:
        lab.cut()
        lab.hide()
        return
    for host in lab.first_hosts():
        host.kill()
    if way == LINE_FIRST:
        lab.join()


def come_back(lab: RegionLab) -> None:
    """What was cut off is there again: its nodes find that they were replaced."""
    lab.join()
    lab.show()


def until_ready(zone: Zone) -> None:
    """Raises Failed."""
    deadline = time.monotonic() + READY_S
    while not probe.answers_http(zone.node, HTTP_PORT, "/readyz"):
        if time.monotonic() > deadline:
            raise Failed(f"the node in {zone.name} is not ready within {READY_S:.0f} s")
        time.sleep(0.1)


def compare(lab: RegionLab) -> dict[str, Any]:
    """What `region compare` finds, once the first region has a primary again. Raises Failed."""
    deadline = time.monotonic() + READY_S
    while not (said := lab.trunkline("region", "compare", "--with", "one", "--json", check=False)).strip():
        if time.monotonic() > deadline:
            raise Failed("region compare says nothing")
        time.sleep(1)
    return dict(json.loads(said))


def start_old(lab: RegionLab) -> str:
    """Start a node of the first region again; its last line once it has ended. Raises Failed."""
    host = lab.node(lab.nodes[0])
    until_ended(lab, "stops")  # one that was cut off is still there
    host.start("trunkline")
    until_ended(lab, "refuses")
    return host.tail("trunkline").splitlines()[-1]


def until_ended(lab: RegionLab, what: str) -> None:
    """Raises Failed."""
    deadline = time.monotonic() + REFUSES_S
    while lab.node(lab.nodes[0]).running("trunkline"):
        if ready(lab.nodes[0]):
            raise Failed("a node of the lost region takes messages again")
        if time.monotonic() > deadline:
            raise Failed(f"a node of the lost region neither {what} nor serves")
        time.sleep(0.2)
