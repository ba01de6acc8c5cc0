"""What the owner of a `Stack` gives it and hears from it.

Listeners are plain classes with harmless defaults; override what matters. All calls come synchronously out of
`Stack.receive`, `Stack.tick` or a method of the object itself, and must not block. What a listener raises is logged and
answered with 500; it never reaches the network loop.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from trunkline.sip.errors import NotAcceptable
from trunkline.sip.flow import Address, Flow
from trunkline.sip.message import Request, Response
from trunkline.sip.timers import Timing

if TYPE_CHECKING:
    from trunkline.sip.dialog import Dialog
    from trunkline.sip.refer import ReferRequest
    from trunkline.sip.server_invite import ServerInvite

HeaderList = Iterable[tuple[str, str]]
Credentials = tuple[str, str]
"""User and password for digest."""
Answer = tuple[int, list[tuple[str, str]]]
"""Status and headers of a response."""

ALLOW: Final = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, PRACK, UPDATE, REFER, NOTIFY"
KNOWN_METHODS: Final = frozenset(ALLOW.split(", ")) | {"REGISTER", "MESSAGE", "SUBSCRIBE", "PUBLISH"}
EXTENSIONS: Final = ("100rel", "timer", "replaces", "norefersub")
"""Option tags that we know (RFC 3262, 4028, 3891, 4488); a `Require` of others gets 420."""
SUPPORTED: Final = ", ".join(EXTENSIONS)
DIALOG_METHODS: Final = frozenset({"BYE", "PRACK", "UPDATE", "NOTIFY"})
"""What exists inside dialogs only: 481 outside."""
SDP_TYPE: Final = "application/sdp"


@dataclass(frozen=True, slots=True)
class StackConfig:
    """Limits and names of one stack; times in seconds."""

    host: str = ""
    """Host that Via and Contact name; empty: that of the flow."""
    port: int = 0
    """Port that Via and Contact name; 0: that of the flow."""
    user_agent: str = "Trunkline"
    timing: Timing = field(default_factory=Timing)
    invite_timeout_s: float = 180.0
    """How long an INVITE may stay without a final response, either way (Timer C)."""
    max_transactions: int = 50_000
    """Transactions at once; beyond it new requests get 503."""
    retry_after_s: int = 5
    """Retry-After of that 503."""
    session_expires_s: int = 0
    """Session interval that our INVITEs ask for (RFC 4028); 0: none, and the peer's wish is followed all the same."""
    min_se_s: int = 90
    """Shortest session interval that is agreed to; shorter ones get 422. The RFC's least is 90."""
    max_udp_bytes: int = 1300
    """Larger requests go by TCP where the target leaves the choice (RFC 3261 section 18.1.1)."""


class Core(Protocol):
    """The user of the stack: what happens outside dialogs."""

    def on_invite(self, invite: "ServerInvite") -> None:
        """A new, well-formed INVITE. Answer it now or later, and set `invite.listener`. On return 100 is sent, unless
        something else has been."""

    def on_request(self, request: Request, flow: Flow) -> Answer | None:
        """OPTIONS, REGISTER, MESSAGE... outside a dialog. None: the default, 200 for OPTIONS and 405 or 501 else."""

    def permitted(self, request: Request, flow: Flow) -> bool:
        """Whether a request that belongs to nothing we know is looked at; if not, it is dropped without a word."""


class InviteListener:
    """Hears of an INVITE that we have not answered yet."""

    def on_cancel(self, reason: str) -> None:
        """The caller gave up, or nobody answered within the limit; the response has been sent. `reason` is the
        Reason header (RFC 3326), empty without one."""

    def on_update(self, offer: bytes) -> bytes:
        """The answer to the offer of an UPDATE before the call is answered, when an answer of ours to the INVITE's
        offer has been acknowledged (PRACK). Raises `NotAcceptable` (488)."""
        raise NotAcceptable("no session to change")


class CallListener:
    """Hears of an INVITE of ours. `on_answer` or `on_failure` is called exactly once, nothing after it."""

    def on_sent(self, invite: bytes, flow: Flow) -> None:
        """The INVITE leaves, for the first time or once more in a transaction of its own (with credentials, say), or
        it turned out to have gone another way: what it takes to withdraw it (`trunkline.sip.takeover.withdraw`)."""

    def on_progress(self, response: Response, sdp: bytes) -> None:
        """A provisional response above 100; several forks may ring at once (`response.to_tag`)."""

    def on_answer(self, dialog: "Dialog", response: Response, sdp: bytes) -> None:
        """A 2xx. `sdp` is the answer, and the ACK follows this call, part of `dialog.state()` already; after a late
        offer it is the offer: call `dialog.ack(sdp)`. Empty: it was said before and an UPDATE has changed it since
        (`on_early_update`). Set `dialog.listener`."""

    def on_failure(self, status: int, reason: str, response: Response | None) -> None:
        """A final response above 299, 408 (time-out), 503 (it could not be sent) or 487 (cancelled)."""

    def on_early_update(self, tag: str, offer: bytes) -> bytes:
        """The answer to the offer of an UPDATE in the early dialog with that tag of the peer's, which has answered our
        own offer reliably (RFC 3311). Raises `NotAcceptable` (488)."""
        raise NotAcceptable("no session to change")


class DialogListener:
    """Hears of a dialog. `on_bye` or `on_ended` is called at most once, and neither after our own `bye`."""

    def on_bye(self, request: Request) -> None:
        """The peer hung up; 200 has been sent."""

    def on_ended(self, reason: str) -> None:
        """It ended otherwise: `no-ack`, `no-prack`, `timeout` (a re-INVITE got 408), `gone` (481) or `expired` (its
        session timer, RFC 4028). BYE has been sent."""

    def on_reinvite(self, offer: bytes) -> bytes:
        """Our SDP for a re-INVITE: the answer, or our offer if `offer` is empty. Raises `NotAcceptable` (488)."""
        raise NotAcceptable("no session to change")

    def on_update(self, offer: bytes) -> bytes:
        """The answer to the offer of an UPDATE (RFC 3311). Raises `NotAcceptable` (488)."""
        return self.on_reinvite(offer)

    def on_refresh(self) -> bytes:
        """Our description as the peer has it, for a re-INVITE that only refreshes the session; empty: there is none."""
        return b""

    def on_refreshed(self, sdp: bytes) -> None:
        """The peer's answer to it."""

    def on_refer(self, refer: "ReferRequest") -> Answer:
        """The peer wants us to call somewhere else (RFC 3515). A 2xx answer accepts: then `refer.tell(status)` says how
        it goes, with a last one above 199."""
        return 603, []

    def on_ack(self, sdp: bytes) -> None:
        """The ACK of our 2xx, once for each; with the answer if we had offered."""

    def on_info(self, request: Request) -> None:
        """INFO; 200 follows."""

    def on_request(self, request: Request) -> Answer | None:
        """Another method (MESSAGE...). None: the default, 200 for OPTIONS and 405 or 501 else."""


__all__ = [
    "ALLOW",
    "DIALOG_METHODS",
    "EXTENSIONS",
    "KNOWN_METHODS",
    "SDP_TYPE",
    "SUPPORTED",
    "Address",
    "Answer",
    "CallListener",
    "Core",
    "Credentials",
    "DialogListener",
    "HeaderList",
    "InviteListener",
    "StackConfig",
]
