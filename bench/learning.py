"""What learning costs production: latency and CPU of one server, while a learner follows it and while it does not.

    python -m bench.learning [--rounds 60] [--rate 150] [--seconds 2] [--per-second 20]

One server, one SMSC, one learner that follows one account; in each round three windows of open load in turn: `on` is
that account's, `off` and `again` are two others', so that the learner has nothing to do and `again` against `off` shows
what the machine does by itself. Every window's percentiles are taken alone; told is the median of the ratios, round by
round, with the interval in which 95 % of resampled medians lie, beside the pooled distributions. CPU is the
server's, the learner's not included: that runs at idle priority, and is told apart. Before that, what the taps cost.
"""

import argparse
import asyncio
import random
import socket
import statistics
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from bench.load import Load
from bench.measure import Run, bound, times_of, warm_up
from bench.node import Trunkline
from bench.processes import cpu_s, python, tree
from bench.sink import Sink
from bench.sms import say, system
from trunkline.learning import runs
from trunkline.learning.feed import FLUSH_S, Feed, _Line
from trunkline.learning.sampling import Sampling
from trunkline.learning.tally import Tally
from trunkline.learning.wire import Step
from trunkline.model.message import Direction, Message, encode
from trunkline.settings.learning import Learning
from trunkline.smpp.pdu import SubmitSm
from trunkline.storage.queue import Advance, Owed

KINDS = ("on", "off", "again")
FEED_S = 60.0
"""Longest wait for the node to find the run."""
RESAMPLED = 2000


class Window:
    """What one window has shown."""

    def __init__(self) -> None:
        self.spans: list[int] = []
        """Request to submit, nanoseconds."""
        self.answers: list[int] = []
        """Request to answer."""
        self.cpu = 0.0
        """Seconds of 1000 messages."""


def learn(configuration: Path, *arguments: str) -> str:
    command = python("-m", "trunkline", "--config", str(configuration), "learn", *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200).stdout


async def window(run: Run, sink: Sink, name: str, rate: float, seconds: float) -> Window:
    """One window of load."""
    found, loads = Window(), list[Load]()

    async def drive(load: Load) -> None:
        loads.append(load)
        await load.open(rate, seconds)

    await run.smsc.later("/reset")
    sink.forget()
    run.prefix = name
    result = await run.drive(sink, drive)
    (load,) = loads
    found.answers = [at - load.began[m] for m, at in load.accepted.items()]
    found.spans = [run.seen[key][0] - load.began[m] for m in load.accepted if (key := f"{name}-{m}") in run.seen]
    found.cpu = result.cpu_s_per_1000
    if result.tally.lost or result.tally.duplicates:
        say(f"{name}: lost {result.tally.lost}, duplicates {result.tally.duplicates}")
    return found


async def measure(run: Run, folder: Path, asked: argparse.Namespace) -> tuple[dict[str, list[Window]], Tally, float]:
    configuration, candidate = folder / "trunkline.toml", folder / "candidate.toml"
    candidate.write_text("[webhooks]\nper_host = 7\n")
    windows: dict[str, list[Window]] = {kind: [] for kind in KINDS}
    node = run.gateway
    assert isinstance(node, Trunkline)
    customers = dict(zip(KINDS, node.customers, strict=True))
    async with Sink(node.is_final) as sink:
        await bound(run.smsc)
        await warm_up(node, run.smsc, sink)
        only = ("--candidate", str(candidate), "--account", customers["on"].account.sid)
        await asyncio.to_thread(learn, configuration, "start", "bench", *only)
        until = time.monotonic() + FEED_S
        while not runs.found(folder / "data", "bench")[1].nodes and time.monotonic() < until:
            await asyncio.sleep(0.1)
        pids = tree([runs.pid_of(folder / "data" / "learning" / "bench")])
        before = cpu_s(pids)
        for number in range(asked.rounds):
            for kind in (*KINDS[number % 3 :], *KINDS[: number % 3]):
                node.customer = customers[kind]
                windows[kind].append(await window(run, sink, f"{kind}{number}", asked.rate, asked.seconds))
            say(f"{number} " + "; ".join(f"{k} p99 {times_of(windows[k][-1].spans).p99} ms" for k in KINDS))
        learner_s = cpu_s(pids) - before
        await asyncio.to_thread(learn, configuration, "stop", "bench")
    return windows, runs.found(folder / "data", "bench")[1], learner_s


