"""Call set-up: INVITE to first prompt packet, with everything that a call costs.

    make bench NAME=calls ARGS="--rates 100,200,300 --seconds 20"

One call: INVITE from an allowed trunk, webhook fetched (POST, signed, never cached), `<Play>` of a cached file, 200,
first RTP packet, 1 s hold, BYE, `completed` callback delivered, call archived. All of Trunkline's processes share one
core, generator and web application have the other one.
"""

import argparse
import asyncio
import json
import os
import struct
import subprocess
import tempfile
import time
import wave
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import uvloop

from bench.caller import Call, Caller
from bench.processes import Meter, Process, cpu_s, free_ports, python, tree
from trunkline.accounts.directory import create_account
from trunkline.bootstrap import open_database
from trunkline.model.clock import SystemClock
from trunkline.model.numbers import PhoneNumber
from trunkline.model.sid import PHONE_NUMBER, new_sid
from trunkline.settings import load

NUMBER = "+12025550142"
SERVER_CORE, LOAD_CORE = 1, 0
START_S = 30.0
SETTLE_S = 15.0
WARM_UP_CALLS = 50
PROMPT_S = 5


class App(asyncio.Protocol):
    """The customer's application: answers TwiML, serves the prompt, counts `completed` callbacks."""

    completed: dict[str, float] = {}
    fetched = 0
    prompt = b""
    port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        while True:
            head, found, rest = self._data.partition(b"\r\n\r\n")
            if not found:
                return
            length = 0
            for line in head.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if len(rest) < length:
                return
            self._data = rest[length:]
            self._answer(head.split(b" ", 2)[1], rest[:length])

    def _answer(self, path: bytes, body: bytes) -> None:
        if path.startswith(b"/prompt"):
            extra, content = 'Content-Type: audio/wav\r\nCache-Control: max-age=3600\r\nETag: "1"\r\n', App.prompt
        elif path.startswith(b"/status"):
            form = parse_qs(body.decode())
            App.completed.setdefault(form["CallSid"][0], time.monotonic())
            extra, content = "", b""
        else:
            App.fetched += 1
            document = f"<Response><Play>http://127.0.0.1:{App.port}/prompt.wav</Play></Response>"
            extra, content = "Content-Type: text/xml\r\n", document.encode()
        self._transport.write(f"HTTP/1.1 200 OK\r\n{extra}Content-Length: {len(content)}\r\n\r\n".encode() + content)


def prompt() -> bytes:
    """A prompt of PROMPT_S seconds as a WAV file."""
    with tempfile.TemporaryFile() as file:
        with wave.open(file, "wb") as audio:  # type: ignore[arg-type]
            audio.setnchannels(1)
            audio.setsampwidth(2)
            audio.setframerate(8000)
            audio.writeframes(b"".join(struct.pack("<h", (i * 97) % 8000 - 4000) for i in range(8000 * PROMPT_S)))
        file.seek(0)
        return file.read()


class Node:
    """Trunkline with one number and one trunk."""

    def __init__(self, folder: Path, app_port: int, legs: int) -> None:
        self.folder = folder
        self.http, self.sip = free_ports(2)
        self.configuration = folder / "trunkline.toml"
        self.configuration.write_text(
            'profile = "integration"\n'
            f'[server]\nhost = "127.0.0.1"\nport = {self.http}\n'
            f'[data]\npath = "{folder / "data"}"\n'
            '[log]\nlevel = "warning"\n'
            f'[sip]\nenabled = true\nhost = "127.0.0.1"\nport = {self.sip}\n'
            f"[media]\nlegs = {legs}\n"
            '[[trunks]]\nname = "bench"\naddresses = ["127.0.0.0/8"]\nprefixes = []\n'
        )
        asyncio.run(self._seed(app_port))
        self.process: Process | None = None

    async def _seed(self, app_port: int) -> None:
        database = open_database(load(self.configuration, {}))
        try:
            account = await create_account(database, SystemClock(), "Bench")
            number = PhoneNumber(
                sid=new_sid(PHONE_NUMBER), account_sid=account.sid, phone_number=NUMBER, bought_ms=1,
                voice_url=f"http://127.0.0.1:{app_port}/voice", status_callback=f"http://127.0.0.1:{app_port}/status",
            )  # fmt: skip
            await database.insert(number)
        finally:
            await database.close()

    def start(self) -> None:
        command = ["taskset", "-c", str(SERVER_CORE), *python("-m", "trunkline", "--config", str(self.configuration))]
        self.process = Process([*command, "serve"], self.folder, "trunkline.log")
        self.process.until(self._ready, START_S, "waiting for Trunkline")

    def _ready(self) -> bool:
        import urllib.request

        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=2) as answer:
                return bool(json.load(answer)["ready"])
        except OSError:
            return False

    def archived(self) -> int:
        """Landed calls."""
        sql = "select count(*) from archive where kind = 'call'"
        command = python("-m", "trunkline", "--config", str(self.configuration), "archive", "query", sql)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return int(done.stdout.split()[-1]) if done.returncode == 0 else -1


