"""What calls and recordings tell their owners: status callbacks as `Owed`, self-contained.

An owed callback is delivered by `accounts.callbacks.StatusHandler`, in order per call, also after the call has landed.
Sources: Twilio's voice status callback and recording status callback (webhook contract sections 3 and 5).
"""

from collections.abc import Callable, Mapping

import orjson

from trunkline.accounts.callbacks import host_of
from trunkline.model.call import TERMINAL, Call, Status, StatusTarget
from trunkline.model.octets import fitted
from trunkline.model.recording import Recording
from trunkline.storage.queue import Owed
from trunkline.voice.params import Params, Place, rfc2822, standard

EVENTS = ("initiated", "ringing", "answered", "completed")
"""What a status callback may be told, in the order in which it happens."""
RECORDING_EVENTS = ("in-progress", "completed", "absent")
"""What a recording status callback may be told; `failed` goes with `completed`."""
EVENT_OF: dict[Status, str] = {
    Status.INITIATED: "initiated",
    Status.RINGING: "ringing",
    Status.IN_PROGRESS: "answered",
    **dict.fromkeys(TERMINAL, "completed"),
}
RECORDED = "recording"
"""Key of a call's `extra`: {"sid", "url", "start_ms"} of the recording that its completed callback names."""
LATE_SEQ = 1_000_000
"""Order of callbacks that are no step of a call: after all others."""
MINUTE_S = 60

Places = Callable[[Call], Mapping[str, Place]]
"""Where both ends of a call are, as keyword arguments of `standard`."""


def nowhere(_call: Call) -> Mapping[str, Place]:
    """Nothing is known but what the numbers tell."""
    return {}


def status_events(
    call: Call, status: Status, now_ms: int, *, before: Status | None = None, places: Places = nowhere
) -> list[Owed]:
    """The callbacks that reaching `status` owes; counts the record's `callback_sequence` up.

    A call that is canceled while it is queued tells nobody. `places` tells where both ends are.
    """
    event = EVENT_OF.get(status)
    if event is None or not call.status_callbacks or (before is Status.QUEUED and status is Status.CANCELED):
        return []
    owed = []
    for number, target in enumerate(call.status_callbacks):
        if event in target.events:
            sequence = call.callback_sequence
            call.callback_sequence += 1
            params = _event_params(call, status, sequence, now_ms, places)
            token = f"{call.sid}:{event}:{number}"
            owed.append(_owed(call.sid, call.account_sid, target, params, token, call.traceparent))
    return owed


def _event_params(call: Call, status: Status, sequence: int, now_ms: int, places: Places) -> Params:
    params = standard(call, status, **places(call))
    if status in TERMINAL:
        params += _ending(call)
    params += [
        ("Timestamp", rfc2822(now_ms)),
        ("CallbackSource", "call-progress-events"),
        ("SequenceNumber", str(sequence)),
    ]
    return params


def _ending(call: Call) -> Params:
    """What only the last callback of a call says."""
    duration = call.duration_s
    params = [("CallDuration", str(duration)), ("Duration", str(minutes(duration)))]
    if call.sip_response_code:
        params.append(("SipResponseCode", str(call.sip_response_code)))
    recorded = call.extra.get(RECORDED)
    if recorded:
        length_ms = max(0, call.ended_ms - int(recorded["start_ms"]))
        params += [
            ("RecordingUrl", str(recorded["url"])),
            ("RecordingSid", str(recorded["sid"])),
            ("RecordingDuration", str(round(length_ms / 1000))),
        ]
    if call.error_code:
        params += [("ErrorCode", str(call.error_code)), ("ErrorMessage", call.error_message)]
    return params


def minutes(duration_s: int) -> int:
    """Minutes as they are billed: begun ones count."""
    return -(-duration_s // MINUTE_S)


def recording_event(recording: Recording, event: str, url: str) -> list[Owed]:
    """The callback of a recording that has become `in-progress`, `completed`, `absent` or `failed`, if it is wanted.

    `url` is the recording's address without extension.
    """
    wanted = "completed" if event == "failed" else event
    if not recording.status_callback or wanted not in recording.status_callback_events.split():
        return []
    target = StatusTarget(recording.status_callback, recording.status_callback_method)
    params = [
        ("AccountSid", recording.account_sid),
        ("CallSid", recording.call_sid),
        ("RecordingSid", recording.sid),
        ("RecordingUrl", url),
        ("RecordingStatus", event),
        ("RecordingDuration", str(seconds(recording.duration_ms))),
        ("RecordingChannels", str(recording.channels)),
        ("RecordingStartTime", rfc2822(recording.start_ms)),
        ("RecordingSource", recording.source),
        ("RecordingTrack", recording.track),
    ]
    if recording.error_code:
        params.append(("ErrorCode", str(recording.error_code)))
    return [_owed(recording.call_sid, recording.account_sid, target, params, f"{recording.sid}:{event}")]


def amd_event(call: Call, target: StatusTarget, duration_ms: int) -> Owed:
    """The callback of asynchronous answering machine detection."""
    params = [
        ("CallSid", call.sid),
        ("AccountSid", call.account_sid),
        ("AnsweredBy", call.answered_by),
        ("MachineDetectionDuration", str(duration_ms)),
    ]
    return _owed(call.sid, call.account_sid, target, params, f"{call.sid}:amd")


def seconds(duration_ms: int) -> int:
    """Whole seconds of a recording, rounded; anything that was recorded lasts at least one."""
    return max(1, round(duration_ms / 1000)) if duration_ms > 0 else 0


def _owed(sid: str, account: str, target: StatusTarget, params: Params, token: str, traceparent: str = "") -> Owed:
    request = {"url": target.url, "method": target.method, "params": params, "token": token}
    if traceparent:
        request["traceparent"] = traceparent
    return Owed(
        sid=sid,
        account=account,
        kind="status",
        host=host_of(target.url),
        seq=LATE_SEQ,
        request=fitted(orjson.dumps(request)),
    )
