"""SIP domains: where phones and PBXs of an account call to and register. Source: spec
`api.v2010.account.sip.sip_domain`; the error dictionary (21230-21233, 21300).

A domain's name ends with `sip.domain_suffix` or with Twilio's `sip.twilio.com`; the part before it is unique on this
server. Which lists let whom in is said by its mappings: without any, nobody may call.
"""

import re
from collections.abc import Callable
from typing import Any

from trunkline.api import dates, paging, records, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.api.sip_lists import SIP, uri
from trunkline.model.errors import ApiError
from trunkline.model.numbers import PhoneNumber
from trunkline.model.sid import PHONE_NUMBER, SIP_DOMAIN, is_sid, new_sid
from trunkline.model.sip_domain import TWILIO_SUFFIX, SipDomain, SipMapping, name_below
from trunkline.storage.database import Duplicate

MAX_DOMAINS = 100
"""SIP domains of an account (21230)."""
MAX_NAME = 64
"""Characters of a FriendlyName."""
MAX_DOMAIN_CHARS = 253
"""Characters of a DomainName (RFC 1035 2.3.4)."""
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
"""One label of a DomainName, lower case (RFC 1123 2.1)."""
URLS = ("VoiceUrl", "VoiceFallbackUrl", "VoiceStatusCallbackUrl")
METHODS = ("VoiceMethod", "VoiceFallbackMethod", "VoiceStatusCallbackMethod")
FLAGS = ("SipRegistration", "Secure")
INVALID = 21231
INVALID_NAME = 21232
TOO_MANY = 21230
HAS_SUBDOMAINS = 21233
NO_BYOC_TRUNK = 21300


def render(domain: SipDomain, auth_types: tuple[str, ...]) -> dict[str, Any]:
    """The resource as the API shows it; `auth_types` are those of calls."""
    owner, sid = domain.account_sid, domain.sid
    return {
        "account_sid": owner,
        "api_version": "2010-04-01",
        "auth_type": ",".join(auth_types),
        "byoc_trunk_sid": domain.byoc_trunk_sid or None,
        "date_created": dates.rfc2822(domain.created_ms),
        "date_updated": dates.rfc2822(domain.updated_ms),
        "domain_name": domain.domain_name,
        "emergency_caller_sid": domain.emergency_caller_sid or None,
        "emergency_calling_enabled": domain.emergency_calling_enabled,
        "friendly_name": domain.friendly_name,
        "secure": domain.secure,
        "sid": sid,
        "sip_registration": domain.sip_registration,
        "subresource_uris": {
            "credential_list_mappings": uri(owner, "Domains", sid, "CredentialListMappings"),
            "ip_access_control_list_mappings": uri(owner, "Domains", sid, "IpAccessControlListMappings"),
        },
        "uri": uri(owner, "Domains", sid),
        "voice_fallback_method": domain.voice_fallback_method,
        "voice_fallback_url": domain.voice_fallback_url or None,
        "voice_method": domain.voice_method,
        "voice_status_callback_method": domain.voice_status_callback_method,
        "voice_status_callback_url": domain.voice_status_callback_url or None,
        "voice_url": domain.voice_url or None,
    }


def _answer(request: Request, app: Services, domain: SipDomain, status: int = 200) -> Response:
    content = render(domain, app.directory.sip_auth_types(domain.sid, "calls"))
    return respond.resource(request.format, content, "Domain", status)


def domain_name(request: Request, suffix: str) -> tuple[str, str] | None:
    """DomainName in lower case, and its part before the suffix; None when it was not sent. Raises 21232."""
    host = request.str("DomainName", MAX_DOMAIN_CHARS, code=INVALID_NAME)
    if not host:
        return None
    host = host.strip().lower()
    name = name_below(host, suffix.lower()) or name_below(host, TWILIO_SUFFIX)
    if name is None:
        raise ApiError.of(INVALID_NAME, name="DomainName", reason=f"must end with .{suffix} or .{TWILIO_SUFFIX}")
    check_labels(name, INVALID_NAME)
    return host, name


def check_labels(name: str, code: int) -> None:
    """Raises `code` for what cannot be the first part of a host name."""
    if not all(LABEL.fullmatch(label) for label in name.split(".")):
        raise ApiError.of(code, name="DomainName", reason='can contain letters, digits, and "-"')


async def _sent(request: Request, app: Services) -> dict[str, Any]:
    sent: dict[str, Any] = {}
    for names, read in ((URLS, request.url), (METHODS, request.method_of)):
        getter: Callable[..., str | None] = read
        for name in names:
            value = getter(name, code=INVALID)
            if value is not None:
                sent[records.field_name(name)] = value
    for name in FLAGS:
        flag = request.bool(name)
        if flag is not None:
            sent[records.field_name(name)] = flag
    friendly = request.str("FriendlyName", MAX_NAME, code=INVALID)
    if friendly is not None:
        sent["friendly_name"] = friendly
    return sent | await _emergency(request, app) | _byoc(request)


