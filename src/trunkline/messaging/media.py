"""Media files of messages: kept under their own SID, with a `Media` record, and shown by the Media resource.

Outbound: `MediaUrl` files are fetched after the accept and before the submit; until then the message waits in the lane
`~media`, so that a slow server of a customer delays nothing else, and a restart finds it there. What cannot be had
fails the message. Carriers that take text only get the addresses of the files as lines of the text (see
`Outbound.accept`), so a handset shows links.

Inbound: the files come with the message, or are fetched from the carrier; one that cannot be had or kept is left out
and an alert raised: the message itself counts more.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from trunkline.accounts.alerts import Alerts
from trunkline.accounts.directory import Directory
from trunkline.inflight.store import Inflight, Live
from trunkline.messaging.lanes import lane_parts
from trunkline.messaging.outbound import MEDIA_LANE, Outbound
from trunkline.model.clock import Clock
from trunkline.model.message import MediaItem
from trunkline.model.numbers import Media
from trunkline.model.sid import MEDIA, derived_sid
from trunkline.settings import Settings
from trunkline.storage.blobs import BlobsFull, BlobStore, BlobTooLarge
from trunkline.storage.database import Database
from trunkline.storage.queue import Queue
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.webhooks.fetch import Fetcher, FetchRequest
from trunkline.webhooks.guard import Guard
from trunkline.webhooks.http import Client

FETCHES = 8
"""Files fetched at once (each may be `limits.media_bytes` long)."""
TRIES = 3
"""Attempts to fetch one file."""
STORE_RETRY_S = 15.0
"""Wait after the store of files could not be reached."""
RETRY_S = 2.0
"""Wait before the second attempt; it doubles."""
MAX_PREPARING = 500
"""Messages whose files are being fetched or wait for a slot in memory; the others wait in the queue."""
RECOVERY_PAGE = 200
"""Waiting messages read at once after a start."""
MAX_TYPE_CHARS = 127
"""Of a content type (RFC 6838 section 4.2 allows 127 for each half)."""

TOO_LARGE = 11751
INVALID_TYPE = 12300
EMPTY = 11770
BODY_TOO_LARGE = 11750
INTERNAL = 12400

_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*")
_NO_MEDIA = frozenset({"text/html", "application/xhtml+xml"})
"""What a server answers with when the file is not there for us; never a message's media."""

log = logging.getLogger(__name__)


