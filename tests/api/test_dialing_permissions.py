"""Dialing permissions: every resource of voice.twilio.com that is served.

| resource | |
|---|---|
| Countries | iso_code, name, continent, country_codes, low_risk..., high_risk_special..., high_risk_tollfraud... |
| HighRiskSpecialPrefixes | prefix |
| BulkCountryUpdates | update_count, update_request |
| Settings | dialing_permissions_inheritance |
"""

import json
from typing import Any

import pytest

from tests.api.conftest import World
from tests.api.harness import Reply
from tests.api.spec_check import needs_contract, problems
from trunkline.api.dialing_permissions import countries
from trunkline.model.account import Account

HOST = {"host": "voice.twilio.com"}
COUNTRIES = "/v1/DialingPermissions/Countries"
BULK = "/v1/DialingPermissions/BulkCountryUpdates"
PRODUCT = "voice_v1"


async def get(world: World, path: str, **more: Any) -> Reply:
    return await world.get(path, **HOST, **more)


async def update(world: World, *updates: dict[str, Any], **more: Any) -> Reply:
    return await world.post(BULK, {"UpdateRequest": json.dumps(updates)}, **HOST, **more)


def flags(country: dict[str, Any]) -> tuple[bool, bool, bool]:
    return (
        country["low_risk_numbers_enabled"],
        country["high_risk_special_numbers_enabled"],
        country["high_risk_tollfraud_numbers_enabled"],
    )


def login(account: Account) -> tuple[str, str]:
    return account.sid, account.auth_token


async def test_a_country(world: World) -> None:
    reply = await get(world, f"{COUNTRIES}/US")
    url = "http://voice.twilio.com" + COUNTRIES + "/US"
    assert reply.json == {
        "iso_code": "US", "name": "United States/Canada", "continent": "NORTH_AMERICA", "country_codes": ["+1"],
        "low_risk_numbers_enabled": True, "high_risk_special_numbers_enabled": False,
        "high_risk_tollfraud_numbers_enabled": False, "url": url,
        "links": {"highrisk_special_prefixes": f"{url}/HighRiskSpecialPrefixes"},
    }  # fmt: skip
    assert (await get(world, f"{COUNTRIES}/CA")).json == reply.json
    assert (await get(world, f"{COUNTRIES}/JM")).json["country_codes"] == ["+1658", "+1876"]
    assert (await get(world, f"{COUNTRIES}/XX")).code == 20404
    assert (await world.get(f"/voice{COUNTRIES}/lv")).json["iso_code"] == "LV"


def test_every_country_has_a_name_a_continent_and_codes() -> None:
    assert len(countries()) > 230
    assert [one.iso for one in countries().values() if not one.continent or one.name == one.iso or not one.codes] == []


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("IsoCode=GB", ["GB"]),
        ("CountryCode=%2B371", ["LV"]),
        ("CountryCode=7", ["KZ", "RU"]),
        ("Continent=SOUTH_AMERICA&CountryCode=55", ["BR"]),
        ("IsoCode=DE&LowRiskNumbersEnabled=false", []),
        ("HighRiskSpecialNumbersEnabled=true", ["AT"]),
        ("IsoCode=XX", []),
    ],
)
async def test_filters(world: World, query: str, found: list[str]) -> None:
    await update(world, {"iso_code": "AT", "high_risk_special_numbers_enabled": "true"})
    reply = await get(world, f"{COUNTRIES}?{query}")
    assert [one["iso_code"] for one in reply.json["content"]] == found
    assert reply.json["meta"]["key"] == "content"


async def test_pages(world: World) -> None:
    seen: list[str] = []
    path = f"{COUNTRIES}?PageSize=100"
    while path:
        page = (await get(world, path)).json
        seen += [one["iso_code"] for one in page["content"]]
        path = (page["meta"]["next_page_url"] or "").removeprefix("http://voice.twilio.com")
    assert seen == sorted(countries())


async def test_prefixes_of_special_services(world: World) -> None:
    reply = await get(world, f"{COUNTRIES}/LV/HighRiskSpecialPrefixes")
    assert reply.json["content"] == [{"prefix": "+37181"}, {"prefix": "+3719"}]
    assert {"prefix": "+1900"} in (await get(world, f"{COUNTRIES}/US/HighRiskSpecialPrefixes")).json["content"]


