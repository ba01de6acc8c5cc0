"""One registration of ours, without I/O, clock or randomness (RFC 3261 section 10.2): when to ask, and what an answer
means.

    IDLE -> request() -> TRYING -> answered() -> REGISTERED, REFUSED or UNREACHABLE; `due` says when to ask again

A registration is renewed when RENEW of its time has passed. What fails is tried again after a wait that doubles, drawn
at random from its upper half so that many clients do not come back at once (RFC 5626 section 4.5); a refusal (403, a
wrong password) begins with a long wait, for registrars ban who insists. Retry-After is heeded, Min-Expires (423) too.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from trunkline.sip.errors import MalformedMessage
from trunkline.sip.headers import Field, NameAddr, parse_list
from trunkline.sip.message import REASONS, Response

RENEW: Final = (0.70, 0.80)
"""Part of the granted time after which it is renewed, drawn between these."""
RENEW_SHORTEST_S: Final = 2.0
"""Least wait before a renewal, however little was granted."""
RETRY_FIRST_S: Final = 15.0
RETRY_LONGEST_S: Final = 600.0
REFUSED_FIRST_S: Final = 120.0
REFUSED_LONGEST_S: Final = 1800.0
RETRY_AFTER_LONGEST_S: Final = 3600.0
"""Of a Retry-After that is heeded."""
EXPIRES_LONGEST_S: Final = 86_400
MAX_BRIEF: Final = 3
"""423s in a row after which it counts as refused."""
INTERVAL_TOO_BRIEF: Final = 423
MAX_REASON: Final = 120
"""Characters of a reason that are kept."""
_FOR_NOW: Final = frozenset({408, 480, 482, 491, 500, 502, 503, 504, 513, 580})
"""Responses that are no refusal: another time, or another server, may do."""


class State(StrEnum):
    """How a registration stands."""

    IDLE = "idle"
    TRYING = "trying"
    REGISTERED = "registered"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"


class RegisterClient:
    """See the module. Times are seconds of one clock; `draw(low, high)` gives a random number between."""

    def __init__(self, expires_s: int, call_id: str, draw: Callable[[float, float], float]) -> None:
        self.state = State.IDLE
        self.detail = ""
        """Why it is not registered, for people."""
        self.due = 0.0
        """When the next REGISTER is to go out."""
        self.expires_at = 0.0
        """When the registration ends by itself."""
        self.call_id = call_id
        self.cseq = 0
        self.granted_s = 0
        self.seen = ""
        """Our address as the registrar sees it (RFC 3581), empty where it does not say."""
        self.service_routes: tuple[str, ...] = ()
        """RFC 3608; for information."""
        self._wanted_s = expires_s
        self._draw = draw
        self._failures = 0
        self._brief = 0

    def stands(self, now: float) -> bool:
        """Whether calls can come in by it."""
        return now < self.expires_at

    def request(self, contact: str, *, end: bool = False) -> list[Field]:
        """The headers of the next REGISTER, whose CSeq is `cseq`; `end`: take the registration back."""
        self.cseq += 10  # room for the attempts of one request: they count on
        if self.state is State.IDLE:
            self.state = State.TRYING
        expires = 0 if end else self._wanted_s
        return [("Contact", f"{contact};expires={expires}"), ("Expires", str(expires))]

    def answered(self, status: int, response: Response | None, user: str, now: float) -> None:
        """The final response came (None: nothing came, or it could not be sent). `user` is that of our Contact."""
        if response is not None:
            self.seen = _seen(response)
        if 200 <= status < 300 and response is not None:
            self._granted(_granted(response, user, self._wanted_s), response, now)
        elif status == INTERVAL_TOO_BRIEF and response is not None and self._brief < MAX_BRIEF:
            self._brief += 1
            self._wanted_s = min(max(_number(response, "Min-Expires"), self._wanted_s + 1), EXPIRES_LONGEST_S)
            self.due = now
        else:
            self._failed(status, response, now)

    def _granted(self, seconds: int, response: Response, now: float) -> None:
        if seconds <= 0:
            self._failed(200, response, now, "200, but our Contact is not among those that it lists")
            return
        self.state, self.detail = State.REGISTERED, ""
        self._failures = self._brief = 0
        self.granted_s = seconds
        self.expires_at = now + seconds
        self.due = now + max(seconds * self._draw(*RENEW), min(RENEW_SHORTEST_S, seconds))
        self.service_routes = tuple(response.headers.all("Service-Route"))

    def _failed(self, status: int, response: Response | None, now: float, why: str = "") -> None:
        refused = response is not None and status not in _FOR_NOW
        first, longest = (REFUSED_FIRST_S, REFUSED_LONGEST_S) if refused else (RETRY_FIRST_S, RETRY_LONGEST_S)
        wait = min(first * 2**self._failures, longest)
        self._failures = min(self._failures + 1, 16)
        self._brief = 0
        wait = self._draw(wait / 2, wait)
        if response is not None:
            wait = max(wait, min(_number(response, "Retry-After"), RETRY_AFTER_LONGEST_S))
        self.due = now + wait
        self.detail = why or _why(status, response)
        if refused:
            self.state, self.expires_at = State.REFUSED, 0.0
        elif not self.stands(now):
            self.state = State.UNREACHABLE

    def ended(self) -> None:
        """It has been taken back."""
        self.state, self.expires_at = State.IDLE, 0.0


def _why(status: int, response: Response | None) -> str:
    if response is None:
        return "no answer" if status == 408 else "it cannot be reached"
    text = (response.reason or REASONS.get(status, ""))[:MAX_REASON]
    hint = " (wrong username or password?)" if status in (401, 403, 407) else ""
    return f"{status} {text}{hint}"


def _granted(response: Response, user: str, wanted: int) -> int:
    """Seconds that the registrar gives our Contact; 0 if it lists others only."""
    default = _number(response, "Expires") or wanted
    try:
        contacts: list[NameAddr] = parse_list(response.headers.all("Contact"))
    except MalformedMessage:
        return default
    if not contacts:
        return default  # some registrars list nothing
    for contact in contacts:
        if contact.uri.user == user:
            text = contact.params.get("expires") or ""
            return min(int(text), EXPIRES_LONGEST_S) if text.isascii() and text.isdigit() else default
    return 0


def _seen(response: Response) -> str:
    try:
        via = response.via
    except MalformedMessage:
        return ""
    if not via.received and via.rport is None:
        return ""
    host = via.received or via.host
    return f"{host}:{via.rport}" if via.rport is not None else host


def _number(response: Response, name: str) -> int:
    """The number that a header begins with, 0 without."""
    text = response.headers.get(name).strip()
    digits = text[: len(text) - len(text.lstrip("0123456789"))]
    return int(digits) if 0 < len(digits) <= 9 else 0
