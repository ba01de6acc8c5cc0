"""The rules of webhook requests, against real servers on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qsl

import msgspec
import pytest
import pytest_asyncio
from twilio.request_validator import RequestValidator

from tests.webhooks.servers import Authority, Request, Server, answer, running
from trunkline.model.clock import SystemClock
from trunkline.settings import Webhooks
from trunkline.webhooks.auth import challenges
from trunkline.webhooks.fetch import Fetcher, FetchRequest, Session
from trunkline.webhooks.guard import Guard
from trunkline.webhooks.http import Client

PARAMS = [("MessageSid", "SM" + "0" * 32), ("Body", "a & b ü"), ("From", "+14155550100"), ("FromCity", "")]
TWIML = b"<Response><Message>hi</Message></Response>"
XML = "Content-Type: text/xml"


def made(client: Client, **options: object) -> Fetcher:
    return Fetcher(client, Guard.development(), SystemClock(), **options)  # type: ignore[arg-type]


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Client]:
    client = Client()
    yield client
    await client.close()


@pytest_asyncio.fixture
async def fetcher(client: Client) -> Fetcher:
    return made(client)


def request(server: Server, path: str = "/sms", **options: object) -> FetchRequest:
    fields: dict[str, object] = {
        "url": f"http://127.0.0.1:{server.port}{path}",
        "secret": "12345",
        "params": PARAMS,
        "idempotency_token": "token-1",
    }
    return FetchRequest(**(fields | options))  # type: ignore[arg-type]


async def test_a_post(fetcher: Fetcher) -> None:
    async with running(lambda r: answer(TWIML, 200, XML)) as server:
        outcome = await fetcher.fetch(request(server, "/sms?x=1#rc=2"))
    assert outcome.error_code == 0
    assert outcome.answer is not None
    assert outcome.answer == (200, "text/xml", TWIML, f"http://127.0.0.1:{server.port}/sms?x=1")
    (seen,) = server.requests
    assert (seen.method, seen.path) == ("POST", "/sms?x=1")
    assert parse_qsl(seen.body.decode(), keep_blank_values=True) == PARAMS
    assert seen.headers["user-agent"] == "TwilioProxy/1.1"
    assert seen.headers["accept"] == "*/*"
    assert seen.headers["content-type"] == "application/x-www-form-urlencoded; charset=UTF-8"
    assert seen.headers["i-twilio-idempotency-token"] == "token-1"
    url = f"http://{seen.headers['host']}{seen.path}"
    assert RequestValidator("12345").validate(url, dict(PARAMS), seen.headers["x-twilio-signature"])


async def test_a_get_carries_the_parameters_in_the_signed_url(fetcher: Fetcher) -> None:
    async with running(lambda r: answer(TWIML, 200, XML)) as server:
        for path in ("/sms", "/sms?x=1", "/sms?"):
            outcome = await fetcher.fetch(request(server, path, method="GET"))
            assert outcome.answer is not None
    for seen, query in zip(server.requests, ("", "x=1&", ""), strict=True):
        assert seen.method == "GET"
        assert seen.body == b""
        assert seen.path.startswith(f"/sms?{query}MessageSid=SM0")
        assert dict(parse_qsl(seen.path.partition("?")[2], keep_blank_values=True)).items() >= dict(PARAMS).items()
        url = f"http://{seen.headers['host']}{seen.path}"
        assert RequestValidator("12345").validate(url, {}, seen.headers["x-twilio-signature"])


async def test_an_attempt_shows_everything_but_secrets(fetcher: Fetcher) -> None:
    session = Session()

    def handler(r: Request) -> bytes:
        if "authorization" not in r.headers:
            return answer(b"", 401, 'WWW-Authenticate: Basic realm="x"', "Set-Cookie: sid=secretcookie")
        return answer(b"oh no" * 10_000, 500, "X-Why: because", "Set-Cookie: sid=secretcookie")

    async with running(handler) as server:
        url = f"http://user:secretpass@127.0.0.1:{server.port}/sms"
        attempt = await fetcher.attempt_once(request(server, url=url, session=session, secret="auth-token"))
    assert "cookie" in server.requests[1].headers
    assert (attempt.status, attempt.error_code, attempt.failure) == (500, 11200, "")
    assert attempt.error == "the server answered with HTTP status 500"
    assert attempt.url == f"http://user:***@127.0.0.1:{server.port}/sms"
    assert attempt.method == "POST"
    assert list(attempt.params) == PARAMS
    assert attempt.response_headers["X-Why"] == "because"
    assert len(attempt.response_body) == 16 * 1024
    assert attempt.request_headers["User-Agent"] == "TwilioProxy/1.1"
    assert attempt.request_headers["Authorization"] == attempt.request_headers["Cookie"] == "***"
    assert abs(attempt.started_ms - time.time() * 1000) < 10_000
    assert attempt.total_ms > 0
    text = msgspec.json.encode(attempt).decode()
    assert "secretpass" not in text
    assert "secretcookie" not in text
    assert "auth-token" not in text


@pytest.mark.parametrize(
    ("status", "method", "has_params"),
    [(301, "GET", False), (302, "GET", False), (303, "GET", False), (307, "POST", True), (308, "POST", True)],
)
async def test_redirects(fetcher: Fetcher, status: int, method: str, has_params: bool) -> None:
    def handler(r: Request) -> bytes:
        if r.path == "/a/sms":
            return answer(b"", status, "Location: next?y=1")
        return answer(TWIML, 200, XML)

    async with running(handler) as server:
        outcome = await fetcher.fetch(request(server, "/a/sms"))
        assert outcome.answer is not None
        assert outcome.answer.url == f"http://127.0.0.1:{server.port}/a/next?y=1"
    seen = server.requests[1]
    assert (seen.method, seen.path, bool(seen.body)) == (method, "/a/next?y=1", has_params)
    url = f"http://{seen.headers['host']}{seen.path}"
    judge = RequestValidator("12345")
    assert judge.validate(url, dict(PARAMS) if has_params else {}, seen.headers["x-twilio-signature"])
    (hop,) = outcome.attempts[0].redirects
    assert (hop.url, hop.status) == (f"http://127.0.0.1:{server.port}/a/sms", status)


async def test_a_redirect_loop_ends(fetcher: Fetcher) -> None:
    async with running(lambda r: answer(b"", 302, "Location: /sms")) as server:
        outcome = await fetcher.fetch(request(server))
        assert outcome.error_code == 11215
        assert outcome.answer is None
        assert len(server.requests) == 11
        assert len(outcome.attempts) == 1


async def test_every_hop_is_guarded(client: Client) -> None:
    async with running(lambda r: answer(b"", 302, "Location: http://169.254.169.254/latest")) as server:
        outcome = await made(client).fetch(request(server))
        assert outcome.error_code == 11210
        assert outcome.attempts[0].failure == "host-refused"
        outcome = await Fetcher(client, Guard(), SystemClock()).fetch(request(server))
        assert outcome.error_code == 11210
        assert len(server.requests) == 1


@pytest.mark.parametrize("location", ["ftp://x/", "http://[", "http://a b/", "http://x:0/"])
async def test_a_redirect_to_nowhere(fetcher: Fetcher, location: str) -> None:
    async with running(lambda r: answer(b"", 302, f"Location: {location}")) as server:
        assert (await fetcher.fetch(request(server))).error_code == 11100


async def test_a_redirect_without_location_is_a_failure(fetcher: Fetcher) -> None:
    async with running(lambda r: answer(b"", 302)) as server:
        assert (await fetcher.fetch(request(server))).error_code == 11200


async def test_cookies_are_kept_for_the_conversation(fetcher: Fetcher) -> None:
    session = Session()
    async with running(lambda r: answer(TWIML, 200, "Set-Cookie: step=2; Path=/")) as server:
        await fetcher.fetch(request(server, session=session))
        await fetcher.fetch(request(server, "/other", session=session))
        await fetcher.fetch(request(server, "/other"))
    assert [r.headers.get("cookie") for r in server.requests] == [None, "step=2", None]


async def test_basic_credentials_go_out_after_a_challenge_only_and_stay(fetcher: Fetcher) -> None:
    session = Session()

    def handler(r: Request) -> bytes:
        if r.headers.get("authorization") == "Basic dXNlcjpwQHNz":
            return answer(TWIML, 200, XML)
        return answer(b"", 401, 'WWW-Authenticate: Basic realm="x"')

    async with running(handler) as server:
        url = f"http://user:p%40ss@127.0.0.1:{server.port}/sms"
        for _ in range(2):
            outcome = await fetcher.fetch(request(server, url=url, session=session))
            assert outcome.error_code == 0
        sent = [r.headers.get("authorization") for r in server.requests]
        assert sent == [None, "Basic dXNlcjpwQHNz", "Basic dXNlcjpwQHNz"]
        outcome = await fetcher.fetch(request(server))
        assert outcome.error_code == 11200
        assert outcome.attempts[0].status == 401


async def test_wrong_credentials_are_tried_once(fetcher: Fetcher) -> None:
    async with running(lambda r: answer(b"", 401, "WWW-Authenticate: Basic")) as server:
        url = f"http://user:wrong@127.0.0.1:{server.port}/sms"
        outcome = await fetcher.fetch(request(server, url=url, session=Session()))
        assert outcome.attempts[0].status == 401
        assert len(server.requests) == 2


def digest_ok(r: Request, nonce: str) -> bool:
    """The server's side of RFC 7616 with SHA-256, written out on its own."""
    found = challenges([r.headers.get("authorization", "")])
    if not found:
        return False
    f = found[0][1]

    def h(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    wanted = h(f"{h('user:the realm:pass')}:{nonce}:{f['nc']}:{f['cnonce']}:auth:{h(f'{r.method}:{r.path}')}")
    return f["nonce"] == nonce and f["response"] == wanted and f["uri"] == r.path


async def test_digest_with_a_nonce_that_goes_stale(fetcher: Fetcher) -> None:
    session = Session()
    nonces = ["one"]

    def handler(r: Request) -> bytes:
        if digest_ok(r, nonces[-1]):
            return answer(TWIML, 200, XML)
        stale = ", stale=true" if "authorization" in r.headers else ""
        challenge = f'Digest realm="the realm", nonce="{nonces[-1]}", qop="auth", algorithm=SHA-256{stale}'
        return answer(b"", 401, f"WWW-Authenticate: {challenge}", "WWW-Authenticate: Basic")

    async with running(handler) as server:
        url = f"http://user:pass@127.0.0.1:{server.port}/sms?a=b"
        for nonce, requests in (("one", 2), ("one", 3), ("two", 5)):
            nonces.append(nonce)
            outcome = await fetcher.fetch(request(server, url=url, session=session, method="GET"))
            assert outcome.error_code == 0
            assert len(server.requests) == requests
    counts = [challenges([r.headers["authorization"]])[0][1]["nc"] for r in server.requests[1:]]
    assert counts == ["00000001", "00000002", "00000003", "00000001"]


async def test_credentials_do_not_follow_to_another_origin(fetcher: Fetcher) -> None:
    async with running(lambda r: answer(b"", 401, "WWW-Authenticate: Basic")) as other:
        to = f"http://127.0.0.1:{other.port}/x"
        async with running(lambda r: answer(b"", 307, f"Location: {to}")) as server:
            url = f"http://user:pass@127.0.0.1:{server.port}/sms"
            outcome = await fetcher.fetch(request(server, url=url, session=Session()))
    assert outcome.attempts[0].status == 401
    assert [r.headers.get("authorization") for r in other.requests] == [None]


@pytest.mark.parametrize(
    ("fragment", "status", "tries"),
    [
        ("", 500, 1),
        ("#rp=5xx", 500, 2),
        ("#rp=5xx&rc=3", 500, 4),
        ("#rp=5xx&rc=3", 404, 1),
        ("#rp=4xx&rc=2", 404, 3),
        ("#rp=all&rc=0", 500, 1),
        ("#rp=all&rc=5", 200, 1),
    ],
)
async def test_retries_follow_the_overrides(fetcher: Fetcher, fragment: str, status: int, tries: int) -> None:
    async with running(lambda r: answer(b"x", status)) as server:
        outcome = await fetcher.fetch(request(server, "/sms" + fragment))
        assert len(server.requests) == len(outcome.attempts) == tries
        assert {r.headers["i-twilio-idempotency-token"] for r in server.requests} == {"token-1"}
        assert outcome.error_code == (0 if status == 200 else 11200)
        single = await fetcher.once(request(server, "/sms" + fragment))
        assert len(single.attempts) == 1


async def test_a_failed_connection_is_tried_once_more_by_default(fetcher: Fetcher) -> None:
    async with running(lambda r: answer()) as server:
        dead = request(server)
    outcome = await fetcher.fetch(dead)
    assert [attempt.error_code for attempt in outcome.attempts] == [11205, 11205]
    assert outcome.attempts[0].failure == "connection-failed"
    assert outcome.answer is None


async def test_timeouts_of_the_overrides(fetcher: Fetcher) -> None:
    async def silent(r: Request) -> bytes:
        await asyncio.sleep(30)
        return b""

    async with running(silent) as server:
        outcome = await fetcher.fetch(request(server, "/sms#rt=100"))
        assert [(a.failure, a.error_code) for a in outcome.attempts] == [("read-timeout", 11200)]
        outcome = await fetcher.fetch(request(server, "/sms#rt=100&rp=rt&rc=2"))
        assert len(outcome.attempts) == 3
        started = time.monotonic()
        outcome = await fetcher.fetch(request(server, "/sms#rt=200&tt=500&rp=all&rc=5"))
        assert 0.4 < time.monotonic() - started < 2  # the total time is over all tries
        assert [a.failure for a in outcome.attempts] == ["read-timeout", "read-timeout", "total-timeout"]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"garbage\r\n\r\n", 11206),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab" + Server.CLOSE, 11206),
        (b"", 11205),
        (answer(b"x" * 70_000), 11750),
        (answer(b"", 404), 11200),
        (answer(b"", 503), 11200),
    ],
)
async def test_codes(fetcher: Fetcher, raw: bytes, code: int) -> None:
    async with running(lambda r: raw) as server:
        outcome = await fetcher.once(request(server))
    assert outcome.error_code == outcome.attempts[0].error_code == code
    assert outcome.error


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ftp://x.test/", 11100),
        ("no url", 11100),
        ("http://my_host.test/", 11210),
        ("http://does-not-exist.invalid/", 11210),
        ("http://10.0.0.1/", 11210),
        ("https://user:secret@x y/", 11100),
    ],
)
async def test_urls_that_cannot_be_reached(fetcher: Fetcher, url: str, code: int) -> None:
    outcome = await fetcher.once(FetchRequest(url=url, secret="s"))
    assert outcome.error_code == code
    assert "secret" not in repr(outcome)


