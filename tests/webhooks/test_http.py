"""The HTTP client against real servers on loopback, on asyncio's loop and on uvloop."""

from __future__ import annotations

import asyncio
import gc
import gzip
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.webhooks.servers import Authority, Request, Server, answer, running
from trunkline.webhooks.connection import Connection, Response, Timeouts
from trunkline.webhooks.failures import (
    BodyTooLarge,
    Closed,
    ConnectionFailed,
    ConnectTimeout,
    Failure,
    InvalidUrl,
    ProtocolError,
    ReadTimeout,
    Saturated,
    TlsFailed,
    TotalTimeout,
)
from trunkline.webhooks.http import Client, Origin, build_request

GET = build_request("GET", "/", "x.test", [])


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Client]:
    made = Client()
    yield made
    await made.close()
    assert made.stats()["open"] == 0


def origin(server: Server, **changes: object) -> Origin:
    return Origin("http", "x.test", server.port, "127.0.0.1")._replace(**changes)


async def test_a_request_and_its_response(client: Client) -> None:
    async with running(lambda request: answer(b"body", 201, "X-A: 1", "X-A: 2")) as server:
        payload = build_request("POST", "/p?q=1", "x.test", [("X-B", "b")], b"a=b")
        response = await client.request(origin(server), payload)
    assert (response.status, response.body, response.truncated) == (201, b"body", False)
    assert response.header("x-a") == "1"
    assert response.header_list("X-a") == ["1", "2"]
    assert 0 <= response.timing.connect_ms <= response.timing.first_byte_ms <= response.timing.total_ms
    (request,) = server.requests
    assert (request.method, request.path, request.body) == ("POST", "/p?q=1", b"a=b")
    assert request.headers == {"host": "x.test", "x-b": "b", "content-length": "3"}


async def test_a_connection_that_has_closed_goes_at_once(client: Client) -> None:
    """Without waiting for the garbage collector: its parser and it know each other."""
    gc.collect()
    gc.disable()
    try:
        async with running(lambda request: answer() + Server.CLOSE) as server:
            for _ in range(3):
                assert (await client.request(origin(server), GET)).status == 200
        while client.stats()["open"]:
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # the loop's own last reference
        assert not [one for one in gc.get_objects() if isinstance(one, Connection)]
    finally:
        gc.enable()


async def test_connections_are_kept_alive(client: Client) -> None:
    async with running(lambda request: answer()) as server:
        for _ in range(5):
            await client.request(origin(server), GET)
        assert server.connections == 1
        assert client.stats() == {"open": 1, "idle": 1, "waiting": 0, "hosts": 1}


@pytest.mark.parametrize(
    "raw", [answer(b"x", 200, "Connection: close"), b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx"]
)
async def test_connections_the_server_wants_closed_are_not_used_again(client: Client, raw: bytes) -> None:
    async with running(lambda request: raw) as server:
        for _ in range(2):
            assert (await client.request(origin(server), GET)).body == b"x"
        assert server.connections == 2


async def test_an_idle_connection_is_closed_in_time() -> None:
    client = Client(idle_s=0.05)
    async with running(lambda request: answer()) as server:
        await client.request(origin(server), GET)
        assert client.stats()["idle"] == 1
        async with asyncio.timeout(60):
            while client.stats()["open"]:
                await asyncio.sleep(0.01)
    assert client.stats()["hosts"] == 0
    await client.close()


async def test_one_connection_is_kept_per_origin(client: Client) -> None:
    async with running(lambda request: answer()) as server:
        for changes in ({}, {"host": "y.test"}, {"address": "127.0.0.2"}, {"sni": False}):
            try:
                await client.request(origin(server, **changes), GET)
            except ConnectionFailed:
                assert "address" in changes
        assert server.connections == 3


async def test_a_dead_kept_alive_connection_is_replaced_once(client: Client) -> None:
    def handler(request: Request) -> bytes:
        return b"" if request.connection == 1 and len(server.requests) == 2 else answer()

    async with running(handler) as server:
        await client.request(origin(server), GET)
        assert (await client.request(origin(server), GET)).status == 200
        assert [request.connection for request in server.requests] == [1, 1, 2]


async def test_a_fresh_connection_that_dies_is_no_reason_to_repeat(client: Client) -> None:
    async with running(lambda request: b"") as server:
        with pytest.raises(ConnectionFailed, match="before any response"):
            await client.request(origin(server), GET)
        assert len(server.requests) == 1


async def test_a_second_death_is_told(client: Client) -> None:
    async with running(lambda request: answer() if len(server.requests) == 1 else b"") as server:
        await client.request(origin(server), GET)
        with pytest.raises(ConnectionFailed):
            await client.request(origin(server), GET)
        assert len(server.requests) == 3


async def test_a_response_that_stops_in_the_middle_is_not_repeated(client: Client) -> None:
    async with running(
        lambda request: answer() if len(server.requests) == 1 else b"HTTP/1.1 200 OK\r\n" + Server.CLOSE
    ) as server:
        await client.request(origin(server), GET)
        with pytest.raises(ProtocolError, match="middle"):
            await client.request(origin(server), GET)
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: x\r\n\r\n",
            b"abcde",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end" + Server.CLOSE, b"until the end"),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + answer(b"z"),
            b"z",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", b"x"),
    ],
    ids=["chunked", "until-close", "interim", "no-content", "no-reason"],
)
async def test_framings(client: Client, raw: bytes, body: bytes) -> None:
    async with running(lambda request: raw) as server:
        response = await client.request(origin(server), GET)
    assert response.body == body
    assert 200 <= response.status < 300


