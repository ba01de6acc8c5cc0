"""The contract of the `Database` primitive, the same for every engine."""

import asyncio

import pytest

from tests.postgres import needs_postgres
from trunkline.model.account import Account, ApiKey
from trunkline.model.numbers import Application, PhoneNumber, ScheduledMessage, ServiceSender, StickySender
from trunkline.model.sid import new_sid
from trunkline.storage.database import Conflict, Duplicate
from trunkline.storage.engines.postgres.database import PostgresDatabase, prepare
from trunkline.storage.engines.sqlite.database import SqliteDatabase
from trunkline.storage.secrets import Secrets
from trunkline.storage.survives import Survives

AC = "AC" + "a" * 32
NOW = 1_700_000_000_000


class StandingClock:
    """Moves only when told."""

    def __init__(self):
        self.ms = NOW

    def now_ms(self):
        return self.ms

    def monotonic(self):
        return self.ms / 1000


@pytest.fixture
def clock():
    return StandingClock()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=needs_postgres)])
def open_database(request, tmp_path, clock):
    """Opens the same database each time it is called."""
    secrets = Secrets([b"k" * 32])
    if request.param == "sqlite":
        return lambda: SqliteDatabase(tmp_path / "control.db", clock, secrets)
    dsn = request.getfixturevalue("postgres").database(prepare)
    return lambda: PostgresDatabase(dsn, clock, secrets)


@pytest.fixture
async def database(open_database):
    database = open_database()
    yield database
    await database.close()


def number(e164, **changes):
    return PhoneNumber(**({"sid": new_sid("PN"), "account_sid": AC, "phone_number": e164} | changes))


async def test_survives_power_loss(database):
    assert database.survives is Survives.POWER


async def test_what_was_inserted_is_read_back(database):
    account = Account(sid=AC, friendly_name="Zoë's 'shop'", auth_token="t" * 32, verify_tls=False, smpp_system_id="zoe")
    await database.insert(account)
    assert await database.get(Account, AC) == account
    assert account.created_ms == account.updated_ms == NOW
    assert await database.get(Account, "AC" + "b" * 32) is None


async def test_every_kind_of_field_keeps_its_type(database):
    some = number("+12025550100", latitude=38.5, longitude=None, beta=True, sms_enabled=False)
    await database.insert(some)
    found = await database.get(PhoneNumber, some.sid)
    assert (found.latitude, found.longitude) == (38.5, None)
    assert found.beta is True
    assert found.sms_enabled is False


async def test_a_second_holder_of_a_unique_value_is_a_duplicate(database):
    await database.insert(number("+12025550100"))
    with pytest.raises(Duplicate):
        await database.insert(number("+12025550100"))
    with pytest.raises(Duplicate):
        await database.insert(Account(sid=AC, smpp_system_id="a"), Account(sid="AC" + "b" * 32, smpp_system_id="a"))
    await database.insert(Account(sid=AC), Account(sid="AC" + "b" * 32))  # none at all is shared by many


async def test_a_duplicate_undoes_the_whole_call_and_nothing_else(database):
    await database.insert(number("+12025550100"))
    good, fresh, clash = number("+12025550101"), number("+12025550102"), number("+12025550100")
    results = await asyncio.gather(
        database.insert(good), database.insert(fresh, clash), database.insert(number("+12025550103")),
        return_exceptions=True,
    )  # fmt: skip
    assert [type(result) for result in results] == [type(None), Duplicate, type(None)]
    kept = await database.find(PhoneNumber, order="phone_number")
    assert [one.phone_number for one in kept] == ["+12025550100", "+12025550101", "+12025550103"]


async def test_update_counts_the_rev_and_refuses_a_stale_copy(database, clock):
    some = number("+12025550100")
    await database.insert(some)
    mine, theirs = await database.get(PhoneNumber, some.sid), await database.get(PhoneNumber, some.sid)
    clock.ms += 5
    mine.friendly_name = "mine"
    await database.update(mine)
    assert (mine.rev, mine.updated_ms) == (1, NOW + 5)
    theirs.friendly_name = "theirs"
    with pytest.raises(Conflict):
        await database.update(theirs)
    assert theirs.rev == 0
    assert await database.get(PhoneNumber, some.sid) == mine
    mine.friendly_name = "again"
    await database.update(mine)
    assert mine.rev == 2


