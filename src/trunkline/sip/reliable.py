"""Reliable provisional responses, 100rel (RFC 3262), in both roles.

Theory of operation. A callee repeats a reliable response until its PRACK comes, and sends the next one only then; no
2xx leaves while one with a session description is unacknowledged (section 3), so `Reliable` also says when it may. A
caller acknowledges each reliable response once, in the order of RSeq (section 4): `EarlyDialog` keeps what it needs
for that, a dialog that only PRACK and UPDATE are sent and received in.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from trunkline.sip.message import MAX_CSEQ, Request, Response
from trunkline.sip.requests import has_option
from trunkline.sip.timers import Timer
from trunkline.sip.transaction import ServerTransaction

if TYPE_CHECKING:
    from trunkline.sip.dialog import Dialog
    from trunkline.sip.stack import Stack

MAX_WAITING: Final = 8
"""Reliable responses that wait for the PRACK of one before them; further ones are left out."""
MAX_UNANSWERED: Final = 8
"""PRACKs of one early dialog without a response; while there are so many, the peer has to repeat its responses."""
MAX_RSEQ: Final = 2**32 - 1
FIRST_RSEQ: Final = 2**31 - 1
"""The first RSeq is at most that (section 3)."""
TAG: Final = "100rel"


def rseq_of(response: Response) -> int:
    """RSeq of a response that wants a PRACK; 0 for any other."""
    if response.status == 100 or not has_option(response, "Require", TAG):
        return 0
    text = response.headers.get("RSeq").strip()
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else 0
    return number if number <= MAX_RSEQ else 0


def rack_of(request: Request) -> tuple[int, int, str] | None:
    """RSeq, CSeq number and method that a PRACK names; None if it has no RAck or a malformed one."""
    parts = request.headers.get("RAck").split()
    if len(parts) != 3:
        return None
    rseq, cseq, method = parts
    if not (rseq.isascii() and rseq.isdigit() and cseq.isascii() and cseq.isdigit()) or len(rseq) + len(cseq) > 20:
        return None
    if int(rseq) > MAX_RSEQ or int(cseq) > MAX_CSEQ:
        return None
    return int(rseq), int(cseq), method


class Reliable:
    """The reliable responses of one INVITE that came in. `on_free` is told when a 2xx may be sent (again), `on_lost`
    when one was not acknowledged within 64*T1; what is set is called once."""

    __slots__ = ("_deadline", "_due", "_interval", "_rseq", "_stack", "_timer", "_transaction", "_waiting",
                 "agreed", "cseq", "on_free", "on_lost")  # fmt: skip

    def __init__(self, stack: "Stack", transaction: ServerTransaction, cseq: int) -> None:
        self.cseq = cseq
        self.agreed = False
        """Whether a session description of ours has been acknowledged."""
        self.on_free: Callable[[], None] | None = None
        self.on_lost: Callable[[], None] | None = None
        self._stack = stack
        self._transaction = transaction
        self._rseq = int(stack.token()[-6:], 16) % FIRST_RSEQ + 1
        self._due: tuple[int, bytes, bool] | None = None  # RSeq, the response, whether it has SDP
        self._waiting: deque[tuple[Callable[[int], bytes], bool]] = deque()
        self._timer: Timer | None = None
        self._interval = self._deadline = 0.0

    @property
    def blocks(self) -> bool:
        """Whether a session description is unacknowledged, so that no 2xx may be sent."""
        return (self._due is not None and self._due[2]) or any(sdp for _, sdp in self._waiting)

    @property
    def rack(self) -> str:
        """What the PRACK that is waited for says; empty if none is."""
        return f"{self._due[0]} {self.cseq} INVITE" if self._due is not None else ""

    def send(self, make: Callable[[int], bytes], sdp: bool) -> None:
        """Send a response, made for its RSeq, now or when those before it have been acknowledged."""
        if self._due is None:
            self._send(make, sdp)
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append((make, sdp))

    def _send(self, make: Callable[[int], bytes], sdp: bool) -> None:
        data = make(self._rseq)
        self._due = self._rseq, data, sdp
        self._rseq += 1
        timing, now = self._stack.timing, self._stack.now()
        self._interval, self._deadline = timing.t1, now + timing.give_up
        self._transaction.respond(data, 183)
        self._timer = self._stack.timers.set(now + timing.t1, self._again)

    def _again(self) -> None:
        """It doubles without a limit (section 3)."""
        now = self._stack.now()
        if self._due is None:
            return
        if now >= self._deadline:
            self._stack.count("unacknowledged")
            lost = self.on_lost
            self.stop()
            if lost is not None:
                lost()
            return
        self._stack.count("retransmissions")
        self._transaction.respond(self._due[1], 183)
        self._interval *= 2
        self._timer = self._stack.timers.set(min(now + self._interval, self._deadline), self._again)

    def acknowledge(self, request: Request) -> int:
        """A PRACK has come: the status to answer, 200 or 481 or 400. Call `go_on` when it is answered."""
        named = rack_of(request)
        if named is None:
            return 400
        due = self._due
        if due is None or named != (due[0], self.cseq, "INVITE"):
            return 481
        self._stack.timers.cancel(self._timer)
        self._timer = self._due = None
        self.agreed = self.agreed or due[2]
        return 200

    def go_on(self) -> None:
        """Send what waited for the PRACK: the next response, or a 2xx."""
        if self._due is None and self._waiting:
            self._send(*self._waiting.popleft())
        free = self.on_free
        if free is not None and not self.blocks:
            self.on_free = None
            free()

    def stop(self) -> None:
        """A final response has been sent, or is about to be: repeat nothing. A PRACK for it is still understood."""
        self._stack.timers.cancel(self._timer)
        self._timer = None
        self._waiting.clear()
        self.on_lost = None


class EarlyDialog:
    """One fork of an INVITE of ours that answers reliably."""

    __slots__ = ("answered", "dialog", "remote_cseq", "rseq", "unanswered", "updated")

    def __init__(self, dialog: "Dialog") -> None:
        self.dialog = dialog
        self.rseq = 0
        """Of the last response that was acknowledged."""
        self.remote_cseq = -1
        self.unanswered = 0
        self.answered = False
        """Whether our offer was answered reliably: then either side may change the session by UPDATE."""
        self.updated = False
        """Whether the peer has done so."""

    def acknowledge(self, rseq: int, cseq: int) -> bool:
        """PRACK a response, if it is the next one; False for one that was out of order or seen before."""
        if (self.rseq and rseq != self.rseq + 1) or self.unanswered >= MAX_UNANSWERED:
            return False
        self.rseq = rseq
        self.unanswered += 1
        self.dialog.exchange("PRACK", [("RAck", f"{rseq} {cseq} INVITE")], b"", self._answered)
        return True

    def _answered(self, status: int, response: Response | None) -> None:
        self.unanswered -= 1
