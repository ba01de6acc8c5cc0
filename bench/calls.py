"""Call set-up: INVITE to first prompt packet, with everything that a call costs.

    make bench NAME=calls ARGS="--rates 100,200,300 --seconds 20"

One call: INVITE from an allowed trunk, webhook fetched (POST, signed, never cached), `<Play>` of a cached file, 200,
first RTP packet, 1 s hold, BYE, `completed` callback delivered, call archived. All of Trunkline's processes share one
core, generator and web application have the other one. `--source` runs the server from another checkout, to compare.
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
from bench.processes import Process, cpu_s, free_ports, main_thread_cpu_s, pss_mb, python, tree
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
IDLE_S = 5.0
LANDING_TRIES = 30
WARM_UP_CALLS = 50
WARM_UP_RATE = 25.0
PROMPT_S = 5
ROLES = {
    "trunkline.supervisor": "supervisor",
    "trunkline.media.process": "media",
    "trunkline.media.recorder": "recorder",
    "trunkline.media.audio_worker": "audio worker",
    "trunkline.postflight.worker": "archive worker",
    "serve": "node",
}
"""What a process is, by a word of its command line."""


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
        with wave.open(file, "wb") as audio:
            audio.setnchannels(1)
            audio.setsampwidth(2)
            audio.setframerate(8000)
            audio.writeframes(b"".join(struct.pack("<h", (i * 97) % 8000 - 4000) for i in range(8000 * PROMPT_S)))
        file.seek(0)
        return file.read()


class Node:
    """Trunkline with one number and one trunk."""

    def __init__(self, folder: Path, app_port: int, legs: int, source: str = "") -> None:
        self.folder = folder
        self._source = source
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
        if self._source:
            command = ["env", f"PYTHONPATH={Path(self._source).resolve()}", *command]
        self.process = Process([*command, "serve"], self.folder, "trunkline.log")
        self.process.until(self._ready, START_S, "waiting for Trunkline")

    def _ready(self) -> bool:
        import urllib.request

        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=2) as answer:
                return bool(json.load(answer)["ready"])
        except OSError:
            return False

    @property
    def root(self) -> int:
        """The supervisor's pid."""
        assert self.process is not None
        return self.process.pid

    def archived(self) -> int:
        """Landed calls; -1 when that cannot be told."""
        command = python("-m", "trunkline", "--config", str(self.configuration), "archive", "query")
        done = subprocess.run([*command, "select count(*) from calls"], capture_output=True, text=True, timeout=60)
        return int(done.stdout.split()[-1]) if done.returncode == 0 else -1


def role(pid: int) -> str:
    """What a process of Trunkline's is, see ROLES."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return "ended"
    return next((name for word, name in ROLES.items() if word in command), "other")


def cpu_by_role(root: int) -> dict[str, float]:
    """CPU seconds so far; the node's event loop is told apart from its other threads (the stores' writers)."""
    used: dict[str, float] = {}
    for pid in tree([root]):
        name, whole = role(pid), cpu_s([pid])
        if name == "node":
            loop = main_thread_cpu_s([pid])
            used["node's threads"] = used.get("node's threads", 0.0) + whole - loop
            whole = loop
        used[name] = used.get(name, 0.0) + whole
    return used


def memory_by_role(root: int) -> dict[str, list[float]]:
    """PSS in MB of each process now."""
    found: dict[str, list[float]] = {}
    for pid in sorted(tree([root])):
        found.setdefault(role(pid), []).append(round(pss_mb([pid]), 1))
    return found


async def idle(root: int) -> dict[str, Any]:
    """What the server costs without calls."""
    before = cpu_by_role(root)
    await asyncio.sleep(IDLE_S)
    used = {name: now - before.get(name, 0.0) for name, now in cpu_by_role(root).items()}
    memory = memory_by_role(root)
    return {
        "idle_cpu_percent": {name: round(value / IDLE_S * 100, 1) for name, value in used.items()},
        "idle_cpu_percent_total": round(sum(used.values()) / IDLE_S * 100, 1),
        "pss_mb": memory,
        "pss_mb_total": round(sum(map(sum, memory.values())), 1),
    }


def quantile(values: list[float], share: float) -> float:
    """In milliseconds; -1 without values."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 1) if ordered else -1.0


def figures(rate: float, calls: list[Call], completed: int, used: dict[str, float], seconds: float) -> dict[str, Any]:
    """One run, for reading."""
    cpu, count = sum(used.values()), max(1, len(calls))
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
        "cpu_ms_per_call": round(cpu / count * 1000, 3),
        "by_process": {name: round(value / count * 1000, 3) for name, value in used.items() if value},
        "cpu_share": round(cpu / seconds, 3),
    }


async def measure(node: Node, rates: list[float], seconds: float) -> list[dict[str, Any]]:
    """Every rate in turn, after a warm-up."""
    rows, key = [], 1
    async with Caller(node.sip, NUMBER) as caller:
        await caller.run(WARM_UP_RATE, WARM_UP_CALLS / WARM_UP_RATE, key)
        key += WARM_UP_CALLS
        for rate in rates:
            await asyncio.sleep(1)
            told, before, began = len(App.completed), cpu_by_role(node.root), time.monotonic()
            calls = await caller.run(rate, seconds, key)
            key += len(calls)
            wanted, end = told + sum(1 for call in calls if call.answered), time.monotonic() + SETTLE_S
            while len(App.completed) < wanted and time.monotonic() < end:
                await asyncio.sleep(0.1)
            used = {name: now - before.get(name, 0.0) for name, now in cpu_by_role(node.root).items()}
            rows.append(figures(rate, calls, len(App.completed) - told, used, time.monotonic() - began))
            print(json.dumps(rows[-1]), flush=True)
    return rows


async def _whole(arguments: argparse.Namespace, folder: Path) -> None:
    loop = asyncio.get_running_loop()
    App.prompt = prompt()
    server = await loop.create_server(App, "127.0.0.1", 0, backlog=4096)
    App.port = server.sockets[0].getsockname()[1]
    node = await asyncio.to_thread(Node, folder, App.port, arguments.legs, arguments.source)
    await asyncio.to_thread(node.start)
    assert node.process is not None
    try:
        await asyncio.sleep(IDLE_S)  # the spare media process starts
        print(json.dumps(await idle(node.root)), flush=True)
        rates = [float(rate) for rate in arguments.rates.split(",")]
        rows = await measure(node, rates, arguments.seconds)
        answered = WARM_UP_CALLS + sum(row["answered"] for row in rows)
        archived = -1
        for _ in range(LANDING_TRIES):
            await asyncio.sleep(2)
            archived = await asyncio.to_thread(node.archived)
            if archived == answered:
                break
        print(json.dumps({"answered": answered, "archived": archived}))
        print(json.dumps(await idle(node.root)))
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
    parser.add_argument("--source", default="", help="folder of another checkout's packages (its src), to compare")
    parser.add_argument("--log", action="store_true", help="show the end of the server's log")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-") as folder:
        uvloop.run(_whole(arguments, Path(folder)))


if __name__ == "__main__":
    main()
