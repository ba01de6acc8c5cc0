"""Messages end to end with queue and records in three zones, and what each step towards that costs.

    python -m bench.zones [ROUNDS [MESSAGES]]

Each round runs every step once, in turn, so that ratios are taken within a round. All is on this machine: the engines
as bench/zones_engines.py starts them, nodes, HAProxy, load generator, carrier and customer. README.md says how it is
counted.
"""

import asyncio
import re
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bench.load import Load
from bench.measure import Run, bound, told, warm_up
from bench.node import Trunkline
from bench.processes import Failed, Meter, Process, free_ports, listens
from bench.sink import Sink
from bench.sms import CONCURRENCY, RESULTS, ROOT, perform, say, system

ROUNDS, MESSAGES = 3, 4000
LIMIT_S = 60.0
TOLD_S = 60.0
REST_S = 1.5
"""How long it is watched at rest, before the load."""
QUIET_S, QUIET_LIMIT_S, QUIET_CPU_S = 0.5, 8.0, 0.03
"""It has finished when it uses no more than at rest and so much in QUIET_S."""
PARTITIONS = 12
LEASE_S = 5.0
"""Nobody dies here, and two cores that do all this let a node wait: a takeover would be counted as work."""
SETTLE_S = 60.0
OWNED = re.compile(r"^trunkline_partition_owned\{.*\} 1\.0$", re.MULTILINE)
PACKAGES = ("postgresql", "redis-server", "redis-sentinel", "haproxy")
"""Debian's."""
ZONES = ("a", "b", "c")


class Step(NamedTuple):
    """One set-up; each has what the one before it has, and one thing more."""

    name: str
    what: str
    quorum: bool = False
    cluster: bool = False
    queues: int = 1
    nodes: int = 1


STEPS = (
    Step("embedded", "SQLite, one node"),
    Step("postgres", "PostgreSQL, one server, fsync"),
    Step("quorum", "a commit waits for one of two standbys", quorum=True),
    Step("cluster", "12 partitions, lease, memory store on Redis, shared objects", quorum=True, cluster=True),
    Step("queues", "two PostgreSQL clusters for the queue, one for records", quorum=True, cluster=True, queues=2),
    Step("zones", "three nodes behind HAProxy", quorum=True, cluster=True, queues=2, nodes=3),
)


class Figures(msgspec.Struct, frozen=True):
    """One run."""

    accepted: int
    lost: int
    untold: int
    duplicates: int
    accepted_per_s: float
    told_per_s: float
    submit_p50_ms: float
    nodes_cpu: float
    """CPU seconds of the nodes' processes for 1000 messages, beyond what they use at rest."""
    all_cpu: float
    """The same with engines and balancer."""
    rest: float
    """What everything uses at rest, of one core."""