async def test_what_is_changed_holds_and_the_rest_stays(world: World) -> None:
    made = await update(
        world,
        {"iso_code": "GB", "low_risk_numbers_enabled": "true", "high_risk_special_numbers_enabled": "true"},
        {"iso_code": "fr", "low_risk_numbers_enabled": False, "high_risk_tollfraud_numbers_enabled": True},
        {"iso_code": "IT", "low_risk_numbers": "Disabled", "high_risk_irsf_numbers": "Enabled"},
    )
    assert (made.status, made.json) == (201, {"update_count": 3, "update_request": "accepted"})
    await update(world, {"iso_code": "GB", "high_risk_tollfraud_numbers_enabled": "true"})
    found = {iso: flags((await get(world, f"{COUNTRIES}/{iso}")).json) for iso in ("GB", "FR", "IT", "DE")}
    assert found == {
        "GB": (True, True, True), "FR": (False, False, True), "IT": (False, False, True), "DE": (True, False, False),
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["", "{", "{}", "[]", "[1]", '["US"]', '[{"iso_code":"XX"}]', "[" * 20_000, json.dumps([{"iso_code": "US"}] * 1001),
     '[{"iso_code":"US","low_risk_numbers_enabled":"maybe"}]'],
)  # fmt: skip
async def test_updates_that_are_none(world: World, text: str) -> None:
    reply = await world.post(BULK, {"UpdateRequest": text}, **HOST)
    assert reply.status == 400
    assert reply.code in (20001, 20422)


async def test_subaccounts_inherit_until_they_say_otherwise(world: World) -> None:
    sub = await world.subaccount()
    auth = {"auth": login(sub)}
    await update(world, {"iso_code": "DE", "low_risk_numbers_enabled": "false"})
    settings = (await get(world, "/v1/Settings", **auth)).json
    assert settings == {"dialing_permissions_inheritance": True, "url": "http://voice.twilio.com/v1/Settings"}
    assert not (await get(world, f"{COUNTRIES}/DE", **auth)).json["low_risk_numbers_enabled"]
    changed = await world.post("/v1/Settings", {"DialingPermissionsInheritance": "false"}, **HOST, **auth)
    assert (changed.status, changed.json["dialing_permissions_inheritance"]) == (202, False)
    assert (await get(world, f"{COUNTRIES}/DE", **auth)).json["low_risk_numbers_enabled"]
    await update(world, {"iso_code": "AT", "low_risk_numbers_enabled": "false"}, **auth)
    assert (await get(world, f"{COUNTRIES}/AT")).json["low_risk_numbers_enabled"]
    await world.post("/v1/Settings", {"DialingPermissionsInheritance": "true"}, **HOST, **auth)
    assert (await get(world, f"{COUNTRIES}/AT", **auth)).json["low_risk_numbers_enabled"]


async def test_the_first_own_permission_of_a_subaccount_ends_inheritance(world: World) -> None:
    sub = await world.subaccount()
    await update(world, {"iso_code": "AT", "low_risk_numbers_enabled": "false"}, auth=login(sub))
    assert not (await get(world, "/v1/Settings", auth=login(sub))).json["dialing_permissions_inheritance"]
    assert (await get(world, f"{COUNTRIES}/AT")).json["low_risk_numbers_enabled"]


async def test_the_directory_knows_them_at_once(world: World) -> None:
    directory = world.services.directory
    sub = await world.subaccount()
    assert directory.dialing_permissions(world.owner.sid) is None
    await update(world, {"iso_code": "DE", "low_risk_numbers_enabled": "false"})
    for account in (world.owner, sub):
        found = directory.dialing_permissions(account.sid)
        assert found is not None
        assert found.countries == {"DE": ""}
    assert directory.dialing_permissions("AC" + "0" * 32) is None


@needs_contract
async def test_as_the_specification_has_it(world: World) -> None:
    name = "voice.v1.dialing_permissions.dialing_permissions"
    for path, schema in (
        (f"{COUNTRIES}/LV", name + "_country-instance"),
        ("/v1/Settings", name + "_settings"),
    ):
        assert problems(PRODUCT, schema, (await get(world, path)).json) == []
    for one in (await get(world, f"{COUNTRIES}?PageSize=1000")).json["content"]:
        assert problems(PRODUCT, name + "_country", one) == []
    for one in (await get(world, f"{COUNTRIES}/GB/HighRiskSpecialPrefixes")).json["content"]:
        assert problems(PRODUCT, name + "_country.dialing_permissions_hrs_prefixes", one) == []
    made = await update(world, {"iso_code": "LV", "low_risk_numbers_enabled": "true"})
    assert problems(PRODUCT, name + "_country_bulk_update", made.json) == []
