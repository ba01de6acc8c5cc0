"""A soak: one server under steady load for minutes or days, and whether anything in it grows.

It has its own data folder, a simulated carrier and simulated phones. The load is messages with status callbacks, and
calls that are answered, hear a sentence and end; what comes back is counted here. Every so often the memory, the open
files and the threads of all of the server's processes are read from /proc, with CPU time and latency of that span.
"""

import asyncio
import base64
import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from trunkline.testing.local import Local, LocalFailed
from trunkline.testing.phones.client import CallFailed, NotHeard
from trunkline.testing.trend import Trend, trend

POINTS: Final = 60
"""Samples of a run."""
CONNECTIONS: Final = 8
ANSWER_S: Final = 30.0
DRAIN_S: Final = 60.0
"""How long callbacks may take after the load has ended."""
SENTENCE: Final = "This call is part of a test."
TIMES_SAID: Final = 3
"""So that a pause of the machine, which breaks a sentence, does not break the call."""
MAX_HEAD: Final = 65_536
PHONES: Final = b"trunkline.testing.phones"
MAX_TOLD: Final = 20
"""Failed requests that are told one by one."""
UNHEARD: Final = 0.01
"""Calls whose sentence may be broken each time, as a part of all: the machine's pauses again."""
TOLERATED: Final = {"memory_mb": 0.06, "files": 0.05, "threads": 0.05, "cpu_ms": 0.25, "p50_ms": 1.0, "p99_ms": 1.0}
"""Growth over a run, as a part of what it was at first."""
LEAST: Final = {"memory_mb": 12.0, "files": 8.0, "threads": 4.0, "cpu_ms": 0.5, "p50_ms": 25.0, "p99_ms": 100.0}
"""Growth that is nothing, whatever its part. Times are not narrow: what else the machine does moves them. What grows
within the server shows in its CPU time first."""
WORSE: Final = 1.15
"""Memory and CPU of the former release times this is too much."""


class Point(msgspec.Struct, frozen=True):
    """One sample."""

    at_s: float
    memory_mb: float
    """Of all processes, what is theirs: without files that are mapped, whose share depends on what else runs."""
    files: int
    threads: int
    p50_ms: float
    """Of accepting a message, in this span."""
    p99_ms: float
    cpu_ms: float = 0.0
    """CPU time of all processes in this span, for each message accepted in it (calls included)."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a run has shown."""

    version: str
    minutes: float
    accepted: int
    refused: int
    """Requests that were not answered with 201."""
    untold: int
    """Accepted, without a final callback."""
    calls: int
    calls_failed: int
    """Not set up, not answered, or not ended as they should."""
    calls_unheard: int = 0
    """Answered and ended, but the sentence was not heard whole."""
    cpu_s_per_1000: float
    """CPU seconds of all processes for 1,000 messages (calls included)."""
    memory_mb: float
    """Typical after the warm-up."""
    disk_bytes_per_message: float
    problems: tuple[str, ...]
    points: tuple[Point, ...]


