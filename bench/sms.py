"""Messages end to end, beside Kannel: HTTP request, accepted, submit_sm, answer, receipt, callback.

    python -m bench.sms [compare] [latency] [queued] [throttle] [reconnect] [--quick] [--markdown] [--update]
    python -m bench.sms --report [--markdown] [--update]

Runs the named scenarios (all without a name), writes var/bench/NAME.json and prints the table; `--report` prints it
from the files of earlier runs. Everything talks to 127.0.0.1 and is ended by its pid. README.md says how it is counted.
"""

import argparse
import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench import kannel, report
from bench.gateway import Gateway
from bench.kannel import Kannel
from bench.load import Load
from bench.measure import Result, Run, bound, warm_up
from bench.node import Trunkline
from bench.processes import Failed, Meter
from bench.sink import Sink
from bench.smsc import Smsc

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "var" / "bench"
PAGE = ROOT / "docs" / "reference" / "performance.md"
RUN_LIMIT_S = 180.0
"""No run takes longer."""
CONCURRENCY = 64
RATE = 500.0
QUEUED_RATE = 75.0
"""Messages a second of the account that must not notice another one's queue."""
THROTTLE = 1500.0
THROTTLE_OFFERED = 2000.0
RAMP_S = 1.0
"""What a throttled system is given to find its rate."""
DROP_EVERY_S = 2.0
DROP_LATENCY_MS = 20.0
Drive = Callable[[Load], Awaitable[None]]
BOTH: tuple[type[Trunkline] | type[Kannel], ...] = (Trunkline, Kannel)


class Size(msgspec.Struct, frozen=True):
    """How much is measured."""

    rounds: int = 3
    messages: int = 15_000
    """Of each closed loop."""
    latency_rounds: int = 2
    seconds: float = 12.0
    """Of each open loop."""
    queued: int = 100_000
    drops: int = 4


FULL = Size()
QUICK = Size(rounds=1, messages=6_000, latency_rounds=1, seconds=5.0, queued=20_000, drops=2)


