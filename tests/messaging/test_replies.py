"""Webhooks of received messages: documents, replies, fallback, cookies, crashes.

Twilio's <Message>: attributes to, from, action, method (POST), statusCallback; nouns Body, Media (at most 10).
"""

import asyncio
from urllib.parse import parse_qsl, urlsplit

import orjson
import pytest
from twilio.request_validator import RequestValidator

from tests.webhooks.servers import answer, running
from trunkline.messaging.connectors.base import InboundPart
from trunkline.messaging.replies import InboundHandler, Sessions
from trunkline.model.numbers import MessagingService, OptOut, ServiceSender
from trunkline.model.sid import new_sid

from .world import AC, OURS, THEM, TOKEN, eventually

XML = "Content-Type: text/xml"


def twiml(text, *headers):
    return answer(f"<Response>{text}</Response>".encode(), 200, XML, *headers)


def params(request):
    text = request.body.decode() if request.method == "POST" else urlsplit(request.path).query
    return dict(parse_qsl(text, keep_blank_values=True))


def path(request):
    return urlsplit(request.path).path


class Rig:
    """A world with the handler, whose number's URLs lead to a test server."""

    def __init__(self, world, port, **number):
        self.world = world
        self.base = f"http://127.0.0.1:{port}"
        self.number = number
        self.handler = self.make()

    def make(self):
        w = self.world
        return InboundHandler(
            w.fetcher, w.outbound, w.reader, w.directory, w.database, w.alerts, w.clock, w.settings.webhooks
        )

    async def receive(self, text="hi", **changes):
        before = len(self.world.delivered)
        await self.world.inbound.receive(
            InboundPart(connector="carrier", from_=THEM, to="+12025550111", text=text, **changes)
        )
        (owed,) = self.world.delivered[before:]
        return owed

    async def attempt(self, owed):
        future = asyncio.get_running_loop().create_future()
        self.handler.begin(owed, future.set_result)
        return await future

    async def converse(self, text="hi", **changes):
        return await self.attempt(await self.receive(text, **changes))

    async def replies(self):
        """Every reply that was taken on, oldest first."""
        found = {}  # by SID: they move on while we look
        for status in ("accepted", "queued", "sending", "sent", "failed"):
            for flight in await self.world.queue.in_state("message", status, 0, 100):
                found[flight.sid] = await self.world.reader.get(flight.account, flight.sid)
        return sorted(found.values(), key=lambda m: (m.created_ms, m.body))


@pytest.fixture
async def rig_of(world):
    """Runs a server with a handler and gives the rig and the server."""
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:

        async def make(handler, **number):
            server = await stack.enter_async_context(running(handler))
            rig = Rig(world, server.port)
            urls = {key: rig.base + value if key.endswith("url") else value for key, value in number.items()}
            await world.give_number("+12025550111", **({"sms_url": rig.base + "/sms?a=b"} | urls))
            return rig, server

        yield make


async def test_request_is_signed_and_the_message_can_be_fetched(rig_of, world):
    seen = []

    async def handler(request):
        seen.append(await world.reader.get(AC, params(request)["MessageSid"]))
        return twiml("")

    rig, server = await rig_of(handler)
    result = await rig.converse("hi there")
    assert result.delivered
    (request,) = server.requests
    form = params(request)
    assert (form["Body"], form["From"], form["To"], form["NumMedia"]) == ("hi there", THEM, "+12025550111", "0")
    assert form["SmsMessageSid"] == form["MessageSid"] == form["SmsSid"]
    assert form["SmsStatus"] == "received"
    assert form["ToCountry"] == "US"
    assert RequestValidator(TOKEN).validate(rig.base + "/sms?a=b", form, request.headers["x-twilio-signature"])
    assert [m.body for m in seen] == ["hi there"]
    assert orjson.loads(result.attempts[0])["status"] == 200


async def test_get_carries_its_parameters_in_the_query(rig_of):
    rig, server = await rig_of(lambda request: twiml(""), sms_method="GET")
    await rig.converse()
    (request,) = server.requests
    assert request.method == "GET"
    assert params(request)["a"] == "b"
    assert params(request)["Body"] == "hi"
    assert RequestValidator(TOKEN).validate(rig.base + request.path, {}, request.headers["x-twilio-signature"])


