"""<Record>

Twilio's attributes: action (the document's own URL), method (POST), timeout (5), finishOnKey (1234567890*#), maxLength
(3600), playBeep (true), trim (trim-silence), recordingStatusCallback, recordingStatusCallbackMethod (POST),
recordingStatusCallbackEvent (completed), transcribe (false), transcribeCallback.
"""

import pytest

from trunkline.media import protocol
from trunkline.twiml import DocumentKind, parse
from trunkline.voice.calls import CallChange
from trunkline.voice.verbs import SPECS

from ...messaging.world import AC, eventually
from ..lines import APP, OURS


@pytest.fixture
async def recorded(lines):
    """Runs TwiML on a call that comes in."""

    async def run(twiml):
        lines.web.pages.setdefault(APP + "in", twiml)
        lines.web.pages.setdefault(APP + "after", "<Hangup/>")
        lines.phone.dials(OURS)
        sid = (await lines.the_call()).sid
        command = await eventually(lambda: next(iter(lines.media.of(protocol.Record)), None))
        await eventually(lambda: lines.media.recording)
        return sid, command

    lines.run = run
    return lines


def verb(twiml):
    document = parse(twiml.encode(), "text/xml", kind=DocumentKind.VOICE, verbs=SPECS)
    return document.verbs[0], [warning.code for warning in document.warnings]


def test_defaults():
    record, codes = verb("<Response><Record/></Response>")
    assert (record.action, record.method, record.timeout, record.max_length) == ("", "POST", 5, 3600)
    assert (record.finish_on_key, record.play_beep, record.trim) == ("1234567890*#", True, "trim-silence")
    assert (record.recording_status_callback_event, record.transcribe, codes) == (("completed",), False, [])


@pytest.mark.parametrize(
    ("attribute", "code"),
    [
        ('method="PUT"', 13610),
        ('timeout="x"', 13611),
        ('maxLength="0"', 13612),
        ('finishOnKey="z"', 13613),
        ('transcribe="maybe"', 13614),
        ('playBeep="1"', 13616),
        ('trim="yes"', 13699),
        ('recordingStatusCallbackEvent="later"', 13621),
        ('colour="red"', 12200),
    ],
)
def test_bad_values_are_told_and_the_default_applies(attribute, code):
    record, codes = verb(f"<Response><Record {attribute}/></Response>")
    assert codes == [code]
    assert record == verb("<Response><Record/></Response>")[0]


async def test_the_media_side_is_asked_for_what_the_verb_says(recorded):
    sid, command = await recorded.run('<Record timeout="3" maxLength="60" finishOnKey="#" playBeep="false"/>')
    assert (command.leg, command.tracks, command.channels, command.trim) == (sid, "inbound", 1, True)
    assert (command.silence_ms, command.max_ms, command.finish_on, command.beep) == (3000, 60_000, "#", False)


async def test_a_key_ends_it_and_the_action_gets_the_recording(recorded):
    sid, command = await recorded.run('<Record action="after" recordingStatusCallback="rec"/>')
    recorded.media.recorded(command.recording, "digit", "#")
    (params,) = await eventually(lambda: recorded.web.params(APP + "after"))
    assert params["RecordingUrl"] == f"http://us/2010-04-01/Accounts/{AC}/Recordings/{command.recording}"
    assert (params["RecordingSid"], params["RecordingDuration"], params["Digits"]) == (command.recording, "2", "#")
    (row,) = await recorded.recordings_of(sid)
    assert (row.status, row.source, row.audio_key, row.duration_ms) == (
        "completed", "RecordVerb", command.recording, 1500,
    )  # fmt: skip
    assert await recorded.blobs.get(row.sid), "it can be fetched when the action is asked"
    (told,) = recorded.events(sid, APP + "rec")
    assert (told["RecordingStatus"], told["RecordingSource"], told["CallSid"]) == ("completed", "RecordVerb", sid)


@pytest.mark.parametrize("why", ["silence", "max-length", "stopped"])
async def test_the_action_is_the_document_itself_by_default(recorded, why):
    recorded.web.pages[APP + "in"] = lambda params: "<Hangup/>" if "RecordingSid" in params else "<Record/>"
    _, command = await recorded.run("")
    recorded.media.recorded(command.recording, why)
    await eventually(lambda: len(recorded.web.params(APP + "in")) == 2)
    assert recorded.web.params(APP + "in")[1]["Digits"] == ""


@pytest.mark.parametrize(("ms", "voiced"), [(0, 0), (3000, 0)])
async def test_nothing_said_goes_on_with_the_next_verb(recorded, ms, voiced):
    sid, command = await recorded.run(
        f'<Record action="never" recordingStatusCallback="rec" recordingStatusCallbackEvent="completed absent"/>'
        f"<Redirect>{APP}after</Redirect>"
    )
    recorded.media.voiced_ms = voiced
    recorded.media.recorded(command.recording, "silence", ms=ms)
    await eventually(lambda: recorded.web.params(APP + "after"))
    assert not recorded.web.params(APP + "never")
    (told,) = recorded.events(sid, APP + "rec")
    assert (told["RecordingStatus"], told["ErrorCode"]) == ("absent", "16102" if ms else "16101")
    assert await recorded.blobs.get(command.recording) is None


async def test_a_caller_who_hangs_up_has_left_his_message(recorded):
    sid, command = await recorded.run('<Record action="after"/>')
    recorded.phone.hangs_up()
    (params,) = await eventually(lambda: recorded.web.params(APP + "after"))
    assert (params["Digits"], params["RecordingSid"], params["CallStatus"]) == (
        "hangup", command.recording, "completed",
    )  # fmt: skip
    assert (await recorded.until(sid, "completed")).recordings == [command.recording]


async def test_a_key_by_info_ends_it_too(recorded):
    sid, _ = await recorded.run('<Record action="after" finishOnKey="5"/>')
    recorded.services.live[sid].press("5", "info")
    (params,) = await eventually(lambda: recorded.web.params(APP + "after"))
    assert params["Digits"] == "5"


async def test_a_live_update_keeps_what_was_said(recorded):
    sid, _ = await recorded.run('<Record action="never"/>')
    recorded.web.pages[APP + "new"] = "<Pause length='9'/>"
    await recorded.calls.update(AC, sid, CallChange(url=APP + "new"))
    await eventually(lambda: recorded.web.params(APP + "new"))
    await eventually(lambda: recorded.recordings.of_call(sid) == [])
    assert [row.status for row in await recorded.recordings_of(sid)] == ["completed"]
    assert not recorded.web.params(APP + "never")


async def test_transcriptions_are_not_there_yet_and_that_is_said(recorded):
    await recorded.run('<Record transcribe="true"/>')
    assert 13618 in await recorded.alert_codes()


async def test_another_process_waits_for_the_same_recording(recorded):
    sid, command = await recorded.run('<Record action="after"/>')
    await recorded.resume(sid)
    assert len(recorded.media.of(protocol.Record)) == 1
    recorded.media.recorded(command.recording, "digit", "1")
    (params,) = await eventually(lambda: recorded.web.params(APP + "after"))
    assert (params["RecordingSid"], params["Digits"]) == (command.recording, "1")
