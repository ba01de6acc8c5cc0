"""The application as a whole, called without a socket."""

import asyncio
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.harness import CREDENTIALS, MESSAGES, PARENT, Harness, exchange
from trunkline.api import respond
from trunkline.api.limits import ApiLimits
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.model.errors import ApiError

ACCOUNT = "/2010-04-01/Accounts/{AccountSid}"


async def echo(request: Request, app: Any) -> Response:
    content = {
        "app": app,
        "method": request.method,
        "params": request.params,
        "form": request.form,
        "query": request.query,
        "base_url": request.base_url,
        "resource_path": request.resource_path,
        "client": request.client,
    }
    return respond.resource(request.format, content, "Echo", 201 if request.method == "POST" else 200)


async def crash(request: Request, app: Any) -> Response:
    raise RuntimeError("secret inside")


async def refuse(request: Request, app: Any) -> Response:
    raise ApiError.of(21211, to="+1", headers=(("X-Why", "because"),))


async def gone(request: Request, app: Any) -> Response:
    return respond.no_content()


ROUTES = [
    Route("api", "GET", ACCOUNT + "/Messages", echo),
    Route("api", "POST", ACCOUNT + "/Messages", echo),
    Route("api", "GET", ACCOUNT + "/Messages/{Sid}", echo),
    Route("api", "DELETE", ACCOUNT + "/Messages/{Sid}", gone),
    Route("api", "GET", ACCOUNT + "/Crash", crash),
    Route("api", "POST", ACCOUNT + "/Refuse", refuse),
    Route("messaging", "GET", "/v1/Services/{Sid}", echo),
    Route("lookups", "GET", "/v2/PhoneNumbers/{PhoneNumber}", echo),
]


def harness(**options: Any) -> Harness:
    return Harness(ROUTES, "services", **options)


async def test_post() -> None:
    reply = await harness().post(MESSAGES + ".json", {"To": "+1555", "MediaUrl": ["a", "b"], "Body": "Grüße"})
    assert reply.status == 201
    assert reply.json == {
        "app": "services",
        "method": "POST",
        "params": {"AccountSid": PARENT},
        "form": {"To": ["+1555"], "MediaUrl": ["a", "b"], "Body": ["Grüße"]},
        "query": {},
        "base_url": "http://localhost:8080",
        "resource_path": MESSAGES,
        "client": "192.0.2.1",
    }
    assert reply.headers["content-length"] == str(len(reply.body))
    assert reply.headers["twilio-request-id"].startswith("RQ")
    assert len(reply.headers["twilio-request-id"]) == 34


async def test_request_ids_differ() -> None:
    api = harness()
    ids = {(await api.get("/nothing")).headers["twilio-request-id"] for _ in range(600)}
    assert len(ids) == 600


async def test_formats() -> None:
    api = harness()
    assert (await api.get(MESSAGES + "/SM1.json")).json["params"] == {"AccountSid": PARENT, "Sid": "SM1"}
    for path in (MESSAGES + "/SM1", MESSAGES + "/SM1.xml"):
        reply = await api.get(path)
        assert reply.headers["content-type"] == "application/xml"
        assert ElementTree.fromstring(reply.body)[0].tag == "Echo"
    csv = await api.get(MESSAGES + ".csv")
    assert (csv.status, csv.code) == (406, None)
    assert "CSV" in csv.json["message"]


async def test_head_is_get_without_a_body() -> None:
    api = harness()
    full = await api.get(MESSAGES + ".json")
    head = await api.call("HEAD", MESSAGES + ".json")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == full.headers["content-length"]


