"""What is awaited: reads, and writes that are sure. All that is asked at one time goes to the server together, and one
`WAIT` behind it tells for all of it whether enough replicas have it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from trunkline.storage.engines.valkey.line import Command, Lane, Line, Lost, Primary
from trunkline.storage.memory import StoreInDoubt
from trunkline.storage.unavailable import StoreUnavailable

REQUEST_S = 1.0
"""Longest wait of whoever asks, seconds."""
RETRY_S = 0.1
"""Pause before a primary is looked for again, seconds."""
MAX_REQUESTS = 10_000
"""Requests that may wait at once; one more is refused: after an outage they would keep the server down."""
BATCH = 128
"""Requests that are sent together."""
_ELSEWHERE = ("READONLY", "MASTERDOWN", "LOADING", "UNBLOCKED")
"""Errors of a server that is not the primary (any more): look for another."""


class TooEarly(StoreUnavailable):
    """The store is another one than a moment ago, and may have forgotten who holds the key."""

    def __init__(self, left_s: float) -> None:
        super().__init__(f"the memory store has changed: what it has forgotten may be held for {left_s:.1f} s yet")
        self.left_s = left_s


class _Request:
    __slots__ = ("commands", "future", "grace_s", "matters", "sent")

    def __init__(self, commands: Sequence[Command], grace_s: float, matters: Callable[[list[Any]], bool]) -> None:
        self.commands = commands
        self.grace_s = grace_s
        self.matters = matters
        self.sent = False
        self.future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()


def _always(replies: list[Any]) -> bool:
    return True


class Requests:
    """Requests of one kind: reads, or (`sure`) writes."""

    def __init__(self, primary: Primary, wait_ms: int, *, sure: bool) -> None:
        self._primary = primary
        self._lane = Lane(primary)
        self._sure = sure
        self._wait_ms = wait_ms
        self._queue: deque[_Request] = deque()
        self._wake = asyncio.Event()

    async def ask(
        self, *commands: Command, grace_s: float = 0.0, matters: Callable[[list[Any]], bool] = _always
    ) -> list[Any]:
        """The replies. `grace_s`: not until the store has been the same for so long. `matters`: whether by its replies
        a write has changed anything, so that replicas have to have it. Raises StoreUnavailable, StoreInDoubt."""
        if len(self._queue) >= MAX_REQUESTS:
            raise StoreUnavailable(f"{len(self._queue)} requests wait for the memory store")
        request = _Request(commands, grace_s, matters)
        self._queue.append(request)
        self._wake.set()
        try:
            async with asyncio.timeout(REQUEST_S):
                return await request.future
        except TimeoutError:
            if self._sure and request.sent:
                raise StoreInDoubt("the memory store did not answer in time") from None
            raise StoreUnavailable(self._primary.problem or "the memory store did not answer in time") from None

    async def run(self) -> None:
        """Serve, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                try:
                    await self._send(await self._lane.get())
                except StoreUnavailable:
                    self._queue = deque(one for one in self._queue if not one.future.done())
                    await asyncio.sleep(RETRY_S)

    async def _send(self, line: Line) -> None:
        batch = self._take()
        if not batch:
            return
        needed = self._primary.needed if self._sure else 0
        commands = [command for request in batch for command in request.commands]
        if needed:
            commands.append(("WAIT", needed, self._wait_ms))
        for request in batch:
            request.sent = True
        try:
            replies = await line.run(commands, self._wait_ms / 1000 if needed else 0.0)
        except Lost as lost:
            if not self._sure:  # asking again does no harm
                self._queue.extendleft(reversed(batch))
                raise
            for request in batch:
                _fail(request, StoreInDoubt(str(lost)))
            return
        have = replies[-1] if needed else 0
        missing = "" if isinstance(have, int) and have >= needed else f"{have} of {needed} replicas have it in time"
        at = 0
        for request in batch:
            _answer(request, replies[at : at + len(request.commands)], missing, line)
            at += len(request.commands)

    def _take(self) -> list[_Request]:
        batch: list[_Request] = []
        problem = self._primary.problem if self._sure else ""
        standing_s = time.monotonic() - self._primary.changed_at
        while self._queue and len(batch) < BATCH:
            request = self._queue.popleft()
            if request.future.done():
                continue
            if problem:
                _fail(request, StoreUnavailable(f"memory store: {problem}"))
            elif request.grace_s > standing_s:
                _fail(request, TooEarly(request.grace_s - standing_s))
            else:
                batch.append(request)
        return batch


def _answer(request: _Request, replies: list[Any], missing: str, line: Line) -> None:
    error = next((reply for reply in replies if isinstance(reply, Exception)), None)
    if error is not None:
        if str(error).startswith(_ELSEWHERE) or "READONLY" in str(error):
            line.cut()
        _fail(request, StoreUnavailable(f"memory store at {line.address}: {error}"))
    elif missing and request.matters(replies):
        _fail(request, StoreInDoubt(f"memory store at {line.address}: {missing}"))
    elif not request.future.done():
        request.future.set_result(replies)


def _fail(request: _Request, error: StoreUnavailable) -> None:
    if not request.future.done():
        request.future.set_exception(error)
