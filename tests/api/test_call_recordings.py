"""Recordings of a call: as those of the account, with `track`, without `media_url`."""

import pytest

from tests.api.call_world import CallWorld, LiveLeg
from trunkline.media import protocol
from trunkline.model.recording import Recording


def path(calls: CallWorld, leg: LiveLeg, rest: str = "") -> str:
    return calls.path(f"/{leg.record.sid}/Recordings{rest}.json")


async def test_start_pause_resume_stop(calls: CallWorld) -> None:
    leg = await calls.up()
    form = {
        "RecordingChannels": "dual", "RecordingTrack": "both", "Trim": "trim-silence",
        "RecordingStatusCallback": "https://example.com/r", "RecordingStatusCallbackMethod": "GET",
        "RecordingStatusCallbackEvent": ["in-progress", "absent"],
    }  # fmt: skip
    made = await calls.world.post(path(calls, leg), form)
    assert made.status == 201
    sid = made.json["sid"]
    assert made.json == {
        "account_sid": calls.world.owner.sid, "api_version": "2010-04-01", "call_sid": leg.record.sid,
        "conference_sid": None, "channels": 2, "date_created": "Tue, 14 Nov 2023 22:13:20 +0000",
        "date_updated": "Tue, 14 Nov 2023 22:13:20 +0000", "start_time": "Tue, 14 Nov 2023 22:13:20 +0000",
        "price": None, "price_unit": None, "duration": None, "sid": sid, "source": "StartCallRecordingAPI",
        "status": "in-progress", "error_code": None, "encryption_details": None, "track": "both",
        "uri": path(calls, leg, f"/{sid}"),
    }  # fmt: skip
    (command,) = leg.media
    assert isinstance(command, protocol.Record)
    assert (command.channels, command.tracks, command.trim) == (2, "both", True)
    row = await calls.world.database.get(Recording, sid)
    assert row is not None
    assert (row.status_callback_method, row.status_callback_events) == ("GET", "in-progress absent")
    for change, status, told in (
        ({"Status": "paused", "PauseBehavior": "skip"}, "paused", protocol.PauseRecord(recording=sid, mode="skip")),
        ({"Status": "in-progress"}, "in-progress", protocol.ResumeRecord(recording=sid)),
        ({"Status": "paused"}, "paused", protocol.PauseRecord(recording=sid, mode="silence")),
        ({"Status": "stopped"}, "stopped", protocol.StopRecord(recording=sid)),
    ):
        changed = await calls.world.post(path(calls, leg, "/Twilio.CURRENT"), change)
        assert (changed.status, changed.json["status"]) == (200, status)
        assert leg.media[-1] == told
    again = await calls.world.post(path(calls, leg, f"/{sid}"), {"Status": "paused"})
    assert (again.status, again.code) == (400, 21220)
    assert (await calls.world.post(path(calls, leg, "/Twilio.CURRENT"), {"Status": "paused"})).code == 20404


async def test_defaults(calls: CallWorld) -> None:
    leg = await calls.up()
    made = (await calls.world.post(path(calls, leg))).json
    assert (made["channels"], made["track"]) == (1, "both")
    (command,) = leg.media
    assert isinstance(command, protocol.Record)
    assert not command.trim, "as Twilio: do-not-trim when recording by the API"


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ({"RecordingChannels": "stereo"}, 20422),
        ({"RecordingTrack": "left"}, 20422),
        ({"Trim": "yes"}, 20422),
        ({"RecordingStatusCallback": "x"}, 21609),
        ({"RecordingStatusCallbackMethod": "PUT"}, 21209),
        ({"RecordingStatusCallbackEvent": "started"}, 21626),
    ],
)
async def test_what_cannot_be_started(calls: CallWorld, form: dict[str, str], code: int) -> None:
    leg = await calls.up()
    assert (await calls.world.post(path(calls, leg), form)).code == code
    assert leg.media == []


async def test_only_calls_in_progress_are_recorded(calls: CallWorld) -> None:
    queued = await calls.place()
    refused = await calls.world.post(calls.path(f"/{queued['sid']}/Recordings.json"))
    assert (refused.status, refused.code) == (400, 21220)
    assert refused.json["message"] == "Requested resource is not eligible for recording"
    missing = await calls.world.post(calls.path(f"/CA{'0' * 32}/Recordings.json"))
    assert missing.code == 20404


@pytest.mark.parametrize(("form", "code"), [({}, 20001), ({"Status": "completed"}, 20422)])
async def test_updates_that_cannot_be_taken(calls: CallWorld, form: dict[str, str], code: int) -> None:
    leg = await calls.up()
    sid = (await calls.world.post(path(calls, leg))).json["sid"]
    assert (await calls.world.post(path(calls, leg, f"/{sid}"), form)).code == code


async def test_list_fetch_and_delete(calls: CallWorld) -> None:
    one, two = await calls.landed(), await calls.landed()
    mine, other = await calls.recording(one.sid, b"RIFF"), await calls.recording(two.sid)
    base = calls.path(f"/{one.sid}/Recordings")
    listed = (await calls.world.get(base + ".json")).json["recordings"]
    assert [item["sid"] for item in listed] == [mine.sid]
    assert (await calls.world.get(f"{base}/{mine.sid}.json")).json == listed[0]
    assert (await calls.world.get(f"{base}/{other.sid}.json")).code == 20404, "it is of another call"
    assert (await calls.world.get(base + ".json?DateCreated=2023-11-15")).json["recordings"] == []
    assert (await calls.world.call("DELETE", f"{base}/{other.sid}.json")).code == 20404
    assert (await calls.world.call("DELETE", f"{base}/{mine.sid}.json")).status == 204
    assert (await calls.world.get(f"{base}/{mine.sid}.json")).code == 20404
    assert await calls.recordings.blobs.get(mine.sid) is None


async def test_a_finished_one_cannot_be_paused(calls: CallWorld) -> None:
    call = await calls.landed()
    made = await calls.recording(call.sid)
    reply = await calls.world.post(calls.path(f"/{call.sid}/Recordings/{made.sid}.json"), {"Status": "paused"})
    assert (reply.status, reply.code) == (400, 21220)