@contextlib.contextmanager
def system(kind: Callable[..., Gateway], smsc: dict[str, float] | None = None, **options: Any) -> Iterator[Run]:
    """A fresh gateway and a fresh SMSC; both end with the block, and their folder goes."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=RESULTS))
    carrier = Smsc(**(smsc or {}))
    gateway: Gateway | None = None
    try:
        gateway = kind(folder, carrier.port, **options)
        gateway.start()
        yield Run(gateway, carrier)
    finally:
        if gateway is not None:
            gateway.stop()
        carrier.stop()
        shutil.rmtree(folder, ignore_errors=True)


def perform(work: Awaitable[Any]) -> Any:
    """Run on a loop of its own, RUN_LIMIT_S at most."""

    async def bounded() -> Any:
        return await asyncio.wait_for(work, RUN_LIMIT_S)

    return uvloop.run(bounded())


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def tell(result: Result) -> None:
    """One line of a run."""
    r = result
    say(
        f"{r.gateway:9} {r.accepted:>6}/{r.requests} accepted {r.accepted_per_s:>6.0f}/s"
        f"  told {r.delivered_per_s:>6.0f}/s"
        f"  submit p50 {r.request_to_submit.p50:>6.1f} p99 {r.request_to_submit.p99:>7.1f} ms"
        f"  CPU {r.cpu_s_per_1000:.3f} s/1000  PSS {r.pss_mb:.0f} MB"
        f"  lost {r.tally.lost} untold {r.tally.untold} duplicates {r.tally.duplicates}"
        + (f"  signatures {r.signatures - r.forged}/{r.signatures}" if r.signatures else "")
    )


def in_turn(rounds: int, drive: Drive) -> dict[str, list[Result]]:
    """A B A B: one run of each system in each round."""
    results: dict[str, list[Result]] = {kind.name: [] for kind in BOTH}
    for _ in range(rounds):
        for kind in BOTH:
            with system(kind) as run:
                result = perform(run.measure(drive))
            tell(result)
            results[kind.name].append(result)
    return results


def compare(size: Size) -> dict[str, Any]:
    """What each can do: a closed loop of CONCURRENCY connections."""
    return {"runs": in_turn(size.rounds, lambda load: load.closed(size.messages, CONCURRENCY, 60))}


def latency(size: Size) -> dict[str, Any]:
    """How long each takes at RATE messages a second."""
    runs = in_turn(size.latency_rounds, lambda load: load.open(RATE, size.seconds))
    return {"rate": RATE, "runs": runs}


def queued(size: Size) -> dict[str, Any]:
    """One account's number sends a message a second and has `queued` waiting: memory, and another account's latency."""
    with system(Trunkline, rates=(1, 0), messaging={"queue_s": 10 * size.queued}) as run:
        return dict(perform(_queued(run, size)))


async def _queued(run: Run, size: Size) -> dict[str, Any]:
    node = run.gateway
    assert isinstance(node, Trunkline)
    slow, other = node.customers
    async with Sink(node.is_final) as sink:
        await bound(run.smsc)
        node.customer = other
        await warm_up(node, run.smsc, sink)
        meter = Meter(node.roots)
        empty_mb = meter.memory_mb()
        node.customer = slow
        load = Load(node.port, lambda message: node.request(f"slow-{message}", message, sink.url))
        await load.closed(size.queued, CONCURRENCY, 90)
        await asyncio.sleep(2)
        left = len(load.accepted) - (await run.smsc.later("/stats"))["keys"]
        queued_mb = meter.memory_mb()
        say(f"{left} queued: {queued_mb:.0f} MB, {empty_mb:.0f} MB when empty; answers {dict(load.statuses)}")
        node.customer = other
        sink.forget()
        result = await run.drive(sink, lambda load: load.open(QUEUED_RATE, size.seconds))
        sent = sum(key.startswith("slow-") for key in run.seen)
    tell(result)
    return {
        "queued": left,
        "empty_mb": round(empty_mb, 1),
        "queued_mb": round(queued_mb, 1),
        "slow_sent": sent,
        "rate": QUEUED_RATE,
        "accept_seconds": round((max(load.accepted.values()) - load.began[0]) / 1e9, 1),
        "other": result,
    }


def throttle(size: Size) -> dict[str, Any]:
    """The SMSC answers ESME_RTHROTTLED above THROTTLE: how much is held?"""
    held: dict[str, Any] = {}
    for kind in BOTH:
        with system(kind) as run:
            run.wait_s = 30.0 if kind is Trunkline else 0.0  # Kannel's backlog would take minutes
            result = perform(run.measure(lambda load, run=run: _throttled(run.smsc, load, size)))  # type: ignore[misc]
        firsts = [first for first, _ in run.seen.values()]
        began, last = min(firsts), max(firsts)
        loaded = began + int(size.seconds * 1e9)
        rate = rate_between(firsts, began + int(RAMP_S * 1e9), last)
        after = rate_between(firsts, loaded, last)
        held[kind.name] = {"held_per_s": rate, "after_load_per_s": after, "run": result}
        refused = result.smsc.get("refused_0x58", 0)
        waited = f"lost {result.tally.lost}, duplicates {result.tally.duplicates}" if run.wait_s else "not waited for"
        say(
            f"{kind.name:9} holds {rate:.0f}/s of {THROTTLE:.0f} ({after:.0f} after the load), "
            f"{refused} times refused; {waited}"
        )
    return {"limit": THROTTLE, "offered": THROTTLE_OFFERED, "held": held}


def rate_between(moments: list[int], since: int, until: int) -> float:
    """Moments a second in a span of nanoseconds; 0 for an empty one."""
    return round(sum(since <= at < until for at in moments) / (until - since) * 1e9, 1) if until > since else 0.0


async def _throttled(smsc: Smsc, load: Load, size: Size) -> None:
    await smsc.later("/set", throttle_per_s=THROTTLE)
    await load.open(THROTTLE_OFFERED, size.seconds)


def reconnect(size: Size) -> dict[str, Any]:
    """The connection to the SMSC is cut under load: what is lost, sent twice, and marked as in doubt?"""
    found: dict[str, Any] = {}
    for kind in BOTH:
        with system(kind, {"latency_ms": DROP_LATENCY_MS}) as run:
            result = perform(run.measure(lambda load, run=run: _dropped(run.smsc, load, size.drops)))  # type: ignore[misc]
            run.gateway.stop()
            twice = {key for key, (_, times) in run.seen.items() if times > 1}
            marked = doubtful(run.gateway) if isinstance(run.gateway, Trunkline) else set()
        found[kind.name] = {"in_doubt": len(marked), "unmarked_duplicates": len(twice - marked), "run": result}
        say(
            f"{kind.name:9} {size.drops} cuts: lost {result.tally.lost}, untold {result.tally.untold}, duplicates "
            f"{result.tally.duplicates}; {len(marked)} marked in doubt, {len(twice - marked)} duplicates not marked"
        )
    return {"rate": RATE, "cuts": size.drops, "latency_ms": DROP_LATENCY_MS, "systems": found}


async def _dropped(smsc: Smsc, load: Load, drops: int) -> None:
    async def cut() -> None:
        for _ in range(drops):
            await asyncio.sleep(DROP_EVERY_S)
            await smsc.later("/drop")

    cutting = asyncio.create_task(cut())
    await load.open(RATE, (drops + 1) * DROP_EVERY_S)
    await cutting


def doubtful(node: Trunkline) -> set[str]:
    """Keys of the landed messages that were in doubt at some time."""
    rows = node.query("select body from messages where doc::json ->> '$.in_doubt' = 'true'")
    return {row[0].split()[0].removeprefix("K=") for row in rows}


SCENARIOS: dict[str, Callable[[Size], dict[str, Any]]] = {
    "compare": compare,
    "latency": latency,
    "queued": queued,
    "throttle": throttle,
    "reconnect": reconnect,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--quick", action="store_true", help="less of everything: figures are rough")
    parser.add_argument("--markdown", action="store_true", help="print the table for docs/reference/performance.md")
    parser.add_argument("--update", action="store_true", help="put that table into docs/reference/performance.md")
    parser.add_argument("--report", action="store_true", help="measure nothing, print what was measured")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in SCENARIOS]:
        parser.error(f"no such scenario: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    results = RESULTS / "quick" if options.quick else RESULTS
    if not options.report:
        if problem := kannel.missing():
            print(problem, file=sys.stderr)
            return 1
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        size = QUICK if options.quick else FULL
        for name in options.names or SCENARIOS:
            print(f"== {name}: {SCENARIOS[name].__doc__}", file=sys.stderr)
            began = time.monotonic()
            try:
                figures = SCENARIOS[name](size)
            except Failed as error:
                print(f"{name}: {error}", file=sys.stderr)
                return 1
            report.write(results, name, figures, quick=options.quick, took_s=time.monotonic() - began)
    if options.update:
        report.update(PAGE, results)
    print(report.markdown(results) if options.markdown else report.terminal(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
