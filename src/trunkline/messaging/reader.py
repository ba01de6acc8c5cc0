"""Reading messages: in flight and post-flight as one continuous record.

In-flight is read first, then the archive: a message that lands in between is seen at least once, and duplicates are
dropped by key. Lists are keyset pages over keys, newest first.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from trunkline.inflight.store import Inflight
from trunkline.model.message import Message
from trunkline.storage.archive import Archive
from trunkline.storage.queue import Flight

RESPECTED_FILTERS = frozenset({"to", "from", "status", "sent_ge_ms", "sent_lt_ms", "created_ge_ms", "created_lt_ms"})


class StoredMessage(Message, kw_only=True):
    """A message with its status, as readers get it."""

    status: str
    rev: int = 0
    webhooks: list[dict[str, Any]] = []
    landed: bool = False


_decode_landed = msgspec.json.Decoder(StoredMessage).decode


def from_flight(flight: Flight) -> StoredMessage:
    """The reader's view of an in-flight record."""
    stored = _decode_landed(flight.record[:-1] + b',"status":"' + flight.status.encode() + b'"}')
    stored.rev = flight.rev
    return stored


def from_document(body: bytes, rev: int) -> StoredMessage:
    """The reader's view of a landed document."""
    stored = _decode_landed(body)
    stored.rev, stored.landed = rev, True
    return stored


class Reader:
    """See the module."""

    def __init__(self, inflight: Inflight, archive: Archive) -> None:
        self._inflight = inflight
        self._archive = archive

    async def get(self, account: str, sid: str) -> StoredMessage | None:
        """One message, wherever it is; None if there is none (any more)."""
        for _ in range(2):  # it may land between the two looks
            found = await self._inflight.queue.get(account, sid)
            if found is not None:
                return from_flight(found[0])
            document = await self._archive.get(account, sid)
            if document is not None and document.kind == "message":
                return from_document(document.body, document.rev)
        return None

    async def page(
        self, account: str, *, older_than: str | None, newer_than: str | None, limit: int, filters: Mapping[str, Any]
    ) -> list[StoredMessage]:
        """Up to `limit` messages, newest first: those just below `older_than`, or just above `newer_than` (keys)."""
        before, after = older_than or "", newer_than or ""
        flying = await self._inflight.queue.page(
            account, "message", before=before, after=after, limit=limit, filters=dict(filters)
        )
        landed = await self._archive.page(account, "message", before=before, after=after, limit=limit, filters=filters)
        merged = {document.sid[2:]: from_document(document.body, document.rev) for document in landed}
        for flight, _ in flying:
            known = merged.get(flight.sid[2:])
            if known is None or known.rev <= flight.rev:
                merged[flight.sid[2:]] = from_flight(flight)
        ordered = [merged[key] for key in sorted(merged, reverse=True)]
        return ordered[-limit:] if after and not before else ordered[:limit]
