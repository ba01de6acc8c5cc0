"""The official SDK over the application: accounts, keys, numbers, applications and usage."""

from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from twilio.base.exceptions import TwilioRestException
from twilio.http import AsyncHttpClient
from twilio.http.response import Response
from twilio.rest import Client

from tests.api.conftest import World


class InProcess(AsyncHttpClient):  # type: ignore[misc]
    """Hands the SDK's requests to the application."""

    def __init__(self, world: World) -> None:
        super().__init__(None, True, None)
        self.world = world

    async def request(self, method: str, url: str, params: Any = None, data: Any = None, **options: Any) -> Response:
        parts = urlsplit(url)
        query = "&".join(filter(None, [parts.query, urlencode(params or {}, doseq=True)]))
        path = parts.path + ("?" + query if query else "")
        body = urlencode(data or {}, doseq=True).encode()
        reply = await self.world.call(method, path, body=body, host=parts.netloc, auth=options["auth"])
        return Response(reply.status, reply.body.decode(), reply.headers)


@pytest.fixture
def client(world: World) -> Any:
    return Client(world.owner.sid, world.owner.auth_token, http_client=InProcess(world))


async def test_accounts_and_keys(world: World, client: Any) -> None:
    child = await client.api.v2010.accounts.create_async(friendly_name="Child")
    assert {one.sid for one in await client.api.v2010.accounts.list_async()} == {world.owner.sid, child.sid}
    key = await client.new_keys.create_async(friendly_name="CI")
    assert key.secret
    assert [one.sid for one in await client.signing_keys.list_async()] == [key.sid]
    assert await client.keys(key.sid).delete_async()
    closed = await client.api.v2010.accounts(child.sid).update_async(status="closed")
    assert closed.status == "closed"


async def test_numbers_from_the_search_to_the_release(world: World, client: Any) -> None:
    for last in range(3):
        await world.stock(f"+1415555010{last}", mms_enabled=True)
    countries = await client.available_phone_numbers.list_async()
    assert [one.country_code for one in countries] == ["US"]
    offered = await client.available_phone_numbers("US").local.list_async(area_code=415, sms_enabled=True, limit=2)
    assert [one.phone_number for one in offered] == ["+14155550100", "+14155550101"]
    application = await client.applications.create_async(friendly_name="Bot", sms_url="https://example.com/")
    bought = await client.incoming_phone_numbers.create_async(
        phone_number=offered[0].phone_number, sms_application_sid=application.sid
    )
    assert bought.capabilities["mms"] is True
    listed = await client.incoming_phone_numbers.local.list_async(phone_number="+1415")
    assert [one.sms_application_sid for one in listed] == [application.sid]
    with pytest.raises(TwilioRestException) as refused:
        await client.incoming_phone_numbers.create_async(phone_number=offered[0].phone_number)
    assert (refused.value.status, refused.value.code) == (400, 21422)
    assert await client.incoming_phone_numbers(bought.sid).delete_async()


async def test_money(world: World, client: Any) -> None:
    world.usage.row(world.owner.sid, "2023-11-14", count=3, price="0.25")
    balance = await client.balance.fetch_async()
    assert (balance.balance, balance.currency) == ("-0.25", "USD")
    (today,) = await client.usage.records.today.list_async(category="sms-outbound")
    assert (today.count, float(today.price), today.start_date) == ("3", 0.25, date(2023, 11, 14))
    days = await client.usage.records.daily.list_async(start_date=date(2023, 11, 1), category="sms", page_size=5)
    assert [one.start_date for one in days] == [date(2023, 11, 14) - timedelta(days=n) for n in range(14)]
    trigger = await client.usage.triggers.create_async(
        callback_url="https://example.com/", trigger_value="+5", usage_category="sms", recurring="monthly"
    )
    assert trigger.trigger_value == "6"
    assert (await client.usage.triggers.list_async())[0].date_fired is None


async def test_notifications_and_short_codes(world: World, client: Any) -> None:
    world.services.alerts.raise_(world.owner.sid, 11200, request_method="POST")
    await world.services.alerts.close()
    (listed,) = await client.notifications.list_async(log=0)
    assert (await client.notifications(listed.sid).fetch_async()).error_code == "11200"
    code = await world.short_code("12345")
    updated = await client.short_codes(code.sid).update_async(sms_url="https://example.com/")
    assert updated.sms_url == "https://example.com/"
