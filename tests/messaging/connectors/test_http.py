"""The `http` connector: the contract, then its templates, rules and callbacks."""

import itertools
from base64 import b64encode
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from tests.messaging.connectors.carrier_server import Answer, CarrierServer, Request
from tests.messaging.connectors.contract import (
    OUR_NUMBER,
    WINDOW,
    ConnectorContract,
    MemorySink,
    Outcomes,
    message,
)
from trunkline.messaging.connectors.base import Rejected, Submission, Submitted, Unavailable
from trunkline.messaging.connectors.http import HttpConnector, address_of, done_date
from trunkline.messaging.connectors.incoming import COMMIT_TIMEOUT_S
from trunkline.messaging.connectors.table import Context, make
from trunkline.model.message import MediaItem
from trunkline.settings import Http

TOKEN = "s3cret token&"
JSON = {b"content-type": b"application/json"}


class HttpRig:
    features = frozenset({"refuse", "busy", "lose", "hold", "down"})
    to = "+491701234567"

    def __init__(self, server: CarrierServer, **settings: Any) -> None:
        self.server = server
        self.ids = itertools.count(1)
        self.how = "take"
        self.sink = MemorySink()
        given = {"name": "acme", "url": server.url + "/sms", "window": WINDOW, "callback_token": TOKEN, "timeout_s": 4}
        self.connector = make(Http(**{**given, **settings}), Context(public_url=lambda: "https://sms.example.com"))
        assert isinstance(self.connector, HttpConnector)
        server.answer = self.answer

    def answer(self, request: Request) -> Answer | None:
        if self.how == "lose":
            return None
        if self.how == "refuse":
            return 400, {}, b'{"error": "no such number"}'
        if self.how == "busy":
            return 429, {"Retry-After": "1"}, b"{}"
        return 200, {}, orjson.dumps({"id": f"c{next(self.ids)}"})

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

    async def call(self, kind: str, fields: Any, **more: Any) -> tuple[int, bytes]:
        given = {"method": "POST", "headers": JSON, "query": urlencode({"token": TOKEN}).encode(), **more}
        body = orjson.dumps(fields)
        status, _, text = await self.connector.handle(kind, given["method"], given["headers"], given["query"], body)
        return status, text

    async def receipt(self, carrier_id: str) -> bool:
        status, _ = await self.call("receipt", {"id": carrier_id, "status": "Delivered"})
        assert status in (200, 503)
        return status == 200

    async def inbound(self, text: str) -> bool:
        status, _ = await self.call("inbound", {"id": "i1", "from": "491701234567", "to": OUR_NUMBER, "text": text})
        assert status in (200, 503)
        return status == 200


@pytest.fixture
async def server():
    server = CarrierServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def rig(server):
    return HttpRig(server)


@pytest.fixture
async def rig_of(server):
    made = []

    def start(**settings: Any) -> HttpRig:
        rig = HttpRig(server, **settings)
        rig.connector.start(rig.sink, lambda: None)
        made.append(rig)
        return rig

    yield start
    for rig in made:
        await rig.connector.stop(0.1)


async def outcome_of(rig: HttpRig, sender: str = OUR_NUMBER, **changes: Any):
    outcomes = Outcomes()
    text = message(rig.to, "Grüße & mehr {to}")
    for name, value in changes.items():
        setattr(text, name, value)
    rig.connector.submit(Submission(text, sender, outcomes.done))
    return (await outcomes.first())[0], text


class TestContract(ConnectorContract):
    pass