class MediaRefused(Exception):
    """A file that cannot be had or kept; `code` is from Twilio's dictionary."""

    def __init__(self, code: int, text: str, *, passing: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.passing = passing
        """Whether another attempt may help."""


class MediaFiles:
    """See the module. `url_of(account, message, media)` is the public address of a kept file."""

    def __init__(
        self,
        blobs: BlobStore,
        database: Database,
        directory: Directory,
        alerts: Alerts,
        clock: Clock,
        settings: Settings,
        client: Client,
        guard: Guard,
        url_of: Callable[[str, str, str], str],
    ) -> None:
        self._blobs = blobs
        self._database = database
        self._directory = directory
        self._alerts = alerts
        self._clock = clock
        self._limits = settings.limits
        self._url_of = url_of
        webhooks = msgspec.structs.replace(settings.webhooks, response_bytes=settings.limits.media_bytes)
        self._fetcher = Fetcher(client, guard, clock, webhooks, allow_http=settings.security.webhook_http)
        self._slots = asyncio.Semaphore(FETCHES)

    async def keep(
        self, account: str, message_sid: str, sid: str, content_type: str, content: bytes, source_url: str = ""
    ) -> MediaItem:
        """Keep a file; durable on return, and the same again does no harm. Raises MediaRefused."""
        kind = content_type.partition(";")[0].strip().lower()
        if len(kind) > MAX_TYPE_CHARS or not _TYPE.fullmatch(kind) or kind in _NO_MEDIA:
            raise MediaRefused(INVALID_TYPE, f"content type {kind[:MAX_TYPE_CHARS]!r} is not one of media")
        if not content:
            raise MediaRefused(EMPTY, "the media file is empty")
        if len(content) > self._limits.media_bytes:
            raise MediaRefused(TOO_LARGE, f"the media file has more than {self._limits.media_bytes} bytes")
        try:
            await self._blobs.put(sid, content)
        except BlobTooLarge as error:
            raise MediaRefused(TOO_LARGE, str(error)) from None
        except BlobsFull as error:
            log.error("the media of %s are refused (data.media_bytes): %s", message_sid, error)
            raise MediaRefused(INTERNAL, "the server has no room for more media files") from None
        now = self._clock.now_ms()
        record = Media(
            sid=sid,
            account_sid=account,
            message_sid=message_sid,
            content_type=kind,
            bytes=len(content),
            source_url=source_url,
            created_ms=now,
            updated_ms=now,
        )
        await self._database.put(record)
        return MediaItem(sid, kind, self._url_of(account, message_sid, sid), len(content))

    async def fetch(self, account: str, message_sid: str, sid: str, url: str) -> MediaItem:
        """Fetch a file once and keep it. Raises MediaRefused."""
        owner = self._directory.account(account)
        if owner is None:
            raise MediaRefused(INTERNAL, "the account is gone")
        request = FetchRequest(url=url, secret=owner.auth_token, method="GET", verify_tls=owner.verify_tls)
        async with self._slots:
            outcome = await self._fetcher.once(request)
            if outcome.error_code or outcome.answer is None:
                code = TOO_LARGE if outcome.error_code == BODY_TOO_LARGE else outcome.error_code
                status = outcome.answer.status if outcome.answer else 0
                raise MediaRefused(code, outcome.error, passing=code != TOO_LARGE and not 400 <= status < 500)
            answer = outcome.answer
            return await self.keep(account, message_sid, sid, answer.content_type, answer.body, url)

    async def receive(
        self, account: str, message_sid: str, files: Sequence[tuple[str, bytes]], urls: Sequence[str]
    ) -> list[MediaItem]:
        """Keep what came with a received message, as many as the limit allows; what is left out raises an alert."""
        items: list[MediaItem] = []
        sources: list[tuple[str, bytes] | str] = [*files, *urls]
        for index, source in enumerate(sources[: self._limits.media_per_message]):
            sid = derived_sid(MEDIA, message_sid, f"media/{index}")
            try:
                if isinstance(source, str):
                    items.append(await self.fetch(account, message_sid, sid, source))
                else:
                    items.append(await self.keep(account, message_sid, sid, *source))
            except MediaRefused as refused:
                self._alerts.raise_(account, refused.code, resource_sid=message_sid, text=str(refused))
        return items

    async def drop(self, items: Sequence[MediaItem]) -> None:
        """Remove files whose message was not kept after all."""
        for item in items:
            record = await self._database.get(Media, item.sid)
            if record is not None:
                await self._database.delete(record)
            await self._blobs.delete(item.sid)


class OutboundMedia:
    """Fetches the files of accepted messages (see the module)."""

    def __init__(self, files: MediaFiles, inflight: Inflight, outbound: Outbound, alerts: Alerts) -> None:
        self._files = files
        self._inflight = inflight
        self._outbound = outbound
        self._alerts = alerts
        self._busy: dict[int, asyncio.Task[None]] = {}
        self._left = False
        """Whether more wait in the queue than are under way."""
        self._refill: asyncio.Task[int] | None = None
        self._stopped = False

    def start(self, live: Live) -> None:
        """A message with media was committed. Next: trunkline.messaging.outbound.Outbound.media_ready"""
        if self._stopped or live.id in self._busy or not live.lane.startswith(MEDIA_LANE):
            return  # it waits in its lane, is under way, or has moved on
        if len(self._busy) >= MAX_PREPARING:
            self._left = True
            return
        task = asyncio.get_running_loop().create_task(self._prepare(live))
        self._busy[live.id] = task
        task.add_done_callback(lambda _: self._done(live.id))

    def _done(self, flight_id: int) -> None:
        del self._busy[flight_id]
        refilling = self._refill is not None and not self._refill.done()
        if self._left and not self._stopped and not refilling and len(self._busy) <= MAX_PREPARING // 2:
            self._refill = asyncio.get_running_loop().create_task(self.recover())

    async def recover(self, queue: Queue | None = None) -> int:
        """Take up what waits in the queue (in this partition of it); returns how many."""
        queue = queue or self._inflight.queue
        self._left = False
        found = 0
        for lane, _, _ in await queue.lanes():
            if lane_parts(lane)[0] != MEDIA_LANE:
                continue
            after = (0, 0)
            while not self._left and (flights := await queue.waiting(lane, after, RECOVERY_PAGE)):
                after = (flights[-1].due_ms, flights[-1].id)
                for flight in flights:
                    self.start(self._inflight.adopt(flight))
                found += len(flights)
        return found

    async def stop(self) -> None:
        """End the fetches under way; their messages wait in the queue."""
        self._stopped = True
        tasks: list[asyncio.Task[Any]] = [*self._busy.values(), *([self._refill] if self._refill else ())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _prepare(self, live: Live) -> None:
        message = live.message
        try:
            for index, item in enumerate(message.media):
                if not item.bytes:
                    kept = await self._insist(live, item)
                    # The carrier and the links in the text want the customer's own address, not ours.
                    message.media[index] = msgspec.structs.replace(kept, url=item.url)
        except MediaRefused as refused:
            self._alerts.raise_(message.account_sid, refused.code, resource_sid=message.sid, text=str(refused))
            self._outbound.media_failed(live, refused.code)
        except Exception:
            log.exception("the media of %s could not be kept", message.sid)
            self._outbound.media_failed(live, INTERNAL)
        else:
            self._outbound.media_ready(live)

    async def _insist(self, live: Live, item: MediaItem) -> MediaItem:
        """Fetch and keep a file; while the store of files cannot be reached, again, until the message expires."""
        message = live.message
        while True:
            try:
                return await self._fetch(message.account_sid, message.sid, item)
            except StoreUnavailable as error:
                if self._inflight.clock.now_ms() + STORE_RETRY_S * 1000 >= message.valid_until_ms:
                    raise
                log.warning("the media of %s wait: %s", message.sid, error)
            await asyncio.sleep(STORE_RETRY_S)

    async def _fetch(self, account: str, message_sid: str, item: MediaItem) -> MediaItem:
        for attempt in range(1, TRIES + 1):
            try:
                return await self._files.fetch(account, message_sid, item.sid, item.url)
            except MediaRefused as refused:
                if not refused.passing or attempt == TRIES:
                    raise
            await asyncio.sleep(RETRY_S * 2 ** (attempt - 1))
        raise MediaRefused(INTERNAL, "the media file could not be fetched")
