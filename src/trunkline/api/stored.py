"""Resources that are records of the `Database`: pages of them, and changes by compare-and-set."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from trunkline.api.paging import PageRequest, cut
from trunkline.model.errors import ApiError
from trunkline.model.record import Record
from trunkline.storage.database import Conflict, Database

R = TypeVar("R", bound=Record)

MAX_TRIES = 5
"""Times a change is applied anew because somebody else changed the record meanwhile."""


async def page(
    database: Database, kind: type[R], where: Mapping[str, Any], asked: PageRequest, *, newest_first: bool = True
) -> tuple[list[R], str | None, str | None]:
    """One page by SID (which orders by creation): the records, and the tokens of the next and the previous page."""
    backwards = asked.before is not None
    found = await database.find(
        kind,
        where,
        newest_first=newest_first is not backwards,
        after=asked.before or asked.after or "",
        limit=asked.size + 1,
    )
    return cut(found[::-1] if backwards else found, asked, _sid)


def _sid(record: Record) -> str:
    return record.sid


async def change(database: Database, kind: type[R], sid: str, apply: Callable[[R], None], path: str) -> R:
    """Apply a change to the newest state of a record; raises 20404 when it is gone, 20409 when it never rests."""
    for _ in range(MAX_TRIES):
        record = await database.get(kind, sid)
        if record is None:
            raise ApiError.not_found(path)
        apply(record)
        try:
            await database.update(record)
        except Conflict:
            continue
        return record
    raise ApiError.of(20409, reason="the resource is being changed by others")
