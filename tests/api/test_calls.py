"""Calls over the API.

| property | |
|---|---|
| sid, account_sid, parent_call_sid, phone_number_sid, trunk_sid, group_sid | SIDs |
| to, from, to_formatted, from_formatted, forwarded_from, caller_name | who |
| status | queued, ringing, in-progress, completed, busy, failed, no-answer, canceled |
| start_time, end_time, duration, queue_time | RFC 2822; whole seconds and milliseconds as text |
| price, price_unit | what was taken from the account: negative |
| direction, answered_by, annotation, api_version, uri, subresource_uris | |
"""

from typing import Any

import pytest

from tests.api.call_world import OWN, THEIRS, CallWorld
from tests.api.conftest import World
from trunkline.accounts.directory import create_account
from trunkline.model.call import Direction, Status
from trunkline.model.numbers import Alert, Application
from trunkline.model.sid import new_sid

NO_CALL = "CA" + "0" * 32


async def test_a_call_as_it_is_shown(calls: CallWorld) -> None:
    call = await calls.landed(forwarded_from="+14155550177", queue_time_ms=1000)
    uri = calls.path(f"/{call.sid}")
    assert (await calls.world.get(uri + ".json")).json == {
        "account_sid": call.account_sid, "annotation": None, "answered_by": None, "api_version": "2010-04-01",
        "caller_name": None, "date_created": "Tue, 14 Nov 2023 22:13:20 +0000",
        "date_updated": "Tue, 14 Nov 2023 22:13:20 +0000", "direction": "outbound-api", "duration": "61",
        "end_time": "Tue, 14 Nov 2023 22:14:22 +0000", "forwarded_from": "+14155550177", "from": OWN,
        "from_formatted": "(202) 555-0142", "group_sid": None, "parent_call_sid": None, "phone_number_sid": None,
        "price": "-0.01300", "price_unit": "USD", "queue_time": "1000", "sid": call.sid,
        "start_time": "Tue, 14 Nov 2023 22:13:21 +0000", "status": "completed",
        "subresource_uris": {
            name: f"{uri}/{path}.json"
            for name, path in {
                "notifications": "Notifications", "recordings": "Recordings", "payments": "Payments",
                "events": "Events", "siprec": "Siprec", "streams": "Streams", "transcriptions": "Transcriptions",
                "user_defined_message_subscriptions": "UserDefinedMessageSubscriptions",
                "user_defined_messages": "UserDefinedMessages",
            }.items()
        },
        "to": THEIRS, "to_formatted": "(415) 555-0123", "trunk_sid": None, "uri": uri + ".json",
    }  # fmt: skip
    xml = (await calls.world.get(uri)).body
    assert b"<TwilioResponse><Call><AccountSid>" in xml
    assert b"<FromFormatted>(202) 555-0142</FromFormatted>" in xml


@pytest.mark.parametrize(
    ("address", "shown"),
    [(THEIRS, "(415) 555-0123"), ("+442079460000", "+442079460000"), ("sip:ada@example.com", "sip:ada@example.com")],
)
async def test_formatted(calls: CallWorld, address: str, shown: str) -> None:
    call = await calls.landed(to=address)
    assert (await calls.world.get(calls.path(f"/{call.sid}.json"))).json["to_formatted"] == shown


async def test_an_unanswered_call_lasts_nothing_and_costs_nothing(calls: CallWorld) -> None:
    call = await calls.landed(Status.BUSY, price="")
    shown = (await calls.world.get(calls.path(f"/{call.sid}.json"))).json
    assert (shown["duration"], shown["price"], shown["price_unit"]) == ("0", None, "USD")
    free = await calls.landed(price="0", direction=Direction.INBOUND)
    assert (await calls.world.get(calls.path(f"/{free.sid}.json"))).json["price"] == "0.00000"


# -- create ------------------------------------------------------------------------------------------------------


