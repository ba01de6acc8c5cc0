"""Calls from node to node: `await peers.call("b", "http", payload, 5.0)`.

Theory. Each node listens at its `node.address`. One connection joins a pair and carries requests of both; when both
dialled at once, the one opened by the smaller name stays. The smaller name also keeps it up; the other dials when it
has something to ask. Who does not answer a dial is left alone for a moment (`BACKOFF_FIRST_S`, doubling), so that a
call to a dead node fails at once.

Neither side reads anything else before the other has proven that it knows `cluster.secret`
(trunkline.cluster.peers_wire); TLS on top where it is configured.
"""

import asyncio
import ipaddress
import logging
import ssl
from collections.abc import Callable, Mapping
from random import Random
from typing import Final

from trunkline.cluster import peers_wire as wire
from trunkline.cluster.peers_link import HANDSHAKE_S, Handler, Link, PeerError, PeerUnavailable

MAX_CONNECTIONS: Final = 256
"""Of all peers together, handshakes under way included."""
MAX_PENDING: Final = 32
"""Handshakes under way at once."""
CONNECT_S: Final = 1.0
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_LONGEST_S: Final = 2.0

log = logging.getLogger(__name__)

__all__ = ["PeerError", "PeerUnavailable", "Peers", "Refused", "split_address"]


class Refused(Exception):
    """Peers cannot be served so; one line for the operator."""


