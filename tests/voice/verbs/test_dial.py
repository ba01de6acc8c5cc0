"""<Dial>

Twilio's attributes: action, method (POST), timeout (30), hangupOnStar (false), timeLimit (14400), callerId (the
caller's), record (do-not-record), trim (do-not-trim), recordingStatusCallback, recordingStatusCallbackMethod (POST),
recordingStatusCallbackEvent (completed), answerOnBridge (false), ringTone, recordingTrack (both), sequential (false).
Nouns: Number (sendDigits, url, method, statusCallback, statusCallbackEvent, statusCallbackMethod), Sip (username,
password, url, ..., Headers, Uri); the others are not there yet.
"""

import asyncio

import pytest

from trunkline.media import protocol
from trunkline.media.tones import RINGING
from trunkline.voice.calls import CallChange

from ...messaging.world import AC, eventually
from ..lines import APP, OTHER, OURS, SECOND, THEM, Phone

THIRD = "+14155550155"


@pytest.fixture
async def dialled(lines):
    """Runs TwiML on a call that comes in; gives (lines, the carrier's phone)."""
    lines.web.pages[APP + "after"] = "<Hangup/>"
    lines.phone.rings_at = []

    async def run(twiml, after="<Pause length='9'/>", headers=()):
        lines.web.pages[APP + "in"] = twiml + after
        lines.phone.dials(OURS, headers=headers)
        return (await lines.the_call()).sid

    lines.run = run
    return lines


def callee(lines, number):
    """The INVITE that went to a number."""
    return next((one for one in lines.phone.invites if number in one.request.uri), None)


async def ringing(lines, number=OTHER):
    return await eventually(lambda: callee(lines, number))


async def connected(lines, sid):
    """(parent, child) of the bridge of a call."""
    command = await eventually(lambda: next(iter(lines.media.of(protocol.Bridge)), None))
    assert command.a == sid
    return command.b


def plays(lines, leg, kind):
    return [item for play in lines.media.of(protocol.Play, leg) for item in play.items if isinstance(item, kind)]


def after(lines):
    return eventually(lambda: lines.web.params(APP + "after"))


async def test_a_number_is_called_and_connected_and_the_next_verb_follows(dialled):
    sid = await dialled.run(f"<Dial>{OTHER}</Dial>", after=f"<Redirect>{APP}after</Redirect>")
    invite = await ringing(dialled)
    assert f"<sip:{THEM}@us.example>" in invite.request.headers.get("From"), "the caller is shown"
    child = await connected(dialled, sid)
    stored = await dialled.until(child, "in-progress")
    assert (stored.direction, stored.parent_sid, stored.to, stored.from_) == ("outbound-dial", sid, OTHER, THEM)
    dialled.phone.hangs_up()
    await after(dialled)
    assert (await dialled.until(child, "completed")).hangup_cause == "callee"
    assert [one.leg for one in dialled.media.of(protocol.Unbridge)] == [sid]
    assert "DialCallStatus" not in dialled.web.params(APP + "after")[0]


async def test_the_caller_hears_it_ring_until_somebody_picks_up(dialled):
    dialled.phone.plan = dialled.phone.rings
    sid = await dialled.run(f"<Dial>{OTHER}</Dial>")
    await ringing(dialled)
    (tone,) = await eventually(lambda: plays(dialled, sid, protocol.Tone))
    assert tone == RINGING["us"]
    dialled.phone.picks_up()
    await connected(dialled, sid)
    assert dialled.media.of(protocol.Stop, sid)


async def test_ring_tone_is_as_asked_for_and_else_of_the_numbers_country(dialled):
    dialled.phone.plan = dialled.phone.rings
    sid = await dialled.run('<Dial ringTone="fr">+442071838750</Dial>')
    await eventually(lambda: plays(dialled, sid, protocol.Tone))
    assert plays(dialled, sid, protocol.Tone) == [RINGING["fr"]]