async def test_delete_has_no_body() -> None:
    reply = await harness().call("DELETE", MESSAGES + "/SM1.json")
    assert (reply.status, reply.body) == (204, b"")
    assert "content-length" not in reply.headers


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("messaging.twilio.com", "/v1/Services/MG1"),
        ("messaging.sydney.au1.twilio.com", "/v1/Services/MG1"),
        ("localhost", "/messaging/v1/Services/MG1"),
        ("127.0.0.1:8080", "/messaging/v1/Services/MG1"),
        ("api.twilio.com", "/messaging/v1/Services/MG1"),
    ],
)
async def test_products(host: str, path: str) -> None:
    reply = await harness().get(path, host=host)
    assert reply.json["params"] == {"Sid": "MG1"}
    assert reply.json["resource_path"] == "/v1/Services/MG1"
    assert reply.json["base_url"] == f"http://{host}" + ("/messaging" if path.startswith("/m") else "")


async def test_segments_are_percent_decoded() -> None:
    reply = await harness().get("/v2/PhoneNumbers/%2B1%20555%2Fx", host="lookups.twilio.com")
    assert reply.json["params"] == {"PhoneNumber": "+1 555/x"}


async def test_not_found() -> None:
    api = harness()
    reply = await api.get("/2010-04-01/Nothing/Here.json", auth=None)
    assert reply.status == 404
    assert reply.json == {
        "code": 20404,
        "message": "The requested resource /2010-04-01/Nothing/Here.json was not found",
        "more_info": "https://www.twilio.com/docs/errors/20404",
        "status": 404,
    }
    xml = await api.get("/2010-04-01/Nothing")
    assert b"<RestException><Code>20404</Code>" in xml.body
    for path in ("/", "//", "/messaging", "/v1/Services/MG1", MESSAGES + "/SM1/x.json", "/messaging/v1/Services/"):
        assert (await api.get(path)).status == 404


async def test_method_not_allowed() -> None:
    reply = await harness().call("PUT", MESSAGES + ".json")
    assert (reply.status, reply.code, reply.headers["allow"]) == (405, 20004, "GET, POST")
    assert reply.json["message"] == "Method not allowed"


@pytest.mark.parametrize(
    ("method", "host", "path"),
    [
        ("POST", "localhost", f"/2010-04-01/Accounts/{PARENT}/Calls.json"),
        ("DELETE", "localhost", f"/2010-04-01/Accounts/{PARENT}/Recordings/RE1.json"),
        ("POST", "localhost", f"/2010-04-01/Accounts/{PARENT}/Messages/SM1.json"),  # we only fetch and delete
        ("POST", "verify.twilio.com", "/v2/Services/VA1/Verifications"),
        ("GET", "localhost", "/voice/v1/ByocTrunks"),
    ],
)
async def test_what_only_twilio_has(method: str, host: str, path: str) -> None:
    reply = await harness().call(method, path, host=host, auth=None)
    assert (reply.status, reply.code) == (501, None)
    assert reply.json["message"] == f"{method} {path} exists at Twilio, but this server does not offer it"


async def test_handlers_refuse_and_crash(caplog: pytest.LogCaptureFixture) -> None:
    api = harness()
    refused = await api.post(f"/2010-04-01/Accounts/{PARENT}/Refuse.json")
    assert (refused.status, refused.code, refused.headers["x-why"]) == (400, 21211, "because")
    crashed = await api.get(f"/2010-04-01/Accounts/{PARENT}/Crash.json")
    assert (crashed.status, crashed.code) == (500, 20500)
    assert b"secret" not in crashed.body
    assert "secret inside" in caplog.text
    assert crashed.headers["twilio-request-id"] in caplog.text


async def test_bodies_in_pieces_and_their_limit() -> None:
    api = harness(limits=ApiLimits(body_bytes=100))
    pieces = await api.call("POST", MESSAGES + ".json", body=[b"Bo", b"dy=", b"x", b""])
    assert pieces.json["form"] == {"Body": ["x"]}
    for body in (b"a" * 101, [b"a" * 60, b"a" * 60]):
        for headers in ({}, {"Content-Length": "5"}):  # declared honestly, and not
            reply = await api.call("POST", MESSAGES + ".json", body=body, headers=headers)
            assert (reply.status, reply.code, reply.headers["connection"]) == (413, 20413, "close")
    huge = await api.call("POST", MESSAGES + ".json", headers={"Content-Length": "9" * 400})
    assert huge.status == 413