async def test_create(calls: CallWorld) -> None:
    made = await calls.place(To="(415) 555-0123")
    assert (made["status"], made["direction"], made["to"], made["from"]) == ("queued", "outbound-api", THEIRS, OWN)
    assert (made["start_time"], made["end_time"], made["duration"], made["price"]) == (None, None, None, None)
    assert made["phone_number_sid"].startswith("PN")
    (flight,) = calls.line.waiting
    call = flight.call
    assert (call.sid, call.url, call.method, call.timeout_s, call.time_limit_s) == (
        made["sid"], "https://example.com/voice", "POST", 60, 14_400,
    )  # fmt: skip
    assert (await calls.world.get(made["uri"])).json == made


async def test_every_parameter_reaches_the_call(calls: CallWorld) -> None:
    await calls.place(
        Method="get", FallbackUrl="https://example.com/f", FallbackMethod="GET", SendDigits="1w2#W*",
        StatusCallback="https://example.com/s", StatusCallbackMethod="GET",
        StatusCallbackEvent=["completed", "initiated"], Timeout="15", TimeLimit="600", Record="true",
        RecordingChannels="dual", RecordingTrack="inbound", Trim="do-not-trim", CallReason="Your delivery",
        RecordingStatusCallback="https://example.com/r", RecordingStatusCallbackMethod="GET",
        RecordingStatusCallbackEvent="in-progress completed", SipAuthUsername="me", SipAuthPassword="pw",
        CallToken="x", ClientNotificationUrl="https://example.com/", MachineDetectionTimeout="30",
    )  # fmt: skip
    call = calls.line.waiting[0].call
    assert (call.method, call.fallback_url, call.fallback_method) == ("GET", "https://example.com/f", "GET")
    (target,) = call.status_callbacks
    assert (target.url, target.method, target.events) == ("https://example.com/s", "GET", ("initiated", "completed"))
    assert (call.send_digits, call.timeout_s, call.time_limit_s) == ("1w2#W*", 15, 600)
    assert (call.record, call.record_channels, call.record_track, call.record_trim) == (
        True, 2, "inbound", "do-not-trim",
    )  # fmt: skip
    assert call.recording_status_callback == "https://example.com/r"
    assert (call.recording_status_callback_method, call.recording_status_callback_events) == (
        "GET", ("in-progress", "completed"),
    )  # fmt: skip
    assert (call.sip_auth_username, call.call_reason) == ("me", "Your delivery")
    assert call.sip_auth_password not in ("", "pw"), "it is sealed"
    assert call.answered_by == ""


async def test_a_document_in_the_request(calls: CallWorld) -> None:
    await calls.place(Url="", Twiml="<Response><Say>Hi</Say></Response>")
    assert calls.line.waiting[0].call.twiml == "<Response><Say>Hi</Say></Response>"
    await calls.place(Twiml="<Response/>")
    assert calls.line.waiting[1].call.twiml == "", "the URL goes first"


async def test_an_application_overrides_urls(calls: CallWorld) -> None:
    application = Application(
        sid=new_sid("AP"), account_sid=calls.world.owner.sid, voice_url="https://app.example/v", voice_method="GET",
        voice_fallback_url="https://app.example/f", status_callback="https://app.example/s",
    )  # fmt: skip
    await calls.world.database.insert(application)
    await calls.place(ApplicationSid=application.sid, StatusCallback="https://example.com/s")
    call = calls.line.waiting[0].call
    assert (call.url, call.method, call.fallback_url) == ("https://app.example/v", "GET", "https://app.example/f")
    assert [target.url for target in call.status_callbacks] == ["https://app.example/s"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"To": ""}, 21201),
        ({"From": ""}, 21213),
        ({"Url": ""}, 21205),
        ({"Url": "example.com"}, 21205),
        ({"FallbackUrl": "ftp://example.com"}, 21205),
        ({"Method": "PUT"}, 21209),
        ({"StatusCallbackMethod": "PUT"}, 21209),
        ({"StatusCallback": "nowhere"}, 21609),
        ({"StatusCallback": "https://my_host.example/"}, 21609),
        ({"RecordingStatusCallback": "nowhere"}, 21609),
        ({"StatusCallbackEvent": "answered,hung-up"}, 21626),
        ({"RecordingStatusCallbackEvent": "failed"}, 21626),
        ({"SendDigits": "12x"}, 21206),
        ({"SendDigits": "1" * 33}, 21206),
        ({"Timeout": "0"}, 21208),
        ({"Timeout": "601"}, 21208),
        ({"TimeLimit": "-1"}, 20422),
        ({"RecordingChannels": "stereo"}, 20422),
        ({"RecordingTrack": "left"}, 20422),
        ({"Trim": "yes"}, 20422),
        ({"Record": "perhaps"}, 20422),
        ({"MachineDetection": "Perhaps"}, 21234),
        ({"MachineDetectionSpeechThreshold": "1"}, 21234),
        ({"ApplicationSid": "AP" + "0" * 32}, 21218),
        ({"To": "12"}, 21211),
        ({"To": "sip:"}, 21211),
        ({"To": "client:ada"}, 21214),
        ({"From": "+14155550199"}, 21210),
        ({"From": "Ada"}, 21212),
        ({"SipAuthUsername": "me"}, 21225),
        ({"Url": "", "Twiml": "<Response>" + "x" * 4000}, 32018),
        ({"Byoc": "BY" + "0" * 32}, None),
    ],
)
async def test_what_cannot_be_called(calls: CallWorld, change: dict[str, str], code: int | None) -> None:
    form = {"To": THEIRS, "From": OWN, "Url": "https://example.com/voice"} | change
    reply = await calls.world.post(calls.path(".json"), form)
    assert (reply.status, reply.code) == (501 if code is None else 400, code)
    assert calls.line.waiting == []


