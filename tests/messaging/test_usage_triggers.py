"""What fires usage triggers, and the request they make."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl

import pytest
from twilio.request_validator import RequestValidator

from tests.webhooks.servers import Server, answer, running
from trunkline.accounts.directory import Directory, create_account
from trunkline.messaging.usage import Usage
from trunkline.messaging.usage_triggers import KIND, UsageTriggerHandler, UsageTriggers
from trunkline.model.account import Account
from trunkline.model.clock import SystemClock
from trunkline.model.numbers import UsageTrigger
from trunkline.postflight.worker_client import WorkerFailed
from trunkline.settings import Webhooks
from trunkline.storage.engines.sqlite.database import SqliteDatabase
from trunkline.storage.engines.sqlite.queue import SqliteQueue
from trunkline.storage.queue import Owed
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.webhooks.delivery import Delivery, Result
from trunkline.webhooks.fetch import Fetcher
from trunkline.webhooks.guard import Guard
from trunkline.webhooks.http import Client

DAY_MS = 86_400_000


class Rows:
    """An archive that has used `count` messages in every period asked for."""

    def __init__(self) -> None:
        self.count = 0
        self.spans: list[int] = []

    async def usage(self, accounts: Sequence[str], start_ms: int, end_ms: int, granularity: str) -> list[Any]:
        self.spans.append((end_ms - start_ms) // DAY_MS)
        row = {"account": accounts[0], "period": "", "direction": "outbound-api", "price_unit": "USD"}
        return [row | {"channel": "sms", "count": self.count, "segments": 2 * self.count, "price": str(self.count)}]


class Scene:
    def __init__(self, clock: Any, database: SqliteDatabase, queue: SqliteQueue, account: Account, triggers: Any):
        self.clock = clock
        self.database = database
        self.queue = queue
        self.account = account
        self.rows = Rows()
        self.pushed: list[Owed] = []
        self.triggers = triggers(self)

    async def add(self, **fields: Any) -> UsageTrigger:
        values = {"callback_url": "https://example.com/t", "trigger_value": "10", "usage_category": "sms"} | fields
        trigger = UsageTrigger(sid="UT" + "1" * 32, account_sid=self.account.sid, **values)
        await self.database.insert(trigger)
        return trigger

    async def kept(self) -> UsageTrigger:
        trigger = await self.database.get(UsageTrigger, "UT" + "1" * 32)
        assert trigger is not None
        return trigger

    async def evaluate(self, count: int) -> int:
        self.rows.count = count
        self.clock.ms += 60_000
        return await self.triggers.evaluate()  # type: ignore[no-any-return]


@pytest.fixture
async def scene(tmp_path: Path, clock: Any, database: SqliteDatabase) -> AsyncIterator[Scene]:
    queue = SqliteQueue(tmp_path / "queue.db")
    account = await create_account(database, clock, "Main")
    directory = Directory(database)
    await directory.start()

    def triggers(scene: Scene) -> UsageTriggers:
        usage = Usage(cast(Any, scene.rows), database, clock)
        return UsageTriggers(database, queue, usage, directory, clock, scene.pushed.extend)

    yield Scene(clock, database, queue, account, triggers)
    await queue.close()


async def test_it_fires_once_when_the_value_is_reached(scene: Scene) -> None:
    await scene.add(trigger_by="count")
    assert await scene.evaluate(9) == 0
    assert ((await scene.kept()).current_value, (await scene.kept()).fired_ms) == ("9", 0)
    assert await scene.evaluate(10) == 1
    assert (await scene.kept()).fired_ms == scene.clock.ms
    assert await scene.evaluate(11) == 0
    scene.clock.ms += 400 * DAY_MS
    assert await scene.evaluate(12) == 0
    assert [owed.kind for owed in scene.pushed] == [KIND]
    assert [host for host, _, _ in await scene.queue.owed_hosts()] == ["https://example.com"]


@pytest.mark.parametrize(("trigger_by", "count"), [("count", 10), ("usage", 5), ("price", 10)])
async def test_what_is_counted(scene: Scene, trigger_by: str, count: int) -> None:
    await scene.add(trigger_by=trigger_by)
    assert await scene.evaluate(count - 1) == 0
    assert await scene.evaluate(count) == 1


@pytest.mark.parametrize(("recurring", "days", "span"), [("daily", 1, 1), ("monthly", 31, 14), ("yearly", 366, 318)])
async def test_a_recurring_trigger_fires_in_every_period_once(
    scene: Scene, recurring: str, days: int, span: int
) -> None:
    await scene.add(recurring=recurring)  # the clock stands at 2023-11-14
    assert await scene.evaluate(10) == 1
    assert scene.rows.spans == [span]
    assert await scene.evaluate(11) == 0
    scene.clock.ms += days * DAY_MS
    assert await scene.evaluate(10) == 1
    tokens = {parse(owed)["IdempotencyToken"] for owed in scene.pushed}
    assert len(tokens) == 2


def parse(owed: Owed) -> dict[str, str]:
    import msgspec

    return dict(msgspec.json.decode(owed.request)["params"])


async def test_a_crash_before_the_mark_fires_again_with_the_same_token(scene: Scene) -> None:
    await scene.add(recurring="daily")
    await scene.evaluate(10)
    trigger = await scene.kept()
    trigger.fired_ms = 0
    await scene.database.update(trigger)
    assert await scene.evaluate(10) == 1
    first, second = scene.pushed
    assert parse(first)["IdempotencyToken"] == parse(second)["IdempotencyToken"]


async def test_a_change_made_meanwhile_is_kept(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await scene.add()
    owe = scene.queue.owe

    async def rename(owed: Sequence[Owed]) -> None:
        await owe(owed)
        trigger = await scene.kept()
        trigger.friendly_name = "renamed"
        await scene.database.update(trigger)

    monkeypatch.setattr(scene.queue, "owe", rename)
    assert await scene.evaluate(10) == 1
    assert ((await scene.kept()).friendly_name, (await scene.kept()).fired_ms) == ("renamed", scene.clock.ms)


async def test_one_that_cannot_be_read_does_not_stop_the_others(scene: Scene) -> None:
    await scene.add()
    broken = UsageTrigger(
        sid="UT" + "0" * 32, account_sid=scene.account.sid, callback_url="x", trigger_value="many", usage_category="sms"
    )
    await scene.database.insert(broken)
    assert await scene.evaluate(10) == 1


@pytest.mark.parametrize("error", [WorkerFailed("30 s for usage"), StoreUnavailable("away"), RuntimeError("a bug")])
async def test_one_that_fails_stops_neither_the_others_nor_itself(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The others come behind it."""
    await scene.add()
    other = await create_account(scene.database, scene.clock, "Other")
    fields = {"callback_url": "https://example.com/t", "trigger_value": "10", "usage_category": "sms"}
    failing = UsageTrigger(sid="UT" + "0" * 32, account_sid=other.sid, **fields)
    await scene.database.insert(failing)
    usage, errors = scene.rows.usage, [error]

    async def fail_once(accounts: Sequence[str], *span: Any) -> list[Any]:
        if other.sid in accounts and errors:
            raise errors.pop()
        return await usage(accounts, *span)

    monkeypatch.setattr(scene.rows, "usage", fail_once)
    assert await scene.evaluate(10) == 1
    assert [owed.account for owed in scene.pushed] == [scene.account.sid]
    assert await scene.evaluate(10) == 1
    assert [owed.account for owed in scene.pushed] == [scene.account.sid, other.sid]


