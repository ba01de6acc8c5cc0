"""Ten thousand requests held at once on one node: what each costs in memory, and whether others notice.

    python -m bench.held [requests] [homes] [webhooks] [calls] [--count 10000]

`requests`: API requests whose bodies are half there; then the other halves come, and each must be answered 201.
`homes`: API requests with an Idempotency-Key whose home is a node that is away; then it is there, and each is answered.
`webhooks`: callbacks (by HOSTS hosts) that the application does not answer; then it does, and each must be delivered.
`calls`: incoming calls whose webhook the application does not answer; then it does, and each must be rejected as told.
Memory is what all processes of the node take (PSS) beside what they took before, at the moment when all are held; the
kernel's socket buffers are not in it. Meanwhile ordinary requests are made one after another.
"""

import argparse
import asyncio
import os
import signal
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import uvloop

from bench import held_calls
from bench.held_application import Application
from bench.load import Load
from bench.measure import Run, bound, times_of, told, warm_up
from bench.node import Trunkline
from bench.processes import Failed, Meter, free_ports
from bench.sink import Sink
from bench.sms import CONCURRENCY, system

COUNT = 10_000
CALLS = "calls"
HOSTS = 5
"""Loopback addresses of the application: the node keeps at most 4096 callbacks of one host in memory."""
OPENING = 200
"""Connections opened at the same time."""
PROBES = 100
"""Ordinary requests while all are held."""
WAIT_S = 300.0
"""For one thing to happen, on a busy machine."""
RUN_LIMIT_S = 900.0
"""No scenario takes longer."""
HOLD_S = 600.0
POLL_S = 0.1
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


async def until(done: Callable[[], bool], what: str) -> None:
    """Wait, WAIT_S at most. Raises Failed."""
    end = time.monotonic() + WAIT_S
    while not done():
        if time.monotonic() > end:
            raise Failed(f"waited in vain for {what}")
        await asyncio.sleep(POLL_S)


class _Held(asyncio.Protocol):
    """A request whose second half waits."""

    def __init__(self, first: bytes, rest: bytes) -> None:
        self._first, self._rest = first, rest
        self.answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._first)

    def data_received(self, data: bytes) -> None:
        self.answer += data

    def go_on(self) -> None:
        self.transport.write(self._rest)


async def probes(run: Run, sink: Sink) -> str:
    """How long ordinary requests take meanwhile."""
    gateway = run.gateway
    load = Load(gateway.port, lambda number: gateway.request(f"probe-{number}", number, sink.url))
    await load.closed(PROBES, 1, WAIT_S)
    took = times_of(at - load.began[number] for number, at in load.accepted.items())
    return f"{took.count} ordinary requests meanwhile: p50 {took.p50} ms, p99 {took.p99} ms"


async def requests(run: Run, count: int) -> None:
    """API requests with half a body."""

    def half(number: int, whole: bytes) -> tuple[bytes, bytes]:
        return whole[:-20], whole[-20:]

    def let(held: Sequence[_Held]) -> None:
        for one in held:
            one.go_on()

    await _hold(run, count, "API requests held", half, let)


async def _hold(
    run: Run,
    count: int,
    what: str,
    cut: Callable[[int, bytes], tuple[bytes, bytes]],
    let: Callable[[Sequence[_Held]], None],
) -> None:
    """Send what `cut` makes of each request, first part only; then `let` them be answered."""
    gateway = run.gateway
    async with Sink(gateway.is_final) as sink:
        await bound(run.smsc)
        await warm_up(gateway, run.smsc, sink)
        meter = Meter(gateway.roots)
        before = meter.memory_mb()
        loop, gate = asyncio.get_running_loop(), asyncio.Semaphore(OPENING)

        async def hold(number: int) -> _Held:
            first, rest = cut(number, gateway.request(f"held-{number}", number, sink.url))
            async with gate:
                _, held = await loop.create_connection(lambda: _Held(first, rest), "127.0.0.1", gateway.port)
            return held

        all_held = await asyncio.gather(*map(hold, range(count)))
        await asyncio.sleep(2.0)
        tell(f"{count} {what}", before, meter.memory_mb(), count)
        print(await probes(run, sink))
        let(all_held)
        await until(lambda: all(held.answer for held in all_held), "answers")
        made = sum(held.answer.startswith(b"HTTP/1.1 201") for held in all_held)
        print(f"then answered 201: {made} of {count}")
        for held in all_held:
            held.transport.abort()