async def test_error_texts_are_twilios(calls: CallWorld) -> None:
    async def text(**change: str) -> str:
        form = {"To": THEIRS, "From": OWN, "Url": "https://example.com/voice"} | change
        return str((await calls.world.post(calls.path(".json"), form)).json["message"])

    assert await text(To="") == "No 'To' number is specified"
    assert await text(From="") == "No 'From' number is specified"
    assert await text(Url="") == "Url parameter is required."
    assert "is not yet verified for your account" in await text(From="+14155550199")


async def test_machine_detection_is_not_there_and_an_alert_says_so(calls: CallWorld) -> None:
    made = await calls.place(MachineDetection="Enable")
    await calls.world.services.alerts.close()
    (alert,) = await calls.world.database.find(Alert, {"resource_sid": made["sid"]})
    assert "MachineDetection" in alert.alert_text
    await calls.place(MachineDetection="Enable", SendDigits="1")
    await calls.world.services.alerts.close()
    assert len(await calls.world.database.find(Alert)) == 1, "with SendDigits it is ignored, as at Twilio"


async def test_the_same_key_calls_once(calls: CallWorld) -> None:
    form = {"To": THEIRS, "From": OWN, "Url": "https://example.com/voice"}
    first, again = [
        await calls.world.post(calls.path(".json"), form, headers={"Idempotency-Key": "once"}) for _ in range(2)
    ]
    assert calls.line.waiting[0].call.token == "once"
    assert (again.body, again.headers["idempotency-replayed"]) == (first.body, "true")
    other = await calls.world.post(calls.path(".json"), form | {"To": OWN}, headers={"Idempotency-Key": "once"})
    assert other.status == 422
    refused = await calls.world.post(calls.path(".json"), form | {"To": ""}, headers={"Idempotency-Key": "new"})
    assert refused.status == 400
    taken = await calls.world.post(calls.path(".json"), form, headers={"Idempotency-Key": "new"})
    assert (taken.status, len(calls.line.waiting)) == (201, 2)


@pytest.mark.parametrize(
    ("from_", "to", "code"),
    [
        ("+15005550006", THEIRS, 0),
        ("+15005550001", THEIRS, 21212),
        (OWN, THEIRS, 21210),
        ("+15005550006", "+15005550001", 21217),
        ("+15005550006", "+15005550002", 21214),
        ("+15005550006", "+15005550003", 21215),
        ("+15005550006", "+15005550004", 21216),
    ],
)
async def test_test_credentials(calls: CallWorld, from_: str, to: str, code: int) -> None:
    login = calls.world.test_login
    form = {"To": to, "From": from_, "Url": "https://example.com/voice"}
    reply = await calls.world.post(calls.path(".json", login[0]), form, auth=login)
    if code:
        assert (reply.status, reply.code) == (400, code)
    else:
        assert (reply.status, reply.json["status"]) == (201, "queued")
    assert calls.line.waiting == []
    assert (await calls.world.get(calls.path(".json", login[0]), auth=login)).code == 20008


