"""Messages in a learner: the pipeline that serves them, over a queue of its own, with nothing behind it.

What was accepted in production is accepted here, with the same SID and time; routes are chosen, the lane dispatches it,
the connector encodes and submits it to the sink, and its answer is settled, callbacks and all, by the very code that
does so in production. Receipts follow when production has committed them.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import orjson

from trunkline.inflight.store import Inflight, Live
from trunkline.learning import views
from trunkline.learning.wire import Step
from trunkline.messaging.connectors.base import Connector, InboundPart, Receipt
from trunkline.messaging.dispatch import Dispatcher
from trunkline.messaging.outbound import NewMessage, Outbound
from trunkline.messaging.receipts import Receipts
from trunkline.model import message as codec
from trunkline.model.account import Account
from trunkline.model.message import Message
from trunkline.model.numbers import PhoneNumber
from trunkline.settings import Settings
from trunkline.storage.queue import Advance, Queue

ENDED: Final = frozenset({"sent", "delivered", "undelivered", "failed", "read"})
"""Statuses that production tells of."""


class SetClock:
    """The time at which production did what is being done here."""

    def __init__(self) -> None:
        self.now = 0

    def now_ms(self) -> int:
        """See `model.clock.Clock`."""
        return self.now

    def monotonic(self) -> float:
        """See `model.clock.Clock`."""
        return self.now / 1000


class Known:
    """The directory, as far as the work tells: accounts are active, numbers are bound as they were."""

    def __init__(self) -> None:
        self.bound = ""

    def account(self, sid: str) -> Account:
        """What was accepted was an active account's."""
        return Account(sid=sid, account_sid=sid)

    def number(self, e164: str) -> PhoneNumber | None:
        """The sender of the message that is followed."""
        return PhoneNumber(sid="", account_sid="", phone_number=e164, connector=self.bound) if self.bound else None

    def owned_sender(self, _account: str, _address: str) -> None:
        """No sender has a pace here."""


class Nowhere:
    """Where connectors put what they hear: there is nobody to hear from."""

    def receipt(self, receipt: Receipt) -> Any:
        """Forget it."""
        return _done()

    def inbound(self, part: InboundPart) -> Any:
        """Forget it."""
        return _done()


class Messages:
    """See the module. Follows one message at a time."""

    def __init__(
        self, settings: Settings, connectors: Mapping[str, Connector], queue: Queue, clock: SetClock, router: Any
    ) -> None:
        self._clock = clock
        self._known = Known()
        known: Any = self._known
        nowhere: Any = None
        self._inflight = Inflight(queue, clock)
        self._inflight.watch = self._stepped
        self._outbound = Outbound(settings, self._inflight, known, router, lambda message: False)
        self._receipts = Receipts(self._inflight, self._outbound, nowhere)
        self._dispatcher = dispatcher = Dispatcher(
            self._inflight, connectors, rate_of=self._outbound.rate_of, pace_of=self._outbound.pace_of,
            allow=self._outbound.allow, outcome=self._outbound.settled,
        )  # fmt: skip
        self._outbound.push = dispatcher.push
        self._outbound.reserve = dispatcher.reserve
        self._outbound.submit_now = dispatcher.submit_now
        self._outbound.release = dispatcher.release
        self._outbound.push_stored = dispatcher.push_stored
        self._outbound.fetch_media = self._outbound.media_ready
        self._connectors = connectors
        self._committed: Advance | None = None
        self._moved = asyncio.Event()

    def start(self) -> None:
        """Connect to the sinks."""
        for name, connector in self._connectors.items():
            connector.start(Nowhere(), lambda name=name: self._dispatcher.wake(name))  # type: ignore[misc]

    @property
    def ready(self) -> bool:
        """Whether all connectors can send."""
        return all(connector.capacity() > 0 for connector in self._connectors.values())

    def _stepped(self, message: Message, step: Advance) -> None:
        if str(step.status) in ENDED:
            self._committed = step
            self._moved.set()

    async def follow(self, item: Step, submitted_ms: int) -> dict[str, Any] | None:
        """What becomes of a message here, aspect by aspect; None when its beginning was not seen. Raises what the
        pipeline raises."""
        record = codec.decode(item.record)
        live = self._inflight.cached(record.sid)
        self._committed = None
        self._moved.clear()
        if live is None:
            if item.status not in ("sent", "failed") and not (item.status == "delivered" and not _told(record)):
                return None
            self._begin(item, record, submitted_ms)
        elif not self._hear(live, record):
            return None
        step = await self._next()
        assert step.record is not None
        return views.message(orjson.loads(step.record), str(step.status), [one.request for one in step.owed])

    async def _next(self) -> Advance:
        """The step that tells what became of it."""
        await self._moved.wait()
        assert self._committed is not None
        return self._committed

    def _begin(self, item: Step, record: Message, submitted_ms: int) -> None:
        self._clock.now = record.created_ms
        self._known.bound = item.bound
        self._outbound.avoid = frozenset(item.avoid)
        began_ms = max(record.created_ms, record.send_at_ms)
        first = record.tried[0].sender if record.tried and record.tried[0].sender else record.from_
        self._outbound.accept(
            NewMessage(
                account_sid=record.account_sid,
                from_=first,
                to=record.to,
                body=record.body,
                direction=record.direction,
                messaging_service_sid=record.messaging_service_sid,
                status_callback=record.status_callback,
                application_sid=record.application_sid,
                media=record.media,
                validity_s=max(1, round((record.valid_until_ms - began_ms) / 1000)) if record.valid_until_ms else 0,
                smart_encoded=record.smart_encoded,
                fallback_from=record.from_ if first != record.from_ else record.fallback_from,
                token=record.token,
                sid=record.sid,
                created_ms=record.created_ms,
                extra={name: value for name, value in record.extra.items() if name != "trace"},
            )
        )
        self._clock.now = submitted_ms or record.created_ms

    def _hear(self, live: Live, record: Message) -> bool:
        """Give the receipts that production has applied since; whether there are any."""
        heard = False
        for mine, theirs in zip(live.message.segments, record.segments, strict=False):
            if theirs.state and theirs.state != mine.state:
                heard = True
                self._receipts.apply(
                    Receipt(live.message.connector, mine.id, theirs.state, theirs.error, record.error_code)
                )
        return heard and live.status not in ("queued", "sending")


def _told(record: Message) -> bool:
    """Whether receipts have been applied."""
    return any(segment.state for segment in record.segments)


def _done() -> "asyncio.Future[None]":
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future
