"""Status callbacks of calls: which parameters go with which event."""

import json

import pytest

from trunkline.model.call import Call, Direction, Status, StatusTarget
from trunkline.model.recording import Recording
from trunkline.voice.callbacks import EVENTS, recording_event, seconds, status_events

AC = "AC" + "a" * 32
NOW = 1_767_225_600_000


def call(*events, method="POST", **changes):
    values = {"sid": "CA" + "1" * 32, "account_sid": AC, "direction": Direction.OUTBOUND_API,
              "from_": "+12025550100", "to": "+442071838750"}  # fmt: skip
    made = Call(**(values | changes))
    made.status_callbacks = [StatusTarget("http://app.example:8080/s?x=1", method, events or EVENTS)]
    return made


def params(owed):
    return dict(json.loads(owed.request)["params"])


def test_every_event_names_the_call_and_its_place_in_the_order():
    made = call()
    statuses = [Status.INITIATED, Status.RINGING, Status.IN_PROGRESS, Status.COMPLETED]
    owed = [status_events(made, status, NOW + n * 1000) for n, status in enumerate(statuses)]
    assert [len(one) for one in owed] == [1, 1, 1, 1]
    first, last = params(owed[0][0]), params(owed[-1][0])
    assert first.items() >= {
        "CallSid": made.sid, "AccountSid": AC, "From": "+12025550100", "To": "+442071838750", "Caller": "+12025550100",
        "Called": "+442071838750", "CallStatus": "initiated", "Direction": "outbound-api", "ApiVersion": "2010-04-01",
        "Timestamp": "Thu, 01 Jan 2026 00:00:00 +0000", "CallbackSource": "call-progress-events",
        "SequenceNumber": "0", "FromCountry": "US", "ToCountry": "GB", "ToCity": "",
    }.items()  # fmt: skip
    assert not first.keys() & {"CallDuration", "Duration", "SipResponseCode", "RecordingUrl", "ParentCallSid"}
    assert [params(one[0])["SequenceNumber"] for one in owed] == ["0", "1", "2", "3"]
    assert last.keys() >= {"CallDuration", "Duration"}


def test_the_last_says_how_it_was():
    made = call(
        parent_sid="CA" + "2" * 32, sip_response_code=486, answered_ms=NOW, ended_ms=NOW + 61_001, answered_by="human",
        error_code=10004, error_message="too many",
        extra={"recording": {"sid": "RE1", "url": "http://us/RE1", "start_ms": NOW}},
    )  # fmt: skip
    (owed,) = status_events(made, Status.COMPLETED, NOW)
    assert params(owed).items() >= {
        "CallDuration": "62", "Duration": "2", "SipResponseCode": "486", "ParentCallSid": "CA" + "2" * 32,
        "AnsweredBy": "human", "ErrorCode": "10004", "ErrorMessage": "too many", "RecordingSid": "RE1",
        "RecordingUrl": "http://us/RE1", "RecordingDuration": "61",
    }.items()  # fmt: skip


@pytest.mark.parametrize("status", [Status.BUSY, Status.NO_ANSWER, Status.FAILED, Status.CANCELED])
def test_every_end_is_a_completed_event(status):
    (owed,) = status_events(call("completed"), status, NOW)
    assert params(owed)["CallStatus"] == status
    assert params(owed)["SequenceNumber"] == "0"


def test_only_wanted_events_are_told_and_counted():
    made = call("answered")
    assert status_events(made, Status.INITIATED, NOW) == []
    (owed,) = status_events(made, Status.IN_PROGRESS, NOW)
    assert params(owed)["SequenceNumber"] == "0"
    assert status_events(made, Status.QUEUED, NOW) == []
    made.status_callbacks = []
    assert status_events(made, Status.COMPLETED, NOW) == []


def test_a_call_canceled_in_the_queue_tells_nobody():
    assert status_events(call(), Status.CANCELED, NOW, before=Status.QUEUED) == []
    assert status_events(call(), Status.CANCELED, NOW, before=Status.RINGING)
    assert status_events(call(), Status.FAILED, NOW, before=Status.QUEUED)


def test_the_request_says_where_and_how():
    (owed,) = status_events(call(method="GET"), Status.RINGING, NOW)
    request = json.loads(owed.request)
    assert (request["method"], request["url"]) == ("GET", "http://app.example:8080/s?x=1")
    assert (owed.host, owed.kind) == ("http://app.example:8080", "status")
    again = json.loads(status_events(call(), Status.RINGING, NOW)[0].request)
    other = json.loads(status_events(call(), Status.COMPLETED, NOW)[0].request)
    assert again["token"] == request["token"] != other["token"]


def test_recording_events():
    row = Recording(
        sid="RE" + "1" * 32, account_sid=AC, call_sid="CA" + "1" * 32, source="DialVerb", channels=2, start_ms=NOW,
        duration_ms=2400, status_callback="http://app.example/r", status_callback_events="completed",
    )  # fmt: skip
    (owed,) = recording_event(row, "completed", "http://us/RE1")
    assert params(owed) == {
        "AccountSid": AC, "CallSid": "CA" + "1" * 32, "RecordingSid": row.sid, "RecordingUrl": "http://us/RE1",
        "RecordingStatus": "completed", "RecordingDuration": "2", "RecordingChannels": "2",
        "RecordingStartTime": "Thu, 01 Jan 2026 00:00:00 +0000", "RecordingSource": "DialVerb",
        "RecordingTrack": "both",
    }  # fmt: skip
    assert recording_event(row, "in-progress", "") == recording_event(row, "absent", "") == []
    row.error_code = 31000
    assert params(recording_event(row, "failed", "")[0])["ErrorCode"] == "31000"
    row.status_callback = ""
    assert recording_event(row, "completed", "") == []


def test_what_was_recorded_lasts_at_least_a_second():
    assert [seconds(ms) for ms in (0, 1, 400, 1499, 1501)] == [0, 1, 1, 1, 2]