def quantile(values: list[float], share: float) -> float:
    """In milliseconds; -1 without values."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 1) if ordered else -1.0


def figures(rate: float, calls: list[Call], completed: int, cpu: float, seconds: float) -> dict[str, Any]:
    """One run, for reading."""
    heard = [call.heard - call.due for call in calls if call.heard]
    statuses: dict[int, int] = {}
    for call in calls:
        statuses[call.status] = statuses.get(call.status, 0) + 1
    return {
        "rate": rate,
        "calls": len(calls),
        "answered": sum(1 for call in calls if call.answered),
        "heard": len(heard),
        "ended": sum(1 for call in calls if call.ended),
        "completed_callbacks": completed,
        "statuses": statuses,
        "answer_ms_p50": quantile([call.answered - call.due for call in calls if call.answered], 0.5),
        "heard_ms_p50": quantile(heard, 0.5),
        "heard_ms_p99": quantile(heard, 0.99),
        "heard_ms_max": quantile(heard, 1.0),
        "cpu_ms_per_call": round(cpu / max(1, len(calls)) * 1000, 3),
        "cpu_share": round(cpu / seconds, 3),
    }


async def measure(node: Node, rates: list[float], seconds: float, key: int) -> list[dict[str, Any]]:
    """Every rate in turn."""
    assert node.process is not None
    rows = []
    async with Caller(node.sip, NUMBER) as caller:
        await caller.run(25, WARM_UP_CALLS / 25, key)
        key += WARM_UP_CALLS
        for rate in rates:
            await asyncio.sleep(1)
            before, pids = len(App.completed), tree([node.process.pid])
            cpu, began = cpu_s(pids), time.monotonic()
            calls = await caller.run(rate, seconds, key)
            key += len(calls)
            wanted, end = before + sum(1 for call in calls if call.answered), time.monotonic() + SETTLE_S
            while len(App.completed) < wanted and time.monotonic() < end:
                await asyncio.sleep(0.1)
            used, took = cpu_s(tree([node.process.pid])) - cpu, time.monotonic() - began
            rows.append(figures(rate, calls, len(App.completed) - before, used, took))
            print(json.dumps(rows[-1]), flush=True)
    return rows


async def _whole(arguments: argparse.Namespace, folder: Path) -> None:
    loop = asyncio.get_running_loop()
    App.prompt = prompt()
    server = await loop.create_server(App, "127.0.0.1", 0, backlog=4096)
    App.port = server.sockets[0].getsockname()[1]
    node = await asyncio.to_thread(Node, folder, App.port, arguments.legs)
    await asyncio.to_thread(node.start)
    assert node.process is not None
    meter = Meter([node.process.pid])
    try:
        rates = [float(rate) for rate in arguments.rates.split(",")]
        rows = await measure(node, rates, arguments.seconds, 1)
        await asyncio.sleep(2)
        meter.sample()
        total = sum(row["answered"] for row in rows)
        print(json.dumps({"archived": await asyncio.to_thread(node.archived), "answered": total + WARM_UP_CALLS,
                          "pss_mb": round(meter.peak_mb, 1)}))  # fmt: skip
    finally:
        await asyncio.to_thread(node.process.stop)
        server.close()
        if arguments.log:
            print(node.process.tail(40))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rates", default="100,200,300,400,500", help="calls a second, one after the other")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--legs", type=int, default=2000)
    parser.add_argument("--log", action="store_true", help="show the end of the server's log")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-") as folder:
        uvloop.run(_whole(arguments, Path(folder)))


if __name__ == "__main__":
    main()
