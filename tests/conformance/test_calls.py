"""Calls with every SDK, to and from simulated phones: create, list, fetch, update, record, delete; usage."""

import datetime as dt
import io
import itertools
import time
import wave
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.air import Air
from tests.conformance.sdk import Record, Sdk, SdkError
from tests.conformance.site import Site, Tenant
from trunkline.testing.phones.client import RemotePhone

WAIT_S = 60.0
MINUTE_PRICE = "0.02000"
FIELDS = {
    "account_sid", "answered_by", "api_version", "caller_name", "date_created", "date_updated", "direction", "duration",
    "end_time", "forwarded_from", "from", "from_formatted", "group_sid", "parent_call_sid", "phone_number_sid", "price",
    "price_unit", "queue_time", "sid", "start_time", "status", "subresource_uris", "to", "to_formatted", "trunk_sid",
    "uri",
}  # fmt: skip
LONG = "<Response><Pause length='1'/><Say>Hold the line, please.</Say><Pause length='60'/></Response>"
SHORT = "<Response><Say>Goodbye.</Say></Response>"
_numbers = (f"+1212555{number:04d}" for number in itertools.count(2000))


def eventually(ask: Callable[[], Any], good: Callable[[Any], Any]) -> Any:
    """The answer, once it is as wanted."""
    until = time.monotonic() + WAIT_S
    while not good(found := ask()):
        assert time.monotonic() < until, found
        time.sleep(0.05)
    return found


def reaches(sdk: Sdk, sid: str, status: str) -> Record:
    found: Record = eventually(sdk.calls(sid).fetch, lambda call: call.status == status)
    return found


@pytest.fixture
def phone(air: Air) -> RemotePhone:
    """A phone that answers."""
    phone = air.phone(next(_numbers))
    phone.picks_up()
    return phone


def place(sdk: Sdk, tenant: Tenant, phone: RemotePhone, **options: Any) -> Record:
    asked = {"to": phone.number, "from_": tenant.numbers[0], "twiml": LONG, **options}
    made: Record = sdk.calls.create(**asked)
    return made


def test_a_call_from_its_making_to_its_end(sdk: Sdk, tenant: Tenant, phone: RemotePhone) -> None:
    made = place(sdk, tenant, phone, twiml=SHORT)
    assert set(made) >= FIELDS
    assert (made.sid[:2], made.status, made.direction) == ("CA", "queued", "outbound-api")
    assert (made.account_sid, made.to, made.from_) == (tenant.sid, phone.number, tenant.numbers[0])
    assert made.to_formatted == f"(212) {phone.number[5:8]}-{phone.number[8:]}"
    assert (made.start_time, made.end_time, made.duration, made.price) == (None, None, None, None)
    ended = reaches(sdk, made.sid, "completed")
    assert int(ended.duration) >= 1
    assert ended.date_created <= ended.start_time <= ended.end_time
    assert (ended.price, ended.price_unit, ended.answered_by) == (f"-{MINUTE_PRICE}", "USD", None)
    assert ended.subresource_uris["recordings"] == f"/2010-04-01/Accounts/{tenant.sid}/Calls/{made.sid}/Recordings.json"


@pytest.mark.parametrize(("does", "status"), [("is_busy", "busy"), ("declines", "busy"), ("off", "no-answer")])
def test_calls_that_nobody_takes(sdk: Sdk, tenant: Tenant, phone: RemotePhone, does: str, status: str) -> None:
    getattr(phone, does)()
    ended = reaches(sdk, place(sdk, tenant, phone).sid, status)
    assert (ended.duration, ended.price) == ("0", None)


@pytest.mark.parametrize("sdk_name", ["python"], indirect=True)  # it takes six seconds
def test_a_phone_that_rings_too_long(sdk: Sdk, tenant: Tenant, phone: RemotePhone) -> None:
    phone.never_answers()
    made = place(sdk, tenant, phone, timeout=1)
    reaches(sdk, made.sid, "ringing")
    reaches(sdk, made.sid, "no-answer")


def test_cancel(sdk: Sdk, tenant: Tenant, phone: RemotePhone) -> None:
    phone.never_answers()
    made = place(sdk, tenant, phone)
    reaches(sdk, made.sid, "ringing")
    assert sdk.calls(made.sid).update(status="canceled").status == "canceled"
    with pytest.raises(SdkError) as error:
        sdk.calls(made.sid).update(status="completed")
    assert (error.value.status, error.value.code) == (400, 21220)


def test_redirect_and_hang_up(sdk: Sdk, tenant: Tenant, phone: RemotePhone) -> None:
    made = place(sdk, tenant, phone)
    call = phone.answers()
    call.hears("Hold the line, please.")
    changed = sdk.calls(made.sid).update(twiml="<Response><Say>Something else.</Say><Pause length='60'/></Response>")
    assert changed.status == "in-progress"
    call.hears("Something else.")
    assert sdk.calls(made.sid).update(status="completed").status == "completed"
    assert call.ended().state == "ended"
    with pytest.raises(SdkError) as error:
        sdk.calls(made.sid).update(url="https://example.com/")
    assert (error.value.code, error.value.message) == (21220, "Call is not in-progress. Cannot redirect.")


