"""Which server takes writes, and connections to it.

With Sentinels each is asked by itself with a deadline of its own, all at once, until most have answered, and one of
those knows what was said last: one in a zone that is cut off is not waited for. The answer with the highest
configuration epoch counts, so that one who was cut off with the old primary is outvoted by any that saw the failover.
When none answers, the primary that was last known still serves: losing the Sentinels costs failover, nothing else.
Without Sentinels the addresses of the URL are tried one by one. Either way a server counts only if it says itself that
it is a primary.
"""

import asyncio
import logging
import math
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec
from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from trunkline.storage.survives import CannotSurvive
from trunkline.storage.unavailable import StoreUnavailable

CONNECT_S = 0.5
"""Longest wait for one server: connection, TLS, log-in and its role, seconds."""
SENTINEL_S = 0.3
"""Longest wait for one Sentinel's answer, seconds."""
WATCH_AGAIN_S = 1.0
"""Pause before a Sentinel that went away is listened to again, seconds."""
KEEPALIVE_S = 2
SILENCE_MS = 3000
"""Sent bytes that the peer's TCP has not confirmed for so long end the connection."""
PORT, SENTINEL_PORT = 6379, 26379
_DROP_UNSENT = struct.pack("ii", 1, 0)
"""SO_LINGER of no seconds: what we gave up on never reaches the server later, behind newer writes."""
_FAILURES = (RedisError, OSError, TimeoutError)

log = logging.getLogger(__name__)


