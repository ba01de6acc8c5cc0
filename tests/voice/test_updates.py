"""Live updates at any moment of any verb: another document, or the end; and what may happen at the same time."""

import asyncio
from typing import NamedTuple

import pytest

from trunkline.media import protocol
from trunkline.model.errors import ApiError
from trunkline.voice.calls import CallChange

from ..messaging.world import AC, eventually
from .lines import APP, OTHER

NEW = APP + "new"
AFTER = f'action="{APP}after"'
SAY = "<Say loop='0'>on and on</Say>"


class Moment(NamedTuple):
    """What a call does when it is updated: `reached` tells whether it has come to that."""

    name: str
    twiml: str
    reached: str


MOMENTS = (
    Moment("say", SAY, "plays"),
    Moment("play", f"<Play loop='0'>{APP}a.wav</Play>", "plays"),
    Moment("keys", "<Play digits='1w2'/>" + SAY, "plays"),
    Moment("pause", "<Pause length='60'/>", "up"),
    Moment("gather-prompt", f"<Gather timeout='60' {AFTER}>{SAY}</Gather>", "plays"),
    Moment("gather-keys", f"<Gather timeout='60' {AFTER}/>", "pressed"),
    Moment("record", f"<Record {AFTER}/>", "records"),
    Moment("dial-ringing", f"<Dial {AFTER}>{OTHER}</Dial>", "rings"),
    Moment("dial-bridged", f"<Dial {AFTER} record='true'>{OTHER}</Dial>", "bridged"),
    Moment("whisper", f"<Dial {AFTER}><Number url='{APP}ask'>{OTHER}</Number></Dial>", "asked"),
    Moment("redirect", f"<Redirect>{APP}slow</Redirect>", "fetches"),
    Moment("message", f"<Message {AFTER} to='{OTHER}'>hi</Message>", "sends"),
)
CHANGES = {
    "url": CallChange(url=NEW),
    "twiml": CallChange(twiml=f"<Response><Redirect>{NEW}</Redirect></Response>"),
    "completed": CallChange(status="completed"),
}


class Stage:
    """A call of the API, brought to a moment."""

    def __init__(self, lines):
        self.lines = lines
        self.sid = ""
        self.fetching, self.fetched, self.sending = asyncio.Event(), asyncio.Event(), asyncio.Event()
        fetch = lines.web.fetch

        async def slowly(request):
            if request.url == APP + "slow":
                self.fetching.set()
                await self.fetched.wait()
            return await fetch(request)

        lines.web.fetch = slowly
        lines.services.send_message = self.send
        lines.web.pages.update({NEW: "<Pause length='60'/>", APP + "ask": "<Gather timeout='60'/>"})

    async def send(self, *details, **more):
        self.sending.set()
        await asyncio.Event().wait()

    async def reach(self, moment):
        lines = self.lines
        if moment.reached == "rings":
            plan = lines.phone.plan
            lines.phone.plan = lambda invite: lines.phone.rings(invite) if OTHER in invite.request.uri else plan(invite)
        self.sid = await lines.create(moment.twiml)
        await lines.until(self.sid, "in-progress")
        await getattr(self, moment.reached)()

    async def up(self):
        await eventually(lambda: self.lines.services.live[self.sid].session._waiting is not None)

    async def plays(self):
        await eventually(lambda: [one for one in self.lines.media.of(protocol.Play, self.sid) if not one.loop])

    async def pressed(self):
        await self.up()
        self.lines.media.tell(protocol.Digit(leg=self.sid, digit="7"))

    async def records(self):
        await eventually(lambda: self.lines.media.recording)

    async def rings(self):
        await eventually(lambda: len(self.lines.phone.invites) == 2)

    async def bridged(self):
        await eventually(lambda: self.lines.media.of(protocol.Bridge))
        await self.records()

    async def asked(self):
        await eventually(lambda: self.lines.web.params(APP + "ask"))
        (child,) = set(self.lines.services.live) - {self.sid}
        await eventually(lambda: self.lines.services.live[child].session._waiting is not None)

    async def fetches(self):
        await self.fetching.wait()

    async def sends(self):
        await self.sending.wait()


@pytest.fixture
def stage(lines):
    return Stage(lines)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("moment", MOMENTS, ids=lambda one: one.name)
