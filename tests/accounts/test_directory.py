"""The node-local directory follows every commit."""

import asyncio
import re

import pytest

from trunkline.accounts.directory import Directory, create_account, create_api_key
from trunkline.model.account import Account, ApiKey
from trunkline.model.numbers import Application, MessagingService, PhoneNumber, ServiceSender, ShortCode
from trunkline.model.sid import is_sid, new_sid
from trunkline.storage.engines.sqlite import database as database_module
from trunkline.storage.engines.sqlite.database import SqliteDatabase

AC, OTHER = "AC" + "a" * 32, "AC" + "b" * 32


@pytest.fixture
async def directory(database):
    directory = Directory(database)
    await directory.start()
    return directory


def number(e164, **changes):
    return PhoneNumber(**({"sid": new_sid("PN"), "account_sid": AC, "phone_number": e164} | changes))


def sender(service_sid, address, **changes):
    values = {"sid": new_sid("PN"), "account_sid": AC, "service_sid": service_sid, "address": address}
    return ServiceSender(**(values | {"kind": "phone_number"} | changes))


async def test_what_was_there_before_is_loaded(database):
    numbers = [number(f"+1202555{i:04}") for i in range(1500)]  # more than one page
    await database.insert(Account(sid=AC, smpp_system_id="acme", test_account_sid="ACt"), *numbers)
    await database.insert(ApiKey(sid="SK1", account_sid=AC), Application(sid="AP1", account_sid=AC))
    await database.insert(MessagingService(sid="MG1", account_sid=AC), sender("MG1", "+12025550000"))
    await database.insert(ShortCode(sid="SC1", account_sid=AC, short_code="12345"))
    directory = Directory(database)
    await directory.start()
    assert directory.account(AC).sid == directory.by_smpp_system_id("acme").sid == directory.test_account("ACt").sid
    assert directory.api_key("SK1").account_sid == AC
    assert directory.application("AP1").sid == "AP1"
    assert all(directory.number(one.phone_number) == one for one in numbers)
    assert directory.short_code("12345").sid == "SC1"
    assert [one.address for one in directory.senders("MG1")] == ["+12025550000"]
    assert directory.service_of_sender(AC, "+12025550000").sid == "MG1"


async def test_nothing_is_found_in_an_empty_directory(directory):
    for found in (
        directory.account(AC), directory.test_account(AC), directory.by_smpp_system_id("x"), directory.api_key("SK1"),
        directory.number("+1"), directory.short_code("1"), directory.owned_sender(AC, "+1"), directory.service("MG1"),
        directory.application("AP1"), directory.service_of_sender(AC, "+1"),
    ):  # fmt: skip
        assert found is None
    assert directory.senders("MG1") == ()


async def test_a_commit_is_seen_before_its_caller_goes_on(database, directory):
    account = Account(sid=AC, auth_token="one", smpp_system_id="acme", test_account_sid="ACt")
    await database.insert(account)
    assert directory.account(AC).auth_token == "one"
    account.auth_token, account.smpp_system_id, account.test_account_sid = "two", "acme2", "ACt2"
    await database.update(account)
    assert directory.account(AC).auth_token == "two"
    assert directory.by_smpp_system_id("acme") is None
    assert directory.by_smpp_system_id("acme2").sid == AC
    assert directory.test_account("ACt") is None
    await database.delete(account)
    assert directory.account(AC) is directory.by_smpp_system_id("acme2") is directory.test_account("ACt2") is None


async def test_the_generation_moves_with_accounts_and_keys_only(database, directory):
    before = directory.generation
    account, key = Account(sid=AC), ApiKey(sid="SK1", account_sid=AC)
    for change in (
        lambda: database.insert(account), lambda: database.insert(key),
        lambda: database.update(account), lambda: database.delete(key),
    ):  # fmt: skip
        await change()
        assert directory.generation > before
        before = directory.generation
    await database.insert(number("+12025550100"), Application(sid="AP1"))
    assert directory.generation == before


async def test_senders_are_owned_by_their_account_only(database, directory):
    bought, free = number("+12025550100"), number("+12025550101", account_sid="")
    await database.insert(bought, free, ShortCode(sid="SC1", account_sid=AC, short_code="12345"))
    assert directory.owned_sender(AC, "+12025550100").sid == bought.sid
    assert directory.owned_sender(AC, "12345").sid == "SC1"
    assert directory.owned_sender(OTHER, "+12025550100") is None
    assert directory.owned_sender(AC, "+12025550101") is None
    assert directory.number("+12025550101").sid == free.sid
    bought.account_sid = OTHER
    await database.update(bought)
    assert directory.owned_sender(AC, "+12025550100") is None
    assert directory.owned_sender(OTHER, "+12025550100").sid == bought.sid


