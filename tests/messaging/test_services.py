"""Which sender a Messaging Service's message leaves from."""

from collections import Counter

import pytest

from trunkline.accounts.directory import Directory
from trunkline.messaging.services import NO_ALPHA_COUNTRIES, choose_sender, fallback_sender, remember_sender, select
from trunkline.model.numbers import MessagingService, ServiceSender, StickySender

AC = "AC" + "a" * 32


def sender(name, kind, address, country="", iso_country=""):
    return ServiceSender(
        sid=name,
        account_sid=AC,
        service_sid="MG1",
        kind=kind,
        address=address,
        country=country,
        iso_country=iso_country,
    )


DC = sender("PN1", "phone_number", "+12025550100", "US")
NYC = sender("PN2", "phone_number", "+12125550100", "US")
UK = sender("PN3", "phone_number", "+447700900100", "GB")
CODE = sender("SC1", "short_code", "12345", "US")
UK_CODE = sender("SC2", "short_code", "60000", "GB")
ACME = sender("AI1", "alpha", "ACME")
ACME_DE = sender("AI2", "alpha", "ACME-DE", iso_country="DE")
ALL = (DC, NYC, UK, CODE, UK_CODE, ACME, ACME_DE)

TO_DC, TO_NYC, TO_LA = "+12025550177", "+12125550177", "+13105550177"
TO_UK, TO_DE, TO_FR, TO_CA = "+447700900177", "+4915112345678", "+33612345678", "+14165550177"


@pytest.mark.parametrize(
    ("pool", "to", "country", "options", "expected"),
    [
        # sticky goes first, if it is still there and has not failed
        (ALL, TO_DC, "US", {"sticky": "+447700900100"}, UK),
        ((DC, UK), TO_DC, "US", {"sticky": "+19995550100"}, DC),
        ((DC, UK), TO_DC, "US", {"sticky": "+12025550100", "exclude": {"+12025550100"}}, UK),
        # a short code of the recipient's country, never of another
        (ALL, TO_DC, "US", {}, CODE),
        (ALL, TO_UK, "GB", {}, UK_CODE),
        ((DC, UK_CODE), TO_DC, "US", {}, DC),
        ((UK_CODE,), TO_DC, "US", {}, None),
        # alphanumeric where the country takes it, its own first
        (ALL, TO_FR, "FR", {}, ACME),
        (ALL, TO_DE, "DE", {}, ACME_DE),
        ((ACME_DE, UK), TO_FR, "FR", {}, UK),
        ((ACME,), TO_DC, "US", {}, None),
        ((ACME, UK), TO_DC, "US", {}, UK),
        ((ACME, UK), "+999", "", {}, UK),
        # a long code of the area, of the country, any
        ((DC, NYC, UK), TO_NYC, "US", {}, NYC),
        ((DC, NYC, UK), TO_DC, "US", {}, DC),
        ((DC, UK), TO_LA, "US", {}, DC),
        ((DC, UK), TO_UK, "GB", {}, UK),
        ((DC,), TO_FR, "FR", {}, DC),
        ((DC, UK), TO_CA, "CA", {"exclude": {"+447700900100"}}, DC),
        # nothing left
        ((), TO_DC, "US", {}, None),
        ((DC,), TO_DC, "US", {"exclude": {"+12025550100"}}, None),
    ],
)
def test_select(pool, to, country, options, expected):
    assert select(pool, to, country, **options) is expected


def test_without_geomatch_the_area_code_does_not_count():
    chosen = {select((DC, NYC), f"+1212555{i:04}", "US", geomatch=False).address for i in range(50)}
    assert chosen == {DC.address, NYC.address}


def test_the_load_is_spread_and_a_recipient_keeps_its_sender():
    pool = [sender(f"PN{i}", "phone_number", f"+1202555010{i}", "US") for i in range(4)]
    recipients = [f"+1310555{i:04}" for i in range(2000)]
    chosen = [select(pool, to, "US").address for to in recipients]
    assert chosen == [select(pool, to, "US").address for to in recipients]
    assert all(400 < count < 600 for count in Counter(chosen).values())
    assert len(Counter(chosen)) == 4


def test_the_table_of_countries_is_of_country_codes():
    assert all(len(code) == 2 and code.isupper() for code in NO_ALPHA_COUNTRIES)


@pytest.fixture
async def directory(database):
    directory = Directory(database)
    await directory.start()
    return directory


async def test_the_first_choice_sticks_when_the_pool_changes(database, directory):
    service = MessagingService(sid="MG1", account_sid=AC)
    await database.insert(service, DC)
    assert (await choose_sender(directory, database, service, TO_NYC)).address == DC.address
    await database.insert(NYC)
    assert (await database.get(StickySender, f"MG1:{TO_NYC}")).sender == DC.address
    assert (await choose_sender(directory, database, service, TO_NYC)).address == DC.address
    other = "+12125550178"
    assert (await choose_sender(directory, database, service, other)).address == NYC.address


async def test_a_failed_sticky_sender_is_replaced_and_the_new_one_sticks(database, directory):
    service = MessagingService(sid="MG1", account_sid=AC)
    await database.insert(service, DC, NYC)
    assert (await choose_sender(directory, database, service, TO_DC)).address == DC.address
    assert (await choose_sender(directory, database, service, TO_DC, exclude={DC.address})).address == NYC.address
    await database.put(StickySender(sid="MG1:x", sender=""))  # written after it, hence it is there when this is
    assert (await choose_sender(directory, database, service, TO_DC)).address == NYC.address


async def test_what_the_recipient_wrote_to_is_remembered(database, directory):
    service = MessagingService(sid="MG1", account_sid=AC)
    await database.insert(service, DC, NYC)
    remember_sender(database, service, TO_DC, NYC.address)
    await database.put(StickySender(sid="MG1:x", sender=""))  # written after it, hence it is there when this is
    assert (await choose_sender(directory, database, service, TO_DC)).address == NYC.address


async def test_a_service_without_sticky_senders_remembers_nothing(database, directory):
    service = MessagingService(sid="MG1", account_sid=AC, sticky_sender=False)
    await database.insert(service, DC)
    assert (await choose_sender(directory, database, service, TO_DC)).address == DC.address
    await database.put(StickySender(sid="MG1:x", sender=""))
    assert await database.count(StickySender) == 1


async def test_alphanumeric_senders_and_empty_pools_leave_no_memory(database, directory):
    service = MessagingService(sid="MG1", account_sid=AC)
    assert await choose_sender(directory, database, service, TO_FR) is None
    await database.insert(service, ACME)
    assert (await choose_sender(directory, database, service, TO_FR)).address == "ACME"
    await database.put(StickySender(sid="MG1:x", sender=""))
    assert await database.count(StickySender) == 1


@pytest.mark.parametrize(
    ("failed", "enabled", "expected"),
    [("12345", True, DC), ("12345", False, None), (DC.address, True, None), ("99999", True, None)],
)
def test_fallback_from_a_short_code_to_a_long_code(failed, enabled, expected):
    service = MessagingService(sid="MG1", account_sid=AC, fallback_to_long_code=enabled)
    assert fallback_sender(service, ALL, failed, TO_DC) is expected
