"""REFER and its implicit subscription (RFC 3515, RFC 6665; RFC 4488 where nobody wants to hear of it).

One referral at a time each way in a dialog. `ReferRequest` is one that the peer sent: its owner tells how it goes, and
each telling is a NOTIFY with a fragment of a SIP response. `Referral` is one of ours: it hears these. Neither creates
a dialog, and NOTIFYs that belong to nothing get 481.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trunkline.sip.core import HeaderList
from trunkline.sip.headers import NameAddr, split_values
from trunkline.sip.message import REASONS, MalformedMessage, Request, Response
from trunkline.sip.timers import Timer
from trunkline.sip.uri import SIP_SCHEMES, Uri

if TYPE_CHECKING:
    from trunkline.sip.dialog import Dialog
    from trunkline.sip.transaction import ServerTransaction

SUBSCRIPTION_S: Final = 180.0
"""How long a referral may take; then its subscription ends."""
MAX_NOTIFIES: Final = 60
"""NOTIFYs of one referral that are heard; one more gets 481, which ends its subscription."""
MAX_REFER_TO: Final = 2048
"""Characters of a Refer-To."""
FRAGMENT: Final = "message/sipfrag"
EVENT: Final = "refer"
NOT_ALLOWED_EVENT: Final = [("Allow-Events", EVENT)]
_SCHEMES: Final = SIP_SCHEMES | {"tel"}


class ReferRequest:
    """A REFER that came in. `target` is the Refer-To as it was sent, `uri` what it names."""

    __slots__ = ("_dialog", "_event", "_over", "_timer", "request", "silent", "target", "uri")

    def __init__(self, dialog: "Dialog", request: Request, target: str, uri: Uri, event: str) -> None:
        self.request = request
        self.target = target
        self.uri = uri
        self.silent = request.headers.get("Refer-Sub").partition(";")[0].strip().lower() == "false"
        """Whether the peer wants to hear nothing (RFC 4488)."""
        self._dialog = dialog
        self._event = event
        self._over = False
        self._timer: Timer | None = None

    @property
    def over(self) -> bool:
        """Whether its outcome has been told."""
        return self._over

    @property
    def referred_by(self) -> str:
        """The Referred-By header (RFC 3892), empty without one."""
        return self.request.headers.get("Referred-By")

    def begin(self) -> None:
        """It was accepted: the subscription begins with what is known, nothing (RFC 3515 section 2.4.4)."""
        stack = self._dialog.stack
        if not self._over:
            self._timer = stack.timers.set(stack.now() + SUBSCRIPTION_S, self._timed_out)
            self._notify(100, f"active;expires={int(SUBSCRIPTION_S)}")

    def tell(self, status: int, reason: str = "", then: Callable[[], object] | None = None) -> None:
        """How the call to the target goes; a status above 199 is the last. `then` is called once the peer has heard."""
        if self._over:
            if then is not None:
                then()
            return
        if status >= 200:
            self._over = True
            self._dialog.stack.timers.cancel(self._timer)
        state = "terminated;reason=noresource" if self._over else f"active;expires={int(SUBSCRIPTION_S)}"
        self._notify(status, state, reason, then)

    def close(self) -> None:
        """The dialog is over."""
        self._over = True
        self._dialog.stack.timers.cancel(self._timer)

    def _timed_out(self) -> None:
        if not self._over:
            self._over = True
            self._notify(408, "terminated;reason=timeout")

    def _notify(self, status: int, state: str, reason: str = "", then: Callable[[], object] | None = None) -> None:
        dialog = self._dialog
        if self.silent or dialog.ended or dialog.ending:
            if then is not None:
                then()
            return
        fields = [
            ("Contact", dialog.contact),
            ("Event", self._event),
            ("Subscription-State", state),
            ("Content-Type", f"{FRAGMENT};version=2.0"),
        ]
        body = f"SIP/2.0 {status} {reason or REASONS.get(status, '')}\r\n".encode()

        def heard(_status: int, _response: Response | None) -> None:
            if then is not None:
                then()

        dialog.exchange("NOTIFY", fields, body, heard)


@dataclass(frozen=True, slots=True)
class ReferProgress:
    """How a referral of ours goes."""

    response: int
    """Final status of the REFER itself, 0 while there is none; 408 and 503 without an answer."""
    status: int
    """Last status that the peer told of the new call, 0 if it told none."""
    over: bool
    """Whether this is the last that is heard."""


OnNotify = Callable[[ReferProgress], None]


class Referral:
    """A REFER of ours, until its subscription ends."""

    __slots__ = ("_dialog", "_heard", "_on_notify", "_response", "_status", "_timer", "over")

    def __init__(self, dialog: "Dialog", on_notify: OnNotify) -> None:
        self.over = False
        self._dialog = dialog
        self._on_notify = on_notify
        self._response = self._status = self._heard = 0
        stack = dialog.stack
        self._timer: Timer | None = stack.timers.set(stack.now() + SUBSCRIPTION_S, self._finish)

    def send(self, target: str, headers: HeaderList) -> None:
        """Send it."""
        fields = [("Contact", self._dialog.contact), ("Refer-To", target), *headers]
        self._dialog.request("REFER", fields, on_response=self._answered)

    def notified(self, request: Request) -> int:
        """A NOTIFY has come: the status to answer."""
        self._heard += 1
        if self._heard > MAX_NOTIFIES:
            self._finish()
            return 481
        status = fragment_status(request)
        self._status = status or self._status
        state = request.headers.get("Subscription-State").partition(";")[0].strip().lower()
        if state == "terminated" or status >= 200:
            self._finish()
        else:
            self._tell()
        return 200

    def close(self) -> None:
        """The dialog is over: nothing more is heard."""
        self.over = True
        self._dialog.stack.timers.cancel(self._timer)

    def _answered(self, status: int, response: Response | None) -> None:
        self._response = status
        unheard = response is not None and response.headers.get("Refer-Sub").strip().lower() == "false"
        if status >= 300 or unheard:
            self._finish()
        else:
            self._tell()

    def _tell(self) -> None:
        self._on_notify(ReferProgress(self._response, self._status, self.over))

    def _finish(self) -> None:
        if not self.over:
            self.close()
            self._on_notify(ReferProgress(self._response, self._status, True))


def fragment_status(request: Request) -> int:
    """The status in a NOTIFY's fragment of a response; 0 if there is none."""
    if request.content_type != FRAGMENT:
        return 0
    parts = request.body[:64].split(None, 2)
    if len(parts) < 2 or parts[0].upper() != b"SIP/2.0" or len(parts[1]) != 3 or not parts[1].isdigit():
        return 0
    return int(parts[1])


