"""Transactions (RFC 3261 section 17, with the accepted states of RFC 6026).

Theory of operation. A transaction is a table: in this state, on this event, go to that state and do this. Events are a
message from the network, a message from the transaction's user, or one of two times: RETRANSMIT (timers A, E, G) and
EXPIRE (B, F, H: nobody answered; D, I, J, K, L, M: long enough to absorb what is still on its way). One timer serves
both: it is set to whichever comes first. The tables are the RFC's figures 5 to 8; comments name the differences.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from trunkline.sip.flow import Flow
from trunkline.sip.message import Request, Response
from trunkline.sip.requests import ack_of_failure
from trunkline.sip.timers import Timer

if TYPE_CHECKING:
    from trunkline.sip.stack import Stack

NEVER: Final = float("inf")
MAX_LINGERING: Final = 500


class State(StrEnum):
    CALLING = "calling"
    TRYING = "trying"
    PROCEEDING = "proceeding"
    ACCEPTED = "accepted"
    COMPLETED = "completed"
    CONFIRMED = "confirmed"
    TERMINATED = "terminated"


class Event(StrEnum):
    REQUEST = "request"
    """Server: the request came again."""
    ACK = "ack"
    PROVISIONAL = "1xx"
    SUCCESS = "2xx"
    FAILURE = "3xx-6xx"
    RETRANSMIT = "retransmit"
    EXPIRE = "expire"
    ERROR = "transport error"


class _Transaction:
    """What both sides share: the state, one timer, and the walk through the table."""

    __slots__ = ("_deadline", "_interval", "_resend_at", "_timer", "flow", "key", "stack", "state")

    def __init__(self, stack: "Stack", key: tuple[str, ...], flow: Flow, state: State) -> None:
        self.stack = stack
        self.key = key
        self.flow = flow
        self.state = state
        self._interval = 0.0  # until the next retransmission
        self._resend_at = NEVER
        self._deadline = NEVER
        self._timer: Timer | None = None

    def fire(self, event: Event) -> None:
        """Go through the table; what it does not name is ignored."""
        raise AssertionError("each side has its own")

    def _schedule(self, *, resend_in: float = NEVER, expire_in: float = NEVER) -> None:
        """Set both times, from now."""
        now = self.stack.now()
        self._interval = resend_in
        self._resend_at = now + resend_in
        self._deadline = now + expire_in
        self._arm()

    def _resend_later(self, interval: float) -> None:
        """Set the next retransmission and leave the deadline."""
        self._interval = interval
        self._resend_at = self.stack.now() + interval
        self._arm()

    def _arm(self) -> None:
        timers = self.stack.timers
        timers.cancel(self._timer)
        due = min(self._resend_at, self._deadline)
        self._timer = None if due == NEVER else timers.set(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.fire(Event.EXPIRE if self.stack.now() >= self._deadline else Event.RETRANSMIT)

    def _stop(self) -> None:
        self.stack.timers.cancel(self._timer)
        self._timer = None
        self.state = State.TERMINATED


# --- server (figures 7 and 8)


class ServerTransaction(_Transaction):
    """A request that came in. `flow` is where responses go, `reopen` another to try should its connection be gone."""

    __slots__ = ("_last", "_reopen", "_table", "invite", "merge_key", "to_tag")

    def __init__(
        self, stack: "Stack", key: tuple[str, ...], flow: Flow, reopen: Flow | None, *, is_invite: bool
    ) -> None:
        super().__init__(stack, key, flow, State.PROCEEDING if is_invite else State.TRYING)
        self._reopen = reopen
        self._table = INVITE_SERVER if is_invite else NON_INVITE_SERVER
        self._last = b""
        self.merge_key: tuple[str, ...] | None = None
        self.invite: object = None
        """The `ServerInvite` that a CANCEL is for, until it is answered."""
        self.to_tag = ""
        """Our tag, which the response to a CANCEL repeats."""

    @property
    def reliable(self) -> bool:
        return self.flow.reliable

    @property
    def silent(self) -> bool:
        """Whether no response has been sent, not even a provisional one."""
        return self.state is State.PROCEEDING and not self._last

    def respond(self, response: bytes, status: int) -> None:
        """Send a response and keep it for retransmissions; after a final one only 2xx of an INVITE are sent."""
        event = Event.PROVISIONAL if status < 200 else Event.SUCCESS if status < 300 else Event.FAILURE
        if (self.state, event) not in self._table:
            return
        self._last = response
        self.fire(event)

    def fire(self, event: Event) -> None:
        step = self._table.get((self.state, event))
        if step is not None:
            self.state, act = step
            if act is not None:
                act(self)

    def resend(self) -> None:
        if self._last:
            self.send(self._last)

    def send(self, data: bytes) -> None:
        """Send bytes to where this request came from (RFC 3261 section 18.2.2)."""
        if not self.stack.transmit(data, self.flow) and self._reopen is not None:
            self.flow, self._reopen = self._reopen, None
            self.stack.transmit(data, self.flow)

    def again(self) -> None:
        """Timer G."""
        self.resend()
        self._resend_later(min(self._interval * 2, self.stack.timing.t2))

    def failed(self) -> None:
        """A final response of an INVITE above 299: timers G and H."""
        self.resend()
        timing = self.stack.timing
        self._schedule(resend_in=NEVER if self.reliable else timing.t1, expire_in=timing.give_up)
        if self.merge_key is not None:
            self.stack.lingering.add(self)

    def accepted(self) -> None:
        """A 2xx of an INVITE: Timer L. The dialog retransmits it."""
        self.resend()
        self._last = b""
        self._schedule(expire_in=self.stack.timing.give_up)

    def confirmed(self) -> None:
        """Timer I."""
        self._last = b""
        if self.reliable:
            self.done()
        else:
            self._schedule(expire_in=self.stack.timing.t4)

    def answered(self) -> None:
        """A final response of another method: Timer J."""
        self.resend()
        if self.reliable:
            self.done()
        else:
            self._schedule(expire_in=self.stack.timing.give_up)
            if self.merge_key is not None:
                self.stack.lingering.add(self)

    def unconfirmed(self) -> None:
        self.stack.count("unacknowledged")
        self.done()

    def done(self) -> None:
        self._stop()
        self.stack.forget_server(self)


class Lingering:
    """Transactions outside of dialogs that have had their final response, from anyone, and wait for its ACK or for the
    request to be repeated (timers H and J, 32 s). Beyond MAX_LINGERING the oldest goes: a flood would fill them all.
    Should its request come again, it is answered anew."""

    def __init__(self) -> None:
        self._all: dict[ServerTransaction, None] = {}

    def add(self, transaction: ServerTransaction) -> None:
        self._all[transaction] = None
        if len(self._all) > MAX_LINGERING:
            next(iter(self._all)).done()

    def discard(self, transaction: ServerTransaction) -> None:
        self._all.pop(transaction, None)


Server = ServerTransaction
_ServerStep = tuple[State, Callable[[ServerTransaction], None] | None]

INVITE_SERVER: Final[dict[tuple[State, Event], _ServerStep]] = {
    (State.PROCEEDING, Event.REQUEST): (State.PROCEEDING, Server.resend),
    (State.PROCEEDING, Event.PROVISIONAL): (State.PROCEEDING, Server.resend),
    (State.PROCEEDING, Event.SUCCESS): (State.ACCEPTED, Server.accepted),
    (State.PROCEEDING, Event.FAILURE): (State.COMPLETED, Server.failed),
    # RFC 6026 section 7.1: the INVITE is absorbed, and only its user sends the 2xx again.
    (State.ACCEPTED, Event.EXPIRE): (State.TERMINATED, Server.done),
    (State.COMPLETED, Event.REQUEST): (State.COMPLETED, Server.resend),
    (State.COMPLETED, Event.RETRANSMIT): (State.COMPLETED, Server.again),
    (State.COMPLETED, Event.ACK): (State.CONFIRMED, Server.confirmed),
    (State.COMPLETED, Event.EXPIRE): (State.TERMINATED, Server.unconfirmed),
    (State.CONFIRMED, Event.EXPIRE): (State.TERMINATED, Server.done),
}
NON_INVITE_SERVER: Final[dict[tuple[State, Event], _ServerStep]] = {
    (State.TRYING, Event.SUCCESS): (State.COMPLETED, Server.answered),
    (State.TRYING, Event.FAILURE): (State.COMPLETED, Server.answered),
    (State.COMPLETED, Event.REQUEST): (State.COMPLETED, Server.resend),
    (State.COMPLETED, Event.EXPIRE): (State.TERMINATED, Server.done),
}


# --- client (figures 5 and 6)

Report = Callable[["ClientTransaction", int, Response | None], None]
"""Hears each response but retransmitted ones, and 408 or 503 without a response when none came or none could."""


class ClientTransaction(_Transaction):
    """A request of ours. `fallback` is another flow to try should the first fail before anything was heard."""

    __slots__ = ("_ack", "_data", "_fallback", "_report", "_response", "_table", "heard", "is_invite", "request")

    def __init__(
        self,
        stack: "Stack",
        key: tuple[str, ...],
        flow: Flow,
        request: Request,
        report: Report,
        fallback: Flow | None,
    ) -> None:
        self.is_invite = request.method == "INVITE"
        super().__init__(stack, key, flow, State.CALLING if self.is_invite else State.TRYING)
        self.request = request
        self._table = INVITE_CLIENT if self.is_invite else NON_INVITE_CLIENT
        self._data = request.encode()
        self._report = report
        self._fallback = fallback
        self._response: Response | None = None
        self._ack = b""
        self.heard = flow
        """Where the last response came from."""

    @property
    def sent(self) -> bytes:
        """The request as it went out last; empty after its final response."""
        return self._data

    def start(self) -> None:
        """Send it for the first time: timers A and B, or E and F."""
        timing = self.stack.timing
        self._schedule(resend_in=NEVER if self.flow.reliable else timing.t1, expire_in=timing.give_up)
        if not self.stack.transmit(self._data, self.flow):
            # Told from the heap, so that nobody hears of a request before it was returned to him.
            self.stack.timers.set(self.stack.now(), self.flow_failed)

    def receive(self, response: Response, flow: Flow) -> None:
        """A response that matches."""
        self._response = response
        self.heard = flow
        status = response.status
        self.fire(Event.PROVISIONAL if status < 200 else Event.SUCCESS if status < 300 else Event.FAILURE)

    def flow_failed(self) -> None:
        """The request could not be sent, or its connection closed. After a provisional response the peer opens
        another (RFC 3261 section 18.2.2), so that only the wait goes on."""
        if self.state not in (State.CALLING, State.TRYING):
            return
        if self._fallback is None:
            self.fire(Event.ERROR)
            return
        self.stack.move(self, self._fallback)
        self._fallback = None
        self._data = self.request.encode()
        self.start()

    def fire(self, event: Event) -> None:
        step = self._table.get((self.state, event))
        if step is not None:
            self.state, act = step
            if act is not None:
                act(self)

    def again(self) -> None:
        """Timers A (doubles without a limit) and E (up to T2; T2 once the peer is at work)."""
        self.stack.count("retransmissions")
        self.stack.transmit(self._data, self.flow)
        longest = NEVER if self.is_invite else self.stack.timing.t2
        self._resend_later(longest if self.state is State.PROCEEDING else min(self._interval * 2, longest))

    def proceeding(self) -> None:
        """Of an INVITE: its user bounds the wait from here on (Timer C)."""
        if self._deadline != NEVER:
            self._schedule()
        self._pass()

    def accepted(self) -> None:
        """Timer M."""
        self._schedule(expire_in=self.stack.timing.give_up)
        self._pass()

    def failed(self) -> None:
        """ACK, and Timer D."""
        assert self._response is not None
        self._ack = ack_of_failure(self.request, self._response).encode()
        self.stack.transmit(self._ack, self.flow)
        self._finish(self.stack.timing.give_up)

    def answered(self) -> None:
        """Timer K."""
        self._finish(self.stack.timing.t4)

    def _finish(self, linger_s: float) -> None:
        self._data = b""
        response, report = self._response, self._report
        self._response = None
        assert response is not None
        if self.flow.reliable:
            self.done()
        else:
            self._schedule(expire_in=linger_s)
        report(self, response.status, response)

    def ack_again(self) -> None:
        self.stack.transmit(self._ack, self.flow)

    def timed_out(self) -> None:
        self.stack.count("timeouts")
        self._give_up(408)

    def unsent(self) -> None:
        self.stack.count("transport_errors")
        self._give_up(503)

    def _give_up(self, status: int) -> None:
        report = self._report
        self.done()
        report(self, status, None)

    def done(self) -> None:
        """Nothing more is reported. Whoever heard it may know us, and goes without the garbage collector."""
        self._stop()
        self.stack.forget_client(self)
        self._report = _unheard

    def pass_on(self) -> None:
        self._pass()

    def _pass(self) -> None:
        response, self._response = self._response, None
        assert response is not None
        self._report(self, response.status, response)


def _unheard(_transaction: ClientTransaction, _status: int, _response: Response | None) -> None:
    """Nobody waits for it any more."""


Client = ClientTransaction
_ClientStep = tuple[State, Callable[[ClientTransaction], None] | None]

INVITE_CLIENT: Final[dict[tuple[State, Event], _ClientStep]] = {
    (State.CALLING, Event.RETRANSMIT): (State.CALLING, Client.again),
    (State.CALLING, Event.EXPIRE): (State.TERMINATED, Client.timed_out),
    (State.CALLING, Event.ERROR): (State.TERMINATED, Client.unsent),
    (State.CALLING, Event.PROVISIONAL): (State.PROCEEDING, Client.proceeding),
    (State.CALLING, Event.SUCCESS): (State.ACCEPTED, Client.accepted),
    (State.CALLING, Event.FAILURE): (State.COMPLETED, Client.failed),
    (State.PROCEEDING, Event.PROVISIONAL): (State.PROCEEDING, Client.proceeding),
    (State.PROCEEDING, Event.SUCCESS): (State.ACCEPTED, Client.accepted),
    (State.PROCEEDING, Event.FAILURE): (State.COMPLETED, Client.failed),
    (State.COMPLETED, Event.FAILURE): (State.COMPLETED, Client.ack_again),
    # A forking proxy forwards every 2xx (section 16.7), even one after its final failure: its user ends that call.
    (State.COMPLETED, Event.SUCCESS): (State.COMPLETED, Client.pass_on),
    (State.COMPLETED, Event.EXPIRE): (State.TERMINATED, Client.done),
    (State.ACCEPTED, Event.SUCCESS): (State.ACCEPTED, Client.pass_on),
    (State.ACCEPTED, Event.EXPIRE): (State.TERMINATED, Client.done),
}
NON_INVITE_CLIENT: Final[dict[tuple[State, Event], _ClientStep]] = {
    (State.TRYING, Event.RETRANSMIT): (State.TRYING, Client.again),
    (State.TRYING, Event.EXPIRE): (State.TERMINATED, Client.timed_out),
    (State.TRYING, Event.ERROR): (State.TERMINATED, Client.unsent),
    (State.TRYING, Event.PROVISIONAL): (State.PROCEEDING, None),
    (State.TRYING, Event.SUCCESS): (State.COMPLETED, Client.answered),
    (State.TRYING, Event.FAILURE): (State.COMPLETED, Client.answered),
    (State.PROCEEDING, Event.RETRANSMIT): (State.PROCEEDING, Client.again),
    (State.PROCEEDING, Event.EXPIRE): (State.TERMINATED, Client.timed_out),
    (State.PROCEEDING, Event.SUCCESS): (State.COMPLETED, Client.answered),
    (State.PROCEEDING, Event.FAILURE): (State.COMPLETED, Client.answered),
    (State.COMPLETED, Event.EXPIRE): (State.TERMINATED, Client.done),
}
