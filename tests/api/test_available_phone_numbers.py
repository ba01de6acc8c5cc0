"""AvailablePhoneNumbers: countries, kinds and filters."""

import pytest

from tests.api.conftest import World

US = "AvailablePhoneNumbers/US/Local.json"


async def numbers(world: World, query: str = "", path: str = US) -> list[str]:
    reply = await world.get(world.path(f"{path}?{query}"))
    assert reply.status == 200, reply.body
    return [one["phone_number"] for one in reply.json["available_phone_numbers"]]


async def stock(world: World) -> None:
    await world.stock(
        "+18089251571", locality="Hilo", region="HI", postal_code="96720", rate_center="HILO", lata="834",
        latitude=19.72, longitude=-155.09, mms_enabled=True,
    )  # fmt: skip
    await world.stock("+14155550100", locality="San Francisco", region="CA", latitude=37.77, longitude=-122.42)
    await world.stock("+15105550111", region="CA", latitude=37.80, longitude=-122.27, sms_enabled=False, beta=True)
    await world.stock("+12125550122", region="NY", address_requirements="local")
    await world.stock("+18005550133", type="tollfree")
    await world.stock("+4759440374", type="mobile", country="NO")
    await world.stock("+14155550199", account_sid=world.owner.sid)


async def test_a_number_as_it_is_shown(world: World) -> None:
    await stock(world)
    (shown,) = (await world.get(world.path(US + "?AreaCode=808"))).json["available_phone_numbers"]
    assert shown == {
        "friendly_name": "(808) 925-1571", "phone_number": "+18089251571", "lata": "834", "locality": "Hilo",
        "rate_center": "HILO", "latitude": "19.720000", "longitude": "-155.090000", "region": "HI",
        "postal_code": "96720", "iso_country": "US", "address_requirements": "none", "beta": False,
        "capabilities": {"voice": True, "sms": True, "mms": True, "fax": False},
    }  # fmt: skip


async def test_countries_have_what_is_available(world: World) -> None:
    await stock(world)
    found = (await world.get(world.path("AvailablePhoneNumbers.json"))).json
    assert set(found) == {"uri", "countries"}
    assert [(one["country_code"], one["country"]) for one in found["countries"]] == [
        ("NO", "Norway"),
        ("US", "United States"),
    ]
    assert set(found["countries"][1]["subresource_uris"]) == {"local", "toll_free"}
    norway = (await world.get(found["countries"][0]["uri"])).json
    assert norway == found["countries"][0]
    assert await numbers(world, path=norway["subresource_uris"]["mobile"].partition(world.owner.sid + "/")[2]) == [
        "+4759440374"
    ]
    assert (await world.get(world.path("AvailablePhoneNumbers/DE.json"))).code == 20404
    assert (await world.get(world.path("AvailablePhoneNumbers/xyz.json"))).code == 20404


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["+12125550122", "+14155550100", "+15105550111", "+18089251571"]),
        ("PageSize=2", ["+12125550122", "+14155550100"]),
        ("AreaCode=415", ["+14155550100"]),
        ("SmsEnabled=false", ["+15105550111"]),
        ("MmsEnabled=true", ["+18089251571"]),
        ("Beta=false", ["+12125550122", "+14155550100", "+18089251571"]),
        ("InRegion=ca", ["+14155550100", "+15105550111"]),
        ("InLocality=Hilo", ["+18089251571"]),
        ("InPostalCode=96720", ["+18089251571"]),
        ("InRateCenter=HILO&InLata=834", ["+18089251571"]),
        ("ExcludeLocalAddressRequired=true", ["+14155550100", "+15105550111", "+18089251571"]),
        ("ExcludeAllAddressRequired=true&InRegion=NY", []),
        ("ExcludeForeignAddressRequired=true&InRegion=NY", ["+12125550122"]),
        ("Contains=925", ["+18089251571"]),
        ("Contains=555****", ["+12125550122", "+14155550100", "+15105550111"]),
        ("Contains=%2B1808", ["+18089251571"]),
        ("Contains=00%24", ["+14155550100"]),
        ("Contains=415%25100", ["+14155550100"]),
        ("Contains=WAJ", ["+18089251571"]),
        ("NearLatLong=37.78,-122.4", ["+14155550100", "+15105550111"]),
        ("NearLatLong=37.78,-122.4&Distance=5", ["+14155550100"]),
        ("NearNumber=%2B15105550111", ["+15105550111", "+14155550100"]),
    ],
)
async def test_filters(world: World, query: str, expected: list[str]) -> None:
    await stock(world)
    assert await numbers(world, query) == expected


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("AreaCode=1", 21451),
        ("Contains=a$b", 20422),
        ("Contains=%28%3F", 20422),
        ("NearLatLong=nan,1", 20422),
        ("NearLatLong=somewhere", 20422),
        ("NearNumber=%2B12125550122", 20422),
        ("Distance=501", 20422),
    ],
)
async def test_bad_filters(world: World, query: str, code: int) -> None:
    await stock(world)
    reply = await world.get(world.path(f"{US}?{query}"))
    assert (reply.status, reply.code) == (400, code)


async def test_area_codes_are_north_american(world: World) -> None:
    assert (await world.get(world.path("AvailablePhoneNumbers/NO/Mobile.json?AreaCode=594"))).code == 21457


async def test_a_released_number_can_be_found_and_bought(world: World) -> None:
    await stock(world)
    bought = (await world.post(world.path("IncomingPhoneNumbers.json"), {"PhoneNumber": "+14155550100"})).json
    assert await numbers(world, "AreaCode=415") == []
    await world.call("DELETE", bought["uri"])
    assert await numbers(world, "AreaCode=415") == ["+14155550100"]


async def test_xml(world: World) -> None:
    await stock(world)
    body = (await world.get(world.path("AvailablePhoneNumbers/US/TollFree"))).body
    assert b"<AvailablePhoneNumbers uri=" in body
    assert b"<PhoneNumber>+18005550133</PhoneNumber>" in body


async def test_test_credentials_are_refused(world: World) -> None:
    path = world.path(US, world.owner.test_account_sid)
    assert (await world.get(path, auth=world.test_login)).code == 20008
