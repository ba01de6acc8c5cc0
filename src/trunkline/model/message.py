"""A message: its record, its statuses and the table of their transitions.

The record is what the in-flight store keeps (as JSON) and, with its webhook attempts, what becomes the immutable
post-flight document. The status itself lives beside the record, in the flight, so that it can be advanced by
compare-and-set without rewriting the record.

Source: Twilio's Message resource (spec `api.v2010.account.message`) and its status callback documentation.
"""

from enum import StrEnum
from typing import Any

import msgspec

RECORD_VERSION = 1
"""Version of the in-flight record; release N and N-1 read each other's (unknown fields are ignored)."""


class Direction(StrEnum):
    INBOUND = "inbound"
    OUTBOUND_API = "outbound-api"
    OUTBOUND_CALL = "outbound-call"
    OUTBOUND_REPLY = "outbound-reply"


class Status(StrEnum):
    """Twilio's message statuses."""

    ACCEPTED = "accepted"
    SCHEDULED = "scheduled"
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    FAILED = "failed"
    CANCELED = "canceled"
    RECEIVING = "receiving"
    RECEIVED = "received"
    READ = "read"


TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.SCHEDULED: frozenset({Status.ACCEPTED, Status.QUEUED, Status.CANCELED, Status.FAILED}),
    Status.ACCEPTED: frozenset({Status.QUEUED, Status.SENDING, Status.CANCELED, Status.FAILED}),
    Status.QUEUED: frozenset({Status.SENDING, Status.CANCELED, Status.FAILED}),
    # `sending` is the durable intent: back to `queued` only when the carrier surely did not take it.
    Status.SENDING: frozenset(
        {Status.QUEUED, Status.SENDING, Status.SENT, Status.FAILED, Status.DELIVERED, Status.UNDELIVERED}
    ),
    Status.SENT: frozenset({Status.DELIVERED, Status.UNDELIVERED, Status.READ}),
    Status.DELIVERED: frozenset({Status.READ}),
    Status.UNDELIVERED: frozenset({Status.DELIVERED}),
    Status.FAILED: frozenset(),
    Status.CANCELED: frozenset(),
    Status.RECEIVING: frozenset({Status.RECEIVED}),
    Status.RECEIVED: frozenset(),
    Status.READ: frozenset(),
}
"""What may follow what. A late receipt may still turn `undelivered` into `delivered`, never the other way."""

TERMINAL = frozenset(
    {
        Status.DELIVERED,
        Status.UNDELIVERED,
        Status.FAILED,
        Status.CANCELED,
        Status.RECEIVED,
        Status.READ,
    }
)
"""Statuses at which a flight may land."""


class SegmentState(msgspec.Struct, omit_defaults=True):
    """One submitted part of a message at the carrier."""

    id: str = ""
    """The carrier's message id, normalised as the route says; empty until submitted."""
    state: str = ""
    """The receipt's state (`delivered`, `undeliverable`, ...), empty until a final one came."""
    error: str = ""
    """The carrier's own error code, as it wrote it."""


class Attempt(msgspec.Struct, omit_defaults=True):
    """One try to hand the message to a carrier."""

    at_ms: int
    connector: str
    sender: str = ""
    outcome: str = "submitting"
    """`submitting` (intent), `submitted`, `rejected`, `unavailable`, `in-doubt`."""
    error: str = ""
    """The carrier's own code and text."""
    trace: str = ""
    """Where it went on the wire, e.g. SMPP session and first sequence number."""


class MediaItem(msgspec.Struct, omit_defaults=True):
    """A media file that came or goes with a message (kept apart, under its own SID)."""

    sid: str
    content_type: str
    url: str = ""
    bytes: int = 0


class Message(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The record of one message (DESIGN: "a flight")."""

    @property
    def text(self) -> str:
        """What a carrier of text is handed."""
        return self.sent_text or self.body

    @property
    def deadline_ms(self) -> int:
        """Of the envelope (trunkline.telemetry.envelope): after it, it is not sent any more."""
        return self.valid_until_ms

    @property
    def origin(self) -> str:
        """Of the envelope: where it came from."""
        return self.direction

    v: int = RECORD_VERSION
    sid: str
    account_sid: str
    direction: Direction
    from_: str = msgspec.field(name="from", default="")
    to: str = ""
    body: str = ""
    sent_text: str = ""
    """What goes over the air where that is not the body: with links to the files, for carriers of text."""
    num_segments: int = 1
    encoding: str = "gsm7"
    """`gsm7` or `ucs2`, as it goes over the air."""
    created_ms: int = 0
    updated_ms: int = 0
    sent_ms: int = 0
    """When the carrier took it (outbound) or it was received (inbound); 0 if not yet."""
    messaging_service_sid: str = ""
    status_callback: str = ""
    application_sid: str = ""
    error_code: int = 0
    error_message: str = ""
    carrier_error: str = ""
    """The carrier's own code behind `error_code`."""
    price: str = ""
    """Positive decimal string in `price_unit` for the whole message, empty while unknown."""
    price_unit: str = ""
    cost: str = ""
    """What the carrier charges the operator for it, decimal string."""
    valid_until_ms: int = 0
    """After this time it is not sent any more (error 30001 for queue expiry as Twilio says); 0: the default applied."""
    token: str = ""
    """The idempotency token assigned at the edge; every later stage derives its own from it."""
    connector: str = ""
    """Carrier connector that took (or should take) it."""
    route: str = ""
    """Name of the route that chose the connector."""
    fallback_from: str = ""
    tried: list[Attempt] = []
    segments: list[SegmentState] = []
    media: list[MediaItem] = []
    in_doubt: bool = False
    """A submit's answer was lost at least once: a duplicate (or a loss, by policy) is possible."""
    smart_encoded: bool = False
    redacted: bool = False
    done_date: str = ""
    """`RawDlrDoneDate` of the final receipt (YYMMDDhhmm)."""
    send_at_ms: int = 0
    traceparent: str = ""
    """W3C Trace Context, where the request brought one or sampling chose the message."""
    stages: dict[str, int] = {}
    """Stage of the pipeline -> milliseconds from `created_ms` to its end."""
    extra: dict[str, Any] = {}
    """What a connector or a later release wants to keep."""


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Message).decode
