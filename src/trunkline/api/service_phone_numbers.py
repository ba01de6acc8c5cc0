"""Phone numbers in a Messaging Service's pool: add, list, fetch, remove.

Source: spec `messaging.v1.service.phone_number`.
"""

from typing import Any

from trunkline.api import messaging_services, paging, respond, service_senders
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.messaging.services import PHONE_NUMBER as KIND
from trunkline.model import phone
from trunkline.model.errors import ApiError
from trunkline.model.numbers import PhoneNumber, ServiceSender
from trunkline.model.sid import PHONE_NUMBER, is_sid


async def render(request: Request, app: Services, sender: ServiceSender) -> dict[str, Any]:
    """The resource as the API shows it."""
    number = await app.database.get(PhoneNumber, sender.sid)
    able = (
        {"MMS": number.mms_enabled, "SMS": number.sms_enabled, "Voice": number.voice_enabled}
        if number is not None
        else {}
    )
    own = {
        "phone_number": sender.address,
        "country_code": sender.country or None,
        "capabilities": [name for name, has in able.items() if has],
    }
    return service_senders.render(request, "PhoneNumbers", sender, own)


async def create(request: Request, app: Services) -> Response:
    """POST PhoneNumbers: raises 20404, 21710, 21712, 21714, 21715 (a number without SMS)."""
    service = await messaging_services.find(request, app)
    sid = request.required("PhoneNumberSid", 64)
    number = await app.database.get(PhoneNumber, sid) if is_sid(sid, PHONE_NUMBER) else None
    if number is None or number.account_sid != request.account_sid:
        raise ApiError.not_found(f"/PhoneNumbers/{sid}")
    if not number.sms_enabled:
        raise ApiError.of(21715)
    sender = ServiceSender(
        sid=number.sid,
        account_sid=request.account_sid,
        service_sid=service.sid,
        kind=KIND,
        address=number.phone_number,
        country=number.country or phone.country(number.phone_number) or "",
    )
    return respond.json(await render(request, app, await service_senders.add(app, sender)), 201)


async def list_(request: Request, app: Services) -> Response:
    """GET PhoneNumbers."""
    asked, shown, next_token, previous = await service_senders.page(request, app, {"kind": KIND}, PHONE_NUMBER)
    items = [await render(request, app, sender) for sender in shown]
    return paging.render(request, asked, paging.Page("phone_numbers", "PhoneNumber", items, next_token, previous))


async def fetch(request: Request, app: Services) -> Response:
    """GET PhoneNumbers/{Sid}."""
    return respond.json(await render(request, app, await service_senders.find(request, app, KIND)))


async def delete(request: Request, app: Services) -> Response:
    """DELETE PhoneNumbers/{Sid}."""
    return await service_senders.remove(request, app, KIND)


_LIST = "/v1/Services/{ServiceSid}/PhoneNumbers"
ROUTES = (
    Route("messaging", "POST", _LIST, create),
    Route("messaging", "GET", _LIST, list_),
    Route("messaging", "GET", _LIST + "/{Sid}", fetch),
    Route("messaging", "DELETE", _LIST + "/{Sid}", delete),
)