async def test_a_conflict_undoes_the_other_updates_of_the_call(database):
    first, second = number("+12025550100"), number("+12025550101")
    await database.insert(first, second)
    first.friendly_name, second.rev = "changed", 7
    with pytest.raises(Conflict):
        await database.update(first, second)
    assert (await database.get(PhoneNumber, first.sid)).friendly_name == ""


async def test_update_of_what_is_gone_is_a_conflict(database):
    with pytest.raises(Conflict):
        await database.update(number("+12025550100"))


async def test_update_into_a_taken_value_is_a_duplicate(database):
    first, second = number("+12025550100"), number("+12025550101")
    await database.insert(first, second)
    second.phone_number = first.phone_number
    with pytest.raises(Duplicate):
        await database.update(second)


async def test_put_replaces_without_a_guard(database):
    sticky = StickySender(sid="MG1:+1", sender="+12025550100")
    await database.put(sticky)
    await database.put(StickySender(sid="MG1:+1", sender="+12025550101"))
    assert (await database.get(StickySender, "MG1:+1")).sender == "+12025550101"
    assert await database.count(StickySender) == 1


async def test_delete_and_delete_again(database):
    first, second = number("+12025550100"), number("+12025550101")
    await database.insert(first, second)
    await database.delete(first, second)
    await database.delete(first)
    assert await database.count(PhoneNumber) == 0


async def test_records_of_one_call_may_be_of_several_kinds(database):
    await database.insert(Account(sid=AC), ApiKey(sid=new_sid("SK"), account_sid=AC))
    with pytest.raises(Duplicate):
        await database.insert(Application(sid=new_sid("AP"), account_sid=AC), Account(sid=AC))
    assert await database.count(Application) == 0


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, "0123"),
        ({"country": "US"}, "01"),
        ({"country": "US", "sms_enabled": True}, "0"),
        ({"country__ne": "US"}, "23"),
        ({"country__in": ["GB", "DE", "FR"]}, "23"),
        ({"country__in": []}, ""),
        ({"phone_number__prefix": "+1202"}, "0"),
        ({"phone_number__prefix": "+1"}, "01"),
        ({"phone_number__contains": "555"}, "01"),
        ({"phone_number__contains": "%"}, ""),
        ({"bought_ms__ge": 20}, "123"),
        ({"bought_ms__gt": 20}, "23"),
        ({"bought_ms__le": 20}, "01"),
        ({"bought_ms__lt": 20}, "0"),
        ({"latitude": None}, "123"),
        ({"latitude__ne": None}, "0"),
        ({"friendly_name": "'; drop table phone_numbers; --"}, "3"),
    ],
)
async def test_find_and_count_filter(database, where, expected):
    numbers = [
        number("+12025550100", country="US", bought_ms=10, latitude=1.0),
        number("+13035550100", country="US", bought_ms=20, sms_enabled=False),
        number("+447700900123", country="GB", bought_ms=30),
        number("+4915112345678", country="DE", bought_ms=40, friendly_name="'; drop table phone_numbers; --"),
    ]
    await database.insert(*numbers)
    found = await database.find(PhoneNumber, where, order="bought_ms")
    assert "".join(str(numbers.index(one)) for one in found) == expected
    assert await database.count(PhoneNumber, where) == len(expected)


async def test_unknown_columns_are_refused(database):
    for where in ({"colour": 1}, {"sid__like": "x"}, {"sid = '' or 1": 1}):
        with pytest.raises(ValueError, match="no column"):
            await database.find(PhoneNumber, where)
    with pytest.raises(ValueError, match="no column"):
        await database.find(PhoneNumber, order="sid; drop table accounts")


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("order", ["sid", "country"])
async def test_pages_are_whole_and_disjoint(database, order, newest_first):
    numbers = [number(f"+1202555010{i}", country="US" if i % 2 else "CA") for i in range(7)]
    await database.insert(*numbers)
    seen, after = [], ""
    while page := await database.find(
        PhoneNumber, {"account_sid": AC}, order=order, newest_first=newest_first, after=after, limit=3
    ):
        assert len(page) <= 3
        seen += page
        after = page[-1].sid
    expected = sorted(numbers, key=lambda one: (getattr(one, order), one.sid), reverse=newest_first)
    assert [one.sid for one in seen] == [one.sid for one in expected]


