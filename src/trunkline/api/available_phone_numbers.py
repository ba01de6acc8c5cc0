"""AvailablePhoneNumbers: what of the operator's inventory nobody has; by country and kind, with filters.

These lists are not paged (Twilio's are not either): PageSize says how many numbers come, in the numbers' order, or the
nearest first where a place is asked for.
Source: spec `api.v2010.account.available_phone_number_country` and below.
"""

import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from math import asin, cos, radians, sin, sqrt
from typing import Any

from trunkline.api import paging, respond, xml_body
from trunkline.api.incoming_phone_numbers import AREA_CODE, AREA_CODE_COUNTRIES, display_name
from trunkline.api.request import Request
from trunkline.api.respond import Format, Response
from trunkline.api.route import Handler, Route
from trunkline.api.services import Services
from trunkline.model import phone
from trunkline.model.errors import ApiError
from trunkline.model.numbers import PhoneNumber
from trunkline.storage.database import Database

TYPES = {
    "Local": "local",
    "TollFree": "tollfree",
    "Mobile": "mobile",
    "National": "national",
    "Voip": "voip",
    "SharedCost": "shared-cost",
    "MachineToMachine": "machine-to-machine",
}
"""Path -> type in the inventory."""
LINKS = {
    "Local": "local",
    "TollFree": "toll_free",
    "Mobile": "mobile",
    "National": "national",
    "Voip": "voip",
    "SharedCost": "shared_cost",
    "MachineToMachine": "machine_to_machine",
}
"""Path -> key in a country's `subresource_uris`."""
CAPABILITIES = ("SmsEnabled", "MmsEnabled", "VoiceEnabled", "FaxEnabled")
PLACES = {
    "InRegion": "region",
    "InLocality": "locality",
    "InPostalCode": "postal_code",
    "InRateCenter": "rate_center",
    "InLata": "lata",
}
EXCLUDED = {
    "ExcludeAllAddressRequired": ("any", "local", "foreign"),
    "ExcludeLocalAddressRequired": ("local",),
    "ExcludeForeignAddressRequired": ("foreign",),
}
"""Parameter -> address requirements that it leaves out."""
DEFAULT_MILES = 25
MAX_MILES = 500
EARTH_MILES = 3958.8
"""Mean radius."""
KEYPAD = dict(zip("abcdefghijklmnopqrstuvwxyz", "22233344455566677778889999", strict=True))
"""The digit that a letter stands on (ITU-T E.161)."""
CONTAINS = re.compile(r"\+?[0-9a-z*%]{1,20}\$?", re.ASCII)
SCAN_PAGE = 1000
MAX_SCANNED = 50_000
"""Numbers that one request looks through."""
MAX_COUNTRIES = 300

Keep = Callable[[PhoneNumber], bool]
Point = tuple[float, float]
"""Latitude and longitude in degrees."""


@cache
def country_names() -> dict[str, str]:
    """English names by ISO 3166-1 alpha-2 code."""
    text = files("trunkline.api").joinpath("country_names.txt").read_text("utf-8")
    return {line[:2]: line[3:] for line in text.splitlines() if not line.startswith("#")}


# -- countries ---------------------------------------------------------------------------------------------------


async def _country(database: Database, account_sid: str, code: str) -> dict[str, Any] | None:
    """A country's resource; None when nothing of it is available."""
    base = f"/2010-04-01/Accounts/{account_sid}/AvailablePhoneNumbers/{code}"
    links: dict[str, str] = {}
    for path, type_ in TYPES.items():
        if await database.find(PhoneNumber, {"account_sid": "", "country": code, "type": type_}, limit=1):
            links[LINKS[path]] = f"{base}/{path}.json"
    if not links:
        return None
    return {
        "beta": False,
        "country": country_names().get(code, code),
        "country_code": code,
        "subresource_uris": links,
        "uri": base + ".json",
    }


