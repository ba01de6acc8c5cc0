"""One SMPP session, either role, without I/O or clock (SMPP 3.4 §2.2, §2.7, §7.2).

Rules: the tables below say which request may arrive in which state; sending is their mirror image. A session never
raises for what a peer sends, and never grows: requests sent are bounded by the window, requests received and not yet
answered by `max_inbound`.

Theory of operation. The owner feeds bytes to `receive` and gets events back; it calls `send` and `respond`, which
append to a buffer that `data_to_send` empties, so that one loop pass costs one write. Timers are data: call
`handle_timeout` when the time `next_timeout` names has come. All times are seconds of one monotonic clock.
"""

from enum import StrEnum
from typing import Any, Final, cast

import msgspec

from trunkline.smpp import codec, events
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp.errors import DecodeError, FrameError, SessionStateError, WindowFullError
from trunkline.smpp.framer import Frame, Framer


class Role(StrEnum):
    """Which end we are."""

    ESME = "esme"
    SMSC = "smsc"


class State(StrEnum):
    """§2.2; UNBOUND: an unbind was sent or answered, only what is outstanding may still come."""

    OPEN = "open"
    BOUND_TX = "bound_tx"
    BOUND_RX = "bound_rx"
    BOUND_TRX = "bound_trx"
    UNBOUND = "unbound"
    CLOSED = "closed"


class Limits(msgspec.Struct, frozen=True):
    """Bounds of one session."""

    window: int = 10  # requests sent and not answered
    max_inbound: int = 1000  # requests received and not yet answered by us
    response_timeout_s: float = 30.0
    bind_timeout_s: float = 10.0  # from the connection to the end of the bind
    unbind_timeout_s: float = 5.0
    enquire_link_interval_s: float = 30.0  # since the peer was last heard
    enquire_link_timeout_s: float = 15.0
    enquire_link_misses: int = 2
    max_strikes: int = 20  # malformed or misplaced requests in a row
    max_pdu_octets: int = c.MAX_PDU_OCTETS


MAX_UNBOUND_PDU_OCTETS: Final = 1024  # a stranger may not make us hold more; a bind has at most 258
MAX_EXPIRED: Final = 1000  # timed-out requests whose late answer is still recognised

BOUND: Final = frozenset((State.BOUND_TX, State.BOUND_RX, State.BOUND_TRX))
_BOUND_BY: Final = {
    c.BIND_TRANSMITTER: State.BOUND_TX,
    c.BIND_RECEIVER: State.BOUND_RX,
    c.BIND_TRANSCEIVER: State.BOUND_TRX,
}
_TO_SMSC: Final = frozenset((c.SUBMIT_SM, c.SUBMIT_MULTI, c.DATA_SM, c.QUERY_SM, c.CANCEL_SM, c.REPLACE_SM))
_TO_ESME: Final = frozenset((c.DELIVER_SM, c.DATA_SM, c.ALERT_NOTIFICATION))
_NOTHING: Final[frozenset[int]] = frozenset()

# Requests a role takes in a state (§2.3), beside enquire_link and unbind, which are always answered.
ACCEPTS: Final[dict[tuple[Role, State], frozenset[int]]] = {
    (Role.SMSC, State.OPEN): c.BINDS,
    (Role.SMSC, State.BOUND_TX): _TO_SMSC,
    (Role.SMSC, State.BOUND_RX): _NOTHING,
    (Role.SMSC, State.BOUND_TRX): _TO_SMSC,
    (Role.SMSC, State.UNBOUND): _NOTHING,
    (Role.SMSC, State.CLOSED): _NOTHING,
    (Role.ESME, State.OPEN): frozenset((c.OUTBIND,)),
    (Role.ESME, State.BOUND_TX): _NOTHING,
    (Role.ESME, State.BOUND_RX): _TO_ESME,
    (Role.ESME, State.BOUND_TRX): _TO_ESME,
    (Role.ESME, State.UNBOUND): _NOTHING,
    (Role.ESME, State.CLOSED): _NOTHING,
}
_PEER: Final = {Role.ESME: Role.SMSC, Role.SMSC: Role.ESME}
_OVERLOAD_STATUS: Final = {Role.ESME: c.ESME_RX_T_APPN, Role.SMSC: c.ESME_RTHROTTLED}
_KNOWN_REQUESTS: Final = frozenset(kind.command_id for kind in codec.PDUS if not kind.command_id & c.RESPONSE)
_WITHOUT_RESPONSE: Final = frozenset((c.OUTBIND, c.ALERT_NOTIFICATION))
_RESPONSE_KINDS: Final[dict[int, type[p.Response]]] = {
    kind.command_id & ~c.RESPONSE: kind
    for kind in codec.PDUS
    if issubclass(kind, p.Response) and kind is not p.GenericNack
}