async def test_the_far_ends_own_ringing_is_heard_instead(dialled):
    def early(invite):
        from trunkline.sip import offer_answer

        invite.ring(183, sdp=offer_answer.answer(invite.offer, dialled.phone.local).sdp)

    dialled.phone.plan = early
    sid = await dialled.run(f'<Dial timeout="30" action="{APP}after">{OTHER}</Dial>')
    await connected(dialled, sid)
    dialled.phone.invites[-1].reject(486)
    (params,) = await after(dialled)
    assert (params["DialCallStatus"], params["DialBridged"]) == ("busy", "false")
    assert dialled.media.of(protocol.Unbridge, sid)


ENDINGS = [(486, "busy"), (600, "busy"), (603, "busy"), (480, "no-answer"), (404, "failed"), (500, "failed")]


@pytest.mark.parametrize(("status", "expected"), ENDINGS)
async def test_the_action_is_told_how_it_went(dialled, status, expected):
    dialled.phone.refuses(status)
    sid = await dialled.run(f'<Dial action="{APP}after">{OTHER}</Dial>')
    (params,) = await after(dialled)
    assert params["DialCallStatus"] == expected
    child = await dialled.until(params["DialCallSid"], expected)
    assert child.parent_sid == sid
    assert (params["DialCallDuration"], params["DialBridged"]) == ("0", "false")
    assert (params["CallSid"], params["CallStatus"]) == (sid, "in-progress")
    assert (child.status, child.sip_response_code) == (expected, status)


async def test_a_completed_call_tells_how_long_it_was(dialled):
    sid = await dialled.run(f'<Dial action="{APP}after">{OTHER}</Dial>')
    await connected(dialled, sid)
    dialled.clock.offset_ms += 30_000
    dialled.phone.hangs_up()
    (params,) = await after(dialled)
    assert (params["DialCallStatus"], params["DialBridged"]) == ("completed", "true")
    assert 30 <= int(params["DialCallDuration"]) <= 32


async def test_nobody_picks_up_within_the_timeout(dialled, monkeypatch):
    monkeypatch.setattr("trunkline.voice.outgoing.RING_EXTRA_S", -0.9)
    dialled.phone.plan = dialled.phone.rings
    await dialled.run(f'<Dial timeout="1" action="{APP}after">{OTHER}</Dial>')
    (params,) = await after(dialled)
    assert params["DialCallStatus"] == "no-answer"
    child = await dialled.until(params["DialCallSid"], "no-answer")
    assert (child.hangup_cause, child.sip_response_code) == ("timeout", 487)
    await eventually(lambda: dialled.phone.cancels)


async def test_the_first_who_picks_up_wins_and_the_others_stop_ringing(dialled):
    def plan(invite):
        dialled.phone.rings(invite)

    dialled.phone.plan = plan
    sid = await dialled.run(f'<Dial action="{APP}after"><Number>{OTHER}</Number><Number>{THIRD}</Number></Dial>')
    second = await ringing(dialled, THIRD)
    await eventually(lambda: len(dialled.phone.invites) == 2)
    dialled.phone.picks_up(second, ring=False)
    child = await connected(dialled, sid)
    await eventually(lambda: dialled.phone.cancels)
    one, two = sorted(await dialled.children(sid), key=lambda call: call.to)
    assert (two.sid, one.to) == (child, OTHER) if two.to == THIRD else (one.sid, two.to) == (child, OTHER)
    dialled.phone.hangs_up()
    (params,) = await after(dialled)
    assert (params["DialCallStatus"], params["DialCallSid"]) == ("completed", child)
    await dialled.until(child, "completed")
    statuses = {call.to: call.status for call in await dialled.children(sid)}
    assert statuses == {THIRD: "completed", OTHER: "canceled"}


