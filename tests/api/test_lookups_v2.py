"""Lookup v2."""

import pytest

from tests.api.conftest import World
from trunkline.api.lookups_v2 import PACKAGES

PATH = "/lookups/v2/PhoneNumbers/"


async def test_a_valid_number(world: World) -> None:
    reply = await world.get(PATH + "+14159929960")
    assert reply.status == 200
    assert reply.json == {
        "calling_country_code": "1",
        "country_code": "US",
        "phone_number": "+14159929960",
        "national_format": "(415) 992-9960",
        "valid": True,
        "validation_errors": [],
        **dict.fromkeys(PACKAGES),
        "url": "http://localhost:8080/lookups/v2/PhoneNumbers/+14159929960",
    }


async def test_an_invalid_number_is_answered_with_the_reason(world: World) -> None:
    reply = await world.get(PATH + "+141599299600?Fields=line_type_intelligence")
    assert reply.status == 200
    assert reply.json == {
        "calling_country_code": None,
        "country_code": None,
        "phone_number": "+141599299600",
        "national_format": None,
        "valid": False,
        "validation_errors": ["TOO_LONG"],
        **dict.fromkeys(PACKAGES),
        "url": "http://localhost:8080/lookups/v2/PhoneNumbers/+141599299600",
    }


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("+1415", "TOO_SHORT"),
        ("+11234567890", "INVALID_BUT_POSSIBLE"),
        ("+999123456789", "INVALID_COUNTRY_CODE"),
        ("hello", "NOT_A_NUMBER"),
    ],
)
async def test_reasons(world: World, written: str, reason: str) -> None:
    found = (await world.get(PATH + written)).json
    assert (found["valid"], found["validation_errors"]) == (False, [reason])


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        ("+447400123456", "mobile"),
        ("+442077651182", "landline"),
        ("+445601234567", "nonFixedVoip"),
        ("+18005551234", "tollFree"),
        ("+14159929960", "unknown"),
    ],
)
async def test_line_types(world: World, number: str, kind: str) -> None:
    found = (await world.get(f"{PATH}{number}?Fields=validation,line_type_intelligence")).json
    assert found["line_type_intelligence"] == {
        "error_code": None,
        "mobile_country_code": None,
        "mobile_network_code": None,
        "carrier_name": None,
        "type": kind,
    }
    assert found["caller_name"] is None


async def test_other_packages_are_not_enabled(world: World) -> None:
    found = (await world.get(PATH + "+14159929960?Fields=" + ",".join(PACKAGES))).json
    for name, fields in PACKAGES.items():
        assert set(found[name]) == {*fields, "error_code"}
        if name != "line_type_intelligence":
            assert found[name]["error_code"] == ("60606" if name == "reassigned_number" else 60606)
            assert set(found[name].values()) == {None, found[name]["error_code"]}


async def test_an_unknown_package(world: World) -> None:
    assert (await world.get(PATH + "+14159929960?Fields=horoscope")).code == 20422


async def test_national_numbers_are_read_in_the_country(world: World) -> None:
    assert (await world.get(PATH + "02077651182?CountryCode=GB")).json["phone_number"] == "+442077651182"


async def test_what_only_twilio_has(world: World) -> None:
    assert (await world.post("/lookups/v2/batch/query")).status == 501
    assert (await world.get("/lookups/v2/RateLimits")).status == 501
    assert (await world.get(PATH + "+14159929960/Overrides/line_type")).status == 501
