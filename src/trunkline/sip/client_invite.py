"""An INVITE of ours, from the call to its answer (RFC 3261 sections 9.1, 13.2 and 22)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from trunkline.sip.body import session_description
from trunkline.sip.core import ALLOW, EXTENSIONS, SDP_TYPE, SUPPORTED, CallListener, Credentials, HeaderList
from trunkline.sip.dialog import Dialog
from trunkline.sip.errors import NotAcceptable
from trunkline.sip.flow import Flow, Target, plan
from trunkline.sip.headers import Field
from trunkline.sip.login import Login
from trunkline.sip.message import REASONS, MalformedMessage, Request, Response
from trunkline.sip.reliable import TAG, EarlyDialog, rseq_of
from trunkline.sip.requests import MAX_FORWARDS, cancel_of, credentials_in, renewed
from trunkline.sip.session_timer import request_fields, seconds_of
from trunkline.sip.timers import Timer
from trunkline.sip.transaction import ClientTransaction, ServerTransaction
from trunkline.sip.uri import is_secure

if TYPE_CHECKING:
    from trunkline.sip.stack import Stack

MAX_FORKS: Final = 16
"""Answers and early dialogs of one INVITE that are told apart; further ones are ignored."""


MAX_LONGER: Final = 2
"""Times that an INVITE is sent again for a longer session interval (422)."""
_WITHOUT_100REL: Final = ", ".join(tag for tag in EXTENSIONS if tag != TAG)
_NOBODY: Final = CallListener()


class ClientInvite:
    """A call that is being placed. `cancel` gives it up; the listener hears how it ended, once."""

    __slots__ = (
        "_cancel_headers",
        "_cancel_status",
        "_dialogs",
        "_early",
        "_early_bye",
        "_early_sdp",
        "_elsewhere",
        "_expiry",
        "_listener",
        "_login",
        "_longer",
        "_offered",
        "_over",
        "_proceeding",
        "_stack",
        "_target",
        "_told",
        "_transaction",
        "call_id",
        "from_",
        "local_tag",
        "routes",
        "session_s",
        "to",
        "uri",
    )

    def __init__(
        self,
        stack: "Stack",
        uri: str,
        to: str,
        from_: str,
        routes: list[str],
        credentials: Credentials | None,
        listener: CallListener,
    ) -> None:
        self.call_id = stack.token()
        self.local_tag = stack.token()
        self.uri, self.to, self.from_, self.routes = uri, to, from_, routes
        self._stack = stack
        self._listener = listener
        self._login = None if credentials is None else Login(*credentials)
        self._offered = False
        self._transaction: ClientTransaction | None = None
        self._target: Flow | Target | None = None
        self._told: Flow | None = None  # the way that the listener knows of
        self._elsewhere = False  # another host has sent it, and gets the responses
        self._proceeding = False  # a provisional response has come
        self._over = False  # the listener has heard the end
        self._cancel_status = 0  # what to tell once it is cancelled: 487, or 408 if it rang too long
        self._cancel_headers: list[Field] = []
        self._expiry: Timer | None = None
        self._dialogs: dict[str, Dialog] = {}  # by the peer's tag
        self._early_sdp: dict[str, bytes] = {}
        self._early_bye: dict[str, Request] = {}  # a BYE that overtook its 2xx
        self._early: dict[str, EarlyDialog] = {}  # forks that answer reliably
        self._longer = 0
        self.session_s = stack.config.session_expires_s
        """The session interval that is asked for; 0: none (RFC 4028)."""

    def start(self, target: Flow | Target | None, sdp: bytes, headers: HeaderList, timeout_s: float | None) -> None:
        """Send the INVITE. Raises MalformedMessage for a URI that is none."""
        stack = self._stack
        uri, routes, hop = plan(self.routes, self.uri)
        self._target = target or hop
        self._offered = bool(sdp)
        flow = self._target if isinstance(self._target, Flow) else stack.flow_to(self._target)
        fields: list[Field] = [("Route", value) for value in routes]
        fields += [
            ("Max-Forwards", MAX_FORWARDS),
            ("From", f"{self.from_};tag={self.local_tag}"),
            ("To", self.to),
            ("Call-ID", self.call_id),
            ("CSeq", "1 INVITE"),
            ("Contact", stack.contact(flow, is_secure(uri))),
            ("Allow", ALLOW),
            # Without an offer in the INVITE, a reliable response would have to bring one, and its PRACK the answer.
            ("Supported", SUPPORTED if sdp else _WITHOUT_100REL),
            *request_fields(self.session_s, stack.config.min_se_s),
            *stack.client_headers,
            *headers,
        ]
        if sdp:
            fields.append(("Content-Type", SDP_TYPE))
        stack.add_call((self.call_id, self.local_tag), self)
        limit_s = stack.config.invite_timeout_s if timeout_s is None else timeout_s
        self._expiry = stack.timers.set(stack.now() + limit_s, self._expired)
        self._send(Request.make("INVITE", uri, headers=_last_wins(fields), body=sdp))

    @classmethod
    def resumed(cls, stack: "Stack", request: Request, flow: Flow) -> "ClientInvite":
        """An INVITE that another process sent, and that got a provisional response: to be cancelled."""
        made = cls(stack, request.uri, request.headers.get("To"), "", [], None, CallListener())
        made.call_id, made.local_tag = request.call_id, request.from_tag
        made._target, made._proceeding = flow, True
        stack.add_call((made.call_id, made.local_tag), made)
        made._transaction = stack.resume_client(request, flow, made._report)
        return made

    def withdraw(self, early: Sequence[Response]) -> None:
        """Of a resumed one, which another host sent that is lost: cancel it, whether or not that host has heard of the
        callee. Nothing that the callee says of the INVITE need come here, so that there is no provisional response to
        be waited for (section 9.1); that host's lease is over, so the CANCEL cannot overtake the INVITE by much.

        `early`: the provisional responses that the host is known to have got. A callee who has picked up told that host
        too: he is hung up on in the early dialog, or in the one that the response to the CANCEL names (its tag is that
        of the responses to the INVITE, section 9.2). Raises MalformedMessage."""
        self._elsewhere = True
        self.cancel()
        for response in early:
            self._part(response)

    def _part(self, early: Response) -> None:
        """A callee may have picked up in this dialog: ACK and BYE are what he needs then; one who still rings ignores
        the one and is ended by the other, as by the CANCEL (section 15)."""
        transaction = self._transaction
        if transaction is None or not early.to_tag or early.to_tag in self._dialogs or len(self._dialogs) >= MAX_FORKS:
            return
        dialog = Dialog.of_caller(self._stack, transaction, early, None)
        self._dialogs[early.to_tag] = dialog
        dialog.ack_early()
        self._stack.add_dialog(dialog)
        dialog.bye()

    @property
    def sent(self) -> tuple[bytes, Flow]:
        """The INVITE as it went out last, and where to; see `Stack.withdraw`."""
        assert self._transaction is not None
        return self._transaction.request.encode(), self._transaction.flow

    @property
    def heard(self) -> bool:
        """Whether the far end has said anything to it."""
        transaction = self._transaction
        return self._proceeding or (transaction is not None and transaction.request.cseq[0] > 1)

    @property
    def over(self) -> bool:
        """Whether its end has been told."""
        return self._over

    def cancel(self, headers: HeaderList = ()) -> None:
        """Give up. CANCEL goes out once the callee is known to have the INVITE (section 9.1). `on_failure` hears 487
        (at once if the callee is not known to have it) or the status that came before it. If an answer was faster, it
        is ACKed and ended."""
        self._cancel(487, headers)

    def abandon(self) -> None:
        """Another host has the call: nothing is sent or told any more."""
        if not self._over:
            self._end()
        self._stack.timers.cancel(self._expiry)
        self._cancel_status = 0
        if self._transaction is not None:
            self._transaction.done()

    # --- for the stack

    def receive_early(self, request: Request, transaction: ServerTransaction) -> None:
        """A request in a dialog whose 2xx we have not seen: the network changed their order, or it is an UPDATE."""
        early = self._early.get(request.from_tag)
        if request.method == "BYE" and len(self._early_bye) < MAX_FORKS:
            self._early_bye[request.from_tag] = request
            self._stack.reply(transaction, request, 200)
        elif request.method == "UPDATE" and early is not None and request.cseq[0] > early.remote_cseq:
            early.remote_cseq = request.cseq[0]
            self._receive_update(request, transaction, early)
        else:
            self._stack.reply(transaction, request, 500, headers=[("Retry-After", "1")])

    def _receive_update(self, request: Request, transaction: ServerTransaction, early: EarlyDialog) -> None:
        """RFC 3311 section 5.2."""
        offer, stack, sdp = session_description(request), self._stack, b""
        if offer is None:
            stack.reply(transaction, request, 415, headers=[("Accept", SDP_TYPE)])
            return
        if offer:
            if not early.answered:  # our own offer has no answer yet
                stack.reply(transaction, request, 491)
                return
            try:
                sdp = self._listener.on_early_update(request.from_tag, offer)
            except NotAcceptable as error:
                stack.reply(transaction, request, error.status)
                return
            early.updated = True
        fields = [("Contact", early.dialog.contact_for(request)), ("Allow", ALLOW)]
        if sdp:
            fields.append(("Content-Type", SDP_TYPE))
        stack.reply(transaction, request, 200, headers=fields, body=sdp)

    # --- inside

    def _send(self, request: Request) -> None:
        assert self._target is not None
        self._proceeding = False
        self._transaction = self._stack.start_client(request, self._target, self._report)
        self._tell(self._transaction)

    def _tell(self, transaction: ClientTransaction) -> None:
        self._told = transaction.flow
        self._listener.on_sent(transaction.sent, transaction.flow)

    def _report(self, transaction: ClientTransaction, status: int, response: Response | None) -> None:
        if response is not None and 200 <= status < 300:
            self._answered(transaction, response)
        elif transaction is not self._transaction or (self._over and not self._cancel_status):
            return
        elif response is None:
            self._fail(self._cancel_status or status, "", None)
        elif status < 200:
            self._progress(transaction, status, response)
        elif not self._retry(transaction, status, response):
            cancelled = self._cancel_status if status == 487 else 0
            self._fail(cancelled or status, "" if cancelled else response.reason, response)

    def _progress(self, transaction: ClientTransaction, status: int, response: Response) -> None:
        first, self._proceeding = not self._proceeding, True
        rseq = rseq_of(response) if self._offered and "RSeq" in response.headers else 0
        new = not rseq or self._acknowledge(transaction, response, rseq)
        if self._cancel_status:
            if first:
                self._send_cancel()
            return
        if transaction.flow is not self._told:
            self._tell(transaction)
        if status == 100 or not new:
            return
        sdp = session_description(response) or b""
        tag = response.to_tag
        if sdp and (tag in self._early_sdp or len(self._early_sdp) < MAX_FORKS):
            self._early_sdp[tag] = sdp
            if rseq:
                self._early[tag].answered = True
        self._listener.on_progress(response, sdp)

    def _acknowledge(self, transaction: ClientTransaction, response: Response, rseq: int) -> bool:
        """PRACK a reliable response (RFC 3262 section 4); False if it is to be ignored."""
        early = self._early.get(response.to_tag)
        if early is None:
            if len(self._early) >= MAX_FORKS or not response.to_tag:
                return False
            try:
                dialog = Dialog.of_caller(self._stack, transaction, response, self._login)
                dialog.find_way()
            except MalformedMessage:
                self._stack.count("malformed")
                return False
            early = self._early[response.to_tag] = EarlyDialog(dialog)
        return early.acknowledge(rseq, response.cseq[0])

    def _retry(self, transaction: ClientTransaction, status: int, response: Response) -> bool:
        """Once more with credentials or a longer session interval, if that is what is asked for."""
        if status == 422 and not self._cancel_status:
            return self._ask_longer(transaction.request, response)
        if status not in (401, 407) or self._login is None or self._cancel_status:
            return False
        credentials = self._login.answer(transaction.request, response, self._stack.token())
        if credentials is None:
            return False
        self._send(renewed(transaction.request, transaction.request.cseq[0] + 1, credentials))
        return True

    def _ask_longer(self, request: Request, response: Response) -> bool:
        """RFC 4028 section 7.3."""
        least = seconds_of(response.headers.get("Min-SE"))
        if not self.session_s or least <= self.session_s or self._longer >= MAX_LONGER:
            return False
        self._longer += 1
        self.session_s = least
        again = renewed(request, request.cseq[0] + 1, credentials_in(request))
        again.headers.set("Session-Expires", str(least))
        again.headers.set("Min-SE", str(least))
        self._send(again)
        return True

    def _answered(self, transaction: ClientTransaction, response: Response) -> None:
        tag = response.to_tag
        known = self._dialogs.get(tag)
        if known is not None:
            known.ack_again(response.cseq[0])
            return
        if len(self._dialogs) >= MAX_FORKS:
            return
        try:
            dialog = Dialog.of_caller(self._stack, transaction, response, self._login)
            self._dialogs[tag] = dialog
            if self._over or self._cancel_status:
                self._decline(dialog)
            else:
                self._accept(dialog, response)
        except MalformedMessage:  # of its Contact or Record-Route: there is no way to reach it
            self._stack.count("malformed")
            if not self._over:
                self._fail(502, "Bad answer", response)

    def _accept(self, dialog: Dialog, response: Response) -> None:
        tag = response.to_tag
        sdp, early = session_description(response) or self._early_sdp.get(tag, b""), self._early.get(tag)
        if early is not None:
            dialog.go_on_from(early.dialog, early.remote_cseq)
            if early.updated:
                sdp = b""
        if self._offered:
            dialog.prepare_ack()
        self._stack.add_dialog(dialog)
        listener = self._end()
        try:
            listener.on_answer(dialog, response, sdp)
        finally:
            dialog.send_ack()
        bye = self._early_bye.get(tag)
        if bye is not None:
            dialog.ended_early(bye)

    def _decline(self, dialog: Dialog) -> None:
        """An answer that is not wanted: another fork was faster, or we had given up (section 13.2.2.4)."""
        dialog.ack()
        self._stack.add_dialog(dialog)
        dialog.bye()
        if not self._over:
            self._fail(self._cancel_status, "", None)

    def _cancel(self, status: int, headers: HeaderList = ()) -> None:
        if self._over or self._cancel_status:
            return
        self._cancel_status = status
        self._cancel_headers = list(headers)
        if self._proceeding:
            self._send_cancel()
        else:  # nobody has heard of it yet; should that change, the CANCEL follows
            self._stack.timers.set(self._stack.now(), lambda: self._fail(status, "", None))

    def _send_cancel(self) -> None:
        stack, transaction = self._stack, self._transaction
        assert transaction is not None
        request = cancel_of(transaction.request, self._cancel_headers)
        stack.start_client(request, transaction.flow, self._cancel_answered, branch=transaction.key[0])
        stack.timers.cancel(self._expiry)
        # Section 9.1: a callee of RFC 2543 answers the CANCEL only.
        self._expiry = stack.timers.set(stack.now() + stack.timing.give_up, self._unanswered)

    def _cancel_answered(self, _: ClientTransaction, status: int, response: Response | None) -> None:
        if self._elsewhere and response is not None and status == 200:
            try:
                self._part(response)
            except MalformedMessage:
                self._stack.count("malformed")

    def _expired(self) -> None:
        """It rang too long."""
        self._expiry = None
        self._cancel(408)

    def _unanswered(self) -> None:
        self._expiry = None
        if self._transaction is not None:
            self._transaction.done()
        self._fail(self._cancel_status, "", None)

    def _end(self) -> CallListener:
        """Whom to tell, once: the transaction knows us until Timer M, and with it would know a call that is over."""
        self._over = True
        self._stack.timers.cancel(self._expiry)
        self._expiry = None
        self._stack.forget_call((self.call_id, self.local_tag))
        listener, self._listener = self._listener, _NOBODY
        return listener

    def _fail(self, status: int, reason: str, response: Response | None) -> None:
        if self._over:
            self._stack.timers.cancel(self._expiry)
        else:
            self._end().on_failure(status, reason or REASONS.get(status, ""), response)


def _last_wins(fields: list[Field]) -> list[Field]:
    """Let the user's own Max-Forwards, User-Agent or Contact replace ours."""
    ours, names = fields, {"max-forwards", "user-agent", "contact"}
    last = {name.lower(): at for at, (name, _) in enumerate(ours)}
    return [field for at, field in enumerate(ours) if field[0].lower() not in names or last[field[0].lower()] == at]