async def alone(per_second: int) -> None:
    """CPU of what the feed does to the event loop of the server: a message tapped (one submit, two steps), one that is
    not sampled, and the longest flush that FLUSH_S of work makes."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mine.setblocking(False)
    feed = Feed(
        Path("/nonexistent"), Learning(per_second=10_000, buffer=100_000), switch=lambda on: None,
        bound=lambda number: "", avoid=frozenset,
    )  # fmt: skip
    text = "Hello, this is a message of an ordinary length that somebody has sent " * 2
    message = Message(
        sid="SM" + "0" * 32, account_sid="AC" + "0" * 32, direction=Direction.OUTBOUND_API, from_="+12025550100",
        to="+12025550101", body=text[:140], status_callback="http://127.0.0.1:1/status",
    )  # fmt: skip
    record = encode(message)
    owed = [Owed(sid="", account="", kind="status", host="", request=record)]
    steps = [
        Advance(id=1, sid=message.sid, account="", rev=1, status=one, record=record, owed=owed)
        for one in ("sent", "delivered")
    ]
    pdus = [SubmitSm(source="12025550100", destination="12025550101", message=text[:140].encode())]
    for name, percent in (("tapped", 100.0), ("not sampled", 0.0)):
        line = _Line("bench", mine, Sampling(percent=percent), Learning(per_second=10_000, buffer=100_000))
        feed._lines = {"bench": line}
        feed._flushing = True  # by hand, below
        best, count = float("inf"), 2000
        for _ in range(5):
            line._tokens = 1e9
            began = time.process_time()
            for number in range(count):
                message.sid = f"SM{number:032x}"
                feed.submitted(message, 0, pdus)
                for step in steps:
                    step.sid = message.sid
                    feed.stepped(message, step)
            best = min(best, time.process_time() - began)
            line.waiting.clear()
            line.chosen.clear()
        print(f"one message, {name}\t{best / count * 1e6:.2f} us of CPU")
    longest = max(1, round(per_second * FLUSH_S)) * 3
    line = _Line("bench", mine, Sampling(), Learning())
    times = []
    for _ in range(300):
        for _ in range(longest):
            line.put(partial(Step, message.sid, "sent", record, [record], "", []))
        began = time.process_time()
        line.flush()
        times.append(time.process_time() - began)
        theirs.recv(1 << 18)
    middle, most = statistics.median(times) * 1e6, sorted(times)[-4] * 1e6
    print(f"a flush of {longest} things\tmedian {middle:.0f} us, p99 {most:.0f} us, {1 / FLUSH_S:.0f} a second at most")


def interval(ratios: list[float]) -> str:
    """The median, and where 95 % of resampled medians lie."""
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(RESAMPLED))
    low, high = medians[RESAMPLED // 40], medians[-RESAMPLED // 40]
    return f"{statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})"


def tell(windows: dict[str, list[Window]]) -> None:
    """The table."""
    for what, get in (("request to submit", "spans"), ("request to answer", "answers")):
        pooled = {k: times_of(span for one in windows[k] for span in getattr(one, get)) for k in KINDS}
        print(f"{what}\t" + "\t".join(f"{k} p50 {t.p50} p99 {t.p99} ms ({t.count})" for k, t in pooled.items()))
        for share in ("p50", "p99"):
            for kind in ("on", "again"):
                pairs = zip(windows[kind], windows["off"], strict=True)
                ratios = [
                    getattr(times_of(getattr(a, get)), share) / getattr(times_of(getattr(b, get)), share)
                    for a, b in pairs
                ]
                print(f"  {share} {kind}/off\t{interval(ratios)}")
    for kind in ("on", "again"):
        ratios = [a.cpu / b.cpu for a, b in zip(windows[kind], windows["off"], strict=True)]
        print(f"server's CPU {kind}/off\t{interval(ratios)}")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--rate", type=float, default=150.0)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--per-second", type=int, default=20)
    asked = parser.parse_args()
    asyncio.run(alone(asked.per_second))
    more: dict[str, dict[str, object]] = {
        "server": {"supervisor": "no"}, "learning": {"per_second": asked.per_second},
    }  # fmt: skip
    options: dict[str, Any] = {"more": more, "rates": (0, 0, 0)}
    with system(Trunkline, **options) as run:
        folder = run.gateway._folder  # type: ignore[attr-defined]
        windows, tally, learner_s = uvloop.run(measure(run, folder, asked))
    tell(windows)
    print(f"learner's CPU\t{learner_s:.1f} s in all windows, at idle priority")
    print(f"learned\t{tally.work} compared, {tally.shed_by_node} shed by the node, {tally.shed_here} by the learner")


if __name__ == "__main__":
    main()