async def test_json_with_nested_fields(rig_of, server):
    rig = rig_of(
        fields={
            "messages.0.to.0": "{to_digits}",
            "messages.0.from": "{from}",
            "messages.0.text": "{body}",
            "callback": "{receipt_url}",
            "kind": "sms",
        },
        headers={"X-Idempotency": "{token}", "X-Key": "k{e}y"},
        username="user",
        password="päss",
        id="json:messages.0.id",
    )
    server.answer = lambda request: (200, {}, b'{"messages": [{"id": 4711}]}')
    outcome, text = await outcome_of(rig)
    assert outcome == Submitted(("4711",))
    (request,) = server.requests
    assert request.method == "POST"
    assert request.json == {
        "messages": [{"to": [rig.to[1:]], "from": OUR_NUMBER, "text": "Grüße & mehr {to}"}],
        "callback": "https://sms.example.com/connectors/acme/receipt?token=s3cret+token%26",
        "kind": "sms",
    }
    assert request.headers["x-idempotency"] == text.token
    assert request.headers["x-key"] == "k{e}y"
    assert request.headers["authorization"] == "Basic " + b64encode("user:päss".encode()).decode()


async def test_form_and_templated_url(rig_of, server):
    rig = rig_of(
        url=server.url + "/v1/{from}/send?v=2",
        format="form",
        fields={"t": "{to}", "m": "{body}"},
        id=r"regex:OK (\w+)",
    )
    server.answer = lambda request: (200, {}, b"OK a1b2")
    outcome, text = await outcome_of(rig, sender="A&B")
    assert outcome == Submitted(("a1b2",))
    (request,) = server.requests
    assert request.path == "/v1/A%26B/send?v=2"
    assert request.form == {"t": rig.to, "m": text.body}


async def test_get_puts_the_fields_into_the_query(rig_of, server):
    rig = rig_of(url=server.url + "/send?key=1", method="GET", format="none", id="header:X-Id")
    server.answer = lambda request: (200, {"X-Id": "h7"}, b"")
    outcome, text = await outcome_of(rig)
    assert outcome == Submitted(("h7",))
    (request,) = server.requests
    assert (request.method, request.body) == ("GET", b"")
    assert request.query == {"key": "1", "to": rig.to, "from": OUR_NUMBER, "text": text.body, "reference": text.sid}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (422, b'{"error": "blocked"}', Rejected(30004, "HTTP 422 blocked", try_elsewhere=False)),
        (422, b'{"error": "new"}', Rejected(30008, "HTTP 422 new", try_elsewhere=True)),
        (410, b"gone", Rejected(21211, "HTTP 410", try_elsewhere=False)),
        (200, b'{"error": "blocked"}', Rejected(30004, "HTTP 200 blocked", try_elsewhere=False)),
        (200, b"whatever", Submitted(())),
        (503, b"", Unavailable("HTTP 503", retry_after_s=7.0)),
        (429, b"", Unavailable("HTTP 429", burns_attempt=False, retry_after_s=7.0)),
        (401, b"", Unavailable("HTTP 401: the carrier does not accept our credentials")),
        (302, b"", Rejected(30008, "HTTP 302", try_elsewhere=True)),
    ],
)
async def test_answers(rig_of, server, status, body, expected):
    rig = rig_of(errors={"blocked": 30004, "410": 21211})
    server.answer = lambda request: (status, {"Retry-After": "7"}, body)
    outcome, _ = await outcome_of(rig)
    assert outcome == expected


async def test_silence_is_in_doubt(rig_of, server):
    rig = rig_of(timeout_s=0.05)
    rig.treat("hold")
    outcome, _ = await outcome_of(rig)
    assert isinstance(outcome, Unavailable)
    assert outcome.in_doubt
    rig.release()


async def test_a_kept_alive_connection_that_dies_is_in_doubt_and_not_tried_again(rig_of, server):
    rig = rig_of()
    outcome, _ = await outcome_of(rig)
    assert isinstance(outcome, Submitted)
    rig.treat("lose")
    outcome, _ = await outcome_of(rig)
    assert isinstance(outcome, Unavailable)
    assert outcome.in_doubt
    assert len(server.requests) == 2