# -- read --------------------------------------------------------------------------------------------------------


async def test_what_is_not_there(calls: CallWorld) -> None:
    call = await calls.landed()
    for sid in (NO_CALL, "CA12", "RE" + call.sid[2:]):
        for method in ("GET", "POST", "DELETE"):
            assert (await calls.world.call(method, calls.path(f"/{sid}.json"))).code == 20404
    stranger = await create_account(calls.world.database, calls.world.clock, "Stranger")
    path = calls.path(f"/{call.sid}.json", stranger.sid)
    assert (await calls.world.get(path, auth=(stranger.sid, stranger.auth_token))).code == 20404


async def test_lists(calls: CallWorld) -> None:
    day = 86_400_000
    first = await calls.landed()
    calls.world.clock.ms += day
    second = await calls.landed(Status.BUSY, to="+14155550199", direction=Direction.OUTBOUND_DIAL, parent_sid=first.sid)
    calls.world.clock.ms += day
    third = (await calls.place())["sid"]

    async def listed(query: str) -> list[str]:
        reply = await calls.world.get(calls.path(f".json?{query}"))
        assert reply.status == 200, reply.body
        return [one["sid"] for one in reply.json["calls"]]

    assert await listed("") == [third, second.sid, first.sid]
    assert await listed("To=%2B14155550199") == [second.sid]
    assert await listed("From=2025550142&Status=completed") == [first.sid]
    assert await listed("Status=queued") == [third]
    assert await listed("Status=busy") == [second.sid]
    assert await listed(f"ParentCallSid={first.sid}") == [second.sid]
    assert await listed("ParentCallSid=nonsense") == []
    assert await listed("StartTime=2023-11-14") == [first.sid]
    assert await listed("StartTime%3E=2023-11-15") == [second.sid]
    assert await listed("StartTime%3C=2023-11-15") == [first.sid]
    assert await listed("EndTime%3E=2023-11-15") == [second.sid]
    assert await listed("EndTime=2023-11-14") == [first.sid]
    assert (await calls.world.get(calls.path(".json?Status=initiated"))).code == 20422
    assert (await calls.world.get(calls.path(".json?StartTime=soon"))).code == 20422


async def test_pages(calls: CallWorld) -> None:
    made = []
    for _ in range(5):
        calls.world.clock.ms += 1000
        made.append((await calls.landed()).sid)
    seen: list[str] = []
    uri: str | None = calls.path(".json?PageSize=2&Status=completed")
    while uri:
        page = (await calls.world.get(uri)).json
        seen += [one["sid"] for one in page["calls"]]
        last, uri = page, page["next_page_uri"]
    assert seen == made[::-1]
    back = (await calls.world.get(last["previous_page_uri"])).json
    assert [one["sid"] for one in back["calls"]] == [made[2], made[1]]
    assert [key for key, value in back.items() if isinstance(value, list)] == ["calls"]


# -- change ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"Url": "https://example.com/next", "Method": "GET"}, [("GET", "https://example.com/next")]),
        ({"Twiml": "<Response/>"}, [("POST", "<Response/>")]),
        ({"Status": "completed"}, ["api"]),
        ({"TimeLimit": "60"}, [60]),
    ],
)
async def test_updates_reach_the_live_call(calls: CallWorld, form: dict[str, str], told: list[Any]) -> None:
    leg = await calls.up()
    reply = await calls.world.post(calls.path(f"/{leg.record.sid}.json"), form)
    assert (reply.status, reply.json["sid"]) == (200, leg.record.sid)
    assert leg.told == told
    assert reply.json["status"] == ("completed" if "Status" in form else "in-progress")


