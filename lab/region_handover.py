"""A region is handed over in order and taken back, under load: `region promote` there and back, as once a quarter.

Nothing may be lost, neither of them may serve beside the other, calls that are up are hung up and told of.
"""

import asyncio
import json
import math
import time
from collections.abc import Sequence

import msgspec

from lab import ledgers, probe, verdict
from lab.chaos import settle
from lab.cluster import say
from lab.load import Load
from lab.plan import HTTP_PORT, Zone
from lab.region import FIRST, TWO, RegionLab
from lab.region_calls import CallWebhooks, RegionCalls, Told
from lab.region_loss import READY_S, WARM_S, Watch, ready, until_ready
from lab.system import Failed
from lab.verdict import Messages

BETWEEN_S = 8.0
FEW_BYTES = 1 << 20
"""So far behind may a standby be that is called one."""


class Handover(msgspec.Struct, kw_only=True):
    """What one run showed: from one to two, and back."""

    messages: Messages
    calls: Told
    away_s: list[float]
    """Seconds without an acceptance: there, and back."""
    rejoined_s: list[float]
    """Seconds until the former region's databases followed: one, then two."""
    missing_bytes: list[int]
    """As the promotions report."""
    both: int = 0
    """Looks that found both regions ready."""
    problem: str = ""
    at: int = 0
    version: str = ""

    def good(self) -> bool:
        """Whether nothing was lost."""
        calls, keyed = self.calls, self.messages.failed.get("keyed", 0)
        told = calls.good() and not calls.untold and calls.ended == calls.up
        return (
            verdict.good(self.messages) and told and not (any(self.missing_bytes) or self.both or self.problem or keyed)
        )


async def there_and_back(lab: RegionLab, rate: float, count: int) -> Handover:
    """One run; the first region is active again afterwards."""
    assert lab.customer is not None
    missing, rejoined, began = [], [], []
    async with CallWebhooks() as webhooks, RegionCalls(lab, webhooks) as calls, Watch(lab) as watch:
        async with Load(lab.customer, webhooks, "ho.", rate=rate) as load:
            await calls.begin(count)
            await asyncio.sleep(WARM_S)
            calls.strike()
            began.append(time.monotonic())
            missing.append(await promote(lab, TWO.region, [TWO]))
            calls.move(TWO)
            await calls.begin(count)
            await asyncio.sleep(BETWEEN_S)
            rejoined.append(await asyncio.to_thread(lab.follow, FIRST))
            await asyncio.to_thread(wait_as_standbys, lab)
            told = await calls.verdict(lab.customer)
            began.append(time.monotonic())
            missing.append(await promote(lab, FIRST, list(lab.nodes)))
            await asyncio.sleep(BETWEEN_S)
            await load.stop()
        say(f"  {told}")
        await settle(load, webhooks)
        rejoined.append(await asyncio.to_thread(lab.follow, TWO.region))
        taken = await asyncio.to_thread(ledgers.carrier)
        seen = verdict.messages(load.requests, taken, webhooks.messages)
    return Handover(
        messages=seen, calls=told, away_s=gaps(load.requests, began), rejoined_s=rejoined, missing_bytes=missing,
        both=watch.both, version=lab.version,
    )  # fmt: skip


async def promote(lab: RegionLab, region: str, zones: list[Zone]) -> int:
    """`region promote` in order; the bytes that it reports as missing. Raises Failed."""
    began = time.monotonic()
    said = await asyncio.to_thread(lambda: lab.trunkline("region", "promote", "--to", region, "--json", region=region))
    for zone in zones:
        await asyncio.to_thread(until_ready, zone)
    say(f"  region {region} is active after {time.monotonic() - began:.1f} s")
    return sum(one["missing_bytes"] for one in json.loads(said)["positions"])


def wait_as_standbys(lab: RegionLab) -> None:
    """Start the first region's nodes, which wait, and see that it follows closely. Raises Failed."""
    deadline = time.monotonic() + READY_S
    for zone in lab.nodes:
        while not probe.answers_http(zone.node, HTTP_PORT, "/healthz"):
            lab.node(zone).start()
            if time.monotonic() > deadline:
                raise Failed(f"{zone.name} does not wait as a standby\n{lab.node(zone).tail('trunkline')}")
            time.sleep(0.2)
        if ready(zone):
            raise Failed(f"{zone.name} serves in a region that is not active")
    status = json.loads(lab.trunkline("region", "status", "--json", region=FIRST))
    own, active = status["databases"][FIRST], status["databases"][TWO.region]
    behind = max(active[name]["lsn"] - own[name]["lsn"] for name in own)
    say(f"  region one waits: {status['text']}; {behind} bytes behind")
    if status["role"] != "standby" or behind > FEW_BYTES:
        raise Failed(f"region one does not follow closely: {status['text']}, {behind} bytes behind")


def gaps(requests: Sequence[ledgers.Request], began: Sequence[float]) -> list[float]:
    """Longest time without an acceptance from each of these moments to the next one."""
    ends = [*began[1:], math.inf]
    taken = [one.ended for one in requests if one.sid]
    return [
        verdict.gap([since, *(at for at in taken if since < at < until)])
        for since, until in zip(began, ends, strict=True)
    ]
