"""Signed status callbacks a second on one core: our client's fast path against aiohttp.

    python bench/callbacks.py [--seconds 3] [--concurrency 64]

The receiver is a process of its own that answers 204 to anything; each client is measured in this process by its CPU
time (the receiver's does not count), building, signing and sending one form of nine parameters a callback.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe

import aiohttp
import uvloop

from trunkline.webhooks.connection import Response
from trunkline.webhooks.failures import Failure
from trunkline.webhooks.http import Client, Origin
from trunkline.webhooks.params import encode_form
from trunkline.webhooks.sign import signer
from trunkline.webhooks.target import target

TOKEN = "0" * 32
IDEMPOTENCY = "0d1b2c3d-0000-0000-0000-00000000000a"
ROUNDS = 5


def params(number: int) -> list[tuple[str, str]]:
    """A delivered callback."""
    sid = f"SM{number:032x}"
    return [
        ("SmsSid", sid),
        ("SmsStatus", "delivered"),
        ("MessageStatus", "delivered"),
        ("To", "+14155550100"),
        ("MessageSid", sid),
        ("AccountSid", "AC" + "1" * 32),
        ("From", "+14155550101"),
        ("ApiVersion", "2010-04-01"),
        ("RawDlrDoneDate", "2401311559"),
    ]


class Receiver(asyncio.Protocol):
    """Answers each request with 204, as cheaply as can be; the requests come whole."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 204 No Content\r\nServer: x\r\nDate: Thu, 01 Jun 2017 20:48:32 GMT\r\n\r\n")  # type: ignore[attr-defined]


def receive(pipe: Pipe) -> None:
    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.sleep(3600)

    uvloop.run(main())


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def ours(port: int, seconds: float, concurrency: int) -> tuple[int, float]:
    """Callbacks done, CPU seconds used."""
    client = Client()
    to = target(f"http://127.0.0.1:{port}/status")
    origin = Origin(to.scheme, to.host, to.port, "127.0.0.1")
    head = (
        f"POST {to.path} HTTP/1.1\r\nHost: {to.host_header}\r\nUser-Agent: TwilioProxy/1.1\r\nAccept: */*\r\n"
        "Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\n"
        f"I-Twilio-Idempotency-Token: {IDEMPOTENCY}\r\n"
    )
    done = failed = 0
    end = time.monotonic() + seconds
    finished = asyncio.Event()
    flying = 0

    def send() -> None:
        nonlocal flying
        flying += 1
        pairs = params(done)
        body = encode_form(pairs)
        signature = signer(TOKEN).sign(to.url, pairs)
        text = f"{head}X-Twilio-Signature: {signature}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        client.request_nowait(origin, text.encode("latin-1"), on_done, truncate=True)

    def on_done(result: Response | Failure) -> None:
        nonlocal done, failed, flying
        flying -= 1
        done += 1
        failed += not (isinstance(result, Response) and result.status == 204)
        if time.monotonic() < end:
            send()
        elif not flying:
            finished.set()

    started = cpu_s()
    for _ in range(concurrency):
        send()
    await finished.wait()
    used = cpu_s() - started
    assert not failed
    await client.close()
    return done, used


async def others(port: int, seconds: float, concurrency: int) -> tuple[int, float]:
    """The same with aiohttp, in as many tasks as there are connections."""
    url = f"http://127.0.0.1:{port}/status"
    done = 0
    end = time.monotonic() + seconds

    async def work(session: aiohttp.ClientSession) -> None:
        nonlocal done
        while time.monotonic() < end:
            pairs = params(done)
            headers = {
                "User-Agent": "TwilioProxy/1.1",
                "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
                "X-Twilio-Signature": signer(TOKEN).sign(url, pairs),
                "I-Twilio-Idempotency-Token": IDEMPOTENCY,
            }
            async with session.post(url, data=encode_form(pairs).encode(), headers=headers) as response:
                assert response.status == 204
                await response.read()
            done += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:
        started = cpu_s()
        await asyncio.gather(*(work(session) for _ in range(concurrency)))
        return done, cpu_s() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--concurrency", type=int, default=64)
    options = parser.parse_args()
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=receive, args=(theirs,), daemon=True)
    process.start()
    port = mine.recv()
    clients: dict[str, Callable[[int, float, int], object]] = {"trunkline": ours, "aiohttp": others}
    cost: dict[str, list[float]] = {name: [] for name in clients}
    for _ in range(ROUNDS):
        for name, run in clients.items():
            done, used = uvloop.run(run(port, options.seconds / ROUNDS, options.concurrency))  # type: ignore[arg-type, misc]
            cost[name].append(1e6 * used / done)
    for name, values in cost.items():
        median = statistics.median(values)
        print(f"{name:10} {median:6.1f} us of CPU a callback = {1e6 / median:8.0f} a second and core")
    print(f"ratio {statistics.median(cost['aiohttp']) / statistics.median(cost['trunkline']):.1f}")
    process.terminate()
    process.join()


if __name__ == "__main__":
    main()
