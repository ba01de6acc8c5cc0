"""A write under way: what the hot path's writes return instead of an asyncio future.

Five writes and more go with each message. A future costs a trip through the event loop for each callback; a `Written`
calls them straight from the writer's one wake-up for a whole batch. It can be awaited like a future, and `when_done`
takes either.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Written(Generic[T]):
    """Done once the write is committed, or has failed. Belongs to one event loop; it cannot be cancelled."""

    __slots__ = ("_callback", "_done", "_error", "_more", "_result")

    def __init__(self) -> None:
        self._done = False
        self._result: Any = None
        self._error: BaseException | None = None
        self._callback: Callable[[Any], object] | None = None
        self._more: list[Callable[[Any], object]] | None = None

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Have `callback(self)` called on the event loop when it is done, in the order of adding; at once if it is."""
        if self._done:
            callback(self)
        elif self._callback is None:
            self._callback = callback
        elif self._more is None:
            self._more = [callback]
        else:
            self._more.append(callback)

    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._done

    def cancelled(self) -> bool:
        """Never: what was handed in is written."""
        return False

    def result(self) -> T:
        """What the write returned. Raises what it raised, and InvalidStateError before it is done."""
        if not self._done:
            raise asyncio.InvalidStateError("the write is under way")
        if self._error is not None:
            raise self._error
        result: T = self._result
        return result

    def exception(self) -> BaseException | None:
        """What the write raised. Raises InvalidStateError before it is done."""
        if not self._done:
            raise asyncio.InvalidStateError("the write is under way")
        return self._error

    def settle(self, result: Any, error: BaseException | None) -> None:
        """The engine's part: tell the outcome, once. A callback's fault goes to the loop's handler."""
        self._done = True
        self._result = result
        self._error = error
        callback = self._callback
        if callback is None:
            return
        self._callback = None
        try:
            callback(self)
        except Exception as fault:
            _report(fault)
        if self._more is not None:
            more, self._more = self._more, None
            for callback in more:
                try:
                    callback(self)
                except Exception as fault:
                    _report(fault)

    def __await__(self) -> Generator[Any, None, T]:
        if not self._done:
            future = asyncio.get_running_loop().create_future()
            self.add_done_callback(lambda _: None if future.done() else future.set_result(None))
            yield from future
        return self.result()


Kept = asyncio.Future[Any] | Written[Any]
"""Either: both have `done`, `cancelled`, `exception`, `result` and `add_done_callback`, and can be awaited."""


def when_done(awaitable: Awaitable[Any], callback: Callable[[Any], object]) -> None:
    """Have `callback` called with a finished future (or `Written`); a plain coroutine is run as a task."""
    if type(awaitable) is Written:
        awaitable.add_done_callback(callback)
    else:
        asyncio.ensure_future(awaitable).add_done_callback(callback)


def _report(fault: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": "what waited for a write failed", "exception": fault})
