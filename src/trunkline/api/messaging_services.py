"""Messaging Services: create, list, fetch, update, delete, and the list of use cases.

Fields that nothing here acts upon (MMS converter, content scanning, synchronous validation) are kept and shown.
Source: spec `messaging.v1.service`, `messaging.v1.usecase`.
"""

from typing import Any

from trunkline.api import dates, paging, records, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.model.errors import ApiError
from trunkline.model.numbers import MessagingService, ServiceSender, StickySender
from trunkline.model.sid import MESSAGING_SERVICE, new_sid

MAX_NAME_CHARS = 64
MAX_VALIDITY_S = 36_000
DELETE_PAGE = 500
"""Records deleted in one transaction."""

USECASES = {
    "notifications": (
        "Transactional notifications and alerts: delivery, account, reminder, order, fraud, security, public "
        "service or emergency announcements.",
        "Notify my users.",
    ),
    "marketing": (
        "Marketing messages: product information, offers, calls to action.",
        "Market my services.",
    ),
    "verification": ("Verification codes: two-factor, phone, password reset.", "Verify my users."),
    "discussion": ("Conversations between people: support, sales, internal talk.", "Have my users talk."),
    "poll": ("Polls, surveys and votes.", "Poll my users."),
    "undeclared": ("Use case is not declared.", "Undeclared."),
}
"""Use case -> description, purpose."""

_URLS = ("InboundRequestUrl", "FallbackUrl", "StatusCallback")
_METHODS = ("InboundMethod", "FallbackMethod")
_FLAGS = (
    "StickySender",
    "MmsConverter",
    "SmartEncoding",
    "FallbackToLongCode",
    "AreaCodeGeomatch",
    "SynchronousValidation",
    "UseInboundWebhookOnNumber",
)
_SCANS = ("inherit", "enable", "disable")
_LINKS = {
    "phone_numbers": "PhoneNumbers",
    "short_codes": "ShortCodes",
    "alpha_senders": "AlphaSenders",
    "messages": "Messages",
    "us_app_to_person": "Compliance/Usa2p",
    "us_app_to_person_usecases": "Compliance/Usa2p/Usecases",
    "channel_senders": "ChannelSenders",
    "destination_alpha_senders": "DestinationAlphaSenders",
}


def url_of(request: Request, service_sid: str) -> str:
    """A service's absolute address on the host that the client used."""
    return f"{request.base_url}/v1/Services/{service_sid}"


def render(request: Request, service: MessagingService) -> dict[str, Any]:
    """The resource as the API shows it."""
    url = url_of(request, service.sid)
    return {
        "account_sid": service.account_sid,
        "sid": service.sid,
        "date_created": dates.iso8601(service.created_ms),
        "date_updated": dates.iso8601(service.updated_ms),
        "friendly_name": service.friendly_name,
        "inbound_request_url": service.inbound_request_url or None,
        "inbound_method": service.inbound_method,
        "fallback_url": service.fallback_url or None,
        "fallback_method": service.fallback_method,
        "status_callback": service.status_callback or None,
        "sticky_sender": service.sticky_sender,
        "mms_converter": service.mms_converter,
        "smart_encoding": service.smart_encoding,
        "fallback_to_long_code": service.fallback_to_long_code,
        "scan_message_content": service.scan_message_content,
        "area_code_geomatch": service.area_code_geomatch,
        "validity_period": service.validity_period,
        "synchronous_validation": service.synchronous_validation,
        "usecase": service.usecase,
        "us_app_to_person_registered": False,
        "use_inbound_webhook_on_number": service.use_inbound_webhook_on_number,
        "links": {name: f"{url}/{path}" for name, path in _LINKS.items()},
        "url": url,
    }


def _changes(request: Request) -> dict[str, Any]:
    """The fields that the request sets."""
    rest: dict[str, Any] = {
        "friendly_name": request.required("FriendlyName", MAX_NAME_CHARS) if request.has("FriendlyName") else None,
        "scan_message_content": request.enum("ScanMessageContent", _SCANS),
        "usecase": request.enum("Usecase", USECASES, code=21713),
        "validity_period": request.int("ValidityPeriod", 1, MAX_VALIDITY_S),
    }
    found = records.webhooks(request, _URLS, _METHODS, _FLAGS)
    return found | {field: value for field, value in rest.items() if value is not None}


async def find(request: Request, app: Services) -> MessagingService:
    """The service that the path names; raises 20404."""
    name = "ServiceSid" if "ServiceSid" in request.params else "Sid"
    return await records.find(request, app.database, MessagingService, MESSAGING_SERVICE, name)


async def create(request: Request, app: Services) -> Response:
    """POST Services."""
    request.required("FriendlyName", MAX_NAME_CHARS)
    now = app.clock.now_ms()
    service = MessagingService(
        sid=new_sid(MESSAGING_SERVICE, now),
        account_sid=request.account_sid,
        created_ms=now,
        updated_ms=now,
        **_changes(request),
    )
    await app.database.insert(service)
    return respond.json(render(request, service), 201)


async def list_(request: Request, app: Services) -> Response:
    """GET Services, newest first."""
    asked = paging.read(request)
    where = {"account_sid": request.account_sid}
    shown, next_token, previous = await records.page(app.database, MessagingService, where, asked, MESSAGING_SERVICE)
    items = [render(request, service) for service in shown]
    return paging.render(request, asked, paging.Page("services", "Service", items, next_token, previous))


async def fetch(request: Request, app: Services) -> Response:
    """GET Services/{Sid}."""
    return respond.json(render(request, await find(request, app)))


async def update(request: Request, app: Services) -> Response:
    """POST Services/{Sid}."""
    found = await find(request, app)
    changes = _changes(request)
    service = await records.change(request, app.database, found, lambda service: records.assign(service, changes))
    return respond.json(render(request, service))


async def delete(request: Request, app: Services) -> Response:
    """DELETE Services/{Sid}: its senders are free again, who knew which sender is forgotten."""
    service = await find(request, app)
    await app.database.delete(service)
    await _forget(app, ServiceSender, {"service_sid": service.sid})
    await _forget(app, StickySender, {"sid__prefix": service.sid + ":"})
    return respond.no_content()


async def _forget(app: Services, kind: type[ServiceSender] | type[StickySender], where: dict[str, Any]) -> None:
    while found := await app.database.find(kind, where, limit=DELETE_PAGE):
        await app.database.delete(*found)


async def usecases(request: Request, app: Services) -> Response:
    """GET Services/Usecases."""
    items = [
        {"usecase": name, "description": description, "purpose": purpose}
        for name, (description, purpose) in USECASES.items()
    ]
    return respond.json({"usecases": items})


async def preregistered(request: Request, app: Services) -> Response:
    """POST Services/PreregisteredUsa2p: Twilio's only; named here lest it be taken for a service's SID."""
    raise ApiError(501, None, f"{request.path} exists at Twilio, but this server does not offer it")


ROUTES = (
    Route("messaging", "POST", "/v1/Services", create),
    Route("messaging", "GET", "/v1/Services", list_),
    Route("messaging", "GET", "/v1/Services/Usecases", usecases),
    Route("messaging", "POST", "/v1/Services/PreregisteredUsa2p", preregistered),
    Route("messaging", "GET", "/v1/Services/{Sid}", fetch),
    Route("messaging", "POST", "/v1/Services/{Sid}", update),
    Route("messaging", "DELETE", "/v1/Services/{Sid}", delete),
)
