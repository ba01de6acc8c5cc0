"""Calls of the API: their turn, their way, their progress."""

import pytest

from trunkline.media import protocol
from trunkline.model.errors import ApiError
from trunkline.settings import Trunk
from trunkline.voice import outgoing

from ..messaging.world import AC, MovableClock, eventually
from .lines import APP, OTHER, OURS, SECOND, THEM, TRUNKS, Phone


async def test_a_call_is_placed_answered_and_ended_by_the_callee(lines):
    sid = await lines.create(to=THEM)
    await lines.until(sid, "in-progress")
    request = lines.phone.invites[0].request
    assert request.uri == f"sip:{THEM}@127.0.0.2:5060"
    assert f"<sip:{OURS}@us.example>" in request.headers.get("From")
    assert request.headers.get("P-Asserted-Identity") == f"<sip:{OURS}@us.example>"
    lines.clock.offset_ms += 61_000
    lines.phone.hangs_up()
    ended = await lines.until(sid, "completed")
    assert (ended.trunk, ended.sip_response_code, ended.hangup_cause) == ("carrier", 200, "callee")
    assert (ended.price, ended.price_unit, ended.cost) == ("0.026", "USD", "0.008")
    assert next(entry.what for entry in ended.timeline if entry.kind == "sip") == f"-> INVITE sip:{THEM}@127.0.0.2:5060"
    assert 60 < ended.duration_s < 63
    events = lines.events(sid)
    assert [one["CallStatus"] for one in events] == ["initiated", "ringing", "in-progress", "completed"]
    assert [one["SequenceNumber"] for one in events] == ["0", "1", "2", "3"]
    assert events[-1]["SipResponseCode"] == "200"
    assert events[-1]["CallDuration"] == str(ended.duration_s)
    assert all(one["CallbackSource"] == "call-progress-events" for one in events)
    assert not lines.services.live


async def test_the_document_runs_after_the_answer_with_the_standard_parameters(lines):
    lines.web.pages[APP + "go"] = "<Hangup/>"
    sid = await lines.create(url=APP + "go", send_digits="12w3")
    await lines.until(sid, "completed")
    (params,) = lines.web.params(APP + "go")
    assert (params["CallSid"], params["CallStatus"], params["Direction"]) == (sid, "in-progress", "outbound-api")
    digits = [item.digits for play in lines.media.of(protocol.Play) for item in play.items]
    assert digits == ["12w3"]
    assert len(lines.phone.byes) == 1


class StandingClock(MovableClock):
    """A clock whose seconds do not pass until they are let."""

    def __init__(self):
        super().__init__()
        self.stands_at = super().monotonic()

    def monotonic(self):
        return self.stands_at or super().monotonic()


@pytest.mark.parametrize("rate", [20])
async def test_calls_wait_for_their_accounts_turn(make_lines, rate):
    clock = StandingClock()
    lines = await make_lines(calls_per_second=rate, clock=clock)
    sids = [await lines.create() for _ in range(rate + 5)]
    await eventually(lambda: len(lines.phone.invites) == rate)
    waiting = [sid for sid in sids if (await lines.stored(sid)).status == "queued"]
    assert waiting == sids[rate:]
    clock.stands_at = 0
    await lines.until(sids[-1], "in-progress")
    assert (await lines.stored(sids[-1])).queue_time_ms > 0
    assert lines.events(sids[-1])[0]["CallStatus"] == "initiated"


async def test_calls_wait_until_others_have_ended(make_lines):
    lines = await make_lines(calls_at_once=1)
    first, second = await lines.create(), await lines.create()
    await lines.until(first, "in-progress")
    await lines.until(second, "queued")
    lines.phone.hangs_up()
    await lines.until(second, "in-progress")


async def test_a_call_that_waits_too_long_fails_and_says_so(make_lines):
    lines = await make_lines(calls_at_once=1, queue_s=10.0)
    first, second = await lines.create(), await lines.create()
    await lines.until(first, "in-progress")
    lines.clock.offset_ms += 11_000
    lines.phone.hangs_up()
    failed = await lines.until(second, "failed")
    assert failed.error_code == 10004
    assert [(one["CallStatus"], one["ErrorCode"]) for one in lines.events(second)] == [("failed", "10004")]


async def test_too_many_waiting_calls_are_refused(make_lines):
    lines = await make_lines(calls_per_second=1, queue_s=2.0)
    for _ in range(3):
        await lines.create()
    with pytest.raises(ApiError) as refused:
        await lines.create()
    assert refused.value.code == 20429