async def countries(request: Request, app: Services) -> Response:
    """GET AvailablePhoneNumbers: the countries that numbers are available in."""
    found: list[dict[str, Any]] = []
    last = ""
    for _ in range(MAX_COUNTRIES):
        where = {"account_sid": "", "country__gt": last}
        following = await app.database.find(PhoneNumber, where, order="country", limit=1)
        if not following:
            break
        last = following[0].country
        country = await _country(app.database, request.account_sid, last)
        if country is not None:
            found.append(country)
    return _whole(request, "countries", "Country", found)


async def country(request: Request, app: Services) -> Response:
    """GET AvailablePhoneNumbers/{CountryCode}."""
    found = await _country(app.database, request.account_sid, _code(request))
    if found is None:
        raise ApiError.not_found(request.path)
    return respond.resource(request.format, found, "Country")


def _code(request: Request) -> str:
    code = request.params["CountryCode"].upper()
    if not (len(code) == 2 and code.isascii() and code.isalpha()):
        raise ApiError.not_found(request.path)
    return code


def _whole(request: Request, key: str, element: str, items: list[dict[str, Any]]) -> Response:
    """A list that has no pages."""
    uri = request.resource_path + ".json"
    if request.format is Format.XML:
        body = xml_body.page(xml_body.camel(key), element, items, {"uri": uri})
        return Response(200, body, respond.XML_HEADERS)
    return respond.json({"uri": uri, key: items})


# -- numbers -----------------------------------------------------------------------------------------------------


def render(number: PhoneNumber) -> dict[str, Any]:
    """An available number as the API shows it; coordinates are text with six decimals."""
    return {
        "friendly_name": display_name(number),
        "phone_number": number.phone_number,
        "lata": number.lata or None,
        "locality": number.locality or None,
        "rate_center": number.rate_center or None,
        "latitude": None if number.latitude is None else f"{number.latitude:.6f}",
        "longitude": None if number.longitude is None else f"{number.longitude:.6f}",
        "region": number.region or None,
        "postal_code": number.postal_code or None,
        "iso_country": number.country,
        "address_requirements": number.address_requirements,
        "beta": number.beta,
        "capabilities": {
            "voice": number.voice_enabled,
            "sms": number.sms_enabled,
            "mms": number.mms_enabled,
            "fax": number.fax_enabled,
        },
    }


async def _numbers(request: Request, app: Services, type_: str) -> Response:
    """GET AvailablePhoneNumbers/{CountryCode}/Local and the like."""
    asked = paging.read(request)
    code = _code(request)
    where = _where(request, code, type_)
    keeps = _keeps(request)
    point = await _point(request, app)
    miles = request.int("Distance", 1, MAX_MILES, DEFAULT_MILES) or DEFAULT_MILES
    if point is not None:
        keeps.append(lambda number: _distance(number, point) <= miles)
    found: list[PhoneNumber] = []
    after, scanned = "", 0
    wanted = MAX_SCANNED if point is not None else asked.size
    while len(found) < wanted and scanned < MAX_SCANNED:
        batch = await app.database.find(PhoneNumber, where, order="phone_number", after=after, limit=SCAN_PAGE)
        found += [number for number in batch if all(keep(number) for keep in keeps)]
        scanned += len(batch)
        if len(batch) < SCAN_PAGE:
            break
        after = batch[-1].sid
    if point is not None:
        found.sort(key=lambda number: _distance(number, point))
    items = [render(number) for number in found[: asked.size]]
    return _whole(request, "available_phone_numbers", "AvailablePhoneNumber", items)


