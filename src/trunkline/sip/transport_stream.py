"""One TCP or TLS connection of `trunkline.sip.transport`: framing, TLS, limits, pings.

    octets -> (TlsSession) -> StreamParser -> Stack;  a message -> (TlsSession) -> octets

A connection counts, and has a flow, once messages can be sent on it: over TCP at once, over TLS after the handshake.
What a stranger may make it hold is bounded in bytes, and in time by its owner's sweep.
"""

import asyncio
import os
import ssl
from collections.abc import Callable
from typing import Final, Protocol, cast

from trunkline.sip.flow import Flow
from trunkline.sip.stack import Stack
from trunkline.sip.stream import PING, PONG, Keepalive, StreamParser
from trunkline.sip.tls import HANDSHAKE_RECORD, Certificate, TlsSession
from trunkline.sip.transport_sockets import network_of, plain_host

WRITE_BUFFER_BYTES: Final = 256 * 1024  # unsent; a peer that does not read loses its connection
PARTIAL_S: Final = 30.0  # how long a message may take to come in whole, and a new connection to bring one
IDLE_S: Final = 5 * 3600.0  # longer than the longest call, which may be silent in between
HANDSHAKE_S: Final = 8.0  # how long the agreement on TLS may take
PING_S: Final = 25.0  # silence after which a connection of ours that is in use is pinged (RFC 5626 section 4.4.1)
PONG_S: Final = 10.0  # how long its answer may take (section 4.4.1)


class Owner(Protocol):
    """What a connection asks of the transport that it belongs to."""

    stack: Stack
    admits: Callable[[str], bool]
    """Whether a connection from an address is accepted at all."""

    def opened(self, connection: "Connection") -> int:
        """It can be used: its number, or 0 when there are too many."""

    def gone(self, connection: "Connection") -> None:
        """It closed."""

    def shaking(self, connection: "Connection", *, begins: bool) -> bool:
        """Its handshake begins or has ended; False if it may not begin."""

    def local_port(self, transport: str) -> int:
        """The port that we listen on."""

    @property
    def fenced(self) -> bool:
        """Whether this host may send nothing any more; what it would have sent is counted."""


