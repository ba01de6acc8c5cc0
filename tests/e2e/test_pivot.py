"""The worked pivot under load, forward and back, `trunkline schema backfill` killed at random points: no request fails,
no row is wrong, and everything accepted is delivered.

Failed requests are counted at the load generator, deliveries at the carrier and the customer's web server, and rows by
a comparison of their lanes with what was put there, beside `trunkline schema verify`.
"""

import asyncio
import base64
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import apsw
import psycopg
import pytest

from tests.e2e.carrier import Carrier
from tests.e2e.client import Client
from tests.e2e.conftest import Tenant, make_tenant
from tests.e2e.load import Load
from tests.e2e.server import Server
from tests.e2e.sink import Sink
from tests.ports import free_port
from tests.postgres import PostgresServer, needs_postgres, postgres  # noqa: F401  (fixture)
from tests.redis import RedisServer, needs_redis
from tests.storage.partitions import owning_all
from trunkline.bootstrap_stores import open_benches, open_queue, open_sharded_queue
from trunkline.model import message as codec
from trunkline.model.message import Message
from trunkline.model.sid import new_sid
from trunkline.settings import load as load_settings
from trunkline.storage.pivots.lane_split import PIVOT
from trunkline.storage.pivots.model import Speaker, State
from trunkline.storage.queue import Flight, Queue

pytestmark = pytest.mark.slow

SETTINGS: dict[str, Any] = {
    "profile": "development",
    "messaging": {"long_code_mps": 20},
    "webhooks": {"retry_first_s": 0.2},
}
RATE = 22.0
"""Requests a second and number: more than the number may send, so that lanes fill and are read."""
WAITING = 8000
"""Messages that wait in the queue meanwhile, all to be filled."""
KILLS = 3
BETWEEN = 40
"""Requests accepted between two steps."""
PATIENCE_S = 300
PARTITIONS = 4
FOREVER_MS = 10 * 86_400_000

Rows = Callable[[], dict[int, str]]
"""Id -> lane of what was put there, by whichever shape the tables have."""


class Lab(NamedTuple):
    nodes: list[Server]
    carrier: Carrier
    tenant: Tenant
    clients: list[Client]
    sink: Sink


