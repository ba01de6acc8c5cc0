"""A re-INVITE of ours (RFC 3261 section 14.1)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from trunkline.sip.body import session_description
from trunkline.sip.flow import Flow, Target
from trunkline.sip.message import Request, Response
from trunkline.sip.requests import cancel_of, renewed
from trunkline.sip.timers import Timer
from trunkline.sip.transaction import ClientTransaction

if TYPE_CHECKING:
    from trunkline.sip.dialog import Dialog

MAX_RETRIES: Final = 5  # after 491, or 500 and 503 that name a time
MAX_RETRY_AFTER_S: Final = 10.0
_ENDS: Final = {408: "timeout", 481: "gone"}
"""Statuses that end the dialog, and the reason told (section 14.1)."""

OnResult = Callable[[int, bytes], None]
"""Hears the final status; with 200 the peer's SDP."""


class Reinvite:
    """One change of the session, with its retries."""

    __slots__ = ("_dialog", "_login", "_on_result", "_retries", "_sdp", "_timer", "_transaction", "under_way")

    def __init__(self, dialog: "Dialog", sdp: bytes, on_result: OnResult) -> None:
        self._dialog = dialog
        self._sdp = sdp
        self._on_result = on_result
        self._login = dialog.login()
        self._retries = 0
        self._timer: Timer | None = None
        self._transaction: ClientTransaction | None = None
        self.under_way = False
        """Whether an INVITE is out; the peer's own then gets 491."""

    def send(self) -> None:
        request, hop, fallback = self._dialog.build_invite(self._sdp)
        self._start(request, hop, fallback)

    def finish_later(self, status: int) -> None:
        """Tell a failure from the next tick."""
        timers, now = self._dialog.stack.timers, self._dialog.stack.now()
        timers.set(now, lambda: self._on_result(status, b""))

    def retry_later(self, delay_s: float | None = None) -> None:
        """Section 14.1: the owner of the Call-ID waits longer, so that two that collided do not do so again."""
        stack = self._dialog.stack
        if delay_s is None:
            share = int(stack.token()[:4], 16) / 0xFFFF
            delay_s = 2.1 + 1.9 * share if self._dialog.is_caller else 2.0 * share
        self.under_way = False
        stack.timers.set(stack.now() + delay_s, self._retry)

    def _retry(self) -> None:
        if self._dialog.ended:
            self._finish(481, b"")
        elif self._dialog.answering_invite:
            self._again(None, 491)
        else:
            self.send()

    def _again(self, delay_s: float | None, status: int) -> None:
        self._retries += 1
        if self._retries > MAX_RETRIES:
            self._finish(status, b"")
        else:
            self.retry_later(delay_s)

    def _start(self, request: Request, hop: Flow | Target, fallback: Target | None) -> None:
        self.under_way = True
        self._transaction = self._dialog.stack.start_client(request, hop, self._report, fallback=fallback)
        self._dialog.invite_sent(request)

    def _report(self, transaction: ClientTransaction, status: int, response: Response | None) -> None:
        dialog = self._dialog
        if transaction is not self._transaction:
            return
        if status < 200:
            if self._timer is None:
                stack = dialog.stack
                self._timer = stack.timers.set(stack.now() + stack.config.invite_timeout_s, self._timed_out)
            return
        dialog.stack.timers.cancel(self._timer)
        self._timer = None
        if not self.under_way:  # answered already: the 2xx again
            if 200 <= status < 300:
                dialog.ack_again(transaction.request.cseq[0])
        elif response is None:
            self._finish(status, b"")
        elif status < 300:
            self._accepted(transaction, response)
        else:
            self._refused(transaction, status, response)

    def _accepted(self, transaction: ClientTransaction, response: Response) -> None:
        dialog = self._dialog
        self.under_way = False
        dialog.reinvite_accepted(response, transaction.heard)
        sdp = session_description(response) or b""
        if self._sdp or dialog.ended:
            dialog.ack()
        self._finish(200, sdp)

    def _refused(self, transaction: ClientTransaction, status: int, response: Response) -> None:
        stack = self._dialog.stack
        if status in (401, 407) and self._login is not None and self._dialog.goes_home:
            credentials = self._login.answer(transaction.request, response, stack.token())
            if credentials is not None:
                _, hop, fallback = self._dialog.build("INVITE", (), cseq=0)
                self._start(renewed(transaction.request, self._dialog.next_cseq(), credentials), hop, fallback)
                return
        if status == 491:
            self._again(None, status)
            return
        if status == 422 and self._dialog.session.lengthen(response):
            self._again(0.0, status)
            return
        wait = response.headers.get("Retry-After").partition(";")[0].partition("(")[0].strip()
        seconds = int(wait) if wait.isascii() and wait.isdigit() and len(wait) < 4 else None
        if status in (500, 503) and seconds is not None and seconds <= MAX_RETRY_AFTER_S:
            self._again(seconds, status)
            return
        self._finish(status, b"")

    def _timed_out(self) -> None:
        """Timer C: no final response although the peer is at work."""
        transaction, stack = self._transaction, self._dialog.stack
        self._timer = None
        if transaction is not None and self.under_way:
            branch = transaction.key[0]
            stack.start_client(cancel_of(transaction.request), transaction.flow, lambda *_: None, branch=branch)
            self._finish(408, b"")

    def _finish(self, status: int, sdp: bytes) -> None:
        self.under_way = False
        self._dialog.reinvite_done(self)
        self._on_result(status, sdp)
        if status in _ENDS:
            self._dialog.fail(_ENDS[status])
