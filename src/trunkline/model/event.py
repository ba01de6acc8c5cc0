"""An event of asyncio, for things of which there are thousands."""

import asyncio


class Event:
    """An `asyncio.Event`, a tenth as large."""

    __slots__ = ("_is_set", "_waiting")

    def __init__(self, *, is_set: bool = False) -> None:
        self._is_set = is_set
        self._waiting: tuple[asyncio.Future[None], ...] = ()

    def is_set(self) -> bool:
        """Whether nobody needs to wait."""
        return self._is_set

    def set(self) -> None:
        """Wake all who wait."""
        self._is_set = True
        if self._waiting:
            waiting, self._waiting = self._waiting, ()
            for one in waiting:
                if not one.done():
                    one.set_result(None)

    def clear(self) -> None:
        """From now on it is waited again."""
        self._is_set = False

    async def wait(self) -> bool:
        """Until it is set."""
        if not self._is_set:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting = (*self._waiting, future)
            try:
                await future
            finally:
                if not self._is_set:
                    self._waiting = tuple(one for one in self._waiting if one is not future)
        return True
