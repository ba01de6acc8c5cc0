"""Alphanumeric senders of a Messaging Service, each for one country or for all: add, list, fetch, remove.

Source: spec `messaging.v1.service.destination_alpha_sender`.
"""

import re
from typing import Any

from trunkline.api import paging, respond, service_alpha_senders, service_senders
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.messaging.services import ALPHA as KIND
from trunkline.messaging.services import NO_ALPHA_COUNTRIES
from trunkline.model.errors import ApiError
from trunkline.model.numbers import ServiceSender
from trunkline.model.sid import ALPHA_SENDER

_COUNTRY = re.compile(r"[A-Z]{2}")


def render(request: Request, sender: ServiceSender) -> dict[str, Any]:
    """The resource as the API shows it."""
    own = {"alpha_sender": sender.address, "capabilities": ["SMS"], "iso_country_code": sender.iso_country}
    return service_senders.render(request, "DestinationAlphaSenders", sender, own)


def _country(request: Request) -> str:
    """The request's IsoCountryCode, empty for all countries."""
    code = request.str("IsoCountryCode", 10, default="").strip().upper()
    if code and not _COUNTRY.fullmatch(code):
        raise ApiError.invalid("IsoCountryCode", "must be an ISO 3166-1 alpha-2 code")
    return code


async def create(request: Request, app: Services) -> Response:
    """POST DestinationAlphaSenders; raises 21709 for a country whose networks take no such senders."""
    country = _country(request)
    if country in NO_ALPHA_COUNTRIES:
        raise ApiError.of(21709)
    return respond.json(render(request, await service_alpha_senders.add(request, app, country)), 201)


async def list_(request: Request, app: Services) -> Response:
    """GET DestinationAlphaSenders, all of the service or those of one IsoCountryCode."""
    country = _country(request)
    where = {"kind": KIND, "iso_country": country} if country else {"kind": KIND}
    asked, shown, next_token, previous = await service_senders.page(request, app, where, ALPHA_SENDER)
    items = [render(request, sender) for sender in shown]
    return paging.render(request, asked, paging.Page("alpha_senders", "AlphaSender", items, next_token, previous))


async def fetch(request: Request, app: Services) -> Response:
    """GET DestinationAlphaSenders/{Sid}."""
    return respond.json(render(request, await service_senders.find(request, app, KIND)))


async def delete(request: Request, app: Services) -> Response:
    """DELETE DestinationAlphaSenders/{Sid}."""
    return await service_senders.remove(request, app, KIND)


_LIST = "/v1/Services/{ServiceSid}/DestinationAlphaSenders"
ROUTES = (
    Route("messaging", "POST", _LIST, create),
    Route("messaging", "GET", _LIST, list_),
    Route("messaging", "GET", _LIST + "/{Sid}", fetch),
    Route("messaging", "DELETE", _LIST + "/{Sid}", delete),
)
