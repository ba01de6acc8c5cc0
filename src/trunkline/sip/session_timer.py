"""Session timers (RFC 4028): a session that nobody refreshes in time is over, so that no lost BYE leaves a call up.

Theory of operation. Each 2xx of an INVITE or UPDATE settles an interval and who refreshes. That side sends an UPDATE
(or, to a peer without it, a re-INVITE that changes nothing) after half of it; the other one hangs up shortly before
its end (section 10: a third of it, 32 s at most). The functions read and write headers; `SessionTimer` is the clock of
one dialog, which exists only where an interval was agreed. What another process needs is in `DialogState`: it begins
to count anew, and refreshes soon, for it does not know when that was done last.
"""

from typing import TYPE_CHECKING, Final, NamedTuple

from trunkline.sip.core import StackConfig
from trunkline.sip.dialog_state import DialogState
from trunkline.sip.headers import Field, header_params
from trunkline.sip.message import MalformedMessage, Request, Response
from trunkline.sip.requests import has_option
from trunkline.sip.timers import Timer

if TYPE_CHECKING:
    from trunkline.sip.dialog import Dialog

TAG: Final = "timer"
MAX_INTERVAL_S: Final = 10**7
"""Longer intervals are as good as none."""
BYE_EARLIER_S: Final = 32.0
AGAIN_S: Final = 2.0
"""Least wait before a refresh that was not possible, or was refused, is tried again; twice it is the most."""
ADOPTED_WITHIN_S: Final = 30.0
"""An adopted dialog is refreshed within that time (or an eighth of its interval), spread at random."""
UAC, UAS = "uac", "uas"
_ENDS: Final = {408: "timeout", 481: "gone"}
_NO_UPDATE: Final = frozenset({405, 415, 420, 501})
"""Statuses that mean: no UPDATE for this peer."""


class Terms(NamedTuple):
    """What was agreed."""

    interval_s: int
    refresher: str
    """`uac` or `uas` of the request that settled it."""


def seconds_of(text: str) -> int:
    """The delta-seconds before any parameter; 0 if there are none, or not readable."""
    digits = text.partition(";")[0].strip()
    return min(int(digits), MAX_INTERVAL_S) if digits.isascii() and digits.isdigit() and len(digits) <= 10 else 0


def expires_of(message: Request | Response) -> Terms:
    """Session-Expires: an interval of 0 without one, an empty refresher if it names none."""
    text = message.headers.get("Session-Expires")
    if not text:
        return Terms(0, "")
    try:
        role = (header_params(";" + text.partition(";")[2]).get("refresher") or "").lower()
    except MalformedMessage:
        role = ""
    return Terms(seconds_of(text), role if role in (UAC, UAS) else "")


def too_small(request: Request, config: StackConfig) -> bool:
    """Whether a request is to be refused with 422: its sender knows timers and wants a shorter interval than we do."""
    if "Session-Expires" not in request.headers:
        return False
    return 0 < expires_of(request).interval_s < config.min_se_s and has_option(request, "Supported", TAG)


def terms_of(request: Request, config: StackConfig, *, we_refresh: bool = False) -> Terms | None:
    """What our 2xx to a request settles (section 9); None: no session timer. `we_refresh`: as it is so far."""
    supports = has_option(request, "Supported", TAG) or has_option(request, "Require", TAG)
    asked, role = expires_of(request)
    ours = config.session_expires_s
    least = max(config.min_se_s, seconds_of(request.headers.get("Min-SE")))
    if not asked:
        if not supports or not ours:
            return None
        return Terms(max(ours, least), UAS if we_refresh else UAC)
    # A proxy may have asked for a sender that knows no timers: then it is for us to refresh.
    return Terms(max(min(asked, ours or asked), least), (role or UAC) if supports else UAS)


def answer_fields(terms: Terms | None, supports: bool) -> list[Field]:
    """The headers of a 2xx."""
    if terms is None:
        return []
    fields = [("Session-Expires", f"{terms.interval_s};refresher={terms.refresher}")]
    if supports or terms.refresher == UAC:
        fields.append(("Require", TAG))
    return fields


def request_fields(interval_s: int, min_se_s: int, refresher: str = "") -> list[Field]:
    """The headers of an INVITE or UPDATE of ours; none for an interval of 0."""
    if not interval_s:
        return []
    role = f";refresher={refresher}" if refresher else ""
    fields = [("Session-Expires", f"{interval_s}{role}")]
    if min_se_s > 90:
        fields.append(("Min-SE", str(min_se_s)))
    return fields


