"""Trunks of an account (Elastic SIP Trunking): how its PBX calls out and is called. Source: spec `trunking.v1.trunk`;
the error dictionary (21244, 21245, 21247, 21248).

Refused is what would have no effect here: caller-name look-ups, and secure trunking where there is no TLS.
"""

from typing import Any

from trunkline.api import dates, paging, records, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.api.sip_domains import MAX_DOMAIN_CHARS, check_labels
from trunkline.model.errors import ApiError
from trunkline.model.numbers import PhoneNumber
from trunkline.model.sid import SIP_TRUNK, new_sid
from trunkline.model.sip_domain import SipMapping, name_below
from trunkline.model.sip_trunk import (
    TRANSFER_CALLER_IDS,
    TRANSFER_MODES,
    TRUNK_TWILIO_SUFFIX,
    OriginationUrl,
    SipTrunk,
)
from trunkline.storage.database import Duplicate

MAX_TRUNKS = 100
"""Trunks of an account (21244)."""
MAX_NAME = 64
"""Characters of a FriendlyName."""
INVALID = 21245
TOO_MANY = 21244
TAKEN = 21248
HAS_NUMBERS = 21247
_LINKS = {
    "origination_urls": "OriginationUrls",
    "credential_lists": "CredentialLists",
    "ip_access_control_lists": "IpAccessControlLists",
    "phone_numbers": "PhoneNumbers",
    "recording": "Recording",
}


def url_of(request: Request, *parts: str) -> str:
    """An absolute address below the trunks, on the host that the client used."""
    return "/".join((request.base_url + "/v1/Trunks", *parts))


def recording_of(trunk: SipTrunk) -> dict[str, str]:
    """Its recording settings as the API shows them."""
    return {"mode": trunk.recording_mode, "trim": trunk.recording_trim}


def render(request: Request, app: Services, trunk: SipTrunk) -> dict[str, Any]:
    """The resource as the API shows it."""
    auth_types = app.directory.sip_auth_types(trunk.sid, "calls")
    return {
        "sid": trunk.sid,
        "account_sid": trunk.account_sid,
        "domain_name": trunk.domain_name or None,
        "disaster_recovery_method": trunk.disaster_recovery_method,
        "disaster_recovery_url": trunk.disaster_recovery_url or None,
        "friendly_name": trunk.friendly_name,
        "secure": trunk.secure,
        "cnam_lookup_enabled": False,
        "symmetric_rtp_enabled": True,
        "recording": recording_of(trunk),
        "transfer_mode": trunk.transfer_mode,
        "transfer_caller_id": trunk.transfer_caller_id,
        "auth_type": ",".join(auth_types),
        "auth_type_set": list(auth_types),
        "date_created": dates.iso8601(trunk.created_ms),
        "date_updated": dates.iso8601(trunk.updated_ms),
        "url": url_of(request, trunk.sid),
        "links": {name: url_of(request, trunk.sid, path) for name, path in _LINKS.items()},
    }


async def find(request: Request, app: Services) -> SipTrunk:
    """The trunk that the path names; raises 20404."""
    name = "TrunkSid" if "TrunkSid" in request.params else "Sid"
    return await records.find(request, app.database, SipTrunk, SIP_TRUNK, name)


def _domain(request: Request, suffix: str) -> dict[str, Any]:
    """DomainName, if sent; empty takes it away. Raises 21245."""
    host = request.str("DomainName", MAX_DOMAIN_CHARS, code=INVALID)
    if host is None:
        return {}
    host = host.strip().lower()
    if not host:
        return {"domain_name": "", "name": None}
    name = name_below(host, suffix.lower()) or name_below(host, TRUNK_TWILIO_SUFFIX)
    if name is None:
        reason = f"must end with .{suffix} or .{TRUNK_TWILIO_SUFFIX}"
        raise ApiError.of(INVALID, name="DomainName", reason=reason)
    check_labels(name, INVALID)
    return {"domain_name": host, "name": name}