# -- delivery


class Alerts:
    def __init__(self) -> None:
        self.raised: list[tuple[int, str]] = []

    def raise_(self, account_sid: str, error_code: int, **fields: Any) -> str:
        self.raised.append((error_code, fields.get("resource_sid", "")))
        return ""


@asynccontextmanager
async def handler_of(scene: Scene, alerts: Alerts) -> AsyncIterator[UsageTriggerHandler]:
    client = Client()
    fetcher = Fetcher(client, Guard.development(), SystemClock())
    yield UsageTriggerHandler(fetcher, lambda sid: scene.account if sid == scene.account.sid else None, alerts)
    await client.close()


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}/fired?x=1"


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_the_request_is_signed_and_says_what_fired(scene: Scene, method: str) -> None:
    async with running(lambda request: answer(b"", 204)) as server, handler_of(scene, Alerts()) as handler:
        await scene.add(callback_url=url_of(server), callback_method=method, recurring="daily", trigger_by="count")
        delivery = Delivery(scene.queue, scene.clock, Webhooks(), {KIND: handler})
        ended = asyncio.Event()
        delivery.finished = lambda owed: ended.set()
        await scene.evaluate(12)
        delivery.push(scene.pushed)
        await asyncio.wait_for(ended.wait(), 60)
    (seen,) = server.requests
    assert seen.method == method
    sent = seen.body.decode() if method == "POST" else seen.path.partition("?x=1&")[2]
    params = dict(parse_qsl(sent, keep_blank_values=True))
    account, trigger = scene.account.sid, "UT" + "1" * 32
    assert params == {
        "AccountSid": account, "UsageTriggerSid": trigger, "DateFired": "Tue, 14 Nov 2023 22:14:20 +0000",
        "Recurring": "daily", "UsageCategory": "sms", "TriggerBy": "count", "TriggerValue": "10",
        "CurrentValue": "12", "IdempotencyToken": f"{account}-FIRES-{trigger}-2023-11-14",
        "UsageRecordUri": f"/2010-04-01/Accounts/{account}/Usage/Records.json?Category=sms",
    }  # fmt: skip
    url = f"http://{seen.headers['host']}{seen.path}"
    signature = seen.headers["x-twilio-signature"]
    assert RequestValidator(scene.account.auth_token).validate(url, params if method == "POST" else {}, signature)


@pytest.mark.parametrize(("status", "retry"), [(500, True), (429, True), (404, False)])
async def test_what_is_tried_again(scene: Scene, status: int, retry: bool) -> None:
    alerts = Alerts()
    async with running(lambda request: answer(b"", status)) as server, handler_of(scene, alerts) as handler:
        await scene.add(callback_url=url_of(server))
        await scene.evaluate(10)
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        handler.begin(scene.pushed[0], done.set_result)
        result = await asyncio.wait_for(done, 60)
    assert (result.delivered, result.retry, result.error_code) == (False, retry, 11200)
    handler.exhausted(scene.pushed[0], result)
    assert alerts.raised == [(11200, "UT" + "1" * 32)]


async def test_a_url_that_cannot_be_requested_is_given_up(scene: Scene) -> None:
    async with handler_of(scene, Alerts()) as handler:
        await scene.add(callback_url="https://under_score.example.com/")
        await scene.evaluate(10)
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        handler.begin(scene.pushed[0], done.set_result)
        result = await asyncio.wait_for(done, 60)
    assert (result.delivered, result.retry) == (False, False)
