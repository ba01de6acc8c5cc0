"""Sender pools: phone numbers, short codes, alphanumeric senders for all countries and for one."""

import pytest

from tests.api.conftest import World
from trunkline.accounts.directory import create_account
from trunkline.api import service_senders
from trunkline.model.numbers import MessagingService, ServiceSender
from trunkline.model.sid import new_sid

NUMBER = "+12025550100"


class Pools:
    """Two services and the ways to them."""

    def __init__(self, world: World, service: str, other: str) -> None:
        self.world, self.service, self.other = world, service, other

    def path(self, kind: str, sid: str = "", service: str = "") -> str:
        return f"/messaging/v1/Services/{service or self.service}/{kind}" + (f"/{sid}" if sid else "")


@pytest.fixture
async def pools(world: World) -> Pools:
    made = []
    for name in ("one", "two"):
        record = MessagingService(sid=new_sid("MG"), account_sid=world.owner.sid, friendly_name=name)
        await world.database.insert(record)
        made.append(record.sid)
    return Pools(world, *made)


# -- phone numbers -----------------------------------------------------------------------------------------------


async def test_a_phone_number_joins_shows_and_leaves(pools: Pools, world: World) -> None:
    number = await world.stock(NUMBER, account_sid=world.owner.sid, mms_enabled=True)
    made = await world.post(pools.path("PhoneNumbers"), {"PhoneNumberSid": number.sid})
    assert made.status == 201
    own = pools.path("PhoneNumbers", number.sid)
    assert made.json == {
        "sid": number.sid,
        "account_sid": world.owner.sid,
        "service_sid": pools.service,
        "date_created": "2023-11-14T22:13:20Z",
        "date_updated": "2023-11-14T22:13:20Z",
        "phone_number": NUMBER,
        "country_code": "US",
        "capabilities": ["MMS", "SMS", "Voice"],
        "url": "http://localhost:8080" + own,
    }
    assert [one.address for one in world.services.directory.senders(pools.service)] == [NUMBER]
    assert (await world.get(own)).json == made.json
    assert (await world.get(pools.path("PhoneNumbers"))).json["phone_numbers"] == [made.json]
    assert (await world.call("DELETE", own)).status == 204
    assert (await world.get(pools.path("PhoneNumbers"))).json["phone_numbers"] == []
    assert world.services.directory.senders(pools.service) == ()
    assert world.services.directory.owned_sender(world.owner.sid, NUMBER) is not None


async def test_a_number_is_in_one_service_once(pools: Pools, world: World) -> None:
    number = await world.stock(NUMBER, account_sid=world.owner.sid)
    fields = {"PhoneNumberSid": number.sid}
    await world.post(pools.path("PhoneNumbers"), fields)
    again = await world.post(pools.path("PhoneNumbers"), fields)
    assert (again.status, again.code) == (409, 21710)
    elsewhere = await world.post(pools.path("PhoneNumbers", service=pools.other), fields)
    assert (elsewhere.status, elsewhere.code) == (409, 21712)
    looked = await world.get(pools.path("PhoneNumbers", number.sid, service=pools.other))
    assert (looked.status, looked.code) == (404, 21711)
    removed = await world.call("DELETE", pools.path("PhoneNumbers", number.sid, service=pools.other))
    assert (removed.status, removed.code) == (404, 21711)
    assert world.services.directory.senders(pools.service) != ()


async def test_what_a_deleted_service_or_a_former_owner_left_behind_does_not_count(pools: Pools, world: World) -> None:
    first = await world.stock(NUMBER, account_sid=world.owner.sid)
    second = await world.stock("+12025550101", account_sid=world.owner.sid)
    orphan = ServiceSender(
        sid=first.sid, account_sid=world.owner.sid, service_sid=new_sid("MG"), kind="phone_number", address=NUMBER
    )
    formers = ServiceSender(
        sid=second.sid,
        account_sid="AC" + "9" * 32,
        service_sid=pools.other,
        kind="phone_number",
        address="+12025550101",
    )
    await world.database.insert(orphan, formers)
    for number in (first, second):
        reply = await world.post(pools.path("PhoneNumbers"), {"PhoneNumberSid": number.sid})
        assert reply.status == 201
        assert reply.json["service_sid"] == pools.service


