"""Short codes in a Messaging Service's pool: add, list, fetch, remove.

Source: spec `messaging.v1.service.short_code`.
"""

from typing import Any

from trunkline.api import messaging_services, paging, respond, service_senders
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.messaging.services import SHORT_CODE as KIND
from trunkline.model.errors import ApiError
from trunkline.model.numbers import ServiceSender, ShortCode
from trunkline.model.sid import SHORT_CODE, is_sid


def render(request: Request, sender: ServiceSender) -> dict[str, Any]:
    """The resource as the API shows it."""
    own = {"short_code": sender.address, "country_code": sender.country or None, "capabilities": ["SMS"]}
    return service_senders.render(request, "ShortCodes", sender, own)


async def create(request: Request, app: Services) -> Response:
    """POST ShortCodes: raises 20404, 21710, 21712, 21714."""
    service = await messaging_services.find(request, app)
    sid = request.required("ShortCodeSid", 64)
    code = await app.database.get(ShortCode, sid) if is_sid(sid, SHORT_CODE) else None
    if code is None or code.account_sid != request.account_sid:
        raise ApiError.not_found(f"/ShortCodes/{sid}")
    sender = ServiceSender(
        sid=code.sid,
        account_sid=request.account_sid,
        service_sid=service.sid,
        kind=KIND,
        address=code.short_code,
        country=code.country,
    )
    return respond.json(render(request, await service_senders.add(app, sender)), 201)


async def list_(request: Request, app: Services) -> Response:
    """GET ShortCodes."""
    asked, shown, next_token, previous = await service_senders.page(request, app, {"kind": KIND}, SHORT_CODE)
    items = [render(request, sender) for sender in shown]
    return paging.render(request, asked, paging.Page("short_codes", "ShortCode", items, next_token, previous))


async def fetch(request: Request, app: Services) -> Response:
    """GET ShortCodes/{Sid}."""
    return respond.json(render(request, await service_senders.find(request, app, KIND)))


async def delete(request: Request, app: Services) -> Response:
    """DELETE ShortCodes/{Sid}."""
    return await service_senders.remove(request, app, KIND)


_LIST = "/v1/Services/{ServiceSid}/ShortCodes"
ROUTES = (
    Route("messaging", "POST", _LIST, create),
    Route("messaging", "GET", _LIST, list_),
    Route("messaging", "GET", _LIST + "/{Sid}", fetch),
    Route("messaging", "DELETE", _LIST + "/{Sid}", delete),
)
