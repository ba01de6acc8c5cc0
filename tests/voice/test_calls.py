"""What the API does with calls, beside making and ending them (test_outbound, test_endings)."""

import json

import pytest

from trunkline.inflight.store import Inflight
from trunkline.model.errors import ApiError
from trunkline.model.numbers import Application
from trunkline.model.sid import new_sid
from trunkline.postflight.landing import Landing
from trunkline.voice.calls import CallChange, NewCall

from ..messaging.world import AC, eventually
from .lines import APP, OURS, THEM

ELSEWHERE = "AC" + "b" * 32


async def land(lines):
    landing = Landing(Inflight(lines.queue, lines.clock), lines.archive, 1000)
    landing.forget.append(lines.flights.forget)
    for owed in list(lines.owed):
        owed.state = "delivered"
        owed.attempts = b'[{"url":"http://app.example/status","method":"POST","started_ms":5,"status":200}]'
        await lines.queue.settle(owed)
    lines.owed.clear()
    return await landing.land_all()


async def ended(lines, **changes):
    sid = await lines.create(**changes)
    await lines.until(sid, "in-progress")
    lines.clock.offset_ms += 30_000
    lines.phone.hangs_up()
    await lines.until(sid, "completed")
    return sid


async def test_an_application_goes_before_the_urls(lines):
    application = Application(
        sid=new_sid("AP"), account_sid=AC, voice_url=APP + "own", voice_method="GET", voice_fallback_url=APP + "fall",
        status_callback=APP + "told", status_callback_method="GET",
    )  # fmt: skip
    await lines.database.insert(application)
    lines.web.pages[APP + "own"] = "<Hangup/>"
    sid = await lines.create(url=APP + "other", application_sid=application.sid)
    call = await lines.until(sid, "completed")
    assert (call.application_sid, call.url, call.fallback_url) == (application.sid, APP + "own", APP + "fall")
    assert [(url, method) for url, method, _ in lines.web.asked] == [(APP + "own", "GET")]
    assert lines.web.params(APP + "own")[0]["ApplicationSid"] == application.sid
    assert len(lines.events(sid, APP + "told")) == 4


async def test_the_url_goes_before_the_document(lines):
    lines.web.pages[APP + "go"] = "<Hangup/>"
    sid = await lines.create(url=APP + "go", twiml="<Response><Pause/></Response>")
    assert (await lines.until(sid, "completed")).twiml == ""


async def test_the_answer_is_written_with_the_call(lines):
    made = []

    def complete(call):
        made.append(call)
        return

    call, written = lines.calls.create(
        NewCall(account_sid=AC, to=THEM, from_=OURS, twiml="<Response/>", token="t"), complete
    )
    await written
    assert made == [call]
    assert (call.token, call.phone_number_sid) == ("t", lines.number.sid)


async def test_a_live_call_goes_on_with_another_document(lines):
    sid = await lines.create()
    await lines.until(sid, "in-progress")
    lines.web.pages[APP + "new"] = "<Pause length='60'/>"
    updated = await lines.calls.update(AC, sid, CallChange(url=APP + "new", method="GET"))
    assert updated.status == "in-progress"
    await eventually(lambda: lines.web.params(APP + "new"))
    await lines.calls.update(AC, sid, CallChange(twiml="<Response><Hangup/></Response>"))
    await lines.until(sid, "completed")


async def test_what_is_only_kept(lines):
    sid = await lines.create()
    await lines.until(sid, "in-progress")
    await lines.calls.update(
        AC, sid, CallChange(fallback_url=APP + "fall", status_callback=APP + "other", status_callback_method="GET")
    )
    stored = await lines.stored(sid)
    assert stored.fallback_url == APP + "fall"
    lines.phone.hangs_up()
    await lines.until(sid, "completed")
    assert [one["CallStatus"] for one in lines.events(sid, APP + "other")] == ["completed"]


async def test_updates_that_are_refused(lines):
    assert await lines.calls.update(AC, "CA" + "0" * 32, CallChange(url=APP)) is None
    lines.phone.plan = lines.phone.rings
    sid = await lines.create()
    await lines.until(sid, "ringing")
    assert await lines.calls.update(ELSEWHERE, sid, CallChange(status="completed")) is None
    with pytest.raises(ApiError) as refused:
        await lines.calls.update(AC, sid, CallChange(url=APP))
    assert (refused.value.code, refused.value.message) == (21220, "Call is not in-progress. Cannot redirect.")
    with pytest.raises(ApiError) as refused:
        await lines.calls.update(AC, sid, CallChange(twiml="x" * 4001))
    assert refused.value.code == 32018


