"""Lookup v1."""

import pytest

from tests.api.conftest import World

PATH = "/lookups/v1/PhoneNumbers/"


async def test_a_number(world: World) -> None:
    reply = await world.get(PATH + "%2B15108675310")
    assert reply.status == 200
    assert reply.json == {
        "caller_name": None,
        "carrier": None,
        "add_ons": None,
        "country_code": "US",
        "national_format": "(510) 867-5310",
        "phone_number": "+15108675310",
        "url": "http://localhost:8080/lookups/v1/PhoneNumbers/+15108675310",
    }


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("+15108675310", "+15108675310"),
        ("5108675310", "+15108675310"),
        ("15108675310", "+15108675310"),
        ("(510)867-5310", "+15108675310"),
        ("442077651182", "+442077651182"),
        ("02077651182?CountryCode=GB", "+442077651182"),
        ("02077651182?CountryCode=gb", "+442077651182"),
    ],
)
async def test_ways_to_write_it(world: World, written: str, number: str) -> None:
    assert (await world.get(PATH + written)).json["phone_number"] == number


@pytest.mark.parametrize(
    ("number", "kind", "error"),
    [
        ("+447400123456", "mobile", None),
        ("+442077651182", "landline", None),
        ("+445601234567", "voip", None),
        ("+15108675310", None, 60600),
    ],
)
async def test_the_carrier_tells_the_line_type(world: World, number: str, kind: str | None, error: int | None) -> None:
    found = (await world.get(f"{PATH}{number}?Type=carrier&Type=caller-name")).json
    assert found["carrier"] == {
        "error_code": error,
        "mobile_country_code": None,
        "mobile_network_code": None,
        "name": None,
        "type": kind,
    }
    assert found["caller_name"] is None


@pytest.mark.parametrize("number", ["+11234567890", "+1510867531", "hello", "+999123456789", "+1510867531000000000"])
async def test_what_is_no_number_is_not_found(world: World, number: str) -> None:
    reply = await world.get(PATH + number)
    assert (reply.status, reply.code) == (404, 20404)


async def test_add_ons_answer_that_they_are_not_installed(world: World) -> None:
    found = (await world.get(PATH + "+15108675310?AddOns=nomorobo_spamscore")).json["add_ons"]
    assert (found["status"], found["code"]) == ("failed", 61003)
    assert found["results"]["nomorobo_spamscore"]["status"] == "failed"


@pytest.mark.parametrize("query", ["Type=line", "CountryCode=USA", "CountryCode=1"])
async def test_bad_parameters(world: World, query: str) -> None:
    assert (await world.get(f"{PATH}+15108675310?{query}")).code == 20422


async def test_a_login_is_needed(world: World) -> None:
    assert (await world.get(PATH + "+15108675310", auth=None)).status == 401
