"""Dialing permissions: which countries an account may call, and whether a subaccount has its parent's.

What an account permits itself lies within what the operator permits (`voice.countries`, `voice.high_risk`): more is
accepted, as at Twilio, but shown and done as far as it goes. Numbers of no country (satellite, global services) are the
operator's alone. Source: spec `voice.v1.dialing_permissions`.
"""

import re
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple

import orjson

from trunkline.api import paging, respond
from trunkline.api.available_phone_numbers import country_names
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.model import phone
from trunkline.model.dialing import (
    LOW,
    NORTH_AMERICA,
    SPECIAL,
    TOLL_FRAUD,
    DialingPermissions,
    country_of,
    permissions_sid,
)
from trunkline.model.errors import ApiError
from trunkline.storage.database import Conflict, Duplicate
from trunkline.voice import number_risks
from trunkline.voice.permissions import Permissions

NORTH_AMERICAN_CODE: Final = 1
MAX_UPDATES: Final = 1000
"""Countries of one bulk update."""
TRIES: Final = 5
FLAGS: Final = {
    "low_risk_numbers_enabled": LOW,
    "high_risk_special_numbers_enabled": SPECIAL,
    "high_risk_tollfraud_numbers_enabled": TOLL_FRAUD,
}
ALIASES: Final = {
    "low_risk_numbers": "low_risk_numbers_enabled",
    "high_risk_special_numbers": "high_risk_special_numbers_enabled",
    "high_risk_irsf_numbers": "high_risk_tollfraud_numbers_enabled",
}
"""Names in an example of the specification."""
YES, NO = frozenset({"true", "enabled", "1"}), frozenset({"false", "disabled", "0"})
FILTERS: Final = {
    "LowRiskNumbersEnabled": LOW,
    "HighRiskSpecialNumbersEnabled": SPECIAL,
    "HighRiskTollfraudNumbersEnabled": TOLL_FRAUD,
}


class Country(NamedTuple):
    """A country that can be called."""

    iso: str
    name: str
    codes: tuple[str, ...]
    continent: str


@cache
def countries() -> dict[str, Country]:
    """Every country with a calling code, by its ISO code and in its order."""
    import phonenumbers

    continents: dict[str, str] = {}
    for line in files("trunkline.api").joinpath("continents.txt").read_text("ascii").splitlines():
        if not line.startswith("#"):
            continent, *codes = line.split()
            continents |= dict.fromkeys(codes, continent)
    names = {
        "AC": "Ascension Island",
        "TA": "Tristan da Cunha",
        **country_names(),
        NORTH_AMERICA: "United States/Canada",
    }
    found = {}
    for iso in sorted(phonenumbers.SUPPORTED_REGIONS):
        if country_of(iso) == iso:
            found[iso] = Country(iso, names.get(iso, iso), _codes(iso), continents.get(iso, ""))
    return found


def _codes(iso: str) -> tuple[str, ...]:
    import phonenumbers

    code = phonenumbers.country_code_for_region(iso)
    if code != NORTH_AMERICAN_CODE or iso == NORTH_AMERICA:
        return (f"+{code}",)
    plan = phonenumbers.PhoneMetadata.metadata_for_region(iso)
    areas = plan.leading_digits if plan is not None else None
    return tuple(f"+1{area}" for area in range(200, 1000) if areas and _is_area(areas, str(area))) or ("+1",)


def _is_area(pattern: str, area: str) -> bool:
    """Whether an area code is one of a country's."""
    return re.fullmatch(pattern, area) is not None


def _permissions(app: Services) -> Permissions:
    voice = app.settings.voice
    return Permissions(voice, app.directory, number_risks.load(voice.high_risk_file))


def _url(request: Request, *parts: str) -> str:
    return "/".join((request.base_url + "/v1", *parts))


def render(request: Request, permissions: Permissions, one: Country) -> dict[str, Any]:
    """The resource as the API shows it."""
    letters = permissions.permitted(request.account_sid, one.iso)
    url = _url(request, "DialingPermissions", "Countries", one.iso)
    return {
        "iso_code": one.iso,
        "name": one.name,
        "continent": one.continent,
        "country_codes": list(one.codes),
        **{name: letter in letters for name, letter in FLAGS.items()},
        "url": url,
        "links": {"highrisk_special_prefixes": f"{url}/HighRiskSpecialPrefixes"},
    }


def _find(request: Request) -> Country:
    found = countries().get(country_of(request.params["IsoCode"].upper()))
    if found is None:
        raise ApiError.not_found(request.path)
    return found


def _page(request: Request, items: list[dict[str, Any]], element: str) -> Response:
    asked = paging.read(request)
    first, last = paging.bounds(asked, len(items))
    following = str(last - 1) if last < len(items) else None
    previous = str(first) if 0 < first < len(items) else None
    return paging.render(request, asked, paging.Page("content", element, items[first:last], following, previous))


async def list_(request: Request, app: Services) -> Response:
    """GET Countries, in the order of their codes."""
    iso = country_of(request.str("IsoCode", default="").upper())
    continent, code = request.str("Continent", default="").upper(), request.str("CountryCode", default="")
    code = "+" + code.strip().lstrip("+") if code.strip() else ""
    wanted = {letter: request.bool(name) for name, letter in FILTERS.items()}
    permissions = _permissions(app)
    items = []
    for one in countries().values():
        letters = permissions.permitted(request.account_sid, one.iso)
        fits = iso in ("", one.iso) and continent in ("", one.continent) and (not code or code in one.codes)
        if fits and all(asked is None or asked == (letter in letters) for letter, asked in wanted.items()):
            items.append(render(request, permissions, one))
    return _page(request, items, "DialingPermissionsCountry")