def _refuse_what_is_not_there(request: Request, app: Services) -> None:
    """Raises 21245."""
    if request.bool("CnamLookupEnabled"):
        reason = "must be false: this server asks no caller-name database"
        raise ApiError.of(INVALID, name="CnamLookupEnabled", reason=reason)
    if request.bool("Secure") and not app.settings.sip.tls_port:
        reason = "must be false: this server takes no calls by TLS, its operator has not set sip.tls_port"
        raise ApiError.of(INVALID, name="Secure", reason=reason)


def _sent(request: Request, app: Services) -> dict[str, Any]:
    _refuse_what_is_not_there(request, app)
    sent = _domain(request, app.settings.sip.trunk_domain_suffix)
    rest = {
        "friendly_name": request.str("FriendlyName", MAX_NAME, code=INVALID),
        "disaster_recovery_url": request.url("DisasterRecoveryUrl", code=INVALID),
        "disaster_recovery_method": request.method_of("DisasterRecoveryMethod", code=INVALID),
        "secure": request.bool("Secure"),
        "transfer_mode": request.enum("TransferMode", TRANSFER_MODES, code=INVALID),
        "transfer_caller_id": request.enum("TransferCallerId", TRANSFER_CALLER_IDS, code=INVALID),
    }
    return sent | {field: value for field, value in rest.items() if value is not None}


async def create(request: Request, app: Services) -> Response:
    """POST Trunks."""
    sent = _sent(request, app)
    owner = {"account_sid": request.account_sid}
    await records.at_most(app.database, SipTrunk, owner, MAX_TRUNKS, TOO_MANY)
    sid = new_sid(SIP_TRUNK, app.clock.now_ms())
    trunk = SipTrunk(sid=sid, account_sid=request.account_sid, friendly_name=sid)
    records.assign(trunk, sent)
    try:
        await app.database.insert(trunk)
    except Duplicate:
        raise ApiError.of(TAKEN) from None
    return respond.json(render(request, app, trunk), 201)


async def list_(request: Request, app: Services) -> Response:
    """GET Trunks, newest first."""
    asked = paging.read(request)
    owner = {"account_sid": request.account_sid}
    found, following, previous = await records.page(app.database, SipTrunk, owner, asked, SIP_TRUNK)
    items = [render(request, app, trunk) for trunk in found]
    return paging.render(request, asked, paging.Page("trunks", "Trunk", items, following, previous))


async def fetch(request: Request, app: Services) -> Response:
    """GET Trunks/{Sid}."""
    return respond.json(render(request, app, await find(request, app)))


async def update(request: Request, app: Services) -> Response:
    """POST Trunks/{Sid}."""
    trunk = await find(request, app)
    sent = _sent(request, app)
    try:
        trunk = await records.change(request, app.database, trunk, lambda one: records.assign(one, sent))
    except Duplicate:
        raise ApiError.of(TAKEN) from None
    return respond.json(render(request, app, trunk))


async def delete(request: Request, app: Services) -> Response:
    """DELETE Trunks/{Sid}, with its URLs and mappings; refused while it has phone numbers (21247)."""
    trunk = await find(request, app)
    if await app.database.count(PhoneNumber, {"account_sid": trunk.account_sid, "trunk_sid": trunk.sid}):
        raise ApiError.of(HAS_NUMBERS)
    urls = await records.all_of(app.database, OriginationUrl, {"trunk_sid": trunk.sid})
    mappings = await records.all_of(app.database, SipMapping, {"owner_sid": trunk.sid})
    await app.database.delete(trunk, *urls, *mappings)
    return respond.no_content()


ROUTES = (
    Route("trunking", "POST", "/v1/Trunks", create),
    Route("trunking", "GET", "/v1/Trunks", list_),
    Route("trunking", "GET", "/v1/Trunks/{Sid}", fetch),
    Route("trunking", "POST", "/v1/Trunks/{Sid}", update),
    Route("trunking", "DELETE", "/v1/Trunks/{Sid}", delete),
)