TWO = (TRUNKS[0], Trunk(name="second", gateways=("sip:127.0.0.3:5060",), prefixes=("+1",), priority=-1))


@pytest.mark.parametrize("status", [500, 503, 580])
async def test_another_trunk_is_tried_where_the_first_cannot(make_lines, status):
    lines = await make_lines(trunks=(Trunk(name="first", gateways=("sip:127.0.0.2:5060",), prefixes=("+1",)), TWO[1]))
    second = Phone(lines.net, SECOND)
    lines.phone.refuses(status)
    sid = await lines.create()
    assert (await lines.until(sid, "in-progress")).trunk == "second"
    assert (len(lines.phone.invites), len(second.invites)) == (1, 1)
    assert [one["CallStatus"] for one in lines.events(sid)] == ["initiated", "ringing", "in-progress"]


async def test_another_trunk_is_tried_where_nobody_answers_at_all(make_lines):
    lines = await make_lines(trunks=(Trunk(name="dead", gateways=("sip:127.0.0.9",), prefixes=("+1415",)), TWO[1]))
    second = Phone(lines.net, SECOND)
    sid = await lines.create()
    assert (await lines.until(sid, "in-progress")).trunk == "second"
    assert len(second.invites) == 1


@pytest.mark.parametrize("timeout_s", [1, 60])
async def test_the_timeline_tells_a_silent_gateway_from_a_phone_that_rings(make_lines, timeout_s, monkeypatch):
    """Whether the time to ring is over first, or that of the transaction."""
    monkeypatch.setattr(outgoing, "RING_EXTRA_S", 0.0)
    lines = await make_lines(trunks=(Trunk(name="dead", gateways=("sip:127.0.0.9",), prefixes=("+1415",)),))
    silent = await lines.create(timeout_s=timeout_s)
    ended = await lines.until(silent, "no-answer")
    assert "nothing at all came back" in " ".join(entry.what for entry in ended.timeline if entry.kind == "error")


@pytest.mark.parametrize(("status", "ring"), [(486, False), (600, False), (603, False), (480, True), (503, True)])
async def test_no_other_trunk_is_tried_after_somebody_was_reached(make_lines, status, ring):
    lines = await make_lines(trunks=(Trunk(name="first", gateways=("sip:127.0.0.2:5060",), prefixes=("+1",)), TWO[1]))
    second = Phone(lines.net, SECOND)
    lines.phone.refuses(status, ring=ring)
    sid = await lines.create()
    ended = await lines.until(sid, "busy", "no-answer", "failed")
    assert ended.sip_response_code == status
    assert not second.invites


async def test_a_full_trunk_is_passed_over(make_lines):
    first = Trunk(name="first", gateways=("sip:127.0.0.2:5060",), prefixes=("+1",), calls_at_once=1)
    lines = await make_lines(trunks=(first, TWO[1]))
    Phone(lines.net, SECOND)
    one, two = await lines.create(), await lines.create()
    assert {(await lines.until(sid, "in-progress")).trunk for sid in (one, two)} == {"first", "second"}


async def test_a_call_waits_for_a_full_trunk_when_there_is_no_other(make_lines):
    only = Trunk(name="only", gateways=("sip:127.0.0.2:5060",), calls_at_once=1)
    lines = await make_lines(trunks=(only,))
    one, two = await lines.create(), await lines.create()
    await lines.until(one, "in-progress")
    await lines.until(two, "initiated")
    lines.phone.hangs_up()
    await lines.until(two, "in-progress")


async def test_a_trunk_asks_for_its_login(make_lines):
    lines = await make_lines(
        trunks=(Trunk(name="carrier", gateways=("sip:127.0.0.2:5060",), username="us", password="secret"),)
    )
    seen = []

    def plan(invite):
        header = invite.request.headers.get("Authorization")
        seen.append(header)
        if header:
            lines.phone.picks_up(invite)
        else:
            invite.challenge('Digest realm="carrier", nonce="abc", algorithm=MD5, qop="auth"')

    lines.phone.plan = plan
    await lines.until(await lines.create(), "in-progress")
    assert (seen[0], 'username="us"' in seen[1]) == ("", True)


