"""What credential lists and IP access control lists share: named lists of entries, which domains are mapped to.

A list that is mapped cannot be deleted; one that is not takes its entries along.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

from trunkline.api import dates, paging, records, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.model.errors import ApiError
from trunkline.model.record import Record
from trunkline.model.sid import new_sid
from trunkline.model.sip_domain import SipCredentialList, SipIpAccessControlList, SipMapping

SipList: TypeAlias = SipCredentialList | SipIpAccessControlList

SIP = "/2010-04-01/Accounts/{AccountSid}/SIP"


@dataclass(frozen=True, slots=True)
class ListKind:
    """One of the two kinds: its names, its limits and its errors."""

    record: type[SipList]
    prefix: str
    """Of its SIDs."""
    collection: str
    """In paths: `CredentialLists`."""
    key: str
    """Of the JSON list: `credential_lists`."""
    element: str
    """In XML: `CredentialList`."""
    entry: type[Record]
    entries: str
    """In paths: `Credentials`; in `subresource_uris` as a field name."""
    parent_field: str
    """The entry's field with the list's SID."""
    max_name: int
    """Characters of a FriendlyName."""
    max_lists: int
    """Of an account."""
    too_many: int
    invalid: int
    in_use: int
    """Error codes."""


def uri(account_sid: str, *parts: str) -> str:
    """A relative link below an account's SIP resources."""
    return f"/2010-04-01/Accounts/{account_sid}/SIP/{'/'.join(parts)}.json"


def render(kind: ListKind, one: SipList) -> dict[str, Any]:
    """A list as the API shows it."""
    return {
        "account_sid": one.account_sid,
        "date_created": dates.rfc2822(one.created_ms),
        "date_updated": dates.rfc2822(one.updated_ms),
        "friendly_name": one.friendly_name,
        "sid": one.sid,
        "subresource_uris": {
            records.field_name(kind.entries): uri(one.account_sid, kind.collection, one.sid, kind.entries)
        },
        "uri": uri(one.account_sid, kind.collection, one.sid),
    }


def _name(request: Request, kind: ListKind) -> str:
    """FriendlyName, which must be there; raises 20001 and the kind's own code."""
    name = request.str("FriendlyName", kind.max_name, code=kind.invalid)
    if not name or not name.strip():
        raise ApiError.missing("FriendlyName")
    return name


def routes(kind: ListKind) -> tuple[Route, ...]:
    """The operations of one kind of list."""

    def answer(request: Request, one: SipList, status: int = 200) -> Response:
        return respond.resource(request.format, render(kind, one), kind.element, status)

    async def create(request: Request, app: Services) -> Response:
        """POST: FriendlyName."""
        name = _name(request, kind)
        owner = {"account_sid": request.account_sid}
        await records.at_most(app.database, kind.record, owner, kind.max_lists, kind.too_many)
        sid = new_sid(kind.prefix, app.clock.now_ms())
        one = kind.record(sid=sid, account_sid=request.account_sid, friendly_name=name)
        await app.database.insert(one)
        return answer(request, one, 201)

    async def list_(request: Request, app: Services) -> Response:
        """GET: newest first."""
        asked = paging.read(request)
        owner = {"account_sid": request.account_sid}
        found, following, previous = await records.page(app.database, kind.record, owner, asked, kind.prefix)
        items = [render(kind, one) for one in found]
        return paging.render(request, asked, paging.Page(kind.key, kind.element, items, following, previous))

    async def fetch(request: Request, app: Services) -> Response:
        """GET {Sid}."""
        return answer(request, await records.find(request, app.database, kind.record, kind.prefix))

    async def update(request: Request, app: Services) -> Response:
        """POST {Sid}: FriendlyName."""
        sent = {"friendly_name": _name(request, kind)}
        one = await records.find(request, app.database, kind.record, kind.prefix)
        return answer(request, await records.change(request, app.database, one, lambda it: records.assign(it, sent)))

    async def delete(request: Request, app: Services) -> Response:
        """DELETE {Sid}, with its entries; refused while it is mapped to a domain."""
        one = await records.find(request, app.database, kind.record, kind.prefix)
        if await app.database.count(SipMapping, {"list_sid": one.sid}):
            raise ApiError.of(kind.in_use)
        entries = await records.all_of(app.database, kind.entry, {kind.parent_field: one.sid})
        await app.database.delete(one, *entries)
        return respond.no_content()

    path = f"{SIP}/{kind.collection}"
    return (
        Route("api", "POST", path, create),
        Route("api", "GET", path, list_),
        Route("api", "GET", path + "/{Sid}", fetch),
        Route("api", "POST", path + "/{Sid}", update),
        Route("api", "DELETE", path + "/{Sid}", delete),
    )