async def test_number_tells_where_it_is(rig_of):
    rig, server = await rig_of(lambda request: twiml(""), locality="Springfield", region="IL", country="US")
    await rig.converse()
    form = params(server.requests[0])
    assert (form["ToCity"], form["ToState"], form["ToCountry"]) == ("SPRINGFIELD", "IL", "US")


async def test_opt_out_type_is_told(rig_of):
    rig, server = await rig_of(lambda request: twiml(""))
    await rig.converse("HELP")
    assert params(server.requests[0])["OptOutType"] == "HELP"


@pytest.mark.parametrize(
    "response",
    [answer(b"", 204), twiml(""), answer(b"", 200), answer(b"<?xml version='1.0'?><Response/>", 200, XML)],
)
async def test_no_reply(rig_of, response):
    rig, _ = await rig_of(lambda request: response)
    assert (await rig.converse()).delivered
    assert await rig.replies() == []
    assert await rig.world.alert_codes() == []


async def test_messages_become_replies_in_order(rig_of, world):
    document = "<Message>one</Message><Message><Body>two</Body></Message>"
    rig, _ = await rig_of(lambda request: twiml(document))
    await rig.converse()
    carrier = world.carriers["carrier"]
    await eventually(lambda: len(carrier.taken) == 2)
    first, second = carrier.taken
    assert (first.body, first.from_, first.to, first.direction) == ("one", "+12025550111", THEM, "outbound-reply")
    assert second.body == "two"


async def test_plain_text_is_the_reply(rig_of):
    rig, _ = await rig_of(lambda request: answer(b"thanks", 200, "Content-Type: text/plain"))
    await rig.converse()
    assert [m.body for m in await rig.replies()] == ["thanks"]


async def test_attributes(rig_of, world):
    await world.give_number("+12025550122")
    document = (
        '<Message to="+14155550123" from="+12025550122" statusCallback="status?x=1">a</Message>'
        '<Message statusCallback="https://else.example/s">b</Message>'
    )
    rig, _ = await rig_of(lambda request: twiml(document), sms_url="/deep/sms")
    await rig.converse()
    first, second = sorted(await rig.replies(), key=lambda m: m.body)
    assert (first.from_, first.to, first.status_callback) == (
        "+12025550122", "+14155550123", rig.base + "/deep/status?x=1",
    )  # fmt: skip
    assert second.status_callback == "https://else.example/s"


async def test_sender_that_is_not_ours_is_refused_and_the_rest_goes_on(rig_of):
    document = '<Message from="+12025550199">a</Message><Message>b</Message>'
    rig, _ = await rig_of(lambda request: twiml(document))
    assert (await rig.converse()).delivered
    assert [m.body for m in await rig.replies()] == ["b"]
    assert await rig.world.alert_codes() == [21606]


async def test_service_as_sender(rig_of, world):
    number = await world.give_number("+12025550133")
    sid = new_sid("MG")
    await world.database.insert(MessagingService(sid=sid, account_sid=AC))
    await world.database.insert(
        ServiceSender(sid=number.sid, account_sid=AC, service_sid=sid, kind="phone_number", address="+12025550133")
    )
    rig, _ = await rig_of(lambda request: twiml(f'<Message from="{sid}">a</Message>'))
    await rig.converse()
    (reply,) = await rig.replies()
    assert (reply.from_, reply.messaging_service_sid) == ("+12025550133", sid)


async def test_opted_out_recipient_raises_an_alert(rig_of, world):
    rig, _ = await rig_of(lambda request: twiml("<Message>a</Message>"))
    owed = await rig.receive("STOP")
    assert [o.recipient for o in await world.database.find(OptOut)] == [THEM]
    assert (await rig.attempt(owed)).delivered
    assert await world.alert_codes() == [21610]


