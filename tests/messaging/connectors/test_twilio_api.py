"""The `twilio` connector: the contract, then Twilio's own answers and signatures."""

import itertools
from base64 import b64encode
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from twilio.request_validator import RequestValidator

from tests.messaging.connectors.carrier_server import Answer, CarrierServer, Request
from tests.messaging.connectors.contract import OUR_NUMBER, WINDOW, ConnectorContract, MemorySink, Outcomes, message
from trunkline.messaging.connectors.base import Rejected, Submission, Submitted, Unavailable
from trunkline.messaging.connectors.table import Context, make
from trunkline.messaging.connectors.twilio_api import TwilioConnector
from trunkline.model.message import MediaItem
from trunkline.settings import Twilio

ACCOUNT = "AC" + "1" * 32
AUTH_TOKEN = "0123456789abcdef"
PUBLIC = "https://sms.example.com"


class TwilioRig:
    features = frozenset({"refuse", "busy", "lose", "hold", "down"})
    to = "+12025550199"

    def __init__(self, server: CarrierServer, **settings: Any) -> None:
        self.server = server
        self.ids = itertools.count(1)
        self.how = "take"
        self.sink = MemorySink()
        given = {"name": "upstream", "account_sid": ACCOUNT, "auth_token": AUTH_TOKEN, "window": WINDOW}
        self.connector = make(
            Twilio(**{**given, "base_url": server.url + "/", **settings}), Context(public_url=lambda: PUBLIC)
        )
        assert isinstance(self.connector, TwilioConnector)
        server.answer = self.answer

    def answer(self, request: Request) -> Answer | None:
        if self.how == "lose":
            return None
        if self.how == "refuse":
            return error(400, 21211, "The 'To' number is not a valid phone number.")
        if self.how == "busy":
            return error(429, 20429, "Too Many Requests")
        return 201, {}, orjson.dumps({"sid": f"SM{next(self.ids):032x}", "status": "queued"})

    def treat(self, how: str) -> None:
        self.how = how
        if how == "hold":
            self.server.open.clear()
        elif how == "down":
            self.server._server.close()

    def release(self) -> None:
        self.server.open.set()

    async def reached(self) -> None:
        await self.server.reached()

    async def call(self, kind: str, fields: dict[str, str], query: str = "", signature: str | None = None):
        """The carrier's request, signed by Twilio's own library."""
        url = f"{PUBLIC}/connectors/upstream/{kind}" + (f"?{query}" if query else "")
        if signature is None:
            signature = RequestValidator(AUTH_TOKEN).compute_signature(url, fields)
        headers = {b"x-twilio-signature": signature.encode(), b"content-type": b"application/x-www-form-urlencoded"}
        return await self.connector.handle(kind, "POST", headers, query.encode(), urlencode(fields).encode())

    async def receipt(self, carrier_id: str) -> bool:
        fields = {"MessageSid": carrier_id, "MessageStatus": "delivered", "AccountSid": ACCOUNT}
        status, _, _ = await self.call("receipt", fields)
        assert status in (200, 503)
        return status == 200

    async def inbound(self, text: str) -> bool:
        fields = {"MessageSid": "SM" + "9" * 32, "From": self.to, "To": OUR_NUMBER, "Body": text, "FromCity": ""}
        status, _, body = await self.call("inbound", fields)
        assert status in (200, 503)
        assert status == 503 or b"<Response/>" in body
        return status == 200


def error(status: int, code: int, text: str) -> Answer:
    return status, {}, orjson.dumps({"code": code, "message": text, "status": status, "more_info": "..."})


@pytest.fixture
async def server():
    server = CarrierServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def rig(server):
    return TwilioRig(server)


@pytest.fixture
async def rig_of(server):
    made = []

    def start(**settings: Any) -> TwilioRig:
        rig = TwilioRig(server, **settings)
        rig.connector.start(rig.sink, lambda: None)
        made.append(rig)
        return rig

    yield start
    for rig in made:
        await rig.connector.stop(0.1)


async def outcome_of(rig: TwilioRig, **changes: Any):
    outcomes = Outcomes()
    text = message(rig.to, "Grüße & mehr")
    for name, value in changes.items():
        setattr(text, name, value)
    rig.connector.submit(Submission(text, OUR_NUMBER, outcomes.done))
    return (await outcomes.first())[0], text


class TestContract(ConnectorContract):
    pass


async def test_the_request(rig_of, server):
    outcome, text = await outcome_of(rig_of())
    assert outcome == Submitted((f"SM{1:032x}",))
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json")
    assert request.form == {
        "To": text.to,
        "From": OUR_NUMBER,
        "Body": "Grüße & mehr",
        "StatusCallback": f"{PUBLIC}/connectors/upstream/receipt",
    }
    assert request.headers["idempotency-key"] == text.token
    assert request.headers["authorization"] == "Basic " + b64encode(f"{ACCOUNT}:{AUTH_TOKEN}".encode()).decode()


async def test_api_key_service_and_no_receipts(rig_of, server):
    rig = rig_of(api_key="SKkey", api_secret="shh", messaging_service_sid="MG1", receipts=False)
    await outcome_of(rig)
    (request,) = server.requests
    assert request.headers["authorization"] == "Basic " + b64encode(b"SKkey:shh").decode()
    assert request.form["MessagingServiceSid"] == "MG1"
    assert "From" not in request.form
    assert "StatusCallback" not in request.form