async def test_plain_http_can_be_refused(client: Client) -> None:
    async with running(lambda r: answer()) as server:
        outcome = await made(client, allow_http=False).once(request(server))
        assert outcome.error_code == 11100
        assert server.requests == []


async def test_a_callbacks_long_answer_is_cut_and_no_failure(fetcher: Fetcher) -> None:
    async with running(lambda r: answer(b"x" * 200_000)) as server:
        outcome = await fetcher.once(request(server, document=False))
    assert outcome.error_code == 0
    assert outcome.answer is not None
    assert len(outcome.answer.body) == Webhooks().response_bytes


async def test_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    client = Client(ca_data=authority.pem)
    strange = Authority(tmp_path)
    contexts: list[tuple[ssl.SSLContext, int]] = [
        (authority.context("127.0.0.1"), 0),
        (authority.context("y.test"), 11235),
        (authority.context("127.0.0.1", days=-1), 11236),
        (strange.context("127.0.0.1"), 11237),
    ]
    for context, code in contexts:
        async with running(lambda r: answer(TWIML, 200, XML), context) as server:
            url = f"https://127.0.0.1:{server.port}/sms"
            assert (await made(client).once(request(server, url=url))).error_code == code
            assert (await made(client).once(request(server, url=url, verify_tls=False))).error_code == 0
    await client.close()


