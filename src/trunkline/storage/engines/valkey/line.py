"""Connections to the primary, and what is known about it.

Theory. The store is another one than before (`Primary.changed_at`) when it runs under another id (restarted), has
another replication id (promoted), or has lost the marker that we left in it (emptied). Then writes that had been taken
may be gone: connections to the former one are cut, what was posted is written again, and what looks free may be
somebody's whose lease the store has forgotten.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis.exceptions import RedisError

from trunkline.storage.engines.valkey.durability import ASK, Server, check
from trunkline.storage.engines.valkey.servers import Address, Servers, Wire, reason
from trunkline.storage.survives import CannotSurvive, Survives
from trunkline.storage.unavailable import StoreUnavailable

REPLY_S = 0.5
"""Longest wait for a server's replies, beside what it was asked to wait, seconds."""
MARKER = "trunkline.marker"

Command = Sequence[str | bytes | int]

log = logging.getLogger(__name__)


class Lost(StoreUnavailable):
    """The connection broke, or was too slow; what was sent may have been done."""


class Line:
    """One connection; one batch of commands at a time."""

    def __init__(self, wire: Wire, address: Address) -> None:
        self.address = address
        self.lost = False
        self.wrote = False
        """Whether a write went over it: only then does WAIT speak of all that the server has."""
        self._wire = wire

    async def run(self, commands: Sequence[Command], wait_s: float = 0.0) -> list[Any]:
        """A reply to each; errors are among them. Raises Lost: the connection is of no more use."""
        if self.lost:
            raise Lost(f"{self.address}: the connection was given up")
        try:
            async with asyncio.timeout(REPLY_S + wait_s):
                await self._wire.send_packed_command(self._wire.pack_commands(commands), check_health=False)
                return [await self._wire.take() for _ in commands]
        except (RedisError, OSError, TimeoutError) as error:
            self.cut()
            raise Lost(f"{self.address}: {reason(error)}") from None
        except BaseException:
            self.cut()
            raise

    def cut(self) -> None:
        """End it."""
        self.lost = True
        self._wire.cut()


class Primary:
    """The server that takes writes, as it was seen last. Belongs to one event loop."""

    def __init__(self, servers: Servers, wanted: Survives, zones: Mapping[str, str]) -> None:
        self._servers = servers
        self._wanted = wanted
        self._zones = zones
        self._identity: tuple[str, ...] = ()
        self._lines: set[Line] = set()
        self._said: Address | None = None
        self._opening: set[asyncio.Timeout] = set()
        self.changed: Callable[[bool], object] = lambda lost: None
        """Called when it is, or is said to be, another one; `lost`: it is, and may have lost what was written."""
        self.changed_at = 0.0
        """Monotonic seconds at which it was first seen; 0: never."""
        self.needed = 0
        """Replicas that a write waits for."""
        self.problem = "not connected yet"
        """Why it does not keep what it is asked to, or cannot be reached; empty: it does."""

    async def open(self) -> Line:
        """A connection to whoever is the primary now, looked at first. Raises StoreUnavailable."""
        said = self._said
        try:
            async with asyncio.timeout(None) as patience:  # it ends when the primary is another one
                self._opening.add(patience)
                address, wire = await self._servers.open(said)
                line = Line(wire, address)
                await self.look(line)
        except TimeoutError:
            raise StoreUnavailable(f"the primary has changed to {self._said}") from None
        except StoreUnavailable as error:
            self.problem = str(error)
            raise
        finally:
            self._opening.discard(patience)
        if self._said not in (said, address):
            line.cut()
            raise StoreUnavailable(f"{address}: the primary changed meanwhile")
        self._lines = {one for one in self._lines if not one.lost} | {line}
        return line

    async def look(self, line: Line) -> None:
        """Ask the server what it is and how it is set. Raises StoreUnavailable."""
        *replies, _, marker = await line.run([*ASK, ("SET", MARKER, secrets.token_hex(8), "NX"), ("GET", MARKER)])
        if isinstance(replies[0], Exception):
            line.cut()
            raise StoreUnavailable(f"{line.address}: {replies[0]}")
        server = Server.of(line.address, replies)
        identity = (*server.identity, marker.decode() if isinstance(marker, bytes) else "")
        if identity != self._identity:
            self._take(line, identity)
        try:
            self.needed, self.problem = check(server, self._wanted, self._zones), ""
        except CannotSurvive as refusal:
            if self.problem != str(refusal):
                log.warning("the memory store is not used for what must be kept: %s", refusal)
            self.problem = str(refusal)

    def _take(self, line: Line, identity: tuple[str, ...]) -> None:
        log.log(logging.WARNING if self._identity else logging.INFO, "the memory store is now at %s", line.address)
        self._identity, self.changed_at = identity, time.monotonic()
        for other in self._lines - {line}:
            other.cut()
        self._lines &= {line}
        self.changed(True)

    def switched(self, address: Address) -> None:
        """A Sentinel says that it is this one now: connections elsewhere, also those under way, are given up. Each
        Sentinel says so when it hears of it, the last a second after the first."""
        if address != self._said:
            self._said = address
            for patience in self._opening:
                if not patience.expired():
                    patience.reschedule(0)
        elsewhere = {line for line in self._lines if line.address != address}
        for line in elsewhere:
            line.cut()
        self._lines -= elsewhere
        self.changed(False)

    def close(self) -> None:
        """End all connections."""
        for line in self._lines:
            line.cut()
        self._lines = set()


class Lane:
    """A connection that is remade whenever it was lost."""

    def __init__(self, primary: Primary) -> None:
        self._primary = primary
        self._line: Line | None = None

    async def get(self) -> Line:
        """Raises StoreUnavailable."""
        if self._line is None or self._line.lost:
            self._line = await self._primary.open()
        return self._line
