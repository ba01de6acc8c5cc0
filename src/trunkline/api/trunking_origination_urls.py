"""Origination URLs: where calls to a trunk's numbers go. Source: spec `trunking.v1.trunk.origination_url`; the error
dictionary (21245, 21249)."""

from typing import Any

from trunkline.api import dates, paging, records, respond, trunking_trunks
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.api.trunking_trunks import INVALID, url_of
from trunkline.model.errors import ApiError
from trunkline.model.sid import SIP_ORIGINATION_URL, new_sid
from trunkline.model.sip_trunk import OriginationUrl
from trunkline.sip.errors import MalformedMessage
from trunkline.sip.uri import Uri

MAX_URLS = 10
"""Origination URLs of a trunk (21249): as many as one call tries."""
TOO_MANY = 21249
MAX_NAME = 64
"""Characters of a FriendlyName."""
MAX_SIP_URL = 255
MAX_RANK = 65_535
"""Largest Priority and Weight."""
TRANSPORTS = frozenset({"", "UDP", "TCP", "TLS"})
REQUIRED = ("Weight", "Priority", "Enabled", "FriendlyName", "SipUrl")


def render(request: Request, one: OriginationUrl) -> dict[str, Any]:
    """The resource as the API shows it."""
    return {
        "account_sid": one.account_sid,
        "sid": one.sid,
        "trunk_sid": one.trunk_sid,
        "weight": one.weight,
        "enabled": one.enabled,
        "sip_url": one.sip_url,
        "friendly_name": one.friendly_name,
        "priority": one.priority,
        "date_created": dates.iso8601(one.created_ms),
        "date_updated": dates.iso8601(one.updated_ms),
        "url": url_of(request, one.trunk_sid, "OriginationUrls", one.sid),
    }


def uri_of(sip_url: str) -> Uri:
    """The address of a SipUrl; `sip://host` (as in Twilio's examples) means `sip:host`. Raises MalformedMessage."""
    return Uri.parse(sip_url.replace("sip://", "sip:", 1))


def _sip_url(request: Request) -> str | None:
    written = request.str("SipUrl", MAX_SIP_URL, code=INVALID)
    if written is None:
        return None
    written = written.strip()
    reason = "must be a sip: URI with a host, by UDP, TCP or TLS"
    try:
        uri = uri_of(written)
        fits = uri.scheme == "sip" and bool(uri.host) and uri.transport in TRANSPORTS and not uri.headers
    except MalformedMessage:
        fits = False
    if not fits or not written.isascii() or not written.isprintable() or set(written) & set(' <>"'):
        raise ApiError.of(INVALID, name="SipUrl", reason=reason)
    return written


def _sent(request: Request) -> dict[str, Any]:
    asked = {
        "weight": request.int("Weight", 1, MAX_RANK, code=INVALID),
        "priority": request.int("Priority", 0, MAX_RANK, code=INVALID),
        "enabled": request.bool("Enabled"),
        "friendly_name": request.str("FriendlyName", MAX_NAME, code=INVALID),
        "sip_url": _sip_url(request),
    }
    return {field: value for field, value in asked.items() if value is not None}


async def _find(request: Request, app: Services) -> OriginationUrl:
    found = await records.find(request, app.database, OriginationUrl, SIP_ORIGINATION_URL)
    if found.trunk_sid != request.params["TrunkSid"]:
        raise ApiError.not_found(request.path)
    return found


async def create(request: Request, app: Services) -> Response:
    """POST OriginationUrls."""
    trunk = await trunking_trunks.find(request, app)
    for name in REQUIRED:
        request.required(name)
    sent = _sent(request)
    await records.at_most(app.database, OriginationUrl, {"trunk_sid": trunk.sid}, MAX_URLS, TOO_MANY)
    sid = new_sid(SIP_ORIGINATION_URL, app.clock.now_ms())
    one = OriginationUrl(sid=sid, account_sid=request.account_sid, trunk_sid=trunk.sid, **sent)
    await app.database.insert(one)
    return respond.json(render(request, one), 201)


async def list_(request: Request, app: Services) -> Response:
    """GET OriginationUrls, newest first."""
    trunk, asked = await trunking_trunks.find(request, app), paging.read(request)
    where = {"trunk_sid": trunk.sid}
    found, following, previous = await records.page(app.database, OriginationUrl, where, asked, SIP_ORIGINATION_URL)
    items = [render(request, one) for one in found]
    return paging.render(request, asked, paging.Page("origination_urls", "OriginationUrl", items, following, previous))


async def fetch(request: Request, app: Services) -> Response:
    """GET OriginationUrls/{Sid}."""
    return respond.json(render(request, await _find(request, app)))


async def update(request: Request, app: Services) -> Response:
    """POST OriginationUrls/{Sid}; from the next call on."""
    one, sent = await _find(request, app), _sent(request)
    one = await records.change(request, app.database, one, lambda it: records.assign(it, sent))
    return respond.json(render(request, one))


async def delete(request: Request, app: Services) -> Response:
    """DELETE OriginationUrls/{Sid}."""
    await app.database.delete(await _find(request, app))
    return respond.no_content()


_LIST = "/v1/Trunks/{TrunkSid}/OriginationUrls"
ROUTES = (
    Route("trunking", "POST", _LIST, create),
    Route("trunking", "GET", _LIST, list_),
    Route("trunking", "GET", _LIST + "/{Sid}", fetch),
    Route("trunking", "POST", _LIST + "/{Sid}", update),
    Route("trunking", "DELETE", _LIST + "/{Sid}", delete),
)
