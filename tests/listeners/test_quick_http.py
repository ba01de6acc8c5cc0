"""The short way through the HTTP listener: whoever takes it or not, clients see the same."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from trunkline.listeners.guarded_http import HttpLimits
from trunkline.listeners.quick_http import MAX_QUICK_BODY_BYTES, quick

LIMITS = HttpLimits(head_bytes=8192, request_s=1.0, write_s=1.0, connections=10)


async def usual(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    text = b"usual %s %d" % (scope["path"].encode(), len(body))
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]},
    )
    await send({"type": "http.response.body", "body": text})


class Site:
    """The listener; `/now` is answered at once, `/later` when `release` is called, all else goes the usual way."""

    def __init__(self) -> None:
        self.held: list[Callable[[], None]] = []
        self.came = asyncio.Event()
        self.protocols: list[Any] = []

    def take(self, scope: Any, body: bytes, answer: Any) -> bool:
        text = b"quick %s %d" % (scope["raw_path"], len(body))
        headers = [(b"content-length", b"%d" % len(text)), (b"x-query", scope["query_string"])]
        if scope["path"] == "/now":
            answer(201, headers, text)
        elif scope["path"] == "/later":
            self.held.append(lambda: answer(201, headers, text))
            self.came.set()
        elif scope["path"] == "/close":
            answer(201, [*headers, (b"connection", b"close")], text)
        else:
            return False
        return True

    async def start(self) -> None:
        config = uvicorn.Config(usual, http=quick(LIMITS, self.take), lifespan="off", timeout_keep_alive=1)
        config.load()
        state = ServerState()
        protocol: Any = config.http_protocol_class

        def made() -> asyncio.Protocol:
            one: asyncio.Protocol = protocol(config=config, server_state=state, app_state={})
            self.protocols.append(one)
            return one

        self.server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def reply(self) -> tuple[int, bytes, bytes]:
        async with asyncio.timeout(5):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            return int(head.split()[1]), head.lower(), await self.reader.readexactly(length)

    async def ask(self, data: bytes) -> tuple[int, bytes, bytes]:
        self.writer.write(data)
        return await self.reply()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    await made.start()
    yield made
    made.server.close()
    for protocol in made.protocols:
        if protocol.transport is not None:
            protocol.transport.abort()
    await asyncio.sleep(0)


@pytest.fixture
async def client(site: Site) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    yield Client(reader, writer)
    writer.close()


def post(path: str, body: bytes = b"a=1", headers: bytes = b"") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s" % (path.encode(), headers, len(body), body)


async def test_requests_of_both_ways_share_a_connection(client: Client) -> None:
    for _ in range(3):
        status, head, body = await client.ask(post("/now?b=c"))
        assert (status, body) == (201, b"quick /now 3")
        assert b"x-query: b=c\r\n" in head
        assert b"connection: close" not in head
        assert (await client.ask(post("/other", b"x" * 1000)))[2] == b"usual /other 1000"
        assert (await client.ask(b"GET /now HTTP/1.1\r\nHost: x\r\n\r\n"))[2] == b"usual /now 0"


@pytest.mark.parametrize("cut", [1, 30, 60, 67])
async def test_what_comes_in_pieces_is_served_all_the_same(client: Client, cut: int) -> None:
    data = post("/now", b"0123456789")
    client.writer.write(data[:cut])
    await client.writer.drain()
    await asyncio.sleep(0.05)
    status, _, body = await client.ask(data[cut:])
    assert (status, body) in [(200, b"usual /now 10"), (201, b"quick /now 10")]
    assert (await client.ask(data))[2] == b"quick /now 10"


@pytest.mark.parametrize(
    "data",
    [
        post("/now", b"x" * (MAX_QUICK_BODY_BYTES + 1)),
        b"POST /now HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"POST /now HTTP/1.0\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
        b"PUT /now HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
    ],
)
async def test_unusual_requests_go_the_usual_way(client: Client, data: bytes) -> None:
    assert (await client.ask(data))[2].startswith(b"usual /now ")


async def test_pipelined_requests_are_answered_in_order(site: Site, client: Client) -> None:
    client.writer.write(post("/later") + post("/now", b"") + post("/other") + post("/now", b"four"))
    await site.came.wait()
    site.held.pop()()
    assert [(await client.reply())[2] for _ in range(4)] == [
        b"quick /later 3", b"usual /now 0", b"usual /other 3", b"usual /now 4",
    ]  # fmt: skip


@pytest.mark.parametrize(("path", "headers"), [("/now", b"Connection: close\r\n"), ("/close", b"")])
async def test_either_side_may_end_the_connection(client: Client, path: str, headers: bytes) -> None:
    _, head, body = await client.ask(post(path, b"", headers))
    assert body == b"quick %s 0" % path.encode()
    assert head.count(b"connection: close\r\n") == 1
    assert await client.reader.read() == b""


async def test_a_stop_answers_what_is_under_way_and_closes(site: Site, client: Client) -> None:
    client.writer.write(post("/later"))
    await site.came.wait()
    site.protocols[0].shutdown()
    site.held.pop()()
    status, head, _ = await client.reply()
    assert status == 201
    assert b"connection: close\r\n" in head
    assert await client.reader.read() == b""


async def test_a_client_that_leaves_harms_nobody(site: Site, client: Client) -> None:
    client.writer.write(post("/later"))
    await site.came.wait()
    client.writer.transport.abort()
    while not site.protocols[0].transport.is_closing():
        await asyncio.sleep(0.01)
    site.held.pop()()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    assert (await Client(reader, writer).ask(post("/now")))[0] == 201
    writer.close()


async def test_idle_connections_are_closed_and_waiting_ones_are_not(site: Site, client: Client) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    waiting = Client(reader, writer)
    waiting.writer.write(post("/later"))
    await site.came.wait()
    assert (await client.ask(post("/now")))[0] == 201
    async with asyncio.timeout(5):
        assert await client.reader.read() == b""
    await asyncio.sleep(0.5)
    site.held.pop()()
    assert (await waiting.reply())[0] == 201
    writer.close()
