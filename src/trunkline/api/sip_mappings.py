"""Mappings: which lists let whom into a SIP domain, for calls and for registrations. Source: spec
`api.v2010.account.sip.sip_domain.sip_credential_list_mapping` and its siblings.

A mapping is known by its list's SID. Those right below a domain are the older form of those below `Auth/Calls`: both
show the same mappings.
"""

from dataclasses import dataclass
from typing import Any

from trunkline.api import dates, paging, records, respond, sip_credential_lists, sip_ip_access_control_lists
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.api.sip_lists import SIP, ListKind, SipList, uri
from trunkline.model.errors import ApiError
from trunkline.model.sid import SIP_DOMAIN, is_sid
from trunkline.model.sip_domain import Purpose, SipDomain, SipMapping, mapping_sid
from trunkline.storage.database import Duplicate

MAX_MAPPINGS = 100
"""Lists of one kind that are mapped to one domain for one purpose."""
INVALID = 21231
CALLS, REGISTRATIONS = "Auth/Calls/", "Auth/Registrations/"


@dataclass(frozen=True, slots=True)
class MappingKind:
    """One collection of mappings."""

    lists: ListKind
    purpose: Purpose
    below: str
    """Path between the domain and the collection; empty for the older form."""

    @property
    def collection(self) -> str:
        """`CredentialListMappings`."""
        return self.lists.element + "Mappings"

    @property
    def key(self) -> str:
        """The JSON list's key."""
        return "contents" if self.below else records.field_name(self.collection)


def render(kind: MappingKind, mapping: SipMapping, friendly_name: str | None) -> dict[str, Any]:
    """The resource as the API shows it; only the older form has links."""
    content = {
        "account_sid": mapping.account_sid,
        "date_created": dates.rfc2822(mapping.created_ms),
        "date_updated": dates.rfc2822(mapping.updated_ms),
        "friendly_name": friendly_name,
        "sid": mapping.list_sid,
    }
    if not kind.below:
        content["domain_sid"] = mapping.owner_sid
        parts = ("Domains", mapping.owner_sid, kind.collection, mapping.list_sid)
        content["uri"] = uri(mapping.account_sid, *parts)
    return content


async def _domain(request: Request, app: Services) -> SipDomain:
    return await records.find(request, app.database, SipDomain, SIP_DOMAIN, "DomainSid")


async def list_to_map(request: Request, app: Services, kind: ListKind) -> SipList:
    """The account's list that the request names; raises 20001, 20404."""
    sid = request.required(kind.element + "Sid", 64)
    found = await app.database.get(kind.record, sid) if is_sid(sid, kind.prefix) else None
    if found is None or found.account_sid != request.account_sid:
        raise ApiError.not_found(f"/SIP/{kind.collection}/{sid}")
    return found


async def _mapping(request: Request, app: Services, kind: MappingKind) -> SipMapping:
    domain, list_sid = await _domain(request, app), request.params["Sid"]
    found = None
    if is_sid(list_sid, kind.lists.prefix):
        found = await app.database.get(SipMapping, mapping_sid(domain.sid, kind.purpose, list_sid))
    if found is None:
        raise ApiError.not_found(request.path)
    return found


async def _rendered(app: Services, kind: MappingKind, mapping: SipMapping) -> dict[str, Any]:
    mapped = await app.database.get(kind.lists.record, mapping.list_sid)
    return render(kind, mapping, None if mapped is None else mapped.friendly_name)


def _where(domain: SipDomain, kind: MappingKind) -> dict[str, Any]:
    return {"owner_sid": domain.sid, "purpose": kind.purpose, "list_sid__prefix": kind.lists.prefix}


def routes(kind: MappingKind) -> tuple[Route, ...]:
    """The operations of one collection."""
    element = kind.lists.element + "Mapping"

    async def create(request: Request, app: Services) -> Response:
        """POST: the list's SID. It counts from the next request of a phone on."""
        domain, mapped = await _domain(request, app), await list_to_map(request, app, kind.lists)
        if await app.database.count(SipMapping, _where(domain, kind)) >= MAX_MAPPINGS:
            reason = f"is one of more than {MAX_MAPPINGS} lists"
            raise ApiError.of(INVALID, name=kind.lists.element + "Sid", reason=reason)
        mapping = SipMapping(
            sid=mapping_sid(domain.sid, kind.purpose, mapped.sid),
            account_sid=request.account_sid,
            owner_sid=domain.sid,
            list_sid=mapped.sid,
            purpose=kind.purpose,
        )
        try:
            await app.database.insert(mapping)
        except Duplicate:
            raise ApiError.of(INVALID, name=kind.lists.element + "Sid", reason="is mapped already") from None
        return respond.resource(request.format, render(kind, mapping, mapped.friendly_name), element, 201)

    async def list_(request: Request, app: Services) -> Response:
        """GET: newest list first."""
        domain, asked = await _domain(request, app), paging.read(request)
        where = _where(domain, kind)
        found, following, previous = await records.page(app.database, SipMapping, where, asked, SIP_DOMAIN)
        items = [await _rendered(app, kind, mapping) for mapping in found]
        return paging.render(request, asked, paging.Page(kind.key, element, items, following, previous))

    async def fetch(request: Request, app: Services) -> Response:
        """GET {Sid}."""
        content = await _rendered(app, kind, await _mapping(request, app, kind))
        return respond.resource(request.format, content, element)

    async def delete(request: Request, app: Services) -> Response:
        """DELETE {Sid}: its users are let in no more; the list stays."""
        await app.database.delete(await _mapping(request, app, kind))
        return respond.no_content()

    path = f"{SIP}/Domains/{{DomainSid}}/{kind.below}{kind.collection}"
    return (
        Route("api", "POST", path, create),
        Route("api", "GET", path, list_),
        Route("api", "GET", path + "/{Sid}", fetch),
        Route("api", "DELETE", path + "/{Sid}", delete),
    )


KINDS = (
    MappingKind(sip_credential_lists.KIND, "calls", ""),
    MappingKind(sip_ip_access_control_lists.KIND, "calls", ""),
    MappingKind(sip_credential_lists.KIND, "calls", CALLS),
    MappingKind(sip_ip_access_control_lists.KIND, "calls", CALLS),
    MappingKind(sip_credential_lists.KIND, "registrations", REGISTRATIONS),
)
ROUTES = tuple(route for kind in KINDS for route in routes(kind))
