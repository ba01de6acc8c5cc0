"""A conversation with a simulated phone: out, statuses, in, a TwiML reply, STOP and START."""

import pytest

from tests.e2e.client import Client, until
from tests.e2e.conftest import Tenant
from tests.e2e.sink import Sink

ADA = "+12125550123"


async def configure(client: Client, tenant: Tenant, sms_url: str) -> None:
    """Where messages to the tenant's first number go."""
    number = tenant.numbers[0]
    answer = await client.call("POST", f"IncomingPhoneNumbers/{number.sid}.json", {"SmsUrl": sms_url})
    assert answer.status == 200, answer.body


async def test_statuses_come_signed_and_in_order(client: Client, tenant: Tenant, sink: Sink) -> None:
    sent = await client.send(
        to=ADA, from_=tenant.numbers[0].phone_number, body="Tea at 4?", status_callback=f"{sink.url}/status?order=7"
    )
    await sink.until(lambda: len(sink.at("/status")) >= 2)
    hooks = sink.at("/status")
    assert [hook.form["MessageStatus"] for hook in hooks] == ["sent", "delivered"]
    for hook in hooks:
        assert hook.signed_by(tenant.account.auth_token)
        assert not hook.signed_by("0" * 32)
        assert hook.form["MessageSid"] == hook.form["SmsSid"] == sent["sid"]
        assert (hook.form["From"], hook.form["To"]) == (tenant.numbers[0].phone_number, ADA)
        assert hook.form["AccountSid"] == tenant.account.sid
        assert hook.url.endswith("?order=7")
    tokens = {hook.headers["I-Twilio-Idempotency-Token"] for hook in hooks}
    assert len(tokens) == len(hooks)
    assert [text["body"] for text in await client.phone(ADA)][-1] == "Tea at 4?"


async def test_long_message_arrives_whole(client: Client, tenant: Tenant) -> None:
    phone, body = "+12125550124", "Ein langer Brief über Käse und Brot – " * 20
    sent = await client.send(to=phone, from_=tenant.numbers[0].phone_number, body=body)
    assert int(sent["num_segments"]) == 12
    assert [(text["body"], text["segments"]) for text in await client.phone(phone)] == [(body, 12)]
    await client.settled(sent["sid"])


async def test_reply_by_twiml(client: Client, tenant: Tenant, sink: Sink) -> None:
    phone, number = "+12125550125", tenant.numbers[0].phone_number
    sink.answers["/sms"] = "<Response><Message>Hi Ada</Message><Message>How are you?</Message></Response>"
    await configure(client, tenant, f"{sink.url}/sms")
    await client.phone_sends(phone, number, "Hello")
    await sink.until(lambda: bool(sink.at("/sms")))
    hook = sink.at("/sms")[0]
    assert hook.signed_by(tenant.account.auth_token)
    assert (hook.form["From"], hook.form["To"], hook.form["Body"]) == (phone, number, "Hello")
    assert (hook.form["NumMedia"], hook.form["SmsStatus"]) == ("0", "received")
    received = await client.message(hook.form["MessageSid"])
    assert (received["direction"], received["status"], received["body"]) == ("inbound", "received", "Hello")
    texts = await until(lambda: client.phone(phone, wait_s=1), lambda texts: len(texts) == 2)
    assert {text["body"] for text in texts} == {"Hi Ada", "How are you?"}
    listed = (await client.call("GET", "Messages.json")).json["messages"]
    assert sorted(one["direction"] for one in listed) == ["inbound", "outbound-reply", "outbound-reply"]


async def test_stop_and_start(client: Client, tenant: Tenant, sink: Sink) -> None:
    phone, number = "+12125550126", tenant.numbers[0].phone_number
    await configure(client, tenant, f"{sink.url}/sms")
    await client.phone_sends(phone, number, "STOP")
    await sink.until(lambda: len(sink.at("/sms")) == 1)
    refused = await client.call("POST", "Messages.json", {"To": phone, "From": number, "Body": "Still there?"})
    assert (refused.status, refused.json["code"]) == (400, 21610)
    other = await client.send(to=phone, from_=tenant.numbers[1].phone_number, body="From another number")
    await client.settled(other["sid"])
    await client.phone_sends(phone, number, "start")
    await sink.until(lambda: len(sink.at("/sms")) == 2)
    assert [hook.form.get("Body") for hook in sink.at("/sms")] == ["STOP", "start"]
    sent = await client.send(to=phone, from_=number, body="Welcome back")
    await client.settled(sent["sid"])
    assert "Welcome back" in [text["body"] for text in await client.phone(phone)]


async def test_a_message_between_two_own_numbers(client: Client, tenant: Tenant, sink: Sink) -> None:
    first, second = (number.phone_number for number in tenant.numbers)
    await configure(client, tenant, f"{sink.url}/sms")
    sent = await client.send(to=first, from_=second, body="To myself")
    await sink.until(lambda: bool(sink.at("/sms")))
    assert sink.at("/sms")[0].form["Body"] == "To myself"
    await client.settled(sent["sid"])


@pytest.mark.parametrize("code", [30003, 30004, 30005, 30006, 30008])
async def test_failures_are_told(client: Client, tenant: Tenant, sink: Sink, code: int) -> None:
    await client.send(
        to=f"+121299{code}", from_=tenant.numbers[0].phone_number, body="x", status_callback=f"{sink.url}/status"
    )
    await sink.until(lambda: len(sink.at("/status")) >= 2)
    last = sink.at("/status")[-1].form
    assert (last["MessageStatus"], last["ErrorCode"]) == ("undelivered", str(code))
