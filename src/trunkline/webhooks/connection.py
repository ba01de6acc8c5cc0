"""One HTTP/1.1 connection: an exchange at a time, parsed by llhttp, timed by one lazy timer.

Theory of operation. An `Exchange` is one request with its answer. A connection serves it by writing the
prepared bytes and feeding what arrives to the parser; when the message is complete it goes back to its pool
(`Owner.release`) or closes, and only then the answer is handed over. No task runs per request.

One timer serves the whole life of a connection: every byte that arrives moves the deadline in a variable, and
the timer, when it fires too early, sleeps again until the deadline. An earlier deadline re-arms it. So
timeouts are exact and cost nothing while traffic flows.

Every bound: a head (and trailers) of MAX_HEAD_BYTES, a body of the exchange's limit, wire bytes of
MAX_HEAD_BYTES plus eight times that limit (so that empty chunks and chunk extensions cannot stream on
for ever), MAX_INTERIM interim (1xx) responses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import httptools

from trunkline.webhooks.body import Undecodable, decode
from trunkline.webhooks.failures import (
    BodyTooLarge,
    ConnectionFailed,
    Failure,
    ProtocolError,
    ReadTimeout,
    TotalTimeout,
)

MAX_HEAD_BYTES: Final = 32 * 1024
MAX_INTERIM: Final = 8
_WIRE_FACTOR: Final = 8

Headers = list[tuple[bytes, bytes]]


class Timeouts(NamedTuple):
    """Seconds: connection with TLS; silence of the peer; everything, waiting for a connection included."""

    connect_s: float = 5.0
    read_s: float = 15.0
    total_s: float = 15.0


class Timing(NamedTuple):
    """Milliseconds since the request was handed in. `connect_ms` is 0 on a kept-alive connection."""

    connect_ms: float
    first_byte_ms: float
    total_ms: float


class Response(NamedTuple):
    """A complete answer. `truncated`: the body was cut at the limit, as the request asked."""

    status: int
    headers: Headers
    body: bytes
    truncated: bool
    timing: Timing

    def header(self, name: str) -> str:
        """The first header of that name (any case), empty when there is none."""
        wanted = name.lower().encode("latin-1")
        for key, value in self.headers:
            if key.lower() == wanted:
                return value.decode("latin-1")
        return ""

    def header_list(self, name: str) -> list[str]:
        """All headers of that name, in order."""
        wanted = name.lower().encode("latin-1")
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == wanted]


OnDone = Callable[[Response | Failure], None]


class Exchange:
    """One request under way. `on_done` is None once it has been told, or was cancelled.

    `timer` is set while it waits in the line of its pool; `pool` is the owner's business.
    """

    __slots__ = (
        "connected",
        "connection",
        "deadline",
        "max_body_bytes",
        "on_done",
        "owner",
        "payload",
        "pool",
        "restarted",
        "started",
        "timeouts",
        "timer",
        "truncate",
    )

    def __init__(
        self,
        owner: Owner,
        payload: bytes,
        on_done: OnDone,
        timeouts: Timeouts,
        max_body_bytes: int,
        truncate: bool,
        now: float,
    ) -> None:
        self.owner = owner
        self.pool: object = None
        self.payload = payload
        self.on_done: OnDone | None = on_done
        self.timeouts = timeouts
        self.max_body_bytes = max_body_bytes
        self.truncate = truncate
        self.started = now
        self.deadline = now + timeouts.total_s
        self.connected = now
        self.restarted = False
        self.connection: Connection | None = None
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        """Give up: `on_done` will not be called, a connection in use is closed."""
        self.on_done = None
        if self.timer is not None:
            self.owner.leave(self)
        if self.connection is not None:
            self.connection.abort()

    def finish(self, result: Response | Failure, loop: asyncio.AbstractEventLoop) -> None:
        """Tell the result, once. An error of the one told goes to the loop's handler."""
        on_done, self.on_done = self.on_done, None
        if self.timer is not None:
            self.owner.leave(self)
        if on_done is None:
            return
        try:
            on_done(result)
        except Exception as error:
            loop.call_exception_handler({"message": "a webhook's on_done failed", "exception": error})