class Soak:
    """One run against `local`, which serves already."""

    def __init__(self, local: Local, rate: float, calls: int, say: Callable[[str], None]) -> None:
        """`rate`: messages a second; `calls`: how many are up all the time."""
        self._local = local
        self._pid = local.pid
        self._rate = rate
        self._callers = calls
        self._say = say
        self._waits: list[float] = []
        self._open: set[str] = set()
        self._early: set[str] = set()
        """Told of before their own answer was read."""
        self.accepted = self.refused = self.calls = self.calls_failed = self.calls_unheard = 0
        self._spent = (0.0, 0)
        """CPU seconds and messages accepted up to the last sample."""
        self._settled = asyncio.Event()

    async def run(self, minutes: float, version: str) -> Result:
        """The whole run."""
        sink = await asyncio.start_server(self._sink, "127.0.0.1", 0)
        port = sink.sockets[0].getsockname()[1]
        began, cpu = time.monotonic(), cpu_seconds(self._pid)
        self._spent = cpu, 0
        end = began + minutes * 60
        work = [asyncio.create_task(self._send(number, port, end)) for number in range(CONNECTIONS)]
        work += [asyncio.create_task(self._call(end)) for _ in range(self._callers)]
        points: list[Point] = []
        for number in range(1, POINTS + 1):
            await asyncio.sleep(max(0.0, began + number * minutes * 60 / POINTS - time.monotonic()))
            points.append(self._point(time.monotonic() - began))
            if number % 10 == 0:
                self._say(_line(points[-1], self.accepted))
        await asyncio.gather(*work)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._told(), DRAIN_S)
        sink.close()
        spent = cpu_seconds(self._pid) - cpu
        result = Result(
            version=version, minutes=minutes, accepted=self.accepted, refused=self.refused, untold=len(self._open),
            calls=self.calls, calls_failed=self.calls_failed, calls_unheard=self.calls_unheard,
            cpu_s_per_1000=spent / max(1, self.accepted) * 1000,
            memory_mb=trend([(point.at_s, point.memory_mb) for point in points]).typical,
            disk_bytes_per_message=_bytes_in(self._local.folder / "data") / max(1, self.accepted),
            problems=(), points=tuple(points),
        )  # fmt: skip
        return msgspec.structs.replace(result, problems=tuple(problems(result)))

    def _point(self, at_s: float) -> Point:
        waits, self._waits = sorted(self._waits), []
        p99 = waits[int(len(waits) * 0.99)] if waits else 0.0
        p50 = statistics.median(waits) if waits else 0.0
        memory, files, threads = footprint(self._pid)
        before, self._spent = self._spent, (cpu_seconds(self._pid), self.accepted)
        spent, accepted = (now - then for now, then in zip(self._spent, before, strict=True))
        cpu_ms = max(0.0, spent) * 1000 / max(1, accepted)
        return Point(at_s, memory / 1e6, files, threads, p50 * 1000, p99 * 1000, cpu_ms)

    # -- messages ----------------------------------------------------------------------------------------------

    async def _send(self, number: int, sink: int, end: float) -> None:
        """One connection's part of the rate."""
        due = time.monotonic() + number / self._rate
        step = CONNECTIONS / self._rate
        host, _, port = self._local.url.removeprefix("http://").partition(":")
        reader = writer = None
        count = 0
        while due < end:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection(host, int(port))
                count += 1
                writer.write(self._request(number, count, sink))
                began = time.monotonic()
                async with asyncio.timeout(ANSWER_S):
                    assert reader is not None
                    status, body = await _answer(reader)
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
                self._refuse(f"{type(error).__name__} {error}")
                if writer is not None:
                    writer.close()
                reader = writer = None
            else:
                self._waits.append(time.monotonic() - began)
                self._took(status, body)
            due += step
        if writer is not None:
            writer.close()

    async def _told(self) -> None:
        """Until every accepted message has had its final callback."""
        while self._open:
            self._settled.clear()
            await self._settled.wait()

    def _took(self, status: int, body: bytes) -> None:
        if status != 201:
            self._refuse(f"{status} {body[:200].decode(errors='replace')}")
            return
        self.accepted += 1
        sid = str(msgspec.json.decode(body)["sid"])
        if sid in self._early:
            self._early.discard(sid)
        else:
            self._open.add(sid)

    def _refuse(self, why: str) -> None:
        self.refused += 1
        if self.refused <= MAX_TOLD:
            self._say(f"a message was not accepted: {why}")

    def _request(self, number: int, count: int, sink: int) -> bytes:
        # Few recipients: a simulated handset keeps its last 100 texts, which must not look like growth.
        fields = {
            "To": f"+12025560{number:03}", "From": self._local.number, "Body": f"Soak {number}/{count}",
            "StatusCallback": f"http://127.0.0.1:{sink}/status",
        }  # fmt: skip
        body = urlencode(fields).encode()
        login = base64.b64encode(f"{self._local.account_sid}:{self._local.auth_token}".encode()).decode()
        path = f"/2010-04-01/Accounts/{self._local.account_sid}/Messages.json"
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic {login}\r\n"
            f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def _sink(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Status callbacks: a final one settles its message."""
        # Cancelled when the run is over: a stream's server would report that as an error.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length(head))
                if any(b"MessageStatus=" + status in body for status in (b"delivered", b"undelivered", b"failed")):
                    sid = body.partition(b"MessageSid=")[2][:34].decode()
                    if sid in self._open:
                        self._open.discard(sid)
                        self._settled.set()
                    else:
                        self._early.add(sid)
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
                await writer.drain()
        writer.close()

    # -- calls -------------------------------------------------------------------------------------------------

    async def _call(self, end: float) -> None:
        """One call after the other."""
        phone = self._local.phone()
        while time.monotonic() < end:
            try:
                await asyncio.to_thread(self._one_call, phone)
                self.calls += 1
            except NotHeard as error:
                self.calls_unheard += 1
                self._say(f"a sentence was not heard: {' '.join(str(error).split())[:200]}")
            except (LocalFailed, CallFailed, OSError) as error:
                self.calls_failed += 1
                self._say(f"a call failed: {' '.join(str(error).split())[:200]}")
                await asyncio.sleep(1.0)

    def _one_call(self, phone: Any) -> None:
        path = f"/2010-04-01/Accounts/{self._local.account_sid}/Calls.json"
        twiml = f"<Response><Say loop='{TIMES_SAID}'>{SENTENCE}</Say></Response>"
        self._local.call("POST", path, {"To": phone.number, "From": self._local.number, "Twiml": twiml})
        call = phone.answers(ANSWER_S)
        call.hears(SENTENCE, timeout_s=ANSWER_S)
        call.ended(ANSWER_S)


def problems(result: Result) -> Iterator[str]:
    """What grows or fails, one line each."""
    for name, part in TOLERATED.items():
        found: Trend = trend([(point.at_s, getattr(point, name)) for point in result.points])
        if found.grows(max(LEAST[name], part * found.begin)):
            yield f"{name} grows by {found.growth:.1f} in {result.minutes:g} min (typical {found.typical:.1f})"
    if result.refused:
        yield f"{result.refused} of {result.refused + result.accepted} requests were not accepted"
    if result.untold:
        yield f"{result.untold} accepted messages had no final callback within {DRAIN_S:g} s"
    calls = result.calls + result.calls_failed + result.calls_unheard
    if result.calls_failed:
        yield f"{result.calls_failed} of {calls} calls failed"
    if result.calls_unheard > UNHEARD * calls + 1:
        yield f"in {result.calls_unheard} of {calls} calls the sentence was not heard"


def compared(result: Result, former: Result) -> Iterator[str]:
    """What is worse than in the run of the former release, one line each."""
    for name in ("memory_mb", "cpu_s_per_1000", "disk_bytes_per_message"):
        now, then = getattr(result, name), getattr(former, name)
        if now > then * WORSE:
            yield f"{name} is {now:.1f}, against {then:.1f} of {former.version}"


def _line(point: Point, accepted: int) -> str:
    return (
        f"{point.at_s / 60:6.1f} min  {accepted} messages  {point.memory_mb:.0f} MB  {point.files} files  "
        f"{point.threads} threads  {point.cpu_ms:.1f} ms CPU  p50 {point.p50_ms:.1f} ms  p99 {point.p99_ms:.1f} ms"
    )


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), await reader.readexactly(_length(head))


def _length(head: bytes) -> int:
    """Of the body. Raises ValueError."""
    found = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
    length = int(found or 0)
    if not 0 <= length <= MAX_HEAD:
        raise ValueError("a body of that length")
    return length


def footprint(pid: int) -> tuple[int, int, int]:
    """Bytes that are not of files (by PSS), open files and threads of a process and all its descendants, without those
    that simulate phones, which remember their calls."""
    memory = files = threads = 0
    for each in family(pid):
        with contextlib.suppress(OSError, ValueError):  # it may end meanwhile
            folder = Path("/proc") / str(each)
            if PHONES in (folder / "cmdline").read_bytes():
                continue
            memory += _own_bytes((folder / "smaps_rollup").read_text())
            files += len(os.listdir(folder / "fd"))
            threads += len(os.listdir(folder / "task"))
    return memory, files, threads


def _own_bytes(rollup: str) -> int:
    """Anonymous and shared memory, and what is swapped out; all of the PSS where the kernel does not tell them apart
    (before Linux 5.2)."""
    fields = dict(line.split()[:2] for line in rollup.splitlines()[1:])
    if "Pss_Anon:" not in fields:
        return int(fields["Pss:"]) * 1024
    return 1024 * sum(int(fields.get(name, 0)) for name in ("Pss_Anon:", "Pss_Shmem:", "SwapPss:"))


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and all its descendants, with those that have ended."""
    spent = 0
    for each in family(pid):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (Path("/proc") / str(each) / "stat").read_text().rpartition(")")[2].split()
            spent += sum(int(fields[place]) for place in (11, 12, 13, 14))
    return spent / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found, at = [pid], 0
    while at < len(found):
        with contextlib.suppress(OSError):
            for task in (Path("/proc") / str(found[at]) / "task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        at += 1
    return found


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
