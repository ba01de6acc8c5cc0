"""One connection to a peer: the handshake, then requests and answers of both sides, multiplexed.

Promise: what a peer sends never raises beyond here and never takes more memory than the limits say; whatever breaks the
protocol closes the connection. What is sent within one pass of the event loop leaves in one write.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from trunkline.cluster import peers_wire as wire
from trunkline.cluster.peers_wire import Handshake, Malformed

MAX_IN_FLIGHT: Final = 4096
"""Requests of one peer that are being answered, and of ours that wait for one peer, at once."""
MAX_BYTES_IN_FLIGHT: Final = 64 * 1024 * 1024
"""Of all these requests together, in each direction; SMALL_BYTES ones, by which nodes keep their leases, always go."""
SMALL_BYTES: Final = 4096
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
"""Written but not yet taken by the peer; beyond it the connection is closed."""
HANDSHAKE_S: Final = 2.0
PING_S: Final = 1.0
"""Silence after which the peer is asked for a sign of life."""
DEAD_S: Final = 3.0
"""Silence after which the connection is closed."""
MAX_TEXT_CHARS: Final = 500
CLOSED: Final = "it closed the connection"
REFUSED: Final = "it refuses this node: is cluster.secret the same on both?"
"""It closed the connection when it had seen this node's proof."""

Handler = Callable[[str, bytes], Awaitable[bytes]]

log = logging.getLogger(__name__)


