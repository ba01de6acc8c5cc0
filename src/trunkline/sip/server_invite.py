"""An INVITE that came in and that our user has not answered yet (RFC 3261 section 13.3)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from trunkline.sip.core import ALLOW, SDP_TYPE, HeaderList, InviteListener
from trunkline.sip.dialog import Dialog
from trunkline.sip.flow import Flow
from trunkline.sip.headers import Field
from trunkline.sip.message import Request
from trunkline.sip.timers import Timer
from trunkline.sip.transaction import ServerTransaction
from trunkline.sip.uri import is_secure

if TYPE_CHECKING:
    from trunkline.sip.stack import Stack

REFRESH_S: Final = 60.0
"""A provisional response is repeated this often, so that no proxy's Timer C ends the call (section 13.3.1.1)."""


class ServerInvite:
    """Answer it with `accept`, `reject` or `challenge`; what comes after the first of these does nothing."""

    __slots__ = (
        "_deadline",
        "_final",
        "_provisional",
        "_stack",
        "_timer",
        "_transaction",
        "flow",
        "key",
        "listener",
        "offer",
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
        limit_s = stack.config.invite_timeout_s
        self._deadline = stack.now() + limit_s
        self._timer: Timer | None = stack.timers.set(stack.now() + min(limit_s, REFRESH_S), self._on_timer)

    @property
    def answered(self) -> bool:
        """Whether a final response has been sent, by us or because it was cancelled."""
        return self._final

    def ring(self, status: int = 180, reason: str = "", *, sdp: bytes = b"", headers: HeaderList = ()) -> None:
        """A provisional response; with SDP early media."""
        if self._final:
            return
        fields = [("Contact", self._stack.contact(self.flow, is_secure(self.request.uri))), *headers]
        self._provisional = self._respond(status, reason, fields, sdp)

    def challenge(self, value: str, proxy: bool = False) -> None:
        """401 (or 407) with a digest challenge (`digest.challenge`); the caller comes back with a new INVITE."""
        name = "Proxy-Authenticate" if proxy else "WWW-Authenticate"
        self.reject(407 if proxy else 401, headers=[(name, value)])

    def reject(self, status: int, reason: str = "", headers: HeaderList = ()) -> None:
        """A final response above 299; its ACK is absorbed."""
        if self._finish():
            self._respond(status, reason, headers, b"")

    def accept(self, sdp: bytes, headers: HeaderList = (), before: Callable[[Dialog], object] | None = None) -> Dialog:
        """200, repeated until the ACK comes. Set the dialog's listener at once.

        `before` is called with the dialog just before the 200 leaves: `state()` has that 200 already, so that it can be
        stored. If it raises, the answer is 500. After a CANCEL or another final response nothing is called or sent, and
        the dialog that is returned has ended.
        """
        dialog = Dialog.of_callee(self._stack, self.request, self.to_tag, self.flow, self.key)
        if not self._finish():
            dialog.ended = True
            return dialog
        stack, transaction = self._stack, self._transaction
        fields = [("Contact", stack.contact(self.flow, is_secure(self.request.uri))), ("Allow", ALLOW), *headers]
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
        stack.traced(self.request.call_id, True, "200 OK")
        transaction.respond(data, 200)
        dialog.await_ack(transaction)
        return dialog

    def cancelled(self, request: Request) -> None:
        """A CANCEL has come and been answered (section 9.2)."""
        self._give_up(request.headers.get("Reason"))

    def _give_up(self, reason: str) -> None:
        if self._finish():
            self._respond(487, "", (), b"")
            if self.listener is not None:
                self.listener.on_cancel(reason)

    def _finish(self) -> bool:
        """Whether this is the first final response."""
        if self._final:
            return False
        self._final = True
        self._stack.timers.cancel(self._timer)
        self._timer = None
        self._transaction.invite = None  # it stays for half a minute more, this need not
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
        if self._provisional:
            self._transaction.respond(self._provisional, 180)
        self._timer = self._stack.timers.set(min(self._deadline, now + REFRESH_S), self._on_timer)
