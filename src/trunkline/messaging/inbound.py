"""The inbound line: from what a carrier hands over to a stored message and the webhook it owes.

`receive` promises that its future is done after the commit, so that the carrier is acknowledged only then. A message to
a number nobody here has is acknowledged too (else it would come again for ever), counted and logged. Parts of long
messages wait for their siblings (see `reassembly`), for `messaging.part_window_s` at most; then what came is delivered,
with error 30009.

Order: opt-out keyword, files, commit (message and owed webhook), confirmation of the opt-out. A carrier's repetition
is recognised by its own message id, durably, for as long as carrier ids are kept.
"""

import asyncio
import logging
from asyncio import Future
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec

from trunkline.accounts.alerts import Alerts
from trunkline.accounts.callbacks import host_of
from trunkline.accounts.directory import Directory
from trunkline.inflight.store import Inflight
from trunkline.messaging import smpp_clients
from trunkline.messaging.connectors.base import InboundPart
from trunkline.messaging.optout import OptOutResult, OptOuts, can_be_answered
from trunkline.messaging.outbound import OPT_OUT_REPLY, NewMessage, Outbound
from trunkline.messaging.reassembly import MAX_PARTS, REPEATED, Reassembly, Whole
from trunkline.messaging.routing import amount
from trunkline.model import message as codec
from trunkline.model.errors import ApiError, describe
from trunkline.model.message import Direction, MediaItem, Message, Status
from trunkline.model.numbers import PhoneNumber, ShortCode
from trunkline.model.sid import MESSAGE_MMS, MESSAGE_SMS, derived_sid, new_sid
from trunkline.settings import Settings
from trunkline.sms import concat, segment
from trunkline.storage.queue import Exists, Flight, Owed, Part, Queue

MISSING_SEGMENT = 30009
TICK_S = 2.0
"""How often it is looked for long messages whose time is over."""
SWEEP_TICKS = 60
"""Ticks between sweeps of what is left in the queue of long messages."""
SWEEP_KEYS = 1000
"""Long messages that one sweep looks at."""
MAX_UNKNOWN_LOGGED = 1000
"""Destinations nobody has that are remembered, so that each is logged once."""
MAX_ADDRESS_CHARS = 64
"""Of a sender or a destination as a carrier writes it."""
CARRIER_ID_PREFIX = "in:"
"""Keeps carriers' ids of received messages apart from those of sent ones."""
MAX_CARRIER_ID_CHARS = 200
MIN_E164 = 8
"""Digits from which on an address without a plus is looked for as a number, not as a short code."""

Look = Callable[[str], Awaitable[None]]

log = logging.getLogger(__name__)


class InboundRequest(msgspec.Struct, omit_defaults=True):
    """What `Owed.request` holds of an inbound webhook; the message itself is read from its record, so that a
    redaction reaches it."""

    url: str
    method: str = "POST"
    fallback_url: str = ""
    fallback_method: str = "POST"
    opt_out_type: str = ""
    traceparent: str = ""


class Received(msgspec.Struct):
    """A whole message, before it is stored."""

    connector: str
    from_: str
    to: str
    text: str
    encoding: str
    segments: int = 0
    """Parts it came in; 0: as many as its text needs."""
    missing: int = 0
    carrier_id: str = ""
    media: Sequence[tuple[str, bytes]] = ()
    media_urls: Sequence[str] = ()
    parts: Sequence[str] = ()
    """Keys in the queue of the parts it was made of."""
    marker: Part | None = None
    """What stays in their place."""


class MediaKeeper(Protocol):
    """What is used of `trunkline.messaging.media.MediaFiles`."""

    async def receive(
        self, account: str, message_sid: str, files: Sequence[tuple[str, bytes]], urls: Sequence[str]
    ) -> list[MediaItem]: ...

    async def drop(self, items: Sequence[MediaItem]) -> None: ...


