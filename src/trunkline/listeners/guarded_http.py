"""uvicorn's HTTP protocol with the bounds that it lacks.

On its own it takes heads of any size, waits for them for ever, queues pipelined requests without end, and keeps
whoever does not read his answers. `guarded(limits)` is the class to hand to `uvicorn.Config(http=...)`. Whoever goes
too far gets 400, 408, 431 or 503 where an answer can still be told apart, and in any case a closed connection.

Deadlines are looked at by one timer for all connections, so that a request in good order costs none.
Source: RFC 9112, RFC 6585 section 5 (431).
"""

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar, Final, cast

import httptools

from trunkline.listeners.lean_http import LeanHttp
from trunkline.model.held import HELD, MOVED, PARTS

MAX_HEADERS: Final = 100
"""Header fields (and trailer fields) of one request."""
MAX_PIPELINED: Final = 16
"""Requests of one connection that wait for their turn; with the last of them the connection is closed."""
GRACE_S: Final = 1.0
"""On top of `request_s` where a handler is waiting for the body: it answers 408 itself."""
SLOW_READER_BYTES: Final = 32 * 1024
"""A client that takes fewer bytes of its answers in `write_s` is cut off."""
_OF_THE_WAY: Final = frozenset({b"expect", b"transfer-encoding"})
"""Header fields that do not count for a request that is passed on."""
VERSIONS: Final = frozenset({"1.0", "1.1"})

_REASONS: Final = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of one listener."""

    head_bytes: int
    """Largest request line and header section (431)."""
    request_s: float
    """Seconds within which a request must have arrived whole; also until the first one begins."""
    write_s: float
    """Seconds in which a client must take SLOW_READER_BYTES of what waits for it."""
    connections: int
    """Open connections; one more is told 503 and closed."""


class _Refused(Exception):
    """The parser is stopped: the request is answered with `status`."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Enough(Exception):
    """The parser is stopped: too many requests are pipelined."""


