"""Reading calls: in flight and post-flight as one continuous record.

Lists read what is in flight first, then the archive: a call that lands in between is seen at least once, and duplicates
are dropped by key. Lists are keyset pages over keys (creation time), newest first.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from trunkline.model import call as codec
from trunkline.model.call import Call, Status
from trunkline.model.sid import created_ms, is_sid
from trunkline.storage.archive import Archive
from trunkline.storage.queue import Flight, Queue
from trunkline.voice.flights import KIND

FILTERS = frozenset({"to", "from", "status", "parent", "started_ge_ms", "started_lt_ms", "ended_ge_ms", "ended_lt_ms"})
"""Filters of a page: `to`, `from`, `status`, `parent` (a SID) equal; times are Unix ms, from (included) to (not)."""
LONGEST_MS = 32 * 3_600_000
"""Longest time from a call's creation to its end: waiting for its turn, ringing, and 24 hours of talk."""


class StoredCall(Call, kw_only=True):
    """A call with its status, as readers get it."""

    status: str
    rev: int = 0
    webhooks: list[dict[str, Any]] = []
    landed: bool = False

    @property
    def shown_status(self) -> str:
        """The status as the API's Call resource shows it: `initiated` is only told in callbacks."""
        return Status.QUEUED if self.status == Status.INITIATED else self.status


_decode = msgspec.json.Decoder(StoredCall).decode


def from_flight(flight: Flight) -> StoredCall:
    """The reader's view of an in-flight record."""
    stored = _decode(flight.record[:-1] + b',"status":"' + flight.status.encode() + b'"}')
    stored.rev = flight.rev
    return stored


def from_copy(call: Call, status: str) -> StoredCall:
    """The reader's view of a working copy that is not stored yet; later changes of the copy do not show in it."""
    return _decode(codec.encode(call)[:-1] + b',"status":"' + status.encode() + b'"}')


def from_document(body: bytes, rev: int) -> StoredCall:
    """The reader's view of a landed document."""
    stored = _decode(body)
    stored.rev, stored.landed = rev, True
    return stored


class CallReader:
    """See the module."""

    def __init__(self, queue: Queue, archive: Archive) -> None:
        self._queue = queue
        self._archive = archive

    async def get(self, account: str, sid: str) -> StoredCall | None:
        """One call, wherever it is; None if there is none (any more)."""
        for _ in range(2):  # it may land between the two looks
            found = await self._queue.get(account, sid)
            if found is not None:
                return from_flight(found[0]) if found[0].kind == KIND else None
            document = await self._archive.get(account, sid)
            if document is not None:
                return from_document(document.body, document.rev) if document.kind == KIND else None
        return None

    async def webhooks(self, account: str, sid: str) -> list[dict[str, Any]]:
        """Every webhook request that the call made or owes, oldest first: kind, state, tries, request, attempts."""
        found = await self._queue.get(account, sid)
        if found is None:
            landed = await self.get(account, sid)
            return landed.webhooks if landed is not None else []
        return [
            {
                "kind": one.kind,
                "state": one.state,
                "tries": one.tries,
                "request": msgspec.json.decode(one.request or b"{}"),
                "attempts": msgspec.json.decode(one.attempts),
            }
            for one in found[1]
        ]

    async def page(
        self, account: str, *, older_than: str | None, newer_than: str | None, limit: int, filters: Mapping[str, Any]
    ) -> list[StoredCall]:
        """Up to `limit` calls, newest first: those just below `older_than`, or just above `newer_than` (keys).

        Raises KeyError for a filter that is not among FILTERS.
        """
        before, after = older_than or "", newer_than or ""
        flying = await self._queue.page(
            account, KIND, before=before, after=after, limit=limit, filters=_in_flight(filters)
        )
        low, high = _window(filters, before, after)
        landed = await self._archive.page(
            account, KIND, before=high, after=low, limit=limit, filters=_in_archive(filters)
        )
        merged = {document.sid[2:]: from_document(document.body, document.rev) for document in landed}
        for flight, _ in flying:
            known = merged.get(flight.sid[2:])
            if known is None or known.rev <= flight.rev:
                merged[flight.sid[2:]] = from_flight(flight)
        ordered = [merged[key] for key in sorted(merged, reverse=True)]
        return ordered[-limit:] if after and not before else ordered[:limit]


def _in_flight(filters: Mapping[str, Any]) -> dict[str, object]:
    """The queue's names of the filters."""
    if not filters.keys() <= FILTERS:
        raise KeyError(*(filters.keys() - FILTERS))
    named: dict[str, object] = dict(filters)
    if named.get("status") == Status.QUEUED:
        named["status_or_initiated"] = named.pop("status")
    return named


def _in_archive(filters: Mapping[str, Any]) -> dict[str, Any]:
    """The archive's names of the filters: when a call started stands where a message's sending does."""
    return {name.replace("started_", "sent_"): value for name, value in filters.items()}


def _window(filters: Mapping[str, Any], before: str, after: str) -> tuple[str, str]:
    """The keys (low, high) within which calls can pass the filters on parent and end, so that little is read."""
    low, high = after, before
    earliest, latest = 0, 0
    parent = filters.get("parent")
    if isinstance(parent, str) and is_sid(parent):
        earliest, latest = created_ms(parent), created_ms(parent) + LONGEST_MS
    if "ended_ge_ms" in filters:
        earliest = max(earliest, int(filters["ended_ge_ms"]) - LONGEST_MS)
    if "ended_lt_ms" in filters:
        latest = min(latest or int(filters["ended_lt_ms"]), int(filters["ended_lt_ms"]))
    if earliest > 0:
        low = max(low, f"{earliest:012x}")
    if latest > 0 and (before or not after):  # with `after` alone, the page begins there: it must stay so
        bound = f"{latest + 1:012x}"
        high = min(high, bound) if high else bound
    return low, high