def _where(request: Request, code: str, type_: str) -> dict[str, Any]:
    """The filters that the database can apply."""
    where: dict[str, Any] = {"account_sid": "", "country": code, "type": type_}
    for name in CAPABILITIES:
        wanted = request.bool(name)
        if wanted is not None:
            where[name.removesuffix("Enabled").lower() + "_enabled"] = wanted
    if request.bool("Beta") is False:
        where["beta"] = False
    area_code = request.str("AreaCode", 16)
    if area_code:
        if code not in AREA_CODE_COUNTRIES:
            raise ApiError.of(21457)
        if AREA_CODE.fullmatch(area_code) is None:
            raise ApiError.of(21451)
        where["phone_number__prefix"] = "+1" + area_code
    return where


def _keeps(request: Request) -> list[Keep]:
    """The filters that are applied to what was read."""
    keeps: list[Keep] = []
    contains = request.str("Contains", 64)
    if contains:
        pattern = _pattern(contains)
        keeps.append(lambda number: pattern.search(number.phone_number) is not None)
    for name, field in PLACES.items():
        value = (request.str(name, 100) or "").casefold()
        if value:
            keeps.append(_place_is(field, value))
    excluded: set[str] = set()
    for name, requirements in EXCLUDED.items():
        if request.bool(name):
            excluded.update(requirements)
    if excluded:
        keeps.append(lambda number: number.address_requirements not in excluded)
    return keeps


def _place_is(field: str, value: str) -> Keep:
    return lambda number: getattr(number, field).casefold() == value


def _pattern(text: str) -> re.Pattern[str]:
    """Contains: digits, letters (as on a keypad), `*` for one digit, `%` for any, a leading `+`, a `$` for the end."""
    compact = re.sub(r"[\s().-]", "", text).lower()
    if CONTAINS.fullmatch(compact) is None:
        raise ApiError.invalid("Contains", "may hold digits, letters, `*` and `%`, a leading `+` and a `$` at the end")
    parts = {"*": "[0-9]", "%": "[0-9]*", "+": r"^\+", "$": "$"}
    return re.compile("".join(parts.get(c) or KEYPAD.get(c, c) for c in re.sub("%+", "%", compact)), re.ASCII)


# -- places ------------------------------------------------------------------------------------------------------


async def _point(request: Request, app: Services) -> Point | None:
    """Where the numbers should be near: NearLatLong, or NearNumber if the inventory knows where that is."""
    text = request.str("NearLatLong", 64)
    if text:
        try:
            latitude, longitude = (float(part) for part in text.split(","))
        except ValueError:
            raise ApiError.invalid("NearLatLong", "must be latitude,longitude in degrees") from None
        if not (abs(latitude) <= 90 and abs(longitude) <= 180):
            raise ApiError.invalid("NearLatLong", "must be latitude,longitude in degrees")
        return latitude, longitude
    near = request.str("NearNumber", 64)
    if not near:
        return None
    number = app.directory.number(phone.to_e164(near) or "")
    if number is None or number.latitude is None or number.longitude is None:
        raise ApiError.invalid("NearNumber", "its place is not known here")
    return number.latitude, number.longitude


def _distance(number: PhoneNumber, point: Point) -> float:
    """Miles on the sphere (haversine); infinite for a number without a place."""
    if number.latitude is None or number.longitude is None:
        return float("inf")
    here, there = radians(number.latitude), radians(point[0])
    half = sin((there - here) / 2) ** 2
    half += cos(here) * cos(there) * sin(radians(point[1] - number.longitude) / 2) ** 2
    return 2 * EARTH_MILES * asin(min(1.0, sqrt(half)))


# -- routes ------------------------------------------------------------------------------------------------------


def _handler(type_: str) -> Handler:
    async def list_(request: Request, app: Services) -> Response:
        return await _numbers(request, app, type_)

    return list_


_LIST = "/2010-04-01/Accounts/{AccountSid}/AvailablePhoneNumbers"
ROUTES = (
    Route("api", "GET", _LIST, countries),
    Route("api", "GET", _LIST + "/{CountryCode}", country),
    *(Route("api", "GET", f"{_LIST}/{{CountryCode}}/{path}", _handler(type_)) for path, type_ in TYPES.items()),
)