async def test_a_host_that_does_not_resolve_is_not_in_doubt(rig_of):
    rig = rig_of(url="http://carrier.invalid/sms")
    outcome, _ = await outcome_of(rig)
    assert isinstance(outcome, Unavailable)
    assert not outcome.in_doubt
    assert not rig.connector.health()[0]


async def test_refused_credentials_show_in_health_and_stop_the_flow(rig_of, server):
    rig = rig_of()
    server.answer = lambda request: (401, {}, b"")
    await outcome_of(rig)
    assert rig.connector.health() == (False, "HTTP 401: the carrier does not accept our credentials")
    assert rig.connector.capacity() == 0


async def test_media_need_another_route(rig_of, server):
    outcome, _ = await outcome_of(rig_of(), media=[MediaItem(sid="ME1", content_type="image/png")])
    assert outcome == Rejected(21612, "this route carries no media", try_elsewhere=True)
    assert not server.requests


@pytest.mark.parametrize(
    "settings",
    [
        {"fields": {"a": "{nothing}"}},
        {"fields": {"a": "1", "a.b": "2"}},
        {"url": "http://x/{nothing}"},
        {"id": "regex:("},
        {"id": "id"},
        {"error": "header:"},
    ],
)
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ValueError, match=r"."):
        make(Http(**{"name": "acme", "url": "http://x/", **settings}), Context())


# -- callbacks --------------------------------------------------------------------------------------------------


async def test_receipts_without_the_token_are_refused(rig_of):
    rig = rig_of()
    receipt = {"id": "1", "status": "delivered"}
    assert (await rig.call("receipt", receipt, query=b""))[0] == 401
    assert (await rig.call("receipt", receipt, query=b"token=wrong"))[0] == 401
    bearer = {**JSON, b"authorization": b"Bearer " + TOKEN.encode()}
    assert not rig.sink.receipts
    assert (await rig.call("receipt", receipt, query=b"", headers=bearer))[0] == 200
    assert len(rig.sink.receipts) == 1


@pytest.mark.parametrize(
    ("fields", "state", "error", "code"),
    [
        ({"status": "DELIVERED", "error": "000"}, "delivered", "", 0),
        ({"status": "failed", "error": "27"}, "undeliverable", "27", 30003),
        ({"status": "expired", "error": "99"}, "undeliverable", "99", 30008),
        ({"status": "undelivered"}, "undeliverable", "", 0),
    ],
)
async def test_receipt_states(rig_of, fields, state, error, code):
    rig = rig_of(receipt_errors={"27": 30003})
    assert (await rig.call("receipt", {"id": 12, **fields}))[0] == 200
    (receipt,) = rig.sink.receipts
    assert (receipt.carrier_id, receipt.state, receipt.error, receipt.error_code) == ("12", state, error, code)


async def test_a_batch_of_receipts(rig_of):
    rig = rig_of(receipt={"id": "results.*.ref.id", "status": "results.*.state", "time": "at"})
    body = {
        "at": "2026-01-02T03:04:05Z",
        "results": [
            {"ref": {"id": "a"}, "state": "delivered"},
            {"ref": {"id": "b"}, "state": "on its way"},
            {"ref": {"id": "c"}, "state": "rejected"},
        ],
    }
    assert (await rig.call("receipt", body))[0] == 200
    assert [(r.carrier_id, r.state, r.done_date) for r in rig.sink.receipts] == [
        ("a", "delivered", "2601020304"),
        ("c", "undeliverable", "2601020304"),
    ]


async def test_a_batch_is_acknowledged_only_as_a_whole(rig_of):
    rig = rig_of()
    kept = rig.sink.receipt

    def all_but_b(receipt):
        rig.sink.mode = "fail" if receipt.carrier_id == "b" else "keep"
        return kept(receipt)

    rig.sink.receipt = all_but_b
    status, _ = await rig.call("receipt", [{"id": name, "status": "delivered"} for name in "abc"])
    assert status == 503


