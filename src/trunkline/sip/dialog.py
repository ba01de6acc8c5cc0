"""Dialogs (RFC 3261 section 12): a call that is up, and what either side may do in it.

Theory of operation. All that another process needs to go on is one record, `DialogState`; the dialog changes it in
place. Beside it are only timers and requests under way. Three obligations meet here: our 2xx is repeated until its ACK
comes (section 13.3.1.4), a repeated 2xx of the peer gets the same ACK again (section 13.2.2.4), and a callee sends no
BYE before the ACK (section 15).
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from trunkline.sip.body import session_description
from trunkline.sip.changes import HANDLERS
from trunkline.sip.client_request import ClientRequest, OnResponse
from trunkline.sip.core import ALLOW, SDP_TYPE, SUPPORTED, Credentials, DialogListener, HeaderList
from trunkline.sip.dialog_state import DialogState as DialogState
from trunkline.sip.dialog_state import callee_state, caller_state
from trunkline.sip.flow import Flow, Target, contact_unreachable, is_numeric, is_outside, plan
from trunkline.sip.headers import Field, NameAddr
from trunkline.sip.login import Login
from trunkline.sip.message import MalformedMessage, Request, Response
from trunkline.sip.refer import OnNotify, ReferProgress, Referral, ReferRequest
from trunkline.sip.reinvite import OnResult, Reinvite
from trunkline.sip.reliable import Reliable
from trunkline.sip.requests import MAX_FORWARDS, credentials_in
from trunkline.sip.session_timer import SessionTimer
from trunkline.sip.timers import Timer
from trunkline.sip.transaction import ClientTransaction, ServerTransaction
from trunkline.sip.uri import SIP_SCHEMES, is_secure

if TYPE_CHECKING:
    from trunkline.sip.stack import Stack

ADOPT_CSEQ_JUMP: Final = 100
"""Requests that the other process may have sent after its last export."""
_NOBODY: Final = DialogListener()


class Dialog:
    """See the module's text. `ended` tells whether anything may still be sent."""

    __slots__ = (
        "_ack_due",
        "_answer_deadline",
        "_answer_interval",
        "_answer_timer",
        "_bye",
        "_ending",
        "_held",
        "_hop",
        "_login",
        "_reinvite",
        "_state",
        "ended",
        "hold_ack",
        "invite_credentials",
        "key",
        "listener",
        "referral",
        "referred",
        "reliable",
        "session",
        "stack",
    )

    def __init__(self, stack: "Stack", state: DialogState, login: Login | None = None) -> None:
        self.stack = stack
        self.listener: DialogListener = _NOBODY
        self.ended = False
        self.key = (state.call_id, state.local_tag, state.remote_tag)
        self.invite_credentials: list[Field] = []
        """Those of our last INVITE, which its ACK repeats."""
        self.hold_ack = False
        """Whether the ACK that is prepared waits until its owner has it stored."""
        self.referral: Referral | None = None
        """The last REFER of ours."""
        self.referred: ReferRequest | None = None
        """The last REFER of the peer's."""
        self.reliable: Reliable | None = None
        """The reliable responses before our 2xx."""
        self.session = SessionTimer(state)
        self._state = state
        self._login = login
        self._held = False  # our 2xx waits for a PRACK
        self._hop: tuple[str, list[str], Flow | Target, Target | None] | None = None
        self._reinvite: Reinvite | None = None
        self._bye: list[Field] | None = None  # wanted, but waiting for the ACK
        self._ending = False  # our BYE has been asked for
        self._ack_due = False  # a 2xx of the peer waits for `ack`
        self._answer_timer: Timer | None = None
        self._answer_interval = 0.0
        self._answer_deadline = 0.0

    @classmethod
    def of_callee(cls, stack: "Stack", invite: Request, tag: str, flow: Flow, key: tuple[str, ...]) -> "Dialog":
        """The dialog that our 2xx makes (section 12.1.1). Raises MalformedMessage for a bad Record-Route."""
        return cls(stack, callee_state(invite, tag, flow, key))

    @classmethod
    def of_caller(
        cls, stack: "Stack", transaction: ClientTransaction, response: Response, login: Login | None
    ) -> "Dialog":
        """The dialog that a response to our INVITE makes (section 12.1.2), a 2xx or an early one.

        Raises MalformedMessage.
        """
        state = caller_state(transaction.request, transaction.flow, transaction.heard, response, login is not None)
        dialog = cls(stack, state, login)
        dialog.invite_credentials = credentials_in(transaction.request)
        if response.status >= 200:
            dialog._ack_due = True
            dialog.session.agreed(dialog, response)
        return dialog

    @classmethod
    def adopted(
        cls, stack: "Stack", state: DialogState, listener: DialogListener, credentials: Credentials | None
    ) -> "Dialog":
        """One that another process exported; what was unacknowledged is repeated from here."""
        copy = msgspec.structs.replace(state, local_cseq=state.local_cseq + ADOPT_CSEQ_JUMP)
        dialog = cls(stack, copy, None if credentials is None else Login(*credentials))
        dialog.listener = listener
        stack.add_dialog(dialog)
        if copy.answer:
            dialog._repeat_answer()
        dialog.session.start(dialog, adopted=True)
        return dialog

    # --- for the owner

    @property
    def id(self) -> str:
        """Unique among our dialogs."""
        return f"{self._state.call_id};{self._state.local_tag}"

    @property
    def call_id(self) -> str:
        return self._state.call_id

    @property
    def is_caller(self) -> bool:
        return self._state.is_caller

    @property
    def flow(self) -> Flow:
        """Where the peer was last heard."""
        return self._state.flow

    @property
    def remote_target(self) -> str:
        return self._state.target

    @property
    def local_uri(self) -> str:
        """Who we are in it."""
        return str(NameAddr.parse(self._state.local).uri)

    def state(self) -> DialogState:
        """A copy that stays as it is; see `Stack.adopt`."""
        return msgspec.structs.replace(self._state)

    def bye(self, headers: HeaderList = ()) -> None:
        """Hang up; nothing is heard of this dialog after it. Waits for the ACK of our 2xx if that is due."""
        if self._ending or self.ended:
            return
        self._ending = True
        self.listener = _NOBODY
        self.session.stop(self)
        if self._answer_timer is not None or self._held:
            self._bye = list(headers)
        else:
            self._send_bye(headers)

    def reinvite(self, sdp: bytes, on_result: OnResult) -> None:
        """Change the session; `on_result(status, sdp)` is called once, later. `sdp` empty: a late offer, which ends
        with a call of `ack`. A refusal leaves the session as it was; 408 and 481 have ended the dialog."""
        reinvite = Reinvite(self, sdp, on_result)
        if self._ending or self.ended:
            reinvite.finish_later(481)
        elif self._reinvite is not None:
            reinvite.finish_later(491)
        else:
            self._reinvite = reinvite
            if self._answer_timer is not None or self._held:  # section 14.1: not while another is under way
                reinvite.retry_later()
            else:
                reinvite.send()

    def ack(self, sdp: bytes = b"") -> None:
        """ACK the 2xx of our last INVITE; with the answer, if the 2xx had the offer."""
        self.prepare_ack(sdp)
        self.send_ack()

    def ack_early(self) -> None:
        """ACK a 2xx that nobody has seen, should there have been one."""
        self._ack_due = True
        self.ack()

    def info(self, content_type: str, body: bytes) -> None:
        """INFO (RFC 6086); what is answered is of no consequence, but for 481."""
        self.request("INFO", [("Content-Type", content_type)], body)

    def request(
        self, method: str, headers: HeaderList = (), body: bytes = b"", on_response: OnResponse | None = None
    ) -> None:
        """Send a request in the dialog; `on_response` hears its final status once. 481 ends the dialog."""

        def report(status: int, response: Response | None) -> None:
            if on_response is not None:
                on_response(status, response)
            if status == 481:
                self.fail("gone")

        if self.ended:
            self.stack.timers.set(self.stack.now(), lambda: report(481, None))
        else:
            self.exchange(method, headers, body, report)

    def refer(self, target: str, on_notify: OnNotify, headers: HeaderList = ()) -> None:
        """Ask the peer to call `target` (a Refer-To, `<sip:...>`); `on_notify` hears how that goes, until `over`. At
        most SUBSCRIPTION_S; nothing more when the dialog ends."""
        if self._ending or self.ended or (self.referral is not None and not self.referral.over):
            status = 481 if self._ending or self.ended else 491
            self.stack.timers.set(self.stack.now(), lambda: on_notify(ReferProgress(status, 0, True)))
            return
        self.referral = Referral(self, on_notify)
        self.referral.send(target, headers)

    # --- for the stack

    def build(
        self, method: str, headers: HeaderList, body: bytes = b"", *, cseq: int
    ) -> tuple[Request, Flow | Target, Target | None]:
        """A request in this dialog, its next hop, and where to connect if that flow is gone (section 12.2.1.1)."""
        state = self._state
        if self._hop is None:
            self._hop = self._find_hop()
        uri, routes, hop, fallback = self._hop
        fields: list[Field] = [("Route", value) for value in routes]
        fields += [
            ("Max-Forwards", MAX_FORWARDS),
            ("From", state.local),
            ("To", state.remote),
            ("Call-ID", state.call_id),
            ("CSeq", f"{cseq} {method}"),
            *headers,
        ]
        return Request.make(method, uri, headers=fields, body=body), hop, fallback

    def prepare_ack(self, sdp: bytes = b"") -> None:
        """Make the ACK of the peer's 2xx part of the state, so that it can be stored before it is sent."""
        state = self._state
        fields = [("Content-Type", SDP_TYPE)] if sdp else []
        request, hop, _ = self.build("ACK", [*self.invite_credentials, *fields], sdp, cseq=state.invite_cseq)
        state.ack, state.ack_flow = self.stack.prepare_ack(request, hop)

    def send_ack(self) -> None:
        """Send what `prepare_ack` made, unless that has been done."""
        state, stack = self._state, self.stack
        if not self._ack_due or self.hold_ack or state.ack_flow is None:
            return
        self._ack_due = False
        stack.traced(state.call_id, True, "ACK")
        state.ack_flow = self._transmit(state.ack, state.ack_flow)

    def build_invite(self, sdp: bytes) -> tuple[Request, Flow | Target, Target | None]:
        """A re-INVITE."""
        state = self._state
        state.invite_cseq = self.next_cseq()
        state.ack = b""
        fields = [
            ("Contact", self.contact),
            ("Allow", ALLOW),
            ("Supported", SUPPORTED),
            *self.session.fields(self.stack.config.min_se_s),
        ]
        if sdp:
            fields.append(("Content-Type", SDP_TYPE))
        return self.build("INVITE", fields, sdp, cseq=state.invite_cseq)

    def next_cseq(self) -> int:
        self._state.local_cseq += 1
        return self._state.local_cseq

    def invite_sent(self, request: Request) -> None:
        """An INVITE of ours has gone out, perhaps with credentials: what its ACK repeats."""
        self._state.invite_cseq = request.cseq[0]
        self.invite_credentials = credentials_in(request)

    def login(self) -> Login | None:
        """Our credentials for a request, if it goes where they belong."""
        return self._login.fresh() if self._login is not None and self.goes_home else None

    @property
    def goes_home(self) -> bool:
        """Whether requests go to the hosts that our INVITE went to. Whoever answered may have named himself as Contact:
        with our answers to challenges of his he could log in as us, or guess our password."""
        homes = self._state.homes
        try:
            _, _, hop, fallback = self._hop or self._find_hop()
        except MalformedMessage:
            return False
        hosts = [one.remote[0] if isinstance(one, Flow) else one.host for one in (hop, fallback) if one is not None]
        return not homes or all(host in homes for host in hosts)

    def ack_again(self, cseq: int) -> bool:
        """Our peer repeats the 2xx of our INVITE `cseq`: repeat the ACK, if that has been sent."""
        state = self._state
        if cseq != state.invite_cseq or not state.ack or state.ack_flow is None:
            return False
        if self.hold_ack:
            return True  # it follows
        state.ack_flow = self._transmit(state.ack, state.ack_flow)
        return True

    def reinvite_accepted(self, response: Response, flow: Flow) -> None:
        """A 2xx of our re-INVITE."""
        self._ack_due = True
        self.retarget(response, flow)
        self.session.agreed(self, response)

    def ended_early(self, request: Request) -> None:
        """The peer's BYE came before its 2xx, and has been answered."""
        listener, self._ending = self.listener, True
        self._over()
        listener.on_bye(request)

    def retarget(self, message: Request | Response, flow: Flow) -> None:
        """A target refresh (section 12.2): the peer may have moved."""
        contact = message.contact
        if contact is not None and contact.uri.scheme in SIP_SCHEMES:
            state = self._state
            before, state.target = state.target, str(contact.uri.replace(headers={}))
            if state.target != before:
                sent_by = message.via.host if isinstance(message, Request) else ""
                state.behind_nat = contact_unreachable(contact.uri.host, flow.remote[0], sent_by)
            state.flow = flow if flow.id or not state.flow.id else state.flow
            self._hop = None

    def answering(self, transaction: ServerTransaction, data: bytes, cseq: int) -> None:
        """Our 2xx is going to be sent; what is stored now repeats it."""
        state = self._state
        state.answer, state.answer_cseq, state.answer_flow = data, cseq, transaction.flow

    def await_ack(self, transaction: ServerTransaction) -> None:
        """Our 2xx has been sent: repeat it until the ACK comes (section 13.3.1.4)."""
        self._held = False
        self._state.answer_flow = transaction.flow
        self._repeat_answer()

    def hold(self) -> None:
        """Our 2xx is settled, but waits for a PRACK; `await_ack` or `unanswered` follows."""
        self._held = True

    def unanswered(self, reason: str) -> None:
        """Our 2xx was never sent."""
        listener, crossing = self.listener, self._ending
        self._ending, self._held = True, False
        self._over()
        if not crossing:
            listener.on_ended(reason)

    def receive_ack(self, request: Request) -> None:
        state = self._state
        if self._answer_timer is None or request.cseq[0] != state.answer_cseq:
            return
        self._stop_answer()
        self.stack.traced(state.call_id, False, "ACK")
        if self._bye is not None:
            self._send_bye(self._bye)
            return
        self.listener.on_ack(session_description(request) or b"")

    def receive(self, request: Request, transaction: ServerTransaction, flow: Flow) -> None:
        """A request other than ACK and CANCEL, in a transaction of its own."""
        state, number, method = self._state, request.cseq[0], request.method
        if number < state.remote_cseq or (number == state.remote_cseq and method == "INVITE"):
            # Section 12.2.2. The same INVITE again: its transaction died with another process.
            if number == state.answer_cseq and state.answer:
                transaction.respond(state.answer, 200)
            else:
                self.reply(transaction, request, 500, reason="CSeq out of order")
            return
        state.remote_cseq = number
        if flow.id:
            state.flow = flow
        if method == "BYE":
            self._receive_bye(request, transaction)
        elif self._ending and method != "PRACK":  # which our 2xx, and our BYE with it, may wait for
            self.reply(transaction, request, 481)
        elif method == "INFO":
            self.listener.on_info(request)
            self.reply(transaction, request, 200)
        elif method in HANDLERS:
            HANDLERS[method](self, request, transaction, flow)
        else:
            status, headers = self.listener.on_request(request) or self.stack.default_answer(request)
            self.reply(transaction, request, status, headers)

    @property
    def ending(self) -> bool:
        """Whether our BYE has been asked for."""
        return self._ending

    @property
    def contact(self) -> str:
        """Ours."""
        state = self._state
        return self.stack.contact(state.flow, is_secure(state.target))

    def contact_for(self, request: Request) -> str:
        """Ours in the answer to a request."""
        return self.stack.contact(self._state.flow, is_secure(request.uri))

    @property
    def answering_invite(self) -> bool:
        """Whether our 2xx to an INVITE waits for its ACK, or for a PRACK."""
        return self._answer_timer is not None or self._held

    def takes_rack(self, request: Request) -> bool:
        """Whether a PRACK is for a response that the process before this one sent."""
        rack = self._state.rack
        return bool(rack) and " ".join(request.headers.get("RAck").split()) == rack

    @property
    def busy(self) -> bool:
        """Whether an INVITE is under way, either way."""
        return self._reinvite is not None or self._answer_timer is not None or self._held

    def find_way(self) -> None:
        """Raises MalformedMessage when nothing can be sent to the peer."""
        self._hop = self._find_hop()

    def go_on_from(self, early: "Dialog", remote_cseq: int) -> None:
        """It was an early dialog before, with requests of its own."""
        self._state.local_cseq = max(self._state.local_cseq, early._state.local_cseq)
        self._state.remote_cseq = max(self._state.remote_cseq, remote_cseq)

    def answers_reliably(self, reliable: Reliable, remote_cseq: int) -> None:
        """There were reliable responses before our 2xx, perhaps with requests of the peer's."""
        self.reliable = reliable
        self._state.rack = reliable.rack
        self._state.remote_cseq = max(self._state.remote_cseq, remote_cseq)

    def reinvite_done(self, reinvite: Reinvite) -> None:
        if self._reinvite is reinvite:
            self._reinvite = None

    @property
    def offering(self) -> bool:
        """Whether an INVITE of ours is out."""
        return self._reinvite is not None and self._reinvite.under_way

    def abandon(self) -> None:
        """Another host has it: nothing is sent in it or told of it any more."""
        self._ending, self.listener = True, _NOBODY
        self._over()

    def fail(self, reason: str) -> None:
        """End it with a BYE that we send on our own account."""
        if self._ending or self.ended:
            return
        listener = self.listener
        self._stop_answer()
        self.bye([("Reason", f'SIP;cause={_CAUSES[reason]};text="{reason}"')])
        listener.on_ended(reason)

    # --- inside

    def _find_hop(self) -> tuple[str, list[str], Flow | Target, Target | None]:
        state = self._state
        flow = state.flow
        uri, routes, target = plan(state.routes, state.target, flow.transport if flow.reliable else "")
        if target.transport == "TLS" and is_numeric(target.host):
            target = target._replace(domain=flow.domain)  # an address alone says nothing about who should be there
        if flow.id and target.transport == flow.transport:
            # The peer's connection is used as long as it lives: behind a NAT there is no other way. After that (it
            # ends with the process, too) another is made to the remote target.
            return uri, routes, flow, target
        if flow.id and flow.transport == "TLS" and target.transport != "TLS":
            return uri, routes, flow, None  # a Contact does not lead from TLS into the open: requests may have keys
        if is_outside(flow.remote[0]):  # who is there does not aim our requests at the inside, by no route either
            if is_numeric(target.host) and self.stack.is_inside(target.host, target.host):
                return uri, routes, flow, None
            target = target._replace(outside=not is_numeric(target.host))
        if state.behind_nat and not routes and not flow.reliable:
            return uri, routes, flow, None
        return uri, routes, target, None

    def exchange(self, method: str, headers: HeaderList, body: bytes, report: OnResponse) -> None:
        self.hold_ack = False
        self.send_ack()  # if it is prepared: nothing overtakes it
        request, hop, fallback = self.build(method, headers, body, cseq=self.next_cseq())
        ClientRequest(self.stack, hop, fallback, self.login(), self.next_cseq, report).send(request)

    def _send_bye(self, headers: Iterable[Field]) -> None:
        self._bye = None
        if self._ack_due and not self._state.ack:
            self.ack()
        self.exchange("BYE", list(headers), b"", lambda status, response: self._over())

    def _receive_bye(self, request: Request, transaction: ServerTransaction) -> None:
        self.reply(transaction, request, 200)
        crossing, listener = self._ending, self.listener
        if self._bye is not None or not crossing:  # ours was not sent and is not needed any more
            self._over()
        if not crossing:
            self._ending = True
            listener.on_bye(request)

    def reply(
        self,
        transaction: ServerTransaction,
        request: Request,
        status: int,
        headers: HeaderList = (),
        *,
        reason: str = "",
        body: bytes = b"",
    ) -> bytes:
        return self.stack.reply(transaction, request, status, reason, headers=headers, body=body)

    def _repeat_answer(self) -> None:
        now, timing = self.stack.now(), self.stack.timing
        self._answer_interval = timing.t1
        self._answer_deadline = now + timing.give_up
        self._answer_timer = self.stack.timers.set(now + timing.t1, self._on_answer_timer)

    def _on_answer_timer(self) -> None:
        state, now = self._state, self.stack.now()
        if now >= self._answer_deadline:
            self._stop_answer()
            self.stack.count("unacknowledged")
            if self._bye is not None:
                self._send_bye(self._bye)
            else:
                self.fail("no-ack")
            return
        if state.answer_flow is not None:
            self.stack.count("retransmissions")
            state.answer_flow = self._transmit(state.answer, state.answer_flow)
        self._answer_interval = min(self._answer_interval * 2, self.stack.timing.t2)
        due = min(now + self._answer_interval, self._answer_deadline)
        self._answer_timer = self.stack.timers.set(due, self._on_answer_timer)

    def _transmit(self, data: bytes, flow: Flow) -> Flow:
        """Send what is no transaction's; the flow that it went by. Where that connection is gone, perhaps with the
        process that had it, another is made to where requests would go."""
        if not self.stack.transmit(data, flow) and flow.id:
            _, _, hop, fallback = self._find_hop()
            target = fallback or hop
            if isinstance(target, Target):
                flow = self.stack.flow_to(target)
                self.stack.transmit(data, flow)
        return flow

    def _stop_answer(self) -> None:
        self.stack.timers.cancel(self._answer_timer)
        self._answer_timer = None
        self._state.answer = b""

    def _over(self) -> None:
        self.ended = True
        self._bye = None
        self._stop_answer()
        self.session.stop(self)
        if self.referral is not None:
            self.referral.close()
        if self.referred is not None:
            self.referred.close()
        self.referral = self.referred = self.reliable = None
        self.listener = _NOBODY  # transactions that linger know us, and would know who has gone
        self.stack.forget_dialog(self)


_CAUSES: Final = {"no-ack": 408, "timeout": 408, "gone": 481, "expired": 408}
"""The status that a BYE of our own account gives as its Reason (RFC 3326)."""