async def test_sequential_calls_one_after_the_other(dialled):
    dialled.phone.plan = lambda invite: (
        invite.reject(486) if OTHER in invite.request.uri else dialled.phone.picks_up(invite)
    )
    sid = await dialled.run(f'<Dial sequential="true"><Number>{OTHER}</Number><Number>{THIRD}</Number></Dial>')
    child = await connected(dialled, sid)
    first = next(call for call in await dialled.children(sid) if call.to == OTHER)
    await dialled.until(first.sid, "busy")
    assert (await dialled.stored(child)).to == THIRD


async def test_the_callee_hears_a_document_first_and_is_then_connected(dialled):
    dialled.web.pages[APP + "whisper"] = "<Say>hello</Say>"
    sid = await dialled.run(f'<Dial><Number url="whisper" sendDigits="ww1">{OTHER}</Number></Dial>')
    child = await connected(dialled, sid)
    (params,) = dialled.web.params(APP + "whisper")
    assert (params["CallSid"], params["ParentCallSid"], params["CallStatus"]) == (child, sid, "in-progress")
    first, second = (play.items[0] for play in dialled.media.of(protocol.Play, child))
    assert (first.digits, str(second.path).endswith("said.pcm")) == ("ww1", True)
    bridge = dialled.media.sent.index(dialled.media.of(protocol.Bridge)[0])
    said = dialled.media.sent.index(dialled.media.of(protocol.Play, child)[-1])
    assert said < bridge


async def test_a_callee_who_is_hung_up_by_his_document_is_not_connected(dialled):
    dialled.web.pages[APP + "whisper"] = f"<Dial>{THIRD}</Dial><Hangup/>"
    sid = await dialled.run(f'<Dial action="{APP}after"><Number url="whisper">{OTHER}</Number></Dial>')
    (params,) = await after(dialled)
    assert (params["DialCallStatus"], params["DialBridged"]) == ("completed", "false")
    assert not dialled.media.of(protocol.Bridge)
    assert len(await dialled.children(sid)) == 1, "a callee's document calls nobody"
    assert 13201 in await dialled.alert_codes()


async def test_answer_on_bridge_picks_up_when_the_callee_does(dialled):
    dialled.phone.plan = dialled.phone.rings
    sid = await dialled.run(f'<Dial answerOnBridge="true">{OTHER}</Dial>')
    await ringing(dialled)
    await dialled.until(sid, "ringing")
    assert set(dialled.phone.progress) == {180}, "again where the INVITE is repeated"
    assert not dialled.phone.dialogs
    dialled.phone.picks_up(ring=False)
    await connected(dialled, sid)
    await dialled.until(sid, "in-progress")


async def test_answer_on_bridge_goes_on_ringing_when_nobody_picks_up(dialled):
    dialled.phone.refuses(486)
    dialled.web.pages[APP + "after"] = "<Reject reason='busy'/>"
    sid = await dialled.run(f'<Dial answerOnBridge="true" action="{APP}after">{OTHER}</Dial>')
    assert (await dialled.until(sid, "busy")).answered_ms == 0
    await eventually(lambda: dialled.phone.failure == 486)


async def test_answer_on_bridge_leaves_the_call_unanswered_at_the_end_of_the_document(dialled):
    dialled.phone.refuses(486)
    sid = await dialled.run(f'<Dial answerOnBridge="true">{OTHER}</Dial>', after="")
    assert (await dialled.until(sid, "no-answer")).answered_ms == 0
    await eventually(lambda: dialled.phone.failure == 480)


async def test_a_caller_who_gives_up_ends_the_callee_and_the_action_is_told(dialled):
    dialled.phone.plan = dialled.phone.rings
    sid = await dialled.run(f'<Dial action="{APP}after">{OTHER}</Dial>')
    await ringing(dialled)
    dialled.phone.dialogs[0].bye()
    (params,) = await after(dialled)
    assert (params["DialCallStatus"], params["CallStatus"]) == ("canceled", "completed")
    await eventually(lambda: dialled.phone.cancels)
    assert (await dialled.until(sid, "completed")).hangup_cause == "caller"


