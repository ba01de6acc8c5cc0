"""The serving process's side of a worker: started on first need, started again when it died, ended when idle."""

import asyncio
import os
import socket
import sys
from typing import Any

import msgspec

from trunkline.postflight.wire import HEADER, MAX_FRAME, Reply, Request, Setup, decode_reply, first_frame, frame
from trunkline.storage.unavailable import StoreUnavailable

IDLE_S = 300.0
"""Seconds without a request after which a worker is ended, to give its memory back."""
RESTART_S = 1.0
"""Seconds between two starts, so that a worker that dies at once does not eat the machine."""
MAX_WAITING = 256
"""Requests that may wait for a worker; more are refused."""
END_S = 5.0
"""Seconds a worker has to end by itself before it is killed."""


UNAVAILABLE = frozenset({"StoreUnavailable", "ObjectsUnavailable"})
"""Names of exceptions that say: ask again later."""


class WorkerFailed(Exception):
    """A worker did not answer: it died, took too long, has too much to do or met an error of its own."""


class WorkerDied(WorkerFailed):
    """The process ended before it answered."""


class Refused(WorkerFailed):
    """The worker refused the request; `kind` is the name of its exception."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class _Process:
    """One running worker and its connection."""

    def __init__(self, process: asyncio.subprocess.Process, streams: Any) -> None:
        self.process = process
        self._reader: asyncio.StreamReader = streams[0]
        self._writer: asyncio.StreamWriter = streams[1]
        self.pending: dict[int, asyncio.Future[Reply]] = {}
        self.alive = True
        self._listening = asyncio.create_task(self._listen())

    def send(self, request: Request) -> "asyncio.Future[Reply]":
        """The future of the reply; it fails with WorkerDied."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.pending[request.id] = future
        self._writer.write(frame(request))
        return future

    async def _listen(self) -> None:
        try:
            while True:
                length = int.from_bytes(await self._reader.readexactly(HEADER), "big")
                if length > MAX_FRAME:
                    break
                reply = decode_reply(await self._reader.readexactly(length))
                future = self.pending.pop(reply.id, None)
                if future is not None and not future.done():
                    future.set_result(reply)
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError):
            pass  # told to everyone who waits, below
        finally:
            self.alive = False
            self._writer.close()
            for future in self.pending.values():
                if not future.done():
                    future.set_exception(WorkerDied("the archive worker died"))
            self.pending.clear()

    async def end(self, *, kill: bool = False) -> None:
        """Close the connection, upon which the worker ends; kill it when it does not (or at once)."""
        self.alive = False
        self._writer.close()
        if kill and self.process.returncode is None:
            self.process.kill()
        try:
            await asyncio.wait_for(self.process.wait(), END_S)
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)


class WorkerClient:
    """Calls operations of one role. Use from one event loop."""

    def __init__(self, setup: Setup, *, concurrency: int, timeout_s: float, idle_s: float = IDLE_S) -> None:
        self._setup = setup
        self._slots = asyncio.Semaphore(concurrency)
        self._timeout_s = timeout_s
        self._idle_s = idle_s
        self._starting = asyncio.Lock()
        self._running: _Process | None = None
        self._started_at = -RESTART_S
        self._used_at = 0.0
        self._next_id = 0
        self._waiting = 0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False
        self.starts = 0
        """How often a process was started."""

    @property
    def pid(self) -> int | None:
        """The running process, if any."""
        return self._running.process.pid if self._running is not None and self._running.alive else None

    async def call(self, op: str, *, again: bool = True, **args: Any) -> Any:
        """The operation's result, as plain values. `again`: repeat it once if the worker dies meanwhile.

        Raises WorkerFailed, StoreUnavailable (what the worker reads or writes cannot be reached).
        """
        if self._waiting >= MAX_WAITING:
            raise WorkerFailed("too many archive requests wait")
        self._waiting += 1
        try:
            async with self._slots:
                try:
                    reply = await self._once(op, args)
                except WorkerDied:
                    if not again or self._closed:
                        raise
                    reply = await self._once(op, args)
        finally:
            self._waiting -= 1
        if reply.kind in UNAVAILABLE:
            raise StoreUnavailable(reply.error)
        if reply.error:
            raise Refused(reply.kind, reply.error)
        return reply.result

    async def _once(self, op: str, args: dict[str, Any]) -> Reply:
        running = await self._process()
        self._next_id += 1
        request = Request(self._next_id, op, args)
        self._used_at = asyncio.get_running_loop().time()
        try:
            return await asyncio.wait_for(running.send(request), self._timeout_s)
        except TimeoutError:
            await running.end(kill=True)
            raise WorkerFailed(f"the archive worker took more than {self._timeout_s:g} s for {op}") from None
        finally:
            running.pending.pop(request.id, None)

    async def _process(self) -> _Process:
        async with self._starting:
            if self._closed:
                raise WorkerFailed("the archive is closed")
            if self._running is not None:
                if self._running.alive:
                    return self._running
                await self._running.end()
                self._running = None
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(0.0, self._started_at + RESTART_S - loop.time()))
            self._started_at = loop.time()
            self._running = await self._start()
            self._watch_idle()
            return self._running

    async def _start(self) -> _Process:
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "trunkline.postflight.worker", str(theirs.fileno()),
                pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
                env=dict(os.environ),
            )  # fmt: skip
        except OSError as error:
            ours.close()
            raise WorkerFailed(f"the archive worker cannot be started: {error}") from error
        finally:
            theirs.close()
        ours.setblocking(False)
        self.starts += 1
        streams = await asyncio.open_connection(sock=ours)
        streams[1].write(first_frame(self._setup))
        return _Process(process, streams)

    def _watch_idle(self) -> None:
        """End the worker once it had nothing to do for the idle time."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        loop = asyncio.get_running_loop()
        rest = self._used_at + self._idle_s - loop.time()
        running = self._running
        if running is None or self._closed:
            return
        if rest > 0 or running.pending or self._waiting:
            self._idle_timer = loop.call_later(max(rest, self._idle_s / 10), self._watch_idle)
            return
        self._running = None
        running.alive = False
        task = loop.create_task(running.end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """End the worker; what waits for it fails."""
        self._closed = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        async with self._starting:
            if self._running is not None:
                await self._running.end(kill=bool(self._running.pending))
                self._running = None
        await asyncio.gather(*self._ending)
