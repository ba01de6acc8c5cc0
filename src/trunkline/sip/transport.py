"""SIP over UDP and TCP on one port: the only I/O of this package (RFC 3261 section 18).

    datagram or bytes in -> Stack.receive; Stack's `send` -> datagram or bytes out; one timer for `Stack.tick`.

Sockets may be given, so that a supervisor keeps them open over a restart. A TCP connection is used for everything to
the address that it was made to; connections that came in are used for what belongs to them. Everything a stranger can
make grow is bounded: connections, bytes that wait in either direction, look-ups and connections being made.
"""

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from trunkline.sip.core import Core, StackConfig
from trunkline.sip.flow import Address, Flow, is_numeric
from trunkline.sip.stack import Stack
from trunkline.sip.stream import PONG, Keepalive, StreamParser

logger = logging.getLogger(__name__)

TOKEN_BYTES: Final = 10  # of randomness in each tag, branch and Call-ID
RECEIVE_BUFFER_BYTES: Final = 8 * 1024 * 1024  # of the UDP socket
BIND_ATTEMPTS: Final = 20  # to find a port that is free for both UDP and TCP
BACKLOG: Final = 1024  # TCP connections not yet accepted
CONNECT_TIMEOUT_S: Final = 4.0
MAX_CONNECTING: Final = 256  # connections being made at once
MAX_WAITING_BYTES: Final = 256 * 1024  # for one connection being made, or one look-up
WRITE_BUFFER_BYTES: Final = 256 * 1024  # unsent; a peer that does not read loses its connection
PARTIAL_S: Final = 30.0  # how long a message may take to come in whole, and a new connection to bring one
IDLE_S: Final = 5 * 3600.0  # longer than the longest call, which may be silent in between
EVICT_IDLE_S: Final = 30.0  # idle time after which a connection gives way to another when there are too many
SWEEP_S: Final = 10.0  # between looks for idle connections
MAX_NAMES: Final = 1000  # host names whose address is remembered
NAME_TTL_S: Final = 60.0
MAX_LOCALS: Final = 10_000  # peers for which our address is remembered
_SO_RCVBUFFORCE: Final = 33
_WILDCARDS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104
_V4_IN_V6: Final = "::ffff:"


@dataclass(frozen=True, slots=True)
class TransportLimits:
    """What the operator may set."""

    max_connections: int = 1000
    max_message_bytes: int = 64 * 1024


