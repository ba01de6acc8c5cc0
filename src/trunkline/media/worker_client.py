"""The node's side of the audio and speech workers: started when first needed, started again when they died, ended when
they have had nothing to do for long."""

import asyncio
import os
import socket
import sys
from typing import Any, Final

import msgspec

from trunkline.media.worker_wire import (
    AUDIO,
    HEADER,
    MAX_FRAME,
    SPEECH,
    Reply,
    Request,
    Setup,
    decode_reply,
    frame,
)
from trunkline.settings.voice import Speech

RESTART_S: Final = 1.0
"""Seconds between two starts of a worker, so that one that dies at once does not eat the machine."""
MAX_WAITING: Final = 1000
"""Requests that may wait for a worker; more are refused."""
END_S: Final = 2.0
"""Seconds a worker has to end by itself before it is killed."""
SPEECH_MEMORY_BYTES: Final = 2 << 30
"""Address space of a speech worker; it uses some 200 MB."""
AUDIO_MEMORY_BYTES: Final = 1 << 30
"""Address space of a worker that reads audio files; it uses some 40 MB."""
AUDIO_IDLE_S: Final = 60.0
"""How long a worker that reads audio files stays without any; it starts in 0.2 s."""
AUDIO_TIMEOUT_S: Final = 30.0
"""Longest time an audio file may take; an hour of MP3 takes 6 s."""


class WorkerFailed(Exception):
    """A worker did not answer: it died, took too long or has too much to do."""


class WorkerDied(WorkerFailed):
    """The process ended before it answered."""