async def test_form_and_query_receipts(rig_of):
    rig = rig_of(receipt={"id": "msgid", "status": "st"})
    query = urlencode({"token": TOKEN, "msgid": "q1", "st": "delivered"}).encode()
    status, _, _ = await rig.connector.handle("receipt", "GET", {}, query, b"")
    assert status == 200
    headers = {b"content-type": b"application/x-www-form-urlencoded"}
    query = urlencode({"token": TOKEN}).encode()
    status, _, _ = await rig.connector.handle("receipt", "POST", headers, query, b"msgid=f1&st=delivered")
    assert status == 200
    assert [receipt.carrier_id for receipt in rig.sink.receipts] == ["q1", "f1"]


async def test_bad_callbacks_are_refused(rig_of):
    rig = rig_of()
    query = urlencode({"token": TOKEN}).encode()

    async def status(kind: str, body: bytes, method: str = "POST", headers: dict[bytes, bytes] = JSON) -> int:
        return (await rig.connector.handle(kind, method, headers, query, body))[0]

    assert await status("receipt", b"{") == 400
    assert await status("receipt", b"[" * 100_000) == 400
    assert await status("receipt", b"7") == 400
    assert await status("receipt", b'{"id": "1"}') == 400
    assert await status("receipt", b'{"status": "delivered"}') == 400
    assert await status("inbound", b'{"from": "+491701234567"}') == 400
    assert await status("other", b"{}") == 404
    assert await status("receipt", b"{}", "DELETE") == 405
    assert await status("receipt", b" " * 300_000) == 413
    assert await status("receipt", orjson.dumps([{"id": "1", "status": "delivered"}] * 1001)) == 413
    assert await status("receipt", b"&".join([b"a=1"] * 500), headers={}) == 400
    assert not rig.sink.receipts
    assert not rig.sink.parts


async def test_a_commit_that_does_not_come_is_answered_with_503(rig_of, monkeypatch):
    assert COMMIT_TIMEOUT_S > 1
    monkeypatch.setattr("trunkline.messaging.connectors.incoming.COMMIT_TIMEOUT_S", 0.01)
    rig = rig_of()
    rig.sink.mode = "hold"
    assert not await rig.receipt("1")
    assert not rig.sink.held[0].cancelled(), "a late commit must not be cancelled"
    rig.sink.held[0].set_exception(OSError("even later"))


async def test_inbound_with_media_and_national_numbers(rig_of):
    rig = rig_of(number_country="GB", inbound={"from": "o", "to": "d", "body": "t", "id": "i", "media": "m"})
    body = {"o": "07400123456", "d": "60777", "t": "Łódź", "i": 9, "m": ["https://x/1.png", None]}
    assert (await rig.call("inbound", body))[0] == 200
    (part,) = rig.sink.parts
    assert (part.from_, part.to, part.text, part.encoding) == ("+447400123456", "60777", "Łódź", "ucs2")
    assert (part.carrier_id, part.media_urls, part.total) == ("9", ["https://x/1.png"], 1)


@pytest.mark.parametrize(
    ("text", "country", "address"),
    [
        ("+12025550142", "", "+12025550142"),
        ("12025550142", "", "+12025550142"),
        ("0044 7400 123456", "", "0044 7400 123456"),
        ("00447400123456", "", "+447400123456"),
        ("2025550142", "US", "+12025550142"),
        ("+491701234567", "GB", "+491701234567"),
        ("INFO", "DE", "INFO"),
        ("60777", "US", "60777"),
    ],
)
def test_addresses(text, country, address):
    assert address_of(text, country) == address


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        ("1767323045", "2601020304"),
        ("1767323045123", "2601020304"),
        ("2601020304", "2601020304"),
        ("260102030405", "2601020304"),
        ("2026-01-02T04:04:05+01:00", "2601020304"),
        ("2026-01-02 03:04:05", "2601020304"),
        ("yesterday", ""),
        ("99999", ""),
        ("", ""),
    ],
)
def test_done_dates(text, stamp):
    assert done_date(text) == stamp
