"""A short run of faults under load: the host of a node is killed, PostgreSQL crashes, a node is stopped. What was
accepted is sent and told, what went out twice is marked, calls go on. (`make chaos` does the same with three zones and
all faults.)

Counted outside the nodes, by the load, the carrier, the customer's web server and the phones; the lab's verdict on it.
"""

import asyncio
import itertools
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import orjson
import pytest
from lab.ledgers import CALL_FINAL, FINAL, Request, Told

from lab import verdict
from tests.e2e.air import Call
from tests.e2e.call_server import NUMBER
from tests.e2e.carrier import Carrier
from tests.e2e.client import Client
from tests.e2e.load import LOST
from tests.e2e.test_takeover import Cluster, Member
from tests.postgres import PostgresServer, needs_postgres
from tests.redis import needs_redis
from trunkline.bootstrap import open_archive
from trunkline.settings import load as load_settings

pytestmark = [needs_postgres, needs_redis]
RATE = 8.0
"""Messages a second, at each node."""
CALLS = 2
SOME = 20
LEASE_S = 3.0
"""Long, for a machine that does other things as well."""
SHUTDOWN_S = 3
SOME_S = 1.0
PATIENCE_S = 60.0
POLL_S = 0.05


class Load:
    """One customer at one node. `async with`: sends, whatever happens."""

    def __init__(self, client: Client, hooks: str, prefix: str) -> None:
        self._client, self._hooks, self._prefix = client, hooks, prefix
        self.requests: list[Request] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends = asyncio.Event()

    async def __aenter__(self) -> "Load":
        self._driver = asyncio.create_task(self._drive())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ends.set()
        await self._driver
        await asyncio.gather(*self._tasks)

    async def more(self, count: int = SOME) -> None:
        """Wait until so many more have been accepted."""
        wanted = self.accepted + count
        async with asyncio.timeout(PATIENCE_S):
            while self.accepted < wanted:
                await asyncio.sleep(POLL_S)

    @property
    def accepted(self) -> int:
        return sum(bool(request.sid) for request in self.requests)

    async def _drive(self) -> None:
        for number in itertools.count():
            try:
                await asyncio.wait_for(self._ends.wait(), 1 / RATE)
            except TimeoutError:
                request = Request("raw", f"{self._prefix}{number}", time.monotonic())
                self.requests.append(request)
                self._tasks.add(asyncio.create_task(self._send(request)))
            else:
                return

    async def _send(self, request: Request) -> None:
        key = request.key
        form = {"To": "+12125550180", "From": NUMBER, "Body": f"K={key} x", "StatusCallback": f"{self._hooks}/{key}"}
        try:
            answer = await self._client.call("POST", "Messages.json", form)
            request.outcome = str(answer.status)
            request.sid = answer.json["sid"] if answer.status == 201 else ""
        except LOST as error:
            request.outcome = type(error).__name__
        request.ended = time.monotonic()


class World:
    """Two nodes, a carrier, a database that may crash; and what all have seen."""

    def __init__(self, folder: Path, carrier: Carrier) -> None:
        self.carrier = carrier
        self.database = PostgresServer().create().start()
        self.cluster = Cluster(folder, self.database)
        for node in self.cluster.nodes:
            node._tables["connectors"] = [carrier.connector(window=5)]
            node._tables["cluster"]["lease_s"] = LEASE_S
            node._tables["messaging"] = {"long_code_mps": 0}
            node._tables["server"] = {**node._tables["server"], "shutdown_s": SHUTDOWN_S}
            node._write()

    async def start(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in self.cluster.nodes))

    def close(self) -> None:
        self.cluster.close()
        self.database.close()

    def told(self) -> dict[str, list[Told]]:
        """Key of a message -> what the customer's web server heard of it."""
        found: dict[str, list[Told]] = {}
        for path, form in list(self.cluster.app.hooks):
            if "MessageStatus" in form:
                key = path.rpartition("/")[2]
                found.setdefault(key, []).append(Told(0.0, form["MessageStatus"], form["MessageSid"]))
        return found

    async def settled(self, requests: list[Request]) -> None:
        """Wait until each accepted message has its last callback, or has not for PATIENCE_S."""
        end = time.monotonic() + PATIENCE_S
        waiting = {request.key for request in requests if request.sid}
        while waiting and time.monotonic() < end:
            await asyncio.sleep(POLL_S)
            told = self.told()
            waiting = {key for key in waiting if not any(one.status in FINAL for one in told.get(key, ()))}

    async def in_doubt(self, node: Member, sid: str) -> bool:
        """Whether the message's record says so, once it has landed."""
        archive = open_archive(load_settings(node.folder / "trunkline.toml", {}))
        try:
            async with asyncio.timeout(PATIENCE_S):
                while (document := await archive.get(node.account.sid, sid)) is None:
                    await asyncio.sleep(POLL_S)
            return bool(orjson.loads(document.body).get("in_doubt"))
        finally:
            await archive.close()