async def webhooks(run: Run, count: int) -> None:
    """Callbacks that nobody answers."""
    gateway = run.gateway
    loop = asyncio.get_running_loop()
    application = Application(ANSWER, is_open=False)
    server = await loop.create_server(application.connection, "0.0.0.0", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    urls = [f"http://127.0.0.{host + 1}:{port}" for host in range(HOSTS)]
    async with Sink(gateway.is_final) as sink:
        await bound(run.smsc)
        await warm_up(gateway, run.smsc, sink)
        meter = Meter(gateway.roots)
        before = meter.memory_mb()
        warm = metrics(gateway.port)["trunkline_webhooks_delivered_total"]
        load = Load(gateway.port, lambda number: gateway.request(f"m-{number}", number, urls[number % HOSTS]))
        await load.closed(count, CONCURRENCY, WAIT_S)
        wanted = len(load.accepted)
        await until(lambda: len(application.waiting) >= wanted, f"{wanted} callbacks")
        tell(f"{wanted} callbacks held", before, meter.memory_mb(), wanted)
        print(await probes(run, sink))
        await told(sink, lambda: PROBES, WAIT_S)
        application.let()
        counted: dict[str, float] = {}

        def delivered() -> bool:
            counted.update(metrics(gateway.port))
            return counted["trunkline_webhooks_delivered_total"] - warm >= 2 * (wanted + PROBES)

        await asyncio.to_thread(wait_for, delivered)
        print(f"then delivered: {counted['trunkline_webhooks_delivered_total'] - warm:.0f} callbacks, "
              f"{counted['trunkline_webhook_attempts_failed_total']:.0f} attempts failed")  # fmt: skip
    server.close()


def wait_for(done: Callable[[], bool]) -> None:
    """`until`, in a thread."""
    asyncio.run(until(done, "callbacks to be delivered"))


def metrics(port: int) -> dict[str, float]:
    """Those without labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    plain = (line.split(" ") for line in lines if line[0] != "#" and "{" not in line)
    return {name: float(value) for name, value in plain}


def tell(what: str, before: float, now: float, count: int) -> None:
    print(f"{what}: {before:.0f} MB before, {now:.0f} MB now, {(now - before) * 1024 / max(count, 1):.1f} kB each")


async def homes(run: Run, count: int) -> None:
    """API requests that wait for the home of their key."""

    def keyed(number: int, whole: bytes) -> tuple[bytes, bytes]:
        return whole.replace(b"\r\n", b"\r\nIdempotency-Key: held-%d\r\n" % number, 1), b""

    def let(held: Sequence[_Held]) -> None:
        os.kill(run.gateway.roots[0], signal.SIGUSR1)

    await _hold(run, count, "API requests wait for a home", keyed, let)


def calls(count: int) -> None:
    """Calls that wait for their webhook, on a server with SIP."""
    (port,) = free_ports(1)
    more = (
        f"[webhooks]\nper_host = {count // HOSTS + CONCURRENCY}\nin_flight = {count + 1000}\n"
        f"read_timeout_s = {HOLD_S}\ntotal_timeout_s = {HOLD_S}\n"
    )
    with tempfile.TemporaryDirectory(prefix="held-") as folder:
        node = held_calls.Node(Path(folder), port, count + 100, HOSTS, more)
        try:
            node.start()
            uvloop.run(asyncio.wait_for(held_calls.measure(node, port, count, until, tell), RUN_LIMIT_S))
        finally:
            if node.process is not None:
                node.process.stop()


SCENARIOS = {"requests": requests, "homes": homes, "webhooks": webhooks}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", help=", ".join([*SCENARIOS, CALLS]))
    parser.add_argument("--count", type=int, default=COUNT)
    asked = parser.parse_args()
    more: dict[str, dict[str, Any]] = {
        "server": {"supervisor": "no", "max_connections": asked.count + 1000, "request_timeout_s": HOLD_S},
        "webhooks": {
            "per_host": asked.count // HOSTS + CONCURRENCY, "in_flight": asked.count + 1000,
            "read_timeout_s": HOLD_S, "total_timeout_s": HOLD_S,
        },
    }  # fmt: skip
    for name in asked.scenarios or [*SCENARIOS, CALLS]:
        if name == CALLS:
            calls(asked.count)
            continue
        with system(Trunkline, more=more, module="bench.held_home" if name == "homes" else "trunkline") as run:
            uvloop.run(asyncio.wait_for(SCENARIOS[name](run, asked.count), RUN_LIMIT_S))


if __name__ == "__main__":
    main()
