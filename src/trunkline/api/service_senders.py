"""What the sender pools of Messaging Services share: add, list, fetch, remove.

A number or short code is in one service at most (21710, 21712); its `ServiceSender` has its own SID. A sender that a
deleted service or a former owner left behind does not count.
"""

from collections.abc import Mapping
from typing import Any

from trunkline.api import dates, messaging_services, paging, records, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.services import Services
from trunkline.model.errors import ApiError
from trunkline.model.numbers import MessagingService, PhoneNumber, ServiceSender, ShortCode
from trunkline.model.sid import is_sid
from trunkline.storage.database import Duplicate

MAX_SENDERS = 400
"""Senders in one service's pool, of all kinds (21714)."""


def render(request: Request, path: str, sender: ServiceSender, own: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that every kind of sender has, around its `own`."""
    return {
        "sid": sender.sid,
        "account_sid": sender.account_sid,
        "service_sid": sender.service_sid,
        "date_created": dates.iso8601(sender.created_ms),
        "date_updated": dates.iso8601(sender.updated_ms),
        **own,
        "url": f"{messaging_services.url_of(request, sender.service_sid)}/{path}/{sender.sid}",
    }


async def add(app: Services, sender: ServiceSender) -> ServiceSender:
    """Put a sender into its service's pool; raises 21710, 21712, 21714."""
    if await app.database.count(ServiceSender, {"service_sid": sender.service_sid}) >= MAX_SENDERS:
        raise ApiError.of(21714)
    sender.created_ms = sender.updated_ms = app.clock.now_ms()
    try:
        await app.database.insert(sender)
    except Duplicate:
        held = await app.database.get(ServiceSender, sender.sid)
        if held is None or held.service_sid == sender.service_sid:
            raise ApiError.of(21710, status=409) from None
        service = await app.database.get(MessagingService, held.service_sid)
        if service is not None and held.account_sid == sender.account_sid:
            raise ApiError.of(21712, status=409) from None
        await app.database.put(sender)
    return sender


async def page(
    request: Request, app: Services, where: Mapping[str, Any], prefix: str
) -> tuple[paging.PageRequest, list[ServiceSender], str | None, str | None]:
    """A page of the path's service's senders; `prefix` is that of their SIDs."""
    service = await messaging_services.find(request, app)
    asked = paging.read(request)
    conditions = {"service_sid": service.sid, **where}
    found = await records.page(app.database, ServiceSender, conditions, asked, prefix)
    return asked, *found


async def find(request: Request, app: Services, kind: str) -> ServiceSender:
    """The sender that the path names; raises 20404, or 21711 for an own number that is not in this service."""
    service = await messaging_services.find(request, app)
    sid = request.params["Sid"]
    sender = await app.database.get(ServiceSender, sid) if is_sid(sid) else None
    if sender is not None and sender.service_sid == service.sid and sender.kind == kind:
        return sender
    if await _is_own(request, app, sid):
        raise ApiError.of(21711, status=404)
    raise ApiError.not_found(request.path)


async def _is_own(request: Request, app: Services, sid: str) -> bool:
    for kind in (PhoneNumber, ShortCode):
        record = await app.database.get(kind, sid)
        if record is not None:
            return record.account_sid == request.account_sid
    return False


async def remove(request: Request, app: Services, kind: str) -> Response:
    """DELETE of a sender: out of the pool; the number itself stays the account's."""
    await app.database.delete(await find(request, app, kind))
    return respond.no_content()