async def fetch(request: Request, app: Services) -> Response:
    """GET Countries/{IsoCode}."""
    return respond.json(render(request, _permissions(app), _find(request)))


async def prefixes(request: Request, app: Services) -> Response:
    """GET HighRiskSpecialPrefixes: those of a country's numbering plan."""
    one, risks = _find(request), number_risks.load(app.settings.voice.high_risk_file)
    found = [{"prefix": prefix} for prefix in risks.special if _owner(prefix) == one.iso]
    return _page(request, found, "DialingPermissionsHrsPrefix")


@cache
def _owner(prefix: str) -> str:
    """The country that a prefix is shown under: the first of those that share its calling code."""
    import phonenumbers

    code = phone.calling_code(prefix)
    return str(phonenumbers.region_code_for_country_code(int(code))) if code else ""


# -- changes -----------------------------------------------------------------------------------------------------


def _updates(text: str) -> dict[str, dict[str, bool]]:
    """What a bulk update wants: letters by country. Raises 20422."""
    try:
        asked = orjson.loads(text)
    except orjson.JSONDecodeError:
        asked = None
    if not isinstance(asked, list) or not 0 < len(asked) <= MAX_UPDATES:
        raise ApiError.invalid("UpdateRequest", f"must be a JSON array of up to {MAX_UPDATES} objects")
    found: dict[str, dict[str, bool]] = {}
    for each in asked:
        iso = country_of(str(each.get("iso_code", "")).upper()) if isinstance(each, dict) else ""
        if iso not in countries():
            raise ApiError.invalid("UpdateRequest", f"{iso[:10]!r} is no iso_code of a country")
        for name, value in each.items():
            letter = FLAGS.get(ALIASES.get(name, name))
            if letter is not None:
                found.setdefault(iso, {})[letter] = _flag(name, value)
        found.setdefault(iso, {})
    return found


def _flag(name: str, value: Any) -> bool:
    text = str(value).lower()
    if text not in YES and text not in NO:
        raise ApiError.invalid("UpdateRequest", f"{name} must be true or false")
    return text in YES


async def _change(
    request: Request, app: Services, *, inherit: bool | None = None, updates: dict[str, dict[str, bool]] | None = None
) -> None:
    """Change the account's record, which is made when there is none. Raises 20409."""
    sid = permissions_sid(request.account_sid)
    for _ in range(TRIES):
        found = await app.database.get(DialingPermissions, sid)
        record = found or DialingPermissions(sid=sid, account_sid=request.account_sid)
        if inherit is not None:
            record.inherit = inherit
        if updates is not None:
            record.countries = {**record.countries}
            for iso, flags in updates.items():
                before = record.countries.get(iso, LOW)
                letters = [one for one in FLAGS.values() if flags.get(one, one in before)]
                record.countries[iso] = "".join(letters)
        try:
            await (app.database.insert(record) if found is None else app.database.update(record))
        except (Duplicate, Conflict):
            continue  # somebody else was faster
        return
    raise ApiError.of(20409, reason="the permissions are being changed by others")


async def bulk_update(request: Request, app: Services) -> Response:
    """POST BulkCountryUpdates; from the next call on. A subaccount that changes its own no longer inherits."""
    text = request.required("UpdateRequest")
    updates = _updates(text)
    await _change(request, app, inherit=False if _is_subaccount(request, app) else None, updates=updates)
    return respond.json({"update_count": len(updates), "update_request": "accepted"}, 201)


def _is_subaccount(request: Request, app: Services) -> bool:
    account = app.directory.account(request.account_sid)
    return account is not None and account.owner_account_sid not in ("", account.sid)


async def _settings(request: Request, app: Services, status: int) -> Response:
    record = await app.database.get(DialingPermissions, permissions_sid(request.account_sid))
    inherit = record.inherit if record is not None else True
    return respond.json({"dialing_permissions_inheritance": inherit, "url": _url(request, "Settings")}, status)


async def fetch_settings(request: Request, app: Services) -> Response:
    """GET Settings."""
    return await _settings(request, app, 200)


async def update_settings(request: Request, app: Services) -> Response:
    """POST Settings."""
    inherit = request.bool("DialingPermissionsInheritance")
    if inherit is not None:
        await _change(request, app, inherit=inherit)
    return await _settings(request, app, 202)


_COUNTRIES = "/v1/DialingPermissions/Countries"
ROUTES = (
    Route("voice", "GET", _COUNTRIES, list_),
    Route("voice", "GET", _COUNTRIES + "/{IsoCode}", fetch),
    Route("voice", "GET", _COUNTRIES + "/{IsoCode}/HighRiskSpecialPrefixes", prefixes),
    Route("voice", "POST", "/v1/DialingPermissions/BulkCountryUpdates", bulk_update),
    Route("voice", "GET", "/v1/Settings", fetch_settings),
    Route("voice", "POST", "/v1/Settings", update_settings),
)
