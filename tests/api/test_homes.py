"""Requests that cross to the node that must answer them: two nodes' APIs in one process, their peers' link a call."""

import asyncio

import orjson
import pytest

from trunkline.api import homes
from trunkline.api.homes import HOME, Homes
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.cluster.peers import PeerUnavailable
from trunkline.model.errors import ApiError
from trunkline.storage.unavailable import StoreUnavailable

ACCOUNT = "AC" + "a" * 32
OURS, THEIRS = 1, 2


class Link:
    """A cluster of this node (which owns OURS) and `other`."""

    def __init__(self):
        self.asked = []
        self.answer = homes._encode(homes.Answered(201, [(b"content-type", b"application/json")], b"{}"))
        self.owners = {OURS: "here", THEIRS: "other"}
        self.lost: PeerUnavailable | None = None
        self.missing = ""

    def home(self, account, key, path):
        assert path == "/Messages"
        return {"mine": OURS, "theirs": THEIRS}[key]

    def is_ours(self, shard):
        return self.owners.get(shard) == "here"

    def shard_of(self, sid):
        return int(sid[14:16], 16)

    def spare_shard(self, path):
        return None if "here" in self.owners.values() else next(iter(self.owners), None)

    def lacks(self, path):
        return self.missing

    async def owner(self, shard):
        if shard not in self.owners:
            raise StoreUnavailable("nobody owns it")
        return self.owners[shard]

    async def call(self, node, kind, payload, timeout_s):
        if self.lost is not None:
            raise self.lost
        self.asked.append((node, kind, homes._decode_request(payload)))
        return self.answer


@pytest.fixture
def link():
    return Link()


@pytest.fixture
def here(link):
    return Homes(link, lambda raw: raw.decode(), 0.3)


def request(method="POST", sid=""):
    made = Request(method, "/Messages")
    made.resource_path = "/Messages"
    made.account_sid, made.params, made.body, made.request_id = ACCOUNT, ({"Sid": sid} if sid else {}), b"To=1", "RQ1"
    return made


def scope(**more):
    return {
        "method": "POST", "path": "/Messages.json", "raw_path": b"/Messages.json", "query_string": b"a=b",
        "headers": [(b"authorization", b"Basic x")], "scheme": "https", "client": ("192.0.2.1", 5), **more,
    }  # fmt: skip


def sid_in(shard, prefix="SM"):
    return f"{prefix}{'0' * 12}{shard:02x}{'1' * 18}"


async def test_most_requests_are_answered_where_they_come_in(here, link):
    assert await here.elsewhere(request(), scope(), None) is None
    assert await here.elsewhere(request("GET", sid_in(THEIRS)), scope(), None) is None
    assert await here.elsewhere(request("POST", "PN" + "0" * 32), scope(), None) is None
    assert link.asked == []


@pytest.mark.parametrize("prefix", ["SM", "MM", "CA"])
async def test_a_change_of_anothers_flight_crosses_whole(here, link, prefix):
    response = await here.elsewhere(request("POST", sid_in(THEIRS, prefix)), scope(), None)
    assert (response.status, response.body) == (201, b"{}")
    ((node, kind, asked),) = link.asked
    assert (node, kind) == ("other", "http")
    assert (asked.method, asked.path, asked.query, asked.body) == ("POST", b"/Messages.json", b"a=b", b"To=1")
    assert asked.headers == [(b"authorization", b"Basic x")]
    assert (asked.scheme, asked.client) == ("https", "192.0.2.1")


async def test_a_change_of_our_own_flight_does_not(here, link):
    assert await here.elsewhere(request("DELETE", sid_in(OURS)), scope(), None) is None
    assert link.asked == []


async def test_a_node_that_owns_nothing_has_others_make_it(here, link):
    link.owners = {THEIRS: "other"}
    assert (await here.elsewhere(request(), scope(), None)).status == 201
    assert await here.elsewhere(request("GET"), scope(), None) is None
    assert len(link.asked) == 1


async def test_a_key_goes_to_its_home_and_what_it_makes_lies_there(here, link):
    assert (await here.elsewhere(request(), scope(), b"theirs")).status == 201

    async def at_home():
        assert await here.elsewhere(request(), scope(), b"mine") is None
        return HOME.get()

    assert await asyncio.create_task(at_home()) == OURS
    assert HOME.get() is None, "another request has no home"


async def test_it_is_held_open_until_there_is_an_owner(here, link):
    del link.owners[THEIRS]

    async def slow(shard):
        await asyncio.sleep(0)
        link.owners[THEIRS] = "here"
        return "here"

    link.owner = slow
    assert await here.elsewhere(request("POST", sid_in(THEIRS)), scope(), None) is None
    assert link.asked == [], "it has come to us meanwhile"