async def test_watchers_know_of_a_commit_before_its_caller_goes_on(database):
    seen = []
    database.watch(PhoneNumber, lambda sids: seen.append(list(sids)))
    first, second = number("+12025550100"), number("+12025550101")
    await database.insert(first, Account(sid=AC), second)
    assert seen == [[first.sid, second.sid]]
    await database.update(first)
    await database.put(first)
    await database.delete(second)
    assert seen[1:] == [[first.sid], [first.sid], [second.sid]]
    await database.insert(Application(sid=new_sid("AP")))
    with pytest.raises(Duplicate):
        await database.insert(first)
    assert len(seen) == 4


async def test_a_watcher_hears_of_a_commit_whose_caller_was_cancelled(database):
    heard = asyncio.get_running_loop().create_future()
    database.watch(PhoneNumber, lambda sids: heard.set_result(list(sids)))
    some = number("+12025550100")
    write = database.insert(some)
    write.cancel()
    assert await asyncio.wait_for(heard, 60) == [some.sid]
    assert await database.get(PhoneNumber, some.sid) is not None


async def test_a_row_is_what_the_record_was_when_it_was_handed_in(database):
    some = number("+12025550100", friendly_name="then")
    write = database.insert(some)
    some.friendly_name = "later"
    await write
    assert (await database.get(PhoneNumber, some.sid)).friendly_name == "then"


async def test_a_record_that_cannot_be_stored_leaves_nothing_behind(database):
    good, bad = number("+12025550100"), number("+12025550101", friendly_name="\ud800")
    with pytest.raises(UnicodeError):
        await database.insert(good, bad)
    assert await database.count(PhoneNumber) == 0


async def test_a_sender_is_once_in_a_service_and_country(database):
    def sender(**changes):
        values = {"sid": new_sid("AI"), "service_sid": "MG1", "kind": "alpha", "address": "ACME"}
        return ServiceSender(**(values | changes))

    await database.insert(sender(), sender(service_sid="MG2"), sender(iso_country="DE"))
    with pytest.raises(Duplicate):
        await database.insert(sender())


async def test_no_records_are_no_work(database):
    await database.insert()
    await database.update()
    await database.delete()
    assert await database.count(ScheduledMessage) == 0


async def test_many_writers_at_once(database):
    await asyncio.gather(*(database.insert(number(f"+1202555{i:04}")) for i in range(500)))
    assert await database.count(PhoneNumber, {"account_sid": AC}) == 500


async def test_another_process_s_commits_are_noticed(database, open_database):
    heard = asyncio.get_running_loop().create_future()

    def changed(sids):
        if not heard.done():
            heard.set_result(list(sids))

    database.watch(PhoneNumber, changed)
    other = open_database()
    some = number("+12025550100")
    try:
        await other.insert(some)
        assert await asyncio.wait_for(heard, 60) in ([], [some.sid])  # the engine may know no more than that
    finally:
        await other.close()


async def test_secrets_are_sealed_and_resealed(database):
    await database.insert(Account(sid=AC, auth_token="t" * 32))
    assert await database.reseal() == 1
    assert (await database.get(Account, AC)).auth_token == "t" * 32


async def test_nulls_come_first_and_names_may_hold_nul(database):
    first, second = number("+12025550100", latitude=1.0), number("+12025550101", friendly_name="a\0b")
    await database.insert(first, second)
    assert [one.sid for one in await database.find(PhoneNumber, order="latitude")] == [second.sid, first.sid]
    assert (await database.get(PhoneNumber, second.sid)).friendly_name[::2] == "ab"
