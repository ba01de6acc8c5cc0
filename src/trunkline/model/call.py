"""A call: its record, its statuses and the table of their transitions.

One record is one leg, as Twilio counts: an inbound call, one made by the API, or a child that `<Dial>` made. The record
is what the in-flight store keeps (as JSON) and, with its webhook attempts, what becomes the immutable post-flight
document. The status lives beside the record, in the flight.

Source: Twilio's Call resource (spec `api.v2010.account.call`) and its voice webhook documentation.
"""

from enum import StrEnum
from typing import Any

import msgspec

RECORD_VERSION = 1
"""Version of the in-flight record; release N and N-1 read each other's (unknown fields are ignored)."""


class Direction(StrEnum):
    INBOUND = "inbound"
    OUTBOUND_API = "outbound-api"
    OUTBOUND_DIAL = "outbound-dial"


class Status(StrEnum):
    """Twilio's call statuses. `initiated` is only shown in status callbacks: in the record it is `queued`."""

    QUEUED = "queued"
    INITIATED = "initiated"
    RINGING = "ringing"
    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    BUSY = "busy"
    FAILED = "failed"
    NO_ANSWER = "no-answer"
    CANCELED = "canceled"


_ENDED_UNANSWERED = frozenset({Status.BUSY, Status.FAILED, Status.NO_ANSWER, Status.CANCELED})

TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.INITIATED, Status.RINGING, Status.IN_PROGRESS}) | _ENDED_UNANSWERED,
    Status.INITIATED: frozenset({Status.RINGING, Status.IN_PROGRESS}) | _ENDED_UNANSWERED,
    # An inbound call that is hung up or redirected to an end before it is answered ends `completed` at Twilio only
    # when it was answered; a caller who gives up ends `no-answer`.
    Status.RINGING: frozenset({Status.IN_PROGRESS, Status.COMPLETED}) | _ENDED_UNANSWERED,
    Status.IN_PROGRESS: frozenset({Status.COMPLETED, Status.FAILED}),
    Status.COMPLETED: frozenset(),
    Status.BUSY: frozenset(),
    Status.FAILED: frozenset(),
    Status.NO_ANSWER: frozenset(),
    Status.CANCELED: frozenset(),
}
"""What may follow what."""

TERMINAL = frozenset({Status.COMPLETED, *_ENDED_UNANSWERED})
"""Statuses at which a flight may land."""


class TimelineEntry(msgspec.Struct, omit_defaults=True):
    """One thing that happened to a call; the list of them is the per-call timeline."""

    at_ms: int
    kind: str
    """`sip`, `twiml`, `webhook`, `media`, `status`, `digit`, `recording` or `error`."""
    what: str
    """One line: `<- INVITE`, `-> 200 OK`, `<Gather> 5 digits`, `POST https://... 200 in 12 ms`."""
    details: dict[str, Any] = {}


class MediaQuality(msgspec.Struct, omit_defaults=True):
    """What the media engine measured of one leg (RFC 3550 sections 6.4 and A.8)."""

    codec: str = ""
    packets_received: int = 0
    packets_sent: int = 0
    lost: int = 0
    """Packets that never came in, or too late to be played."""
    jitter_ms: float = 0
    max_jitter_ms: float = 0
    round_trip_ms: float = 0
    remote_lost: int = 0
    """As the other side's receiver reports say."""
    mos: float = 0
    """Estimate by the E-model (ITU-T G.107), 1 to 4.5; 0 while unknown."""


class StatusTarget(msgspec.Struct, omit_defaults=True):
    """Where a call's events are told."""

    url: str
    method: str = "POST"
    events: tuple[str, ...] = ("completed",)
    """Of `initiated`, `ringing`, `answered`, `completed`."""


class Call(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The record of one call leg (DESIGN: "a flight")."""

    v: int = RECORD_VERSION
    sid: str
    account_sid: str
    direction: Direction
    from_: str = msgspec.field(name="from", default="")
    """E.164, `sip:...` or `client:...`, as the API shows it."""
    to: str = ""
    caller_name: str = ""
    forwarded_from: str = ""
    phone_number_sid: str = ""
    parent_sid: str = ""
    application_sid: str = ""
    api_version: str = "2010-04-01"
    token: str = ""
    """The idempotency token assigned at the edge."""
    created_ms: int = 0
    updated_ms: int = 0
    started_ms: int = 0
    """`start_time`: when the INVITE came or went; 0 if it never did."""
    answered_ms: int = 0
    """When it was answered; 0 if it never was."""
    ended_ms: int = 0
    answered_by: str = ""
    queue_time_ms: int = 0
    """How long it waited for its account's calls-per-second limit."""
    url: str = ""
    """Where its first TwiML document is, empty with `twiml`."""
    method: str = "POST"
    fallback_url: str = ""
    fallback_method: str = "POST"
    twiml: str = ""
    """The document itself, where the API gave it."""
    status_callbacks: list[StatusTarget] = []
    callback_sequence: int = 0
    """`SequenceNumber` of the next event that is told."""
    timeout_s: int = 60
    """How long an outgoing call rings."""
    time_limit_s: int = 14_400
    send_digits: str = ""
    record: bool = False
    record_channels: int = 1
    record_track: str = "both"
    record_trim: str = "trim-silence"
    recording_status_callback: str = ""
    recording_status_callback_method: str = "POST"
    recording_status_callback_events: tuple[str, ...] = ("completed",)
    sip_auth_username: str = ""
    sip_auth_password: str = ""
    """Sealed (trunkline.storage.secrets) while in flight, dropped when it lands."""
    caller_id: str = ""
    call_reason: str = ""
    trunk: str = ""
    """The trunk that it came or went by."""
    sip_call_id: str = ""
    sip_response_code: int = 0
    """The final response to an outgoing INVITE, or what we answered to an incoming one; 0 while there is none."""
    hangup_cause: str = ""
    """`Reason` of the BYE or CANCEL (RFC 3326), or ours: `caller`, `callee`, `api`, `time-limit`, `rtp-timeout`, ..."""
    sip_headers: dict[str, str] = {}
    """X- and User-to-User headers that came with the INVITE, by name."""
    recordings: list[str] = []
    """SIDs, oldest first."""
    price: str = ""
    """Positive decimal string in `price_unit`, empty while unknown."""
    price_unit: str = ""
    cost: str = ""
    error_code: int = 0
    error_message: str = ""
    quality: MediaQuality | None = None
    timeline: list[TimelineEntry] = []
    """At most MAX_TIMELINE entries; the middle is dropped first, and an entry says so."""
    traceparent: str = ""
    """W3C Trace Context, where the request brought one or sampling chose the call."""
    stages: dict[str, int] = {}
    """Stage of the pipeline -> milliseconds from `created_ms` to its end."""
    extra: dict[str, Any] = {}

    @property
    def deadline_ms(self) -> int:
        """Of the envelope (trunkline.telemetry.envelope): after it, an outgoing call does not ring any more."""
        return self.created_ms + 1000 * self.timeout_s if self.direction is not Direction.INBOUND else 0

    @property
    def origin(self) -> str:
        """Of the envelope: where it came from."""
        return self.direction

    @property
    def duration_s(self) -> int:
        """Whole seconds from answer to end, rounded up as Twilio bills; 0 if never answered or not ended."""
        if not self.answered_ms or not self.ended_ms:
            return 0
        return -(-(self.ended_ms - self.answered_ms) // 1000)


MAX_TIMELINE = 500
"""Entries of a call's timeline that are kept."""

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Call).decode
