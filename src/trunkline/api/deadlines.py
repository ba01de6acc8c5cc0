"""A time limit on many short waits, for less than a timer each.

`asyncio.timeout` arms and disarms a timer per request (4 us); here one timer looks over all waiting tasks. A wait
is ended up to a quarter of the limit late, which a guard against stalled clients can afford.
"""

import asyncio

CHECKS_PER_LIMIT = 4


class Deadlines:
    """Ends waits that last longer than `seconds`. At most one wait per task at a time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: dict[asyncio.Task[object], float] = {}
        self._late: set[asyncio.Task[object]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self) -> "asyncio.Task[object]":
        """The running task begins to wait; hand the result to `leave`, whatever happens."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # coroutines of an application always run in a task
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(self._seconds / CHECKS_PER_LIMIT, self._check, loop)
        self._waiting[task] = loop.time() + self._seconds
        return task

    def ended(self, task: "asyncio.Task[object]") -> bool:
        """Whether the CancelledError just caught is our doing alone; it may then be swallowed."""
        if task not in self._late:
            return False
        return task.uncancel() == 0

    def leave(self, task: "asyncio.Task[object]") -> None:
        """The wait is over."""
        del self._waiting[task]
        self._late.discard(task)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            return
        now = loop.time()
        for task, deadline in self._waiting.items():
            if deadline <= now and task not in self._late:
                self._late.add(task)
                task.cancel()
        if self._waiting:
            loop.call_later(self._seconds / CHECKS_PER_LIMIT, self._check, loop)
        else:
            self._loop = None  # armed again by the next wait
