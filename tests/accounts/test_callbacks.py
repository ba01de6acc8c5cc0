"""Status callbacks: request, signature, policy, record, alerts."""

import asyncio
import re

import orjson
import pytest
from twilio.request_validator import RequestValidator

from tests.messaging.world import AC, OURS, THEM, TOKEN, MovableClock
from tests.webhooks.servers import answer, running
from trunkline.accounts.callbacks import StatusHandler, idempotency_token
from trunkline.messaging.outbound import status_callback
from trunkline.model.account import Account
from trunkline.model.message import Direction, Message
from trunkline.settings import Webhooks
from trunkline.webhooks.fetch import Fetcher
from trunkline.webhooks.guard import Guard
from trunkline.webhooks.http import Client

SID = "SM0190000000001100000000000000abcd"[:34]


class Sink:
    def __init__(self):
        self.alerts = []

    def raise_(self, account_sid, error_code, **fields):
        self.alerts.append((account_sid, error_code, fields))
        return "NO"


class Rig:
    """A handler, and one attempt at a time."""

    def __init__(self, settings=None, **options):
        self.client, self.guard, self.sink = Client(), Guard.development(), Sink()
        settings = settings or Webhooks()
        clock = MovableClock()
        account = Account(sid=AC, auth_token=TOKEN)
        fetcher = Fetcher(self.client, self.guard, clock, settings)
        self.handler = StatusHandler(
            self.client, self.guard, fetcher, {AC: account}.get, self.sink, clock, settings, **options
        )

    def owed(self, url, status="delivered", **changes):
        message = Message(
            sid=SID, account_sid=AC, direction=Direction.OUTBOUND_API, from_=OURS, to=THEM, status_callback=url,
            **changes,
        )  # fmt: skip
        return status_callback(message, status, 1)

    async def attempt(self, owed):
        future = asyncio.get_running_loop().create_future()
        self.handler.begin(owed, future.set_result)
        return await future


@pytest.fixture
async def rig():
    rig = Rig()
    yield rig
    await rig.client.close()
    rig.guard.close()


def params(request):
    from urllib.parse import parse_qsl

    return dict(parse_qsl(request.body.decode(), keep_blank_values=True))


