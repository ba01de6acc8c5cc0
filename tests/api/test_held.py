"""Which requests may be answered from their beginning by another process, and which may not any more."""

import asyncio
import base64

import pytest

from tests.api.harness import CREDENTIALS, MESSAGES, Harness
from tests.api.test_homes import OURS, THEIRS, Link, request, scope
from trunkline.api import homes, respond
from trunkline.api.homes import Homes
from trunkline.api.route import Route
from trunkline.model.held import HELD, MOVED, PARTS

PATIENCE_S = 30
WHERE = "/2010-04-01/Accounts/{AccountSid}/Messages"


class Slow:
    """A handler that begins and does not end by itself."""

    def __init__(self):
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, asked, app):
        self.begun.set()
        await self.go_on.wait()
        return respond.no_content()


class Exchange:
    """One request, whose body comes when it is let."""

    def __init__(self, method, length=0):
        self.slow = Slow()
        api = Harness([Route("api", method, WHERE, self.slow)]).api
        login = base64.b64encode(":".join(CREDENTIALS).encode())
        fields = [(b"host", b"localhost"), (b"authorization", b"Basic " + login)]
        if length:
            fields += [
                (b"content-type", b"application/x-www-form-urlencoded"),
                (b"content-length", b"%d" % length),
            ]
        self.scope = {
            "type": "http", "method": method, "scheme": "http", "path": MESSAGES, "raw_path": MESSAGES.encode(),
            "query_string": b"", "client": ("192.0.2.1", 1), "headers": fields,
        }  # fmt: skip
        self.pieces = asyncio.Queue()
        self.sent = []
        self.task = asyncio.create_task(api(self.scope, self._receive, self._send))

    async def _receive(self):
        return await self.pieces.get()

    async def _send(self, message):
        self.sent.append(message)

    def piece(self, body, *, more):
        self.pieces.put_nowait({"type": "http.request", "body": body, "more_body": more})

    async def until(self, look):
        async with asyncio.timeout(PATIENCE_S):
            while not look():
                await asyncio.sleep(0.002)

    async def moves(self):
        """Another process takes it."""
        self.scope[MOVED] = True
        self.scope[HELD].cancel()
        await asyncio.wait_for(self.task, PATIENCE_S)


async def test_a_request_that_waits_for_its_body_is_held_with_what_has_come():
    one = Exchange("POST", 10)
    await one.until(lambda: HELD in one.scope)
    assert (one.scope[HELD], PARTS in one.scope) == (one.task, False)
    one.piece(b"To=", more=True)
    await one.until(lambda: one.scope.get(PARTS) == b"To=")
    await one.moves()
    assert (one.sent, one.slow.begun.is_set()) == ([], False)


async def test_one_that_may_have_done_something_is_not():
    one = Exchange("POST", 4)
    one.piece(b"To=1", more=False)
    await one.until(one.slow.begun.is_set)
    assert HELD not in one.scope
    one.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one.task


async def test_one_that_only_reads_always_is():
    one = Exchange("GET")
    await one.until(one.slow.begun.is_set)
    assert one.scope[HELD] is one.task
    await one.moves()
    assert one.sent == []


@pytest.mark.parametrize("key", [None, b"theirs"])
async def test_one_that_waits_for_its_owner_is_held_and_with_a_key_until_it_is_answered(key):
    link, finds, answers = Link(), asyncio.Event(), asyncio.Event()
    asked = []

    async def owner(shard):
        await finds.wait()
        return link.owners[shard]

    async def call(node, kind, payload, timeout_s):
        asked.append(HELD in where)
        await answers.wait()
        return link.answer

    link.owner, link.call = owner, call
    where = scope()
    sid = "" if key else f"SM{'0' * 12}{THEIRS:02x}{'1' * 18}"
    wanted = Homes(link, lambda raw: raw.decode(), PATIENCE_S).elsewhere(request(sid=sid), where, key)
    task = asyncio.create_task(wanted)
    async with asyncio.timeout(PATIENCE_S):
        while HELD not in where:
            await asyncio.sleep(0.002)
        assert (where[HELD], where[PARTS]) == (task, b"To=1")
        finds.set()
        while not asked:
            await asyncio.sleep(0.002)
        answers.set()
        assert (await task).status == 201
    assert asked == [key is not None]


async def test_one_that_is_ours_by_now_is_not_held_any_more():
    link = Link()
    where = scope()

    async def owner(shard):
        link.owners[shard] = "here"
        return "here"

    link.owner = owner
    assert await Homes(link, lambda raw: raw.decode(), PATIENCE_S).elsewhere(request(), where, b"theirs") is None
    assert (HELD in where, homes.HOME.get(), OURS != THEIRS) == (False, THEIRS, True)