async def _emergency(request: Request, app: Services) -> dict[str, Any]:
    """Emergency calls are not routed past a domain's VoiceUrl, so they cannot be enabled: nobody should rely on it."""
    if request.bool("EmergencyCallingEnabled"):
        reason = "must be false: a domain's calls run its VoiceUrl, whose <Dial> calls for help if the operator lets it"
        raise ApiError.of(INVALID, name="EmergencyCallingEnabled", reason=reason)
    sid = request.str("EmergencyCallerSid", 64, code=INVALID)
    if sid is None:
        return {}
    number = await app.database.get(PhoneNumber, sid) if is_sid(sid, PHONE_NUMBER) else None
    if sid and (number is None or number.account_sid != request.account_sid):
        raise ApiError.of(INVALID, name="EmergencyCallerSid", reason="must be a phone number of the account")
    return {"emergency_caller_sid": sid}


def _byoc(request: Request) -> dict[str, Any]:
    """There are no BYOC trunks of accounts, only the operator's own."""
    sid = request.str("ByocTrunkSid", 64, code=NO_BYOC_TRUNK)
    if sid:
        raise ApiError.of(NO_BYOC_TRUNK, value=sid)
    return {}


async def _check_parents(request: Request, app: Services, name: str) -> None:
    """`a.b` may be taken by who has `b`; raises 21232."""
    _, dot, parent = name.partition(".")
    if not dot:
        return
    found = await app.database.find(SipDomain, {"name": parent}, limit=1)
    if not found or found[0].account_sid != request.account_sid:
        raise ApiError.of(INVALID_NAME, name="DomainName", reason="is a subdomain of a domain that is not yours")


async def _check_subdomains(app: Services, domain: SipDomain) -> None:
    """Raises 21233 while there are domains below this one (which are the account's own)."""
    ending = "." + domain.name
    names = await records.all_of(app.database, SipDomain, {"account_sid": domain.account_sid})
    if any(one.name.endswith(ending) for one in names):
        raise ApiError.of(HAS_SUBDOMAINS)


def _taken() -> ApiError:
    return ApiError.of(INVALID_NAME, name="DomainName", reason="is already in use")


async def create(request: Request, app: Services) -> Response:
    """POST Domains. Without a FriendlyName it is called by its domain name."""
    named = domain_name(request, app.settings.sip.domain_suffix)
    if named is None:
        raise ApiError.missing("DomainName")
    sent = await _sent(request, app)
    await _check_parents(request, app, named[1])
    owner = {"account_sid": request.account_sid}
    await records.at_most(app.database, SipDomain, owner, MAX_DOMAINS, TOO_MANY)
    domain = SipDomain(
        sid=new_sid(SIP_DOMAIN, app.clock.now_ms()),
        account_sid=request.account_sid,
        domain_name=named[0],
        name=named[1],
        friendly_name=named[0][:MAX_NAME],
    )
    records.assign(domain, sent)
    try:
        await app.database.insert(domain)
    except Duplicate:
        raise _taken() from None
    return _answer(request, app, domain, 201)


async def list_(request: Request, app: Services) -> Response:
    """GET Domains, newest first."""
    asked = paging.read(request)
    owner = {"account_sid": request.account_sid}
    found, following, previous = await records.page(app.database, SipDomain, owner, asked, SIP_DOMAIN)
    items = [render(domain, app.directory.sip_auth_types(domain.sid, "calls")) for domain in found]
    return paging.render(request, asked, paging.Page("domains", "Domain", items, following, previous))


async def fetch(request: Request, app: Services) -> Response:
    """GET Domains/{Sid}."""
    return _answer(request, app, await records.find(request, app.database, SipDomain, SIP_DOMAIN))


async def update(request: Request, app: Services) -> Response:
    """POST Domains/{Sid}; an empty URL clears it, a new DomainName holds from the next call or registration on."""
    named = domain_name(request, app.settings.sip.domain_suffix)
    domain = await records.find(request, app.database, SipDomain, SIP_DOMAIN)
    sent = await _sent(request, app)
    if named is not None:
        sent["domain_name"], sent["name"] = named
        if named[1] != domain.name:
            await _check_parents(request, app, named[1])
            await _check_subdomains(app, domain)
    try:
        domain = await records.change(request, app.database, domain, lambda one: records.assign(one, sent))
    except Duplicate:
        raise _taken() from None
    return _answer(request, app, domain)


async def delete(request: Request, app: Services) -> Response:
    """DELETE Domains/{Sid}, with its mappings; the lists stay. Refused while it has subdomains."""
    domain = await records.find(request, app.database, SipDomain, SIP_DOMAIN)
    await _check_subdomains(app, domain)
    mappings = await records.all_of(app.database, SipMapping, {"owner_sid": domain.sid})
    await app.database.delete(domain, *mappings)
    return respond.no_content()


_LIST = SIP + "/Domains"
ROUTES = (
    Route("api", "POST", _LIST, create),
    Route("api", "GET", _LIST, list_),
    Route("api", "GET", _LIST + "/{Sid}", fetch),
    Route("api", "POST", _LIST + "/{Sid}", update),
    Route("api", "DELETE", _LIST + "/{Sid}", delete),
)
