"""RTP ports: even/odd socket pairs, kept by the supervisor so that a replaced media process goes on with the same ones.

`PortKeeper` opens pairs at random inside the range, in blocks. `PortService` hands every block, and new ones on demand,
to the media process that connects, by SCM_RIGHTS over a Unix socket of whole messages (SOCK_SEQPACKET). `PortSet` is
what the media process has; a slot is the number of a pair, the same for every process. Only the standard library is
used: the supervisor stays small.

A message is JSON: `first`, the number of its first slot; `ports`, those of consecutive slots, whose sockets ride along;
`six`, whether they are IPv6; `last`, whether it ends an answer.
"""

import contextlib
import json
import logging
import os
import random
import socket
import threading
from pathlib import Path
from typing import Any, Final

logger = logging.getLogger(__name__)

SLOTS_PER_LEG: Final = 4
"""Pairs for each leg that there may be: those of calls that have ended rest for a while."""
BLOCK: Final = 64
"""Pairs of one message: SCM_RIGHTS takes at most 253 descriptors."""
MESSAGE_BYTES: Final = 16_384
DRAIN_MOST: Final = 1000
"""Datagrams thrown away at once; a flood beyond it is dropped by its source."""
SO_TIMESTAMPNS: Final = 35
"""Linux's number; Python does not name it."""
EXPEDITED: Final = 46 << 2
"""DSCP EF for audio (RFC 4594), as the octet of the IP header."""
CONNECT_S: Final = 5.0
UNBOUND: Final = ("0.0.0.0", "::")  # noqa: S104 - nothing is bound

Pair = tuple[socket.socket, socket.socket]


class NoPorts(Exception):
    """Not one pair of ports could be bound in the range."""


class PortKeeper:
    """Opens and owns the pairs."""

    def __init__(self, host: str, port_min: int, port_max: int, most: int) -> None:
        """`most`: pairs to open in all. Nothing is opened yet."""
        self.host = host
        self.six = ":" in host
        self.pairs: list[Pair] = []
        self.ports: list[int] = []
        even = range(port_min + port_min % 2, port_max, 2)
        self._candidates = random.sample(even, len(even))
        self.most = min(most, len(even))
        self._why = "none is to be"

    def open_block(self) -> int:
        """Open up to BLOCK pairs more; how many."""
        count = 0
        while count < BLOCK and len(self.pairs) < self.most and self._candidates:
            port = self._candidates.pop()
            pair = self._open(port)
            if pair is not None:
                self.pairs.append(pair)
                self.ports.append(port)
                count += 1
        if not self.pairs:
            raise NoPorts(f"no RTP port of {self.host} can be bound ({self._why})")
        return count

    def _open(self, port: int) -> Pair | None:
        opened: list[socket.socket] = []
        try:
            for number in (port, port + 1):
                sock = socket.socket(socket.AF_INET6 if self.six else socket.AF_INET, socket.SOCK_DGRAM)
                opened.append(sock)
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
                level, option = (
                    (socket.IPPROTO_IPV6, socket.IPV6_TCLASS) if self.six else (socket.IPPROTO_IP, socket.IP_TOS)
                )
                sock.setsockopt(level, option, EXPEDITED)
                sock.bind((self.host, number))
        except OSError as error:
            self._why = error.strerror or str(error)
            for sock in opened:
                sock.close()
            return None
        return opened[0], opened[1]

    def close(self) -> None:
        for pair in self.pairs:
            for sock in pair:
                sock.close()