async def test_an_update_at_any_moment(lines, stage, moment, change):
    await stage.reach(moment)
    await lines.calls.update(AC, stage.sid, CHANGES[change])
    if change == "completed":
        ended = await lines.until(stage.sid, "completed")
        assert ended.hangup_cause == "api"
        assert [one["CallStatus"] for one in lines.events(stage.sid)][-1] == "completed"
        await eventually(lambda: not lines.services.live)
    else:
        (params,) = await eventually(lambda: lines.web.params(NEW))
        assert (params["CallSid"], params["CallStatus"]) == (stage.sid, "in-progress")
        assert "Digits" not in params
        await stage.up()
        assert not lines.web.params(APP + "after"), "what was left is over: its action is not asked"
        await lines.until(stage.sid, "in-progress")
        await eventually(lambda: set(lines.services.live) == {stage.sid})
    children = await lines.children(stage.sid)
    assert all(child.ended_ms for child in [await lines.until(one.sid, "completed", "canceled") for one in children])
    await eventually(lambda: not lines.recordings.of_call(stage.sid))
    assert {row.status for row in await lines.recordings_of(stage.sid)} <= {"completed"}
    assert 12400 not in await lines.alert_codes()


async def test_of_two_updates_at_once_the_later_counts(lines, stage):
    await stage.reach(MOMENTS[0])
    lines.web.pages[APP + "first"] = "<Pause length='60'/>"
    both = [CallChange(url=APP + "first"), CallChange(url=NEW)]
    await asyncio.gather(*(lines.calls.update(AC, stage.sid, change) for change in both))
    await eventually(lambda: lines.web.params(NEW))
    await stage.up()
    assert len(lines.web.params(NEW)) == 1
    assert not lines.web.params(APP + "first")


async def test_updates_one_after_the_other_are_all_followed(lines, stage):
    await stage.reach(MOMENTS[0])
    for number in range(20):
        lines.web.pages[f"{APP}{number}"] = "<Pause length='60'/>"
        await lines.calls.update(AC, stage.sid, CallChange(url=f"{APP}{number}"))
        await asyncio.sleep(0.001 * (number % 4))
    await eventually(lambda: lines.web.params(f"{APP}19"))
    await stage.up()
    asked = [url for url, _, _ in lines.web.asked if url != APP + "status"]
    assert asked[-1] == f"{APP}19"


async def test_an_update_of_a_call_that_hangs_up_just_now_is_refused(lines, stage):
    await stage.reach(MOMENTS[0])
    live = lines.services.live[stage.sid]
    changes = [CHANGES[name] for name in ("url", "twiml", "completed")]
    tasks = []
    live.on_end(lambda _: tasks.extend(asyncio.create_task(lines.calls.update(AC, live.sid, one)) for one in changes))
    lines.phone.hangs_up()
    await live.ended.wait()
    refused = await asyncio.gather(*tasks, return_exceptions=True)
    assert [one.code for one in refused[:2]] == [21220, 21220]
    assert refused[2] is None or getattr(refused[2], "sid", stage.sid) == stage.sid
    assert (await lines.until(stage.sid, "completed")).hangup_cause == "callee"
    assert [one["CallStatus"] for one in lines.events(stage.sid)].count("completed") == 1


async def test_a_call_canceled_while_its_answer_is_under_way_is_hung_up(lines, stage):
    lines.phone.plan = lines.phone.rings
    sid = await lines.create()
    await lines.until(sid, "ringing")
    lines.phone.picks_up(ring=False)
    await lines.calls.update(AC, sid, CallChange(status="canceled"))
    assert (await lines.until(sid, "canceled")).answered_ms == 0
    await eventually(lambda: lines.phone.byes)
    assert [one["CallStatus"] for one in lines.events(sid)] == ["initiated", "ringing", "canceled"]


async def test_a_caller_who_gives_up_while_the_document_is_fetched(lines, stage):
    lines.number.voice_url = APP + "slow"
    await lines.database.update(lines.number)
    invite = lines.phone.dials(lines.number.phone_number)
    await stage.fetching.wait()
    invite.cancel()
    call = await lines.the_call()
    ended = await lines.until(call.sid, "no-answer")
    assert (ended.sip_response_code, ended.answered_ms) == (487, 0)
    await eventually(lambda: lines.phone.failure == 487)


async def test_a_call_whose_keys_are_being_pressed_can_be_redirected(lines, stage, monkeypatch):
    monkeypatch.setattr(lines.media, "endless", (protocol.Tone, protocol.Digits))
    sid = await lines.create(send_digits="1W2", url=APP + "first")
    await lines.until(sid, "in-progress")
    await eventually(lambda: lines.media.of(protocol.Play, sid))
    await lines.calls.update(AC, sid, CallChange(url=NEW))
    await eventually(lambda: lines.web.params(NEW))
    assert not lines.web.params(APP + "first")
    assert lines.media.of(protocol.Stop, sid)


