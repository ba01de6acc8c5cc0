"""What metrics and traces cost: CPU seconds of 1000 messages with both, beside the same server without them.

    python -m bench.telemetry [--rounds 5] [--messages 6000] [--sample 0.01]

`off`: stages count nothing (bench/telemetry_off.py), nobody scrapes. `on`: `/metrics` is scraped each SCRAPE_S, and
`sample` of the messages are traced to a collector of this process. In turn (A B B A A B ...); the figure is the median
of the ratios, pair by pair: on a busy machine neither the rates nor single values tell anything. Before them, what the
hand-overs and spans of one message cost alone, in this process.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from bench.measure import Result
from bench.node import Trunkline
from bench.sms import CONCURRENCY, perform, say, system, tell
from trunkline.model.message import Direction, Message, Status
from trunkline.telemetry.otlp import MAX_BATCH, encode
from trunkline.telemetry.stages import Line, Stage, of_messages
from trunkline.telemetry.traceparent import build, new_span, new_trace
from trunkline.telemetry.tracing import Tracer

SCRAPE_S = 5.0
LIMIT_S = 150.0


class _Collector(BaseHTTPRequestHandler):
    """Takes what is posted."""

    protocol_version = "HTTP/1.1"
    spans = 0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).spans += sum(len(one["scopeSpans"][0]["spans"]) for one in body["resourceSpans"])
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def collector() -> Iterator[str]:
    """Its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Collector)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield "http://{}:{}/v1/traces".format(*server.server_address[:2])
    finally:
        server.shutdown()
        server.server_close()


async def scraped(port: int) -> None:
    """Scrape for ever."""

    def scrape() -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            answer.read()

    while True:
        await asyncio.sleep(SCRAPE_S)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(scrape)


def once(messages: int, url: str, sample: float) -> Result:
    """One run; without a URL it is off."""
    more: dict[str, dict[str, object]] = {"server": {"supervisor": "no"}}
    if url:
        more["telemetry"] = {"otlp_endpoint": url, "sample": sample}
    options: dict[str, Any] = {"more": more, "module": "trunkline" if url else "bench.telemetry_off"}
    with system(Trunkline, **options) as run:

        async def measure() -> Result:
            scraping = asyncio.create_task(scraped(run.gateway.port)) if url else None
            try:
                return await run.measure(lambda load: load.closed(messages, CONCURRENCY, LIMIT_S))
            finally:
                if scraping is not None:
                    scraping.cancel()

        return perform(measure())


def alone() -> None:
    """CPU of what one message makes telemetry do: accepted at once, submitted, its receipt, two callbacks, landed."""
    exporting = Tracer(exporting=True)
    resource: list[dict[str, Any]] = []

    def message(given: str) -> None:
        record = Message(sid="SM", account_sid="AC", direction=Direction.OUTBOUND_API, traceparent=given)
        one = Standing()
        parent = line.begin(one, record)
        line.accepted(one, record, Status.SENDING, 3, parent, False)
        line.hand_over(one, record, Status.SENT, 9)
        line.hand_over(one, record, Status.DELIVERED, 90)
        for _ in range(2):
            stage = callbacks.of_kind("status")
            stage.waited(0.001)
            stage.left(0.004)
        line.stages["archive"].left(0.3)

    for name, tracer, count, given in (
        ("untraced", Tracer(exporting=True, sample=0.0), 50_000, ""),
        ("traced, with export", exporting, 5_000, build(new_trace(), new_span())),
    ):
        line, callbacks = of_messages(), Line("callback")
        line.tracer = tracer
        best = float("inf")
        for _ in range(5):
            began = time.process_time()
            for _ in range(count):
                message(given)
                if len(tracer.spans) > MAX_BATCH:
                    encode([tracer.spans.popleft() for _ in range(MAX_BATCH)], resource)
            best = min(best, time.process_time() - began)
        print(f"one message, {name}\t{best / count * 1e6:.2f} us of CPU")


class Standing:
    """As a working copy has them."""

    __slots__ = ("since", "stage")
    stage: Stage | None
    since: float


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=6000)
    parser.add_argument("--sample", type=float, default=0.01)
    asked = parser.parse_args()
    alone()
    pairs: list[dict[str, Result]] = []
    with collector() as url:
        for number in range(asked.rounds):
            pair: dict[str, Result] = {}
            for name in ("off", "on") if number % 2 == 0 else ("on", "off"):
                pair[name] = once(asked.messages, url if name == "on" else "", asked.sample)
                say(name)
                tell(pair[name])
            pairs.append(pair)
    for what, get in (("CPU s/1000", "cpu_s_per_1000"), ("told/s", "delivered_per_s")):
        ratios = [getattr(pair["on"], get) / getattr(pair["off"], get) for pair in pairs]
        middle = {name: statistics.median(getattr(pair[name], get) for pair in pairs) for name in ("off", "on")}
        shown = ", ".join(f"{ratio:.3f}" for ratio in ratios)
        both = f"off {middle['off']:.4g}\ton {middle['on']:.4g}"
        print(f"{what}\t{both}\tratio {statistics.median(ratios):.3f}\tpairs {shown}")
    print(f"spans taken by the collector\t{_Collector.spans}")


if __name__ == "__main__":
    main()