async def test_a_number_that_changes_hands_between_records_is_not_lost(database, directory):
    first, second = number("+12025550100"), number("+12025550101")
    await database.insert(first, second)
    first.phone_number = "+12025550109"
    await database.update(first)
    second.phone_number = "+12025550100"
    await database.update(second)
    first.phone_number = "+12025550101"
    await database.update(first)
    assert directory.number("+12025550100").sid == second.sid
    assert directory.number("+12025550101").sid == first.sid
    assert directory.number("+12025550109") is None


async def test_sender_pools_follow(database, directory):
    await database.insert(MessagingService(sid="MG1", account_sid=AC), MessagingService(sid="MG2", account_sid=AC))
    first, second = sender("MG1", "+12025550100"), sender("MG1", "+12025550101")
    alpha = sender("MG1", "ACME", kind="alpha", sid=new_sid("AI"))
    await database.insert(second, first, alpha)
    assert [one.address for one in directory.senders("MG1")] == [
        one.address for one in sorted([first, second, alpha], key=lambda one: one.sid)
    ]
    assert directory.service_of_sender(AC, "ACME") is None  # nobody can answer it, and it may be in many
    await database.delete(second)
    assert second not in directory.senders("MG1")
    assert directory.service_of_sender(AC, "+12025550101") is None
    first.service_sid = "MG2"
    await database.update(first)
    assert directory.senders("MG1") == (alpha,)
    assert [one.sid for one in directory.senders("MG2")] == [first.sid]
    assert directory.service_of_sender(AC, "+12025550100").sid == "MG2"


async def test_another_process_is_followed(database, clock, secrets, tmp_path, monkeypatch):
    monkeypatch.setattr(database_module, "FOREIGN_POLL_S", 0.01)
    account, gone = Account(sid=AC), Account(sid=OTHER)
    await database.insert(account, gone)
    directory = Directory(database)
    await directory.start()
    command_line = SqliteDatabase(tmp_path / "control.db", clock, secrets)
    account.status = "suspended"
    await command_line.update(account)
    await command_line.delete(gone)
    async with asyncio.timeout(60):
        while directory.account(AC).status == "active" or directory.account(OTHER) is not None:
            await asyncio.sleep(0.01)
    await command_line.close()


async def test_an_engine_that_waits_for_its_reads_is_followed_too(database):
    class Remote:
        """Reads that take a round trip, as over a network."""

        def __getattr__(self, name):
            return getattr(database, name)

        async def get(self, kind, sid):
            await asyncio.sleep(0)
            return await database.get(kind, sid)

    directory = Directory(Remote())
    await directory.start()
    await database.insert(Account(sid=AC))
    async with asyncio.timeout(60):
        while directory.account(AC) is None:
            await asyncio.sleep(0)


async def test_a_change_during_the_load_is_not_lost(database):
    class Slow:
        def __getattr__(self, name):
            return getattr(database, name)

        async def find(self, kind, *args, **options):
            found = await database.find(kind, *args, **options)
            if kind is Account and options.get("after") == "":
                await database.insert(Account(sid=OTHER))
                stale = await database.get(Account, AC)
                stale.status = "suspended"
                await database.update(stale)
            return found

    await database.insert(Account(sid=AC))
    directory = Directory(Slow())
    await directory.start()
    assert directory.account(AC).status == "suspended"
    assert directory.account(OTHER) is not None


async def test_create_account_and_subaccount(database, clock, directory):
    main = await create_account(database, clock, "Main", price_unit="EUR")
    sub = await create_account(database, clock, "Sub", main)
    assert main.owner_account_sid == main.sid == main.account_sid
    assert (sub.owner_account_sid, sub.price_unit, sub.type) == (main.sid, "EUR", "Full")
    tokens = {main.auth_token, main.test_auth_token, sub.auth_token, sub.test_auth_token}
    assert len(tokens) == 4
    assert all(re.fullmatch("[0-9a-f]{32}", token) for token in tokens)
    assert is_sid(main.sid, "AC")
    assert is_sid(main.test_account_sid, "AC")
    assert main.created_ms == clock.now_ms()
    assert directory.account(sub.sid) == sub
    assert directory.test_account(main.test_account_sid) == main


async def test_create_api_key_keeps_no_secret(database, clock, secrets, directory):
    key, secret = await create_api_key(database, clock, secrets, AC, "CI", main=True)
    assert re.fullmatch("[0-9a-f]{32}", secret)
    kept = directory.api_key(key.sid)
    assert (kept.friendly_name, kept.main, kept.account_sid) == ("CI", True, AC)
    assert secret not in repr(kept)
    assert secrets.verify_secret(secret, kept.secret_hash)