class Pivot:
    """`trunkline schema`, as an operator calls it beside a node."""

    def __init__(self, node: Server, seed: int) -> None:
        self._config = str(node.folder / "trunkline.toml")
        self._random = random.Random(seed)
        self.killed: list[int] = []
        """Rows that were filled at each kill."""

    def _command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "trunkline", "--config", self._config, "schema", *words]

    async def __call__(self, *words: str, fails: str = "") -> str:
        done = await asyncio.to_thread(
            subprocess.run, self._command(*words), capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert done.returncode == bool(fails), done.stdout + done.stderr
        assert fails in done.stderr
        return done.stdout

    async def backfill_killed(self) -> None:
        """Begin the backfill KILLS times, each killed somewhere; then let it go to its end."""
        for _ in range(KILLS):
            process = await asyncio.create_subprocess_exec(
                *self._command("backfill", "lane_split", "--rows", "100", "--pause-ms", "30"),
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            assert process.stdout is not None
            while b" rows" not in (line := await process.stdout.readline()):
                assert line, "it ended before it was killed"
            await asyncio.sleep(self._random.uniform(0, 0.8))
            process.send_signal(signal.SIGKILL)
            await process.communicate()
            self.killed.append(sum(state.done for state, _ in await self.status()))
        assert self.killed[-KILLS:] == sorted(self.killed[-KILLS:])
        assert 0 < self.killed[-1] < WAITING, "killed before the end"
        await self("backfill", "lane_split")

    async def status(self) -> list[tuple[State, list[Speaker]]]:
        """What `trunkline schema status` shows of each partition."""

        def look() -> list[tuple[State, list[Speaker]]]:
            benches = open_benches(load_settings(Path(self._config), {}))
            try:
                return [(bench.state(PIVOT), bench.speakers()) for bench in benches]
            finally:
                for bench in benches:
                    bench.close()

        return await asyncio.to_thread(look)

    async def shapes(self) -> set[tuple[str, str]]:
        return {(state.shape, state.phase) for state, _ in await self.status()}

    async def used(self, shape: str, processes: int) -> None:
        """Wait until so many processes use a shape, in every partition."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                uses = [[one.shapes.get("lane_split") for one in speakers] for _, speakers in await self.status()]
                if all(own.count(shape) >= processes for own in uses):
                    return
                await asyncio.sleep(0.5)


async def wait_in(queue: Queue, tenant: Tenant, count: int) -> dict[int, str]:
    """Put messages into lanes, not due for days; id -> lane."""
    account, lanes = tenant.account.sid, {}
    made = []
    for number in range(count):
        to, sender = f"+1212555{number % 10_000:04d}", f"+1646555{number % 50:04d}"
        now = time.time_ns() // 1_000_000
        message = Message(
            sid=new_sid("SM"), account_sid=account, direction="outbound-api", from_=sender, to=to, body="later",
            created_ms=now,
        )  # fmt: skip
        lane = f"carrier|{account}|{sender}"
        flight = Flight(
            sid=message.sid, account=account, status="queued", lane=lane, due_ms=now + FOREVER_MS,
            record=codec.encode(message),
        )  # fmt: skip
        made.append((queue.accept(flight), flight))
    for written, flight in made:
        await written
        lanes[flight.id] = flight.lane
    return lanes


JOINED = {"old": "lane", "new": "coalesce(connector || line, '')"}


def sqlite_rows(file: Path, shape: str) -> dict[int, str]:
    connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(5000)
    found: dict[int, str] = dict(connection.execute(f"select id, {JOINED[shape]} from flight").fetchall())  # type: ignore[arg-type]
    connection.close()
    return found


def postgres_rows(dsns: list[str], shape: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for partition in range(PARTITIONS):
        with psycopg.connect(dsns[partition % len(dsns)]) as connection:
            rows = connection.execute(f"select id, {JOINED[shape]} from p{partition:02d}.flight".encode())
            found.update(rows.fetchall())
    return found


async def check(lab: Lab, loads: list[Load], wrong: int, figures: dict[str, Any]) -> None:
    """No request failed, none was lost, and what was accepted went out once."""
    failed = [status for load in loads for status in load.refused]
    lost = [key for load in loads for key in load.unknown]
    for load in loads:
        await load.delivered(PATIENCE_S)
    taken = await lab.carrier.taken()
    keys = [key for load in loads for key in load.accepted.values()]
    figures |= {"requests": len(keys) + len(failed) + len(lost), "failed": len(failed) + len(lost), "rows wrong": wrong}
    print(figures)
    assert failed == []
    assert lost == []
    assert wrong == 0
    assert [key for key in keys if taken.get(key, 0) != 1] == []


async def both_ways(
    lab: Lab,
    seed: int,
    waiting: dict[int, str],
    rows: Callable[[str], dict[int, str]],
    upgrade: Callable[[list[Load]], Awaitable[None]],
) -> None:
    """Forward and back. `upgrade` makes the processes that know no new shape into ones that do."""
    pivot, processes = Pivot(lab.nodes[-1], seed), len(lab.nodes)
    wrong = 0

    async def compare(shape: str) -> int:
        found = await asyncio.to_thread(rows, shape)
        return sum(found.get(one) != lane for one, lane in waiting.items())

    loads = [Load(client, lab.tenant, lab.sink, RATE) for client in lab.clients]
    for number, load in enumerate(loads):
        load.prefix = f"n{number}-"
        await load.__aenter__()
    newest = loads[-1]
    try:
        await newest.more(BETWEEN)  # statements are prepared
        for shape, back in (("new", ()), ("old", ("--back",))):
            await pivot("expand", "lane_split", *back)
            await newest.more(BETWEEN)
            await pivot.backfill_killed()
            assert await pivot.shapes() == {("old" if shape == "new" else "new", "filled")}
            await pivot("verify", "lane_split")
            wrong += await compare("old") + await compare("new")
            await newest.more(BETWEEN)
            if shape == "new":
                await upgrade(loads)
            await pivot.used(shape, processes)
            await newest.more(BETWEEN)
            await pivot("contract", "lane_split", "--wait", "60")
            wrong += await compare(shape)
            await newest.more(BETWEEN)
            assert await pivot.shapes() == {(shape, "plain")}
    finally:
        for load in loads:
            await load.__aexit__()
    await check(lab, loads, wrong, {"nodes": processes, "waiting": len(waiting), "killed at": pivot.killed})


@pytest.fixture
def carrier() -> Any:
    carrier = Carrier(latency_ms=5, receipt_delay_ms=50)
    yield carrier
    carrier.close()


async def test_on_sqlite(tmp_path: Path, carrier: Carrier, session: aiohttp.ClientSession, sink: Sink) -> None:
    server = Server(tmp_path, {**SETTINGS, "connectors": [carrier.connector(window=10)]})
    tenant = await asyncio.to_thread(server.seed, make_tenant)
    queue = open_queue(load_settings(tmp_path / "trunkline.toml", {}))
    waiting = await wait_in(queue, tenant, WAITING)
    await queue.close()
    await asyncio.to_thread(server.start)

    async def none_needed(loads: list[Load]) -> None:
        """One process, which knows both."""

    try:
        lab = Lab([server], carrier, tenant, [Client(session, server, tenant.account)], sink)
        file = server.data / "queue.db"
        await both_ways(lab, 1, waiting, lambda shape: sqlite_rows(file, shape), none_needed)
    finally:
        await asyncio.to_thread(server.close)


@needs_postgres
@needs_redis
async def test_an_old_node_beside_a_new_one(
    tmp_path: Path,
    carrier: Carrier,
    postgres: PostgresServer,  # noqa: F811
    session: aiohttp.ClientSession,
    sink: Sink,
) -> None:
    memory = await asyncio.to_thread(RedisServer().start)
    dsns = [postgres.database(), postgres.database()]
    storage = {"engine": "postgres", "queue": dsns, "database": postgres.database(), "partitions": PARTITIONS}
    (tmp_path / "objects").mkdir()
    tables: list[dict[str, Any]] = []
    for place, name in enumerate(("old", "new")):
        (tmp_path / name).mkdir()
        tables.append({
            **SETTINGS,
            "storage": {**storage, "speaks": place},
            "memory": {"engine": "valkey", "url": memory.url},
            "objects": {"url": f"file://{tmp_path / 'objects'}"},
            "security": {"master_key": base64.b64encode(b"k" * 32).decode()},
            "node": {"name": name, "zone": name, "address": f"127.0.0.1:{free_port()}"},
            "cluster": {"enabled": True, "secret": "s" * 32, "lease_s": 5},
            "connectors": [carrier.connector(window=10)],
        })  # fmt: skip
    nodes = [Server(tmp_path / one["node"]["name"], one) for one in tables]
    try:
        tenant = await asyncio.to_thread(nodes[0].seed, make_tenant)
        queue = await owning_all(open_sharded_queue(load_settings(nodes[0].folder / "trunkline.toml", {}), "seed"))
        waiting: dict[int, str] = {}
        for partition in range(PARTITIONS):
            waiting |= await wait_in(queue.partition(partition), tenant, WAITING // PARTITIONS)
        await queue.close()
        for node in nodes:
            await asyncio.to_thread(node.start)
        lab = Lab(nodes, carrier, tenant, [Client(session, node, tenant.account) for node in nodes], sink)

        async def upgrade(loads: list[Load]) -> None:
            """While the old node lives, contract is refused; its customers go elsewhere while it is replaced."""
            refused = "still use the old shape: node old, process"
            await Pivot(nodes[1], 0)("contract", "lane_split", "--wait", "0", fails=refused)
            await loads[0].__aexit__()
            assert await asyncio.to_thread(nodes[0].stop) == 0
            nodes[0] = Server(tmp_path / "old", {**tables[0], "storage": storage, "server": {"port": nodes[0].port}})
            await asyncio.to_thread(nodes[0].start)
            later = Load(Client(session, nodes[0], tenant.account), tenant, sink, RATE)
            later.prefix = "later-"
            loads.append(await later.__aenter__())

        await both_ways(lab, 2, waiting, lambda shape: postgres_rows(dsns, shape), upgrade)
    finally:
        for node in nodes:
            await asyncio.to_thread(node.close)
        memory.close()