async def test_a_client_that_leaves_gets_no_answer() -> None:
    events = [{"type": "http.request", "body": b"Bod", "more_body": True}]
    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": MESSAGES + ".json",
        "query_string": b"",
        "client": None,
        "headers": [(b"host", b"x"), (b"content-length", b"9"), (b"authorization", _basic())],
    }
    assert (await exchange(harness().api, scope, events)).status == 0


def _basic() -> bytes:
    import base64

    return b"Basic " + base64.b64encode(":".join(CREDENTIALS).encode())


async def test_a_body_that_never_comes_times_out() -> None:
    api = harness(limits=ApiLimits(body_seconds=0.01)).api
    out: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        out.append(message)

    headers = [(b"host", b"x"), (b"content-length", b"9"), (b"authorization", _basic())]
    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": MESSAGES,
        "query_string": b"",
        "headers": headers,
    }
    await api(scope, receive, send)
    assert out[0]["status"] == 408


async def test_bodies_in_memory_are_bounded() -> None:
    api = harness(limits=ApiLimits(body_bytes=100, held_body_bytes=150))
    entered, release = asyncio.Event(), asyncio.Event()

    async def receive() -> Any:
        entered.set()
        await release.wait()
        return {"type": "http.request", "body": b"a=1", "more_body": False}

    out: list[Any] = []

    async def send(message: Any) -> None:
        out.append(message)

    headers = [(b"host", b"x"), (b"transfer-encoding", b"chunked"), (b"authorization", _basic())]
    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": MESSAGES + ".json",
        "query_string": b"",
        "headers": headers,
    }
    slow = asyncio.create_task(api.api(scope, receive, send))
    await entered.wait()
    refused = await api.call("POST", MESSAGES + ".json", body=b"b" * 51)
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, 20503, "1")
    assert (await api.call("POST", MESSAGES + ".json", body=b"b" * 50)).status == 201
    release.set()
    await slow
    assert out[0]["status"] == 201
    assert (await api.call("POST", MESSAGES + ".json", body=b"b" * 100)).status == 201


async def test_requests_of_an_account_are_limited() -> None:
    api = harness(limits=ApiLimits(requests_per_second=0.001))
    assert (await api.get(MESSAGES + ".json")).status == 200
    refused = await api.get(MESSAGES + ".json")
    assert (refused.status, refused.code) == (429, 20429)
    assert 990 <= int(refused.headers["retry-after"]) <= 1001


async def test_json_bodies_are_refused_clearly() -> None:
    reply = await harness().call(
        "POST", MESSAGES + ".json", body=b'{"To":"+1"}', headers={"Content-Type": "application/json"}
    )
    assert reply.status == 415
    assert "application/x-www-form-urlencoded" in reply.json["message"]


async def test_long_paths_and_queries_and_bad_hosts() -> None:
    api = harness()
    assert (await api.get(MESSAGES + "/" + "x" * 5000 + ".json")).status == 414
    assert (await api.get(MESSAGES + ".json?" + "x" * 20_000)).status == 414
    assert (await api.get(MESSAGES + ".json?" + "a=1&" * 300)).code == 20422
    bad = await api.get(MESSAGES + ".json", host='x"><script>')
    assert (bad.status, bad.code) == (400, 20422)


async def test_forwarded_headers_count_only_from_trusted_proxies() -> None:
    headers = {
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "messaging.example.com",
        "X-Forwarded-For": "203.0.113.9",
    }
    api = harness(trusted_proxies=("10.0.0.0/8",))
    trusted = await api.get("/v1/Services/MG1", client="10.0.0.1", headers=headers)
    assert trusted.json["base_url"] == "https://messaging.example.com"
    assert trusted.json["client"] == "203.0.113.9"
    stranger = await api.get("/messaging/v1/Services/MG1", client="192.0.2.1", headers=headers)
    assert stranger.json["base_url"] == "http://localhost:8080/messaging"
    assert stranger.json["client"] == "192.0.2.1"