async def until(what: str, done: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end, f"{what} did not happen"
        await asyncio.sleep(POLL_S)


async def answered(cluster: Cluster) -> Call:
    """A call to the first node that hears something. A moment ago the number had no document: that may still be so."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        call = cluster.air.dials(cluster.nodes[0].sip_port, NUMBER, f"+1555{len(cluster.air.calls):07d}")
        await until("an answer", lambda call=call: len(call.heard) > 25 or call.ended_by)
        if not call.ended_by:
            return call
    raise AssertionError(cluster.nodes[0].tail(60))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    carrier = Carrier(latency_ms=5, receipt_delay_ms=50)
    made = await asyncio.to_thread(World, tmp_path, carrier)
    try:
        await made.start()
        yield made
    finally:
        await asyncio.to_thread(made.close)
        carrier.close()


async def test_nothing_is_lost(world: World, session: aiohttp.ClientSession) -> None:
    cluster = world.cluster
    first, second = cluster.nodes
    await asyncio.to_thread(first.answer_at, f"{cluster.app.url}/voice", f"{cluster.app.url}/status")
    calls = [await answered(cluster) for _ in range(CALLS)]
    hooks = f"{cluster.app.url}/told"
    loads = [Load(Client(session, node, first.account), hooks, name) for node, name in ((first, "a"), (second, "b"))]
    async with loads[0], loads[1]:
        for load in loads:
            await load.more()
        killed = await asyncio.to_thread(first.dies)
        await until("the takeover", lambda: all(_hears_another(call, killed) for call in calls))
        await loads[1].more()
        await asyncio.to_thread(world.database.end, signal.SIGQUIT)
        await asyncio.to_thread(world.database.start)
        await loads[1].more()
        await asyncio.to_thread(first.start)
        for load in loads:
            await load.more()
        stopped = time.monotonic()
        assert await asyncio.to_thread(second.stop) == 0
        await until("the handover", lambda: all(_hears_another(call, stopped) for call in calls))
        await loads[0].more()
    requests = [request for load in loads for request in load.requests]
    await world.settled(requests)
    taken, told = await world.carrier.taken(), world.told()
    doubled = [one.sid for key in taken if taken[key] > 1 for one in told.get(key, ())]
    marked = {sid: await world.in_doubt(first, sid) for sid in set(doubled)}
    found = verdict.messages(requests, taken, told, lambda sid: marked.get(sid, False))
    assert verdict.good(found), f"{found}\n{first.tail(40)}"
    for call in calls:
        assert call.up, first.tail(60)
        call.hangs_up()
    status = cluster.app.at
    await until("the ends", lambda: len({one["CallSid"] for one in status("/status")}) == CALLS)
    assert [one["CallStatus"] for one in status("/status") if one["CallStatus"] in CALL_FINAL] == ["completed"] * CALLS


def _hears_another(call: Call, since: float) -> bool:
    """Whether another host's audio has come."""
    before = {one.port for one in list(call.heard) if since - SOME_S < one.at < since}
    return any(one.port not in before for one in list(call.heard) if one.at > since)
