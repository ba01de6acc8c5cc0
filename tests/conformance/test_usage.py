"""Balance, usage records and usage triggers with every SDK."""

import datetime as dt
from decimal import Decimal

import pytest

from tests.conformance.sdk import Sdk, SdkError
from tests.conformance.site import CREDIT, MESSAGE_PRICE, NUMBER_PRICE, Tenant
from tests.conformance.test_messages import settled

PHONE = "+12125550130"


def spend(sdk: Sdk, tenant: Tenant, count: int, today: dt.date) -> None:
    """Send messages and wait until they are counted: they have landed. Sums are remembered, each span's apart."""
    made = [sdk.messages.create(to=PHONE, from_=tenant.numbers[0], body="Paid " * 40) for _ in range(count)]
    for message in made:
        settled(sdk, message.sid)
    for days in range(1, 1000):
        asked = {"category": "sms-outbound", "start_date": today - dt.timedelta(days=days), "end_date": today}
        if int(sdk.usage.records.list(**asked)[0].count) == count:
            return
    raise AssertionError("the messages are not counted")


def test_balance(sdk: Sdk, tenant: Tenant) -> None:
    found = sdk.api.v2010.accounts(tenant.sid).balance.fetch()
    after_rent = CREDIT - 2 * NUMBER_PRICE
    assert (Decimal(found.balance), found.currency, found.account_sid) == (after_rent, "USD", tenant.sid)


def test_records(sdk: Sdk, tenant: Tenant) -> None:
    today = dt.datetime.now(dt.UTC).date()
    spend(sdk, tenant, 2, today)
    found = {one.category: one for one in sdk.usage.records.today.list()}
    outbound = found["sms-outbound"]
    assert (outbound.count, outbound.usage, outbound.usage_unit) == ("2", "4", "messages")
    assert (Decimal(str(outbound.price)), outbound.price_unit) == (4 * MESSAGE_PRICE, "usd")
    assert {outbound.start_date[:10], outbound.end_date[:10]} == {today.isoformat()}
    assert {"sms", "totalprice"} <= set(found)
    only = sdk.usage.records.list(category="sms-outbound", start_date=today, end_date=today)
    assert [(one.category, one.count) for one in only] == [("sms-outbound", "2")]
    for name in ("all_time", "daily", "monthly", "yearly", "this_month"):
        records = getattr(sdk.usage.records, name).list(category="sms-outbound")
        assert sum(int(one.count) for one in records) == 2, name
    for name in ("yesterday", "last_month"):
        records = getattr(sdk.usage.records, name).list(category="sms-outbound")
        assert sum(int(one.count) for one in records) == 0, name


def test_triggers(sdk: Sdk) -> None:
    made = sdk.usage.triggers.create(
        callback_url="https://example.com/usage", trigger_value="+1000", usage_category="sms", friendly_name="Much"
    )
    assert made.sid.startswith("UT")
    assert (made.usage_category, made.trigger_by, made.friendly_name) == ("sms", "usage", "Much")
    assert [one.sid for one in sdk.usage.triggers.list(usage_category="sms")] == [made.sid]
    assert sdk.usage.triggers.list(usage_category="totalprice") == []
    assert sdk.usage.triggers(made.sid).update(friendly_name="More").friendly_name == "More"
    assert sdk.usage.triggers(made.sid).fetch().friendly_name == "More"
    assert sdk.usage.triggers(made.sid).delete() is True
    with pytest.raises(SdkError) as error:
        sdk.usage.triggers(made.sid).fetch()
    assert error.value.code == 20404
