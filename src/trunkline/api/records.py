"""What the resources over `Database` records have in common: pages, look-ups, parameters, guarded changes.

A record belongs to the account in the path, or it is not there (404). Changes are read-modify-write under the record's
`rev`: two requests that change different fields at once both count.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from trunkline.api.paging import PageRequest, cut
from trunkline.api.request import Request
from trunkline.model.errors import ApiError
from trunkline.model.record import Record
from trunkline.model.sid import is_sid
from trunkline.storage.database import Conflict, Database

R = TypeVar("R", bound=Record)

MAX_FRIENDLY_NAME = 64
"""Characters of a FriendlyName (20002)."""
CHANGE_TRIES = 5
"""Reads anew when somebody else changed the record in between; then 20409."""
SCAN_PAGE = 500
"""Records read at once while looking for those that a filter keeps."""
MAX_SCANNED = 20_000
"""Records that one page looks through; its `next_page_uri` goes on from there."""
INVALID_NAME = 20002
INVALID_URL = 21402
INVALID_METHOD = 21403

Found = tuple[list[R], str | None, str | None]
"""The records of a page, the next token and the previous one."""


async def page(
    database: Database,
    kind: type[R],
    where: Mapping[str, Any],
    asked: PageRequest,
    prefix: str,
    keep: Callable[[R], bool] | None = None,
) -> Found[R]:
    """A page, newest first. `prefix` is that of the kind's SIDs; `keep` filters what `where` cannot say."""
    backwards = asked.before is not None
    key = asked.before or asked.after
    after = prefix + key if key else ""
    found: list[R] = []
    limit = asked.size + 1 if keep is None else SCAN_PAGE
    scanned = 0
    more = True
    while more and len(found) <= asked.size and scanned < MAX_SCANNED:
        batch = await database.find(kind, where, newest_first=not backwards, after=after, limit=limit)
        found += batch if keep is None else filter(keep, batch)
        scanned += len(batch)
        more = len(batch) == limit
        after = batch[-1].sid if batch else after
    found = found[: asked.size + 1]
    complete = not more or len(found) > asked.size
    if backwards:
        found.reverse()
    shown, following, previous = cut(found, asked, _key)
    if not complete and not backwards:
        following = after[2:]
    return shown, following, previous


def _key(record: Record) -> str:
    return record.sid[2:]


async def find(request: Request, database: Database, kind: type[R], prefix: str, name: str = "Sid") -> R:
    """The account's record that the path names; raises 20404."""
    sid = request.params[name]
    record = await database.get(kind, sid) if is_sid(sid, prefix) else None
    if record is None or record.account_sid != request.account_sid:
        raise ApiError.not_found(request.path)
    return record


async def change(request: Request, database: Database, record: R, apply: Callable[[R], None]) -> R:
    """Apply a change to a record just read, and to what it has become when somebody else was faster.

    `apply` may raise to refuse. Raises 20404 when it is gone meanwhile, 20409 when it never stands still.
    """
    kind, sid, owner = type(record), record.sid, record.account_sid
    current: R | None = record
    for _ in range(CHANGE_TRIES):
        if current is None or current.account_sid != owner:
            raise ApiError.not_found(request.path)
        apply(current)
        try:
            await database.update(current)
        except Conflict:
            current = await database.get(kind, sid)
        else:
            return current
    raise ApiError.of(20409, reason="the resource is being changed by others")


async def make_room(database: Database, kind: type[Record], where: Mapping[str, Any], limit: int, what: str) -> None:
    """Raise 20006 when there are `limit` records already."""
    if await database.count(kind, where) >= limit:
        raise ApiError.of(20006, message=f"An account may have {limit} {what}")


async def at_most(database: Database, kind: type[Record], where: Mapping[str, Any], limit: int, code: int) -> None:
    """Raise `code` when there are `limit` records already, where Twilio has a code of its own for that."""
    if await database.count(kind, where) >= limit:
        raise ApiError.of(code)


async def all_of(database: Database, kind: type[R], where: Mapping[str, Any]) -> list[R]:
    """Every record that matches, for what has a limit of its own."""
    found: list[R] = []
    after = ""
    while batch := await database.find(kind, where, after=after, limit=SCAN_PAGE):
        found += batch
        after = batch[-1].sid
    return found


def friendly_name(request: Request) -> str | None:
    """FriendlyName, if sent; raises 20002."""
    return request.str("FriendlyName", MAX_FRIENDLY_NAME, code=INVALID_NAME)


def webhooks(
    request: Request, urls: Collection[str] = (), methods: Collection[str] = (), flags: Collection[str] = ()
) -> dict[str, Any]:
    """The URLs, their methods and the switches that were sent, by the record's field names; raises 21402, 21403."""
    sent: dict[str, Any] = {}
    for name in urls:
        url = request.url(name, code=INVALID_URL)
        if url is not None:
            sent[field_name(name)] = url
    for name in methods:
        method = request.method_of(name, code=INVALID_METHOD)
        if method is not None:
            sent[field_name(name)] = method
    for name in flags:
        flag = request.bool(name)
        if flag is not None:
            sent[field_name(name)] = flag
    return sent


def field_name(parameter: str) -> str:
    """`SmsFallbackUrl` -> `sms_fallback_url`."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in parameter).lstrip("_")


def assign(record: Record, values: Mapping[str, Any]) -> None:
    """Set the fields named."""
    for name, value in values.items():
        setattr(record, name, value)