async def test_numbers_that_cannot_join(pools: Pools, world: World) -> None:
    strangers = await world.stock("+12025550101", account_sid="AC" + "9" * 32)
    free = await world.stock("+12025550102")
    mute = await world.stock("+12025550103", account_sid=world.owner.sid, sms_enabled=False)
    for sid, code in ((strangers.sid, 20404), (free.sid, 20404), ("PNx", 20404), (mute.sid, 21715), ("", 20001)):
        assert (await world.post(pools.path("PhoneNumbers"), {"PhoneNumberSid": sid})).code == code
    assert await world.database.count(ServiceSender) == 0
    assert (await world.get(pools.path("PhoneNumbers", strangers.sid))).code == 20404


async def test_a_pool_has_a_limit(pools: Pools, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_senders, "MAX_SENDERS", 2)
    for name in ("One", "Two"):
        assert (await world.post(pools.path("AlphaSenders"), {"AlphaSender": name})).status == 201
    number = await world.stock(NUMBER, account_sid=world.owner.sid)
    assert (await world.post(pools.path("PhoneNumbers"), {"PhoneNumberSid": number.sid})).code == 21714


async def test_only_the_services_owner_may(pools: Pools, world: World) -> None:
    stranger = await create_account(world.database, world.clock, "Stranger")
    login = (stranger.sid, stranger.auth_token)
    number = await world.stock(NUMBER, account_sid=stranger.sid)
    assert (await world.get(pools.path("PhoneNumbers"), auth=login)).code == 20404
    added = await world.post(pools.path("PhoneNumbers"), {"PhoneNumberSid": number.sid}, auth=login)
    assert added.code == 20404
    assert await world.database.count(ServiceSender) == 0


async def test_pages(pools: Pools, world: World) -> None:
    for last in range(5):
        number = await world.stock(f"+1202555010{last}", account_sid=world.owner.sid)
        await world.post(pools.path("PhoneNumbers"), {"PhoneNumberSid": number.sid})
    seen, url = [], pools.path("PhoneNumbers") + "?PageSize=2"
    while url:
        reply = (await world.get(url.removeprefix("http://localhost:8080"))).json
        seen += [one["phone_number"] for one in reply["phone_numbers"]]
        url = reply["meta"]["next_page_url"]
    assert sorted(seen) == [f"+1202555010{last}" for last in range(5)]


# -- short codes -------------------------------------------------------------------------------------------------


async def test_a_short_code_joins_shows_and_leaves(pools: Pools, world: World) -> None:
    code = await world.short_code("894546", country="US")
    made = await world.post(pools.path("ShortCodes"), {"ShortCodeSid": code.sid})
    assert made.status == 201
    own = pools.path("ShortCodes", code.sid)
    assert made.json["short_code"] == "894546"
    assert made.json["country_code"] == "US"
    assert made.json["capabilities"] == ["SMS"]
    assert made.json["url"] == "http://localhost:8080" + own
    assert (await world.get(own)).json == made.json
    assert (await world.get(pools.path("ShortCodes"))).json["short_codes"] == [made.json]
    assert (await world.get(pools.path("PhoneNumbers"))).json["phone_numbers"] == []
    assert (await world.get(pools.path("PhoneNumbers", code.sid))).status == 404
    assert (await world.post(pools.path("ShortCodes"), {"ShortCodeSid": code.sid})).code == 21710
    other = pools.path("ShortCodes", service=pools.other)
    assert (await world.post(other, {"ShortCodeSid": code.sid})).code == 21712
    assert (await world.call("DELETE", own)).status == 204
    assert (await world.get(own)).code == 21711