async def test_an_end_that_takes_long_is_not_waited_for(calls: CallWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.api.calls.END_WAIT_S", 0.05)
    leg = await calls.up()
    monkeypatch.setattr(leg, "hangup", lambda why, **options: leg.told.append(why))
    reply = await calls.world.post(calls.path(f"/{leg.record.sid}.json"), {"Status": "completed"})
    assert (leg.told, reply.status, reply.json["status"]) == (["api"], 200, "in-progress")


async def test_what_an_update_only_keeps(calls: CallWorld) -> None:
    leg = await calls.up()
    form = {"FallbackUrl": "https://example.com/f", "StatusCallback": "https://example.com/s"}
    assert (await calls.world.post(calls.path(f"/{leg.record.sid}.json"), form)).status == 200
    assert leg.record.fallback_url == "https://example.com/f"
    assert leg.record.status_callbacks[0].url == "https://example.com/s"


async def test_cancel(calls: CallWorld) -> None:
    queued = (await calls.place())["sid"]
    reply = await calls.world.post(calls.path(f"/{queued}.json"), {"Status": "canceled"})
    assert reply.json["status"] == "canceled"
    leg = await calls.up()
    refused = await calls.world.post(calls.path(f"/{leg.record.sid}.json"), {"Status": "canceled"})
    assert (refused.status, refused.code) == (400, 21220)


@pytest.mark.parametrize(
    "form", [{"Url": "https://example.com/"}, {"Twiml": "<Response/>"}, {"Status": "completed"}, {"TimeLimit": "9"}]
)
async def test_a_call_that_has_ended_cannot_be_changed(calls: CallWorld, form: dict[str, str]) -> None:
    call = await calls.landed()
    reply = await calls.world.post(calls.path(f"/{call.sid}.json"), form)
    assert (reply.status, reply.code) == (400, 21220)
    if "Url" in form:
        assert reply.json["message"] == "Call is not in-progress. Cannot redirect."


@pytest.mark.parametrize(
    ("form", "code"),
    [({"Status": "busy"}, 20422), ({"Url": "x"}, 21205), ({"Method": "PUT"}, 21209), ({"StatusCallback": "x"}, 21609)],
)
async def test_updates_that_cannot_be_taken(calls: CallWorld, form: dict[str, str], code: int) -> None:
    leg = await calls.up()
    assert (await calls.world.post(calls.path(f"/{leg.record.sid}.json"), form)).code == code
    assert leg.told == []


async def test_delete(calls: CallWorld) -> None:
    call = await calls.landed()
    alert = await calls.alert(call.sid)
    assert (await calls.world.call("DELETE", calls.path(f"/{call.sid}.json"))).status == 204
    kept = await calls.world.database.get(Alert, alert.sid)
    assert kept is not None
    assert (kept.request_variables, kept.response_body) == ("", "")
    assert calls.world.services.privacy.due(0)
    assert (await calls.world.get(calls.path(f"/{call.sid}.json"))).code == 20404
    assert (await calls.world.get(calls.path(".json"))).json["calls"] == []
    leg = await calls.up()
    refused = await calls.world.call("DELETE", calls.path(f"/{leg.record.sid}.json"))
    assert (refused.status, refused.code) == (409, 20009)


# -- without voice, and beside it --------------------------------------------------------------------------------


async def test_a_server_without_voice_says_so(world: World) -> None:
    form = {"To": THEIRS, "From": OWN, "Url": "https://example.com/voice"}
    for reply in (
        await world.post(world.path("Calls.json"), form),
        await world.get(world.path("Calls.json")),
        await world.get(world.path(f"Calls/{NO_CALL}.json")),
        await world.call("DELETE", world.path(f"Calls/{NO_CALL}.json")),
        await world.get(world.path("Recordings.json")),
        await world.get(world.path(f"Recordings/RE{'0' * 32}.json")),
    ):
        assert (reply.status, reply.code) == (501, None)
        assert "Voice is not enabled" in reply.json["message"]


@pytest.mark.parametrize(
    "path",
    ["Streams", "Siprec", "Transcriptions", "Payments", "UserDefinedMessages", "UserDefinedMessageSubscriptions"],
)
async def test_what_calls_lack_here_is_said_to_be_lacking(calls: CallWorld, path: str) -> None:
    leg = await calls.up()
    reply = await calls.world.post(calls.path(f"/{leg.record.sid}/{path}.json"))
    assert (reply.status, reply.code) == (501, None)
    assert "does not offer it" in reply.json["message"]
