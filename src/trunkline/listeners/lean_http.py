"""uvicorn's HTTP protocol with less of everything: memory for each connection and request, and steps for each answer.

On its own it takes two `asyncio.Event` and three deques (600 bytes each) for a connection that holds a request, and
builds each head by looking at every name and value for what may not be in it. Here events are a flag and those who
wait, and our own API, which knows what it sends, hands a whole answer over at once (the ASGI extension `ANSWER`).
"""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, ClassVar, Final, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from trunkline.model.event import Event
from trunkline.model.held import ANSWER

EXTENSIONS: Final[dict[str, dict[str, object]]] = {ANSWER: {}}
MAX_SERVERS: Final = 256
"""Addresses of our own that connections share."""
_STATUS: Final = {one.value: f"HTTP/1.1 {one.value} {one.phrase}\r\n".encode("ascii") for one in HTTPStatus}
_servers: dict[Any, Any] = {}


class Flow(FlowControl):
    """uvicorn's, with a light event."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.read_paused = False
        self.write_paused = False
        self._is_writable_event = cast(asyncio.Event, Event(is_set=True))


class Line(list[Any]):
    """Pipelined requests, the first to be answered last in the list; a deque is ten times as large when empty."""

    __slots__ = ()

    def appendleft(self, one: Any) -> None:
        """One more, which has its turn after the others."""
        self.insert(0, one)


class Cycle(RequestResponseCycle):
    """One request and its answer."""

    async def send(self, message: Any) -> None:
        """As ASGI says, and ANSWER. Raises ValueError for a header that would end its line."""
        if message["type"] != ANSWER:
            await super().send(message)
            return
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if not self.disconnected:
            self._answer(message["status"], message["headers"], message["body"])

    def _answer(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        keep_alive = self.keep_alive
        parts = [_STATUS.get(status) or b"HTTP/1.1 %d \r\n" % status, _encoded(self.default_headers)]
        for name, value in headers:
            if name == b"connection":
                keep_alive = keep_alive and value.lower() != b"close"
            else:
                parts += (name, b": ", value, b"\r\n")
        lines, fields = b"".join(parts[2:]), len(parts) // 4
        if lines.count(b"\n") != fields or lines.count(b"\r") != fields:
            raise ValueError("a line break in a header")
        parts += (b"\r\n" if keep_alive else b"connection: close\r\n\r\n", body)
        self.keep_alive = keep_alive
        self.response_started = self.response_complete = True
        self.transport.write(b"".join(parts))
        self.message_event.set()
        if not keep_alive:
            self.transport.close()
        self.on_response()


class _Default:
    """The headers that go with each answer; uvicorn makes them anew each second."""

    of: ClassVar[Any] = None
    encoded: ClassVar[bytes] = b""


def _encoded(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    if _Default.of is not headers:
        _Default.of = headers
        _Default.encoded = b"".join(b"%s: %s\r\n" % one for one in headers)
    return _Default.encoded


class LeanHttp(HttpToolsProtocol):
    """See the module. For servers without WebSockets, access log and limit of concurrency."""

    __slots__ = ()

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.pipeline = cast(Any, Line())

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """As uvicorn's."""
        super().connection_made(transport)
        self.flow = Flow(transport)
        if len(_servers) < MAX_SERVERS:
            self.server = _servers.setdefault(self.server, self.server)

    def on_headers_complete(self) -> None:
        """A request's head is there: begin to answer it, or put it into the line."""
        parser, scope = self.parser, cast(dict[str, Any], self.scope)
        version = parser.get_http_version()
        scope["method"] = parser.get_method().decode("ascii")
        scope["extensions"] = EXTENSIONS
        if version != "1.1":
            scope["http_version"] = version
        self._put_target(scope)
        before = self.cycle
        self.cycle = cycle = Cycle(
            scope=self.scope, transport=self.transport, flow=self.flow, logger=self.logger,
            access_logger=self.access_logger, access_log=False, default_headers=self.server_state.default_headers,
            message_event=cast(asyncio.Event, Event()), expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and parser.should_keep_alive(), on_response=self.on_response_complete,
        )  # fmt: skip
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def _put_target(self, scope: dict[str, Any]) -> None:
        """Path and query of the request's target."""
        raw, _, query = self.url.partition(b"?")
        if raw[:1] != b"/" or raw[:2] == b"//" or b"#" in self.url:
            parsed = httptools.parse_url(self.url)
            raw, query = parsed.path, parsed.query or b""
        path = raw.decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"], scope["query_string"] = raw, query