async def test_short_codes_that_cannot_join(pools: Pools, world: World) -> None:
    code = await world.short_code("894546", account_sid="AC" + "9" * 32)
    for sid in (code.sid, "SCx"):
        assert (await world.post(pools.path("ShortCodes"), {"ShortCodeSid": sid})).code == 20404
    assert (await world.post(pools.path("ShortCodes"))).code == 20001


# -- alphanumeric senders ----------------------------------------------------------------------------------------


async def test_an_alpha_sender_joins_shows_and_leaves(pools: Pools, world: World) -> None:
    made = await world.post(pools.path("AlphaSenders"), {"AlphaSender": "My Shop"})
    assert made.status == 201
    sid = made.json["sid"]
    assert sid.startswith("AI")
    assert (made.json["alpha_sender"], made.json["capabilities"]) == ("My Shop", ["SMS"])
    own = pools.path("AlphaSenders", sid)
    assert made.json["url"] == "http://localhost:8080" + own
    assert (await world.get(own)).json == made.json
    assert (await world.get(pools.path("AlphaSenders"))).json["alpha_senders"] == [made.json]
    assert (await world.post(pools.path("AlphaSenders"), {"AlphaSender": "My Shop"})).code == 21710
    other = pools.path("AlphaSenders", service=pools.other)
    assert (await world.post(other, {"AlphaSender": "My Shop"})).status == 201
    assert (await world.call("DELETE", own)).status == 204
    assert (await world.get(own)).code == 20404


@pytest.mark.parametrize("name", ["12345", "TwelveLetters", "Ümlaut", "a.b", " "])
async def test_names_that_no_network_takes(pools: Pools, world: World, name: str) -> None:
    assert (await world.post(pools.path("AlphaSenders"), {"AlphaSender": name})).code == 21709


async def test_a_name_must_be_given(pools: Pools, world: World) -> None:
    assert (await world.post(pools.path("AlphaSenders"))).code == 21708


async def test_destination_alpha_senders(pools: Pools, world: World) -> None:
    path = pools.path("DestinationAlphaSenders")
    french = await world.post(path, {"AlphaSender": "Shop", "IsoCountryCode": "fr"})
    assert (french.status, french.json["iso_country_code"]) == (201, "FR")
    assert french.json["url"] == f"http://localhost:8080{path}/{french.json['sid']}"
    german = (await world.post(path, {"AlphaSender": "Shop", "IsoCountryCode": "DE"})).json
    default = (await world.post(path, {"AlphaSender": "Shop"})).json
    assert default["iso_country_code"] == ""
    assert (await world.post(path, {"AlphaSender": "Shop", "IsoCountryCode": "DE"})).code == 21710
    everything = (await world.get(path)).json
    assert everything["meta"]["key"] == "alpha_senders"
    sids = {one["sid"] for one in everything["alpha_senders"]}
    assert sids == {french.json["sid"], german["sid"], default["sid"]}
    assert (await world.get(path + "?IsoCountryCode=DE")).json["alpha_senders"] == [german]
    plain = (await world.get(pools.path("AlphaSenders"))).json["alpha_senders"]
    assert [one["sid"] for one in plain] == [default["sid"]]
    assert (await world.get(f"{path}/{german['sid']}")).json == german
    assert (await world.call("DELETE", f"{path}/{german['sid']}")).status == 204
    assert (await world.get(f"{path}/{german['sid']}")).code == 20404


@pytest.mark.parametrize(("country", "code"), [("US", 21709), ("FRA", 20422), ("1", 20422)])
async def test_countries_without_alpha_senders(pools: Pools, world: World, country: str, code: int) -> None:
    path = pools.path("DestinationAlphaSenders")
    assert (await world.post(path, {"AlphaSender": "Shop", "IsoCountryCode": country})).code == code
