"""The I/O around a `Session`: asyncio streams of bytes in, one write per loop pass out.

    def receive -> session.receive -> handler; whatever was queued meanwhile is written once.

A peer that does not read stops being read (`pause_writing`), so that answers to it cannot pile up.
"""

import asyncio
import logging
import os
import socket
import ssl as ssl_module
import struct
from asyncio.trsock import TransportSocket
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import msgspec

from trunkline.smpp import constants as c
from trunkline.smpp import events
from trunkline.smpp import pdu as p
from trunkline.smpp.errors import ConnectError, SessionStateError, WindowFullError
from trunkline.smpp.session import BOUND, Limits, Role, Session, State

logger = logging.getLogger(__name__)

WRITE_BUFFER_OCTETS: Final = 256 * 1024  # unsent output above which the peer is not read any more
CLOSE_TIMEOUT_S: Final = 5.0  # for the last octets to a peer that does not read
MAX_CONNECTIONS: Final = 1000  # per listener
LOOK_S: Final = 0.002  # between two looks whether all is answered
GATE_LOOK_S: Final = 0.05  # between two looks at a gate that holds output back
NO_LINGER: Final = struct.pack("ii", 1, 0)

Outcome = events.ResponseReceived | events.RequestFailed
Callback = Callable[[Any, Outcome], None]


class Handler:
    """What a connection calls. Override what you need; calls come from the event loop and must not block."""

    def on_connected(self, connection: "Connection") -> None:
        """The connection stands; nothing has been exchanged."""

    def on_bind_request(self, connection: "Connection", sequence: int, pdu: p.Bind) -> None:
        """SMSC role: answer with `accept_bind` or `refuse_bind`, now or later."""
        connection.refuse_bind(sequence, c.ESME_RBINDFAIL)

    def on_bind_answer(self, connection: "Connection", pdu: p.BindResp | p.GenericNack) -> None:
        """ESME role: the answer to the bind."""

    def on_request(self, connection: "Connection", sequence: int, pdu: p.Request) -> None:
        """A request to be answered by `connection.respond(sequence, ...)`, now or later."""
        connection.respond(sequence, c.ESME_RINVCMDID)

    def on_room(self, connection: "Connection") -> None:
        """There is room in the window again after `room` was 0."""

    def on_notice(self, connection: "Connection", event: events.OutbindReceived | events.AlertReceived) -> None:
        """A PDU that wants no answer."""

    def on_closed(self, connection: "Connection", reason: str) -> None:
        """The session is over; callbacks of what was outstanding have been called."""