def split_address(address: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port`. Raises ValueError."""
    host, colon, port = address.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError(f"{address!r} is no host:port")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Peers:
    """See the module."""

    def __init__(
        self,
        name: str,
        secret: str,
        tls_server: ssl.SSLContext | None = None,
        tls_client: ssl.SSLContext | None = None,
        random: Random | None = None,
    ) -> None:
        self.name = name
        self.on_change: Callable[[str, bool], None] = lambda node, up: None
        """Told of each node whose connection comes up or goes."""
        self._secret = secret.encode()
        self._tls_server = tls_server
        self._tls_client = tls_client
        self._random = random or Random()
        self._handlers: dict[bytes, Handler] = {}
        self._addresses: dict[str, str] = {}
        self._links: dict[str, Link] = {}
        self._all: set[Link] = set()
        self._dialling: dict[str, asyncio.Task[Link]] = {}
        self._failures: dict[str, tuple[int, float, str]] = {}
        self._keeping: dict[str, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self._closed = False

    # ---- life

    async def listen(self, address: str) -> int:
        """Serve peers at `host:port`; returns the port. Raises Refused, OSError."""
        host, port = split_address(address)
        if not is_loopback(host) and len(self._secret) < wire.MIN_SECRET_CHARS:
            raise Refused(
                f"cluster.secret: {address} can be reached from other machines; give at least"
                f" {wire.MIN_SECRET_CHARS} characters, the same on each node"
            )
        loop = asyncio.get_running_loop()
        patience = HANDSHAKE_S if self._tls_server else None
        self._server = await loop.create_server(
            self._accepted, host, port, ssl=self._tls_server, backlog=64, ssl_handshake_timeout=patience
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """No more calls in either direction."""
        self._closed = True
        tasks = [*self._keeping.values(), *self._dialling.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        links = list(self._all)
        for link in links:
            link.close("this node stops")
        if self._server is not None:
            self._server.close()
        await asyncio.gather(*(link.closed.wait() for link in links))
        if self._server is not None:
            await self._server.wait_closed()

    def handle(self, kind: str, handler: Handler) -> None:
        """Who answers calls of a kind: `async (node, payload) -> bytes`; what it raises reaches the caller as PeerError
        (a PeerError as it is, else with the exception's name as code)."""
        self._handlers[kind.encode()] = handler

    def know(self, addresses: Mapping[str, str]) -> None:
        """The peers there are, by name; others' connections end once nothing is under way on them."""
        self._addresses = {name: address for name, address in addresses.items() if name != self.name and address}
        for name in [name for name in self._keeping if name not in self._addresses]:
            self._keeping.pop(name).cancel()
        self._failures = {name: failed for name, failed in self._failures.items() if name in self._addresses}
        for name in self._addresses:
            if self.name < name and name not in self._keeping and not self._closed:
                self._keeping[name] = asyncio.create_task(self._keep_up(name), name=f"peer {name}")

    @property
    def connected(self) -> frozenset[str]:
        """Nodes to which there is a connection."""
        return frozenset(self._links)

    # ---- calls

    async def call(self, node: str, kind: str, payload: bytes, timeout_s: float) -> bytes:
        """Ask a node. Raises PeerUnavailable (`sent`: it may have acted all the same) or PeerError."""
        if node == self.name:
            return await self._ask_self(kind, payload)
        link = self._links.get(node)
        if link is None:
            started = asyncio.get_running_loop().time()
            link = await self._reach(node, timeout_s)
            timeout_s -= asyncio.get_running_loop().time() - started
        return await link.call(kind.encode(), payload, timeout_s)

    async def _ask_self(self, kind: str, payload: bytes) -> bytes:
        handler = self._handlers.get(kind.encode())
        if handler is None:
            raise PeerError("unknown-kind", kind)
        return await handler(self.name, payload)

    async def _reach(self, node: str, timeout_s: float) -> Link:
        if node not in self._addresses or self._closed:
            raise PeerUnavailable(f"{node} is not known", sent=False)
        tries, again, reason = self._failures.get(node, (0, 0.0, ""))
        if tries and asyncio.get_running_loop().time() < again:
            raise PeerUnavailable(f"{node}: {reason}", sent=False)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(self._dial_once(node))
        except TimeoutError:
            raise PeerUnavailable(f"{node}: no connection within {timeout_s:g} s", sent=False) from None

    # ---- connections

    async def _keep_up(self, node: str) -> None:
        while True:
            link = self._links.get(node)
            if link is not None:
                await link.closed.wait()
                continue
            try:
                await asyncio.shield(self._dial_once(node))
            except PeerUnavailable:
                again = self._failures.get(node, (0, 0.0, ""))[1]
                await asyncio.sleep(max(again - asyncio.get_running_loop().time(), BACKOFF_FIRST_S))

    def _dial_once(self, node: str) -> "asyncio.Task[Link]":
        task = self._dialling.get(node)
        if task is None:
            task = self._dialling[node] = asyncio.create_task(self._dial(node), name=f"dial {node}")
            task.add_done_callback(lambda done: self._dialled(node, done))
        return task

    def _dialled(self, node: str, done: "asyncio.Task[Link]") -> None:
        self._dialling.pop(node, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            tries = self._failures.get(node, (0, 0.0, ""))[0] + 1
            wait_s = min(BACKOFF_FIRST_S * 2 ** min(tries - 1, 10), BACKOFF_LONGEST_S)
            again = asyncio.get_running_loop().time() + wait_s * self._random.uniform(0.7, 1.3)
            if node in self._addresses:
                self._failures[node] = (tries, again, str(error))

    async def _dial(self, node: str) -> Link:
        link = self._link(node)
        try:
            host, port = split_address(self._addresses[node])
            async with asyncio.timeout(CONNECT_S + HANDSHAKE_S):
                await asyncio.get_running_loop().create_connection(lambda: link, host, port, ssl=self._tls_client)
                await link.opened
        except (OSError, ValueError, KeyError, TimeoutError) as error:
            link.close("not reached")
            raise PeerUnavailable(f"{node}: not reached ({error or 'timeout'})", sent=False) from None
        except BaseException:
            link.close("not reached")
            raise
        return self._links.get(node, link)

    def _accepted(self) -> Link:
        return self._link(None)

    def _made(self, link: Link) -> bool:
        """A connection stands (TLS included); whether there is room for it."""
        pending = sum(not one.ready for one in self._all)
        if len(self._all) >= MAX_CONNECTIONS or pending >= MAX_PENDING or self._closed:
            return False
        self._all.add(link)
        return True

    def _link(self, node: str | None) -> Link:
        return Link(self.name, self._secret, self._handlers, self._made, self._up, self._down, node)

    def _up(self, link: Link) -> None:
        self._failures.pop(link.peer, None)
        other = self._links.get(link.peer)
        if other is None or not other.ready:
            self._links[link.peer] = link
            self.on_change(link.peer, True)
            return
        opened_by_smaller = link.dialled == (self.name < link.peer)
        if opened_by_smaller:
            self._links[link.peer] = link
        self._retire(other if opened_by_smaller else link)

    def _retire(self, link: Link) -> None:
        """Close a connection that is one too many, once nothing is under way on it."""
        loop = asyncio.get_running_loop()

        def look() -> None:
            if link.ready and link.idle and self._links.get(link.peer) is not link:
                link.close("another connection took its place")
            elif link.ready:
                loop.call_later(HANDSHAKE_S, look)

        loop.call_later(HANDSHAKE_S, look)

    def _down(self, link: Link) -> None:
        self._all.discard(link)
        if self._links.get(link.peer) is link:
            spare = next((one for one in self._all if one.peer == link.peer and one.ready), None)
            if spare is not None:
                self._links[link.peer] = spare
            else:
                del self._links[link.peer]
                self.on_change(link.peer, False)
