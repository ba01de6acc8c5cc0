"""kill -9 and graceful stops under load: what was accepted goes out, and every callback owed is delivered.

Counted outside the server: at the load generator, at the carrier and at the customer's web server.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import aiohttp
import orjson
import pytest

from tests.e2e.carrier import Carrier
from tests.e2e.client import Client, until
from tests.e2e.conftest import Tenant, make_tenant
from tests.e2e.load import Load
from tests.e2e.server import Server
from tests.e2e.sink import Sink
from trunkline.bootstrap import open_archive
from trunkline.messaging.connectors import smpp_link
from trunkline.settings import load as load_settings

SETTINGS = {
    "profile": "development",
    "messaging": {"long_code_mps": 0},
    "webhooks": {"retry_first_s": 0.2},
}
WINDOW = 10
"""Submits under way at once."""
IN_DOUBT = WINDOW + WINDOW // smpp_link.AHEAD
"""After a crash, at most: those, and what was claimed to follow them (docs/design/durability.md)."""
RATE = 200.0
KILLS = 3
"""Each is a draw of its own of what was under way, after which the exact balance is checked; the twenty draws with
2,000 messages between them that `make test-all` adds make a rare one likely to be met."""
STOPS = 2
INBOUND = 100
"""Messages that come in before each kill."""
BETWEEN = 150
"""Messages accepted between two kills."""


class Lab(NamedTuple):
    server: Server
    carrier: Carrier
    tenant: Tenant
    client: Client
    sink: Sink


@pytest.fixture
def carrier() -> Iterator[Carrier]:
    carrier = Carrier(latency_ms=5, receipt_delay_ms=50)
    yield carrier
    carrier.close()


@pytest.fixture
async def lab(tmp_path: Path, carrier: Carrier, session: aiohttp.ClientSession, sink: Sink) -> AsyncIterator[Lab]:
    server = Server(tmp_path, {**SETTINGS, "connectors": [carrier.connector(window=WINDOW)]})
    tenant = await asyncio.to_thread(server.seed, make_tenant)
    await asyncio.to_thread(server.start)
    yield Lab(server, carrier, tenant, Client(session, server, tenant.account), sink)
    await asyncio.to_thread(server.close)


async def documents(lab: Lab) -> dict[str, dict[str, object]]:
    """Key -> the landed document of each message, read when the server has ended."""
    archive = open_archive(load_settings(lab.server.folder / "trunkline.toml", {}))
    try:
        found: dict[str, dict[str, object]] = {}
        before = ""
        while page := await archive.page(
            lab.tenant.account.sid, "message", before=before, after="", limit=1000, filters={}
        ):
            for document in page:
                body = orjson.loads(document.body)
                found[body["body"].split()[0].removeprefix("K=")] = body
            before = page[-1].sid[2:]
        return found
    finally:
        await archive.close()


async def check(lab: Lab, load: Load, crashes: int) -> None:
    """Nothing accepted is lost, no callback either; what went out twice is marked, and no more than can be in doubt."""
    await load.delivered()
    taken = await lab.carrier.taken()
    lost = [key for key in load.accepted.values() if key not in taken]
    assert not lost, f"{len(lost)} accepted messages never reached the carrier"
    told = load.statuses()
    silent = [sid for sid in load.accepted if not {"sent", "delivered"} <= told[sid]]
    assert not silent, f"{len(silent)} callbacks of {len(load.accepted)} messages were lost"
    assert await asyncio.to_thread(lab.server.stop) == 0
    twice = {key for key, times in taken.items() if times > 1}
    assert len(twice) <= crashes * IN_DOUBT, f"{len(twice)} messages went out twice after {crashes} crashes"
    assert max(taken.values()) <= 1 + crashes
    landed = await documents(lab)
    unmarked = [key for key in twice if not landed[key].get("in_doubt")]
    assert not unmarked, f"sent twice without a mark: {unmarked}"
    ghosts = set(taken) - set(load.accepted.values()) - load.unknown
    assert not ghosts, f"messages that nobody sent: {ghosts}"


async def crash(lab: Lab, kills: int, between: int, rate: float) -> None:
    async with Load(lab.client, lab.tenant, lab.sink, rate) as load:
        for _ in range(kills):
            await load.more(between)
            await asyncio.to_thread(lab.server.kill)
            await asyncio.to_thread(lab.server.start)
        await load.more(between)
    assert len(load.accepted) >= (kills + 1) * between
    await check(lab, load, kills)


async def test_kill_mid_load(lab: Lab) -> None:
    await crash(lab, KILLS, BETWEEN, RATE)


@pytest.mark.slow
async def test_kill_mid_load_long(lab: Lab) -> None:
    await crash(lab, 20, 2000, 500.0)


async def test_graceful_stops_lose_and_repeat_nothing(lab: Lab) -> None:
    async with Load(lab.client, lab.tenant, lab.sink, RATE) as load:
        for _ in range(STOPS):
            await load.more(BETWEEN)
            assert await asyncio.to_thread(lab.server.stop) == 0
            await asyncio.to_thread(lab.server.start)
        await load.more(BETWEEN)
    await check(lab, load, 0)


async def test_kill_mid_inbound(lab: Lab) -> None:
    """Each message that the carrier hands over is shown to the customer, whether a crash comes before its
    acknowledgement (the carrier sends it again), after it, or while its webhook is under way."""
    number = lab.tenant.numbers[0]
    path = f"IncomingPhoneNumbers/{number.sid}.json"
    assert (await lab.client.call("POST", path, {"SmsUrl": f"{lab.sink.url}/sms"})).status == 200
    sent: set[str] = set()
    for _ in range(STOPS):
        texts = {f"No {len(sent) + index}" for index in range(INBOUND)}
        sent |= texts
        to = number.phone_number.removeprefix("+")
        await asyncio.gather(*(lab.carrier.ask(f"/send?from=12125550188&to={to}&text={text}") for text in texts))
        half = len(sent) // 2
        await lab.sink.until(lambda half=half: len(lab.sink.at("/sms")) >= half)
        await asyncio.to_thread(lab.server.kill)
        await asyncio.to_thread(lab.server.start)
    await lab.sink.until(lambda: {hook.form["Body"] for hook in lab.sink.at("/sms")} >= sent, timeout_s=40)
    sids = {hook.form["MessageSid"]: hook.form["Body"] for hook in lab.sink.at("/sms")}
    assert set(sids.values()) == sent
    stats = await until(lambda: lab.carrier.ask("/stats"), lambda stats: not stats["waiting"])
    assert stats["messages_kept"] == len(sent)
    sent_again = stats["messages_sent"] - len(sent)
    assert len(sids) - len(sent) <= sent_again, "only what the carrier sent again may be there twice"
