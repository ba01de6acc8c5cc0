"""The HTTP/1.1 client behind webhooks: kept-alive connections, exact timeouts, pinned addresses, bounds.

Why not a general client: two callbacks go out per message, and a general client costs three times the CPU; and
connections must go to the address the guard has checked, whatever the name resolves to by then.

    client = Client()
    origin = Origin("https", "example.com", 443, address)
    exchange = client.request_nowait(origin, build_request("POST", "/sms", "example.com", headers, body), on_done)
    response = await client.request(origin, payload)

Connections are pooled by Origin. A request that finds none free opens one, up to `max_per_host`, and `max_total`
over all hosts (an idle connection elsewhere is closed to make room); then it waits, in a bounded line. A request is
repeated by itself in one case only: a connection kept alive died before the first byte of the answer.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple

from trunkline.webhooks.connection import Connection, Exchange, OnDone, Response, Timeouts
from trunkline.webhooks.failures import (
    Closed,
    ConnectionFailed,
    ConnectTimeout,
    Failure,
    InvalidUrl,
    Saturated,
    TlsFailed,
    TotalTimeout,
    tls_failure,
)
from trunkline.webhooks.tls import CERTIFICATE_DOMAIN, context, matches

MAX_BODY_BYTES: Final = 64 * 1024
MAX_PER_HOST: Final = 64  # connections to one origin
MAX_TOTAL: Final = 1024  # connections
MAX_WAITING_PER_HOST: Final = 4096  # requests
MAX_WAITING: Final = 16_384  # requests
IDLE_S: Final = 15.0
DEFAULT_TIMEOUTS: Final = Timeouts()

_UNSAFE_NAME: Final = re.compile(r"[^!#$%&'*+.^_`|~0-9A-Za-z-]")
_UNSAFE_VALUE: Final = re.compile(r"[^\t\x20-\x7e]")
_UNSAFE_TARGET: Final = re.compile(r"[^\x21-\x7e]")


class Origin(NamedTuple):
    """Where a connection goes. `address` is the checked one; `host` is for SNI and the certificate."""

    scheme: str
    host: str
    port: int
    address: str
    sni: bool = True
    verify: bool = True


def build_request(
    method: str, path: str, host_header: str, headers: Iterable[tuple[str, str]], body: bytes = b""
) -> bytes:
    """The bytes of a request. Content-Length is added where there is a body or the method is POST.

    Raises InvalidUrl when something could end its line: nothing a customer writes may add a header.
    """
    if _UNSAFE_TARGET.search(path) or _UNSAFE_TARGET.search(host_header):
        raise InvalidUrl("the URL holds a character that cannot be sent")
    lines = [f"{method} {path} HTTP/1.1\r\nHost: {host_header}\r\n"]
    for name, value in headers:
        if _UNSAFE_NAME.search(name) or _UNSAFE_VALUE.search(value):
            raise InvalidUrl(f"the header {name[:40]!r} cannot be sent")
        lines.append(f"{name}: {value}\r\n")
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1") + body


class _Pool:
    """The connections of one origin. `open` counts those being opened too."""

    __slots__ = ("idle", "open", "origin", "waiting")

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.idle: list[Connection] = []
        self.open = 0
        self.waiting: OrderedDict[Exchange, None] = OrderedDict()


class Client:
    """See the module. Belongs to the event loop it is first used on; `close()` ends it."""

    def __init__(
        self,
        *,
        max_per_host: int = MAX_PER_HOST,
        max_total: int = MAX_TOTAL,
        max_waiting_per_host: int = MAX_WAITING_PER_HOST,
        max_waiting: int = MAX_WAITING,
        idle_s: float = IDLE_S,
        ca_data: str | None = None,
    ) -> None:
        """`ca_data` holds further trusted certificates (PEM) beside the system's."""
        self._max_per_host = max_per_host
        self._max_total = max_total
        self._max_waiting_per_host = max_waiting_per_host
        self._max_waiting = max_waiting
        self._idle_s = idle_s
        self._ca_data = ca_data
        self._pools: dict[Origin, _Pool] = {}
        self._pool_of: dict[Connection, _Pool] = {}
        self._idle: dict[Connection, None] = {}  # the longest idle first
        self._open = 0
        self._waiting = 0
        self._opening: dict[asyncio.Task[None], Exchange] = {}
        self._starved: dict[Origin, None] = {}  # pools that wait for max_total, in order
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._all_lost = asyncio.Event()  # set once closed and every connection has ended

    def request_nowait(
        self,
        origin: Origin,
        payload: bytes,
        on_done: OnDone,
        *,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        max_body_bytes: int = MAX_BODY_BYTES,
        truncate: bool = False,
    ) -> Exchange:
        """Start a request; `on_done(Response | Failure)` is called once, later, from the event loop.

        `payload` is the whole request (see build_request). With `truncate` a longer body is cut at the limit
        instead of failing.
        """
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        exchange = Exchange(self, payload, on_done, timeouts, max_body_bytes, truncate, loop.time())
        if self._closed:
            loop.call_soon(exchange.finish, Closed("the HTTP client is closed"), loop)
            return exchange
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = _Pool(origin)
        exchange.pool = pool
        while pool.idle:
            connection = pool.idle.pop()
            del self._idle[connection]
            if connection.transport is not None and not connection.transport.is_closing():
                connection.begin(exchange)
                return exchange
        self._open_or_wait(pool, exchange)
        return exchange

    async def request(
        self,
        origin: Origin,
        payload: bytes,
        *,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        max_body_bytes: int = MAX_BODY_BYTES,
        truncate: bool = False,
    ) -> Response:
        """The same, awaited.

        Raises the Failure.
        """
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def done(result: Response | Failure) -> None:
            if future.done():
                return
            if isinstance(result, Failure):
                future.set_exception(result)
            else:
                future.set_result(result)

        exchange = self.request_nowait(
            origin, payload, done, timeouts=timeouts, max_body_bytes=max_body_bytes, truncate=truncate
        )
        try:
            return await future
        finally:
            exchange.cancel()

    async def close(self) -> None:
        """Close every connection; requests under way fail with Closed."""
        self._closed = True
        failure = Closed("the HTTP client is closed")
        tasks = list(self._opening)
        exchanges = list(self._opening.values())
        for pool in self._pools.values():
            exchanges.extend(pool.waiting)
        exchanges.extend(c.exchange for c in self._pool_of if c.exchange is not None)
        self._starved.clear()
        for exchange in exchanges:
            exchange.finish(failure, exchange_loop(self._loop))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(self._pool_of):
            connection.abort()
        if self._pool_of:
            await self._all_lost.wait()

    def stats(self) -> dict[str, int]:
        """Gauges: connections open, idle, requests waiting, hosts."""
        return {
            "open": self._open,
            "idle": len(self._idle),
            "waiting": self._waiting,
            "hosts": len(self._pools),
        }

    # -- connection.Owner -----------------------------------------------------------------------------------

    def release(self, connection: Connection) -> None:
        """A connection has served its exchange and can serve another."""
        pool = self._pool_of[connection]
        exchange = self._next_waiting(pool)
        if exchange is not None:
            connection.begin(exchange)
            return
        pool.idle.append(connection)
        self._idle[connection] = None
        connection.rest()
        if self._starved:
            self._feed_starved()

    def lost(self, connection: Connection) -> None:
        """A connection is gone."""
        pool = self._pool_of.pop(connection, None)
        if pool is None:
            return
        if connection in self._idle:
            del self._idle[connection]
            pool.idle.remove(connection)
        self._closed_one(pool)
        if self._closed and not self._pool_of:
            self._all_lost.set()

    def restart(self, exchange: Exchange) -> None:
        """A kept-alive connection died under a request that was not answered at all."""
        if exchange.on_done is None or self._loop is None:
            return
        if self._closed:
            exchange.finish(Closed("the HTTP client is closed"), self._loop)
            return
        pool = exchange.pool
        assert isinstance(pool, _Pool)
        self._open_or_wait(self._pools.setdefault(pool.origin, pool), exchange)

    def leave(self, exchange: Exchange) -> None:
        """A waiting exchange's time is over, or it was cancelled."""
        pool = exchange.pool
        assert isinstance(pool, _Pool)
        self._take_out(pool, exchange)
        self._drop_if_empty(pool)

    # -- inside ---------------------------------------------------------------------------------------------

    def _open_or_wait(self, pool: _Pool, exchange: Exchange) -> None:
        loop = exchange_loop(self._loop)
        if pool.open < self._max_per_host:
            if self._open < self._max_total or self._close_longest_idle():
                self._start_opening(pool, exchange)
                return
            self._starved[pool.origin] = None
        if len(pool.waiting) >= self._max_waiting_per_host or self._waiting >= self._max_waiting:
            full = Saturated(f"{len(pool.waiting)} requests wait for {pool.origin.host} already")
            loop.call_soon(exchange.finish, full, loop)
            return
        self._waiting += 1
        exchange.pool = pool
        pool.waiting[exchange] = None
        failure = TotalTimeout(f"no free connection within {exchange.timeouts.total_s:g} s")
        exchange.timer = loop.call_at(exchange.deadline, exchange.finish, failure, loop)

    def _next_waiting(self, pool: _Pool) -> Exchange | None:
        for exchange in pool.waiting:
            self._take_out(pool, exchange)
            return exchange
        return None

    def _take_out(self, pool: _Pool, exchange: Exchange) -> None:
        if exchange.timer is not None:
            exchange.timer.cancel()
            exchange.timer = None
        del pool.waiting[exchange]
        self._waiting -= 1

    def _close_longest_idle(self) -> bool:
        """Make room for one connection."""
        for connection in self._idle:
            del self._idle[connection]
            pool = self._pool_of.pop(connection)
            pool.idle.remove(connection)
            connection.abort()
            pool.open -= 1
            self._open -= 1
            self._drop_if_empty(pool)
            return True
        return False

    def _closed_one(self, pool: _Pool) -> None:
        pool.open -= 1
        self._open -= 1
        if self._closed:
            return
        exchange = self._next_waiting(pool)
        if exchange is not None:
            self._open_or_wait(pool, exchange)
        else:
            self._drop_if_empty(pool)
        if self._starved:
            self._feed_starved()

    def _drop_if_empty(self, pool: _Pool) -> None:
        if pool.open == 0 and not pool.waiting and self._pools.get(pool.origin) is pool:
            del self._pools[pool.origin]

    def _feed_starved(self) -> None:
        """Give the room that has become free to the pool that has waited longest for it."""
        for origin in list(self._starved):
            if self._open >= self._max_total and not self._idle:
                return
            del self._starved[origin]
            pool = self._pools.get(origin)
            if pool is None or pool.open >= self._max_per_host:
                continue
            exchange = self._next_waiting(pool)
            if exchange is None:
                continue
            self._open_or_wait(pool, exchange)
            if pool.waiting:
                self._starved[origin] = None

    def _start_opening(self, pool: _Pool, exchange: Exchange) -> None:
        self._pools.setdefault(pool.origin, pool)  # making room may have dropped it as empty
        pool.open += 1
        self._open += 1
        task = exchange_loop(self._loop).create_task(self._connect(pool, exchange))
        self._opening[task] = exchange
        task.add_done_callback(self._opening.pop)

    async def _connect(self, pool: _Pool, exchange: Exchange) -> None:
        """Open a connection for an exchange and begin it."""
        loop = exchange_loop(self._loop)
        deadline = min(loop.time() + exchange.timeouts.connect_s, exchange.deadline)
        connection: Connection | Failure
        try:
            async with asyncio.timeout_at(deadline):
                connection = await self._establish(pool.origin)
        except TimeoutError:
            if deadline == exchange.deadline:
                connection = TotalTimeout(f"not connected within {exchange.timeouts.total_s:g} s")
            else:
                connection = ConnectTimeout(f"not connected within {exchange.timeouts.connect_s:g} s")
        except ssl.SSLError as error:
            connection = tls_failure(error)
        except OSError as error:
            connection = ConnectionFailed(
                f"connection failed: {os.strerror(error.errno) if error.errno else 'unreachable'}"
            )
        except BaseException:
            self._closed_one(pool)
            raise
        if isinstance(connection, Failure):
            self._closed_one(pool)
            exchange.finish(connection, loop)
            return
        self._pool_of[connection] = pool
        if connection.closed:  # between the handshake and here
            self.lost(connection)
            exchange.finish(ConnectionFailed("the connection was closed at once"), loop)
        elif exchange.on_done is None:
            self.release(connection)
        else:
            exchange.connected = loop.time()
            connection.begin(exchange)

    async def _establish(self, origin: Origin) -> Connection | Failure:
        """Connect to the pinned address, with the TLS handshake where the scheme asks for it."""
        loop = exchange_loop(self._loop)
        family = socket.AF_INET6 if ":" in origin.address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, (origin.address, origin.port))
            tls = origin.scheme == "https"
            transport, connection = await loop.create_connection(
                lambda: Connection(self, loop, self._idle_s),
                sock=sock,
                ssl=context(origin.verify, origin.sni, self._ca_data) if tls else None,
                server_hostname=(origin.host if origin.sni else "") if tls else None,
            )
        except BaseException:
            sock.close()
            raise
        if tls and origin.verify and not origin.sni:
            certificate = transport.get_extra_info("peercert") or {}
            if not matches(certificate, origin.host):
                transport.abort()
                failure = TlsFailed(f"the certificate is not for {origin.host}")
                failure.code = CERTIFICATE_DOMAIN
                return failure
        return connection


def exchange_loop(loop: asyncio.AbstractEventLoop | None) -> asyncio.AbstractEventLoop:
    """The loop the client belongs to."""
    return loop or asyncio.get_running_loop()
