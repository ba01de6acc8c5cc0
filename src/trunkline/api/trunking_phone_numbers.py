"""Phone numbers of a trunk: calls to them go to its origination URLs. Source: spec `trunking.v1.trunk.phone_number`.

A number is on one trunk at most; its voice URLs rest meanwhile.
"""

from typing import Any

from trunkline.api import dates, paging, records, respond, trunking_trunks
from trunkline.api.incoming_phone_numbers import display_name
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.api.trunking_trunks import INVALID, url_of
from trunkline.model.errors import ApiError
from trunkline.model.numbers import PhoneNumber
from trunkline.model.sid import PHONE_NUMBER, is_sid


def render(request: Request, number: PhoneNumber) -> dict[str, Any]:
    """The resource as the API shows it."""
    same = (
        "sid", "account_sid", "phone_number", "voice_caller_id_lookup", "voice_url", "voice_method",
        "voice_fallback_url", "voice_fallback_method", "status_callback", "status_callback_method",
        "voice_application_sid", "trunk_sid", "sms_url", "sms_method", "sms_fallback_url", "sms_fallback_method",
        "sms_application_sid", "address_requirements", "beta",
    )  # fmt: skip
    origin = request.base_url.replace("://trunking.", "://api.", 1).removesuffix("/trunking")
    incoming = f"{origin}/2010-04-01/Accounts/{number.account_sid}/IncomingPhoneNumbers/{number.sid}.json"
    return {name: getattr(number, name) for name in same} | {
        "friendly_name": number.friendly_name or display_name(number),
        "api_version": "2010-04-01",
        "capabilities": {"voice": number.voice_enabled, "sms": number.sms_enabled, "mms": number.mms_enabled},
        "date_created": dates.iso8601(number.bought_ms or number.created_ms),
        "date_updated": dates.iso8601(number.updated_ms),
        "url": url_of(request, number.trunk_sid, "PhoneNumbers", number.sid),
        "links": {"phone_number": incoming},
    }


async def _find(request: Request, app: Services) -> PhoneNumber:
    trunk = await trunking_trunks.find(request, app)
    found = await records.find(request, app.database, PhoneNumber, PHONE_NUMBER)
    if found.trunk_sid != trunk.sid:
        raise ApiError.not_found(request.path)
    return found


async def create(request: Request, app: Services) -> Response:
    """POST PhoneNumbers: PhoneNumberSid. A number that is on another trunk moves here."""
    trunk = await trunking_trunks.find(request, app)
    sid = request.required("PhoneNumberSid", 64)
    number = await app.database.get(PhoneNumber, sid) if is_sid(sid, PHONE_NUMBER) else None
    if number is None or number.account_sid != request.account_sid:
        raise ApiError.not_found(f"/IncomingPhoneNumbers/{sid}")
    if not number.voice_enabled:
        raise ApiError.of(INVALID, name="PhoneNumberSid", reason="must be a number that can be called")
    sent = {"trunk_sid": trunk.sid}
    number = await records.change(request, app.database, number, lambda one: records.assign(one, sent))
    return respond.json(render(request, number), 201)


async def list_(request: Request, app: Services) -> Response:
    """GET PhoneNumbers, newest first."""
    trunk, asked = await trunking_trunks.find(request, app), paging.read(request)
    where = {"account_sid": request.account_sid, "trunk_sid": trunk.sid}
    found, following, previous = await records.page(app.database, PhoneNumber, where, asked, PHONE_NUMBER)
    items = [render(request, number) for number in found]
    return paging.render(request, asked, paging.Page("phone_numbers", "PhoneNumber", items, following, previous))


async def fetch(request: Request, app: Services) -> Response:
    """GET PhoneNumbers/{Sid}."""
    return respond.json(render(request, await _find(request, app)))


async def delete(request: Request, app: Services) -> Response:
    """DELETE PhoneNumbers/{Sid}: the number stays the account's, and its voice URLs hold again."""
    number = await _find(request, app)
    await records.change(request, app.database, number, lambda one: records.assign(one, {"trunk_sid": ""}))
    return respond.no_content()


_LIST = "/v1/Trunks/{TrunkSid}/PhoneNumbers"
ROUTES = (
    Route("trunking", "POST", _LIST, create),
    Route("trunking", "GET", _LIST, list_),
    Route("trunking", "GET", _LIST + "/{Sid}", fetch),
    Route("trunking", "DELETE", _LIST + "/{Sid}", delete),
)
