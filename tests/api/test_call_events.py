"""Events and notifications of a call, and its timeline."""

from typing import Any

from tests.api.call_world import CallWorld
from trunkline.model.call import TimelineEntry
from trunkline.storage.queue import Owed

URL = "https://example.com/voice"


def fetched(at_ms: int) -> TimelineEntry:
    """A document's request, as the session notes it."""
    details: dict[str, Any] = {
        "url": URL, "method": "POST", "params": [["CallSid", "CA1"], ["CallStatus", "ringing"]], "status": 200,
        "response_headers": {"Content-Type": "text/xml"}, "response_body": "<Response/>", "total_ms": 12.4,
    }  # fmt: skip
    return TimelineEntry(at_ms, "webhook", f"POST {URL} 200 in 12 ms", details)


async def owe(calls: CallWorld, call_sid: str, *attempts: bytes) -> None:
    flight = calls.flights.cached(call_sid)
    assert flight is not None
    owed = Owed(
        flight=flight.id, sid=call_sid, account=calls.world.owner.sid, kind="status", host="https://example.com",
        attempts=b"[" + b",".join(attempts) + b"]",
    )  # fmt: skip
    await calls.flights.queue.owe([owed])
    await calls.flights.queue.settle(owed)


async def test_events_are_the_requests_with_their_answers(calls: CallWorld) -> None:
    now = calls.world.clock.ms
    leg = await calls.up(timeline=[TimelineEntry(now, "sip", "<- INVITE"), fetched(now + 1000)])
    await owe(
        calls,
        leg.record.sid,
        b'{"url":"https://example.com/s","method":"GET","started_ms":%d,"error_code":11200,"error":"refused"}'
        % (now + 2000),
    )
    reply = await calls.world.get(calls.path(f"/{leg.record.sid}/Events.json"))
    first, second = reply.json["events"]
    assert first == {
        "request": {"method": "POST", "url": URL, "parameters": {"call_sid": "CA1", "call_status": "ringing"}},
        "response": {
            "response_code": 200, "request_duration": 12, "content_type": "text/xml", "response_body": "<Response/>",
            "date_created": "Tue, 14 Nov 2023 22:13:21 +0000", "error_code": None,
        },
    }  # fmt: skip
    assert second["request"] == {"method": "GET", "url": "https://example.com/s", "parameters": {}}
    assert (second["response"]["response_code"], second["response"]["error_code"]) == (None, 11200)
    xml = (await calls.world.get(calls.path(f"/{leg.record.sid}/Events"))).body
    assert b"<CallStatus>ringing</CallStatus>" in xml


async def test_pages_of_events(calls: CallWorld) -> None:
    now = calls.world.clock.ms
    call = await calls.landed(timeline=[fetched(now + at * 1000) for at in range(5)])
    seen: list[Any] = []
    uri: str | None = calls.path(f"/{call.sid}/Events.json?PageSize=2")
    while uri:
        page = (await calls.world.get(uri)).json
        seen += page["events"]
        last, uri = page, page["next_page_uri"]
    dates = [event["response"]["date_created"][-11:] for event in seen]
    assert dates == [f"13:{20 + at} +0000" for at in range(5)]
    back = (await calls.world.get(last["previous_page_uri"])).json["events"]
    assert back == seen[2:4]
    assert (await calls.world.get(calls.path(f"/{call.sid}/Events.json?PageToken=PAx"))).code == 20422


async def test_notifications_of_a_call(calls: CallWorld) -> None:
    call, other = await calls.landed(), await calls.landed()
    alert, elsewhere = await calls.alert(call.sid), await calls.alert(other.sid)
    base = calls.path(f"/{call.sid}/Notifications")
    (listed,) = (await calls.world.get(base + ".json")).json["notifications"]
    assert (listed["sid"], listed["call_sid"], listed["error_code"]) == (alert.sid, call.sid, "11200")
    assert listed["uri"] == f"{base}/{alert.sid}.json"
    whole = (await calls.world.get(listed["uri"])).json
    assert whole == listed | {"request_variables": "a=b", "response_body": "no", "response_headers": "c=d"}
    assert (await calls.world.get(f"{base}/{elsewhere.sid}.json")).code == 20404
    assert (await calls.world.get(base + ".json?Log=1")).json["notifications"] == []
    every = (await calls.world.get(calls.world.path("Notifications.json"))).json["notifications"]
    assert {one["call_sid"] for one in every} == {call.sid, other.sid}


async def test_the_timeline(calls: CallWorld) -> None:
    now = calls.world.clock.ms
    timeline = [TimelineEntry(now + 5, "sip", "<- INVITE", {"from": "192.0.2.1"}), fetched(now + 1000)]
    leg = await calls.up(timeline=timeline, sip_call_id="abc@phone", trunk="acme")
    attempt = b'{"url":"https://example.com/s","method":"POST","started_ms":%d,"status":204,"total_ms":3.2,' % (
        now + 10
    )
    await owe(calls, leg.record.sid, attempt + b'"params":[["CallStatus","ringing"],["From","+1"]]}')
    path = calls.path(f"/{leg.record.sid}/Timeline.json")
    shown = (await calls.world.get(path)).json
    assert [(one["at"], one["kind"]) for one in shown["entries"]] == [
        ("2023-11-14T22:13:20.005Z", "sip"),
        ("2023-11-14T22:13:20.010Z", "webhook"),
        ("2023-11-14T22:13:21.000Z", "webhook"),
    ]
    assert shown["entries"][0] | {} == {
        "at": "2023-11-14T22:13:20.005Z", "kind": "sip", "what": "<- INVITE", "details": {"from": "192.0.2.1"},
    }  # fmt: skip
    assert shown["entries"][1]["what"] == "POST https://example.com/s 204 in 3 ms (status callback)"
    assert shown["entries"][1]["details"] == {"CallStatus": "ringing"}
    assert (shown["status"], shown["sip_call_id"], shown["trunk"], shown["uri"]) == (
        "in-progress", "abc@phone", "acme", path,
    )  # fmt: skip
    landed = await calls.landed()
    after = (await calls.world.get(calls.path(f"/{landed.sid}/Timeline.json"))).json
    assert (after["status"], after["quality"]["lost"], after["quality"]["mos"]) == ("completed", 2, 4.3)
    assert (await calls.world.get(calls.path(f"/CA{'0' * 32}/Timeline.json"))).code == 20404


async def test_a_recording_that_was_finished_after_the_call_is_in_its_timeline(calls: CallWorld) -> None:
    call = await calls.landed()
    row = await calls.recording(call.sid, duration_ms=9000, gaps=[(1000, 40), (5000, 20)])
    await calls.recording(call.sid, status="paused")
    shown = (await calls.world.get(calls.path(f"/{call.sid}/Timeline.json"))).json["entries"]
    (told,) = [one for one in shown if one["kind"] == "recording"]
    assert (told["what"], told["details"]) == (f"completed {row.sid}", {"ms": 9000, "gaps": 2, "missing_ms": 60})


async def test_a_recording_that_was_finished_in_the_call_is_told_once(calls: CallWorld) -> None:
    row = await calls.recording("")
    noted = TimelineEntry(row.updated_ms, "recording", f"completed {row.sid}", {"gaps": 0})
    call = await calls.landed(timeline=[noted])
    row.call_sid = call.sid
    await calls.world.database.update(row)
    shown = (await calls.world.get(calls.path(f"/{call.sid}/Timeline.json"))).json["entries"]
    assert [one["details"] for one in shown if one["kind"] == "recording"] == [{"gaps": 0}]