class Refused(WorkerFailed):
    """The worker could not do it; `kind` is the name of its exception."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class _Process:
    """One running worker and its connection; one request at a time."""

    def __init__(self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.process = process
        self._reader = reader
        self._writer = writer

    @property
    def alive(self) -> bool:
        return self.process.returncode is None and not self._reader.at_eof()

    async def ask(self, request: Request) -> Reply:
        """Raises WorkerDied."""
        try:
            self._writer.write(frame(request))
            length = int.from_bytes(await self._reader.readexactly(HEADER), "big")
            if length > MAX_FRAME:
                raise WorkerDied("the worker talks nonsense")
            return decode_reply(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError) as error:
            raise WorkerDied("the worker died") from error

    async def end(self, *, kill: bool) -> None:
        """Close the connection, upon which the worker ends; kill it when it does not (or at once)."""
        self._writer.close()
        if kill and self.process.returncode is None:
            self.process.kill()
        try:
            await asyncio.wait_for(self.process.wait(), END_S)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


class Workers:
    """A few like workers. Use from one event loop. A request takes a free one, or waits for one in order of arrival.

    A process without a request for `idle_s` ends (0: never); the next request starts another."""

    def __init__(self, setup: Setup, *, processes: int = 1, timeout_s: float = 30.0, idle_s: float = 0.0) -> None:
        self._setup = setup
        self._timeout_s = timeout_s
        self._idle_s = idle_s
        self._idle: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._used_at = [0.0] * processes
        self._busy: set[int] = set()
        self._free: asyncio.LifoQueue[int] = asyncio.LifoQueue()
        for index in range(processes):
            self._free.put_nowait(index)
        self._running: list[_Process | None] = [None] * processes
        self._started_at = [-RESTART_S] * processes
        self._next_id = 0
        self._waiting = 0
        self._silent = 0
        """How often a worker did not answer in time."""
        self._closed = False
        self.starts = 0
        """How often a process was started."""

    @property
    def pids(self) -> list[int]:
        """The running processes."""
        return [running.process.pid for running in self._running if running is not None and running.alive]

    async def start(self) -> None:
        """Start every process now, so that a warm one waits for the first request. Raises WorkerFailed."""
        for index in range(len(self._running)):
            self._running[index] = await self._start(index)
            self._used(index)

    async def call(self, op: str, *, timeout_s: float = 0, **args: Any) -> Any:
        """The operation's result, as plain values. `timeout_s` 0: the pool's own. Raises WorkerFailed."""
        if self._waiting >= MAX_WAITING:
            raise WorkerFailed("too many requests wait for a worker")
        self._waiting += 1
        limit = timeout_s or self._timeout_s
        try:
            index = await self._one(limit)
        finally:
            self._waiting -= 1
        self._busy.add(index)
        try:
            reply = await self._ask(index, op, args, limit)
        finally:
            self._free.put_nowait(index)
            self._used(index)
        if reply.error:
            raise Refused(reply.kind, reply.error)
        return reply.result

    async def _one(self, limit_s: float) -> int:
        """A free worker. Waits as long as the others work; while they do not answer, `limit_s` and no longer."""
        while True:
            silent = self._silent
            try:
                return await asyncio.wait_for(self._free.get(), limit_s)
            except TimeoutError:
                if self._silent != silent:
                    raise WorkerFailed(f"none was free in {limit_s:g} s, they do not answer") from None

    async def _ask(self, index: int, op: str, args: dict[str, Any], timeout_s: float) -> Reply:
        running = self._running[index]
        if running is None or not running.alive:
            if running is not None:
                await running.end(kill=True)
            running = self._running[index] = await self._start(index)
        self._next_id += 1
        answered = False
        try:
            reply = await asyncio.wait_for(running.ask(Request(self._next_id, op, args)), timeout_s)
            answered = True
        except TimeoutError:
            self._silent += 1
            raise WorkerFailed(f"took more than {timeout_s:g} s") from None
        finally:
            if not answered:  # timed out, died or was cancelled: what it would still say has nobody to hear it
                self._running[index] = None
                await running.end(kill=True)
        return reply

    def _used(self, index: int) -> None:
        """A process has nothing to do from now on."""
        loop = asyncio.get_running_loop()
        self._busy.discard(index)
        self._used_at[index] = loop.time()
        if self._idle is None and self._idle_s and not self._closed:
            self._idle = loop.call_later(self._idle_s, self._end_idle)

    def _end_idle(self) -> None:
        """End the processes that have been idle for long enough, and look again when the next may have been."""
        self._idle = None
        loop = asyncio.get_running_loop()
        waits: list[float] = []
        for index, running in enumerate(self._running):
            if running is None:
                continue
            left = self._idle_s if index in self._busy else self._used_at[index] + self._idle_s - loop.time()
            if left > 0:
                waits.append(left)
                continue
            self._running[index] = None
            task = loop.create_task(running.end(kill=False))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        if waits:
            self._idle = loop.call_later(min(waits), self._end_idle)

    async def _start(self, index: int) -> _Process:
        if self._closed:
            raise WorkerFailed("closed")
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._started_at[index] + RESTART_S - loop.time()))
        self._started_at[index] = loop.time()
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "trunkline.media.audio_worker", str(theirs.fileno()),
                msgspec.json.encode(self._setup).decode(), pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )  # fmt: skip
        except OSError as error:
            ours.close()
            raise WorkerFailed(f"the worker cannot be started: {error}") from error
        finally:
            theirs.close()
        ours.setblocking(False)
        self.starts += 1
        reader, writer = await asyncio.open_connection(sock=ours)
        return _Process(process, reader, writer)

    async def close(self) -> None:
        """End the workers; what waits for them fails."""
        self._closed = True
        if self._idle is not None:
            self._idle.cancel()
        running = [process for process in self._running if process is not None]
        self._running = [None] * len(self._running)
        await asyncio.gather(*(process.end(kill=True) for process in running), *self._ending)


def speech_workers(settings: Speech) -> Workers:
    """Workers that speak, with their engine loaded before the first text."""
    setup = Setup(role=SPEECH, memory_bytes=SPEECH_MEMORY_BYTES, engine=settings.engine, warm=True)
    return Workers(setup, processes=settings.workers, timeout_s=settings.timeout_s, idle_s=settings.idle_s)


def audio_workers() -> Workers:
    """A worker that reads audio files."""
    return Workers(Setup(role=AUDIO, memory_bytes=AUDIO_MEMORY_BYTES), timeout_s=AUDIO_TIMEOUT_S, idle_s=AUDIO_IDLE_S)