async def test_a_call_is_there_before_it_is_stored(lines, monkeypatch):
    """Its first webhook may be answered, and the call fetched or changed, while the write is under way."""
    lines.web.pages[APP + "in"] = "<Pause length='60'/>"
    lines.phone.dials(OURS)
    sid = (await lines.the_call()).sid
    stored = await lines.calls.get(AC, sid)

    async def not_yet(*args):
        return None

    monkeypatch.setattr(lines.calls.reader, "get", not_yet)
    found = await lines.calls.get(AC, sid)
    assert (found.sid, found.status, found.from_, found.to) == (sid, "ringing", THEM, stored.to)
    assert await lines.calls.get(ELSEWHERE, sid) is None
    assert (await lines.calls.update(AC, sid, CallChange(twiml="<Response><Pause/></Response>"))).sid == sid
    assert await lines.calls.update(ELSEWHERE, sid, CallChange(status="completed")) is None
    with pytest.raises(ApiError) as refused:
        await lines.calls.delete(AC, sid)
    assert refused.value.code == 20009


async def test_a_call_is_shown_as_it_is_before_that_is_stored(lines, monkeypatch):
    sid = await lines.create()
    await lines.until(sid, "in-progress")
    stored = await lines.calls.reader.get(AC, sid)

    async def as_it_was(*args):
        return stored

    monkeypatch.setattr(lines.calls.reader, "get", as_it_was)
    assert await lines.calls.get(AC, sid) is stored
    stored.rev -= 1
    stored.status = "ringing"
    assert (await lines.calls.get(AC, sid)).status == "in-progress"
    lines.flights.cached(sid).call.ended_ms = 1  # its last step is about to follow
    assert await lines.calls.get(AC, sid) is stored
    lines.flights.cached(sid).call.ended_ms = 0


async def test_deleting_hides_a_call_at_once_and_keeps_its_amounts(lines):
    sid = await lines.create()
    with pytest.raises(ApiError) as refused:
        await lines.calls.delete(AC, sid)
    assert refused.value.code == 20009
    await lines.until(sid, "in-progress")
    lines.clock.offset_ms += 61_000
    lines.phone.hangs_up()
    await lines.until(sid, "completed")
    lines.archive.delete = deleted = Deleted(lines.archive)
    assert not await lines.calls.delete(ELSEWHERE, sid)
    assert await lines.calls.delete(AC, sid)
    assert await lines.calls.get(AC, sid) is None
    assert deleted.sids == [sid]
    (tally,) = deleted.documents()
    assert (tally["kind"], tally["num_segments"], tally["price"]) == ("usage-tally", 2, "0.026")
    assert THEM not in str(tally)
    assert OURS not in str(tally)
    assert sid not in str(tally)


class Deleted:
    """`Archive.delete` of an archive in memory."""

    def __init__(self, archive):
        self.archive, self.sids = archive, []

    async def __call__(self, account, sid):
        self.sids.append(sid)
        return self.archive.documents.pop((account, sid), None) is not None

    def documents(self):

        return [json.loads(one.body) for one in self.archive.documents.values()]


async def test_events_are_the_webhooks_in_flight_and_after(lines):
    lines.web.pages[APP + "go"] = "<Pause length='60'/>"
    sid = await ended(lines, url=APP + "go")
    assert await land(lines) == 1
    stored = await lines.stored(sid)
    assert (stored.landed, stored.status) == (True, "completed")
    events = await lines.calls.events(AC, sid)
    assert {one["url"] for one in events} == {APP + "go", APP + "status"}
    told = [dict(one["params"]).get("CallStatus") for one in events if one["url"] == APP + "status"]
    assert told == ["initiated", "ringing", "in-progress", "completed"]
    assert await lines.calls.events(ELSEWHERE, sid) == []


async def test_logins_in_urls_do_not_go_into_the_archive(lines):
    sid = await ended(
        lines, status_callback="http://ada:s3cret@app.example/status?to=a@b",
        fallback_url="http://ada:s3cret@app.example/fallback",
    )  # fmt: skip
    assert b"ada:s3cret" in lines.owed[0].request
    assert await land(lines) == 1
    ((_, document),) = lines.archive.documents.items()
    assert document.sid == sid
    assert b"http://app.example/status?to=a@b" in document.body
    assert b"s3cret" not in document.body


async def test_pages_show_calls_newest_first(lines):
    sids = [await lines.create() for _ in range(3)]
    found = await lines.calls.page(AC, older_than=None, newer_than=None, limit=2, filters={"to": THEM})
    assert [one.sid for one in found] == sids[:0:-1]
    assert await lines.calls.page(ELSEWHERE, older_than=None, newer_than=None, limit=2, filters={}) == []