class PeerUnavailable(Exception):
    """No answer came. `sent`: the peer may have acted all the same."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class PeerError(Exception):
    """The peer's handler failed; `code` is the exception's name, or `busy`, `unknown-kind`."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class Link(asyncio.Protocol):
    """See the module. `dialled`: the peer's name when this node opened the connection, else None."""

    def __init__(
        self,
        name: str,
        secret: bytes,
        handlers: dict[bytes, Handler],
        made: "Callable[[Link], bool]",
        up: "Callable[[Link], None]",
        down: "Callable[[Link], None]",
        dialled: str | None = None,
    ) -> None:
        self.peer = dialled or ""
        self.dialled = dialled is not None
        self.ready = False
        self.reason = CLOSED
        self._handshake = Handshake(secret, name)
        self._handlers = handlers
        self._made = made
        self._up = up
        self._down = down
        self._hello = b""
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._out: list[bytes] = []
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._number = 0
        self._answering: set[asyncio.Task[None]] = set()
        self._sent_bytes = 0
        """Of requests that wait for their answers."""
        self._asked_bytes = 0
        """Of requests that are being answered."""
        self._heard = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self.closed = asyncio.Event()

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._made(self):
            self.close("too many connections")
            return
        self._timer = self._loop.call_later(HANDSHAKE_S, self.close, "no handshake in time")
        if not self.dialled:
            self._send(self._handshake.hello())

    def data_received(self, data: bytes) -> None:
        self._heard = self._loop.time()
        try:
            self._frames(self._rest + data if self._rest else data)
        except Malformed as reason:
            log.warning("connection with %s closed: %s", self.peer or "a peer", reason)
            self.close(str(reason))
        except Exception as error:  # a defect of ours must not take the event loop's other connections along
            log.exception("connection with %s closed", self.peer or "a peer")
            self.close(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.ready = False
        if not self.opened.done():
            self.opened.set_exception(PeerUnavailable(self.reason, sent=False))
            self.opened.exception()  # nobody may be waiting
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(PeerUnavailable(f"{self.peer}: {self.reason}", sent=True))
        self._waiting.clear()
        self._out.clear()
        for task in self._answering:
            task.cancel()
        self.closed.set()
        self._down(self)

    # ---- calls

    async def call(self, kind: bytes, payload: bytes, timeout_s: float) -> bytes:
        """Raises PeerUnavailable, PeerError."""
        if not self.ready:
            raise PeerUnavailable(f"{self.peer}: {self.reason}", sent=False)
        if len(self._waiting) >= MAX_IN_FLIGHT:
            raise PeerUnavailable(f"{self.peer}: {MAX_IN_FLIGHT} requests wait for it", sent=False)
        size = len(payload)
        if size > wire.MAX_FRAME_BYTES - 300:
            raise PeerUnavailable(f"{size} bytes are more than a frame holds", sent=False)
        if size > SMALL_BYTES and self._sent_bytes + size > MAX_BYTES_IN_FLIGHT:
            raise PeerUnavailable(f"{self.peer}: {self._sent_bytes} bytes wait for it", sent=False)
        self._number = number = self._number + 1
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting[number] = future
        timer = self._loop.call_later(timeout_s, self._expire, future, timeout_s)
        self._sent_bytes += size
        self._send(wire.call(number, kind, payload))
        try:
            return await future
        finally:
            self._sent_bytes -= size
            timer.cancel()
            self._waiting.pop(number, None)

    def _expire(self, future: asyncio.Future[bytes], timeout_s: float) -> None:
        if not future.done():
            future.set_exception(PeerUnavailable(f"{self.peer}: no answer within {timeout_s:g} s", sent=True))

    @property
    def idle(self) -> bool:
        """Nothing under way in either direction."""
        return not self._waiting and not self._answering

    def close(self, reason: str) -> None:
        """At once; what waits for it gets PeerUnavailable."""
        self.reason = reason
        self.ready = False
        if self._transport is not None:
            self._transport.abort()

    # ---- out

    def _send(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        transport = self._transport
        if not self._out or transport is None or transport.is_closing():
            return
        transport.write(b"".join(self._out))
        self._out.clear()
        if transport.get_write_buffer_size() > MAX_WAITING_BYTES:
            self.close("it does not read what it is sent")

    # ---- in

    def _frames(self, data: bytes) -> None:
        at, end = 0, len(data)
        while end - at >= 5:
            size, kind = wire.HEAD.unpack_from(data, at)
            limit = wire.MAX_FRAME_BYTES if self.ready else wire.MAX_HANDSHAKE_FRAME_BYTES
            if not 0 < size <= limit:
                raise Malformed(f"a frame of {size} bytes")
            if end - at < 4 + size:
                break
            self._frame(kind, data[at + 5 : at + 4 + size])
            at += 4 + size
            if self._transport is None or self._transport.is_closing():
                return
        self._rest = data[at:]

    def _frame(self, kind: int, body: bytes) -> None:
        if not self.ready:
            self._shake(kind, body)
        elif kind == wire.CALL:
            self._asked(*wire.read_named(body))
        elif kind == wire.ANSWER:
            self._answered(wire.read_number(body), body[8:])
        elif kind == wire.ERROR:
            number, code, text = wire.read_named(body)
            self._answered(number, PeerError(code.decode("utf-8", "replace"), text.decode("utf-8", "replace")))
        elif kind == wire.PING:
            self._send(wire.frame(wire.PONG))
        elif kind != wire.PONG:
            raise Malformed(f"a frame of unknown kind {kind}")

    def _shake(self, kind: int, body: bytes) -> None:
        if self.dialled and kind == wire.HELLO and not self._hello:
            self._hello = body
            self._send(self._handshake.prove(body, self.peer))
            self.reason = REFUSED  # what it closes the connection for, if it does so now
        elif self.dialled and kind == wire.WELCOME and self._hello:
            self._handshake.welcomed(self._hello, body, self.peer)
            self._open()
        elif not self.dialled and kind == wire.PROVE:
            self.peer, welcome = self._handshake.welcome(body)
            self._send(welcome)
            self._open()
        else:
            raise Malformed("not the handshake")

    def _open(self) -> None:
        self.ready = True
        self.reason = CLOSED
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(PING_S, self._watch)
        if not self.opened.done():
            self.opened.set_result(None)
        self._up(self)

    def _watch(self) -> None:
        silent = self._loop.time() - self._heard
        if silent >= DEAD_S:
            self.close(f"no sign of life for {silent:.1f} s")
            return
        if silent >= PING_S:
            self._send(wire.frame(wire.PING))
        self._timer = self._loop.call_later(PING_S, self._watch)

    def _answered(self, number: int, told: bytes | PeerError) -> None:
        future = self._waiting.get(number)
        if future is None or future.done():
            return  # it came too late
        if isinstance(told, PeerError):
            future.set_exception(told)
        else:
            future.set_result(told)

    def _asked(self, number: int, kind: bytes, payload: bytes) -> None:
        handler = self._handlers.get(kind)
        if handler is None:
            self._send(wire.error(number, "unknown-kind", kind.decode("utf-8", "replace")))
        elif len(self._answering) >= MAX_IN_FLIGHT:
            self._send(wire.error(number, "busy", f"{MAX_IN_FLIGHT} requests are under way"))
        elif len(payload) > SMALL_BYTES and self._asked_bytes + len(payload) > MAX_BYTES_IN_FLIGHT:
            self._send(wire.error(number, "busy", f"{self._asked_bytes} bytes of requests are under way"))
        else:
            self._asked_bytes += len(payload)
            task = self._loop.create_task(self._answer(number, handler, payload))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer(self, number: int, handler: Handler, payload: bytes) -> None:
        size = len(payload)
        try:
            told: Any = await handler(self.peer, payload)
            if len(told) > wire.MAX_FRAME_BYTES - 300:
                raise PeerError("too-large", f"an answer of {len(told)} bytes")
            self._send(wire.answer(number, told))
        except PeerError as error:
            self._send(wire.error(number, error.code, error.text[:MAX_TEXT_CHARS]))
        except Exception as error:  # it belongs to who asked
            log.warning("a call of %s failed", self.peer, exc_info=True)
            self._send(wire.error(number, type(error).__name__, str(error)[:MAX_TEXT_CHARS]))
        finally:
            self._asked_bytes -= size