async def test_documents_with_a_validator_are_cached(fetcher: Fetcher) -> None:
    def handler(r: Request) -> bytes:
        if r.headers.get("if-none-match") == '"v1"':
            return b"HTTP/1.1 304 Not Modified\r\n\r\n"
        return answer(TWIML, 200, XML, 'ETag: "v1"')

    async with running(handler) as server:
        for scope in ("AC1", "AC1", "AC2", ""):
            outcome = await fetcher.fetch(request(server, method="GET", params=(), cache_scope=scope))
            assert outcome.answer is not None
            assert (outcome.answer.status, outcome.answer.content_type, outcome.answer.body) == (200, "text/xml", TWIML)
        await fetcher.fetch(request(server, params=(), cache_scope="AC1"))
    conditions = [r.headers.get("if-none-match") for r in server.requests]
    assert conditions == [None, '"v1"', None, None, None]


async def test_the_next_address_is_tried_when_one_is_dead(client: Client) -> None:
    async def names(host: str) -> list[str]:
        return ["127.0.0.99", "127.0.0.1"]

    fetcher = Fetcher(client, Guard(["127.0.0.0/8"], resolver=names), SystemClock())
    async with running(lambda r: answer(TWIML, 200, XML)) as server:
        outcome = await fetcher.fetch(request(server, url=f"http://two.test:{server.port}/sms"))
        assert [a.error_code for a in outcome.attempts] == [11205, 0]
        assert server.requests[0].headers["host"] == f"two.test:{server.port}"
