"""Lookup v1: what the numbering plan tells about a number.

No carrier or caller-name database is asked: `carrier` holds the line type where the plan parts mobile from fixed,
`caller_name` stays null, add-ons answer that they are not installed. Source: spec `lookups.v1.phone_number`.
"""

from typing import Any
from urllib.parse import quote

from trunkline.api import respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.model import phone
from trunkline.model.errors import ApiError, describe
from trunkline.model.phone import LineType, NumberDetails

DEFAULT_COUNTRY = "US"
"""Where numbers in national format are read without a CountryCode."""
OUT_OF_COVERAGE = 60600
ADD_ON_NOT_INSTALLED = 61003
MAX_ADD_ONS = 20
_TYPES = ("carrier", "caller-name")
_LINES = {
    LineType.MOBILE: "mobile",
    LineType.LANDLINE: "landline",
    LineType.FIXED_VOIP: "voip",
    LineType.NON_FIXED_VOIP: "voip",
}


def look_up(request: Request) -> NumberDetails:
    """The number that the path names, read in CountryCode; digits that start with a calling code may lack the plus."""
    text = request.params["PhoneNumber"].strip()
    country = request.str("CountryCode", 10, default="").strip().upper()
    if country and not (len(country) == 2 and country.isascii() and country.isalpha()):
        raise ApiError.invalid("CountryCode", "must be an ISO 3166-1 alpha-2 code")
    found = phone.details(text, country or DEFAULT_COUNTRY)
    if not found.valid and not country and text[:1].isdigit():
        international = phone.details("+" + text)
        return international if international.valid else found
    return found


def url_of(request: Request, version: str, number: str) -> str:
    """The resource's absolute address."""
    return f"{request.base_url}/{version}/PhoneNumbers/{quote(number, safe='+')}"


def _carrier(found: NumberDetails) -> dict[str, Any]:
    line = _LINES.get(found.line_type)
    return {
        "error_code": None if line else OUT_OF_COVERAGE,
        "mobile_country_code": None,
        "mobile_network_code": None,
        "name": None,
        "type": line,
    }


def _add_ons(names: list[str]) -> dict[str, Any]:
    message = describe(ADD_ON_NOT_INSTALLED).message
    failed = {"status": "failed", "message": message, "code": ADD_ON_NOT_INSTALLED}
    return {**failed, "results": {name: {**failed, "request_sid": None, "result": None} for name in names}}


async def fetch(request: Request, app: object) -> Response:
    """GET PhoneNumbers/{PhoneNumber}; a number of no assigned range is 20404."""
    types = {kind.strip().lower() for text in request.list("Type") for kind in text.split(",")}
    if not types <= set(_TYPES):
        raise ApiError.invalid("Type", "must be carrier or caller-name")
    add_ons = request.list("AddOns", MAX_ADD_ONS, 64)
    found = look_up(request)
    if not found.valid:
        raise ApiError.not_found(request.path)
    content = {
        "caller_name": None,
        "carrier": _carrier(found) if "carrier" in types else None,
        "add_ons": _add_ons(add_ons) if add_ons else None,
        "country_code": found.country,
        "national_format": found.national_format,
        "phone_number": found.phone_number,
        "url": url_of(request, "v1", found.phone_number),
    }
    return respond.json(content)


ROUTES = (Route("lookups", "GET", "/v1/PhoneNumbers/{PhoneNumber}", fetch),)