async def test_a_caller_who_hangs_up_ends_the_connection(dialled):
    sid = await dialled.run(f'<Dial action="{APP}after">{OTHER}</Dial>')
    child = await connected(dialled, sid)
    dialled.phone.dialogs[0].bye()
    (params,) = await after(dialled)
    assert (params["DialCallStatus"], params["DialBridged"]) == ("completed", "true")
    assert (await dialled.until(child, "completed")).hangup_cause == "caller"
    assert len(dialled.phone.byes) == 1


async def test_star_hangs_up_the_callee_where_that_was_asked_for(dialled):
    sid = await dialled.run(f'<Dial hangupOnStar="true" action="{APP}after">{OTHER}</Dial>')
    await connected(dialled, sid)
    dialled.media.tell(protocol.Digit(leg=sid, digit="1"))
    dialled.media.tell(protocol.Digit(leg=sid, digit="*"))
    (params,) = await after(dialled)
    assert params["DialCallStatus"] == "completed"


async def test_the_time_limit_ends_the_connection(dialled):
    sid = await dialled.run(f'<Dial timeLimit="1" action="{APP}after">{OTHER}</Dial>')
    child = await connected(dialled, sid)
    (params,) = await after(dialled)
    assert params["DialCallStatus"] == "completed"
    assert (await dialled.until(child, "completed")).hangup_cause == "time-limit"


async def test_keys_reach_the_other_side_once(dialled):
    sid = await dialled.run(f"<Dial>{OTHER}</Dial>")
    child = await connected(dialled, sid)
    for digit, how in (("1", "rfc4733"), ("2", "in-band"), ("3", "rfc4733")):
        dialled.media.tell(protocol.Digit(leg=sid, digit=digit, how=how))
    dialled.media.tell(protocol.Digit(leg=child, digit="9", how="rfc4733"))
    await eventually(lambda: len(plays(dialled, child, protocol.Digits)) == 2)
    assert [one.digits for one in plays(dialled, child, protocol.Digits)] == ["1", "3"], "in the audio they go anyway"
    assert [one.digits for one in plays(dialled, sid, protocol.Digits)] == ["9"]


@pytest.mark.parametrize(
    ("record", "channels", "early"),
    [("record-from-answer", 1, False), ("true", 1, False), ("record-from-answer-dual", 2, False),
     ("record-from-ringing", 1, True), ("record-from-ringing-dual", 2, True)],
)  # fmt: skip
async def test_recording(dialled, record, channels, early):
    dialled.phone.plan = dialled.phone.rings
    sid = await dialled.run(
        f'<Dial record="{record}" action="{APP}after" recordingStatusCallback="/rec" '
        f'recordingStatusCallbackEvent="in-progress completed" trim="trim-silence">{OTHER}</Dial>'
    )
    await ringing(dialled)
    await asyncio.sleep(0.02)
    assert bool(dialled.media.of(protocol.Record)) is early
    dialled.phone.picks_up(ring=False)
    await connected(dialled, sid)
    (command,) = await eventually(lambda: dialled.media.of(protocol.Record))
    assert (command.leg, command.channels, command.trim) == (sid, channels, True)
    dialled.phone.hangs_up()
    (params,) = await after(dialled)
    assert params["RecordingUrl"] == f"http://us/2010-04-01/Accounts/{AC}/Recordings/{command.recording}"
    await eventually(lambda: len(dialled.events(sid, APP + "rec")) == 2)
    told = dialled.events(sid, APP + "rec")
    assert [one["RecordingStatus"] for one in told] == ["in-progress", "completed"]
    assert {one["RecordingSource"] for one in told} == {"DialVerb"}
    (row,) = await dialled.recordings_of(sid)
    assert (row.status, row.duration_ms) == ("completed", 1500)