class Session:
    """See the module's text. `state` and `limits` are for reading."""

    def __init__(self, role: Role, now: float, limits: Limits | None = None) -> None:
        self.role = role
        self.state = State.OPEN
        self.limits = limits or Limits()
        self._framer = Framer(min(MAX_UNBOUND_PDU_OCTETS, self.limits.max_pdu_octets))
        if role is Role.ESME:  # we chose that peer, and its first deliver_sm may come with the bind_resp
            self._framer.limit = self.limits.max_pdu_octets
        self._out: list[bytes] = []
        self._sequence = 0
        # sequence -> (deadline, command_id, token), deadlines ascending because the timeout is one for all
        self._outstanding: dict[int, tuple[float, int, Any]] = {}
        self._expired: dict[int, tuple[int, Any]] = {}
        self._inbound: dict[int, int] = {}  # sequence -> command_id
        self._binding: tuple[int, p.Bind] | None = None  # sequence and PDU of the bind under way
        self._strikes = 0
        self._last_heard = now
        self._misses = 0
        self._enquiry_deadline: float | None = None
        self.silent = False
        """Not a word has come since a request that was not answered in time: nothing more is sent into that silence but
        enquire_link, until something is heard."""
        self.dead = False
        """It was closed for silence: what the peer has not read of it must not reach it later, for others have it."""
        self._state_deadline: float | None = now + self.limits.bind_timeout_s
        # command_id and sequence of the unbind or unbind_resp to send once nothing is outstanding either way
        self._goodbye: tuple[int, int] | None = None
        self._serves: State | None = None  # SMSC: said unbind in that state, and the peer has not answered
        self._is_answered = False  # it has, but we still owe it answers

    # --- what the owner does

    @property
    def _closed(self) -> bool:
        return self.state is State.CLOSED

    @property
    def room(self) -> int:
        """Requests that may be sent now."""
        return self.limits.window - len(self._outstanding) if self.state in BOUND and not self.silent else 0

    @property
    def outstanding(self) -> int:
        """Requests sent and not answered."""
        return len(self._outstanding)

    @property
    def unanswered(self) -> int:
        """Requests received and not yet answered by us."""
        return len(self._inbound)

    def bind(self, pdu: p.Bind, now: float) -> None:
        """ESME: ask to bind. Next: a `BindAnswered` event."""
        if self.role is not Role.ESME or self.state is not State.OPEN or self._binding is not None:
            raise SessionStateError(f"cannot bind as {self.role} in state {self.state}")
        sequence = self._next_sequence()
        self._out.append(codec.encode(pdu, sequence))
        self._binding = (sequence, pdu)
        self._state_deadline = now + self.limits.bind_timeout_s

    def accept_bind(self, sequence: int, system_id: str = "", version: int = c.INTERFACE_VERSION_34) -> bool:
        """SMSC: let the ESME in. `False` when it is not waiting any more."""
        if self._binding is None or self._binding[0] != sequence or self.state is not State.OPEN:
            return False
        bind = self._binding[1]
        # §3.4.1: an ESME below version 3.4 may not get TLVs
        speaks_tlv = bind.interface_version >= c.INTERFACE_VERSION_34
        tlvs = ((c.TAG_SC_INTERFACE_VERSION, bytes((version,))),) if speaks_tlv else p.NO_TLVS
        kind = _RESPONSE_KINDS[bind.command_id]
        self._out.append(codec.encode(kind(system_id=system_id, tlvs=tlvs), sequence))  # type: ignore[call-arg]
        self._bound(bind.command_id)
        return True

    def refuse_bind(self, sequence: int, status: int = c.ESME_RBINDFAIL) -> bool:
        """SMSC: do not let it in; it may try again until the bind timeout. `False` when it is gone."""
        if self._binding is None or self._binding[0] != sequence or self.state is not State.OPEN:
            return False
        self._out.append(codec.header_only(self._binding[1].command_id | c.RESPONSE, status, sequence))
        self._binding = None
        self._strikes += 1
        return True

    def send(self, pdu: p.Request, token: Any, now: float) -> int:
        """Queue a request and return its sequence number.

        One `ResponseReceived` or `RequestFailed` with `token` follows (a late response may follow a timeout), but
        none for an alert_notification, which has no response.
        Raises `SessionStateError`, `WindowFullError` or `EncodeError`, and then nothing is sent.
        """
        command_id = pdu.command_id
        if command_id not in ACCEPTS[_PEER[self.role], self.state] or command_id in c.BINDS:
            raise SessionStateError(f"{type(pdu).__name__} may not be sent as {self.role} in state {self.state}")
        if len(self._outstanding) >= self.limits.window:
            raise WindowFullError(f"{len(self._outstanding)} requests are unanswered")
        if self.silent:
            raise WindowFullError("the peer is silent")
        sequence = self._next_sequence()
        self._out.append(codec.encode(pdu, sequence))
        if command_id not in _WITHOUT_RESPONSE:
            self._outstanding[sequence] = (now + self.limits.response_timeout_s, command_id, token)
        return sequence

    def rest(self) -> tuple[str, int, bytes] | None:
        """What another session needs to go on with this one (`resume`), and what has come of a PDU that is not whole.
        None while anything is under way in either direction, or it is not bound."""
        if self.state not in BOUND or self._outstanding or self._inbound or self._out:
            return None
        return self.state.value, self._sequence, self._framer.rest

    def resume(self, state: str, sequence: int) -> None:
        """Be bound, as another session was over the same connection. Raises ValueError."""
        self.state = State(state)
        self._sequence = sequence
        self._framer.limit = self.limits.max_pdu_octets
        self._state_deadline = None

    def send_outbind(self, pdu: p.Outbind) -> None:
        """SMSC: ask the ESME to bind to us."""
        if self.role is not Role.SMSC or self.state is not State.OPEN:
            raise SessionStateError(f"cannot outbind as {self.role} in state {self.state}")
        self._out.append(codec.encode(pdu, self._next_sequence()))

    def respond(self, sequence: int, status: int = c.ESME_ROK, message_id: str = "") -> bool:
        """Answer a request that `RequestReceived` gave. `False` when it cannot be answered any more: it was
        answered before, or the session has ended. Raises `EncodeError` for a bad `message_id`."""
        command_id = self._inbound.get(sequence)
        if command_id is None or self.state is State.CLOSED:
            return False
        if command_id == c.DELIVER_SM:
            octets = codec.HEADER.pack(17, c.DELIVER_SM_RESP, status, sequence) + b"\0"
        elif status:
            octets = codec.header_only(command_id | c.RESPONSE, status, sequence)
        elif message_id:
            octets = codec.encode(_RESPONSE_KINDS[command_id](message_id=message_id), sequence)  # type: ignore[call-arg]
        else:
            octets = codec.encode(_RESPONSE_KINDS[command_id](), sequence)
        del self._inbound[sequence]
        self._out.append(octets)
        if self._goodbye is not None or self._is_answered:
            self._settle()
        return True

    def respond_with(self, sequence: int, pdu: p.Response) -> bool:
        """Answer with a whole response PDU, which must be the one that belongs to the request."""
        command_id = self._inbound.get(sequence)
        if command_id is None or self.state is State.CLOSED:
            return False
        if pdu.command_id != command_id | c.RESPONSE and not isinstance(pdu, p.GenericNack):
            raise SessionStateError(f"{type(pdu).__name__} does not answer 0x{command_id:08X}")
        octets = codec.encode(pdu, sequence)
        del self._inbound[sequence]
        self._out.append(octets)
        if self._goodbye is not None or self._is_answered:
            self._settle()
        return True

    def unbind(self, now: float) -> None:
        """Say goodbye, once what is outstanding either way is answered; then, or after the unbind timeout,
        `Closed` follows. Nothing new may be sent from now on. An SMSC says it at once, and takes what the client sends
        before it has read that."""
        if self.state in BOUND:
            if self.role is Role.SMSC:
                self._serves = self.state
            self._part(c.UNBIND, self._next_sequence(), now)
        elif self.state is State.OPEN:
            self._state_deadline = now

    def connection_lost(self, reason: str) -> list[events.Event]:
        """The connection has gone: what is outstanding fails."""
        happened: list[events.Event] = []
        self._close(reason, happened)
        return happened

    def data_to_send(self) -> bytes:
        """All that is to be written, once."""
        if not self._out:
            return b""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        return data

    # --- time

    def next_timeout(self) -> float | None:
        """When `handle_timeout` has something to do; earlier only by `send`, `bind` and `unbind`."""
        if self.state is State.CLOSED:
            return None
        if self._enquiry_deadline is not None:
            first = self._enquiry_deadline
        else:
            first = self._last_heard + self.limits.enquire_link_interval_s
        if self._state_deadline is not None and self._state_deadline < first:
            first = self._state_deadline
        for deadline, _, _ in self._outstanding.values():
            return min(first, deadline)
        return first

    def handle_timeout(self, now: float) -> list[events.Event]:
        """Do what has fallen due."""
        happened: list[events.Event] = []
        if self.state is State.CLOSED:
            return happened
        self._expire_requests(now, happened)
        if self._state_deadline is not None and now >= self._state_deadline:
            if self._goodbye is not None:
                self._out.append(codec.header_only(self._goodbye[0], 0, self._goodbye[1]))
            self._close("not bound in time" if self.state is State.OPEN else "unbound", happened)
            return happened
        if self._enquiry_deadline is not None:
            if now >= self._enquiry_deadline:
                self._misses += 1
                if self._misses >= self.limits.enquire_link_misses:
                    self.dead = True
                    self._close(f"silent after {self._misses} enquire_link", happened)
                else:
                    self._enquire(now)
        elif now >= self._last_heard + self.limits.enquire_link_interval_s:
            self._enquire(now)
        return happened

    def _enquire(self, now: float) -> None:
        self._out.append(codec.header_only(c.ENQUIRE_LINK, 0, self._next_sequence()))
        self._enquiry_deadline = now + self.limits.enquire_link_timeout_s

    def _expire_requests(self, now: float, happened: list[events.Event]) -> None:
        due: list[int] = []
        for sequence, (deadline, _, _) in self._outstanding.items():
            if deadline > now:
                break
            due.append(sequence)
        if not due:
            return
        first_sent = self._outstanding[due[0]][0] - self.limits.response_timeout_s
        for sequence in due:
            _, command_id, token = self._outstanding.pop(sequence)
            self._expired[sequence] = (command_id, token)
            if len(self._expired) > MAX_EXPIRED:
                del self._expired[next(iter(self._expired))]
            happened.append(events.RequestFailed(token, "timeout"))
        if first_sent >= self._last_heard:
            self.silent = True
            if self._enquiry_deadline is None:
                self._enquire(now)
        self._settle()

    # --- what the peer does

    def receive(self, data: bytes, now: float) -> list[events.Event]:
        """Take bytes from the peer. Never raises for what they are."""
        happened: list[events.Event] = []
        if self.state is State.CLOSED:
            return happened
        self._last_heard = now
        self.silent = False
        if self._enquiry_deadline is not None:
            self._enquiry_deadline = None  # whatever it sends, it is alive
            self._misses = 0
        frames, error = self._framer.feed(data)
        for frame in frames:
            if frame[0] & c.RESPONSE:
                self._on_response(frame, happened)
            else:
                self._on_request(frame, now, happened)
            if self._closed:
                return happened
        if error is not None:
            self._refuse_stream(error, happened)
        return happened

    def _refuse_stream(self, error: FrameError, happened: list[events.Event]) -> None:
        self._out.append(codec.header_only(c.GENERIC_NACK, c.ESME_RINVCMDLEN, error.sequence))
        self._close(f"not SMPP: {error}", happened)

    def _on_response(self, frame: Frame, happened: list[events.Event]) -> None:
        command_id, status, sequence, buffer, start, end = frame
        request = self._outstanding.get(sequence)
        late = False
        if request is not None:
            _, expected, token = request
        elif sequence in self._expired:
            expected, token = self._expired[sequence]
            late = True
        else:
            self._on_session_response(frame, happened)
            return
        if command_id != expected | c.RESPONSE and command_id != c.GENERIC_NACK:
            return  # answers something else; ours will time out if that was its answer
        try:
            pdu = codec.decode(command_id, status, buffer, start, end)
        except DecodeError:
            return  # unreadable: the outcome stays unknown, and the timeout says so
        del (self._expired if late else self._outstanding)[sequence]
        happened.append(events.ResponseReceived(token, cast(p.Response, pdu), late))
        if self._goodbye is not None:
            self._settle()

    def _on_session_response(self, frame: Frame, happened: list[events.Event]) -> None:
        """Answers to bind and unbind; those to enquire_link have done their work by arriving."""
        command_id, status, sequence, buffer, start, end = frame
        if command_id == c.UNBIND_RESP and self.state is State.UNBOUND:
            self._serves = None
            if self._inbound:
                self._is_answered = True
            else:
                self._close("unbound", happened)
        elif self._binding is not None and self.role is Role.ESME and self._binding[0] == sequence:
            if command_id not in (self._binding[1].command_id | c.RESPONSE, c.GENERIC_NACK):
                return
            try:
                pdu = codec.decode(command_id, status, buffer, start, end)
            except DecodeError as error:
                self._close(f"unreadable bind response: {error}", happened)
                return
            bound = status == c.ESME_ROK and command_id != c.GENERIC_NACK
            if bound:
                self._bound(self._binding[1].command_id)
            happened.append(events.BindAnswered(cast(p.BindResp | p.GenericNack, pdu)))
            if not bound:
                self._close(f"bind refused: {c.status_name(status)}", happened)

    def _on_request(self, frame: Frame, now: float, happened: list[events.Event]) -> None:
        command_id, _, sequence, buffer, start, end = frame
        if command_id not in ACCEPTS[self.role, self._serves or self.state]:
            self._on_other_request(command_id, sequence, now, happened)
            return
        try:
            pdu = codec.decode(command_id, 0, buffer, start, end)
        except DecodeError as error:
            self._strike(command_id, error.status, sequence, happened)
            return
        if command_id in c.BINDS:
            self._on_bind(pdu, sequence, happened)
        elif command_id in _WITHOUT_RESPONSE:
            self._on_notification(pdu, happened)
        elif len(self._inbound) >= self.limits.max_inbound or sequence in self._inbound:
            self._answer(command_id, _OVERLOAD_STATUS[self.role], sequence)
        else:
            self._strikes = 0
            self._inbound[sequence] = command_id
            happened.append(events.RequestReceived(sequence, cast(p.Request, pdu)))

    def _on_bind(self, pdu: p.Pdu, sequence: int, happened: list[events.Event]) -> None:
        if self._binding is not None:
            self._strike(pdu.command_id, c.ESME_RALYBND, sequence, happened)
            return
        bind = cast(p.Bind, pdu)
        self._binding = (sequence, bind)
        happened.append(events.BindRequested(sequence, bind))

    def _on_notification(self, pdu: p.Pdu, happened: list[events.Event]) -> None:
        if isinstance(pdu, p.AlertNotification):
            happened.append(events.AlertReceived(pdu))
        elif isinstance(pdu, p.Outbind):
            happened.append(events.OutbindReceived(pdu))

    def _on_other_request(self, command_id: int, sequence: int, now: float, happened: list[events.Event]) -> None:
        """enquire_link and unbind, which every state answers, and what the state does not allow."""
        if command_id == c.ENQUIRE_LINK:
            self._out.append(codec.header_only(c.ENQUIRE_LINK_RESP, 0, sequence))
        elif command_id == c.UNBIND and self.state in BOUND:
            self._part(c.UNBIND_RESP, sequence, now)
        elif command_id == c.UNBIND and self.state is State.UNBOUND:  # both ends had the same idea
            self._out.append(codec.header_only(c.UNBIND_RESP, 0, sequence))
            self._close("unbound", happened)
        elif command_id not in _KNOWN_REQUESTS:
            self._strike(command_id, c.ESME_RINVCMDID, sequence, happened)
        elif command_id in c.BINDS and self.state in BOUND:
            self._strike(command_id, c.ESME_RALYBND, sequence, happened)
        else:
            self._strike(command_id, c.ESME_RINVBNDSTS, sequence, happened)

    def _strike(self, command_id: int, status: int, sequence: int, happened: list[events.Event]) -> None:
        """Answer a request that is no good, and end a session that has nothing better to say."""
        self._answer(command_id, status, sequence)
        self._strikes += 1
        if self._strikes >= self.limits.max_strikes:
            self._close(f"{self._strikes} bad requests in a row, the last one {c.status_name(status)}", happened)

    def _answer(self, command_id: int, status: int, sequence: int) -> None:
        kind = _RESPONSE_KINDS.get(command_id)
        if kind is None:
            self._out.append(codec.header_only(c.GENERIC_NACK, status, sequence))
        else:
            self._out.append(codec.encode(kind(status=status), sequence))

    # --- state

    def _next_sequence(self) -> int:
        sequence = self._sequence % c.MAX_SEQUENCE + 1
        while sequence in self._outstanding or sequence in self._expired:
            sequence = sequence % c.MAX_SEQUENCE + 1
        self._sequence = sequence
        return sequence

    def _bound(self, command_id: int) -> None:
        self.state = _BOUND_BY[command_id]
        self._framer.limit = self.limits.max_pdu_octets
        self._binding = None
        self._state_deadline = None
        self._strikes = 0

    def _part(self, command_id: int, sequence: int, now: float) -> None:
        self.state = State.UNBOUND
        self._state_deadline = now + self.limits.unbind_timeout_s
        self._goodbye = (command_id, sequence)
        self._settle()

    def _settle(self) -> None:
        """Send the unbind or unbind_resp that waits, when it need wait no longer."""
        if self._is_answered and not self._inbound:
            self._state_deadline = 0.0
        if self._goodbye is None or self._outstanding or (self._inbound and self._serves is None):
            return
        command_id, sequence = self._goodbye
        self._goodbye = None
        self._out.append(codec.header_only(command_id, 0, sequence))
        if command_id == c.UNBIND_RESP:
            self._state_deadline = 0.0  # nothing is left to wait for: closed at the next `handle_timeout`

    def _close(self, reason: str, happened: list[events.Event]) -> None:
        if self.state is State.CLOSED:
            return
        self.state, self._serves = State.CLOSED, None
        happened.extend(events.RequestFailed(token, "closed") for _, _, token in self._outstanding.values())
        self._outstanding.clear()
        self._expired.clear()
        self._inbound.clear()
        happened.append(events.Closed(reason))
