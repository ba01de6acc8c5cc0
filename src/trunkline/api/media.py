"""Media of messages: list, fetch (metadata with `.json` or `.xml`, else a redirect to the bytes), delete.

Source: spec `api.v2010.account.message.media`.
"""

from typing import Any

import orjson

from trunkline.api import dates, media_content, messages, paging, records, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.messaging.reader import StoredMessage
from trunkline.model.errors import ApiError
from trunkline.model.message import TERMINAL, Status
from trunkline.model.numbers import Media
from trunkline.model.sid import MEDIA
from trunkline.storage.archive import Document

_METADATA = (".json", ".xml")


def render(media: Media) -> dict[str, Any]:
    """The resource as the API shows it."""
    return {
        "account_sid": media.account_sid,
        "content_type": media.content_type,
        "date_created": dates.rfc2822(media.created_ms),
        "date_updated": dates.rfc2822(media.updated_ms),
        "parent_sid": media.message_sid,
        "sid": media.sid,
        "uri": f"/2010-04-01/Accounts/{media.account_sid}/Messages/{media.message_sid}/Media/{media.sid}.json",
    }


async def _find(request: Request, app: Services) -> tuple[StoredMessage, Media]:
    """The message and the file that the path names; raises 20404."""
    message = await messages.find(request, app)
    media = await records.find(request, app.database, Media, MEDIA)
    if media.message_sid != message.sid:
        raise ApiError.not_found(request.path)
    return message, media


async def list_(request: Request, app: Services) -> Response:
    """GET Media, with DateCreated filters."""
    message = await messages.find(request, app)
    asked = paging.read(request)
    where: dict[str, Any] = {"message_sid": message.sid}
    since, until = request.range_ms("DateCreated")
    if since is not None:
        where["created_ms__ge"] = since
    if until is not None:
        where["created_ms__lt"] = until
    shown, next_token, previous = await records.page(app.database, Media, where, asked, MEDIA)
    items = [render(media) for media in shown]
    return paging.render(request, asked, paging.Page("media_list", "Media", items, next_token, previous))


async def fetch(request: Request, app: Services) -> Response:
    """GET Media/{Sid}."""
    _, media = await _find(request, app)
    if request.path.endswith(_METADATA):
        return respond.resource(request.format, render(media), "Media")
    prefix = f"/{request.product}"
    origin = request.base_url.removesuffix(prefix) if request.path.startswith(prefix + "/") else request.base_url
    return respond.redirect(origin + media_content.link(app.secrets.pepper, media.sid, app.clock.now_ms()))


async def delete(request: Request, app: Services) -> Response:
    """DELETE Media/{Sid}: the bytes, the record and the message's count; raises 20009 while it is being sent."""
    message, media = await _find(request, app)
    if Status(message.status) not in TERMINAL and message.status != Status.SENT:
        raise ApiError.of(20009)
    await _unlink(app, message, media.sid)
    await app.blobs.delete(media.sid)
    await app.database.delete(media)
    return respond.no_content()


async def _unlink(app: Services, message: StoredMessage, sid: str) -> None:
    """Take the file out of the message's record, in flight and post-flight (it may be landing)."""
    app.privacy.hide()
    live = await app.inflight.find(message.account_sid, message.sid)
    if live is not None:
        live.message.media = [item for item in live.message.media if item.sid != sid]
        if not await app.inflight.advance(live, Status(live.status), lane=live.lane, land_ms=live.land_ms):
            raise ApiError.of(20009)
    document = await app.archive.get(message.account_sid, message.sid)
    if document is None:
        return
    body = orjson.loads(document.body)
    body["media"] = [item for item in body.get("media", ()) if item["sid"] != sid]
    revised = Document(
        sid=document.sid,
        account=document.account,
        kind=document.kind,
        rev=document.rev + 1,
        body=orjson.dumps(body),
    )
    await app.archive.revise(revised)


_LIST = "/2010-04-01/Accounts/{AccountSid}/Messages/{MessageSid}/Media"
ROUTES = (
    Route("api", "GET", _LIST, list_),
    Route("api", "GET", _LIST + "/{Sid}", fetch),
    Route("api", "DELETE", _LIST + "/{Sid}", delete),
)
