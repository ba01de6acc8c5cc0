"""Whole answers over real sockets, by our own way and by uvicorn's."""

import asyncio

import pytest
import uvicorn
from uvicorn.server import ServerState

from trunkline.listeners.guarded_http import HttpLimits, guarded
from trunkline.model.held import ANSWER

PATIENCE_S = 30


@pytest.fixture
async def ask():
    """Ask an app: octets in, octets out until the server closes or has said as many as are awaited."""
    servers, writers = [], []

    async def asked(app, sent, until=b"", default=()):
        limits = HttpLimits(head_bytes=8192, request_s=PATIENCE_S, write_s=PATIENCE_S, connections=10)
        config = uvicorn.Config(
            app, http=guarded(limits), ws="none", lifespan="off", log_config=None, interface="asgi3"
        )
        config.load()
        state = ServerState()
        state.default_headers = list(default)
        servers.append(
            await asyncio.get_running_loop().create_server(
                lambda: config.http_protocol_class(config=config, server_state=state, app_state={}), "127.0.0.1", 0
            )
        )
        reader, writer = await asyncio.open_connection(*servers[-1].sockets[0].getsockname())
        writers.append(writer)
        writer.write(sent)
        async with asyncio.timeout(PATIENCE_S):
            return await (reader.readuntil(until) if until else reader.read())

    yield asked
    for writer in writers:
        writer.close()
    for server in servers:
        server.close()


def saying(status=200, headers=(), body=b"yes"):
    """An app that answers at once, with what it was asked in a header."""

    async def app(scope, receive, send):
        assert ANSWER in scope["extensions"]
        target = scope["path"].encode() + b" " + scope["raw_path"] + b" " + scope["query_string"]
        said = [(b"x-asked", scope["method"].encode() + b" " + target), *headers]
        said.append((b"content-length", b"%d" % len(body)))
        await send({"type": ANSWER, "status": status, "headers": said, "body": body})

    return app


async def test_an_answer_in_one_piece(ask):
    got = await ask(saying(201), b"GET /a%20b?c=%20d HTTP/1.1\r\n\r\n", b"yes", [(b"date", b"today")])
    assert got == (
        b"HTTP/1.1 201 Created\r\ndate: today\r\nx-asked: GET /a b /a%20b c=%20d\r\ncontent-length: 3\r\n\r\nyes"
    )


@pytest.mark.parametrize("target", [b"http://here/p?q=1", b"/p?q=1#f", b"/p?q=1"])
async def test_every_form_of_target(ask, target):
    assert b"x-asked: GET /p /p q=1\r\n" in await ask(saying(), b"GET " + target + b" HTTP/1.1\r\n\r\n", b"yes")


async def test_a_connection_is_kept_until_one_of_both_says_close(ask):
    two = b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\nConnection: close\r\n\r\n"
    got = await ask(saying(), two)
    assert got.index(b"GET /1 ") < got.index(b"GET /2 ")
    assert got.count(b"connection: close\r\n") == 1
    closing = saying(503, [(b"connection", b"close")])
    got = await ask(closing, b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
    assert got.count(b"HTTP/1.1 503 Service Unavailable\r\n") == got.count(b"connection: close\r\n") == 1
    assert (await ask(saying(), b"GET /1 HTTP/1.0\r\n\r\n")).endswith(b"connection: close\r\n\r\nyes")


@pytest.mark.parametrize("end", [b"\r\n", b"\n", b"\r"])
async def test_a_line_break_in_a_header_is_never_sent(ask, end):
    got = await ask(
        saying(200, [(b"x-evil", b"1" + end + b"x-more: 2")]), b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"
    )
    assert got.startswith(b"HTTP/1.1 500 ")
    assert b"x-more" not in got


async def test_what_uvicorn_sends_goes_on_as_before(ask):
    async def app(scope, receive, send):
        assert (await receive())["body"] == b"in"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    got = await ask(app, b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nin", b"0\r\n\r\n")
    assert got.endswith(b"transfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