GARBAGE = {
    "not http": b"SSH-2.0-OpenSSH_9.6\r\n",
    "binary": bytes(range(256)),
    "bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "switching": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nraw",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
    "one endless header": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
    "endless interim": b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
    "short body": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc" + Server.CLOSE,
    "header folding": b"HTTP/1.1 200 OK\r\n X: y\r\n\r\n",
}


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_is_a_protocol_error(client: Client, raw: bytes) -> None:
    async with running(lambda request: raw) as server:
        with pytest.raises(ProtocolError):
            await client.request(origin(server), GET, timeouts=Timeouts(1, 1, 2))
    assert client.stats()["idle"] == 0


async def test_what_follows_a_response_unasked_closes_the_connection(client: Client) -> None:
    async with running(lambda request: answer(b"one") + answer(b"two")) as server:
        assert (await client.request(origin(server), GET)).body == b"one"
        assert (await client.request(origin(server), GET)).body == b"one"
        assert server.connections == 2


async def test_a_body_at_the_limit_and_one_beyond(client: Client) -> None:
    async with running(lambda request: answer(b"x" * 1000)) as server:
        assert len((await client.request(origin(server), GET, max_body_bytes=1000)).body) == 1000
        with pytest.raises(BodyTooLarge):
            await client.request(origin(server), GET, max_body_bytes=999)
        response = await client.request(origin(server), GET, max_body_bytes=999, truncate=True)
        assert (len(response.body), response.truncated) == (999, True)


ENDLESS = {
    "body": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 500_000,
    "tiny chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000,
    "chunk extension": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 500_000,
    "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 100_000,
}


@pytest.mark.parametrize("raw", ENDLESS.values(), ids=ENDLESS.keys())
async def test_no_stream_goes_on_for_ever(client: Client, raw: bytes) -> None:
    async with running(lambda request: raw) as server:
        with pytest.raises(BodyTooLarge):
            await client.request(origin(server), GET, max_body_bytes=1000, timeouts=Timeouts(1, 2, 3))


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("gzip", gzip.compress(b"hello" * 100, mtime=0)),
        ("X-GZIP", gzip.compress(b"hello" * 100, mtime=0)),
        ("deflate", zlib.compress(b"hello" * 100)),
        ("deflate", zlib.compress(b"hello" * 100)[2:-4]),
        ("identity", b"hello" * 100),
    ],
)
async def test_compressed_bodies(client: Client, encoding: str, data: bytes) -> None:
    async with running(lambda request: answer(data, 200, f"Content-Encoding: {encoding}")) as server:
        assert (await client.request(origin(server), GET)).body == b"hello" * 100


async def test_a_compression_bomb_is_too_large(client: Client) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000, mtime=0)
    async with running(lambda request: answer(bomb, 200, "Content-Encoding: gzip")) as server:
        with pytest.raises(BodyTooLarge):
            await client.request(origin(server), GET)
        response = await client.request(origin(server), GET, truncate=True, max_body_bytes=65_536)
        assert response.truncated


CUT_SHORT = gzip.compress(b"x" * 99, mtime=0)[:-9]


@pytest.mark.parametrize(("encoding", "data"), [("gzip", b"no"), ("br", b"x"), ("gzip", CUT_SHORT)])
async def test_bodies_that_cannot_be_decoded(client: Client, encoding: str, data: bytes) -> None:
    async with running(lambda request: answer(data, 200, f"Content-Encoding: {encoding}")) as server:
        with pytest.raises(ProtocolError):
            await client.request(origin(server), GET)
        assert (await client.request(origin(server), GET, truncate=True)).body == data