class Connection(asyncio.Protocol):
    """One TCP connection with its session."""

    def __init__(self, role: Role, handler: Handler, limits: Limits | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._handler = handler
        self.session = Session(role, self._loop.time(), limits)
        self._transport: asyncio.Transport | None = None
        self._flush_due = False
        self._starved = False
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self._waits = False
        self._on_close: Callable[[Connection], None] | None = None
        self.closed: asyncio.Future[str] = self._loop.create_future()
        """Done with the reason when the connection is over."""
        self.before = b""
        """What another process has read of it (`resume`)."""
        self.gate: Callable[[], bool] | None = None
        """Asked just before anything is written; what does not pass waits. None: there is none."""

    # --- for the owner

    @property
    def peer(self) -> str:
        """Address of the other end, for logs."""
        name = self._transport.get_extra_info("peername") if self._transport else None
        return f"{name[0]}:{name[1]}" if name else "unknown"

    @property
    def state(self) -> State:
        return self.session.state

    @property
    def bound(self) -> bool:
        return self.session.state in BOUND

    @property
    def silent(self) -> bool:
        """See `Session.silent`."""
        return self.session.silent

    @property
    def room(self) -> int:
        """Requests that may be submitted now. After a 0, `on_room` says when to ask again."""
        room = 0 if self._paused else self.session.room
        if room <= 0:
            self._starved = True
            return 0
        return room

    def submit(self, pdu: p.Request, callback: Callback, context: Any = None) -> int:
        """Send a request; `callback(context, outcome)` is called once, or twice when a response comes after its
        timeout was reported (`outcome.late`). Returns the sequence number. Raises `SessionStateError`,
        `WindowFullError` or `EncodeError`, and then nothing is sent and no callback comes."""
        try:
            sequence = self.session.send(pdu, (callback, context), self._loop.time())
        except WindowFullError:
            self._starved = True
            raise
        if not self._flush_due:
            self._flush_later()
        return sequence

    def request(self, pdu: p.Request) -> "asyncio.Future[Outcome]":
        """`submit` for the occasional request: a future of its first outcome."""
        future: asyncio.Future[Outcome] = self._loop.create_future()
        self.submit(pdu, _resolve, future)
        return future

    def respond(self, sequence: int, status: int = c.ESME_ROK, message_id: str = "") -> bool:
        """Answer a request; see `Session.respond`."""
        answered = self.session.respond(sequence, status, message_id)
        if not self._flush_due:
            self._flush_later()
        return answered

    def respond_with(self, sequence: int, pdu: p.Response) -> bool:
        """Answer a request with a whole PDU; see `Session.respond_with`."""
        answered = self.session.respond_with(sequence, pdu)
        self._flush_later()
        return answered

    def bind(self, pdu: p.Bind) -> None:
        """ESME role: ask to bind. Next: `Handler.on_bind_answer`."""
        self.session.bind(pdu, self._loop.time())
        self._flush_later()

    def accept_bind(self, sequence: int, system_id: str = "", version: int = c.INTERFACE_VERSION_34) -> bool:
        """SMSC role; see `Session.accept_bind`."""
        accepted = self.session.accept_bind(sequence, system_id, version)
        self._flush_later()
        return accepted

    def refuse_bind(self, sequence: int, status: int = c.ESME_RBINDFAIL) -> bool:
        """SMSC role; see `Session.refuse_bind`."""
        refused = self.session.refuse_bind(sequence, status)
        self._flush_later()
        return refused

    def close(self) -> None:
        """Unbind, then close; `closed` tells when."""
        self.session.unbind(self._loop.time())
        self._flush_later()

    def abort(self, reason: str = "aborted") -> None:
        """Close at once, without a word."""
        self._dispatch(self.session.connection_lost(reason))
        if self._transport is not None:
            self._transport.abort()

    def reset(self, reason: str = "reset") -> None:
        """As `abort`, by a TCP reset: nor does anything leave that the kernel still has."""
        found = self._transport.get_extra_info("socket") if self._transport is not None else None
        if found is not None and found.fileno() >= 0:
            # a descriptor of our own, for uvloop's stand-in has no setsockopt; the option is the connection's
            with socket.socket(fileno=os.dup(found.fileno())) as own:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self.abort(reason)

    async def let_go(self, timeout_s: float) -> tuple[int, bytes] | None:
        """Leave it to another process, without a word to the peer: a descriptor, which is the caller's to close, and
        what `resume` needs. None where that cannot be, over TLS or when answers are not there in time."""
        transport = self._transport
        found = transport.get_extra_info("socket") if transport is not None else None
        if transport is None or found is None or transport.get_extra_info("ssl_object") is not None:
            return None
        transport.pause_reading()
        end = self._loop.time() + timeout_s
        while (rest := self.session.rest()) is None or transport.get_write_buffer_size():
            if self._loop.time() > end or not self.bound or transport.is_closing():
                return None
            await asyncio.sleep(LOOK_S)
        number = os.dup(found.fileno())
        self.abort("left to another process")
        return number, msgspec.msgpack.encode(rest)

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_OCTETS)
        sock = transport.get_extra_info("socket")
        # uvloop shows a stand-in without setsockopt, and has set TCP_NODELAY itself
        if isinstance(sock, TransportSocket):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._handler.on_connected(self)
        self._flush()
        if self.before:
            data, self.before = self.before, b""
            self.data_received(data)

    def data_received(self, data: bytes) -> None:
        self._flush_due = True  # what the handler queues goes out below, in one write
        self._dispatch(self.session.receive(data, self._loop.time()))
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._dispatch(self.session.connection_lost(f"connection lost: {exc}" if exc else "closed by the peer"))
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        self._paused = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._flush_later()

    # --- inside

    def _dispatch(self, happened: list[events.Event]) -> None:
        for event in happened:
            try:
                self._handle(event)
            except Exception:
                # A fault in one handler must not take the other messages of this connection with it.
                logger.exception("SMPP handler failed on %s from %s", type(event).__name__, self.peer)
                if isinstance(event, events.RequestReceived):
                    self.session.respond(event.sequence, c.ESME_RSYSERR)

    def _handle(self, event: events.Event) -> None:
        kind = type(event)
        if kind is events.ResponseReceived or kind is events.RequestFailed:
            callback, context = event.token  # type: ignore[attr-defined]
            callback(context, event)
        elif isinstance(event, events.RequestReceived):
            self._handler.on_request(self, event.sequence, event.pdu)
        elif isinstance(event, events.BindRequested):
            self._handler.on_bind_request(self, event.sequence, event.pdu)
        elif isinstance(event, events.BindAnswered):
            self._handler.on_bind_answer(self, event.pdu)
        elif isinstance(event, events.Closed):
            self._ended(event.reason)
        elif isinstance(event, events.OutbindReceived | events.AlertReceived):
            self._handler.on_notice(self, event)

    def _ended(self, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(reason)
        if self._on_close is not None:
            self._on_close(self)
        self._handler.on_closed(self, reason)

    def _flush_later(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._starved and not self._paused and self.session.room > 0:
            self._starved = False
            self._flush_due = True
            self._notify_room()
        self._flush_due = False
        if self.gate is not None and not self.gate():
            self._held()
            return
        data = self.session.data_to_send()
        transport = self._transport
        if transport is None:
            return
        if data:
            transport.write(data)
        if self.session.dead:
            self.reset()
        elif self.session.state is State.CLOSED:
            transport.close()
            if transport.get_write_buffer_size():
                self._loop.call_later(CLOSE_TIMEOUT_S, transport.abort)
        else:
            self._arm()

    def _held(self) -> None:
        """Nothing may be written now: look again, and let a session that is over end without a word."""
        if self._transport is None:
            return
        if self.session.state is State.CLOSED:
            self._transport.abort()
            return
        self._arm()
        if not self._waits:
            self._waits = True
            self._loop.call_later(GATE_LOOK_S, self._look)

    def _look(self) -> None:
        self._waits = False
        self._flush_later()

    def _notify_room(self) -> None:
        try:
            self._handler.on_room(self)
        except Exception:
            logger.exception("SMPP handler failed on room from %s", self.peer)

    def _arm(self) -> None:
        """Have the timer set no later than the session wants; an early one sets itself again."""
        due = self.session.next_timeout()
        if due is None:
            return
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._flush_due = True
        self._dispatch(self.session.handle_timeout(self._loop.time()))
        self._starved = self._starved or self.session.silent  # whoever has found no room is told when that ends
        self._flush()


def _resolve(future: "asyncio.Future[Outcome]", outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)


class _BindWaiter(Handler):
    """Passes everything on, and completes a future with the bind's answer."""

    def __init__(self, inner: Handler, answered: "asyncio.Future[int]") -> None:
        self._inner = inner
        self._answered = answered
        self.on_connected = inner.on_connected  # type: ignore[method-assign]
        self.on_request = inner.on_request  # type: ignore[method-assign]
        self.on_room = inner.on_room  # type: ignore[method-assign]
        self.on_notice = inner.on_notice  # type: ignore[method-assign]
        self.on_closed = inner.on_closed  # type: ignore[method-assign]

    def on_bind_answer(self, connection: Connection, pdu: p.BindResp | p.GenericNack) -> None:
        if not self._answered.done():
            self._answered.set_result(pdu.status)
        self._inner.on_bind_answer(connection, pdu)


async def connect(
    host: str,
    port: int,
    bind: p.Bind,
    handler: Handler,
    *,
    limits: Limits | None = None,
    ssl: ssl_module.SSLContext | None = None,
    server_hostname: str | None = None,
    gate: Callable[[], bool] | None = None,
) -> Connection:
    """Connect as ESME and bind; the connection is bound when this returns. `gate`: see `Connection.gate`.

    Raises `ConnectError`, with the peer's status when the bind was refused. The bind timeout of `limits` covers
    connecting and binding each.
    """
    limits = limits or Limits()
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[int] = loop.create_future()
    try:
        async with asyncio.timeout(limits.bind_timeout_s):
            _, connection = await loop.create_connection(
                lambda: _gated(Connection(Role.ESME, _BindWaiter(handler, answered), limits), gate),
                host,
                port,
                ssl=ssl,
                server_hostname=server_hostname if ssl else None,
            )
    except (OSError, TimeoutError) as error:
        raise ConnectError(f"cannot connect to {host}:{port}: {error or 'timed out'}") from error
    try:
        connection.bind(bind)
        await asyncio.wait((answered, connection.closed), return_when=asyncio.FIRST_COMPLETED)
    except BaseException:
        connection.abort("bind given up")
        raise
    if not answered.done():
        raise ConnectError(f"bind to {host}:{port} failed: {connection.closed.result()}")
    status = answered.result()
    if not connection.bound:
        raise ConnectError(f"bind to {host}:{port} refused: {c.status_name(status)}", status)
    return connection


def _gated(connection: Connection, gate: Callable[[], bool] | None) -> Connection:
    connection.gate = gate
    return connection


async def resume(
    one: socket.socket,
    state: bytes,
    handler: Handler,
    limits: Limits | None = None,
    gate: Callable[[], bool] | None = None,
) -> Connection:
    """Go on, as ESME, with a connection that another process has let go of. Raises `ConnectError`, and closes it."""
    try:
        bound, sequence, rest = msgspec.msgpack.decode(state, type=tuple[str, int, bytes])
        connection = _gated(Connection(Role.ESME, handler, limits), gate)
        connection.session.resume(bound, sequence)
        connection.before = rest
        one.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, one)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        one.close()
        raise ConnectError(f"the connection of the process before cannot be gone on with: {error}") from None
    return connection


class Listener:
    """A listening socket in the SMSC role, and its connections."""

    def __init__(self, handler_for: Callable[[], Handler], limits: Limits | None, max_connections: int) -> None:
        self._handler_for = handler_for
        self._limits = limits
        self._max_connections = max_connections
        self._servers: list[asyncio.Server] = []
        self.connections: set[Connection] = set()

    @property
    def port(self) -> int:
        """The port it listens on."""
        if not self._servers or not self._servers[0].sockets:
            raise SessionStateError("not listening")
        return int(self._servers[0].sockets[0].getsockname()[1])

    async def start(
        self, host: str, port: int, ssl: ssl_module.SSLContext | None, given: Sequence[socket.socket] = ()
    ) -> None:
        loop = asyncio.get_running_loop()
        if given:
            self._servers = [await loop.create_server(self._accept, sock=one, ssl=ssl) for one in given]
        else:
            self._servers = [await loop.create_server(self._accept, host, port, ssl=ssl)]

    async def close(self, timeout_s: float = 5.0) -> None:
        """Stop listening, unbind every session, and abort those that are still there after `timeout_s`."""
        for server in self._servers:
            server.close()
        ending = [connection.closed for connection in self.connections]
        for connection in list(self.connections):
            connection.close()
        if ending:
            await asyncio.wait(ending, timeout=timeout_s)
        for connection in list(self.connections):
            connection.abort("listener closed")

    def _accept(self) -> Connection:
        full = len(self.connections) >= self._max_connections
        connection = Connection(Role.SMSC, _Turnaway() if full else self._handler_for(), self._limits)
        connection._on_close = self.connections.discard
        self.connections.add(connection)
        return connection


class _Turnaway(Handler):
    """For connections above the limit."""

    def on_connected(self, connection: Connection) -> None:
        connection.abort("too many connections")


async def listen(
    host: str,
    port: int,
    handler_for: Callable[[], Handler],
    *,
    limits: Limits | None = None,
    ssl: ssl_module.SSLContext | None = None,
    max_connections: int = MAX_CONNECTIONS,
    given: Sequence[socket.socket] = (),
) -> Listener:
    """Listen in the SMSC role; `handler_for()` makes the handler of each connection. `given`: sockets that listen
    already, instead of host and port."""
    listener = Listener(handler_for, limits, max_connections)
    await listener.start(host, port, ssl, given)
    return listener
