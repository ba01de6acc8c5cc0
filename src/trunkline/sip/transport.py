"""SIP over UDP and TCP on one port, and TLS on another: the I/O of this package (RFC 3261 section 18).

    datagram or bytes in -> Stack.receive; Stack's `send` -> datagram or bytes out; one timer for `Stack.tick`.

Sockets may be given, so that a supervisor keeps them open over a restart. A connection is used for everything to the
address that it was made to; connections that came in are used for what belongs to them. Everything a stranger can
make grow is bounded: connections, TLS handshakes, bytes that wait in either direction, look-ups and connections being
made. One connection is `trunkline.sip.transport_stream`; names are `trunkline.sip.resolve`'s.
"""

import asyncio
import logging
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from trunkline.sip.core import Core, StackConfig
from trunkline.sip.flow import DEFAULT_TLS_PORT, Address, Flow, Target, is_numeric
from trunkline.sip.handshakes import Handshakes
from trunkline.sip.resolve import Resolver
from trunkline.sip.stack import Stack
from trunkline.sip.tls import Certificate, TlsConfig, TlsContexts, TlsSession
from trunkline.sip.transport_dns import Names
from trunkline.sip.transport_sockets import V4_IN_V6, bind, bind_tls, connecting_from, plain_host, source_towards
from trunkline.sip.transport_stream import Connection

logger = logging.getLogger(__name__)

TOKEN_BYTES: Final = 10  # of randomness in each tag, branch and Call-ID
CONNECT_TIMEOUT_S: Final = 4.0  # for one address
CONNECT_TRIES: Final = 4  # addresses of one name that are tried
MAX_CONNECTING: Final = 256  # connections being made at once
MAX_WAITING_BYTES: Final = 256 * 1024  # for one connection being made, or one look-up
EVICT_IDLE_S: Final = 30.0  # idle time after which a connection gives way to another when there are too many
HOARD: Final = 4  # an address with more than one in so many of all connections is a hoarder when there are too many
SWEEP_S: Final = 10.0  # between looks for idle connections, and for those that need a ping
RELOAD_S: Final = 2.0  # between looks whether certificates have changed
MAX_NAMES: Final = 1000  # host names whose address is remembered
NAME_TTL_S: Final = 60.0  # for so long all goes to the same of a name's addresses
MAX_LOCALS: Final = 10_000  # peers for which our address is remembered
_OF_CALLS: Final = frozenset({b"SIP/", b"BYE ", b"ACK ", b"CANC", b"PRAC"})
_WILDCARDS: Final = frozenset({"0.0.0.0", "::", ""})  # noqa: S104


class Fence(Protocol):
    """Whether this host may still say anything (its lease on what it does)."""

    @property
    def open(self) -> bool:
        """Asked just before each send."""


@dataclass(frozen=True, slots=True)
class TransportLimits:
    """What the operator may set."""

    max_connections: int = 1000
    max_message_bytes: int = 64 * 1024


