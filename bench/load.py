"""The load: HTTP requests over kept connections, in a closed loop or at a rate.

Closed loop: so many connections, each sends its next request when it has the answer to its last; tells what a system
can do. Open loop: requests are due at a steady rate, whatever the system does, and each one's clock starts when it was
due, so that a system that stalls is not flattered; tells how long it takes.

Message `i` has the key `PREFIX-i`. Times are CLOCK_MONOTONIC nanoseconds, which every process of a machine shares.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import cast

import httptools

ACCEPTED = frozenset({201, 202})
"""Twilio's answer, Kannel's."""
TICK_S = 0.001
"""How often an open loop looks for what is due."""
RECONNECT_S = 0.05
GRACE_S = 5.0
"""How long answers under way are waited for when the time is up."""
OPEN_CONNECTIONS = 64
"""Requests of an open loop that may be under way; the rest wait, and their clocks run."""


class Load:
    """One run's requests. `render(i)` makes the whole HTTP request of message `i`."""

    def __init__(self, port: int, render: Callable[[int], bytes], accepted: frozenset[int] = ACCEPTED) -> None:
        self._port = port
        self._render = render
        self._good = accepted
        self.grace_s = GRACE_S
        self.began: list[int] = []
        """Message -> when it was sent (closed loop) or due (open loop)."""
        self.accepted: dict[int, int] = {}
        """Message -> when its 2xx came."""
        self.unknown: set[int] = set()
        """Messages whose connection was lost before the answer."""
        self.statuses: Counter[int] = Counter()
        self.refusal = b""
        """The first answer that was no acceptance."""
        self._total = 0
        self._next = 0
        self._open = False
        self._due: deque[int] = deque()
        self._idle: list[_Connection] = []
        self._connecting: set[asyncio.Task[None]] = set()
        self._done = asyncio.Event()
        self._ready = asyncio.Event()
        self.connections: set[_Connection] = set()

    async def closed(self, count: int, concurrency: int, limit_s: float) -> None:
        """Send `count` messages, `concurrency` at once; stop sending after `limit_s`."""
        self._total = count
        for _ in range(concurrency):
            self._connect()
        await self._finish(limit_s)

    async def open(self, rate: float, seconds: float, limit_s: float = 15.0) -> None:
        """Send `rate` messages a second; wait up to `limit_s` longer for the answers."""
        self._open = True
        self._total = int(rate * seconds)
        for _ in range(OPEN_CONNECTIONS):
            self._connect()
        await asyncio.wait_for(self._ready.wait(), limit_s)
        self._tick(asyncio.get_running_loop(), time.monotonic_ns(), rate)
        await self._finish(seconds + limit_s)

    def _tick(self, loop: asyncio.AbstractEventLoop, began: int, rate: float) -> None:
        """Hand out what is due by now."""
        until = min(self._total, int((time.monotonic_ns() - began) / 1e9 * rate) + 1)
        for message in range(len(self.began), until):
            self.began.append(began + int(message / rate * 1e9))
            self._due.append(message)
        while self._due and self._idle:
            self._idle.pop().send(self._due.popleft())
        if until < self._total:
            loop.call_later(TICK_S, self._tick, loop, began, rate)

    async def _finish(self, limit_s: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(self._done.wait(), limit_s)
        except TimeoutError:
            self._total = 0
        # What is under way may still be answered; whatever is not then is unknown.
        deadline = loop.time() + self.grace_s
        while any(c.message is not None for c in self.connections) and loop.time() < deadline:
            await asyncio.sleep(0.01)
        self._done.set()
        for task in self._connecting:
            task.cancel()
        for connection in list(self.connections):
            connection.close()
        while self.connections:
            await asyncio.sleep(0)

    def _connect(self) -> None:
        loop = asyncio.get_running_loop()

        async def connect() -> None:
            while self._total and not self._done.is_set():
                try:
                    await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._port)
                except OSError:
                    await asyncio.sleep(RECONNECT_S)
                else:
                    return

        task = loop.create_task(connect())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def ready(self, connection: "_Connection") -> None:
        """A connection has nothing to do."""
        if self._open:
            if self._due:
                connection.send(self._due.popleft())
            else:
                self._idle.append(connection)
                if len(self._idle) == OPEN_CONNECTIONS:
                    self._ready.set()
        elif self._next < self._total:
            self._next += 1
            self.began.append(time.monotonic_ns())
            connection.send(self._next - 1)

    def request(self, message: int) -> bytes:
        return self._render(message)

    def answered(self, message: int, status: int, body: bytes) -> None:
        """An answer came."""
        self.statuses[status] += 1
        if status in self._good:
            self.accepted[message] = time.monotonic_ns()
        elif not self.refusal:
            self.refusal = body[:300]
        self._ended()

    def lost(self, connection: "_Connection", message: int | None) -> None:
        """A connection has gone, maybe with a request under way; another takes its place."""
        if connection in self._idle:
            self._idle.remove(connection)
        if message is not None:
            self.unknown.add(message)
            self._ended()
        if not self._done.is_set() and self._total:
            self._connect()

    def _ended(self) -> None:
        if self.statuses.total() + len(self.unknown) >= self._total:
            self._done.set()


class _Connection(asyncio.Protocol):
    """One kept connection: a request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.message: int | None = None
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpResponseParser(self)
        self._load.connections.add(self)
        self._load.ready(self)

    def send(self, message: int) -> None:
        self.message = message
        self._transport.write(self._load.request(message))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        message, self.message = self.message, None
        if message is None:  # an answer that nobody asked for
            self._transport.abort()
            return
        self._load.answered(message, self._parser.get_status_code(), self._body)
        if self._parser.should_keep_alive():
            self._load.ready(self)
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.connections.discard(self)
        message, self.message = self.message, None
        self._load.lost(self, message)

    def close(self) -> None:
        self._transport.abort()