class Zoned:
    """A bench.gateway.Gateway made of nodes."""

    name = "trunkline"

    def __init__(self, folder: Path, smsc_port: int, step: Step, engines: Any) -> None:
        self._folder = folder
        self._step = step
        self._engines = engines
        self._balancer: Process | None = None
        (folder / "objects").mkdir()
        shared = self._shared()
        self._nodes: list[Trunkline] = []
        for zone in ZONES[: step.nodes]:
            (folder / zone).mkdir()
            known = self._nodes[0].customers if self._nodes else None
            more = {**shared, **self._own(zone)} if step.cluster else shared
            self._nodes.append(Trunkline(folder / zone, smsc_port, more=more, customers=known))
        self._first = self._nodes[0]
        self.port = free_ports(1)[0] if step.nodes > 1 else self._first.port

    def _shared(self) -> dict[str, Mapping[str, object]]:
        step, engines = self._step, self._engines
        if step.name == "embedded":
            return {}
        if not step.quorum:
            alone = engines.alone
            return {"storage": {"engine": "postgres", "queue": alone.database(), "database": alone.database()}}
        places = [f"{zone}={zone}" for zone in ZONES]
        queues = [engines.quorum[number].database() for number in range(step.queues)]
        records = engines.quorum[-1 if step.queues > 1 else 0].database()
        storage = {"engine": "postgres", "database": records, "survives": "zone", "zones": places}
        if not step.cluster:
            return {"storage": {**storage, "queue": queues[0]}}
        redis = engines.redis
        return {
            "storage": {**storage, "queue": queues, "partitions": PARTITIONS},
            "memory": {
                "engine": "valkey", "url": "redis:///0", "sentinels": redis.addresses, "service": "trunkline",
                "survives": "zone", "zones": [f"{address}={label}" for address, label in redis.zones().items()],
            },
            "objects": {"url": f"file://{self._folder / 'objects'}"},
            "security": {"master_key": "00" * 32},
            "cluster": {"enabled": True, "secret": "s" * 32, "lease_s": LEASE_S},
        }  # fmt: skip

    def _own(self, zone: str) -> dict[str, Mapping[str, object]]:
        return {"node": {"name": zone, "zone": zone, "address": f"127.0.0.1:{free_ports(1)[0]}"}}

    @property
    def roots(self) -> list[int]:
        return [pid for node in self._nodes for pid in node.roots]

    @property
    def everything(self) -> list[int]:
        """The engines' and the balancer's processes too; embedded has none."""
        if self._step.name == "embedded":
            return self.roots
        return [*self.roots, *self._engines.pids, *([self._balancer.pid] if self._balancer else [])]

    def start(self) -> None:
        for node in self._nodes:
            node.start()
        if self._step.nodes > 1:
            from bench.zones_engines import balance

            ports = {zone: node.port for zone, node in zip(ZONES, self._nodes, strict=False)}
            self._balancer = balance(self._folder, self.port, ports)
            self._balancer.until(lambda: listens(self.port), SETTLE_S, "waiting for HAProxy")
        if self._step.cluster:
            self._settle()

    def _settle(self) -> None:
        """Partitions move to nodes that have come."""
        least = PARTITIONS // len(self._nodes)
        deadline = time.monotonic() + SETTLE_S
        for node in self._nodes:
            while len(OWNED.findall(_page(node.port))) != least:
                if time.monotonic() > deadline:
                    raise Failed(f"not every node owns {least} partitions")
                time.sleep(0.1)

    def stop(self) -> None:
        if self._balancer is not None:
            self._balancer.stop()
        for node in self._nodes:
            node.stop()

    def request(self, key: str, number: int, sink_url: str) -> bytes:
        return self._first.request(key, number, sink_url)

    def is_final(self, url: bytes, body: bytes) -> bool:
        return self._first.is_final(url, body)

    def counters(self) -> dict[str, float]:
        return {}

    def genuine(self, url: str, sample: Any) -> bool | None:
        return self._first.genuine(url, sample)