def receive_refer(dialog: "Dialog", request: Request, transaction: "ServerTransaction") -> None:
    """A REFER in a dialog: ask the listener."""
    previous = dialog.referred
    try:
        values = split_values(request.headers.all("Refer-To"))
        uri = NameAddr.parse(values[0]).uri if len(values) == 1 and len(values[0]) <= MAX_REFER_TO else None
    except MalformedMessage:
        uri = None
    if uri is None:
        dialog.reply(transaction, request, 400, reason="Bad Refer-To")
    elif uri.scheme not in _SCHEMES:
        dialog.reply(transaction, request, 416)
    elif (uri.params.get("method") or "INVITE").upper() != "INVITE":
        dialog.reply(transaction, request, 603)
    elif previous is not None and not previous.over:
        dialog.reply(transaction, request, 491)
    else:
        event = EVENT if previous is None else f"{EVENT};id={request.cseq[0]}"
        refer = ReferRequest(dialog, request, values[0], uri, event)
        status, headers = dialog.listener.on_refer(refer)
        if not 200 <= status < 300:
            dialog.reply(transaction, request, status, headers)
            return
        dialog.referred = refer
        more = [("Refer-Sub", "false")] if refer.silent else []
        dialog.reply(transaction, request, status, [("Contact", dialog.contact), *more, *headers])
        refer.begin()


def receive_notify(dialog: "Dialog", request: Request, transaction: "ServerTransaction") -> None:
    """A NOTIFY in a dialog: for a referral of ours, or for nothing."""
    event = request.headers.get("Event").partition(";")[0].strip().lower()
    referral = dialog.referral
    if event != EVENT:
        dialog.reply(transaction, request, 489, NOT_ALLOWED_EVENT)
    elif referral is None or referral.over:
        dialog.reply(transaction, request, 481, reason="Subscription Does Not Exist")
    else:
        dialog.reply(transaction, request, referral.notified(request))
