"""An INVITE that came in and that our user has not answered yet (RFC 3261 section 13.3)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from trunkline.sip.body import session_description
from trunkline.sip.core import ALLOW, SDP_TYPE, SUPPORTED, HeaderList, InviteListener
from trunkline.sip.dialog import Dialog
from trunkline.sip.errors import NotAcceptable
from trunkline.sip.flow import Flow
from trunkline.sip.headers import Field
from trunkline.sip.message import REASONS, Request
from trunkline.sip.reliable import TAG, Reliable
from trunkline.sip.replaces import Replaces
from trunkline.sip.requests import has_option
from trunkline.sip.timers import Timer
from trunkline.sip.transaction import ServerTransaction
from trunkline.sip.uri import is_secure

if TYPE_CHECKING:
    from trunkline.sip.stack import Stack

REFRESH_S: Final = 60.0
"""A provisional response is repeated this often, so that no proxy's Timer C ends the call (section 13.3.1.1)."""


NO_PRACK: Final = 'SIP;cause=504;text="No PRACK"'
"""The reason of a call that ends because its caller does not acknowledge that it rings."""


class ServerInvite:
    """Answer it with `accept`, `reject` or `challenge`; what comes after the first of these does nothing."""

    __slots__ = (
        "_deadline",
        "_early_key",
        "_final",
        "_heard",
        "_held",
        "_kept",
        "_provisional",
        "_refreshed",
        "_reliable",
        "_repeat",
        "_stack",
        "_timer",
        "_transaction",
        "flow",
        "key",
        "left",
        "listener",
        "offer",
        "on_left",
        "request",
        "to_tag",
    )

    def __init__(
        self,
        stack: "Stack",
        transaction: ServerTransaction,
        request: Request,
        flow: Flow,
        offer: bytes,
        key: tuple[str, ...],
    ) -> None:
        self.request = request
        self.flow = flow
        """Where it came from."""
        self.offer = offer
        """The caller's SDP; empty: we offer in the 2xx, and the answer comes with the ACK."""
        self.listener: InviteListener | None = None
        self.to_tag = stack.token()
        """Our tag of the dialog."""
        self.key = key
        """What identifies it among copies (section 8.2.2.2)."""
        self._stack = stack
        self._transaction = transaction
        self._final = False
        self._provisional = b""
        self._reliable: Reliable | None = None
        self._early_key: tuple[str, ...] = ()  # what requests in its early dialog name
        self._repeat: Callable[[], None] | None = None  # of a reliable response, under a number of its own
        self._heard = request.cseq[0]  # CSeq of the caller's last request
        self._refreshed: tuple[Request, Flow] | None = None  # its last UPDATE
        self._held: Dialog | None = None  # what a 2xx that waits has made
        self._kept = False  # it waits for `release`, whatever else it waits for
        self.left = False
        """Whether a 2xx has been sent."""
        self.on_left: Callable[[], None] | None = None
        """Called when a 2xx that waited leaves, or never will."""
        limit_s = stack.config.invite_timeout_s
        self._deadline = stack.now() + limit_s
        self._timer: Timer | None = stack.timers.set(stack.now() + min(limit_s, REFRESH_S), self._on_timer)

    def dialog_of(self, wanted: Replaces) -> Dialog | None:
        """The dialog that a Replaces names, if it is up."""
        return self._stack.find_dialog(wanted.call_id, wanted.local_tag, wanted.remote_tag)

    @property
    def answered(self) -> bool:
        """Whether a final response has been sent, by us or because it was cancelled."""
        return self._final

    @property
    def waits(self) -> bool:
        """Whether there is a 2xx that has not left: for `release`, or for a PRACK (RFC 3262 section 3)."""
        return self._held is not None

    def ring(self, status: int = 180, reason: str = "", *, sdp: bytes = b"", headers: HeaderList = ()) -> None:
        """A provisional response; with SDP early media, reliably if the caller knows that (RFC 3262)."""
        if self._final:
            return
        if not self._early_key:
            self._early_key = self.request.call_id, self.to_tag, self.request.from_tag
            self._stack.add_early(self._early_key, self)
        fields = [("Contact", self._stack.contact(self.flow, is_secure(self.request.uri))), *headers]
        request = self.request
        # Without an offer of the caller's, ours would have to be in the first reliable response: it is in the 2xx.
        if self.offer and (has_option(request, "Require", TAG) or (sdp and has_option(request, "Supported", TAG))):
            self._ring_reliably(status, reason, fields, sdp)
        else:
            self._provisional = self._respond(status, reason, fields, sdp)

    def _ring_reliably(self, status: int, reason: str, fields: list[Field], sdp: bytes) -> None:
        reliable = self._reliable
        if reliable is None:
            reliable = self._reliable = Reliable(self._stack, self._transaction, self.request.cseq[0])
            reliable.on_lost = self._unacknowledged
        plain = fields
        self._repeat = lambda: self._ring_reliably(status, reason, plain, b"")
        if sdp:
            fields = [*fields, ("Content-Type", SDP_TYPE)]

        def make(rseq: int) -> bytes:
            more = [("Require", TAG), ("RSeq", str(rseq)), ("Allow", ALLOW), *fields]
            self._stack.traced(self.request.call_id, True, f"{status} {reason or REASONS.get(status, '')}")
            return self._stack.response(self.request, status, reason, self.to_tag, more, sdp)

        reliable.send(make, bool(sdp))

    def _unacknowledged(self) -> None:
        """No PRACK in 64*T1 (section 3)."""
        if self._held is not None:
            self._drop_answer(504, "no-prack")
        elif self._finish():
            self._respond(504, "No PRACK", (), b"")
            if self.listener is not None:
                self.listener.on_cancel(NO_PRACK)

    def challenge(self, value: str, proxy: bool = False) -> None:
        """401 (or 407) with a digest challenge (`digest.challenge`); the caller comes back with a new INVITE."""
        name = "Proxy-Authenticate" if proxy else "WWW-Authenticate"
        self.reject(407 if proxy else 401, headers=[(name, value)])

    def reject(self, status: int, reason: str = "", headers: HeaderList = ()) -> None:
        """A final response above 299; its ACK is absorbed, and the listener hears nothing more."""
        if self._finish():
            self.listener = None
            if self._reliable is not None:
                self._reliable.stop()
            self._respond(status, reason, headers, b"")

    def accept(
        self,
        sdp: bytes,
        headers: HeaderList = (),
        before: Callable[[Dialog], object] | None = None,
        *,
        hold: bool = False,
    ) -> Dialog:
        """200, repeated until the ACK comes. Set the dialog's listener at once. `hold`: it leaves at `release`; a
        CANCEL may come before that (`DialogListener.on_ended`).

        `before` is called with the dialog just before the 200 leaves: `state()` has that 200 already, so that it can be
        stored. If it raises, the answer is 500. After a CANCEL or another final response nothing is called or sent, and
        the dialog that is returned has ended.
        """
        dialog = Dialog.of_callee(self._stack, self.request, self.to_tag, self.flow, self.key)
        if not self._finish():
            dialog.ended = True
            return dialog
        stack, transaction, reliable = self._stack, self._transaction, self._reliable
        if reliable is not None:
            dialog.answers_reliably(reliable, self._heard)
        if self._refreshed is not None:
            dialog.retarget(*self._refreshed)
        fields = [
            ("Contact", stack.contact(self.flow, is_secure(self.request.uri))),
            ("Allow", ALLOW),
            ("Supported", SUPPORTED),
            *dialog.session.agree(self.request, stack.config),
            *headers,
        ]
        if sdp:
            fields.append(("Content-Type", SDP_TYPE))
        data = stack.response(self.request, 200, "", self.to_tag, fields, sdp)
        dialog.answering(transaction, data, self.request.cseq[0])
        if before is not None:
            try:
                before(dialog)
            except Exception:
                dialog.ended = True
                self._respond(500, "", (), b"")
                raise
        stack.add_dialog(dialog)
        self._kept = hold
        if reliable is not None and reliable.blocks:
            self._hold(dialog, data, reliable)
        elif hold:
            self._held, self._transaction.invite = dialog, self
            dialog.hold()
        else:
            if reliable is not None:
                reliable.stop()
            self._answer(dialog, data)
        return dialog

    def release(self) -> None:
        """The 200 that was held may leave; nothing happens where there is none any more, or it waits for a PRACK."""
        dialog, reliable = self._held, self._reliable
        self._kept = False
        if dialog is None or (reliable is not None and reliable.on_free is not None):
            return
        self._held = self._transaction.invite = None
        if reliable is not None:
            reliable.stop()
        self._answer(dialog, dialog.state().answer)

    def abandon(self) -> None:
        """Another host has the call: nothing is sent or told any more."""
        if self._finish():
            self.listener = None
        self._held = None
        if self._reliable is not None:
            self._reliable.stop()
        self._transaction.done()
        self._tell_left()

    def _answer(self, dialog: Dialog, data: bytes) -> None:
        """The 200 leaves."""
        self._stack.traced(self.request.call_id, True, "200 OK")
        self._transaction.respond(data, 200)
        dialog.await_ack(self._transaction)
        dialog.session.start(dialog)
        self.left = True
        self._tell_left()

    def _tell_left(self) -> None:
        told, self.on_left = self.on_left, None
        if told is not None:
            told()

    def _hold(self, dialog: Dialog, data: bytes, reliable: Reliable) -> None:
        """It leaves when the PRACK has come (RFC 3262 section 3)."""
        self._held = dialog
        self._transaction.invite = self  # it can still be cancelled
        dialog.hold()

        def free() -> None:
            if self._kept:
                return  # then it leaves at `release`
            self._held = self._transaction.invite = None
            reliable.stop()
            self._answer(dialog, data)

        reliable.on_free = free

    def _drop_answer(self, status: int, reason: str) -> None:
        """The 200 that waited is not sent any more."""
        dialog, self._held = self._held, None
        self._transaction.invite = None
        if dialog is not None:
            if self._reliable is not None:
                self._reliable.on_free = None
                self._reliable.stop()
            self._respond(status, "", (), b"")
            dialog.unanswered(reason)
        self._tell_left()

    # --- for the stack

    def receive_early(self, request: Request, transaction: ServerTransaction, flow: Flow) -> None:
        """A request in the early dialog."""
        number, method = request.cseq[0], request.method
        if number <= self._heard:
            self._stack.reply(transaction, request, 500, "CSeq out of order")
            return
        self._heard = number
        if method == "PRACK":
            self._receive_prack(request, transaction)
        elif method == "UPDATE":
            self._receive_update(request, transaction, flow)
        elif method == "BYE":  # RFC 3261 section 15: a caller may end an early dialog so, too
            self._stack.reply(transaction, request, 200)
            self._give_up(request.headers.get("Reason"))
        else:
            self._stack.reply(transaction, request, 481)

    def _receive_prack(self, request: Request, transaction: ServerTransaction) -> None:
        reliable = self._reliable
        status = 481 if reliable is None else reliable.acknowledge(request)
        offer = session_description(request) if status == 200 else b""
        if offer:
            self._change(request, transaction, offer)
        else:
            self._stack.reply(transaction, request, status)
        if reliable is not None:
            reliable.go_on()

    def _receive_update(self, request: Request, transaction: ServerTransaction, flow: Flow) -> None:
        """RFC 3311 section 5.2."""
        offer = session_description(request)
        if offer is None:
            self._stack.reply(transaction, request, 415, headers=[("Accept", SDP_TYPE)])
        elif offer and (self._reliable is None or not self._reliable.agreed):  # the INVITE's offer is not answered
            self._stack.reply(transaction, request, 500, headers=[("Retry-After", "1")])
        else:
            self._refreshed = request, flow
            self._change(request, transaction, offer)

    def _change(self, request: Request, transaction: ServerTransaction, offer: bytes) -> None:
        """200 with the answer to an offer, if there is one."""
        sdp = b""
        if offer:
            try:
                sdp = (self.listener or InviteListener()).on_update(offer)
            except NotAcceptable as error:
                self._stack.reply(transaction, request, error.status)
                return
        fields = [("Contact", self._stack.contact(self.flow, is_secure(request.uri))), ("Allow", ALLOW)]
        if sdp:
            fields.append(("Content-Type", SDP_TYPE))
        self._stack.reply(transaction, request, 200, headers=fields, body=sdp)

    def cancelled(self, request: Request) -> None:
        """A CANCEL has come and been answered (section 9.2)."""
        self._give_up(request.headers.get("Reason"))

    def _give_up(self, reason: str) -> None:
        if self._held is not None:
            self._drop_answer(487, "cancelled")
        elif self._finish():
            if self._reliable is not None:
                self._reliable.stop()
            self._respond(487, "", (), b"")
            if self.listener is not None:
                self.listener.on_cancel(reason)

    def _finish(self) -> bool:
        """Whether this is the first final response."""
        if self._final:
            return False
        self._final = True
        self._stack.timers.cancel(self._timer)
        self._timer = self._repeat = None
        self._transaction.invite = None  # it stays for half a minute more, this need not
        if self._early_key:
            self._stack.forget_early(self._early_key)
        return True

    def _respond(self, status: int, reason: str, headers: HeaderList, sdp: bytes) -> bytes:
        fields: list[Field] = [*headers, ("Content-Type", SDP_TYPE)] if sdp else list(headers)
        return self._stack.reply(
            self._transaction, self.request, status, reason, to_tag=self.to_tag, headers=fields, body=sdp
        )

    def _on_timer(self) -> None:
        now = self._stack.now()
        if now >= self._deadline:
            self._stack.count("unanswered")
            self._give_up('SIP;cause=408;text="Request Timeout"')
            return
        if self._repeat is not None:
            self._repeat()
        elif self._provisional:
            self._transaction.respond(self._provisional, 180)
        self._timer = self._stack.timers.set(min(self._deadline, now + REFRESH_S), self._on_timer)