def _page(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return ""


async def measure(run: Run, gateway: Zoned, messages: int) -> Figures:
    """One closed loop. Raises Failed."""
    async with Sink(gateway.is_final) as sink:
        await bound(run.smsc)
        await warm_up(gateway, run.smsc, sink)
        nodes, everything = Meter(gateway.roots), Meter(gateway.everything)
        await asyncio.sleep(REST_S)
        nodes_rest, rest = nodes.cpu_s() / REST_S, everything.cpu_s() / REST_S
        nodes, everything = Meter(gateway.roots), Meter(gateway.everything)
        began = time.monotonic()
        load = Load(gateway.port, lambda message: gateway.request(f"m-{message}", message, sink.url))
        await load.closed(messages, CONCURRENCY, LIMIT_S)
        await told(sink, lambda: len(load.accepted), TOLD_S)
        await _quiet(everything, rest)
        took = time.monotonic() - began
        used = nodes.cpu_s() - nodes_rest * took, everything.cpu_s() - rest * took
        run.seen = await run.smsc.later("/times")
        result = run.result(load, sink, nodes, (used[0], 0.0, 0.0), await run.smsc.later("/stats"))
    return Figures(
        accepted=result.accepted, lost=result.tally.lost, untold=result.tally.untold,
        duplicates=result.tally.duplicates, accepted_per_s=result.accepted_per_s,
        told_per_s=result.delivered_per_s, submit_p50_ms=result.request_to_submit.p50,
        nodes_cpu=result.cpu_s_per_1000, all_cpu=round(used[1] / (result.accepted / 1000 or 1), 3),
        rest=round(rest, 3),
    )  # fmt: skip


async def _quiet(meter: Meter, rest: float) -> None:
    """Wait until what was put off is done."""
    deadline, before = time.monotonic() + QUIET_LIMIT_S, meter.cpu_s()
    while time.monotonic() < deadline:
        await asyncio.sleep(QUIET_S)
        now = meter.cpu_s()
        if now - before <= rest * QUIET_S + QUIET_CPU_S:
            return
        before = now


def table(found: Mapping[str, Sequence[Figures]]) -> str:
    """Medians over the rounds, as Markdown; ratios within a round."""
    first = found[STEPS[0].name]
    lines = [
        "| step | accepted/s | told/s | told: of embedded | of the step before | CPU s/1000, nodes | everything"
        " | everything: of embedded | at rest, of a core |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    former = first
    for step in STEPS:
        runs = found[step.name]
        cells = [
            f"{step.what}",
            f"{_middle([one.accepted_per_s for one in runs]):.0f}",
            f"{_middle([one.told_per_s for one in runs]):.0f}",
            f"{_ratio([one.told_per_s for one in runs], [one.told_per_s for one in first])}",
            f"{_ratio([one.told_per_s for one in runs], [one.told_per_s for one in former])}",
            f"{_middle([one.nodes_cpu for one in runs]):.2f}",
            f"{_middle([one.all_cpu for one in runs]):.2f}",
            f"{_ratio([one.all_cpu for one in runs], [one.all_cpu for one in first])}",
            f"{100 * _middle([one.rest for one in runs]):.0f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
        former = runs
    return "\n".join(lines)


def _middle(values: Sequence[float]) -> float:
    return statistics.median(values)


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The median of the rounds' ratios, and their span."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return f"**{_middle(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"


def main(rounds: int = ROUNDS, messages: int = MESSAGES) -> int:
    """All steps, `rounds` times; 1 when a message was lost, untold, or sent twice."""
    subprocess.run([ROOT / "scripts/debian.sh", "the bench of zones", *PACKAGES], check=True)
    from bench.zones_engines import Engines  # it looks for PostgreSQL when it is loaded

    found: dict[str, list[Figures]] = {step.name: [] for step in STEPS}
    began = time.monotonic()
    with Engines() as engines:
        for number in range(rounds):
            for step in STEPS:
                with system(Zoned, step=step, engines=engines) as run:
                    gateway = run.gateway
                    assert isinstance(gateway, Zoned)
                    figures: Figures = perform(measure(run, gateway, messages))
                say(f"{number + 1}/{rounds} {step.name:9} {_line(figures)}")
                found[step.name].append(figures)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "zones.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    say(f"{rounds} rounds of {messages} messages in {time.monotonic() - began:.0f} s")
    print(table(found))
    return int(any(one.lost + one.untold + one.duplicates for runs in found.values() for one in runs))


def _line(one: Figures) -> str:
    return (
        f"accepted {one.accepted_per_s:6.0f}/s  told {one.told_per_s:6.0f}/s  submit p50 {one.submit_p50_ms:6.1f} ms"
        f"  CPU s/1000: nodes {one.nodes_cpu:.2f}, everything {one.all_cpu:.2f}; at rest {100 * one.rest:.0f} %"
        f"  lost {one.lost} untold {one.untold} duplicates {one.duplicates}"
    )


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])))
