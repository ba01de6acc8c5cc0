"""Messages with every SDK: create, list, page, fetch, redact, cancel, delete."""

import datetime as dt
import time
from typing import Any

import pytest

from tests.conformance.sdk import Record, Sdk, SdkError
from tests.conformance.site import Tenant

PHONE = "+12125550100"
FIELDS = {
    "account_sid", "api_version", "body", "date_created", "date_sent", "date_updated", "direction", "error_code",
    "error_message", "from", "messaging_service_sid", "num_media", "num_segments", "price", "price_unit", "sid",
    "status", "subresource_uris", "to", "uri",
}  # fmt: skip
SETTLE_S = 60.0


def settled(sdk: Sdk, sid: str, status: str = "delivered") -> Record:
    """The message once it has this status."""
    until = time.monotonic() + SETTLE_S
    while (message := sdk.messages(sid).fetch())["status"] != status:
        assert time.monotonic() < until, message
        time.sleep(0.02)
    return message


def send(sdk: Sdk, tenant: Tenant, **options: Any) -> Record:
    return sdk.messages.create(**{"to": PHONE, "from_": tenant.numbers[0], "body": "Hello", **options})


def test_create_fetch_and_delivery(sdk: Sdk, tenant: Tenant) -> None:
    made = send(sdk, tenant, body="Grüße €")
    assert set(made) >= FIELDS
    assert (made.sid[:2], made.status, made.direction, made.body) == ("SM", "queued", "outbound-api", "Grüße €")
    assert (made.account_sid, made.to, made.from_) == (tenant.sid, PHONE, tenant.numbers[0])
    assert (made.num_segments, made.num_media, made.error_code, made.price) == ("1", "0", None, None)
    assert made.date_sent is None
    found = settled(sdk, made.sid)
    assert found.date_sent >= found.date_created
    assert (found.price, found.price_unit) == ("-0.00750", "USD")
    assert found.subresource_uris["media"] == f"/2010-04-01/Accounts/{tenant.sid}/Messages/{made.sid}/Media.json"


def test_sender_may_be_short_code_or_alphanumeric(sdk: Sdk, tenant: Tenant) -> None:
    assert send(sdk, tenant, from_=tenant.short_code).from_ == tenant.short_code
    assert send(sdk, tenant, from_="Acme Shop").from_ == "Acme Shop"


def test_failure_shows_its_code(sdk: Sdk, tenant: Tenant) -> None:
    made = send(sdk, tenant, to="+15559930003")
    found = settled(sdk, made.sid, "undelivered")
    assert found.error_code == 30003
    assert found.error_message


def test_list_filters(sdk: Sdk, tenant: Tenant) -> None:
    other = "+12125550101"
    one, two = send(sdk, tenant), send(sdk, tenant, to=other, from_=tenant.numbers[1])
    sent = [settled(sdk, message.sid) for message in (one, two)]
    assert [m.sid for m in sdk.messages.list()] == [two.sid, one.sid]
    assert [m.sid for m in sdk.messages.list(to=other)] == [two.sid]
    assert [m.sid for m in sdk.messages.list(from_=tenant.numbers[0])] == [one.sid]
    assert [m.sid for m in sdk.messages.list(to=PHONE, from_=tenant.numbers[1])] == []
    moments = [dt.datetime.fromisoformat(message.date_sent) for message in sent]
    today = moments[0].replace(hour=0, minute=0, second=0)
    day = dt.timedelta(days=1)
    of_today = {message.sid for message, moment in zip(sent, moments, strict=True) if moment.date() == today.date()}
    of_second = {message.sid for message, moment in zip(sent, moments, strict=True) if moment == moments[0]}
    assert {m.sid for m in sdk.messages.list(date_sent=today)} == of_today
    assert {m.sid for m in sdk.messages.list(date_sent=moments[0])} == of_second
    assert sdk.messages.list(date_sent=today - day) == []
    assert len(sdk.messages.list(date_sent_after=today - day)) == 2
    assert sdk.messages.list(date_sent_after=today + 2 * day) == []
    assert len(sdk.messages.list(date_sent_before=today + 2 * day)) == 2
    assert sdk.messages.list(date_sent_before=today - day) == []


def test_list_page_by_page(sdk: Sdk, tenant: Tenant) -> None:
    sids = [send(sdk, tenant, body=f"No {number}").sid for number in range(5)][::-1]
    assert [[m.sid for m in page] for page in sdk.messages.pages(page_size=2)] == [sids[:2], sids[2:4], sids[4:]]
    assert [m.sid for m in sdk.messages.stream(page_size=2)] == sids
    assert [m.sid for m in sdk.messages.stream(page_size=2, limit=3)] == sids[:3]
    assert [m.sid for m in sdk.messages.list(limit=4, page_size=3)] == sids[:4]


def test_list_of_nothing(sdk: Sdk) -> None:
    assert sdk.messages.list() == []
    assert sdk.messages.pages(page_size=2) == [[]]


def test_redact(sdk: Sdk, tenant: Tenant) -> None:
    made = send(sdk, tenant, body="secret")
    settled(sdk, made.sid)
    assert sdk.messages(made.sid).update(body="").body == ""
    assert sdk.messages(made.sid).fetch().body == ""
    assert [m.body for m in sdk.messages.list()] == [""]


def test_delete(sdk: Sdk, tenant: Tenant) -> None:
    made = send(sdk, tenant)
    settled(sdk, made.sid)
    assert sdk.messages(made.sid).delete() is True
    with pytest.raises(SdkError) as error:
        sdk.messages(made.sid).fetch()
    assert (error.value.status, error.value.code) == (404, 20404)
    assert sdk.messages.list() == []


def test_schedule_and_cancel(sdk: Sdk, tenant: Tenant) -> None:
    service = sdk.messaging.v1.services.create(friendly_name="Reminders")
    number = sdk.incoming_phone_numbers.list(phone_number=tenant.numbers[0])[0]
    sdk.messaging.v1.services(service.sid).phone_numbers.create(phone_number_sid=number.sid)
    at = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    made = sdk.messages.create(
        to=PHONE, body="Later", messaging_service_sid=service.sid, schedule_type="fixed", send_at=at
    )
    assert (made.status, made.from_, made.messaging_service_sid) == ("scheduled", None, service.sid)
    assert [m.status for m in sdk.messages.list(to=PHONE)] == ["scheduled"]
    assert sdk.messages(made.sid).update(status="canceled").status == "canceled"
    assert sdk.messages(made.sid).fetch().status == "canceled"
    assert [m.status for m in sdk.messages.list(to=PHONE)] == ["canceled"]