async def test_reply_to_an_alphanumeric_sender_is_refused(rig_of, world):
    rig, _ = await rig_of(lambda request: twiml("<Message>a</Message>"))
    await world.inbound.receive(InboundPart(connector="carrier", from_="BANK", to="+12025550111", text="x"))
    await rig.attempt(world.delivered[-1])
    assert await rig.replies() == []
    assert await world.alert_codes() == [21211]


async def test_media_of_a_reply(rig_of, world):
    def handler(request):
        if path(request) == "/cat.png":
            return answer(b"PNG", 200, "Content-Type: image/png")
        return twiml("<Message><Body>cat</Body><Media>/cat.png</Media></Message>")

    rig, _ = await rig_of(handler)
    await rig.converse()
    carrier = world.carriers["carrier"]
    await eventually(lambda: carrier.taken)
    (reply,) = carrier.taken
    assert reply.sid[:2] == "MM"
    assert (reply.body, reply.text) == ("cat", f"cat\n{rig.base}/cat.png")
    assert await world.blobs.get(reply.media[0].sid) == b"PNG"


# -- redirects and actions ---------------------------------------------------------------------------------------


async def test_redirect_goes_on_elsewhere(rig_of):
    def handler(request):
        if path(request) == "/sms":
            return twiml("<Message>a</Message><Redirect method='GET'>more/next</Redirect><Message>never</Message>")
        return twiml("<Message>b</Message>")

    rig, server = await rig_of(handler)
    await rig.converse()
    assert [(r.method, path(r)) for r in server.requests] == [("POST", "/sms"), ("GET", "/more/next")]
    assert params(server.requests[1])["Body"] == "hi"
    assert sorted(m.body for m in await rig.replies()) == ["a", "b"]


async def test_redirect_without_end_is_bounded(rig_of):
    rig, server = await rig_of(lambda request: twiml("<Redirect></Redirect>"))
    assert (await rig.converse()).delivered
    assert len(server.requests) == 20
    assert await rig.world.alert_codes() == [14106]


async def test_action_is_told_of_the_reply_and_goes_on(rig_of):
    def handler(request):
        if path(request) == "/sms":
            return twiml("<Message action='/done'>a</Message><Message>never</Message>")
        return twiml("<Message>b</Message>")

    rig, server = await rig_of(handler)
    await rig.converse()
    replies = {m.body: m for m in await rig.replies()}
    assert set(replies) == {"a", "b"}
    form = params(server.requests[1])
    assert form["MessageSid"] == form["SmsSid"] == replies["a"].sid
    assert form["MessageStatus"] == form["SmsStatus"] == "sending"
    assert form["From"] == THEM
    assert RequestValidator(TOKEN).validate(rig.base + "/done", form, server.requests[1].headers["x-twilio-signature"])


async def test_action_is_told_of_a_refusal(rig_of):
    def handler(request):
        if path(request) == "/sms":
            return twiml("<Message from='+12025550199' action='/done'>a</Message>")
        return twiml("")

    rig, server = await rig_of(handler)
    await rig.converse()
    assert params(server.requests[1])["MessageStatus"] == "invalid"


# -- what goes wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "code"),
    [
        (answer(b"x", 500), 11200),
        (answer(b"x", 404), 11200),
        (b"", 11205),
        (answer(b"<Response><Mess", 200, XML), 12100),
        (answer(b"<Wrong/>", 200, XML), 12102),
        (answer(b"{}", 200, "Content-Type: application/json"), 12300),
        (answer(b"<Response>" + b" " * 70_000 + b"</Response>", 200, XML), 11750),
        (answer(b"", 302, "Location: /sms"), 11215),
    ],
)
async def test_failure_asks_the_fallback_url(rig_of, response, code):
    def handler(request):
        return twiml("<Message>sorry</Message>") if path(request) == "/fallback" else response

    rig, server = await rig_of(handler, sms_fallback_url="/fallback", sms_fallback_method="GET")
    result = await rig.converse()
    assert result.delivered
    asked = server.requests[-1]
    assert (asked.method, path(asked)) == ("GET", "/fallback")
    form = params(asked)
    assert (form["ErrorCode"], form["ErrorUrl"]) == (str(code), rig.base + "/sms?a=b")
    assert [m.body for m in await rig.replies()] == ["sorry"]
    assert await rig.world.alert_codes() == [code]
    first = orjson.loads(result.attempts[0])
    assert first["error_code"] == code