async def test_a_sip_uri_is_called_directly_with_its_headers_and_login(lines):
    other = Phone(lines.net, SECOND)

    def plan(invite):
        if invite.request.headers.get("Authorization"):
            other.picks_up(invite, headers=[("X-Desk", "9"), ("Subject", "no")])
        else:
            invite.challenge('Digest realm="pbx", nonce="abc", algorithm=MD5, qop="auth"')

    other.plan = plan
    sid = await lines.create(
        to="sip:bob@127.0.0.3:5060?X-Order=A%2017&Via=evil", from_="Shop", sip_auth_username="bob",
        sip_auth_password="hunter2",
    )  # fmt: skip
    up = await lines.until(sid, "in-progress")
    request = other.invites[0].request
    assert request.uri == "sip:bob@127.0.0.3:5060"
    assert request.headers.get("X-Order") == "A 17"
    assert all("evil" not in value for value in request.headers.all("Via"))
    assert "<sip:Shop@us.example>" in request.headers.get("From")
    assert (up.to, up.sip_headers) == ("sip:bob@127.0.0.3:5060", {"X-Desk": "9"})
    assert b"hunter2" not in lines.queue.by_id(lines.flights.cached(sid).id).record
    other.hangs_up()
    ended = await lines.until(sid, "completed")
    assert (ended.sip_auth_password, ended.price) == ("", "")


async def test_passwords_in_a_document_go_with_the_call(lines):
    other = Phone(lines.net, SECOND)
    sid = await lines.create('<Dial><Sip username="bob" password="hunter2">sip:bob@127.0.0.3</Sip></Dial>')
    await eventually(lambda: other.invites)
    lines.phone.hangs_up()
    await lines.until(sid, "completed")
    stored, owed = await lines.queue.get(AC, sid)
    assert b"password" in stored.record
    assert b"hunter2" not in stored.record
    assert all(b"hunter2" not in one.request + one.attempts for one in owed)


async def test_a_sip_uri_does_not_reach_into_the_operators_network(lines):
    sid = await lines.create(to="sip:root@169.254.169.254")
    assert (await lines.until(sid, "failed")).sip_response_code == 503


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"to": ""}, 21201),
        ({"to": "12"}, 21211),
        ({"to": "sip:"}, 21211),
        ({"to": "client:joe"}, 21214),
        ({"to": "sips:bob@pbx.example"}, 21214),
        ({"to": "sip:bob@pbx.example;transport=ws"}, 21214),
        ({"to": "sip:a@b?x y=1"}, 21228),
        ({"from_": ""}, 21213),
        ({"from_": "nobody"}, 21212),
        ({"from_": OTHER}, 21210),
        ({"url": ""}, 21205),
        ({"twiml": "x" * 4001}, 32018),
        ({"application_sid": "AP" + "0" * 32}, 21218),
        ({"to": "sip:a@b", "sip_auth_username": "a" * 256, "sip_auth_password": "p"}, 21221),
        ({"to": "sip:a@b", "sip_auth_username": "a"}, 21225),
    ],
)
async def test_calls_that_may_not_be_made(lines, changes, code):
    with pytest.raises(ApiError) as refused:
        await lines.create(**changes)
    assert refused.value.code == code
    assert not lines.phone.invites


async def test_nothing_leads_there(make_lines):
    lines = await make_lines(trunks=(Trunk(name="local", gateways=("sip:127.0.0.2",), prefixes=("+49",)),))
    with pytest.raises(ApiError) as refused:
        await lines.create()
    assert refused.value.code == 21214


async def test_numbers_that_the_operator_lists_may_be_shown(make_lines):
    lines = await make_lines(caller_ids=(OTHER,))
    sid = await lines.create(from_=OTHER)
    await lines.until(sid, "in-progress")
    assert f"<sip:{OTHER}@us.example>" in lines.phone.invites[0].request.headers.get("From")


@pytest.mark.parametrize(
    ("beside", "said", "told"),
    [
        ({}, {"AnsweredBy": "unknown", "MachineDetectionDuration": "0"}, []),
        ({"async_amd": True, "async_amd_status_callback": APP + "amd"}, {}, ["unknown"]),
        ({"async_amd": True}, {}, []),
    ],
)
async def test_machines_are_not_told_from_people_and_that_is_said(lines, beside, said, told):
    sid = await lines.create(machine_detection="Enable", url=APP + "go", **beside)
    lines.web.pages[APP + "go"] = "<Hangup/>"
    assert (await lines.until(sid, "completed")).answered_by == "unknown"
    (params,) = lines.web.params(APP + "go")
    assert {name: params[name] for name in ("AnsweredBy", "MachineDetectionDuration") if name in params} == said
    assert lines.events(sid)[-1]["AnsweredBy"] == "unknown"
    assert [one["AnsweredBy"] for one in lines.events(sid, APP + "amd")] == told
    assert 21263 in await lines.alert_codes()


