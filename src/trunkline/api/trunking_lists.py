"""Which credential lists and IP access control lists let a PBX into a trunk. Source: spec
`trunking.v1.trunk.credential_list`, `trunking.v1.trunk.ip_access_control_list`.

The lists are those of SIP domains (`/SIP/CredentialLists`); one that a trunk uses cannot be deleted.
"""

from typing import Any

from trunkline.api import (
    dates,
    paging,
    records,
    respond,
    sip_credential_lists,
    sip_ip_access_control_lists,
    trunking_trunks,
)
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.api.sip_lists import ListKind
from trunkline.api.sip_mappings import MAX_MAPPINGS, list_to_map
from trunkline.api.trunking_trunks import INVALID, url_of
from trunkline.model.errors import ApiError
from trunkline.model.sid import SIP_TRUNK, is_sid
from trunkline.model.sip_domain import SipMapping, mapping_sid
from trunkline.storage.database import Duplicate

CALLS = "calls"


async def _rendered(request: Request, app: Services, kind: ListKind, mapping: SipMapping) -> dict[str, Any]:
    mapped = await app.database.get(kind.record, mapping.list_sid)
    return {
        "account_sid": mapping.account_sid,
        "sid": mapping.list_sid,
        "trunk_sid": mapping.owner_sid,
        "friendly_name": None if mapped is None else mapped.friendly_name,
        "date_created": dates.iso8601(mapping.created_ms),
        "date_updated": dates.iso8601(mapping.updated_ms),
        "url": url_of(request, mapping.owner_sid, kind.collection, mapping.list_sid),
    }


def routes(kind: ListKind) -> tuple[Route, ...]:
    """The operations of one kind of list."""

    async def find(request: Request, app: Services) -> SipMapping:
        trunk, list_sid = await trunking_trunks.find(request, app), request.params["Sid"]
        found = None
        if is_sid(list_sid, kind.prefix):
            found = await app.database.get(SipMapping, mapping_sid(trunk.sid, "calls", list_sid))
        if found is None:
            raise ApiError.not_found(request.path)
        return found

    async def create(request: Request, app: Services) -> Response:
        """POST: the list's SID. It counts from the PBX's next call on."""
        trunk, mapped = await trunking_trunks.find(request, app), await list_to_map(request, app, kind)
        where = {"owner_sid": trunk.sid, "list_sid__prefix": kind.prefix}
        if await app.database.count(SipMapping, where) >= MAX_MAPPINGS:
            raise ApiError.of(INVALID, name=kind.element + "Sid", reason=f"is one of more than {MAX_MAPPINGS} lists")
        mapping = SipMapping(
            sid=mapping_sid(trunk.sid, "calls", mapped.sid),
            account_sid=request.account_sid,
            owner_sid=trunk.sid,
            list_sid=mapped.sid,
        )
        try:
            await app.database.insert(mapping)
        except Duplicate:
            raise ApiError.of(INVALID, name=kind.element + "Sid", reason="is used by this trunk already") from None
        return respond.json(await _rendered(request, app, kind, mapping), 201)

    async def list_(request: Request, app: Services) -> Response:
        """GET: newest list first."""
        trunk, asked = await trunking_trunks.find(request, app), paging.read(request)
        where = {"owner_sid": trunk.sid, "purpose": CALLS, "list_sid__prefix": kind.prefix}
        found, following, previous = await records.page(app.database, SipMapping, where, asked, SIP_TRUNK)
        items = [await _rendered(request, app, kind, mapping) for mapping in found]
        return paging.render(request, asked, paging.Page(kind.key, kind.element, items, following, previous))

    async def fetch(request: Request, app: Services) -> Response:
        """GET {Sid}."""
        return respond.json(await _rendered(request, app, kind, await find(request, app)))

    async def delete(request: Request, app: Services) -> Response:
        """DELETE {Sid}: the list stays."""
        await app.database.delete(await find(request, app))
        return respond.no_content()

    path = f"/v1/Trunks/{{TrunkSid}}/{kind.collection}"
    return (
        Route("trunking", "POST", path, create),
        Route("trunking", "GET", path, list_),
        Route("trunking", "GET", path + "/{Sid}", fetch),
        Route("trunking", "DELETE", path + "/{Sid}", delete),
    )


ROUTES = routes(sip_credential_lists.KIND) + routes(sip_ip_access_control_lists.KIND)
