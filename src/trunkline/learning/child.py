"""A process of a learning run, as the keeper sees it: given work, waited for within bounds, killed, started again."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from trunkline.learning import views
from trunkline.learning.run import Side
from trunkline.learning.sink import Sink
from trunkline.learning.tally import Cost
from trunkline.learning.wire import Answer, Step, Work, decode_answer, encode
from trunkline.settings.learning import Learning

START_S: Final = 60.0
"""Longest that a process takes to be ready."""
LOOK_S: Final = 0.5
"""Between two looks at what a process does that has not answered."""
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
MAX_DEATHS: Final = 20
"""Unwanted ends; after that it is not started again."""
WORN_OUT: Final = 5000
"""Work after which a process is replaced: what it keeps does not grow without a bound."""
PACKET: Final = 1 << 18


class Child:
    """See the module."""

    def __init__(self, side: Side, folder: Path, limits: Learning, cost: Cost) -> None:
        self.cost = cost
        self._side = side
        self._folder = folder
        self._limits = limits
        self._sinks: dict[str, Sink] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._done = 0

    async def start(self) -> bool:
        """Make the sinks and the process; whether it is ready."""
        for own in self._side.settings.get("connectors", ()):
            if own["kind"] == "smpp":
                sink = self._sinks[own["name"]] = Sink()
                await sink.start()
                own["port"] = sink.port
        return await self._run()

    async def do(self, work: Work, refusals: Mapping[str, Sequence[str]]) -> Answer | None:
        """What became of the work; None when the process ended over it."""
        if self._line is None and (self.cost.deaths >= MAX_DEATHS or not await self._run()):
            return None
        if self._done >= WORN_OUT:
            self.kill()
            if not await self._run():
                return None
        for name, sink in self._sinks.items():
            sink.expect(refusals.get(name, ()))
        answer = await self._ask(encode(work), self._limits.work_s)
        if answer is None:
            self._died()
            return None
        self._done += 1
        if isinstance(work.item, Step) and work.submits:
            written = {name: sorted(views.pdus(sink.taken)) for name, sink in self._sinks.items() if sink.taken}
            answer.views[views.PDU] = written
        return answer

    def kill(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._line is not None:
            self._line.close()
        self._process = self._line = None

    def _died(self) -> None:
        self.cost.deaths += 1
        self.kill()

    async def _run(self) -> bool:
        """Start the process; whether it is ready."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [self._side.python, "-m", "trunkline.learning.process"]
        environment = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join(self._side.path)}
        process = subprocess.Popen(  # noqa: S603, ASYNC220
            [*command, str(theirs.fileno()), str(self._folder), str(self._limits.memory_bytes)],
            stdin=subprocess.PIPE, pass_fds=(theirs.fileno(),), env=environment, cwd=self._folder,
        )  # fmt: skip
        theirs.close()
        mine.setblocking(False)
        self._process, self._line, self._done = process, mine, 0
        assert process.stdin is not None
        try:
            process.stdin.write(msgspec.json.encode(self._side))
            process.stdin.close()
        except BrokenPipeError:
            pass
        if await self._ask(None, START_S) is None:
            self._died()
            return False
        return True

    async def _ask(self, packet: bytes | None, limit_s: float) -> Answer | None:
        """Hand something over, and wait for what is said next. The time in which the process would run, and the machine
        has no CPU for it, does not count."""
        line = self._line
        if line is None:
            return None
        loop = asyncio.get_running_loop()
        try:
            if packet is not None:
                async with asyncio.timeout(limit_s):
                    await loop.sock_sendall(line, packet)
            answer = asyncio.ensure_future(loop.sock_recv(line, PACKET))
            await self._within(answer, limit_s)
            data = answer.result() if answer.done() else b""
            return decode_answer(data) if data else None
        except (OSError, TimeoutError, msgspec.MsgspecError):
            return None

    async def _within(self, answer: "asyncio.Future[bytes]", limit_s: float) -> None:
        """Wait for an answer; it is cancelled when it takes too long."""
        assert self._process is not None
        taken, cpu = 0.0, _cpu_s(self._process.pid)
        while not (await asyncio.wait([answer], timeout=LOOK_S))[0]:
            before, cpu = cpu, _cpu_s(self._process.pid)
            taken += cpu - before if _wants_cpu(self._process.pid) else LOOK_S
            if taken > limit_s:
                answer.cancel()
                await asyncio.wait([answer])
                raise TimeoutError


def _wants_cpu(pid: int) -> bool:
    """Whether a thread of the process runs, or would."""
    return any(_stat(file)[0] in "RD" for file in Path(f"/proc/{pid}/task").glob("*/stat"))


def _cpu_s(pid: int) -> float:
    """What the process has used."""
    fields = _stat(Path(f"/proc/{pid}/stat"))
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _stat(file: Path) -> list[str]:
    """State and figures of a process or thread; of one that has ended as if it were one."""
    try:
        return file.read_text().rpartition(")")[2].split()
    except OSError:
        return ["Z", *"0" * 20]