async def test_recording_begins_with_the_answer_where_it_was_asked_for(lines):
    sid = await lines.create(record=True, record_channels=2, recording_status_callback=APP + "rec")
    await lines.until(sid, "in-progress")
    await eventually(lambda: lines.media.recording)
    (command,) = lines.media.recording.values()
    assert (command.leg, command.channels, command.trim) == (sid, 2, True)
    lines.phone.hangs_up()
    await lines.until(sid, "completed")
    await eventually(lambda: lines.events(sid, APP + "rec"))
    last = lines.events(sid)[-1]
    assert last["RecordingSid"] == command.recording
    (told,) = lines.events(sid, APP + "rec")
    assert (told["RecordingStatus"], told["RecordingSource"], told["RecordingChannels"]) == (
        "completed", "OutboundAPI", "2",
    )  # fmt: skip
    assert told["RecordingUrl"] == last["RecordingUrl"]
    assert await lines.blobs.get(command.recording) == b"RIFF" + command.recording.encode()


async def test_what_was_queued_is_placed_after_a_restart_and_what_rang_has_failed(make_lines):
    lines = await make_lines(calls_at_once=1)
    lines.phone.plan = lines.phone.rings
    ringing, queued = await lines.create(), await lines.create()
    await lines.until(ringing, "ringing")
    lines.phone.plan = lines.phone.picks_up
    await lines.crash()
    failed = await lines.until(ringing, "failed")
    assert failed.hangup_cause == "process-lost"
    assert [one["CallStatus"] for one in lines.events(ringing)] == ["failed"]
    await lines.until(queued, "in-progress")


async def test_an_early_offer_of_another_trunk_names_its_codecs(make_lines):
    trunks = (
        Trunk(name="first", gateways=("sip:127.0.0.2:5060",), prefixes=("+1",), codecs=("PCMU",)),
        Trunk(name="second", gateways=("sip:127.0.0.3:5060",), codecs=("PCMA",)),
    )
    lines = await make_lines(trunks=trunks)
    second = Phone(lines.net, SECOND)
    lines.phone.refuses(503)
    await lines.until(await lines.create(), "in-progress")
    assert b"PCMA" not in lines.phone.invites[0].offer
    assert b"PCMU" not in second.invites[0].offer


async def test_nothing_new_is_taken_while_there_is_no_room(lines):
    lines.outbound.refuse_all("disk: 5 bytes free")
    with pytest.raises(ApiError) as refused:
        await lines.create()
    assert (refused.value.status, refused.value.code) == (503, 20503)
    lines.outbound.refuse_all("")
    await lines.create()
    lines.outbound.stop()
    lines.outbound.refuse_all("")
    with pytest.raises(ApiError):
        await lines.create()


@pytest.mark.parametrize("caller", ["", f" callerId='{OTHER}'", " callerId='sip:+14155550177@127.0.0.3'"])
async def test_a_number_shown_to_a_sip_uri_is_not_shown_to_the_network(lines, caller):
    """Towards a `sip:` URI any number will do; a call that began so must not carry it on to a telephone."""
    other = Phone(lines.net, SECOND)
    lines.web.pages[APP + "in"] = f"<Dial{caller} action='/dialled'>{THEM}</Dial>"
    lines.web.pages[APP + "dialled"] = "<Hangup/>"
    await lines.create(to="sip:+14155550177@127.0.0.3", from_=OTHER, url=APP + "in")
    assert (await eventually(lambda: lines.web.params(APP + "dialled")))[0]["DialCallStatus"] == "failed"
    assert len(other.invites) == 1
    assert lines.phone.invites == []
    assert await lines.alert_codes() == [13214]


async def test_a_number_of_the_accounts_own_is_shown_all_the_same(lines):
    Phone(lines.net, SECOND)
    lines.web.pages[APP + "in"] = f"<Dial>{THEM}</Dial>"
    await lines.create(to="sip:bob@127.0.0.3", from_=OURS, url=APP + "in")
    (invite,) = await eventually(lambda: lines.phone.invites)
    assert OURS in invite.request.headers.get("From")
