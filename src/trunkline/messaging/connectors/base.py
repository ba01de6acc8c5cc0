"""What a connector is: one way to hand messages to a carrier, and to hear from it.

A carrier's answer to a submit is one of three types (STYLE, habit 8): `Submitted`, `Rejected`, `Unavailable`. Receipts
and inbound messages go to a `Sink`; the connector acknowledges them to the carrier only when the sink's future is
done, that is after the commit.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from trunkline.model.message import Message
from trunkline.storage.written import Kept


class Submitted(msgspec.Struct, frozen=True):
    """The carrier took the message."""

    ids: Sequence[str]
    """The carrier's message id of each segment, normalised as receipts will name it."""
    final: bool = False
    """True where the carrier's answer already says `delivered` or sends no receipts that could follow."""
    trace: str = ""


class Rejected(msgspec.Struct, frozen=True):
    """The carrier refused it for good."""

    error_code: int
    """Twilio's code, e.g. 30003."""
    carrier_error: str = ""
    """The carrier's own code and text."""
    try_elsewhere: bool = False
    """Whether another route may still take it (the refusal is about this carrier, not about the message)."""


class Unavailable(msgspec.Struct, frozen=True):
    """It was not taken now: ask again later, or elsewhere."""

    reason: str
    in_doubt: bool = False
    """The answer was lost: the carrier may have it."""
    burns_attempt: bool = True
    """False for throttling and lost connections before the submit: pacing, not failure."""
    retry_after_s: float = 0.0
    sent_segments: int = 0


Outcome = Submitted | Rejected | Unavailable


class Submission(msgspec.Struct):
    """One message on its way to a carrier."""

    message: Message
    sender: str
    """The address that it goes out from (a service may have chosen another than `message.from_` shows)."""
    done: Callable[[Outcome], None]
    """Called exactly once, on the event loop."""


class Receipt(msgspec.Struct):
    """A delivery receipt, as a connector read it."""

    connector: str
    carrier_id: str
    """Normalised like the ids of `Submitted`."""
    state: str
    """`delivered`, `undeliverable`, `expired`, `deleted`, `rejected`, `accepted`, `enroute`, `unknown`, `read`, ..."""
    error: str = ""
    """The carrier's own error code."""
    error_code: int = 0
    """Twilio's code for it; 0: by the state's default."""
    done_date: str = ""
    """As the carrier wrote it, `YYMMDDhhmm`."""


class InboundPart(msgspec.Struct):
    """A message (or one part of a long one) that a carrier handed to us."""

    connector: str
    from_: str
    """E.164 with `+`, a short code or an alphanumeric sender."""
    to: str
    text: str = ""
    encoding: str = "gsm7"
    part: int = 1
    total: int = 1
    reference: int = -1
    """Reference number of the concatenation; -1: none."""
    reference_width: int = 8
    """Bits."""
    media: Sequence[tuple[str, bytes]] = ()
    """(content type, bytes) of each media file."""
    media_urls: Sequence[str] = ()
    carrier_id: str = ""
    """The carrier's own id of the inbound message, if it gives one: the same twice is the same message."""


class Sink(Protocol):
    """Where connectors put what they hear. The futures are done after the commit; an exception means: not kept."""

    def receipt(self, receipt: Receipt) -> Kept:
        """Next: trunkline.messaging.receipts.Receipts.apply"""

    def inbound(self, part: InboundPart) -> Kept:
        """Next: trunkline.messaging.inbound.Inbound.receive"""


class Connector(Protocol):
    """One carrier connection (which may hold several binds). One file each in this folder, listed in CONNECTORS."""

    name: str

    def capacity(self) -> int:
        """How many messages `submit` takes right now (window, pacing, connection); 0 when down."""

    def submit(self, submission: Submission) -> None:
        """Send it; never raises, never blocks. `submission.done` gets the outcome."""

    def start(self, sink: Sink, wake: Callable[[], None]) -> None:
        """Connect and keep connected; call `wake` whenever `capacity` may have grown."""

    async def stop(self, grace_s: float) -> None:
        """Take no more, wait for answers under way at most `grace_s` seconds, unbind, close."""

    def health(self) -> tuple[bool, str]:
        """Whether it can send, and one line for the operator."""