def bind(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A UDP and a listening TCP socket on one port; 0: any that is free. Raises OSError."""
    family = socket.getaddrinfo(host or None, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)[0][0]
    for attempt in range(BIND_ATTEMPTS):
        udp = socket.socket(family, socket.SOCK_DGRAM)
        tcp = socket.socket(family, socket.SOCK_STREAM)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            udp.bind((host, port))
            tcp.bind((host, udp.getsockname()[1]))
            tcp.listen(BACKLOG)
        except OSError:
            udp.close()
            tcp.close()
            if port or attempt == BIND_ATTEMPTS - 1:
                raise
            continue
        _widen(udp)
        return udp, tcp
    raise OSError("no port is free for UDP and TCP")


def _widen(udp: socket.socket) -> None:
    """Let a burst wait in the kernel; without the privilege as much as it allows."""
    for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
        try:
            udp.setsockopt(socket.SOL_SOCKET, option, RECEIVE_BUFFER_BYTES)
        except OSError:
            continue
        return


class SipTransport:
    """A `Stack` with its sockets. Make it, `await start(...)`, use `stack`, `await close()`."""

    def __init__(self, config: StackConfig, core: Core, limits: TransportLimits | None = None) -> None:
        self.limits = limits or TransportLimits()
        self.stack = Stack(config, self._send, time.monotonic, lambda: secrets.token_hex(TOKEN_BYTES), core)
        self.stack.local = self._local
        self.stack.timers.earlier = self._arm
        self.host = ""
        self.port = 0
        self._loop: asyncio.AbstractEventLoop = cast(asyncio.AbstractEventLoop, None)
        self._udp: asyncio.DatagramTransport | None = None
        self._family = socket.AF_INET
        self._server: asyncio.Server | None = None
        self._names = _Names()
        self._locals: dict[str, str] = {}
        self._last_id = time.time_ns() >> 8  # stored flows of a process before this one name no connection of ours
        self._connections: dict[int, _Connection] = {}
        self._outgoing: dict[Address, _Connection] = {}
        self._waiting: dict[tuple[str, Address], list[tuple[bytes, Flow]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._sweeper: asyncio.TimerHandle | None = None

    # --- for the owner

    async def start(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        udp_socket: socket.socket | None = None,
        tcp_socket: socket.socket | None = None,
    ) -> None:
        """Listen; given sockets (bound, the TCP one listening) are taken over. Raises OSError."""
        self._loop = asyncio.get_running_loop()
        if udp_socket is None or tcp_socket is None:
            udp_socket, tcp_socket = bind(host, port)
        udp_socket.setblocking(False)
        tcp_socket.setblocking(False)
        self.host, self.port = udp_socket.getsockname()[:2]
        self._family = udp_socket.family
        transport, _ = await self._loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=udp_socket)
        self._udp = transport
        self._server = await self._loop.create_server(lambda: _Connection(self), sock=tcp_socket)
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        due = self.stack.timers.due()
        if due is not None:
            self._arm(due)

    async def close(self) -> None:
        """Close all sockets and connections. What a supervisor holds of them stays open there."""
        for handle in (self._timer, self._sweeper):
            if handle is not None:
                handle.cancel()
        self.stack.timers.earlier = None
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._server is not None:
            self._server.close()
        if self._udp is not None:
            self._udp.close()
            self._udp = None
        closing = [connection.closed for connection in self._connections.values()]
        for connection in list(self._connections.values()):
            connection.abort()
        if closing:
            await asyncio.wait(closing)
        await asyncio.sleep(0)

    @property
    def connections(self) -> int:
        """TCP connections that stand."""
        return len(self._connections)

    def local_address_towards(self, host: str) -> str:
        """The address by which a peer (numeric) reaches us: the one we are bound to, or, if that is a wildcard, the
        one the system would send from."""
        if self.host not in _WILDCARDS:
            return self.host
        known = self._locals.get(host)
        if known is None:
            if len(self._locals) >= MAX_LOCALS:
                self._locals.clear()
            known = self._locals[host] = _source_towards(host)
        return known

    async def flow_to(self, transport: str, host: str, port: int) -> Flow:
        """The flow to a target, its name resolved; raises OSError for a name that is unknown."""
        if not is_numeric(host):
            host = await self._names.find(self._loop, host, self._family)
        return Flow(transport or "UDP", (host, port), self._local(transport, host))

    # --- sending

    def _local(self, transport: str, host: str) -> Address:
        numeric = host if is_numeric(host) else self._names.known(host) or ""
        return self.local_address_towards(numeric), self.port

    def _send(self, data: bytes, flow: Flow) -> bool:
        if flow.transport == "UDP":
            return self._send_datagram(data, flow)
        if flow.transport != "TCP":
            return False
        connection = self._connections.get(flow.id) if flow.id else self._outgoing.get(flow.remote)
        if connection is not None:
            return connection.write(data)
        return False if flow.id else self._send_later(data, flow, self._connect)

    def _send_datagram(self, data: bytes, flow: Flow) -> bool:
        host, port = flow.remote
        if not is_numeric(host):
            address = self._names.known(host)
            if address is None:
                return self._send_later(data, flow, self._look_up)
            host = address
        if self._family == socket.AF_INET6 and ":" not in host:
            host = _V4_IN_V6 + host
        if self._udp is None:
            return False
        try:
            self._udp.sendto(data, (host, port))
        except (OSError, ValueError):
            return False
        return True

    def _send_later(self, data: bytes, flow: Flow, how: Callable[[Flow], Any]) -> bool:
        """Keep bytes until a look-up or connection is done; the first of a target starts it."""
        key = flow.transport, flow.remote
        waiting = self._waiting.get(key)
        if waiting is None:
            if len(self._waiting) >= MAX_CONNECTING or self._udp is None:
                return False
            self._waiting[key] = [(data, flow)]
            task = self._loop.create_task(how(flow))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return True
        if sum(len(one) for one, _ in waiting) + len(data) > MAX_WAITING_BYTES:
            return False
        waiting.append((data, flow))
        return True

    def _go_on(self, flow: Flow, works: bool) -> None:
        """A look-up or connection is done."""
        for data, waited in self._waiting.pop((flow.transport, flow.remote), ()):
            if works:
                self._send(data, waited)
        if not works:
            self.stack.flow_closed(flow)

    async def _look_up(self, flow: Flow) -> None:
        try:
            await self._names.find(self._loop, flow.remote[0], self._family)
        except OSError as error:
            logger.warning("cannot resolve %s: %s", flow.remote[0], error)
            self._go_on(flow, False)
        else:
            self._go_on(flow, True)

    async def _connect(self, flow: Flow) -> None:
        host, port = flow.remote
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                if not is_numeric(host):
                    host = await self._names.find(self._loop, host, self._family)
                if len(self._connections) >= self.limits.max_connections and not self._evict():
                    raise OSError("too many connections")
                _, connection = await self._loop.create_connection(lambda: _Connection(self, flow), host, port)
        except (OSError, TimeoutError) as error:
            logger.info("cannot connect to %s:%s: %s", host, port, error or "timed out")
            self._go_on(flow, False)
            return
        if connection.id:
            self._outgoing[flow.remote] = connection
        self._go_on(flow, bool(connection.id))

    # --- receiving

    def received_datagram(self, data: bytes, address: tuple[Any, ...]) -> None:
        """Called with each datagram."""
        if len(data) <= 4 and not data.strip(b"\r\n\0"):
            return  # keep-alive of a phone behind a NAT
        host = _plain(address[0])
        self.stack.receive(data, Flow("UDP", (host, address[1]), (self.local_address_towards(host), self.port)))

    def opened(self, connection: "_Connection") -> int:
        """A connection stands: its number, or 0 when there are too many."""
        if len(self._connections) >= self.limits.max_connections and not self._evict():
            self.stack.count("connections_refused")
            return 0
        self._last_id += 1
        self._connections[self._last_id] = connection
        return self._last_id

    def gone(self, connection: "_Connection") -> None:
        """A connection closed."""
        if self._connections.pop(connection.id, None) is None:
            return
        self.stack.flow_closed(connection.flow)
        target = connection.target
        if target is not None and self._outgoing.get(target.remote) is connection:
            del self._outgoing[target.remote]
            self.stack.flow_closed(target)

    def _evict(self) -> bool:
        """Close the connection that has been idle longest; False if all are in use."""
        oldest = min(self._connections.values(), key=lambda each: each.heard_at, default=None)
        if oldest is None or self._loop.time() - oldest.heard_at < EVICT_IDLE_S:
            return False
        oldest.abort()
        self.gone(oldest)
        return True

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in list(self._connections.values()):
            if connection.overdue(now):
                connection.abort()
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    # --- the timer

    def _arm(self, due: float) -> None:
        """Have `tick` called no later than `due`; an earlier one sets itself again."""
        if self._timer is not None:
            if self._timer_due <= due:
                return
            self._timer.cancel()
        if self._loop is not None:
            self._timer_due = due
            self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.stack.tick()
        due = self.stack.timers.due()
        if due is not None:
            self._arm(due)


class _Datagrams(asyncio.DatagramProtocol):
    """The UDP socket."""

    def __init__(self, owner: SipTransport) -> None:
        self._owner = owner

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._owner.received_datagram(data, addr)

    def error_received(self, exc: Exception) -> None:
        # An ICMP error does not say which datagram it is about; timers tell the transaction.
        self._owner.stack.count("datagram_errors")


class _Connection(asyncio.Protocol):
    """One TCP connection. `target` is the flow that it was made for, None if it came in."""

    def __init__(self, owner: SipTransport, target: Flow | None = None) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._parser = StreamParser(owner.limits.max_message_bytes)
        self._transport: asyncio.Transport | None = None
        self._partial_since = self.heard_at = self._loop.time()
        self._partial = True  # nothing whole has come yet
        self.target = target
        self.id = 0
        self.flow = cast(Flow, None)
        self.closed: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.id = self._owner.opened(self)
        if not self.id:
            self._transport.abort()
            return
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if peer is None or own is None:  # it closed while it was accepted
            self._transport.abort()
            peer = own = ("", 0)
        local = (_plain(own[0]), self._owner.port)
        self.flow = Flow("TCP", (_plain(peer[0]), peer[1]), local, self.id)

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        stack, flow, parser = self._owner.stack, self.flow, self._parser
        for item in parser.feed(data):
            if isinstance(item, Keepalive):
                self.write(PONG)
            else:
                stack.receive(item, flow)
        if parser.failed and self._transport is not None:
            self._transport.close()
        partial = parser.held > 0
        if partial and not self._partial:
            self._partial_since = self.heard_at
        self._partial = partial

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.id:
            self._owner.gone(self)
        if not self.closed.done():
            self.closed.set_result(None)

    def write(self, data: bytes) -> bool:
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        transport.write(data)
        if transport.get_write_buffer_size() > WRITE_BUFFER_BYTES:
            self._owner.stack.count("connections_stuck")
            transport.abort()
        return True

    def overdue(self, now: float) -> bool:
        """Whether it is idle, or a message has been coming in for too long."""
        waits = self.target is None or self._parser.held > 0
        return now - self.heard_at > IDLE_S or (self._partial and waits and now - self._partial_since > PARTIAL_S)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class _Names:
    """Addresses of host names, remembered for a while."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, float]] = {}

    def known(self, name: str) -> str | None:
        """The address, if it is remembered."""
        found = self._found.get(name)
        return found[0] if found is not None and found[1] > time.monotonic() else None

    async def find(self, loop: asyncio.AbstractEventLoop, name: str, family: int) -> str:
        """The address; raises OSError."""
        known = self.known(name)
        if known is not None:
            return known
        flags = socket.AI_V4MAPPED if family == socket.AF_INET6 else 0
        try:
            found = await loop.getaddrinfo(name, None, family=family, type=socket.SOCK_DGRAM, flags=flags)
        except UnicodeError as error:
            raise OSError(f"no host name: {name}") from error
        address = _plain(str(found[0][4][0]))
        if len(self._found) >= MAX_NAMES:
            self._found.clear()
        self._found[name] = (address, time.monotonic() + NAME_TTL_S)
        return address


def _plain(host: str) -> str:
    """An IPv4 address as itself, also where an IPv6 socket shows it."""
    return host[len(_V4_IN_V6) :] if host.startswith(_V4_IN_V6) and "." in host else host


def _source_towards(host: str) -> str:
    """The address that the system sends from to `host`; nothing is sent."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((host or "192.0.2.1", 9))
            return str(probe.getsockname()[0])
    except OSError:
        return "::1" if family == socket.AF_INET6 else "127.0.0.1"