async def test_media_are_passed_through(rig_of, server):
    media = [MediaItem(sid=f"ME{n}", content_type="image/png", url=f"https://x/{n}.png") for n in range(2)]
    await outcome_of(rig_of(), media=media, body="")
    (request,) = server.requests
    assert b"MediaUrl=https%3A%2F%2Fx%2F0.png&MediaUrl=https%3A%2F%2Fx%2F1.png" in request.body
    assert "Body" not in request.form


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error(400, 21610, "opted out"), Rejected(21610, "21610 opted out", try_elsewhere=False)),
        (error(400, 21606, "not yours"), Rejected(21606, "21606 not yours", try_elsewhere=True)),
        (error(400, 20001, "missing"), Rejected(30008, "20001 missing", try_elsewhere=True)),
        (error(400, 21611, "queue full"), Unavailable("21611 queue full", burns_attempt=False, retry_after_s=1.0)),
        ((429, {"Retry-After": "9"}, b""), Unavailable("HTTP 429", burns_attempt=False, retry_after_s=9.0)),
        (error(404, 20404, "no account"), Rejected(30008, "20404 no account", try_elsewhere=True)),
        (error(503, 20503, "later"), Unavailable("20503 later")),
        ((500, {}, b"<html>"), Unavailable("HTTP 500")),
        ((409, {}, b"{}"), Unavailable("HTTP 409")),
        ((201, {}, b"[]"), Unavailable("HTTP 201 without a message SID", in_doubt=True)),
        ((400, {}, b"\xff"), Rejected(30008, "HTTP 400", try_elsewhere=True)),
    ],
)
async def test_answers(rig_of, server, answer, expected):
    rig = rig_of()
    server.answer = lambda request: answer
    outcome, _ = await outcome_of(rig)
    assert outcome == expected


@pytest.mark.parametrize("answer", [error(401, 20003, "Authenticate"), error(403, 20005, "not active")])
async def test_an_account_that_is_not_accepted(rig_of, server, answer):
    rig = rig_of()
    server.answer = lambda request: answer
    for _ in range(5):
        outcome, _ = await outcome_of(rig)
        assert isinstance(outcome, Unavailable)
        assert not outcome.in_doubt
    healthy, line = rig.connector.health()
    assert not healthy
    assert "does not accept our account" in line


@pytest.mark.parametrize(
    ("fields", "state", "error_code"),
    [
        ({"MessageStatus": "undelivered", "ErrorCode": "30004"}, "undeliverable", 30004),
        ({"MessageStatus": "failed", "ErrorCode": "30003"}, "rejected", 30005),
        ({"MessageStatus": "sent"}, "enroute", 0),
        ({"SmsStatus": "read"}, "read", 0),
        ({"MessageStatus": "delivered", "RawDlrDoneDate": "2601020304"}, "delivered", 0),
    ],
)
async def test_status_callbacks(rig_of, fields, state, error_code):
    rig = rig_of(receipt_errors={"30003": 30005})
    status, _, _ = await rig.call("receipt", {"MessageSid": "SM1", **fields})
    assert status == 200
    (receipt,) = rig.sink.receipts
    assert (receipt.carrier_id, receipt.state, receipt.error_code) == ("SM1", state, error_code)
    assert receipt.error == fields.get("ErrorCode", "")
    assert receipt.done_date == fields.get("RawDlrDoneDate", "")


async def test_an_unknown_status_is_acknowledged_and_ignored(rig_of):
    rig = rig_of()
    assert (await rig.call("receipt", {"MessageSid": "SM1", "MessageStatus": "levitating"}))[0] == 200
    assert not rig.sink.receipts


async def test_forged_requests_are_refused(rig_of):
    rig = rig_of()
    fields = {"MessageSid": "SM1", "MessageStatus": "delivered", "From": "+1", "To": "+2"}
    for kind in ("receipt", "inbound"):
        assert (await rig.call(kind, fields, signature=""))[0] == 403
        assert (await rig.call(kind, fields, signature="é" * 28))[0] == 403
        good = RequestValidator(AUTH_TOKEN).compute_signature(f"{PUBLIC}/connectors/upstream/{kind}", fields)
        assert (await rig.call(kind, {**fields, "Body": "more"}, signature=good))[0] == 403
        assert (await rig.call(kind, fields, query="a=b", signature=good))[0] == 403
    assert not rig.sink.receipts
    assert not rig.sink.parts


async def test_the_query_is_signed_too(rig_of):
    rig = rig_of()
    assert (await rig.call("receipt", {"MessageSid": "SM1", "MessageStatus": "delivered"}, query="x=1%202"))[0] == 200


async def test_requests_without_the_needed_fields_are_refused(rig_of):
    rig = rig_of()
    assert (await rig.call("receipt", {"MessageStatus": "delivered"}))[0] == 400
    assert (await rig.call("inbound", {"From": "+1"}))[0] == 400
    assert (await rig.call("other", {}))[0] == 404


async def test_inbound_media(rig_of):
    rig = rig_of()
    fields = {
        "MessageSid": "MM1",
        "From": rig.to,
        "To": OUR_NUMBER,
        "Body": "",
        "NumMedia": "2",
        "MediaUrl0": "https://x/0",
        "MediaUrl1": "https://x/1",
        "MediaUrl2": "https://x/2",
    }
    assert (await rig.call("inbound", fields))[0] == 200
    (part,) = rig.sink.parts
    assert part.media_urls == ["https://x/0", "https://x/1"]
    assert part.carrier_id == "MM1"
