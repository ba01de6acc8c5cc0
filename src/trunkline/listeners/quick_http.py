"""A short way through the HTTP listener for the requests that come most.

uvicorn runs each request as a task that talks ASGI with the application: that costs as much as accepting a message
does. So a POST that arrives whole is first offered to a `Quick`, a plain function that takes the request with its body
and answers later through a callback: no task, no queues of events, one write. What it does not take, or what comes in
pieces, is large, chunked or pipelined, goes the usual way as if nothing had been tried, under the same bounds
(`guarded_http`). docs/design/http-front.md tells what was measured.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final, Protocol

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from trunkline.listeners.guarded_http import GuardedHttp, HttpLimits

MAX_QUICK_BODY_BYTES: Final = 64 * 1024
"""A larger body goes the usual way, which reads it piece by piece."""

Answer = Callable[[int, Iterable[tuple[bytes, bytes]], bytes], None]
"""Status, headers (Content-Length among them) and body of a response; called once, on the event loop."""


class Quick(Protocol):
    """What may answer without a task."""

    def __call__(self, scope: Mapping[str, Any], body: bytes, answer: Answer) -> bool:
        """Take the request on and call `answer` for it; False, and nothing done, to have it go the usual way.

        `scope` is that of ASGI.
        """


class _NoEvent:
    """Nobody waits for it."""

    def set(self) -> None:
        """Something came, or the client left."""


_NO_EVENT: Final = _NoEvent()


class _Exchange:
    """A request that was taken on: what uvicorn's protocol wants to know of its cycle."""

    __slots__ = ("body", "disconnected", "keep_alive", "message_event", "more_body", "response_complete")

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.body = bytearray()
        self.more_body = False
        self.message_event = _NO_EVENT


class QuickHttp(GuardedHttp):
    """See the module."""

    quick: ClassVar[Quick]
    _offered: list[bytes] | None = None
    """The body so far of a request that may go the short way."""
    _resting = 0.0
    """Since when nothing is awaited nor answered (loop time); 0: something is."""

    def data_received(self, data: bytes) -> None:
        """See `GuardedHttp`; a request that is not whole now goes the usual way."""
        self._resting = 0.0
        super().data_received(data)
        if self._offered is not None and not self._over:
            self._go_the_usual_way()
        elif self._whole and self.cycle is not None and self.cycle.response_complete:
            self._since = 0.0  # answered already

    # -- the parser's callbacks ------------------------------------------------------------------------------

    def on_headers_complete(self) -> None:
        """Begin the request, unless it may be quick. Raises what `GuardedHttp` does."""
        if self._may_be_quick():
            self._check_head()
            self._offered = []
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._offered is not None:
            self._offered.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is there."""
        offered = self._offered
        if offered is not None:
            if self._taken(offered[0] if len(offered) == 1 else b"".join(offered)):
                self._offered = None
                self._whole = True
                return
            self._go_the_usual_way()
        super().on_message_complete()

    # -- the short way ---------------------------------------------------------------------------------------

    def _may_be_quick(self) -> bool:
        cycle, parser = self.cycle, self.parser
        if (cycle is not None and not cycle.response_complete) or self.expect_100_continue:
            return False
        if self.flow.write_paused:
            return False  # who does not read his answers waits: the usual way does
        if parser.get_method() != b"POST" or parser.get_http_version() != "1.1" or parser.should_upgrade():
            return False
        for name, value in self.headers:
            if name == b"content-length":
                return value.isdigit() and len(value) <= 6 and int(value) <= MAX_QUICK_BODY_BYTES
        return False

    def _taken(self, body: bytes) -> bool:
        """Offer the request; whether it was taken on."""
        url = httptools.parse_url(self.url)
        scope = self.scope
        scope["method"] = "POST"
        scope["path"] = url.path.decode("ascii")
        scope["raw_path"] = url.path
        scope["query_string"] = url.query or b""
        before = self.cycle
        exchange: Any = _Exchange(self.parser.should_keep_alive())
        self.cycle = exchange
        if self.quick(scope, body, lambda *response: self._answer(exchange, *response)):
            return True
        self.cycle = before
        return False

    def _answer(self, exchange: _Exchange, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        exchange.response_complete = True
        if self.transport.is_closing():
            return
        pieces = [STATUS_LINE[status]]
        for name, value in self.server_state.default_headers:
            pieces += (name, b": ", value, b"\r\n")
        for name, value in headers:
            if name == b"connection":
                exchange.keep_alive = exchange.keep_alive and value.lower() != b"close"
            else:
                pieces += (name, b": ", value, b"\r\n")
        pieces += (b"\r\n" if exchange.keep_alive else b"connection: close\r\n\r\n", body)
        self.transport.write(b"".join(pieces))
        if not exchange.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _go_the_usual_way(self) -> None:
        """A request that was not taken, or is not here yet: as if its head had just ended."""
        pieces, self._offered = self._offered, None
        HttpToolsProtocol.on_headers_complete(self)
        for piece in pieces or ():
            HttpToolsProtocol.on_body(self, piece)

    # -- between requests ------------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """An answer is out: what was pipelined behind it is next, else the connection rests. uvicorn's own arms a
        timer for each rest."""
        if self.pipeline:
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self._resting = self.loop.time()

    def _look(self, now: float) -> None:
        super()._look(now)
        if self._resting and now - self._resting > self.timeout_keep_alive:
            self.transport.close()


def quick(limits: HttpLimits, take: Quick) -> type[QuickHttp]:
    """The protocol class with these limits and this short way."""
    return type("BoundQuickHttp", (QuickHttp,), {"limits": limits, "quick": staticmethod(take)})
