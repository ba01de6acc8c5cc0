"""Redaction and deletion of messages (DESIGN: "Privacy deletion hides at once from every reader").

Hiding is immediate; the bytes leave every file with the next compaction, within `archive.erase_within_s`. It reaches
the in-flight record, the document, webhook attempts, idempotency responses, scheduled work and media.
"""

import orjson

from trunkline.inflight.store import Inflight
from trunkline.messaging.reader import StoredMessage
from trunkline.model import phone
from trunkline.model.errors import ApiError
from trunkline.model.message import Status
from trunkline.model.numbers import Alert, Media, MessageFeedback, ScheduledMessage
from trunkline.model.sid import derived_sid
from trunkline.storage.archive import USAGE_TALLY, Archive, Document
from trunkline.storage.blobs import BlobStore
from trunkline.storage.database import Database

REDACT_TRIES = 3
"""Looks at a message that moves while it is redacted."""


class Privacy:
    """See the module."""

    def __init__(self, inflight: Inflight, archive: Archive, database: Database, blobs: BlobStore) -> None:
        self._inflight = inflight
        self._archive = archive
        self._database = database
        self._blobs = blobs
        self._hidden_ms = inflight.clock.now_ms()
        """When something was first hidden whose bytes may still lie in files (at the start: nobody knows); 0: none."""

    def due(self, within_ms: int) -> bool:
        """Whether a compaction of the stores should run now, so that the bytes are gone `within_ms` of the deletion."""
        return bool(self._hidden_ms) and self._inflight.clock.now_ms() - self._hidden_ms >= within_ms // 2

    def compacted(self, began_ms: int) -> None:
        """A compaction that began then has finished."""
        if self._hidden_ms <= began_ms:
            self._hidden_ms = 0

    def hide(self) -> None:
        """Something is being hidden: its bytes must be gone in time."""
        self._hidden_ms = self._hidden_ms or self._inflight.clock.now_ms()

    async def redact(self, message: StoredMessage) -> None:
        """Blank the body; raises 20009 when the message is moving just now."""
        account, sid = message.account_sid, message.sid
        self.hide()
        for _ in range(REDACT_TRIES):  # it may land, or take a step, just now
            live = await self._inflight.find(account, sid)
            if live is None:
                break
            live.message.body, live.message.sent_text, live.message.redacted = "", "", True
            if await self._inflight.advance(live, Status(live.status), lane=live.lane, land_ms=live.land_ms):
                await self._inflight.queue.strip_owed(live.id)
                break
        else:
            raise ApiError.of(20009)
        document = await self._archive.get(account, sid)
        if document is not None:
            await self._archive.revise(redacted(document))
        await self._inflight.queue.forget_replays(account, sid)
        await self.blank_alerts(account, sid)

    async def delete(self, message: StoredMessage) -> None:
        """Hide the message and everything that belongs to it; what it cost still counts (see `tally`)."""
        account, sid = message.account_sid, message.sid
        self.hide()
        await self._archive.land([tally(message)])  # first: doing it all again after a crash counts nothing twice
        await self._archive.delete(account, sid)
        live = await self._inflight.find(account, sid)
        if live is not None:
            await self._inflight.queue.erase(live.id)
            self._inflight.forget(live.id, live.rev)
        await self._inflight.queue.forget_replays(account, sid)
        await self.blank_alerts(account, sid)
        await self.delete_media(sid)
        for kind in (ScheduledMessage, MessageFeedback):
            record = await self._database.get(kind, sid)
            if record is not None:
                await self._database.delete(record)

    async def blank_alerts(self, account: str, sid: str) -> None:
        """Alerts show the requests and responses that went wrong, and so what the message or call was about."""
        for alert in await self._database.find(Alert, {"resource_sid": sid, "account_sid": account}):
            alert.request_variables = alert.response_body = ""
            await self._database.update(alert)

    async def delete_media(self, message_sid: str) -> None:
        """Remove a message's media files and their records."""
        for item in await self._database.find(Media, {"message_sid": message_sid}):
            await self._blobs.delete(item.sid)
            await self._database.delete(item)


def tally(message: StoredMessage) -> Document:
    """What usage and balance still need of a deleted message: amounts, without text, numbers or its SID."""
    inbound = message.direction == "inbound"
    ours, theirs = (message.to, message.from_) if inbound else (message.from_, message.to)
    sid = derived_sid(message.sid[:2], message.sid, USAGE_TALLY)
    body = {
        "kind": USAGE_TALLY, "v": message.v, "sid": sid, "account_sid": message.account_sid,
        "direction": message.direction, "to" if inbound else "from": ours if ours.isdigit() else "",
        "status": message.status, "created_ms": message.created_ms, "sent_ms": message.sent_ms,
        "num_segments": message.num_segments, "num_media": len(message.media),
        "price": message.price, "price_unit": message.price_unit, "country": phone.country(theirs) or "",
    }  # fmt: skip
    return Document(sid=sid, account=message.account_sid, kind=USAGE_TALLY, rev=1, body=orjson.dumps(body))


def redacted(document: Document) -> Document:
    """The document without its body and without what webhooks showed of it, as its next revision."""
    body = orjson.loads(document.body)
    body["body"], body["redacted"] = "", True
    body.pop("sent_text", None)
    for hook in body.get("webhooks", ()):
        hook["attempts"] = []
    return Document(
        sid=document.sid,
        account=document.account,
        kind=document.kind,
        rev=document.rev + 1,
        body=orjson.dumps(body),
    )
