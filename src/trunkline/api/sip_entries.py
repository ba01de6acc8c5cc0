"""What the entries of credential lists and of IP access control lists share: they are found within their list only."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from trunkline.api import paging, records, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.api.sip_lists import SIP, ListKind, SipList
from trunkline.model.errors import ApiError
from trunkline.model.record import Record

Entry = TypeVar("Entry", bound=Record)
Handler = Callable[[Request, Services], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class EntryKind(Generic[Entry]):
    """One of the two kinds."""

    within: ListKind
    record: type[Entry]
    prefix: str
    """Of its SIDs."""
    key: str
    """Of the JSON list: `credentials`."""
    element: str
    """In XML: `Credential`."""
    render: Callable[[Entry], dict[str, Any]]
    """The resource as the API shows it."""

    @property
    def list_sid(self) -> str:
        """The list's SID in paths: `CredentialListSid`."""
        return f"{self.within.element}Sid"

    async def parent(self, request: Request, app: Services) -> SipList:
        """The list that a path names."""
        return await records.find(request, app.database, self.within.record, self.within.prefix, self.list_sid)

    async def find(self, request: Request, app: Services) -> Entry:
        """The entry that a path names, of the list that it names."""
        found = await records.find(request, app.database, self.record, self.prefix)
        if getattr(found, self.within.parent_field) != request.params[self.list_sid]:
            raise ApiError.not_found(request.path)
        return found

    def answer(self, request: Request, entry: Entry, status: int = 200) -> Response:
        return respond.resource(request.format, self.render(entry), self.element, status)


def routes(kind: EntryKind[Entry], create: Handler, update: Handler) -> tuple[Route, ...]:
    """The operations of one kind of entry."""

    async def list_(request: Request, app: Services) -> Response:
        """GET: newest first."""
        parent = await kind.parent(request, app)
        asked = paging.read(request)
        within = {kind.within.parent_field: parent.sid}
        found, following, previous = await records.page(app.database, kind.record, within, asked, kind.prefix)
        items = [kind.render(one) for one in found]
        return paging.render(request, asked, paging.Page(kind.key, kind.element, items, following, previous))

    async def fetch(request: Request, app: Services) -> Response:
        """GET {Sid}."""
        return kind.answer(request, await kind.find(request, app))

    async def delete(request: Request, app: Services) -> Response:
        """DELETE {Sid}."""
        await app.database.delete(await kind.find(request, app))
        return respond.no_content()

    path = f"{SIP}/{kind.within.collection}/{{{kind.list_sid}}}/{kind.within.entries}"
    return (
        Route("api", "POST", path, create),
        Route("api", "GET", path, list_),
        Route("api", "GET", path + "/{Sid}", fetch),
        Route("api", "POST", path + "/{Sid}", update),
        Route("api", "DELETE", path + "/{Sid}", delete),
    )