@pytest.mark.parametrize("lost", [PeerUnavailable("no connection", sent=False), PeerUnavailable("it ended", sent=True)])
async def test_a_lost_peer_is_a_503_to_be_sent_again(here, link, lost):
    link.lost = lost
    with pytest.raises(ApiError) as refused:
        await here.elsewhere(request("POST", sid_in(THEIRS)), scope(), None)
    assert refused.value.status == 503
    assert ("Retry-After", "1") in refused.value.headers


async def test_a_request_waits_for_the_heir(here, link):
    """The owner is lost; after a while there is another."""
    calls = []

    async def call(node, kind, payload, timeout_s):
        calls.append(node)
        if node == "other":
            link.owners[THEIRS] = "heir" if len(calls) > 1 else "other"
            raise PeerUnavailable("no connection", sent=False)
        return link.answer

    link.call = call
    assert (await here.elsewhere(request("POST", sid_in(THEIRS)), scope(), None)).status == 201
    assert calls == ["other", "other", "heir"]


@pytest.mark.parametrize(("key", "calls"), [(None, 1), (b"theirs", 2)])
async def test_what_may_have_been_done_is_repeated_only_with_a_key(here, link, key, calls):
    made = []

    async def call(node, kind, payload, timeout_s):
        made.append(node)
        if len(made) == 1:
            raise PeerUnavailable("it ended", sent=True)
        return link.answer

    link.call = call
    if key is None:
        with pytest.raises(ApiError):
            await here.elsewhere(request("POST", sid_in(THEIRS)), scope(), key)
    else:
        assert (await here.elsewhere(request(), scope(), key)).status == 201
    assert len(made) == calls


async def test_nobody_owns_it(here, link):
    link.owners = {}
    with pytest.raises(ApiError) as refused:
        await here.elsewhere(request("POST", sid_in(THEIRS)), scope(), None)
    assert refused.value.status == 503


async def test_it_follows_a_partition_that_moves_on(here, link):
    made = link.answer
    calls = []

    async def call(node, kind, payload, timeout_s):
        calls.append(node)
        if len(calls) == 1:
            link.owners[THEIRS] = "third"
            return homes._encode(homes.Answered(503, [homes._MOVED], b""))
        return made

    link.call = call
    assert (await here.elsewhere(request("POST", sid_in(THEIRS)), scope(), None)).status == 201
    assert calls == ["other", "third"]


async def test_one_that_is_always_on_the_move_is_a_503(here, link):
    link.answer = homes._encode(homes.Answered(503, [homes._MOVED], b""))
    with pytest.raises(ApiError) as refused:
        await here.elsewhere(request("POST", sid_in(THEIRS)), scope(), None)
    assert refused.value.status == 503


async def test_it_crosses_once(here, link):
    with pytest.raises(ApiError) as refused:
        await here.elsewhere(request("POST", sid_in(THEIRS)), scope(**{homes.FORWARDED: True}), None)
    assert refused.value.status == 503
    assert homes.MOVED in refused.value.headers, "so that the other looks for the next owner"
    assert link.asked == []


async def test_the_other_end_answers_as_if_the_client_had_come_to_it(here, link):
    seen = {}

    async def app(scope, receive, send):
        seen.update(scope, body=(await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y"), (b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"bo", "more_body": True})
        await send({"type": "http.response.body", "body": b"dy"})

    await here.elsewhere(request("POST", sid_in(THEIRS)), scope(), None)
    payload = homes._encode(link.asked[0][2])
    told = homes._decode_answer(await homes.answer(app, payload))
    assert (told.status, told.headers, told.body) == (200, [(b"x", b"y")], b"body")
    assert seen["body"] == b"To=1"
    assert seen["client"] == ("192.0.2.1", 0)
    assert seen[homes.FORWARDED] is True


async def test_errors_of_the_other_node_are_its_answer(here, link):
    link.answer = homes._encode(homes.Answered(404, [], orjson.dumps({"code": 20404})))
    response = await here.elsewhere(request("POST", sid_in(THEIRS)), scope(), None)
    assert isinstance(response, Response)
    assert (response.status, orjson.loads(response.body)) == (404, {"code": 20404})


async def test_a_role_that_no_node_has_is_waited_for_then_a_clear_503(here, link):
    link.missing = "voice"
    with pytest.raises(ApiError, match="No live node has the role voice") as refused:
        await here.elsewhere(request(), scope(), None)
    assert (refused.value.status, refused.value.headers) == (503, (("Retry-After", "1"),))
    assert await here.elsewhere(request("GET"), scope(), None) is None, "reading needs no role"

    async def comes():
        link.missing = ""

    held = asyncio.create_task(here.elsewhere(request(), scope(), b"theirs"))
    await asyncio.create_task(comes())
    assert (await held).status == 201