async def test_both_urls_failing_ends_it(rig_of):
    rig, server = await rig_of(lambda request: answer(b"oops", 500), sms_fallback_url="/fallback")
    result = await rig.converse()
    assert (result.delivered, result.retry, result.error_code) == (False, False, 11200)
    assert len(server.requests) == 2
    assert await rig.world.alert_codes() == [11200, 11200]
    assert [orjson.loads(a)["response_body"] for a in result.attempts] == ["oops", "oops"]


async def test_warnings_raise_alerts_and_the_rest_runs(rig_of):
    rig, _ = await rig_of(lambda request: twiml("<Say>x</Say><Message>b</Message>"))
    await rig.converse()
    assert [m.body for m in await rig.replies()] == ["b"]
    assert await rig.world.alert_codes() == [14110]


async def test_bad_override_raises_an_alert(rig_of):
    rig, _ = await rig_of(lambda request: twiml(""), sms_url="/sms#rp=sometimes")
    assert (await rig.converse()).delivered
    assert await rig.world.alert_codes() == [11243]


async def test_body_is_in_no_alert_and_good_answers_in_no_record(rig_of, world):
    rig, _ = await rig_of(lambda request: answer(b"x", 500))
    await rig.converse("my secret")
    from trunkline.model.numbers import Alert

    await world.alerts.close()
    (alert,) = await world.database.find(Alert)
    assert "secret" not in str(alert)
    assert "From=" in alert.request_variables


async def test_deleted_message_is_not_asked_about(rig_of):
    rig, server = await rig_of(lambda request: twiml(""))
    owed = await rig.receive()
    owed.request = b""
    result = await rig.attempt(owed)
    assert (result.delivered, result.retry, server.requests) == (False, False, [])


async def test_shutdown_leaves_the_webhook_owed(rig_of, world):
    rig, _ = await rig_of(lambda request: twiml(""), sms_fallback_url="/fallback")
    owed = await rig.receive()
    await world.client.close()
    result = await rig.attempt(owed)
    assert (result.delivered, result.retry) == (False, True)


async def test_attempt_that_a_crash_cut_short_replies_once(rig_of, world):
    rig, server = await rig_of(lambda request: twiml("<Message>a</Message><Message>b</Message>"))
    owed = await rig.receive()
    await rig.attempt(owed)
    await rig.attempt(owed)
    carrier = world.carriers["carrier"]
    await eventually(lambda: len(carrier.taken) == 2)
    assert sorted(m.body for m in await rig.replies()) == ["a", "b"]
    first, again = (r.headers["i-twilio-idempotency-token"] for r in server.requests)
    assert first == again


async def test_cookies_last_for_the_conversation(rig_of):
    def handler(request):
        return twiml("", "Set-Cookie: step=1")

    rig, server = await rig_of(handler)
    await rig.converse()
    await rig.converse()
    await rig.world.inbound.receive(InboundPart(connector="carrier", from_="+14155550111", to="+12025550111", text="x"))
    await rig.attempt(rig.world.delivered[-1])
    assert [r.headers.get("cookie") for r in server.requests] == [None, "step=1", None]
    rig.world.clock.offset_ms += 4 * 3600 * 1000 + 1000
    await rig.converse()
    assert server.requests[-1].headers.get("cookie") is None


async def test_sessions_are_bounded(world, monkeypatch):
    monkeypatch.setattr("trunkline.messaging.replies.MAX_SESSIONS", 3)
    sessions = Sessions(world.clock)

    class Talk:
        account_sid, to = AC, OURS

        def __init__(self, from_):
            self.from_ = from_

    first = sessions.of(Talk("1"))
    for name in "2", "3":
        sessions.of(Talk(name))
    assert sessions.of(Talk("1")) is first
    sessions.of(Talk("4"))
    assert sessions.of(Talk("1")) is first
    assert len(sessions._kept) == 3