async def test_timeouts_are_exact(client: Client) -> None:
    async def silent(request: Request) -> bytes:
        await asyncio.sleep(30)
        return b""

    async with running(silent) as server:
        started = time.monotonic()
        with pytest.raises(ReadTimeout):
            await client.request(origin(server), GET, timeouts=Timeouts(1, 0.15, 1))
        assert 0.14 <= time.monotonic() - started < 0.6
        started = time.monotonic()
        with pytest.raises(TotalTimeout):
            await client.request(origin(server), GET, timeouts=Timeouts(1, 1, 0.15))
        assert 0.14 <= time.monotonic() - started < 0.6
    assert client.stats()["idle"] == 0


async def test_a_short_timeout_after_a_long_one_on_the_same_connection(client: Client) -> None:
    async def second_is_silent(request: Request) -> bytes:
        if len(server.requests) == 2:
            await asyncio.sleep(30)
        return answer()

    async with running(second_is_silent) as server:
        await client.request(origin(server), GET, timeouts=Timeouts(5, 15, 15))
        async with asyncio.timeout(60):
            with pytest.raises(ReadTimeout):
                await client.request(origin(server), GET, timeouts=Timeouts(5, 0.1, 15))
        assert server.connections == 1


async def test_every_byte_moves_the_read_timeout_but_not_the_total(client: Client) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        try:
            while not writer.is_closing():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)
        finally:
            writer.close()

    listener = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    started = time.monotonic()
    with pytest.raises(TotalTimeout):
        await client.request(Origin("http", "x", port, "127.0.0.1"), GET, timeouts=Timeouts(1, 0.2, 0.5))
    assert 0.45 <= time.monotonic() - started < 1.5
    listener.close()
    await asyncio.sleep(0.1)


async def test_refused(client: Client) -> None:
    async with running(lambda request: answer()) as server:
        dead = origin(server)
    with pytest.raises(ConnectionFailed, match="refused"):
        await client.request(dead, GET)
    assert client.stats() == {"open": 0, "idle": 0, "waiting": 0, "hosts": 0}


async def test_connect_timeout_covers_the_tls_handshake(client: Client) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    with pytest.raises(ConnectTimeout):
        await client.request(Origin("https", "x.test", port, "127.0.0.1"), GET, timeouts=Timeouts(0.1, 5, 5))
    with pytest.raises(TotalTimeout):
        await client.request(Origin("https", "x.test", port, "127.0.0.1"), GET, timeouts=Timeouts(5, 5, 0.1))
    listener.close()
    assert client.stats()["open"] == 0


async def test_requests_beyond_the_connections_wait_in_order() -> None:
    gate = asyncio.Event()

    async def wait(request: Request) -> bytes:
        await gate.wait()
        return answer(request.path.encode())

    client = Client(max_per_host=2, max_waiting_per_host=3)
    async with running(wait) as server:
        calls = [
            asyncio.ensure_future(client.request(origin(server), build_request("GET", f"/{n}", "x", [])))
            for n in range(6)
        ]
        await asyncio.sleep(0)
        with pytest.raises(Saturated):
            await calls[5]
        assert client.stats() == {"open": 2, "idle": 0, "waiting": 3, "hosts": 1}
        gate.set()
        bodies = [(await call).body for call in calls[:5]]
        assert bodies == [b"/0", b"/1", b"/2", b"/3", b"/4"]
        assert server.connections == 2
        assert client.stats()["waiting"] == 0
    await client.close()


async def test_waiting_has_a_time_limit_and_leaves_the_line() -> None:
    gate = asyncio.Event()

    async def wait(request: Request) -> bytes:
        await gate.wait()
        return answer()

    client = Client(max_per_host=1)
    async with running(wait) as server:
        first = asyncio.ensure_future(client.request(origin(server), GET))
        await asyncio.sleep(0)
        with pytest.raises(TotalTimeout, match="no free connection"):
            await client.request(origin(server), GET, timeouts=Timeouts(1, 1, 0.05))
        waiting = asyncio.ensure_future(client.request(origin(server), GET))
        await asyncio.sleep(0)
        assert client.stats()["waiting"] == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert client.stats()["waiting"] == 0
        gate.set()
        assert (await first).status == 200
        assert len(server.requests) == 1
    await client.close()


