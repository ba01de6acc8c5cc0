"""An asyncio event loop with virtual time and seeded order, for whole clusters in one process.

What a node does runs in a context that names it (`NODE`): a stopped node's callbacks wait, a killed node's never run.
The order among nodes is random, within a node it is asyncio's.
"""

import asyncio
import heapq
from collections.abc import Callable
from contextvars import ContextVar
from random import Random
from typing import Any

NODE: ContextVar["Process | None"] = ContextVar("process", default=None)


class Process:
    """What can be stopped and killed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen = False
        self.kept: list[asyncio.Handle] = []


class Stuck(Exception):
    """Nothing is left that could ever happen."""


class Loop(asyncio.BaseEventLoop):
    """`after_each` is called after each callback."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = Random(seed)
        self.now = 0.0
        self.steps = 0
        self.after_each: Callable[[], None] = lambda: None
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda loop, context: self.errors.append(context))

    def time(self) -> float:
        return self.now

    def _write_to_self(self) -> None:
        pass

    def _process_events(self, events: Any) -> None:
        pass

    def thaw(self, process: Process) -> None:
        process.frozen = False
        self._ready.extend(process.kept)
        process.kept = []

    def _run_once(self) -> None:
        while not self._ready:
            if not self._scheduled:
                raise Stuck
            first = heapq.heappop(self._scheduled)
            first._scheduled = False
            if not first._cancelled:
                self.now = max(self.now, first._when)
                self._ready.append(first)
            while self._scheduled and self._scheduled[0]._when <= self.now:
                due = heapq.heappop(self._scheduled)
                due._scheduled = False
                if not due._cancelled:
                    self._ready.append(due)
        handle = self._next()
        process = handle._context.get(NODE)
        if handle._cancelled:
            return
        if process is not None and (process.dead or process.frozen):
            process.kept.append(handle)
            return
        self.steps += 1
        handle._run()
        self.after_each()

    def _next(self) -> asyncio.Handle:
        ready = self._ready
        if len(ready) == 1:
            return ready.popleft()
        chosen = ready[self.random.randrange(len(ready))]._context.get(NODE)
        index = next(at for at, one in enumerate(ready) if one._context.get(NODE) is chosen)
        handle = ready[index]
        del ready[index]
        return handle