class BadUrl(CannotSurvive):
    """`memory.url` cannot be read; the text shows nothing of it."""


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, port: int) -> "Address":
        """`host`, `host:port` or `[v6]:port`. Raises ValueError."""
        parts = urlsplit(f"//{text}")
        if not parts.hostname:
            raise ValueError("no host")
        return cls(parts.hostname, parts.port or port)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What the settings say about the servers."""

    hosts: tuple[Address, ...] = ()
    sentinels: tuple[Address, ...] = ()
    service: str = ""
    username: str = ""
    password: str = ""
    sentinel_password: str = ""
    db: int = 0
    tls: bool = False
    tls_ca: str = ""

    @classmethod
    def read(
        cls, url: str, sentinels: Sequence[str] = (), service: str = "", sentinel_password: str = "", tls_ca: str = ""
    ) -> "Target":
        """From `redis[s]://[user][:password]@host[:port][,host...][/db]`. Raises BadUrl."""
        try:
            parts = urlsplit(url or "redis:///")
            login, _, hosts = parts.netloc.rpartition("@")
            username, _, password = login.partition(":")
            path = parts.path.strip("/")
            target = cls(
                hosts=tuple(Address.parse(host, PORT) for host in hosts.split(",") if host),
                sentinels=tuple(Address.parse(one, SENTINEL_PORT) for one in sentinels),
                service=service,
                username=unquote(username),
                password=unquote(password),
                sentinel_password=sentinel_password,
                db=int(path) if path else 0,
                tls=parts.scheme in ("rediss", "valkeys"),
                tls_ca=tls_ca,
            )
        except ValueError:
            raise BadUrl("memory.url: not like rediss://user:password@host:6379/0") from None
        if parts.scheme not in ("redis", "rediss", "valkey", "valkeys") or not (target.hosts or sentinels):
            raise BadUrl("memory.url: not like rediss://user:password@host:6379/0")
        return target


class Wire(Connection):
    """A connection that can be let go of at once, with what was not sent yet."""

    async def begin(self) -> None:
        """Connect and log in. Raises RedisError, OSError."""
        await self.connect()  # type: ignore[no-untyped-call]
        line = self._writer.transport.get_extra_info("socket") if self._writer is not None else None
        if line is not None:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _DROP_UNSENT)

    def cut(self) -> None:
        """End it now: whoever reads from it fails."""
        writer, reader = self._writer, self._reader
        self._writer = self._reader = None
        if writer is not None:
            writer.transport.abort()
        if reader is not None and reader.exception() is None:
            reader.set_exception(ConnectionResetError("the connection was given up"))

    async def take(self) -> Any:
        """The next reply; an error among them is returned. Raises RedisError, OSError."""
        try:
            reply = await self.read_response(timeout=math.inf, disconnect_on_error=False)
        except ResponseError as error:
            return error
        if reply is None and (self._reader is None or self._reader.exception() is not None):
            # redis-py takes the system's ETIMEDOUT for the end of its own patience, and says so by None, for ever.
            raise ConnectionResetError("the connection was lost")
        return reply


class TlsWire(Wire, SSLConnection):
    """The same over TLS."""


class Servers:
    """The servers of one target. Belongs to one event loop."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._known: Address | None = None

    def __repr__(self) -> str:
        if self._target.sentinels:
            return f"{self._target.service!r} of the Sentinels {', '.join(map(str, self._target.sentinels))}"
        return ", ".join(map(str, self._target.hosts))

    async def open(self, said: Address | None = None) -> tuple[Address, Wire]:
        """A connection to the primary. `said`: the one that a Sentinel has named last. Raises StoreUnavailable."""
        error: Exception | None = None
        for address in await self._candidates(said):
            try:
                wire = await self._connect(address)
            except _FAILURES as one:
                error = one
                continue
            self._known = address
            return address, wire
        raise StoreUnavailable(f"memory store {self!r}: {reason(error)}") from None

    async def _candidates(self, said: Address | None) -> Sequence[Address]:
        if not self._target.sentinels:
            return self._target.hosts
        asked = [asyncio.ensure_future(self._ask(one)) for one in self._target.sentinels]
        found: list[tuple[int, Address]] = []
        try:
            for answering in asyncio.as_completed(asked):
                answer = await answering
                if answer is not None:
                    found.append(answer)
                if len(found) > len(asked) // 2 and (said is None or any(one[1] == said for one in found)):
                    break
        finally:
            for one in asked:
                one.cancel()
        if found:
            return (max(found, key=lambda answer: answer[0])[1],)
        return (self._known,) if self._known is not None else ()

    async def _ask(self, sentinel: Address) -> tuple[int, Address] | None:
        """(configuration epoch, primary) by one Sentinel; None: no answer in time."""
        wire = self._wire(sentinel, sentinel=True)
        try:
            async with asyncio.timeout(SENTINEL_S):
                await wire.begin()
                name = self._target.service
                ask = [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name), ("SENTINEL", "MASTER", name)]
                await wire.send_packed_command(wire.pack_commands(ask), check_health=False)
                where, about = await wire.take(), await wire.take()
        except _FAILURES:
            return None
        finally:
            wire.cut()
        if not isinstance(where, list) or not isinstance(about, list | dict):
            return None
        return int(pairs(about).get("config-epoch", "0")), Address(where[0].decode(), int(where[1]))

    async def _connect(self, address: Address) -> Wire:
        """A connection to a server that says it is the primary. Raises RedisError, OSError, TimeoutError."""
        wire = self._wire(address)
        try:
            async with asyncio.timeout(CONNECT_S):
                await wire.begin()
                await wire.send_packed_command(wire.pack_command("ROLE"), check_health=False)
                role = await wire.take()
        except BaseException:
            wire.cut()
            raise
        if not isinstance(role, list) or role[0] != b"master":
            wire.cut()
            raise ConnectionError(f"{address} is no primary")
        return wire

    def _wire(self, address: Address, *, sentinel: bool = False) -> Wire:
        own = self._target
        options: dict[str, Any] = {
            "host": address.host,
            "port": address.port,
            "db": 0 if sentinel else own.db,
            "username": (None if sentinel else own.username) or None,
            "password": (own.sentinel_password if sentinel else own.password) or None,
            "socket_timeout": None,
            "socket_connect_timeout": SENTINEL_S if sentinel else CONNECT_S,
            "socket_keepalive": True,
            "socket_keepalive_options": {
                socket.TCP_KEEPIDLE: KEEPALIVE_S,
                socket.TCP_KEEPINTVL: KEEPALIVE_S,
                socket.TCP_KEEPCNT: 3,
                socket.TCP_USER_TIMEOUT: SILENCE_MS,
            },
            "protocol": 2,
            "driver_info": None,
        }
        return TlsWire(**options, ssl_ca_certs=own.tls_ca or None) if own.tls else Wire(**options)

    async def watch(self, switched: Callable[[Address], object]) -> None:
        """Call `switched` with the new primary whenever a Sentinel says that it changed; until cancelled."""
        async with asyncio.TaskGroup() as listeners:
            for one in self._target.sentinels:
                listeners.create_task(self._listen(one, switched))

    async def _listen(self, sentinel: Address, switched: Callable[[Address], object]) -> None:
        while True:
            wire = self._wire(sentinel, sentinel=True)
            try:
                async with asyncio.timeout(SENTINEL_S):
                    await wire.begin()
                    await wire.send_packed_command(wire.pack_command("SUBSCRIBE", "+switch-master"))
                    await wire.take()
                while True:
                    said = await wire.take()
                    if isinstance(said, list) and said[0] == b"message" and (address := self._ours(said[2])):
                        switched(address)
            except _FAILURES:
                pass
            finally:
                wire.cut()
            await asyncio.sleep(WATCH_AGAIN_S)

    def _ours(self, said: bytes) -> Address | None:
        """The new primary, if `+switch-master` is of our service: its name, old host and port, new host and port."""
        parts = said.decode(errors="replace").split(" ")
        if len(parts) != 5 or parts[0] != self._target.service or not parts[4].isdecimal():
            return None
        return Address(parts[3], int(parts[4]))


def pairs(answer: Any) -> Mapping[str, str]:
    """A reply of names and values."""
    if isinstance(answer, dict):
        return {_text(name): _text(value) for name, value in answer.items()}
    return {_text(answer[at]): _text(answer[at + 1]) for at in range(0, len(answer) - 1, 2)}


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def reason(error: BaseException | None) -> str:
    """One line about a failure."""
    if isinstance(error, AuthenticationError):
        return "the log-in is refused"
    if isinstance(error, TimeoutError) or type(error).__name__ == "TimeoutError":
        return "no answer in time"
    lines = str(error or "no Sentinel answers").strip().splitlines()
    return lines[0] if lines else type(error).__name__