class SipTransport:
    """A `Stack` with its sockets. Make it, `await start(...)`, use `stack`, `await close()`."""

    def __init__(
        self,
        config: StackConfig,
        core: Core,
        limits: TransportLimits | None = None,
        tls: TlsConfig | None = None,
        dns_servers: Sequence[str] = (),
    ) -> None:
        """`tls`: how we show and prove identities; `dns_servers`: `address[:port]`, empty: the system's."""
        self.limits = limits or TransportLimits()
        self.tls = TlsContexts(tls or TlsConfig())
        self.stack = Stack(config, self._send, time.monotonic, lambda: secrets.token_hex(TOKEN_BYTES), core)
        self.stack.local = self._local
        self.stack.timers.earlier = self._arm
        self.host = ""
        self.port = 0
        self.tls_port = 0
        """0: TLS is not listened for."""
        self.admits: Callable[[str], bool] = lambda host: True
        """Whether a connection from an address is accepted at all; asked before a byte is read."""
        self.refuses: Callable[[str], bool] = lambda host: False
        """Whether datagrams from an address are dropped unread, but for responses and what ends or confirms calls."""
        self.fence: Fence | None = None
        """What closes when this host may send nothing more; messages are dropped then, and counted (`fenced`)."""
        self._loop: asyncio.AbstractEventLoop = cast(asyncio.AbstractEventLoop, None)
        self._udp: asyncio.DatagramTransport | None = None
        self._family = socket.AF_INET
        self._servers: list[asyncio.Server] = []
        self.resolver = Resolver(Names(dns_servers, lambda: self._family), time.monotonic)
        self._names = _Names(self.resolver)
        self._locals: dict[str, str] = {}
        self._last_id = time.time_ns() >> 8  # stored flows of a process before this one name no connection of ours
        self._connections: dict[int, Connection] = {}
        self._outgoing: dict[_Path, Connection] = {}
        self._shaking: dict[Connection, None] = {}
        self._handshakes = Handshakes()
        self._held: dict[Flow, int] = {}
        self._waiting: dict[_Path, list[tuple[bytes, Flow]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._sweeper: asyncio.TimerHandle | None = None
        self._reloader: asyncio.TimerHandle | None = None

    # --- for the owner

    async def start(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        tls_port: int | None = None,
        udp_socket: socket.socket | None = None,
        tcp_socket: socket.socket | None = None,
        tls_socket: socket.socket | None = None,
    ) -> None:
        """Listen; given sockets (bound, those of TCP and TLS listening) are taken over. `tls_port` None: no TLS is
        listened for, unless a socket is given. Raises OSError; TlsError where certificates cannot be used."""
        self._loop = asyncio.get_running_loop()
        if tls_port is not None and self.tls.server is None:
            self.tls.load()
        if udp_socket is None or tcp_socket is None:
            udp_socket, tcp_socket = bind(host, port)
        if tls_socket is None and tls_port is not None:
            tls_socket = bind_tls(host, tls_port)
        self.host, self.port = udp_socket.getsockname()[:2]
        self._family = udp_socket.family
        for one in (udp_socket, tcp_socket, tls_socket):
            if one is not None:
                one.setblocking(False)
        if tls_socket is not None:
            self.tls_port = tls_socket.getsockname()[1]
            await self._listen_tls(tls_socket)
        transport, _ = await self._loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=udp_socket)
        self._udp = transport
        self._servers.append(await self._loop.create_server(self._accept, sock=tcp_socket))
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        due = self.stack.timers.due()
        if due is not None:
            self._arm(due)

    async def close(self) -> None:
        """Close all sockets and connections. What a supervisor holds of them stays open there."""
        for handle in (self._timer, self._sweeper, self._reloader):
            if handle is not None:
                handle.cancel()
        self.stack.timers.earlier = None
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for server in self._servers:
            server.close()
        if self._udp is not None:
            self._udp.close()
            self._udp = None
        connections = [*self._connections.values(), *self._shaking]
        for connection in connections:
            connection.abort()
        if connections:
            await asyncio.wait([connection.closed for connection in connections])
        await asyncio.sleep(0)

    @property
    def connections(self) -> int:
        """TCP and TLS connections that stand."""
        return len(self._connections)

    @property
    def handshakes(self) -> int:
        """TLS connections that do not stand yet."""
        return len(self._shaking)

    def established(self) -> list[Connection]:
        """The connections that stand."""
        return list(self._connections.values())

    def disown(self, connection: Connection) -> None:
        """It is another process's from now on: its end here is nobody's concern."""
        self._connections.pop(connection.id, None)
        connection.abort()

    def made(self, target: Flow, connection: Connection) -> None:
        """There is a connection to a target."""
        self._outgoing[_path(target)] = connection

    def peer_certificate(self, flow: Flow) -> Certificate | None:
        """Who the peer of a TLS connection has proved to be; None if it did not, or the connection is gone."""
        connection = self._connections.get(flow.id)
        return None if connection is None else connection.certificate

    def hold(self, flow: Flow) -> None:
        """Keep the connection of a flow alive by pings (RFC 5626 section 3.5.1) until `release`; those of dialogs are
        in any case. A flow with id 0 means the connection that is made to it."""
        self._held[flow] = self._held.get(flow, 0) + 1

    def release(self, flow: Flow) -> None:
        """The end of one `hold`."""
        count = self._held.pop(flow, 0)
        if count > 1:
            self._held[flow] = count - 1

    async def resolve(self, host: str, port: int | None, transport: str = "", secure: bool = False) -> list[Target]:
        """Where a request goes, best first (see `Resolver.resolve`). Raises OSError for a name that is unknown."""
        return await self.resolver.resolve(host, port, transport, secure)

    def local_address_towards(self, host: str) -> str:
        """The address by which a peer (numeric) reaches us: the one we are bound to, or, if that is a wildcard, the
        one the system would send from."""
        if self.host not in _WILDCARDS:
            return self.host
        known = self._locals.get(host)
        if known is None:
            if len(self._locals) >= MAX_LOCALS:
                self._locals.clear()
            known = self._locals[host] = source_towards(host)
        return known

    async def flow_to(self, transport: str, host: str, port: int) -> Flow:
        """The flow to a target, its name resolved; raises OSError for a name that is unknown."""
        domain = host if transport == "TLS" and not is_numeric(host) else ""
        if not is_numeric(host):
            host, port = await self._names.find((host, port), transport or "UDP")
        return Flow(transport or "UDP", (host, port), self._local(transport, host), 0, domain)

    # --- sending

    def _local(self, transport: str, host: str) -> Address:
        numeric = host if is_numeric(host) else self._names.address(host)
        return self.local_address_towards(numeric), self.local_port(transport)

    @property
    def fenced(self) -> bool:
        """See Owner."""
        if self.fence is None or self.fence.open:
            return False
        self.stack.count("fenced")
        return True

    def local_port(self, transport: str) -> int:
        """The port that our Via and Contact name. Without a listener for TLS a peer has to keep the connection."""
        return (self.tls_port or DEFAULT_TLS_PORT) if transport == "TLS" else self.port

    def _send(self, data: bytes, flow: Flow) -> bool:
        if flow.transport == "UDP":
            return self._send_datagram(data, flow)
        if flow.transport not in ("TCP", "TLS"):
            return False
        connection = self._connections.get(flow.id) if flow.id else self._outgoing.get(_path(flow))
        if connection is not None:
            return connection.write(data)
        return False if flow.id else self._send_later(data, flow, self._connect)

    def _send_datagram(self, data: bytes, flow: Flow) -> bool:
        remote: Address | None = flow.remote
        if not is_numeric(flow.remote[0]):
            remote = self._names.known(flow.remote, "UDP")
        if remote is None:
            return self._send_later(data, flow, self._look_up)
        if self._udp is None or self._leads_inside(flow, remote):
            return False
        if self.fence is not None and self.fenced:
            return True  # lost on the way, for all that those inside know
        try:
            self._udp.sendto(data, self._reachable(remote))
        except (OSError, ValueError):
            return False
        return True

    def _leads_inside(self, flow: Flow, remote: Address) -> bool:
        """Whether a name that a peer outside has named is that of an address inside."""
        inside = flow.outside and self.stack.is_inside(flow.remote[0], remote[0])
        if inside:
            self.stack.count("aimed_inside")
        return inside

    def _reachable(self, remote: Address) -> Address:
        """An address as our kind of socket takes it."""
        if self._family == socket.AF_INET6 and ":" not in remote[0]:
            return V4_IN_V6 + remote[0], remote[1]
        return remote

    def _send_later(self, data: bytes, flow: Flow, how: Callable[[Flow], Any]) -> bool:
        """Keep bytes until a look-up or connection is done; the first of a target starts it."""
        key = _path(flow)
        waiting = self._waiting.get(key)
        if waiting is None:
            if len(self._waiting) >= MAX_CONNECTING or self._udp is None:
                return False
            self._waiting[key] = [(data, flow)]
            task = self._loop.create_task(how(flow))
            self._tasks.add(task)
            task.add_done_callback(lambda done: self._ended(done, flow))
            return True
        if sum(len(one) for one, _ in waiting) + len(data) > MAX_WAITING_BYTES:
            return False
        waiting.append((data, flow))
        return True

    def _ended(self, task: "asyncio.Task[None]", flow: Flow) -> None:
        """A look-up or connection is done, one way or another: its place must be free again."""
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("cannot reach %s:%s over %s", *flow.remote, flow.transport, exc_info=task.exception())
            self._go_on(flow, False)

    def _go_on(self, flow: Flow, works: bool) -> None:
        """A look-up or connection is done."""
        for data, waited in self._waiting.pop(_path(flow), ()):
            if works:
                self._send(data, waited)
        if not works:
            self.stack.flow_closed(flow)

    async def _look_up(self, flow: Flow) -> None:
        try:
            remote = await self._names.find(flow.remote, "UDP")
        except (OSError, ValueError) as error:  # a name that no resolver takes is a ValueError
            logger.warning("cannot resolve %s: %s", flow.remote[0], error)
            self._go_on(flow, False)
        else:
            self._go_on(flow, not self._leads_inside(flow, remote))

    async def _connect(self, flow: Flow) -> None:
        """Connect, to one address of a name after the other (RFC 3263 section 4.3)."""
        connection, why = None, "no address"
        try:
            remotes = [flow.remote]
            if not is_numeric(flow.remote[0]):
                found = await self._names.all(flow.remote, flow.transport)
                remotes = [(one.host, one.port) for one in found[:CONNECT_TRIES]]
                remotes = [one for one in remotes if not self._leads_inside(flow, one)]
            for remote in remotes:
                connection, why = await self._connect_to(flow, remote)
                if connection is not None:
                    break
        except (OSError, ValueError) as error:
            why = str(error)
        if connection is not None and self._connections.get(connection.id) is not connection:
            connection, why = None, "closed at once"  # with its handshake, before this task went on
        if connection is None:
            logger.info("cannot connect to %s:%s over %s: %s", *flow.remote, flow.transport, why)
            self._go_on(flow, False)
            return
        self._outgoing[_path(flow)] = connection
        self._go_on(flow, True)

    async def _connect_to(self, flow: Flow, remote: Address) -> tuple[Connection | None, str]:
        """One address; why not, if not."""
        connection: Connection | None = None

        def make() -> Connection:
            nonlocal connection
            name, session = flow.domain or flow.remote[0], None
            if flow.transport == "TLS":
                session = TlsSession(self.tls.client, server=False, name=name)
            connection = Connection(self, self.limits.max_message_bytes, flow, session)
            return connection

        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                if len(self._connections) >= self.limits.max_connections and not self._evict():
                    return None, "too many connections"
                ours = connecting_from(self.host, remote[0])
                _, made = await self._loop.create_connection(make, *self._reachable(remote), local_addr=ours)
                if await asyncio.shield(made.ready):
                    return made, ""
                return None, made.trouble or "closed at once"
        except TimeoutError:
            why = "timed out"
        except (OSError, ValueError) as error:
            why = str(error)
        if connection is not None:
            connection.abort()
        return None, why

    # --- receiving

    def received_datagram(self, data: bytes, address: tuple[Any, ...]) -> None:
        """Called with each datagram."""
        if len(data) <= 4 and not data.strip(b"\r\n\0"):
            return  # keep-alive of a phone behind a NAT
        host = plain_host(address[0])
        if self.refuses(host) and data[:4] not in _OF_CALLS:
            self.stack.count("banned")
            return
        self.stack.receive(data, Flow("UDP", (host, address[1]), (self.local_address_towards(host), self.port)))

    def _accept(self) -> Connection:
        return Connection(self, self.limits.max_message_bytes)

    async def _listen_tls(self, listening: socket.socket) -> None:
        """Take connections, and look after the certificates."""
        self._servers.append(await self._loop.create_server(self._accept_tls, sock=listening))
        self._reloader = self._loop.call_later(RELOAD_S, self._reload)

    def _accept_tls(self) -> asyncio.Protocol:
        context = self.tls.server
        if context is None:
            return _Deaf()
        return Connection(self, self.limits.max_message_bytes, None, TlsSession(context, server=True))

    def _reload(self) -> None:
        self.tls.refresh()
        self._reloader = self._loop.call_later(RELOAD_S, self._reload)

    def shaking(self, connection: Connection, *, begins: bool) -> bool:
        """See Owner. A flood of handshakes that get nowhere ends the oldest of them: an honest one is quick."""
        if not begins:
            self._shaking.pop(connection, None)
            self._handshakes.end(connection)
            return True
        if connection.target is None:
            if not self._handshakes.begin(connection, self._loop.time()):
                return False
            oldest = self._handshakes.crowded()
            if oldest is not None:
                self.stack.count("tls_evicted")
                self._handshakes.end(oldest)
                oldest.abort()
        self._shaking[connection] = None
        return True

    def opened(self, connection: Connection) -> int:
        """See Owner."""
        if len(self._connections) >= self.limits.max_connections and not self._evict(connection.network):
            self.stack.count("connections_refused")
            return 0
        self._last_id += 1
        number = connection.former or self._last_id
        self._connections[number] = connection
        return number

    def gone(self, connection: Connection) -> None:
        """See Owner."""
        if self._connections.pop(connection.id, None) is None:
            return
        self.stack.flow_closed(connection.flow)
        target = connection.target
        if target is not None and self._outgoing.get(_path(target)) is connection:
            del self._outgoing[_path(target)]
            self.stack.flow_closed(target)

    def _evict(self, comer: str = "") -> bool:
        """Make room for a connection from a network: the one that has been idle longest gives way. Where one network
        hoards them it is one of those, at once for somebody else. False if there is none."""
        held = Counter(each.network for each in self._connections.values() if each.target is None)
        hoarder, count = max(held.items(), key=lambda one: one[1], default=("", 0))
        hoards = count > max(1, self.limits.max_connections // HOARD)
        used = self.stack.flows_of_dialogs() if hoards else ()
        found = [each for each in self._connections.values() if not hoards or each.network == hoarder]
        oldest = min(found, key=lambda each: (each.id in used, each.heard_at), default=None)
        if oldest is None:
            return False
        at_once = hoards and hoarder != comer and oldest.id not in used
        if not at_once and self._loop.time() - oldest.heard_at < EVICT_IDLE_S:
            return False
        self.stack.count("connections_evicted")
        oldest.abort()
        self.gone(oldest)
        return True

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in list(self._connections.values()):
            if connection.overdue(now):
                connection.abort()
        for connection in self._used():
            connection.keep_alive(now)
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def _used(self) -> list[Connection]:
        """The connections that we made and that a call or registration needs."""
        if not self._outgoing:
            return []
        ids = self.stack.flows_of_dialogs() | {flow.id for flow in self._held if flow.id}
        paths = {_path(flow) for flow in self._held if not flow.id}
        return [each for path, each in self._outgoing.items() if each.id in ids or path in paths]

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


class _Deaf(asyncio.Protocol):
    """A TLS connection that comes while there is no certificate to show."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()


class _Names:
    """The address that a name stands for, remembered for a while: what belongs together goes to one of them."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._found: dict[tuple[Address, str], tuple[Address, float]] = {}
        self._hosts: dict[str, str] = {}

    def known(self, remote: Address, transport: str) -> Address | None:
        """The address, if it is remembered."""
        found = self._found.get((remote, transport))
        return found[0] if found is not None and found[1] > time.monotonic() else None

    def address(self, host: str) -> str:
        """One of a name's addresses, if any was found lately; else empty."""
        return self._hosts.get(host, "")

    async def find(self, remote: Address, transport: str) -> Address:
        """The address; raises OSError."""
        return self.known(remote, transport) or (await self.all(remote, transport))[0][1:3]

    async def all(self, remote: Address, transport: str) -> list[Target]:
        """All of them, the preferred one first, which is remembered; raises OSError."""
        targets = await self._resolver.resolve(remote[0], remote[1] or None, transport)
        if not targets:
            raise OSError(f"{remote[0]} has no address")
        if len(self._found) >= MAX_NAMES:
            self._found.clear()
            self._hosts.clear()
        first = targets[0]
        self._found[remote, transport] = (first.host, first.port), time.monotonic() + NAME_TTL_S
        self._hosts[remote[0]] = first.host
        return targets


def _path(flow: Flow) -> "_Path":
    """What tells one connection of ours, or one look-up, from another."""
    return flow.transport, flow.remote, flow.domain, flow.outside


_Path = tuple[str, Address, str, bool]
