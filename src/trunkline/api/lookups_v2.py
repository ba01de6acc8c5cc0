"""Lookup v2: is it a number, and what kind of line.

`line_type_intelligence` comes from the numbering plan, so ported numbers keep their plan's type and carriers are not
named. Packages that need a data provider answer with 60606, "package not enabled". Source: spec `LookupResponse`.
"""

from collections.abc import Callable
from typing import Any

from trunkline.api import lookups_v1, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.model.errors import ApiError
from trunkline.model.phone import NumberDetails

NOT_ENABLED = 60606
VALIDATION = "validation"
LINE_TYPE = "line_type_intelligence"
PACKAGES: dict[str, tuple[str, ...]] = {
    "caller_name": ("caller_name", "caller_type"),
    "sim_swap": ("last_sim_swap", "carrier_name", "mobile_country_code", "mobile_network_code"),
    "call_forwarding": ("call_forwarding_enabled",),
    "line_status": ("status",),
    LINE_TYPE: ("mobile_country_code", "mobile_network_code", "carrier_name", "type"),
    "identity_match": (
        *("first_name_match", "last_name_match", "address_lines_match", "city_match", "state_match"),
        *("postal_code_match", "address_country_match", "national_id_match", "date_of_birth_match"),
        *("summary_score", "error_message"),
    ),
    "reassigned_number": ("last_verified_date", "is_number_reassigned"),
    "sms_pumping_risk": (
        *("carrier_risk_category", "number_blocked", "number_blocked_date", "number_blocked_last_3_months"),
        "sms_pumping_risk_score",
    ),
    "phone_number_quality_score": ("quality_score", "quality_category"),
    "pre_fill": ("first_name", "last_name", "address_line", "country_code", "state", "postal_code"),
}
"""Package -> the fields of its answer, beside `error_code`."""

Code = int | str


def _asked(request: Request) -> frozenset[str]:
    """The packages in Fields; raises 20422 for one that does not exist."""
    text = request.str("Fields", default="")
    names = frozenset(name.strip().lower() for name in text.split(",") if name.strip())
    unknown = names - PACKAGES.keys() - {VALIDATION}
    if unknown:
        raise ApiError.invalid("Fields", f"unknown: {', '.join(sorted(unknown))}")
    return names


def _package(name: str, found: NumberDetails) -> dict[str, Any]:
    answer: dict[str, Any] = dict.fromkeys(PACKAGES[name])
    if name == LINE_TYPE:
        return {**answer, "type": str(found.line_type), "error_code": None}
    code: Callable[[int], Code] = str if name == "reassigned_number" else int  # as the spec types it
    return {**answer, "error_code": code(NOT_ENABLED)}


async def fetch(request: Request, app: object) -> Response:
    """GET PhoneNumbers/{PhoneNumber}: 200 also for what is no number, with the reasons."""
    asked = _asked(request)
    found = lookups_v1.look_up(request)
    valid = found.valid
    content: dict[str, Any] = {
        "calling_country_code": found.calling_code if valid else None,
        "country_code": found.country if valid else None,
        "phone_number": found.phone_number,
        "national_format": found.national_format if valid else None,
        "valid": valid,
        "validation_errors": list(found.validation_errors),
    }
    for name in PACKAGES:
        content[name] = _package(name, found) if valid and name in asked else None
    content["url"] = lookups_v1.url_of(request, "v2", found.phone_number)
    return respond.json(content)


ROUTES = (Route("lookups", "GET", "/v2/PhoneNumbers/{PhoneNumber}", fetch),)