class Owner(Protocol):
    """The pool, as a connection sees it."""

    def release(self, connection: Connection) -> None:
        """The connection is idle and may serve another exchange."""

    def lost(self, connection: Connection) -> None:
        """The connection is gone."""

    def restart(self, exchange: Exchange) -> None:
        """A kept-alive connection died under the exchange before any answer: do it again on another."""

    def leave(self, exchange: Exchange) -> None:
        """The exchange waits no longer: take it out of the line and stop its timer."""


class Connection(asyncio.Protocol):
    """See the module. `served` counts completed exchanges."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_complete",
        "_deadline",
        "_extra",
        "_first_byte",
        "_head_done",
        "_headers",
        "_interim",
        "_keep",
        "_loop",
        "_parser",
        "_status",
        "_timer",
        "_timer_at",
        "_wire_bytes",
        "closed",
        "exchange",
        "idle_s",
        "owner",
        "served",
        "transport",
    )

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop, idle_s: float) -> None:
        self.owner = owner
        self.idle_s = idle_s
        self.transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.served = 0
        self.closed = False
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._deadline = 0.0
        self._reset()

    def _reset(self) -> None:
        self._headers: Headers = []
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._wire_bytes = 0
        self._status = 0
        self._interim = 0
        self._first_byte = 0.0
        self._head_done = False
        self._complete = False
        self._extra = False
        self._keep = False

    # -- what the pool does ---------------------------------------------------------------------------------

    def begin(self, exchange: Exchange) -> None:
        """Send the exchange's request. The connection must be idle."""
        self.exchange = exchange
        exchange.connection = self
        now = self._loop.time()
        deadline = now + exchange.timeouts.read_s
        self._arm(deadline if deadline < exchange.deadline else exchange.deadline)
        if self.transport is not None:
            self.transport.write(exchange.payload)

    def rest(self) -> None:
        """Wait for the next exchange, for at most the idle time."""
        self._arm(self._loop.time() + self.idle_s)

    def abort(self) -> None:
        """Close at once."""
        if self.transport is not None:
            self.transport.abort()

    # -- asyncio.Protocol -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # always a stream transport here

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:  # nobody asked: the peer is confused, or lies
            self.abort()
            return
        now = self._loop.time()
        if not self._wire_bytes:
            self._first_byte = now
        self._wire_bytes += len(data)
        self._deadline = now + exchange.timeouts.read_s
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                self._fail(ProtocolError(f"the response is not HTTP/1.1: {_reason(error)}"))
                return
            self._extra = True
        if self._complete:
            self._finish(exchange, self._keep)
        else:
            self._check_bounds(exchange)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        del self._parser  # it keeps our methods, and so us, until garbage is collected
        exchange, self.exchange = self.exchange, None
        self.owner.lost(self)
        if exchange is None:
            return
        exchange.connection = None
        if not self._wire_bytes:
            if self.served and not exchange.restarted:
                exchange.restarted = True
                self.owner.restart(exchange)
                return
            reason = "reset" if error is not None else "closed"
            exchange.finish(ConnectionFailed(f"the connection was {reason} before any response"), self._loop)
        elif error is None and self._head_done and self._ends_with_connection():
            exchange.finish(self._result(exchange), self._loop)
        else:
            exchange.finish(ProtocolError("the connection was closed in the middle of the response"), self._loop)

    # -- httptools' callbacks: none raises, none calls out ------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            self._extra = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if not self._extra:
            self._status = self._parser.get_status_code()
            self._head_done = True

    def on_body(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None or self._extra:
            return
        self._body_bytes += len(data)
        if self._body_bytes <= exchange.max_body_bytes:
            self._body.append(data)
        else:
            kept = exchange.max_body_bytes - (self._body_bytes - len(data))
            if kept > 0:
                self._body.append(data[:kept])

    def on_message_complete(self) -> None:
        if 100 <= self._status < 200:
            self._interim += 1
            self._headers = []
            self._head_done = False
            return
        if not self._complete:
            self._complete = True
            self._keep = self._parser.should_keep_alive()  # llhttp forgets it with the next byte

    # -- inside ---------------------------------------------------------------------------------------------

    def _check_bounds(self, exchange: Exchange) -> None:
        """Called between pieces of an unfinished response."""
        if self._body_bytes > exchange.max_body_bytes:
            if exchange.truncate:
                self._finish(exchange, False)
            else:
                self._fail(_too_large(exchange))
        elif not self._head_done and (self._wire_bytes > MAX_HEAD_BYTES or self._interim > MAX_INTERIM):
            self._fail(ProtocolError(f"the response's head is longer than {MAX_HEAD_BYTES} bytes"))
        elif self._wire_bytes > MAX_HEAD_BYTES + _WIRE_FACTOR * exchange.max_body_bytes:
            self._fail(_too_large(exchange))

    def _finish(self, exchange: Exchange, keep: bool) -> None:
        result = self._result(exchange)
        self.exchange = None
        exchange.connection = None
        self.served += 1
        if keep and not self._extra and self.transport is not None and not self.transport.is_closing():
            self._reset()
            self.owner.release(self)
        else:
            self.abort()
        exchange.finish(result, self._loop)

    def _fail(self, failure: Failure) -> None:
        exchange, self.exchange = self.exchange, None
        self.abort()
        if exchange is not None:
            exchange.connection = None
            exchange.finish(failure, self._loop)

    def _result(self, exchange: Exchange) -> Response | Failure:
        body = b"".join(self._body)
        truncated = self._body_bytes > exchange.max_body_bytes
        if truncated and not exchange.truncate:
            return _too_large(exchange)
        started = exchange.started
        timing = Timing(
            (exchange.connected - started) * 1000,
            (self._first_byte - started) * 1000,
            (self._loop.time() - started) * 1000,
        )
        response = Response(self._status, self._headers, body, truncated, timing)
        if body and (encoding := response.header("content-encoding")):
            return _decoded(response, encoding, exchange)
        return response

    def _ends_with_connection(self) -> bool:
        """Whether the body has no length of its own (RFC 9112 section 6.3, rule 8)."""
        names = {name.lower() for name, _ in self._headers}
        return b"content-length" not in names and b"transfer-encoding" not in names

    def _arm(self, deadline: float) -> None:
        self._deadline = deadline
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._on_timer)
            self._timer_at = deadline
        elif deadline < self._timer_at:
            self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._on_timer)
            self._timer_at = deadline

    def _on_timer(self) -> None:
        self._timer = None
        exchange = self.exchange
        deadline = self._deadline
        if exchange is not None and exchange.deadline < deadline:
            deadline = exchange.deadline
        if self._loop.time() < deadline:
            self._arm(deadline)
        elif exchange is None:
            self.abort()
        elif deadline == exchange.deadline:
            self._fail(TotalTimeout(f"no complete response within {exchange.timeouts.total_s:g} s"))
        else:
            self._fail(ReadTimeout(f"the server was silent for {exchange.timeouts.read_s:g} s"))


def _decoded(response: Response, encoding: str, exchange: Exchange) -> Response | Failure:
    try:
        body, cut = decode(response.body, encoding, exchange.max_body_bytes)
    except Undecodable as error:
        # A callback's answer is only looked at; a document must be whole.
        return response if exchange.truncate else ProtocolError(str(error))
    if cut and not exchange.truncate:
        return _too_large(exchange)
    return response._replace(body=body, truncated=response.truncated or cut)


def _too_large(exchange: Exchange) -> BodyTooLarge:
    return BodyTooLarge(f"the response's body is longer than {exchange.max_body_bytes} bytes")


def _reason(error: Any) -> str:
    return str(error)[:100] or type(error).__name__