class PortSet:
    """The pairs of a media process, by slot (see engine.Sockets). Stand-alone it has a keeper of its own."""

    def __init__(self, keeper: PortKeeper | None = None) -> None:
        self.six = keeper.six if keeper else False
        self._keeper = keeper
        self._pairs: list[Pair] = []
        self.ports: list[int] = []
        self.exhausted = False
        """Whether there are no more to be had."""

    def __len__(self) -> int:
        return len(self._pairs)

    def rtp(self, slot: int) -> int:
        """The fd of a slot's RTP socket; -1 for a slot that is not there."""
        return self._pairs[slot][0].fileno() if slot < len(self._pairs) else -1

    def rtcp(self, slot: int) -> int:
        """The fd of a slot's RTCP socket."""
        return self._pairs[slot][1].fileno() if slot < len(self._pairs) else -1

    @property
    def everywhere(self) -> bool:
        """Whether they are bound to no address of their own. To connect such a socket would tie it to the address that
        the route to the peer begins at, which need not be the one that the peer sends to."""
        return bool(self._pairs) and self._pairs[0][0].getsockname()[0] in UNBOUND

    def drain(self, slot: int) -> None:
        """Throw away what waits on a slot's sockets."""
        for sock in self._pairs[slot]:
            with contextlib.suppress(OSError):
                for _ in range(DRAIN_MOST):
                    sock.recv(1, socket.MSG_DONTWAIT)

    def send_rtcp(self, slot: int, data: bytes, to: tuple[str, int]) -> None:
        """Send from a slot's RTCP socket; failing is no error."""
        with contextlib.suppress(OSError):
            self._pairs[slot][1].sendto(data, socket.MSG_DONTWAIT, to)

    def more(self) -> None:
        """Ask for another block; here it comes at once."""
        if self._keeper is not None:
            at = len(self._pairs)
            self.exhausted = not self._keeper.open_block()
            self.add(self._keeper.pairs[at:], self._keeper.ports[at:])

    def add(self, pairs: list[Pair], ports: list[int]) -> None:
        self._pairs += pairs
        self.ports += ports

    def close(self) -> None:
        """Close this process's sockets; those of others over the same ports stay."""
        for pair in self._pairs:
            for sock in pair:
                sock.close()


class RemotePorts(PortSet):
    """Pairs that come from a PortService."""

    def __init__(self, path: str) -> None:
        """Connect and take every pair there is. Raises OSError."""
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(CONNECT_S)
        self._socket.connect(path)
        while not self.receive():
            pass
        self._socket.setblocking(False)
        self._asked = False

    def close(self) -> None:
        super().close()
        self._socket.close()

    def fileno(self) -> int:
        """Readable when `receive` has something to do."""
        return self._socket.fileno()

    def more(self) -> None:
        if not self._asked and not self.exhausted:
            self._asked = True
            try:
                self._socket.send(b"more")
            except OSError:
                self.exhausted = True

    def receive(self) -> bool:
        """Take one message; whether it was the last of an answer. Raises OSError."""
        data, fds, _, _ = socket.recv_fds(self._socket, MESSAGE_BYTES, 2 * BLOCK)
        if not data:
            self.exhausted = True
            raise ConnectionResetError("the keeper of the ports is gone")
        block: dict[str, Any] = json.loads(data)
        socks = [socket.socket(fileno=fd) for fd in fds]
        if block["first"] != len(self) or len(socks) != 2 * len(block["ports"]):
            for sock in socks:
                sock.close()
            raise ConnectionResetError("the keeper of the ports sent something else")
        self.six = block["six"]
        self.add(list(zip(socks[::2], socks[1::2], strict=True)), block["ports"])
        self._asked = False
        self.exhausted = block["last"] and not block["ports"] and bool(len(self))
        return bool(block["last"])


class PortService:
    """Serves a keeper's pairs on a Unix socket, on a thread of its own."""

    def __init__(self, keeper: PortKeeper, path: str) -> None:
        """Listen at `path`, for this user alone."""
        self._keeper = keeper
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        Path(path).unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._listener.bind(path)
        finally:
            os.umask(before)
        self._listener.listen(4)
        self._connections: list[socket.socket] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, name="ports", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), name="ports-peer", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        sent = 0
        try:
            while True:
                with self._lock:
                    if sent == len(self._keeper.pairs):
                        self._keeper.open_block()
                sent = self._send(connection, sent)
                if connection.recv(64) != b"more":
                    return
        except (OSError, NoPorts) as error:
            logger.warning("handing over RTP ports: %s", error)
        finally:
            connection.close()
            if connection in self._connections:
                self._connections.remove(connection)

    def _send(self, connection: socket.socket, sent: int) -> int:
        """Every pair from `sent` on; the last message says so."""
        keeper = self._keeper
        while True:
            pairs, ports = keeper.pairs[sent : sent + BLOCK], keeper.ports[sent : sent + BLOCK]
            last = sent + len(pairs) >= len(keeper.pairs)
            message = json.dumps({"first": sent, "ports": ports, "six": keeper.six, "last": last}).encode()
            socket.send_fds(connection, [message], [sock.fileno() for pair in pairs for sock in pair])
            sent += len(pairs)
            if last:
                return sent

    def close(self) -> None:
        """Stop serving; the pairs stay open."""
        # Waking accept() takes a shutdown; closing alone does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        Path(self._path).unlink(missing_ok=True)