class Inbound:
    """See the module. Used by one event loop."""

    def __init__(
        self,
        settings: Settings,
        inflight: Inflight,
        directory: Directory,
        outbound: Outbound,
        optouts: OptOuts,
        media: MediaKeeper,
        alerts: Alerts,
    ) -> None:
        self._window_ms = int(settings.messaging.part_window_s * 1000)
        self._part_count = settings.messaging.part_count
        self._inflight = inflight
        self._clock = inflight.clock
        self._directory = directory
        self._outbound = outbound
        self._optouts = optouts
        self._media = media
        self._alerts = alerts
        self._reassembly = Reassembly(self._window_ms, self._part_count)
        self._finishing: dict[concat.Key, Future[Any]] = {}
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._logged: set[str] = set()
        self.received = 0
        self.duplicates = 0
        self.look: Look | None = None
        """Looks for a number that is not known here; must not raise."""
        self.unknown = 0
        """Messages to destinations nobody has: acknowledged and dropped."""

    # -- life ------------------------------------------------------------------------------------------------

    async def recover(self, queue: Queue | None = None) -> None:
        """Take up the parts that an earlier run stored (in this partition of the queue)."""
        queue = queue or self._inflight.queue
        far = self._clock.now_ms() + 2 * self._window_ms
        keys = _carriers(await queue.stale_parts(far, self._part_count))
        await self._reassembly.restore(queue, keys)

    async def move_parts(self, queue: Queue, elsewhere: Callable[[], bool]) -> None:
        """A partition leaves this node: what came of incomplete messages stays here, with the carrier's binds. While
        new work does not go `elsewhere` (all partitions of this node leave), it goes with its partition instead."""
        far = self._clock.now_ms() + 2 * self._window_ms
        for connector, key in await queue.stale_parts(far, self._part_count):
            for part in await queue.parts(connector, key):
                if not elsewhere():
                    return
                await self._inflight.queue.keep_part(part)
            await queue.drop_parts([(connector, key)])

    def start(self) -> None:
        """Watch the time limits until `stop`."""
        self._task = self._loop.create_task(self._run())

    async def stop(self) -> None:
        """Stop watching; what is incomplete waits in the queue."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(TICK_S)
            ticks += 1
            try:
                await self.flush_due()
                if ticks % SWEEP_TICKS == 0:
                    await self._sweep()
            except Exception:
                log.exception("incomplete inbound messages could not be stored; they are tried again")

    async def flush_due(self) -> None:
        """Deliver the incomplete messages whose time is over."""
        for whole in self._reassembly.due(self._clock.now_ms()):
            await self._finish(whole, 0)

    async def _sweep(self) -> None:
        """Forget markers and repetitions whose time is over; take up parts that are in the queue but not in memory."""
        queue = self._inflight.queue
        keys = _carriers(await queue.stale_parts(self._clock.now_ms() - 2 * self._window_ms, SWEEP_KEYS))
        over = [
            (connector, key)
            for connector, key in keys
            if not any(0 < p.number < REPEATED for p in await queue.parts(connector, key))
        ]
        if over:
            await queue.drop_parts(over)
        held = self._reassembly.held()
        left = [pair for pair in keys if pair not in over and pair[1] not in held]
        await self._reassembly.restore(queue, left)

    # -- receive ---------------------------------------------------------------------------------------------

    def receive(self, part: InboundPart) -> "Future[Any]":
        """Take what a carrier hands over; the future is done once it is kept, and fails if it could not be.

        Next: trunkline.messaging.replies.InboundHandler.begin
        """
        if self._owner(part.to) is None:
            return (
                self._nobody(part) if self.look is None else self._loop.create_task(self._looked_for(part, self.look))
            )
        return self._received(part)

    async def _looked_for(self, part: InboundPart, look: Look) -> None:
        """Whoever bought the number may have done so at another node."""
        await look(part.to if part.to.startswith("+") or len(part.to) < MIN_E164 else f"+{part.to}")
        await (self._nobody(part) if self._owner(part.to) is None else self._received(part))

    def _received(self, part: InboundPart) -> "Future[Any]":
        """Take a part for a number that somebody has."""
        if part.total > 1 and part.reference >= 0 and 1 <= part.part <= part.total <= MAX_PARTS:
            return self._part(part)
        whole = Received(
            connector=part.connector,
            from_=part.from_[:MAX_ADDRESS_CHARS],
            to=part.to,
            text=part.text,
            encoding=part.encoding,
            carrier_id=part.carrier_id[:MAX_CARRIER_ID_CHARS],
            media=part.media,
            media_urls=part.media_urls,
        )
        return self._loop.create_task(self._take(whole))

    def _owner(self, to: str) -> PhoneNumber | ShortCode | None:
        """The number or short code that a message is for, if an active account has it."""
        directory = self._directory
        found = directory.number(to) or directory.short_code(to) or directory.number("+" + to)
        if found is None or not found.account_sid:
            return None
        account = directory.account(found.account_sid)
        return found if account is not None and account.status == "active" else None

    def _nobody(self, part: InboundPart) -> "Future[Any]":
        self.unknown += 1
        to = part.to[:MAX_ADDRESS_CHARS]
        if to not in self._logged and len(self._logged) < MAX_UNKNOWN_LOGGED:
            self._logged.add(to)
            log.warning("connector %s handed over a message to %r, which no active account has", part.connector, to)
        return self._done()

    def _done(self) -> "Future[Any]":
        future = self._loop.create_future()
        future.set_result(None)
        return future

    def _part(self, part: InboundPart) -> "Future[Any]":
        """Keep one part of a long message."""
        verdict, stored, finished = self._reassembly.receive(part, self._clock.now_ms())
        last = finished.pop() if verdict == "complete" else None
        for whole in finished:  # their time is over, or their reference was used again
            self._finish_later(whole, 0)
        if last is not None:
            return self._finish_later(last, part.part)
        kept = None if stored is None else asyncio.ensure_future(self._inflight.queue.keep_part(stored))
        if kept is not None and stored is not None and stored.number < REPEATED:
            return kept
        self.duplicates += 1
        # Its message may be on its way to the disk: acknowledged when that has arrived.
        source = f"{part.connector}|{part.from_}"
        width = 16 if part.reference_width == 16 else 8
        finishing = self._finishing.get((source, part.to, part.reference, part.total, width))
        waits = [one for one in (kept, finishing) if one is not None]
        return asyncio.gather(*waits) if waits else self._done()

    def _finish_later(self, whole: Whole, last: int) -> "Future[Any]":
        task = self._loop.create_task(self._finish(whole, last))
        key = whole.group.key
        self._finishing[key] = task
        task.add_done_callback(lambda _: self._finishing.pop(key, None))
        if not last:
            task.add_done_callback(_log_failure)
        return task

    async def _finish(self, whole: Whole, last: int) -> None:
        """Store a long message; if that fails its parts wait again, but for the `last`, which comes again."""
        now = self._clock.now_ms()
        received = Received(
            connector=whole.connector,
            from_=whole.from_[:MAX_ADDRESS_CHARS],
            to=whole.to,
            text=whole.text,
            encoding=whole.encoding,
            segments=whole.parts,
            missing=whole.missing,
            carrier_id=whole.key[-MAX_CARRIER_ID_CHARS:],  # it may be stored all the same when that fails: once
            parts=[whole.key],
            marker=self._reassembly.marker(whole, now),
        )
        try:
            await self._take(received)
        except BaseException:
            self._reassembly.give_back(whole, last)
            raise
        self._reassembly.finished(whole, now)

    # -- keep ------------------------------------------------------------------------------------------------

    async def _take(self, received: Received) -> None:
        """Keep a whole message with the webhook it owes."""
        owner = self._owner(received.to)
        queue = self._inflight.queue
        if owner is None:  # sold or suspended while its parts came
            self.unknown += 1
            await queue.drop_parts([(received.connector, key) for key in received.parts])
            return
        address = owner.phone_number if isinstance(owner, PhoneNumber) else owner.short_code
        opt_out = await self._optouts.apply_inbound(owner.account_sid, address, received.from_, received.text)
        message = self._message(received, owner.account_sid, address)
        if received.media or received.media_urls:
            message.media = await self._media.receive(
                owner.account_sid, message.sid, received.media, received.media_urls
            )
        message.traceparent = self._inflight.line.tracer.begin("")[0]
        owed = self._owe(message, owner, opt_out)
        flight = Flight(
            sid=message.sid,
            account=message.account_sid,
            status=Status.RECEIVED,
            land_ms=message.created_ms,
            record=codec.encode(message),
        )
        carrier_id = f"{CARRIER_ID_PREFIX}{received.carrier_id}:{received.from_}" if received.carrier_id else ""
        if not await queue.accept_inbound(
            flight, owed, received.connector, received.parts, carrier_id, received.marker
        ):
            self.duplicates += 1
            await self._media.drop(message.media)
            return
        self.received += 1
        if owed:
            self._inflight.owed(owed)
        self._inflight.landed()
        if opt_out is not None and opt_out.reply and can_be_answered(message.from_):
            self._confirm(message, opt_out)
        if received.missing:
            self._alerts.raise_(message.account_sid, MISSING_SEGMENT, resource_sid=message.sid)

    def _message(self, received: Received, account_sid: str, address: str) -> Message:
        now = self._clock.now_ms()
        text = _clean(received.text)
        segments = received.segments or segment.plan(text).count
        service = self._directory.service_of_sender(account_sid, address)
        message = Message(
            sid=new_sid(MESSAGE_MMS if received.media or received.media_urls else MESSAGE_SMS, now),
            account_sid=account_sid,
            direction=Direction.INBOUND,
            from_=received.from_,
            to=address,
            body=text,
            num_segments=segments,
            encoding=received.encoding,
            created_ms=now,
            updated_ms=now,
            sent_ms=now,
            messaging_service_sid=service.sid if service is not None else "",
            connector=received.connector,
        )
        if received.missing:
            message.error_code, message.error_message = MISSING_SEGMENT, describe(MISSING_SEGMENT).message
        rated = self._outbound.router.price(received.from_, inbound=True)
        if rated is not None:
            message.price, message.price_unit = amount(rated[0], segments), rated[1]
        return message

    def _owe(self, message: Message, owner: PhoneNumber | ShortCode, opt_out: OptOutResult | None) -> list[Owed]:
        """The webhook that the number, its application or its service asks for."""
        request = self.webhook_of(message.account_sid, owner, message.messaging_service_sid)
        if request is None:
            account = self._directory.account(message.account_sid)
            return [smpp_clients.owed_inbound(message)] if account is not None and account.smpp_system_id else []
        request.traceparent = message.traceparent
        if opt_out is not None:
            request.opt_out_type = opt_out.type
        return [
            Owed(
                sid=message.sid,
                account=message.account_sid,
                kind="inbound",
                host=host_of(request.url),
                request=msgspec.json.encode(request),
            )
        ]

    def webhook_of(self, account: str, owner: PhoneNumber | ShortCode, service_sid: str) -> InboundRequest | None:
        """Where a message to `owner` is announced: a service's own URL comes first (a service without one wants no
        webhook), unless it leaves it to its numbers; an application's URLs stand for the number's."""
        service = self._directory.service(service_sid) if service_sid else None
        if service is not None and not service.use_inbound_webhook_on_number:
            return _request(
                service.inbound_request_url, service.inbound_method, service.fallback_url, service.fallback_method
            )
        application_sid = owner.sms_application_sid if isinstance(owner, PhoneNumber) else ""
        application = self._directory.application(application_sid) if application_sid else None
        source = application if application is not None and application.account_sid == account else owner
        return _request(source.sms_url, source.sms_method, source.sms_fallback_url, source.sms_fallback_method)

    # -- opt-out ---------------------------------------------------------------------------------------------

    def _confirm(self, message: Message, opt_out: OptOutResult) -> None:
        """Answer the keyword. Next: trunkline.messaging.dispatch.Dispatcher.push"""
        reply = NewMessage(
            account_sid=message.account_sid,
            from_=message.to,
            to=message.from_,
            body=opt_out.reply,
            direction=Direction.OUTBOUND_REPLY,
            token=f"{message.sid}:opt-out",
            traceparent=message.traceparent,
            sid=derived_sid(MESSAGE_SMS, message.sid, "opt-out"),
            extra={OPT_OUT_REPLY: True},
        )
        try:
            _, written = self._outbound.accept(reply)
        except ApiError as refused:
            self._alerts.raise_(message.account_sid, refused.code or 0, resource_sid=message.sid, text=refused.message)
        else:
            asyncio.ensure_future(written).add_done_callback(_log_failure)


def _request(url: str, method: str, fallback_url: str, fallback_method: str) -> InboundRequest | None:
    if not url:
        return None
    return InboundRequest(url, method.upper(), fallback_url, fallback_method.upper())


def _clean(text: str) -> str:
    """The text without halves of surrogate pairs, which no JSON can hold."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _carriers(keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without the parts that accounts' own SMPP clients submit: those are no received messages."""
    return [key for key in keys if not key[0].startswith(smpp_clients.SCHEME)]


def _log_failure(future: "Future[Any]") -> None:
    if not future.cancelled() and future.exception() is not None and not isinstance(future.exception(), Exists):
        log.error("an inbound message's follow-up was not stored: %s", future.exception())
