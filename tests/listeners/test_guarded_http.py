"""Requests that one process begins to read and another one answers, over real sockets."""

import asyncio
import socket

import uvicorn
from uvicorn.server import ServerState

from trunkline.listeners.guarded_http import HttpLimits, guarded
from trunkline.model.held import HELD, MOVED, PARTS

HEAD = b"POST /a%20b?x=1 HTTP/1.1\r\nHost: here\r\nX-One: 1\r\nContent-Length: 10\r\n\r\n"
PATIENCE_S = 30


class Process:
    """What a process of the node has: its own protocol class, and the state of its connections."""

    def __init__(self, app):
        self.state = ServerState()
        limits = HttpLimits(head_bytes=8192, request_s=PATIENCE_S, write_s=PATIENCE_S, connections=10)
        self.config = uvicorn.Config(app, http=guarded(limits), ws="none", lifespan="off", log_config=None)
        self.config.load()

    async def serve(self, connection, first=b""):
        def make():
            made = self.config.http_protocol_class(config=self.config, server_state=self.state, app_state={})
            made.first = first
            return made

        _, protocol = await asyncio.get_running_loop().connect_accepted_socket(make, connection)
        return protocol


class App:
    """Reads the body, held meanwhile, and says what came."""

    def __init__(self):
        self.begun = asyncio.Event()
        self.ended = []

    async def __call__(self, scope, receive, send):
        scope[HELD] = asyncio.current_task()
        body = scope[PARTS] = bytearray()
        self.begun.set()
        try:
            while True:
                message = await receive()
                body += message["body"]
                if not message["more_body"]:
                    break
        except asyncio.CancelledError:
            assert scope[MOVED]
            self.ended.append("moved")
            return
        del scope[HELD]
        names = sorted(name for name, _ in scope["headers"])
        text = repr((scope["method"], scope["raw_path"], scope["query_string"], names, bytes(body))).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
        await send({"type": "http.response.body", "body": text})
        self.ended.append("answered")


async def pair():
    client, server = socket.socketpair()
    client.setblocking(False)
    server.setblocking(False)
    return client, server


async def say(client, data):
    await asyncio.get_running_loop().sock_sendall(client, data)


async def answer(client):
    async with asyncio.timeout(PATIENCE_S):
        got = b""
        while b"')" not in got and b'")' not in got:
            got += await asyncio.get_running_loop().sock_recv(client, 4096)
    return got.partition(b"\r\n\r\n")[2]


async def until(look):
    async with asyncio.timeout(PATIENCE_S):
        while not (found := look()):
            await asyncio.sleep(0.005)
    return found


async def handed(client, before, after, protocol):
    """Hand a connection from one process to the other, as `let_go` allows."""
    read = protocol.take_back()
    if read is None:
        return None
    number = protocol.let_go()
    taken = await after.serve(socket.socket(fileno=socket.dup(number)), read)
    return read, taken


async def test_a_request_whose_body_is_half_there_is_answered_by_the_next_process():
    old_app, new_app = App(), App()
    old, new = Process(old_app), Process(new_app)
    client, server = await pair()
    protocol = await old.serve(server)
    await say(client, HEAD + b"first")
    await old_app.begun.wait()
    read, taken = await handed(client, old, new, protocol)
    assert read.endswith(b"\r\n\r\nfirst")
    await until(lambda: old_app.ended)
    await say(client, b"-last")
    said = await answer(client)
    assert said == repr(("POST", b"/a%20b", b"x=1", [b"content-length", b"host", b"x-one"], b"first-last")).encode()
    assert (old_app.ended, new_app.ended) == (["moved"], ["answered"])
    protocol.transport.abort()
    taken.transport.abort()
    client.close()


async def test_twice_handed_on_and_in_small_pieces():
    apps = [App(), App(), App()]
    processes = [Process(app) for app in apps]
    client, server = await pair()
    protocol = await processes[0].serve(server)
    made = [protocol]
    await say(client, HEAD + b"f")
    await apps[0].begun.wait()
    for place, piece in ((1, b"irst"), (2, b"-la")):
        _, protocol = await handed(client, *processes[place - 1 : place + 1], protocol)
        made.append(protocol)
        await apps[place].begun.wait()
        await say(client, piece)
    await say(client, b"st")
    assert b"first-last" in await answer(client)
    assert [app.ended for app in apps] == [["moved"], ["moved"], ["answered"]]
    for one in made:
        one.transport.abort()
    client.close()


async def test_what_may_have_been_acted_upon_stays():
    app = App()
    process = Process(app)
    client, server = await pair()
    protocol = await process.serve(server)
    assert protocol.take_back() is None, "nothing is under way"
    await say(client, b"POST / HTTP/1.1\r\nHost: h")
    await until(lambda: protocol._in_head)
    assert protocol.take_back() is None, "its head is not whole"
    await say(client, b"\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab")
    await app.begun.wait()
    assert protocol.take_back() is None, "in the midst of a chunk"
    scope = protocol.cycle.scope
    task = scope.pop(HELD)
    assert protocol.take_back() is None, "it is not held"
    assert (MOVED in scope, task.cancelling()) == (False, 0)
    await say(client, b"c\r\n0\r\n\r\n")
    scope[HELD] = task
    assert b"'abc'" in await answer(client)
    protocol.transport.abort()
    client.close()
