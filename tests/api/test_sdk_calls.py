"""The official SDK over the application: calls and recordings."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
from twilio.base.exceptions import TwilioRestException
from twilio.rest import Client
from twilio.twiml.voice_response import VoiceResponse

from tests.api.call_world import OWN, THEIRS, CallWorld
from tests.api.test_sdk_2010 import InProcess
from trunkline.model.call import Status


@pytest.fixture
def client(calls: CallWorld) -> Any:
    owner = calls.world.owner
    return Client(owner.sid, owner.auth_token, http_client=InProcess(calls.world))


async def test_a_call_from_its_making_to_its_deletion(calls: CallWorld, client: Any) -> None:
    response = VoiceResponse()
    response.say("Hello")
    made = await client.calls.create_async(
        to=THEIRS, from_=OWN, twiml=response, status_callback="https://example.com/s",
        status_callback_event=["initiated", "answered"], record=True, recording_channels="dual", timeout=20,
    )  # fmt: skip
    assert (made.status, made.direction, made.duration, made.start_time) == ("queued", "outbound-api", None, None)
    call = calls.line.waiting[0].call
    assert call.twiml == str(response)
    assert (call.status_callbacks[0].events, call.record_channels) == (("initiated", "answered"), 2)
    fetched = await client.calls(made.sid).fetch_async()
    assert (fetched.to_formatted, fetched.date_created) == (
        "(415) 555-0123",
        datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
    )
    ended = await client.calls(made.sid).update_async(status="canceled")
    assert ended.status == "canceled"
    assert await client.calls(made.sid).delete_async()
    with pytest.raises(TwilioRestException) as gone:
        await client.calls(made.sid).fetch_async()
    assert (gone.value.status, gone.value.code) == (404, 20404)


async def test_lists(calls: CallWorld, client: Any) -> None:
    first = await calls.landed()
    calls.world.clock.ms += 1000
    second = await calls.landed(Status.NO_ANSWER)
    assert [one.sid for one in await client.calls.list_async()] == [second.sid, first.sid]
    assert [one.sid for one in await client.calls.list_async(status="no-answer")] == [second.sid]
    day = datetime(2023, 11, 14, tzinfo=UTC)
    assert len(await client.calls.list_async(start_time=day, to=THEIRS)) == 2
    assert await client.calls.list_async(start_time_after=datetime(2023, 11, 15, tzinfo=UTC)) == []
    assert len(await client.calls.list_async(end_time_before=datetime(2023, 11, 15, tzinfo=UTC))) == 2
    assert [one.sid async for one in await client.calls.stream_async(page_size=1)] == [second.sid, first.sid]


async def test_recordings_of_a_live_call(calls: CallWorld, client: Any) -> None:
    leg = await calls.up()
    recordings = client.calls(leg.record.sid).recordings
    made = await recordings.create_async(recording_channels="dual", trim="do-not-trim")
    assert (made.status, made.channels, made.track, made.duration) == ("in-progress", 2, "both", None)
    assert (await recordings("Twilio.CURRENT").update_async(status="paused", pause_behavior="skip")).status == "paused"
    assert (await recordings(made.sid).update_async(status="stopped")).status == "stopped"
    assert [one.sid for one in await recordings.list_async()] == [made.sid]
    assert (await client.calls(leg.record.sid).update_async(twiml="<Response/>")).status == "in-progress"


async def test_recordings_of_the_account(calls: CallWorld, client: Any) -> None:
    call = await calls.landed()
    made = await calls.recording(call.sid, b"RIFF", channels=2)
    found = await client.recordings(made.sid).fetch_async()
    assert (found.duration, found.channels, found.price, found.source) == ("4", 2, "-0.00250", "OutboundAPI")
    assert found.media_url == f"http://api.twilio.com{calls.world.path('Recordings')}/{made.sid}"
    assert [one.sid for one in await client.recordings.list_async(call_sid=call.sid)] == [made.sid]
    assert await client.recordings.list_async(date_created_after=datetime(2023, 11, 15, tzinfo=UTC)) == []
    assert await client.recordings(made.sid).delete_async()
    assert await client.recordings.list_async() == []


async def test_events_and_notifications(calls: CallWorld, client: Any) -> None:
    call = await calls.landed()
    alert = await calls.alert(call.sid)
    (listed,) = await client.calls(call.sid).notifications.list_async()
    assert (listed.sid, listed.error_code, listed.call_sid) == (alert.sid, "11200", call.sid)
    whole = await client.calls(call.sid).notifications(alert.sid).fetch_async()
    assert whole.response_body == "no"
    assert await client.calls(call.sid).events.list_async() == []


async def test_usage_of_calls(calls: CallWorld, client: Any) -> None:
    await calls.landed(seconds=61)
    await calls.landed(Status.BUSY, seconds=0, price="")
    await calls.recording("CA1", duration_ms=90_000)
    day = date(2023, 11, 14)
    (used,) = await client.usage.records.list_async(category="calls-outbound", start_date=day, end_date=day)
    assert (used.count, used.usage, used.usage_unit, float(used.price)) == ("1", "2", "minutes", 0.013)
    (kept,) = await client.usage.records.today.list_async(category="recordings")
    assert (kept.count, kept.usage, float(kept.price)) == ("1", "2", 0.0025)
    balance = await client.balance.fetch_async()
    assert balance.balance == "-0.0155"
