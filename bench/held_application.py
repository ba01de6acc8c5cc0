"""An application that answers when it is let."""

import asyncio
from typing import cast


class Application:
    """`answer` is what each request gets, at once or when it is let; `waiting`, the connections that have none yet."""

    def __init__(self, answer: bytes, *, is_open: bool) -> None:
        self.answer = answer
        self.is_open = is_open
        self.waiting: set[Connection] = set()

    def connection(self) -> "Connection":
        """For a new one."""
        return Connection(self)

    def let(self) -> None:
        """From now on answer at once; those that wait, now."""
        self.is_open = True
        for one in list(self.waiting):
            one.transport.write(self.answer)
        self.waiting.clear()


class Connection(asyncio.Protocol):
    """One of its connections."""

    def __init__(self, application: Application) -> None:
        self._application = application

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            return  # the head alone; the body follows
        if self._application.is_open:
            self.transport.write(self._application.answer)
        else:
            self._application.waiting.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._application.waiting.discard(self)