async def test_a_callee_whose_keys_are_being_pressed_can_be_redirected(lines, stage, monkeypatch):
    monkeypatch.setattr(lines.media, "endless", (protocol.Tone, protocol.Digits))
    sid = await lines.create(f"<Dial><Number sendDigits='1W2'>{OTHER}</Number></Dial>")
    await lines.until(sid, "in-progress")
    (child,) = await eventually(lambda: set(lines.services.live) - {sid})
    await eventually(lambda: lines.media.of(protocol.Play, child))
    await lines.calls.update(AC, child, CallChange(url=NEW))
    (params,) = await eventually(lambda: lines.web.params(NEW))
    assert params["CallSid"] == child
    assert not lines.media.of(protocol.Bridge)


async def test_a_call_that_ends_while_its_recording_is_kept_tells_the_key_that_ended_it(lines, stage, monkeypatch):
    lines.web.pages[APP + "after"] = "<Hangup/>"
    put, kept = lines.blobs.put, asyncio.Event()

    async def slowly(sid, content):
        await kept.wait()
        return await put(sid, content)

    monkeypatch.setattr(lines.blobs, "put", slowly)
    await stage.reach(MOMENTS[6])
    (recording,) = lines.media.recording
    lines.media.recorded(recording, why="digit", digit="#")
    await asyncio.sleep(0)
    lines.phone.hangs_up()
    await eventually(lambda: lines.services.live.get(stage.sid) is None)
    kept.set()
    (params,) = await eventually(lambda: lines.web.params(APP + "after"))
    assert (params["RecordingSid"], params["Digits"], params["CallStatus"]) == (recording, "#", "completed")


async def test_an_account_suspended_during_a_call_calls_nobody_any_more(lines, stage):
    lines.web.pages[NEW] = f"<Dial {AFTER}>{OTHER}</Dial>"
    lines.web.pages[APP + "after"] = "<Pause length='60'/>"
    await stage.reach(MOMENTS[0])
    account = lines.directory.account(AC)
    account.status = "suspended"
    await lines.database.update(account)
    await eventually(lambda: lines.directory.account(AC).status == "suspended")
    await lines.calls.update(AC, stage.sid, CallChange(url=NEW))
    (params,) = await eventually(lambda: lines.web.params(APP + "after"))
    assert params["DialCallStatus"] == "failed"
    assert len(lines.phone.invites) == 1
    assert 10001 in await lines.alert_codes()
    with pytest.raises(ApiError):
        await lines.calls.delete(AC, stage.sid)
    assert (await lines.stored(stage.sid)).status == "in-progress", "what runs is not cut off"


async def test_what_is_told_after_the_end_is_in_the_record(lines, stage):
    lines.web.pages[APP + "after"] = "<Say>nobody hears it</Say>"
    await stage.reach(next(one for one in MOMENTS if one.name == "dial-bridged"))
    await lines.calls.update(AC, stage.sid, CHANGES["completed"])
    await eventually(lambda: lines.web.params(APP + "after"))
    await eventually(lambda: lines.flights.cached(stage.sid) is None)
    asked = [one["url"] for one in await lines.calls.events(AC, stage.sid)]
    assert APP + "after" in asked
    flight, _ = await lines.queue.get(AC, stage.sid)
    assert 0 < flight.land_ms <= lines.clock.now_ms()


async def test_a_call_that_is_deleted_while_it_tells_the_last_stays_deleted(lines, stage, monkeypatch):
    async def forget(account, sid):
        return lines.archive.documents.pop((account, sid), None) is not None

    monkeypatch.setattr(lines.archive, "delete", forget, raising=False)
    sid = await lines.create(f'<Dial action="{APP}slow">{OTHER}</Dial>')
    await eventually(lambda: lines.media.of(protocol.Bridge))
    await lines.calls.update(AC, sid, CHANGES["completed"])
    await stage.fetching.wait()
    await lines.until(sid, "completed")
    assert await lines.calls.delete(AC, sid)
    stage.fetched.set()
    await eventually(lambda: lines.web.params(APP + "slow"))
    await asyncio.sleep(0.05)
    assert await lines.calls.get(AC, sid) is None
    assert await lines.queue.get(AC, sid) is None
    assert lines.flights.cached(sid) is None
