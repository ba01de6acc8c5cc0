"""<Record ...>: record what the caller says, then go on at `action`.

It ends with a key, with silence, at its greatest length or when the caller hangs up (then `action` is told `Digits` is
`hangup`). Nothing but silence is no recording: the call goes on with the next verb. Transcriptions are not there yet:
that is told by an alert.
Source: Twilio's <Record>.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trunkline.model.call import Call
from trunkline.model.errors import ApiError
from trunkline.model.recording import Recording, RecordingStatus, Source
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.twiml import kinds
from trunkline.twiml.document import DocumentKind, Verb
from trunkline.twiml.schema import Attribute, Notes, Value, VerbSpec, check_content
from trunkline.twiml.xmltree import Element
from trunkline.voice.callbacks import RECORDING_EVENTS, seconds
from trunkline.voice.dial_nouns import events
from trunkline.voice.recording_running import Running
from trunkline.voice.recordings import OPEN, NewRecording, Recordings
from trunkline.voice.steps import CallEnded, Goto

if TYPE_CHECKING:
    from trunkline.voice.session import Session

INVALID_METHOD: Final = 13610
INVALID_TIMEOUT: Final = 13611
INVALID_LENGTH: Final = 13612
INVALID_FINISH: Final = 13613
INVALID_TRANSCRIBE: Final = 13614
INVALID_BEEP: Final = 13616
NO_TRANSCRIPTION: Final = 13618
INVALID_CALLBACK: Final = 13256
INVALID_EVENT: Final = 13621
INVALID_TRIM: Final = 13699
DEFAULT_TIMEOUT_S: Final = 5
DEFAULT_LENGTH_S: Final = 3600
MAX_LENGTH_S: Final = 86_400
ALL_KEYS: Final = "1234567890*#"
KEPT_WAIT_S: Final = 10.0
"""How long the audio may take to be kept after the recording has ended; then the call goes on without waiting."""
LOST_WAIT_S: Final = 60.0
"""How long it may take of one that a lost process has begun and whose caller has gone: what had left the host is put
together, and a database may have to fail over first."""
KEPT_LOOK_S: Final = 0.5
HANGUP: Final = "hangup"


def _finish(raw: str) -> str | None:
    return raw if all(key in ALL_KEYS for key in raw) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Verb):
    """URLs as written (an empty action: the document's own); times in seconds, `timeout` 0: silence does not end it."""

    action: str = ""
    method: str = "POST"
    timeout: int = DEFAULT_TIMEOUT_S
    finish_on_key: str = ALL_KEYS
    max_length: int = DEFAULT_LENGTH_S
    play_beep: bool = True
    trim: str = "trim-silence"
    recording_status_callback: str = ""
    recording_status_callback_method: str = "POST"
    recording_status_callback_event: tuple[str, ...] = ("completed",)
    transcribe: bool = False


ATTRIBUTES: Final = (
    Attribute("action", "action", kinds.url, default=""),
    Attribute("method", "method", kinds.method, default="POST", invalid_code=INVALID_METHOD),
    Attribute("timeout", "timeout", kinds.whole(0, MAX_LENGTH_S), DEFAULT_TIMEOUT_S, INVALID_TIMEOUT),
    Attribute("finishOnKey", "finish_on_key", _finish, ALL_KEYS, INVALID_FINISH),
    Attribute("maxLength", "max_length", kinds.whole(1, MAX_LENGTH_S), DEFAULT_LENGTH_S, INVALID_LENGTH),
    Attribute("playBeep", "play_beep", kinds.boolean, True, INVALID_BEEP),
    Attribute("trim", "trim", kinds.one_of("trim-silence", "do-not-trim"), "trim-silence", INVALID_TRIM),
    Attribute("recordingStatusCallback", "recording_status_callback", kinds.url, "", INVALID_CALLBACK),
    Attribute("recordingStatusCallbackMethod", "recording_status_callback_method", kinds.method, "POST"),
    Attribute(
        "recordingStatusCallbackEvent", "recording_status_callback_event", events(*RECORDING_EVENTS), ("completed",),
        INVALID_EVENT,
    ),
    Attribute("transcribe", "transcribe", kinds.boolean, False, INVALID_TRANSCRIBE),
    Attribute("transcribeCallback", "_", kinds.text),
    Attribute("recordingConfigurationId", "_", kinds.text),
)  # fmt: skip


def build(element: Element, values: dict[str, Value], notes: Notes) -> Record:
    values.pop("_", None)
    check_content(element, SPEC, notes)
    return Record(line=element.line, column=element.column, **values)


SPEC: Final = VerbSpec("Record", kinds=frozenset({DocumentKind.VOICE}), build=build, attributes=ATTRIBUTES)


async def run(verb: Record, session: Session, state: dict[str, Any]) -> Goto | None:
    """Record, wait for the end, tell the action. Next: trunkline.voice.recordings.Recordings.event"""
    recordings = session.services.recordings
    if recordings is None:
        return None
    if verb.transcribe:
        session.alert_once(NO_TRANSCRIPTION, "recordings are not transcribed yet; the call goes on without that")
    running = recordings.running(str(state["recording"])) if state else _begin(verb, session, recordings)
    if running is None:
        return await _finished_meanwhile(verb, session, recordings, state) if state else None
    session.save({"recording": running.row.sid})
    keys = _Keys(verb.finish_on_key, lambda: recordings.stop(running))
    call = session.call
    call.digits.clear()
    call.on_digit = keys.press
    ended_by = HANGUP
    try:
        event = await session.wait(asyncio.shield(running.done))
        ended_by = event.digit or keys.pressed
        session.save({"recording": running.row.sid, "digit": ended_by})
        await session.wait(asyncio.wait({running.finished}, timeout=KEPT_WAIT_S))
    except Exception:  # the call has ended, or goes on elsewhere: what was said is kept all the same
        recordings.stop(running)
        if call.is_over:
            await _tell_end(verb, session, recordings, running, ended_by)
        raise
    finally:
        call.on_digit = None
    if running.row.status in (RecordingStatus.ABSENT, RecordingStatus.FAILED):
        return None
    return Goto(verb.action, verb.method, _params(recordings, running.row, ended_by))


async def _finished_meanwhile(
    verb: Record, session: Session, recordings: Recordings, state: dict[str, Any]
) -> Goto | None:
    """The recording was complete before the process was lost that had to tell the action, or is about to be."""
    record, sid = session.call.record, str(state["recording"])
    try:
        row = await session.wait(_kept(recordings, record, sid, KEPT_WAIT_S))
    except CallEnded:
        row = await _kept(recordings, record, sid, LOST_WAIT_S)
        await _tell_last(verb, session, recordings, row, str(state.get("digit", HANGUP)))
        raise
    if row is None or row.status != RecordingStatus.COMPLETED:
        return None
    return Goto(verb.action, verb.method, _params(recordings, row, str(state.get("digit", ""))))


async def _kept(recordings: Recordings, record: Call, sid: str, patience_s: float) -> Recording | None:
    """A recording, once its audio is kept, or as it is after that long; None: nothing is known of it."""
    row = None
    for _ in range(int(patience_s / KEPT_LOOK_S)):
        with contextlib.suppress(StoreUnavailable):
            row = await recordings.get(record.account_sid, sid, record.sid)
            if row is None or row.status not in OPEN:
                break
        await asyncio.sleep(KEPT_LOOK_S)
    return row


def _begin(verb: Record, session: Session, recordings: Recordings) -> Running | None:
    url = session.resolve(verb.recording_status_callback) if verb.recording_status_callback else None
    new = NewRecording(
        source=Source.RECORD_VERB, track="inbound", trim=verb.trim, max_ms=verb.max_length * 1000,
        silence_ms=verb.timeout * 1000, finish_on=verb.finish_on_key, beep=verb.play_beep, status_callback=url or "",
        status_callback_method=verb.recording_status_callback_method,
        status_callback_events=verb.recording_status_callback_event,
    )  # fmt: skip
    try:
        return recordings.begin(session.call, new)
    except ApiError as error:
        session.alert(error.code or 0, error.message)
        return None


async def _tell_end(verb: Record, session: Session, recordings: Recordings, running: Running, ended_by: str) -> None:
    """The caller has hung up while he spoke (or just after): the action is told, what it answers is not run."""
    await asyncio.wait({running.finished}, timeout=KEPT_WAIT_S)
    await _tell_last(verb, session, recordings, running.row, ended_by)


async def _tell_last(
    verb: Record, session: Session, recordings: Recordings, row: Recording | None, ended_by: str
) -> None:
    if row is not None and row.status not in (RecordingStatus.ABSENT, RecordingStatus.FAILED):
        await session.finish(Goto(verb.action, verb.method, _params(recordings, row, ended_by)))


def _params(recordings: Recordings, row: Recording, digits: str) -> tuple[tuple[str, str], ...]:
    return (
        ("RecordingUrl", recordings.url(row)),
        ("RecordingSid", row.sid),
        ("RecordingDuration", str(seconds(row.duration_ms))),
        ("Digits", digits),
    )


class _Keys:
    """Ends the recording at a key that the media side does not hear itself (INFO)."""

    def __init__(self, finish_on: str, stop: Any) -> None:
        self._finish_on = finish_on
        self._stop = stop
        self.pressed = ""

    def press(self, digit: str) -> None:
        if digit in self._finish_on and not self.pressed:
            self.pressed = digit
            self._stop()