async def test_callback_is_a_signed_form(rig):
    async with running(lambda request: answer(b"", 204)) as server:
        url = f"http://127.0.0.1:{server.port}/status?x=1"
        result = await rig.attempt(rig.owed(url, "undelivered", error_code=30003, error_message="Unreachable"))
        assert result.delivered
        (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/status?x=1")
    assert request.headers["content-type"] == "application/x-www-form-urlencoded; charset=UTF-8"
    assert request.headers["user-agent"] == "TwilioProxy/1.1"
    form = params(request)
    assert form["MessageSid"] == form["SmsSid"] == SID
    assert form["MessageStatus"] == form["SmsStatus"] == "undelivered"
    assert (form["ErrorCode"], form["From"], form["To"]) == ("30003", OURS, THEM)
    assert RequestValidator(TOKEN).validate(url, form, request.headers["x-twilio-signature"])
    record = orjson.loads(result.attempts[0])
    assert (record["url"], record["status"], record["method"]) == (url, 204, "POST")
    assert rig.sink.alerts == []


async def test_every_attempt_has_the_same_token_and_each_status_another(rig):
    async with running(lambda request: answer()) as server:
        url = f"http://127.0.0.1:{server.port}/"
        for status in ("sent", "sent", "delivered"):
            await rig.attempt(rig.owed(url, status))
        first, again, other = (r.headers["i-twilio-idempotency-token"] for r in server.requests)
    assert first == again != other
    assert re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", first)


def test_token_tells_messages_with_one_idempotency_key_apart():
    assert idempotency_token("SM1", "key:sent") != idempotency_token("SM2", "key:sent")


@pytest.mark.parametrize(
    ("status", "fragment", "retry", "max_tries"),
    [
        (500, "", True, 0),
        (503, "", True, 0),
        (404, "", False, 0),
        (429, "", True, 0),
        (408, "", True, 0),
        (500, "#rc=3", False, 4),  # only `ct` is retried unless `rp` says otherwise
        (500, "#rc=3&rp=5xx", True, 4),
        (404, "#rp=4xx", True, 2),
        (404, "#rp=5xx", False, 2),
        (503, "#rc=0&rp=all", True, 1),
        (500, "#ct=2000", True, 0),
    ],
)
async def test_policy(rig, status, fragment, retry, max_tries):
    async with running(lambda request: answer(b"sorry", status)) as server:
        result = await rig.attempt(rig.owed(f"http://127.0.0.1:{server.port}/{fragment}"))
        assert server.requests[0].path == "/"
    assert (result.delivered, result.retry, result.max_tries) == (False, retry, max_tries)
    assert result.error_code == 15003
    record = orjson.loads(result.attempts[0])
    assert (record["status"], record["response_body"], record["error_code"]) == (status, "sorry", 15003)


async def test_first_failure_raises_one_alert(rig):
    async with running(lambda request: answer(b"sorry", 500)) as server:
        owed = rig.owed(f"http://127.0.0.1:{server.port}/")
        await rig.attempt(owed)
        owed.tries = 1
        result = await rig.attempt(owed)
        ((account, code, fields),) = rig.sink.alerts
        owed.tries = 2
        rig.handler.exhausted(owed, result)
    assert (account, code, fields["resource_sid"], fields["response_body"]) == (AC, 15003, SID, "sorry")
    assert len(rig.sink.alerts) == 2
    assert "2 attempts" in rig.sink.alerts[1][2]["text"]


async def test_refused_connection_is_retried(rig):
    async with running(lambda request: answer()) as server:
        port = server.port
    result = await rig.attempt(rig.owed(f"http://127.0.0.1:{port}/"))
    assert (result.delivered, result.retry, result.error_code) == (False, True, 11205)
    assert orjson.loads(result.attempts[0])["failure"] == "connection-failed"


@pytest.mark.parametrize("url", ["http://10.0.0.1/", "ftp://127.0.0.1/", "http://a_b.example/"])
async def test_url_that_may_not_be_requested_is_given_up_at_once(rig, url):
    result = await rig.attempt(rig.owed(url))
    assert (result.delivered, result.retry) == (False, False)
    assert result.error_code in (11100, 11210)
    assert [code for _, code, _ in rig.sink.alerts] == [result.error_code]


async def test_plain_http_can_be_forbidden():
    rig = Rig(allow_http=False)
    result = await rig.attempt(rig.owed("http://127.0.0.1/"))
    assert (result.delivered, result.retry, result.error_code) == (False, False, 11100)


async def test_redirect_is_followed_and_remembered(rig):
    def handler(request):
        if request.path == "/new":
            return answer()
        return answer(b"", 307, "Location: /new")

    async with running(handler) as server:
        owed = rig.owed(f"http://127.0.0.1:{server.port}/old")
        assert (await rig.attempt(owed)).delivered
        assert (await rig.attempt(owed)).delivered
        assert [r.path for r in server.requests] == ["/old", "/old", "/new", "/old", "/new"]
        assert params(server.requests[-1])["MessageSid"] == SID


async def test_redirect_without_end_is_a_failed_attempt(rig):
    async with running(lambda request: answer(b"", 307, "Location: /")) as server:
        result = await rig.attempt(rig.owed(f"http://127.0.0.1:{server.port}/"))
    assert (result.delivered, result.error_code) == (False, 11215)


async def test_credentials_answer_a_challenge_and_stay_out_of_the_record(rig):
    def handler(request):
        if request.headers.get("authorization") == "Basic dTpzZWNyZXQ=":
            return answer()
        return answer(b"", 401, 'WWW-Authenticate: Basic realm="x"')

    async with running(handler) as server:
        result = await rig.attempt(rig.owed(f"http://u:secret@127.0.0.1:{server.port}/"))
    assert result.delivered
    assert b"secret" not in result.attempts[0]


async def test_blanked_request_is_given_up_without_an_alert(rig):
    owed = rig.owed("http://127.0.0.1/")
    owed.request = b""
    result = await rig.attempt(owed)
    assert (result.delivered, result.retry, rig.sink.alerts) == (False, False, [])


async def test_record_of_an_attempt_is_bounded(rig):
    async with running(lambda request: answer(b"x" * 200_000, 500)) as server:
        result = await rig.attempt(rig.owed(f"http://127.0.0.1:{server.port}/"))
    assert len(result.attempts[0]) < 2000


@pytest.mark.parametrize("redirects", [False, True])
async def test_a_callback_by_get_has_its_parameters_in_the_query(rig, redirects):
    def respond(request):
        moved = redirects and request.path.startswith("/first")
        return answer(b"", 302, "Location: /status?x=1") if moved else answer()

    async with running(respond) as server:
        url = f"http://127.0.0.1:{server.port}/{'first' if redirects else 'status'}?x=1"
        owed = rig.owed(url)
        request = orjson.loads(owed.request) | {"method": "GET"}
        owed.request = orjson.dumps(request)
        result = await rig.attempt(owed)
        assert result.delivered
        first = server.requests[0]
    assert first.method == "GET"
    assert first.body == b""
    assert first.path.startswith(f"/{'first' if redirects else 'status'}?x=1&")
    assert f"MessageSid={SID}" in first.path
    signed = f"http://127.0.0.1:{server.port}{first.path}"
    assert RequestValidator(TOKEN).validate(signed, {}, first.headers["x-twilio-signature"])
    assert orjson.loads(result.attempts[0])["method"] == "GET"


async def test_a_callback_by_get_that_fails_says_so(rig):
    async with running(lambda request: answer(b"no", 404)) as server:
        owed = rig.owed(f"http://127.0.0.1:{server.port}/")
        owed.request = orjson.dumps(orjson.loads(owed.request) | {"method": "GET"})
        result = await rig.attempt(owed)
    assert not result.delivered
    ((_, code, fields),) = rig.sink.alerts
    assert (code, fields["request_method"]) == (15003, "GET")