class GuardedHttp(LeanHttp):
    """See the module."""

    __slots__ = ("_chunk", "_in_head", "_most", "_over", "_since", "_stuck", "_sure", "_unread", "_whole")

    limits: ClassVar[HttpLimits]
    first: bytes = b""
    """What another process has read of this connection's request; set before the connection is made."""
    _watching: ClassVar[bool] = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it in, or out."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._in_head = False
        self._whole = False
        self._over = False
        """Nothing more is read from this connection."""
        self._chunk = self._most = self._sure = 0
        self._since = self.loop.time()
        """Since when a request is awaited or under way; 0: none is."""
        self._stuck = 0.0
        """Since when what is written waits for the client; 0: it does not."""
        self._unread = 0
        if len(self.connections) > self.limits.connections:
            self._refuse(503)
            return
        own = type(self)
        if not own._watching:
            own._watching = True
            self.loop.call_later(min(1.0, self.limits.request_s / 4), own._watch, self.loop, self.connections)
        if self.first:
            self._begin()

    def _begin(self) -> None:
        """Read what another process has read, before anything else comes."""
        data, self.first = self.first, b""
        self.data_received(data)

    # -- reading ---------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Feed the parser, then look whether the request has gone too far."""
        if self._over:
            return
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self._chunk = len(data)
        was_in_head = self._in_head
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._stop_reading()  # what follows is in no protocol that is spoken here
        except httptools.HttpParserError as error:
            self._broken(error.__context__)
            return
        if self._in_head:
            if was_in_head:
                self._sure += len(data)
                self._most += len(data)
            if self._sure > self.limits.head_bytes or len(self.headers) > MAX_HEADERS:
                self._refuse(431)
                return
        elif len(self.headers or ()) > MAX_HEADERS:  # trailers
            self._refuse(431)
            return
        if self._whole and not self.cycle.response_complete:
            self._since = 0.0
        elif not self._since:
            self._since = self.loop.time()

    def _broken(self, error: BaseException | None) -> None:
        if isinstance(error, _Enough):
            self.pipeline[0][0].keep_alive = False
            self._stop_reading()
        else:
            self._refuse(error.status if isinstance(error, _Refused) else 400)

    def _stop_reading(self) -> None:
        """Answer what is whole, then close."""
        self._over = True
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def _refuse(self, status: int) -> None:
        """Answer and close. Requests that came whole before this one are answered first, and then only closed."""
        self._over = True
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            reason = _REASONS[status]
            head = f"HTTP/1.1 {status} {reason}\r\nconnection: close\r\ncontent-type: text/plain\r\n"
            self.transport.write(f"{head}content-length: {len(reason)}\r\n\r\n{reason}".encode("ascii"))
        elif self._in_head or self._whole:
            self.cycle.keep_alive = False
            return
        self.transport.close()

    # -- the parser's callbacks ------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Raises _Enough."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _Enough
        self._in_head = True
        self._whole = False
        self._most, self._sure = self._chunk, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Raises _Refused."""
        if self.parser.get_http_version() not in VERSIONS:
            raise _Refused(400)
        most = self.limits.head_bytes
        if len(self.headers) > MAX_HEADERS or (self._most > most and self._exact() > most):
            raise _Refused(431)
        self._in_head = False
        super().on_headers_complete()
        self.headers = []  # trailers are counted, and nobody's headers

    def _exact(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def on_message_complete(self) -> None:
        """The request is there."""
        self._whole = True
        super().on_message_complete()

    # -- handing over ----------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way on this connection, in either direction."""
        return (
            (self.cycle is None or self.cycle.response_complete)
            and not (self._in_head or self._over or self.pipeline or self.transport.is_closing())
            and not self.transport.get_write_buffer_size()
        )

    def take_back(self) -> bytes | None:
        """Leave the request under way to another process, if nothing has been done about it: what has come of it so
        far, to be put before what the connection brings. None: it is answered here. `let_go` is next."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete or cycle.response_started or self.pipeline or self._in_head:
            return None
        scope: dict[str, Any] = cast(dict[str, Any], cycle.scope)
        task = scope.get(HELD)
        if task is None or self._over or self.transport.is_closing() or self.transport.get_write_buffer_size():
            return None
        fields = dict(scope["headers"])
        if cycle.more_body and b"transfer-encoding" in fields:
            return None  # how much of a chunk is missing only its parser knows
        body = b"".join((scope.get(PARTS, b""), cycle.body))
        head = [scope["method"].encode(), b" ", scope["raw_path"]]
        if scope["query_string"]:
            head += [b"?", scope["query_string"]]
        head += [b" HTTP/", scope["http_version"].encode(), b"\r\n"]
        for name, value in scope["headers"]:
            if name not in _OF_THE_WAY:
                head += [name, b": ", value, b"\r\n"]
        if b"transfer-encoding" in fields:
            head.append(b"content-length: %d\r\n" % len(body))
        scope[MOVED] = True
        cycle.disconnected = True
        task.cancel()
        return b"".join((*head, b"\r\n", body))

    def let_go(self) -> int:
        """Read no more, so that another process may; its socket's descriptor, -1 where there is none. What the client
        has sent meanwhile is still in the kernel."""
        self._over = True
        self._unset_keepalive_if_required()
        self.transport.pause_reading()
        found = self.transport.get_extra_info("socket")
        return int(found.fileno()) if found is not None else -1

    # -- writing ---------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client takes its answers more slowly than they are made."""
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        self._stuck = 0.0

    def _wait_for_reader(self) -> None:
        self._stuck = self.loop.time()
        self._unread = self.transport.get_write_buffer_size()

    # -- time ------------------------------------------------------------------------------------------------

    @classmethod
    def _watch(cls, loop: asyncio.AbstractEventLoop, connections: set[Any]) -> None:
        now = loop.time()
        for connection in list(connections):
            if isinstance(connection, cls):
                connection._look(now)
        cls._watching = bool(connections)
        if cls._watching:
            loop.call_later(min(1.0, cls.limits.request_s / 4), cls._watch, loop, connections)

    def _look(self, now: float) -> None:
        """Whether this connection's time is over."""
        limits = self.limits
        if self.transport.is_closing() and not self._stuck:
            self._wait_for_reader()
        if self._stuck and now - self._stuck > limits.write_s:
            left = self.transport.get_write_buffer_size()
            if self._unread - left < SLOW_READER_BYTES:
                self.transport.abort()
                return
            self._wait_for_reader()
        if not self._since or self._over:
            return
        waited = now - self._since
        answering = self.cycle is not None and not self.cycle.response_complete
        if waited > limits.request_s + (GRACE_S if answering else 0.0):
            if self._in_head:
                self._refuse(408)
            else:
                self._over = True
                self.transport.close()


def guarded(limits: HttpLimits) -> type[GuardedHttp]:
    """The protocol class with these limits."""
    return type("Guarded", (GuardedHttp,), {"limits": limits})
