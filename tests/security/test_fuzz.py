"""What others send, at random: nothing but the documented answers and errors."""

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.security.conftest import Target
from tests.webhooks.servers import Request, Server, running
from trunkline.settings import SettingsError, load
from trunkline.webhooks.connection import Response, Timeouts
from trunkline.webhooks.failures import Failure
from trunkline.webhooks.http import Client, Origin, build_request

RANDOM = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 204 No\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 Up\r\n\r\n",
        b"HTTP/1.1 302 F\r\nLocation: /\r\n", b"HTTP/9.9 999\r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n",
        b"Connection: close\r\n", b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n",
        b"ffffffffffffffff\r\n", b"hello", b"\x1f\x8b\x08\x00", b"X: " + b"a" * 5000 + b"\r\n", b"\x00", b": x\r\n",
        b"Set-Cookie: a=b; Expires=never; Max-Age=-9e9\r\n",
    ]
)  # fmt: skip
ANSWERS = st.lists(PIECES | st.binary(max_size=40), max_size=12).map(b"".join)


@RANDOM
@given(st.lists(ANSWERS, min_size=1, max_size=3))
def test_any_answer_to_a_webhook_ends_as_a_response_or_a_failure(answers: list[bytes]) -> None:
    async def run() -> None:
        client = Client()
        left = list(answers)

        def handler(request: Request) -> bytes:
            return (left.pop(0) if left else b"") + Server.CLOSE

        async with running(handler) as server:
            for _ in answers:
                origin = Origin("http", "x.test", server.port, "127.0.0.1")
                payload = build_request("GET", "/", "x.test", [])
                try:
                    got = await client.request(origin, payload, timeouts=Timeouts(1, 1, 1), max_body_bytes=1000)
                except Failure:
                    continue
                assert isinstance(got, Response)
                assert len(got.body) <= 1000
                assert 200 <= got.status <= 999
        await client.close()
        assert client.stats()["open"] == 0

    asyncio.run(run())


LINES = st.sampled_from(
    [
        "[server]", "[[connectors]]", "[security]", "[messaging]", "[[routes]]", "[webhooks]", "port = 80", "port = -1",
        "port = 'x'", "kind = 'http'", "kind = 'smpp'", "name = 'a'", "url = 'http://x/{to}'", "url = '{'",
        "window = 0",
        "host = 5", "prefixes = ['+1', 3]", "connector = 'zz'", "keep_alive_s = nan", "keep_alive_s = inf", "a.b = 1",
        "fields = {a = '{body}'}", "id = 'regex:('", "id = 'json:'", "cost = '1e999'", "validity_s = 1e400",
        "master_key = 'env:NOPE'", "master_key = 'file:/dev/zero'", "trusted_proxies = ['x']", "profile = 'production'",
        "webhook_allow = ['1.2.3.4/99']", "webhook_private_networks = true",
    ]
)  # fmt: skip


@RANDOM
@given(st.lists(LINES | st.text(max_size=20), max_size=12))
def test_any_settings_file_is_taken_or_refused_in_one_line(tmp_path: Path, lines: list[str]) -> None:
    file = tmp_path / "fuzz.toml"
    file.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    refused = ""
    try:
        load(file, {})
    except SettingsError as error:
        refused = str(error)
    assert len(refused) < 2000


@pytest.fixture(scope="module")
def chance() -> random.Random:
    """Repeatable."""
    return random.Random(7)


def test_random_requests_do_no_harm(target: Target, chance: random.Random) -> None:
    parts: list[Any] = [
        b"GET ", b"POST ", b"/healthz", b"/connectors/web/inbound", b" HTTP/1.1", b"\r\n", b"\r\n\r\n", b"Host: x\r\n",
        b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"%", b"\x00", b"a" * 3000,
        b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"Expect: 100-continue\r\n", b"Authorization: Basic ====\r\n",
        b"Content-Type: multipart/form-data; boundary=\r\n", b"/media/", b"?Expires=1&Signature=%ff",
    ]  # fmt: skip
    until = time.monotonic() + 10
    for _ in range(400):
        if time.monotonic() > until:
            break
        with target.raw() as raw:
            raw.send(b"".join(chance.choice(parts) for _ in range(chance.randint(1, 15))))
            raw.reply(0.02)
    with target.raw() as raw:
        raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert raw.reply().status == 200
    assert "Traceback" not in target.server.log.read_text(errors="replace")
