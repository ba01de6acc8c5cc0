"""A recording of a call (Twilio's Recording resource, spec `api.v2010.account.recording`).

While it runs it is part of its call's live state; when its audio is complete it becomes a `Recording` record in the
`Database`, and its files stand in the blob store under `audio_key`.
"""

from enum import StrEnum
from typing import ClassVar

from trunkline.model.record import Record


class Source(StrEnum):
    DIAL_VERB = "DialVerb"
    OUTBOUND_API = "OutboundAPI"
    RECORD_VERB = "RecordVerb"
    START_CALL_RECORDING_API = "StartCallRecordingAPI"
    START_CALL_RECORDING_TWIML = "StartCallRecordingTwiML"


class RecordingStatus(StrEnum):
    IN_PROGRESS = "in-progress"
    PAUSED = "paused"
    STOPPED = "stopped"
    PROCESSING = "processing"
    COMPLETED = "completed"
    ABSENT = "absent"
    FAILED = "failed"
    DELETED = "deleted"
    """Its audio is gone; what it was is still told for a while to who asks for deleted ones (`IncludeSoftDeleted`)."""


class Recording(Record, kw_only=True):
    """See the module. `sid` starts with RE."""

    TABLE: ClassVar[str] = "recordings"

    call_sid: str
    source: str
    status: str = RecordingStatus.IN_PROGRESS
    channels: int = 1
    track: str = "both"
    """`both`, `inbound` or `outbound`."""
    trim: str = "do-not-trim"
    start_ms: int = 0
    duration_ms: int = 0
    """Of the audio, after trimming."""
    price: str = ""
    price_unit: str = ""
    error_code: int = 0
    audio_key: str = ""
    """Blob key of the WAV file; empty until it is complete or after the media was deleted."""
    audio_bytes: int = 0
    gaps: list[tuple[int, int]] = []
    """(offset ms, length ms) of stretches that could not be written and are silence."""
    status_callback: str = ""
    status_callback_method: str = "POST"
    status_callback_events: str = "completed"
    """Separated by spaces, as TwiML has them."""
    deleted_ms: int = 0
    """When its owner deleted it; 0: never."""
