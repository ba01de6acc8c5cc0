"""What a node does not know is looked for in the database once, and junk cannot make it look all the time."""

import asyncio

import pytest

from trunkline.accounts import misses
from trunkline.accounts.directory import Directory
from trunkline.accounts.misses import Misses
from trunkline.model.account import Account, ApiKey
from trunkline.model.numbers import MessagingService, PhoneNumber, ServiceSender, ShortCode
from trunkline.model.sid import new_sid
from trunkline.storage.unavailable import StoreUnavailable

AC, TEST = "AC" + "a" * 32, "AC" + "b" * 32
WAIT_S = 60


class Deaf:
    """A database of which this node is told nothing."""

    def __init__(self, database):
        self._database, self.reads, self.error, self.gate = database, [], None, None

    def watch(self, kind, changed):
        pass

    async def get(self, kind, sid):
        return await self._database.get(kind, sid)

    async def find(self, kind, where=None, **options):
        if where and "sid__in" not in where:
            self.reads.append((kind.TABLE, where))
            if self.gate is not None:
                await self.gate.wait()
            if self.error is not None:
                raise self.error
        return await self._database.find(kind, where, **options)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def deaf(database):
    return Deaf(database)


@pytest.fixture
def now():
    return Clock()


@pytest.fixture
async def directory(deaf):
    directory = Directory(deaf)
    await directory.start()
    return directory


@pytest.fixture
async def looking(directory, now):
    return Misses(directory, now)


async def test_everything_that_requests_name_is_found(database, directory, looking):
    service, key = new_sid("MG"), new_sid("SK")
    await database.insert(
        Account(sid=AC, test_account_sid=TEST, smpp_system_id="esme"),
        ApiKey(sid=key, account_sid=AC),
        PhoneNumber(sid=new_sid("PN"), account_sid=AC, phone_number="+12025550100"),
        ShortCode(sid=new_sid("SC"), account_sid=AC, short_code="20000"),
        MessagingService(sid=service, account_sid=AC),
        ServiceSender(sid=new_sid("AI"), account_sid=AC, service_sid=service, kind="alpha", address="ACME"),
    )
    assert directory.account(AC) is None
    await looking.sid(TEST)
    assert directory.test_account(TEST) is not None
    for sid in (AC, key, service):
        await looking.sid(sid)
    for address in ("+12025550100", "20000"):
        await looking.number(address)
    await looking.senders(service)
    assert directory.account(AC) is directory.by_smpp_system_id("esme") is not None
    assert directory.api_key(key) is not None
    assert directory.number("+12025550100") is not None
    assert directory.short_code("20000") is not None
    assert [sender.address for sender in directory.senders(service)] == ["ACME"]


async def test_what_has_changed_is_found_too(database, directory, looking, now):
    await database.insert(Account(sid=AC, auth_token="old", smpp_system_id="esme"))
    await looking.look(Account, "smpp_system_id", "esme")
    account = await database.get(Account, AC)
    account.auth_token = "new"
    await database.update(account)
    assert directory.account(AC).auth_token == "old"
    await looking.sid(AC)
    assert directory.account(AC).auth_token == "new"


async def test_the_same_is_not_looked_for_again_so_soon(deaf, database, directory, looking, now):
    for _ in range(5):
        await looking.number("+12025550100")
    assert len(deaf.reads) == 1
    await database.insert(PhoneNumber(sid=new_sid("PN"), account_sid=AC, phone_number="+12025550100"))
    now.now += misses.AGAIN_S
    await looking.number("+12025550100")
    assert len(deaf.reads) == 2
    assert directory.number("+12025550100") is not None


async def test_all_look_ups_together_are_bounded(deaf, looking, now):
    for line in range(int(misses.BURST) + 50):
        await looking.number(f"+1202555{line:04d}")
    assert (len(deaf.reads), looking.looked, looking.refused) == (misses.BURST, misses.BURST, 50)
    now.now += 1.0
    for line in range(50):
        await looking.number(f"+1303555{line:04d}")
    assert len(deaf.reads) == misses.BURST + misses.LOOKS_PER_S


async def test_what_is_remembered_is_bounded(looking, now, monkeypatch):
    monkeypatch.setattr(misses, "MAX_KEYS", 10)
    for line in range(50):
        await looking.number(f"+1202555{line:04d}")
    assert len(looking._asked) == 10


async def test_equal_look_ups_share_a_read(deaf, database, directory, looking):
    deaf.gate = asyncio.Event()
    waiting = [asyncio.create_task(looking.sid(AC)) for _ in range(20)]
    while not deaf.reads:
        await asyncio.sleep(0)
    await database.insert(Account(sid=AC))
    waiting[0].cancel()  # a client that leaves spoils it for nobody
    deaf.gate.set()
    await asyncio.wait_for(asyncio.gather(*waiting[1:]), WAIT_S)
    assert deaf.reads == [("accounts", {"sid": AC})]
    assert directory.account(AC) is not None


@pytest.mark.parametrize("hangs", [False, True])
async def test_while_the_database_is_away_nobody_waits_for_it(deaf, looking, now, monkeypatch, hangs):
    monkeypatch.setattr(misses, "LOOK_S", 0.05)
    if hangs:
        deaf.gate = asyncio.Event()
    else:
        deaf.error = StoreUnavailable("away")
    async with asyncio.timeout(WAIT_S):
        for line in range(20):
            await looking.number(f"+1202555{line:04d}")
    assert len(deaf.reads) == 1
    now.now += misses.REST_S
    await looking.number("+12025550100")
    assert len(deaf.reads) == 2