def test_lists(sdk: Sdk, tenant: Tenant, phone: RemotePhone) -> None:
    phone.is_busy()
    sids = [place(sdk, tenant, phone).sid for _ in range(3)]
    for sid in sids:
        reaches(sdk, sid, "busy")
    newest = sids[::-1]
    assert [one.sid for one in sdk.calls.list()] == newest
    assert [[one.sid for one in page] for page in sdk.calls.pages(page_size=2)] == [newest[:2], newest[2:]]
    assert [one.sid for one in sdk.calls.list(to=phone.number, status="busy", limit=1)] == newest[:1]
    assert sdk.calls.list(status="completed") == []
    assert sdk.calls.list(from_=tenant.numbers[1]) == []
    today, day = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
    assert len(sdk.calls.list(start_time_after=today - day, end_time_before=today + day)) == 3
    assert sdk.calls.list(start_time_after=today + day) == []
    assert sdk.calls.list(end_time=today - day) == []


def test_a_call_comes_in(sdk: Sdk, tenant: Tenant, site: Site, air: Air) -> None:
    (site.files / "hello.xml").write_text("<Response><Say>Hello from the file.</Say><Hangup/></Response>")
    number = sdk.incoming_phone_numbers.list(phone_number=tenant.numbers[0])[0]
    sdk.incoming_phone_numbers(number.sid).update(voice_url=f"{site.files_url}/hello.xml", voice_method="GET")
    caller = air.phone(next(_numbers))
    call = caller.dials(tenant.numbers[0])
    call.hears("Hello from the file.")
    assert call.ended().state == "ended"
    (found,) = eventually(sdk.calls.list, lambda calls: calls and calls[0].status == "completed")
    assert (found.direction, found.from_, found.to) == ("inbound", caller.number, tenant.numbers[0])
    assert found.phone_number_sid == number.sid
    (event,) = sdk.calls(found.sid).events.list()
    assert (event.request["method"], event.response["response_code"]) == ("GET", 200)


def test_recordings(sdk: Sdk, tenant: Tenant, air: Air, phone: RemotePhone) -> None:
    made = place(sdk, tenant, phone)
    call = phone.answers()
    call.hears("Hold the line, please.")
    recordings = sdk.calls(made.sid).recordings
    recording = recordings.create(recording_channels="dual", trim="do-not-trim")
    assert (recording.status, recording.source, recording.channels) == ("in-progress", "StartCallRecordingAPI", 2)
    call.says("This is for the record.")
    assert sdk.calls(made.sid).recordings("Twilio.CURRENT").update(status="paused").status == "paused"
    assert sdk.calls(made.sid).recordings("Twilio.CURRENT").update(status="in-progress").status == "in-progress"
    assert sdk.calls(made.sid).recordings(recording.sid).update(status="stopped").status == "stopped"
    call.hangs_up()
    whole = eventually(sdk.recordings(recording.sid).fetch, lambda one: one.status == "completed")
    assert int(whole.duration) >= 1
    assert [one.sid for one in sdk.recordings.list(call_sid=made.sid)] == [recording.sid]
    assert [one.sid for one in recordings.list()] == [recording.sid]
    base = f"/2010-04-01/Accounts/{tenant.sid}/Recordings/{recording.sid}"
    for query, channels in (("", 2), (".wav", 2), (".wav?RequestedChannels=1", 1)):
        kind, octets = air.download(base + query, tenant.login)
        with wave.open(io.BytesIO(octets)) as audio:
            assert (kind, audio.getnchannels(), audio.getframerate()) == ("audio/x-wav", channels, 8000)
            assert audio.getnframes() > 2000
    kind, octets = air.download(base + ".mp3", tenant.login)
    assert (kind, len(octets) > 1000) == ("audio/mpeg", True)
    assert sdk.recordings(recording.sid).delete() is True
    assert sdk.recordings.list() == []


def test_delete(sdk: Sdk, tenant: Tenant, phone: RemotePhone) -> None:
    phone.is_busy()
    sid = place(sdk, tenant, phone).sid
    reaches(sdk, sid, "busy")
    assert sdk.calls(sid).delete() is True
    with pytest.raises(SdkError) as error:
        sdk.calls(sid).fetch()
    assert (error.value.status, error.value.code) == (404, 20404)


def test_errors(sdk: Sdk, tenant: Tenant, phone: RemotePhone) -> None:
    for change, code in (
        ({"from_": "+14155550100"}, 21210), ({"to": "nobody"}, 21211), ({"to": ""}, 21201), ({"twiml": ""}, 21205),
    ):  # fmt: skip
        with pytest.raises(SdkError) as error:
            place(sdk, tenant, phone, **change)
        assert (error.value.status, error.value.code) == (400, code)


def test_the_magic_numbers_of_test_credentials(sdk: Sdk, tenant: Tenant) -> None:
    testing = sdk.as_(tenant.test_login)
    asked = {"to": "+14155550123", "from_": "+15005550006", "twiml": SHORT}
    assert testing.calls.create(**asked).status == "queued"
    for to, code in (("+15005550001", 21217), ("+15005550003", 21215), ("+15005550004", 21216)):
        with pytest.raises(SdkError) as error:
            testing.calls.create(**asked | {"to": to})
        assert error.value.code == code


def test_usage(sdk: Sdk, tenant: Tenant, phone: RemotePhone) -> None:
    reaches(sdk, place(sdk, tenant, phone, twiml=SHORT).sid, "completed")
    today = dt.datetime.now(dt.UTC).date()
    for days in range(1, 1000):  # sums are remembered, each span's apart
        asked = {"category": "calls-outbound", "start_date": today - dt.timedelta(days=days), "end_date": today}
        (found,) = sdk.usage.records.list(**asked)
        if found.count == "1":
            break
    assert (found.count, found.usage, found.usage_unit) == ("1", "1", "minutes")
    assert float(found.price) == float(MINUTE_PRICE)