class SessionTimer:
    """The session timer of one dialog, which it is given by: it does not keep it alive. See the module's text."""

    __slots__ = ("_deadline", "_state", "_timer", "_tries", "_waiting")

    def __init__(self, state: DialogState) -> None:
        self._state = state
        self._timer: Timer | None = None
        self._deadline = 0.0
        self._tries = 0
        self._waiting = False  # a refresh is under way

    def fields(self, min_se_s: int) -> list[Field]:
        """Headers of an INVITE or UPDATE of ours in the dialog, which refreshes it."""
        state = self._state
        role = UAC if state.we_refresh else UAS
        return request_fields(state.session_s, min_se_s, role) if state.session_s else []

    def agree(self, request: Request, config: StackConfig) -> list[Field]:
        """Settle it with our 2xx to a request; the headers of that. `start` follows when it is sent."""
        state, index = self._state, request.headers.index()
        known = "Supported" in index or "Session-Expires" in index
        terms = terms_of(request, config, we_refresh=state.we_refresh) if known else None
        if terms is None:
            state.session_s, state.we_refresh = 0, False
            return []
        state.session_s, state.we_refresh = terms.interval_s, terms.refresher == UAS
        return answer_fields(terms, has_option(request, "Supported", TAG))

    def agreed(self, dialog: "Dialog", response: Response) -> None:
        """A 2xx to a request of ours settles it."""
        interval, role = expires_of(response)
        state = self._state
        if interval or state.session_s:
            state.session_s = max(interval, dialog.stack.config.min_se_s) if interval else 0
            state.we_refresh = bool(interval) and role != UAS
            self.start(dialog)

    def lengthen(self, response: Response) -> bool:
        """A 422: take the longer interval that it names; False if it names none."""
        least = seconds_of(response.headers.get("Min-SE"))
        if least <= self._state.session_s:
            return False
        self._state.session_s = least
        return True

    def start(self, dialog: "Dialog", *, adopted: bool = False) -> None:
        """The session has been refreshed (or has begun): count from now; no more if nothing is agreed."""
        state = self._state
        interval = state.session_s
        if not interval:
            self.stop(dialog)
            return
        now = dialog.stack.now()
        self._waiting, self._tries = False, 0
        self._deadline = now + interval - min(BYE_EARLIER_S, interval / 3)
        wait_s = interval / 2
        if adopted:
            wait_s = min(ADOPTED_WITHIN_S, interval / 8) * int(dialog.stack.token()[-4:], 16) / 0xFFFF
        self._set(dialog, now + wait_s if state.we_refresh else self._deadline)

    def stop(self, dialog: "Dialog") -> None:
        """The dialog is over, or knows no session timer any more."""
        if self._timer is not None:
            dialog.stack.timers.cancel(self._timer)
            self._timer = None

    def _set(self, dialog: "Dialog", due: float) -> None:
        timers = dialog.stack.timers
        timers.cancel(self._timer)
        self._timer = timers.set(min(due, self._deadline), lambda: self._on_timer(dialog))

    def _on_timer(self, dialog: "Dialog") -> None:
        self._timer = None
        if dialog.ended:
            return
        if dialog.stack.now() >= self._deadline:
            dialog.stack.count("sessions_expired")
            dialog.fail("expired")
            return
        if self._state.we_refresh and not self._waiting:
            self._refresh(dialog)
        if not dialog.ended and self._timer is None:
            self._set(dialog, self._deadline)

    def _refresh(self, dialog: "Dialog") -> None:
        if dialog.busy:  # another offer or answer is under way: it may refresh the session, too
            self._again(dialog)
        elif self._state.peer_updates:
            self._waiting = True
            fields = [("Contact", dialog.contact), ("Supported", TAG), *self.fields(dialog.stack.config.min_se_s)]
            dialog.exchange("UPDATE", fields, b"", lambda status, response: self._updated(dialog, status, response))
        else:
            sdp = dialog.listener.on_refresh()
            if sdp:
                self._waiting = True
                dialog.reinvite(sdp, lambda status, answer: self._reinvited(dialog, status, answer))

    def _again(self, dialog: "Dialog") -> None:
        stack = dialog.stack
        self._waiting = False
        self._tries += 1
        share = int(stack.token()[-4:], 16) / 0xFFFF
        self._set(dialog, stack.now() + AGAIN_S * self._tries * (1 + share))

    def _updated(self, dialog: "Dialog", status: int, response: Response | None) -> None:
        self._waiting = False
        if dialog.ended:
            return
        if response is not None and 200 <= status < 300:
            dialog.retarget(response, dialog.flow)
            self.agreed(dialog, response)
        elif response is not None and status == 422 and self.lengthen(response):
            self._refresh(dialog)
        elif response is not None and status in _NO_UPDATE:
            self._state.peer_updates = False
            self._refresh(dialog)
        elif status in _ENDS:
            dialog.fail(_ENDS[status])
        else:  # 491, 500, 503...: it may be better next time
            self._again(dialog)

    def _reinvited(self, dialog: "Dialog", status: int, sdp: bytes) -> None:
        if dialog.ended:
            return
        self._waiting = False
        if status == 200:
            dialog.listener.on_refreshed(sdp)
        else:
            self._again(dialog)


def headers_of_422(config: StackConfig) -> list[Field]:
    """Of the refusal of too short an interval (section 6)."""
    return [("Min-SE", str(config.min_se_s))]