async def test_the_total_bound_makes_room_by_closing_idle_ones_and_by_waiting() -> None:
    client = Client(max_total=2, max_per_host=2)
    gate = asyncio.Event()

    async def wait(request: Request) -> bytes:
        await gate.wait()
        return answer()

    async with running(lambda r: answer()) as one, running(wait) as two, running(wait) as three:
        await client.request(origin(one), GET)
        calls = [asyncio.ensure_future(client.request(origin(s), GET)) for s in (two, three, three, one)]
        await asyncio.sleep(0)
        assert client.stats()["open"] == 2
        assert client.stats()["waiting"] == 2
        gate.set()
        for call in calls:
            assert (await call).status == 200
        assert client.stats()["open"] <= 2
    await client.close()


async def test_a_cancelled_request_frees_its_connection(client: Client) -> None:
    started = asyncio.Event()

    async def hang(request: Request) -> bytes:
        started.set()
        await asyncio.sleep(30)
        return b""

    async with running(hang) as server:
        call = asyncio.ensure_future(client.request(origin(server), GET))
        await started.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        async with asyncio.timeout(60):
            while client.stats()["open"]:
                await asyncio.sleep(0)


async def test_close_fails_what_is_under_way() -> None:
    client = Client(max_per_host=1)

    async def hang(request: Request) -> bytes:
        await asyncio.sleep(30)
        return b""

    async with running(hang) as server:
        results: list[Response | Failure] = []
        client.request_nowait(origin(server), GET, results.append)
        client.request_nowait(origin(server), GET, results.append)
        while not server.requests:
            await asyncio.sleep(0.001)
        await client.close()
        client.request_nowait(origin(server), GET, results.append)
        await asyncio.sleep(0)
    assert [type(result) for result in results] == [Closed, Closed, Closed]


async def test_an_error_of_the_one_told_does_not_harm_the_connection(client: Client) -> None:
    errors: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))

    def bad(result: Response | Failure) -> None:
        raise ValueError("mine")

    async with running(lambda request: answer()) as server:
        client.request_nowait(origin(server), GET, bad)
        assert (await client.request(origin(server), GET)).status == 200
        while not errors:
            await asyncio.sleep(0.001)
        assert str(errors[0]["exception"]) == "mine"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(Path(tmp_path_factory.mktemp("ca")))


async def test_tls_with_a_trusted_certificate(authority: Authority) -> None:
    client = Client(ca_data=authority.pem)
    async with running(lambda request: answer(b"safe"), authority.context("x.test")) as server:
        for _ in range(2):
            assert (await client.request(origin(server, scheme="https"), GET)).body == b"safe"
        assert server.connections == 1
    await client.close()


@pytest.mark.parametrize("sni", [True, False])
@pytest.mark.parametrize(
    ("host", "days", "trusted", "code"),
    [("x.test", 1, False, 11237), ("y.test", 1, True, 11235), ("x.test", -1, True, 11236)],
)
async def test_certificates_that_are_refused(
    authority: Authority, host: str, days: int, trusted: bool, code: int, sni: bool
) -> None:
    client = Client(ca_data=authority.pem if trusted else None)
    async with running(lambda request: answer(), authority.context(host, days=days)) as server:
        with pytest.raises(TlsFailed) as caught:
            await client.request(origin(server, scheme="https", sni=sni), GET)
        assert caught.value.code == code
        response = await client.request(origin(server, scheme="https", sni=sni, verify=False), GET)
        assert response.status == 200
    await client.close()


async def test_without_sni_the_name_is_still_checked_and_not_sent(authority: Authority) -> None:
    names: list[str | None] = []
    context = authority.context("x.test")
    context.sni_callback = lambda ssl_object, name, ctx: names.append(name)
    client = Client(ca_data=authority.pem)
    async with running(lambda request: answer(), context) as server:
        await client.request(origin(server, scheme="https", sni=False), GET)
        await client.request(origin(server, scheme="https"), GET)
    assert [name for name in names if name is not None] == ["x.test"]
    await client.close()


async def test_a_plain_server_behind_an_https_url(client: Client) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(answer())
        await writer.drain()
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    with pytest.raises(TlsFailed) as caught:
        await client.request(Origin("https", "x.test", port, "127.0.0.1"), GET)
    assert caught.value.code == 11220
    listener.close()


@pytest.mark.parametrize(
    ("path", "host", "headers"),
    [
        ("/a b", "x", []),
        ("/a\r\nX: y", "x", []),
        ("/", "x\r\ny", []),
        ("/", "x", [("A", "b\r\nc: d")]),
        ("/", "x", [("A\n", "b")]),
        ("/", "x", [("A", "ü")]),
    ],
)
def test_nothing_can_break_out_of_its_line(path: str, host: str, headers: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidUrl):
        build_request("GET", path, host, headers)