class Connection(asyncio.Protocol):
    """See the module. `target` is the flow that it was made for, None if it came in; `session` None: plain TCP."""

    def __init__(
        self, owner: Owner, max_bytes: int, target: Flow | None = None, session: TlsSession | None = None
    ) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._parser = StreamParser(max_bytes)
        self._session = session
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._partial_since = self.heard_at = self._loop.time()
        self._partial = True  # nothing whole has come yet
        self._begun = False  # the first octets have come
        self._pinged_at = 0.0
        self._pongs = False  # whether its peer answers pings at all
        self.target = target
        self.id = 0
        self.network = ""
        """Where its peer is: an IPv4 address, 64 bits of an IPv6 one."""
        self.flow = cast(Flow, None)
        self.certificate: Certificate | None = None
        """Who the peer has proved to be."""
        self.former = 0
        """Its number in the process before this one, which began it; 0: this one did."""
        self.before = b""
        """What that process has read of a message."""
        self.trouble = ""
        """Why it could not be opened."""
        self.ready: asyncio.Future[bool] = self._loop.create_future()
        """Whether it may be used, once that is known."""
        self.closed: asyncio.Future[None] = self._loop.create_future()

    # --- for the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.network = network_of(plain_host(peer[0])) if peer is not None else ""
        if self.target is None and peer is not None and not self._owner.admits(plain_host(peer[0])):
            self._refuse("", "connections_not_admitted")
            return
        if self._session is None:
            self._open()
            return
        if not self._owner.shaking(self, begins=True):
            self._refuse("", "tls_crowded")
            return
        self._deadline = self._loop.call_later(HANDSHAKE_S, self._refuse, "the TLS handshake takes too long")
        if self.target is not None:
            self._session.start()
            self._flush()

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        if self._session is not None:
            data = self._opened(self._session, data)
        if data and self.id:
            self._take(data)
        if self._session is not None and self._session.closed and self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._settle(False)
        if self.id:
            self._owner.gone(self)
        if not self.closed.done():
            self.closed.set_result(None)

    # --- for its owner

    def write(self, data: bytes) -> bool:
        """Send; False if it is closed."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if self._owner.fenced:
            return True
        if self._session is None:
            transport.write(data)
        else:
            try:
                self._session.seal(data)
            except ssl.SSLError:
                transport.abort()
                return False
            self._flush()
        if transport.get_write_buffer_size() > WRITE_BUFFER_BYTES:
            self._owner.stack.count("connections_stuck")
            transport.abort()
        return True

    def overdue(self, now: float) -> bool:
        """Whether it is idle, or a message has been coming in for too long, or a peer that used to answer pings does
        not any more."""
        waits = self.target is None or self._parser.held > 0
        partial = self._partial and waits and now - self._partial_since > PARTIAL_S
        unheard = self._pongs and bool(self._pinged_at) and now - self._pinged_at > PONG_S
        return now - self.heard_at > IDLE_S or partial or unheard

    def keep_alive(self, now: float) -> None:
        """Ping it, if nothing has been heard for a while (RFC 5626 section 3.5.1)."""
        waits = self._pongs and self._pinged_at
        if not waits and now - max(self.heard_at, self._pinged_at) >= PING_S:
            self._pinged_at = now
            self.write(PING)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    @property
    def rest(self) -> bytes:
        """What has come of a message that is not whole."""
        return self._parser.rest

    def let_go(self) -> int:
        """Read no more, so that another process may: a descriptor of the connection. -1: it cannot be passed on."""
        transport = self._transport
        if self._session is not None or not self.id or transport is None or transport.is_closing():
            return -1
        found = transport.get_extra_info("socket")
        if found is None or self._parser.failed or transport.get_write_buffer_size():
            return -1
        transport.pause_reading()
        return os.dup(found.fileno())

    # --- inside

    def _opened(self, session: TlsSession, data: bytes) -> bytes:
        """The plaintext of what came; empty while there is none, and after the end."""
        if not self._begun and self.target is None and data[0] != HANDSHAKE_RECORD:
            self._refuse("", "tls_not_spoken")
            return b""
        self._begun = True
        try:
            plain = session.receive(data)
        except ssl.SSLError as error:
            self._flush()  # the alert, so that the peer learns why
            self._refuse(_reason(error), "tls_errors" if session.ready else "tls_refused")
            return b""
        self._flush()
        if session.ready and not self.id and not self.ready.done():
            self._open()
        return plain

    def _open(self) -> None:
        """Messages can be sent from here on."""
        transport, target, session = self._transport, self.target, self._session
        assert transport is not None
        if session is not None:
            self.certificate = session.peer
            expected = "" if target is None else target.domain or target.remote[0]
            if expected and self.certificate is not None and not self.certificate.names_host(expected):
                names = ", ".join(self.certificate.names[:3]) or "nobody"
                self._refuse(f"its certificate is not of {expected} but of {names}", "tls_refused")
                return
        self._partial_since = self.heard_at
        self.id = self._owner.opened(self)
        if not self.id:
            self._refuse("too many connections")
            return
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if peer is None or own is None:  # it closed while it was accepted
            transport.abort()
            peer = own = ("", 0)
        kind = "TCP" if session is None else "TLS"
        local = (plain_host(own[0]), self._owner.local_port(kind))
        domain = target.domain if target is not None else self._own_name()
        self.flow = Flow(kind, (plain_host(peer[0]), peer[1]), local, self.id, domain)
        self._settle(True)
        if self.former:
            self._partial = False
            if self.before:
                self._take(self.before)

    def _own_name(self) -> str:
        """The name of a peer that has proved who it is: whom to look for when its connection is lost."""
        names = self.certificate.names if self.certificate is not None else ()
        return next((name for name in names if not name.startswith("*")), "")

    def _take(self, data: bytes) -> None:
        stack, flow, parser = self._owner.stack, self.flow, self._parser
        if self._pinged_at:
            self._pinged_at = 0.0
            if not parser.held and data.startswith(PONG) and not data.startswith(PING):
                self._pongs = True
                data = data[len(PONG) :]
        for item in parser.feed(data):
            if isinstance(item, Keepalive):
                self.write(PONG)
            else:
                stack.receive(item, flow)
        if parser.failed and self._transport is not None:
            self._transport.close()
        partial = parser.held > len(PONG)  # fewer are ends of lines between messages
        if partial and not self._partial:
            self._partial_since = self.heard_at
        self._partial = partial

    def _flush(self) -> None:
        if self._session is not None and self._transport is not None:
            data = self._session.take()
            if data:
                self._transport.write(data)

    def _refuse(self, why: str, counted: str = "") -> None:
        """Close it; quietly, since anyone can have it happen."""
        self.trouble = self.trouble or why
        if counted:
            self._owner.stack.count(counted)
        if self._transport is not None:
            self._transport.close()  # what is to be told still goes out
        self._settle(False)

    def _settle(self, works: bool) -> None:
        """It is known whether it may be used."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if not self.ready.done():
            self.ready.set_result(works)
            if self._session is not None:
                self._owner.shaking(self, begins=False)


def _reason(error: ssl.SSLError) -> str:
    """OpenSSL's words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    return f"TLS: {(error.reason or 'failed').lower().replace('_', ' ')}"
