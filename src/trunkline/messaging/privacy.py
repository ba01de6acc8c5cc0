"""Redaction and deletion of messages (DESIGN: "Privacy deletion hides at once from every reader").

Hiding is immediate; the bytes leave every file with the next compaction, within `archive.erase_within_s`. It reaches
the in-flight record, the document, webhook attempts, idempotency responses, scheduled work and media.
"""

import orjson

from trunkline.inflight.store import Inflight
from trunkline.messaging.reader import StoredMessage
from trunkline.model.errors import ApiError
from trunkline.model.message import Status
from trunkline.model.numbers import Media, MessageFeedback, ScheduledMessage
from trunkline.storage.archive import Archive, Document
from trunkline.storage.blobs import BlobStore
from trunkline.storage.database import Database


class Privacy:
    """See the module."""

    def __init__(self, inflight: Inflight, archive: Archive, database: Database, blobs: BlobStore) -> None:
        self._inflight = inflight
        self._archive = archive
        self._database = database
        self._blobs = blobs
        self.pending = True
        """Whether files may hold bytes that a compaction must remove (true at start: nobody knows)."""

    async def redact(self, message: StoredMessage) -> None:
        """Blank the body; raises 20009 when the message is moving just now."""
        account, sid = message.account_sid, message.sid
        self.pending = True
        live = await self._inflight.find(account, sid)
        if live is not None:
            live.message.body, live.message.redacted = "", True
            kept = live.status
            if not await self._inflight.advance(live, Status(kept), lane=live.lane, land_ms=live.land_ms):
                raise ApiError.of(20009)
            await self._inflight.queue.strip_owed(live.id)
        document = await self._archive.get(account, sid)
        if document is not None:
            await self._archive.revise(redacted(document))
        await self._inflight.queue.forget_replays(account, sid)

    async def delete(self, message: StoredMessage) -> None:
        """Hide the message and everything that belongs to it."""
        account, sid = message.account_sid, message.sid
        self.pending = True
        await self._archive.delete(account, sid)
        live = await self._inflight.find(account, sid)
        if live is not None:
            await self._inflight.queue.erase(live.id)
            self._inflight.forget(live.id, live.rev)
        await self._inflight.queue.forget_replays(account, sid)
        await self.delete_media(sid)
        for kind in (ScheduledMessage, MessageFeedback):
            record = await self._database.get(kind, sid)
            if record is not None:
                await self._database.delete(record)

    async def delete_media(self, message_sid: str) -> None:
        """Remove a message's media files and their records."""
        for item in await self._database.find(Media, {"message_sid": message_sid}):
            await self._blobs.delete(item.sid)
            await self._database.delete(item)


def redacted(document: Document) -> Document:
    """The document without its body and without what webhooks showed of it, as its next revision."""
    body = orjson.loads(document.body)
    body["body"], body["redacted"] = "", True
    for hook in body.get("webhooks", ()):
        hook["attempts"] = []
    return Document(
        sid=document.sid,
        account=document.account,
        kind=document.kind,
        rev=document.rev + 1,
        body=orjson.dumps(body),
    )
