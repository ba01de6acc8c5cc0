"""Reading messages: scheduled, in flight and post-flight as one continuous record.

Lists read what is scheduled first, then in-flight, then the archive: a message that moves on in between is seen at
least once, and duplicates are dropped by key. Lists are keyset pages over keys, newest first.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from trunkline.inflight.store import Inflight
from trunkline.model.message import Message
from trunkline.model.numbers import ScheduledMessage
from trunkline.model.sid import MESSAGE_MMS, MESSAGE_SMS
from trunkline.storage.archive import Archive
from trunkline.storage.database import Database
from trunkline.storage.queue import Flight

RESPECTED_FILTERS = frozenset({"to", "from", "status", "sent_ge_ms", "sent_lt_ms", "created_ge_ms", "created_lt_ms"})


_SCHEDULED_COLUMNS = {"to": "recipient", "from": "sender", "status": "status"}
_LAST_KEY = "g"
"""Sorts after every key (hex digits)."""


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


def from_scheduled(record: ScheduledMessage) -> StoredMessage:
    """The reader's view of a message that waits for its SendAt."""
    return _decode_landed(record.record[:-1] + ',"status":"' + record.status + '"}')


def from_document(body: bytes, rev: int) -> StoredMessage:
    """The reader's view of a landed document."""
    stored = _decode_landed(body)
    stored.rev, stored.landed = rev, True
    return stored


class Reader:
    """See the module."""

    def __init__(self, inflight: Inflight, archive: Archive, database: Database) -> None:
        self._inflight = inflight
        self._archive = archive
        self._database = database

    async def get(self, account: str, sid: str) -> StoredMessage | None:
        """One message that was taken on, wherever it is; None if there is none (any more)."""
        for _ in range(2):  # it may land between the two looks
            found = await self._inflight.queue.get(account, sid)
            if found is not None:
                return from_flight(found[0])
            document = await self._archive.get(account, sid)
            if document is not None and document.kind == "message":
                return from_document(document.body, document.rev)
        return None

    async def find(self, account: str, sid: str) -> StoredMessage | None:
        """As `get`, scheduled messages too."""
        record = await self._database.get(ScheduledMessage, sid)  # first: it may be taken on meanwhile
        found = await self.get(account, sid)
        if found is None and record is not None and record.account_sid == account:
            return from_scheduled(record)
        return found

    async def page(
        self, account: str, *, older_than: str | None, newer_than: str | None, limit: int, filters: Mapping[str, Any]
    ) -> list[StoredMessage]:
        """Up to `limit` messages, newest first: those just below `older_than`, or just above `newer_than` (keys)."""
        before, after = older_than or "", newer_than or ""
        scheduled = await self._scheduled(account, before, after, limit, filters)
        flying = await self._inflight.queue.page(
            account, "message", before=before, after=after, limit=limit, filters=dict(filters)
        )
        landed = await self._archive.page(account, "message", before=before, after=after, limit=limit, filters=filters)
        merged = {record.sid[2:]: from_scheduled(record) for record in scheduled}
        merged |= {document.sid[2:]: from_document(document.body, document.rev) for document in landed}
        for flight, _ in flying:
            known = merged.get(flight.sid[2:])
            if known is None or known.rev <= flight.rev:
                merged[flight.sid[2:]] = from_flight(flight)
        ordered = [merged[key] for key in sorted(merged, reverse=True)]
        return ordered[-limit:] if after and not before else ordered[:limit]

    async def _scheduled(
        self, account: str, before: str, after: str, limit: int, filters: Mapping[str, Any]
    ) -> list[ScheduledMessage]:
        """As `page`, of what waits for its SendAt; nothing of it has been sent."""
        if not _SCHEDULED_COLUMNS.keys() >= filters.keys():
            return []
        found: list[ScheduledMessage] = []
        for prefix in (MESSAGE_SMS, MESSAGE_MMS):  # SIDs of one prefix are in the order of their keys
            where: dict[str, Any] = {_SCHEDULED_COLUMNS[name]: value for name, value in filters.items()}
            where |= {"account_sid": account, "sid__lt": prefix + (before or _LAST_KEY), "sid__gt": prefix + after}
            nearest = bool(after and not before)
            found += await self._database.find(ScheduledMessage, where, newest_first=not nearest, limit=limit)
        return found