async def test_mounts() -> None:
    async def ready(request: Request) -> Response:
        return respond.text(request.header("X-Probe") or "ok", status=503)

    api = harness(mounts={"/readyz": ready})
    reply = await api.get("/readyz", auth=None, headers={"X-Probe": "p"})
    assert (reply.status, reply.body) == (503, b"p")
    assert (await api.post("/readyz", auth=None)).status == 404


async def test_observe() -> None:
    seen: list[tuple[str, str, int]] = []
    api = harness(observe=lambda method, template, status, seconds: seen.append((method, template, status)))
    await api.get(MESSAGES + ".json")
    await api.post(MESSAGES + ".json", auth=None)
    await api.get("/nothing")
    assert seen == [("GET", ACCOUNT + "/Messages", 200), ("POST", ACCOUNT + "/Messages", 401), ("GET", "", 404)]


async def test_lifespan_and_websockets() -> None:
    api = harness().api
    for scope, events, expected in (
        (
            {"type": "lifespan"},
            ["lifespan.startup", "lifespan.shutdown"],
            ["lifespan.startup.complete", "lifespan.shutdown.complete"],
        ),
        ({"type": "websocket"}, ["websocket.connect"], ["websocket.close"]),
    ):
        sent: list[str] = []
        left = [{"type": event} for event in events]

        async def receive(left: list[dict[str, str]] = left) -> Any:
            return left.pop(0)

        async def send(message: Any, sent: list[str] = sent) -> None:
            sent.append(message["type"])

        await api(scope, receive, send)
        assert sent == expected


class TestGarbage:
    """Whatever comes in: never a 500."""

    @settings(max_examples=150)
    @given(
        method=st.sampled_from(["GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "BREW"]),
        path=st.sampled_from(["", MESSAGES, MESSAGES + "/", "/messaging/v1/Services/"]).flatmap(
            lambda start: st.text(max_size=40).map(lambda rest: (start + rest) or "/")
        ),
        body=st.binary(max_size=120),
        login=st.booleans(),
        headers=st.dictionaries(
            st.sampled_from(
                [
                    "content-type",
                    "content-length",
                    "host",
                    "authorization",
                    "idempotency-key",
                    "x-forwarded-for",
                    "x-forwarded-host",
                    "x-forwarded-proto",
                    "transfer-encoding",
                ]
            ),
            st.binary(max_size=60),
        ),
    )
    def test_requests(self, method: str, path: str, body: bytes, login: bool, headers: dict[str, bytes]) -> None:
        api = harness(trusted_proxies=("192.0.2.1",))
        path = path if path.startswith("/") else "/" + path
        if login:
            headers.pop("authorization", None)
        reply = asyncio.run(api.call(method, path, body=body, headers=headers))
        assert 200 <= reply.status < 500 or reply.status == 501

    @settings(max_examples=60)
    @given(
        content_type=st.sampled_from(
            [
                "application/x-www-form-urlencoded",
                "multipart/form-data; boundary=X",
                "multipart/form-data",
                "text/plain",
            ]
        ),
        body=st.binary(max_size=300) | st.binary(max_size=200).map(lambda b: b"--X\r\n" + b + b"\r\n--X--\r\n"),
        key=st.none() | st.binary(max_size=40),
    )
    def test_bodies(self, content_type: str, body: bytes, key: bytes | None) -> None:
        headers: dict[str, str | bytes] = {"content-type": content_type}
        if key is not None:
            headers["idempotency-key"] = key
        for path in (MESSAGES + ".json", MESSAGES):
            reply = asyncio.run(harness().call("POST", path, body=body, headers=headers))
            assert reply.status in (201, 400, 415)