async def test_sip_is_called_with_its_headers_and_login_and_tells_its_own(dialled):
    other = Phone(dialled.net, SECOND)

    def plan(invite):
        if invite.request.headers.get("Authorization"):
            other.picks_up(invite, headers=[("X-Desk", "9")])
        else:
            invite.challenge('Digest realm="pbx", nonce="abc", algorithm=MD5, qop="auth"')

    other.plan = plan
    sid = await dialled.run(
        f'<Dial action="{APP}after"><Sip username="u" password="p">sip:bob@127.0.0.3?X-A=1&amp;Via=no'
        '<Headers><Header name="X-B" value="two"/><Header name="Route" value="x"/></Headers></Sip></Dial>'
    )
    child = await connected(dialled, sid)
    headers = other.invites[0].request.headers
    assert (headers.get("X-A"), headers.get("X-B"), headers.get("Route")) == ("1", "two", "")
    other.hangs_up()
    (params,) = await after(dialled)
    assert params["DialSipResponseCode"] == "200"
    assert params["DialSipHeader_X-Desk"] == "9"
    assert params["DialSipCallId"] == other.invites[-1].request.call_id
    assert (await dialled.stored(child)).to == "sip:bob@127.0.0.3"
    assert 13252 in await dialled.alert_codes()


async def test_addresses_of_one_sip_are_tried_by_priority(dialled):
    other = Phone(dialled.net, SECOND)
    await dialled.run(
        '<Dial><Sip><Uri priority="2">sip:b@127.0.0.3</Uri><Uri priority="1">sip:a@127.0.0.9</Uri></Sip></Dial>'
    )
    await eventually(lambda: other.invites)
    assert other.invites[0].request.uri == "sip:b@127.0.0.3"


async def test_status_callbacks_of_a_child(dialled):
    sid = await dialled.run(
        f'<Dial><Number statusCallback="status" statusCallbackEvent="initiated ringing answered completed">{OTHER}'
        "</Number></Dial>"
    )
    child = await connected(dialled, sid)
    dialled.phone.hangs_up()
    await dialled.until(child, "completed")
    events = dialled.events(child)
    assert [one["CallStatus"] for one in events] == ["initiated", "ringing", "in-progress", "completed"]
    assert {one["ParentCallSid"] for one in events} == {sid}
    assert not dialled.events(sid)


async def test_machine_detection_says_that_it_does_not_know(dialled):
    sid = await dialled.run(
        f'<Dial><Number machineDetection="Enable" amdStatusCallback="amd" statusCallback="status">{OTHER}'
        "</Number></Dial>"
    )
    child = await connected(dialled, sid)
    (told,) = await eventually(lambda: dialled.events(child, APP + "amd"))
    assert told == {
        "CallSid": child, "AccountSid": AC, "AnsweredBy": "unknown", "MachineDetectionDuration": "0",
    }  # fmt: skip
    dialled.phone.hangs_up()
    assert (await dialled.until(child, "completed")).answered_by == "unknown"
    assert dialled.events(child)[-1]["AnsweredBy"] == "unknown"
    assert 21263 in await dialled.alert_codes()


@pytest.mark.parametrize(
    ("twiml", "code"),
    [
        ("<Dial/>", 13215),
        ("<Dial>12</Dial>", 13223),
        (f'<Dial callerId="{THIRD}">{OTHER}</Dial>', 13214),
        ("<Dial><Sip>sip:</Sip></Dial>", 13243),
        ("<Dial><Client>joe</Client></Dial>", 13750),
        ("<Dial><Conference>room</Conference></Dial>", 13750),
        ("<Dial><Say>no</Say></Dial>", 13215),
    ],
)
async def test_what_cannot_be_called_is_told_and_the_call_goes_on(dialled, twiml, code):
    await dialled.run(twiml.replace("<Dial", f'<Dial action="{APP}after"', 1))
    (params,) = await after(dialled)
    assert (params["DialCallStatus"], params["DialBridged"]) == ("failed", "false")
    assert code in await dialled.alert_codes()


