"""Alphanumeric senders of a Messaging Service, for any country: add, list, fetch, remove.

Source: spec `messaging.v1.service.alpha_sender`. Those bound to one country: `service_destination_alpha_senders`.
"""

from typing import Any

from trunkline.api import messaging_services, paging, respond, service_senders
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.messaging.services import ALPHA as KIND
from trunkline.model.errors import ApiError
from trunkline.model.numbers import ServiceSender
from trunkline.model.phone import is_alphanumeric
from trunkline.model.sid import ALPHA_SENDER, new_sid


def render(request: Request, sender: ServiceSender) -> dict[str, Any]:
    """The resource as the API shows it."""
    own = {"alpha_sender": sender.address, "capabilities": ["SMS"]}
    return service_senders.render(request, "AlphaSenders", sender, own)


async def add(request: Request, app: Services, iso_country: str = "") -> ServiceSender:
    """The sender that the request's AlphaSender makes; raises 21708, 21709, 21710, 21714."""
    service = await messaging_services.find(request, app)
    name = request.required("AlphaSender", code=21708).strip(" ")
    if not is_alphanumeric(name):
        raise ApiError.of(21709)
    sender = ServiceSender(
        sid=new_sid(ALPHA_SENDER, app.clock.now_ms()),
        account_sid=request.account_sid,
        service_sid=service.sid,
        kind=KIND,
        address=name,
        iso_country=iso_country,
    )
    return await service_senders.add(app, sender)


async def create(request: Request, app: Services) -> Response:
    """POST AlphaSenders."""
    return respond.json(render(request, await add(request, app)), 201)


async def list_(request: Request, app: Services) -> Response:
    """GET AlphaSenders."""
    where = {"kind": KIND, "iso_country": ""}
    asked, shown, next_token, previous = await service_senders.page(request, app, where, ALPHA_SENDER)
    items = [render(request, sender) for sender in shown]
    return paging.render(request, asked, paging.Page("alpha_senders", "AlphaSender", items, next_token, previous))


async def fetch(request: Request, app: Services) -> Response:
    """GET AlphaSenders/{Sid}."""
    return respond.json(render(request, await service_senders.find(request, app, KIND)))


async def delete(request: Request, app: Services) -> Response:
    """DELETE AlphaSenders/{Sid}."""
    return await service_senders.remove(request, app, KIND)


_LIST = "/v1/Services/{ServiceSid}/AlphaSenders"
ROUTES = (
    Route("messaging", "POST", _LIST, create),
    Route("messaging", "GET", _LIST, list_),
    Route("messaging", "GET", _LIST + "/{Sid}", fetch),
    Route("messaging", "DELETE", _LIST + "/{Sid}", delete),
)
