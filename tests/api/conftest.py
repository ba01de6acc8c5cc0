"""The whole API over a real database: what the resources' tests share."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from tests.api.harness import Clock, Harness, MemoryReplays, Reply
from trunkline.accounts.alerts import Alerts
from trunkline.accounts.directory import Directory, create_account
from trunkline.api.asgi import Api
from trunkline.api.auth import Authenticator
from trunkline.api.idempotency import Idempotency
from trunkline.api.limits import ApiLimits
from trunkline.api.resources import all_routes
from trunkline.api.services import Services
from trunkline.model import sid as sids
from trunkline.model.account import Account
from trunkline.model.numbers import PhoneNumber, ShortCode
from trunkline.model.sid import new_sid
from trunkline.settings import Settings
from trunkline.storage.engines.sqlite.database import SqliteDatabase
from trunkline.storage.engines.sqlite.queue import SqliteQueue
from trunkline.storage.secrets import Secrets


class UsageRows:
    """The part of the archive that resources without messages ask: sums, answered from `rows` (see `row`)."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.asked: list[tuple[Sequence[str], int, int, str]] = []

    def row(self, account: str, day: str, **fields: Any) -> None:
        """Messages of one day, in one direction."""
        self.rows.append(
            {
                "account": account, "period": day, "direction": "outbound-api", "country": "US", "price_unit": "USD",
                "channel": "sms", "count": 1, "segments": 1, "media": 0, "price": "0.0075",
            } | fields
        )  # fmt: skip

    async def usage(
        self, accounts: Sequence[str], start_ms: int, end_ms: int, granularity: str
    ) -> list[dict[str, Any]]:
        self.asked.append((accounts, start_ms, end_ms, granularity))
        length = {"day": 10, "month": 7, "year": 4, "all": 0}[granularity]
        found = []
        for row in self.rows:
            at_ms = sids_day_ms(row["period"])
            if row["account"] in accounts and start_ms <= at_ms < end_ms:
                found.append(row | {"period": row["period"][:length]})
        return found


def sids_day_ms(day: str) -> int:
    from datetime import date

    return (date.fromisoformat(day) - date(1970, 1, 1)).days * 86_400_000


class World(Harness):
    """The API and everything behind it. Requests are the main account's unless `auth` says otherwise."""

    def __init__(self, services: Services, owner: Account) -> None:
        self.services = services
        self.owner = owner
        self.clock = cast(Clock, services.clock)
        self.replays = MemoryReplays()
        limits = ApiLimits()
        self.api = Api(
            all_routes(),
            services,
            Authenticator(services.directory, services.secrets.pepper, self.clock.monotonic, limits),
            Idempotency(self.replays, self.clock.now_ms, limits, self.clock.sleep),
            limits=limits,
        )

    @property
    def database(self) -> SqliteDatabase:
        return cast(SqliteDatabase, self.services.database)

    @property
    def usage(self) -> UsageRows:
        return cast(UsageRows, self.services.archive)

    async def call(self, method: str, path: str, **options: Any) -> Reply:
        options.setdefault("auth", (self.owner.sid, self.owner.auth_token))
        return await super().call(method, path, **options)

    def path(self, rest: str, account: str = "") -> str:
        """A path below an account, the main one by default."""
        return f"/2010-04-01/Accounts/{account or self.owner.sid}/{rest}"

    @property
    def test_login(self) -> tuple[str, str]:
        return self.owner.test_account_sid, self.owner.test_auth_token

    async def subaccount(self, name: str = "Sub") -> Account:
        return await create_account(self.database, self.clock, name, self.owner)

    async def stock(self, number: str, **fields: Any) -> PhoneNumber:
        """Put a number into the inventory."""
        values: Mapping[str, Any] = {"country": "US"} | fields
        record = PhoneNumber(sid=new_sid(sids.PHONE_NUMBER), phone_number=number, **values)
        await self.database.insert(record)
        return record

    async def short_code(self, code: str, **fields: Any) -> ShortCode:
        values: Mapping[str, Any] = {"account_sid": self.owner.sid} | fields
        record = ShortCode(sid=new_sid(sids.SHORT_CODE), short_code=code, **values)
        await self.database.insert(record)
        return record


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = Clock()
    secrets = Secrets([b"k" * 32])
    database = SqliteDatabase(tmp_path / "database.db", clock, secrets)
    queue = SqliteQueue(tmp_path / "queue.db")
    owner = await create_account(database, clock, "Main")
    directory = Directory(database)
    await directory.start()
    elsewhere: Any = None  # parts that these resources do not touch
    services = Services(
        settings=Settings(), clock=clock, database=database, queue=queue, archive=cast(Any, UsageRows()),
        blobs=elsewhere, secrets=secrets, directory=directory, inflight=elsewhere, reader=elsewhere,
        outbound=elsewhere, optouts=elsewhere, alerts=Alerts(database, clock), privacy=elsewhere,
        scheduler=elsewhere,
    )  # fmt: skip
    yield World(services, owner)
    await database.close()
    await queue.close()


@pytest.fixture
async def calls(world: World, tmp_path: Path) -> AsyncIterator[Any]:
    """A world with calls (tests.api.call_world.CallWorld)."""
    from tests.api.call_world import call_world

    async with call_world(world, tmp_path) as made:
        yield made