@pytest.mark.parametrize("caller", [OURS, THEM])
async def test_caller_ids_that_may_be_shown(dialled, caller):
    sid = await dialled.run(f'<Dial callerId="{caller}">{OTHER}</Dial>')
    child = await connected(dialled, sid)
    assert (await dialled.stored(child)).from_ == caller


async def test_a_live_update_of_the_caller_ends_the_callee(dialled):
    sid = await dialled.run(f'<Dial action="{APP}after">{OTHER}</Dial>')
    child = await connected(dialled, sid)
    dialled.web.pages[APP + "new"] = "<Pause length='9'/>"
    await dialled.calls.update(AC, sid, CallChange(url=APP + "new"))
    await eventually(lambda: dialled.web.params(APP + "new"))
    await dialled.until(child, "completed")
    await dialled.until(sid, "in-progress")
    assert not dialled.web.params(APP + "after")


async def test_a_live_update_of_the_callee_gives_him_a_document_of_his_own(dialled):
    sid = await dialled.run(f'<Dial action="{APP}after">{OTHER}</Dial>')
    dialled.web.pages[APP + "after"] = "<Pause length='9'/>"
    child = await connected(dialled, sid)
    dialled.web.pages[APP + "new"] = "<Pause length='9'/>"
    await dialled.calls.update(AC, child, CallChange(url=APP + "new"))
    (params,) = await after(dialled)
    assert (params["DialCallStatus"], params["DialBridged"]) == ("completed", "true")
    await eventually(lambda: dialled.web.params(APP + "new"))
    assert dialled.web.params(APP + "new")[0]["CallSid"] == child
    for one in (sid, child):  # the answer of a leg may still be on its way to the store
        await dialled.until(one, "in-progress")


async def test_another_process_goes_on_with_the_connection(dialled):
    sid = await dialled.run(f'<Dial record="true" action="{APP}after">{OTHER}</Dial>')
    child = await connected(dialled, sid)
    (command,) = await eventually(lambda: dialled.media.of(protocol.Record))
    await dialled.resume(sid)
    await eventually(lambda: len(dialled.media.of(protocol.Bridge)) == 2)
    assert len(dialled.phone.invites) == 1, "nobody is called again"
    dialled.phone.hangs_up()
    (params,) = await after(dialled)
    assert (params["DialCallStatus"], params["DialCallSid"], params["RecordingSid"]) == (
        "completed", child, command.recording,
    )  # fmt: skip


async def test_another_process_calls_again_who_had_not_picked_up(dialled):
    """The first INVITE is cancelled by trunkline.voice.recovery."""
    dialled.phone.plan = dialled.phone.rings
    sid = await dialled.run(f'<Dial action="{APP}after">{OTHER}</Dial>')
    await ringing(dialled)
    await dialled.resume(sid)
    await eventually(lambda: len(dialled.phone.invites) == 2)


async def test_another_process_tells_of_a_connection_that_ended_meanwhile(dialled):
    sid = await dialled.run(f'<Dial action="{APP}after">{OTHER}</Dial>')
    child = await connected(dialled, sid)
    dialled.services.live.pop(child)
    await dialled.resume(sid)
    (params,) = await after(dialled)
    assert (params["DialCallStatus"], params["DialCallSid"]) == ("completed", child)


async def test_the_callees_last_callback_names_the_recording(dialled):
    sid = await dialled.run(f'<Dial record="true"><Number statusCallback="status">{OTHER}</Number></Dial>')
    child = await connected(dialled, sid)
    (command,) = await eventually(lambda: dialled.media.of(protocol.Record))
    dialled.phone.hangs_up()
    await dialled.until(child, "completed")
    (told,) = dialled.events(child)
    assert told["RecordingSid"] == command.recording
