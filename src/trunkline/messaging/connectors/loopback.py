"""No carrier at all: a simulated mobile network inside the process, for development, integration tests and the demo.

A message is split as on the air, taken at once, and lands after `delay_s`: at one of our own numbers, where it comes
in again part by part; or at a simulated phone (trunkline.testing.handsets), when there are some; or nowhere, answered
as if delivered. Then its receipts go out. What the sink does not keep is sent again, as a carrier would.

Numbers that fail, wherever they are: a destination that ends in 99 and one of the codes of `ENDINGS` meets that fate,
e.g. +1 555 993 0003 is unreachable (30003).
"""

import asyncio
import logging
from asyncio import Future
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from trunkline.messaging.connectors.base import (
    InboundPart,
    Outcome,
    Receipt,
    Rejected,
    Sink,
    Submission,
    Submitted,
    Unavailable,
)
from trunkline.messaging.connectors.gate import Gate
from trunkline.messaging.connectors.table import Context, Timer, Timers
from trunkline.settings import Loopback
from trunkline.sms import gsm7, segment
from trunkline.storage.written import Kept

MAX_TRIES: Final = 8
FIRST_RETRY_S: Final = 0.2
"""Wait before what was not kept is sent again; it doubles."""
MAX_AT_ONCE: Final = 500
"""Messages that land in one turn of the event loop."""


class Fate(msgspec.Struct, frozen=True):
    """How a message ends. An empty `state`: no receipt ever comes."""

    state: str
    error_code: int = 0


DELIVERED: Final = Fate("delivered")
LOST: Final = Fate("")
FATES: Final = {
    30003: Fate("expired", 30003),
    30004: Fate("undeliverable", 30004),
    30005: Fate("undeliverable", 30005),
    30006: Fate("undeliverable", 30006),
    30007: Fate("rejected", 30007),
    30008: Fate("unknown", 30008),
}
"""Twilio's error code -> the receipt that leads to it: unreachable, blocked, unknown handset, landline, filtered,
unknown error."""
ENDINGS: Final[dict[str, Fate | Outcome]] = {
    **{f"99{code}": fate for code, fate in FATES.items()},
    "9900000": LOST,
    "9921614": Rejected(21614, "simulated: not a mobile number"),
    "9920503": Unavailable("simulated: the network is down"),
}
"""Last seven digits of a destination -> what becomes of its messages: after a while, or already at the submit."""
_ENDING_DIGITS: Final = 7

log = logging.getLogger(__name__)


class Segment(msgspec.Struct, frozen=True):
    """One short message on the air."""

    source: str
    destination: str
    encoding: str
    """`gsm7` (unpacked septets in `octets`) or `ucs2` (UTF-16BE)."""
    octets: bytes
    part: int = 1
    total: int = 1
    reference: int = 0
    media_urls: Sequence[str] = ()

    @property
    def text(self) -> str:
        """What this part alone says."""
        return gsm7.decode(self.octets) if self.encoding == "gsm7" else self.octets.decode("utf-16-be", "replace")


class Phones(Protocol):
    """Simulated phones: trunkline.testing.handsets.Handsets."""

    def receive(self, segments: Sequence[Segment]) -> Fate:
        """A whole message reaches its destination."""


class _Air(msgspec.Struct):
    """A message under way to its destination."""

    at: float
    """When it lands, monotonic seconds."""
    ids: tuple[str, ...]
    segments: list[Segment]


class LoopbackConnector:
    """See the module."""

    def __init__(self, settings: Loopback, context: Context) -> None:
        self.name = settings.name
        self._settings = settings
        self._clock = context.clock
        self._timers = context.timers
        self._owns = context.owns
        self._gate = Gate(settings.window, settings.mps, context.clock.monotonic())
        self.phones: Phones | None = None
        """Where messages to foreign numbers go."""
        self._sink: Sink | None = None
        self._wake: Callable[[], None] = lambda: None
        self._answers: list[tuple[Submission, Outcome]] = []
        self._air: deque[_Air] = deque()
        self._waiting = 0
        """Messages taken whose receipts are not kept yet."""
        self._timer: Timer | None = None
        self._pace_timer: Timer | None = None
        self._running = False
        self._landed = asyncio.Event()
        self._reference = 0
        self._sent = 0

    # -- base.Connector -------------------------------------------------------------------------------------

    def capacity(self) -> int:
        """See `base.Connector`."""
        if not self._running:
            return 0
        room = self._gate.room(self._clock.monotonic())
        if not room:
            self._wake_later()
        return max(0, min(room, self._settings.max_waiting - self._waiting))

    def submit(self, submission: Submission) -> None:
        """See `base.Connector`."""
        if not self._answers:
            asyncio.get_running_loop().call_soon(self._answer)
        self._gate.took(submission.message.num_segments, self._clock.monotonic())
        try:
            outcome = self._take(submission)
        except Exception as error:
            log.exception("%s: %s could not be sent", self.name, submission.message.sid)
            outcome = Rejected(30008, f"not sent: {error}"[:200])
        self._answers.append((submission, outcome))

    def start(self, sink: Sink, wake: Callable[[], None]) -> None:
        """See `base.Connector`."""
        self._sink = sink
        self._wake = wake
        self._running = True
        wake()

    async def stop(self, grace_s: float) -> None:
        """See `base.Connector`. What is on the air lands now, without its delay."""
        self._running = False
        self._answer()
        for timer in (self._timer, self._pace_timer):
            if timer is not None:
                timer.cancel()
        while self._air:
            self._land(self._air.popleft())
        self._landed.clear()
        if self._waiting:
            try:
                await asyncio.wait_for(self._landed.wait(), grace_s)
            except TimeoutError:
                log.warning("%s: %d messages have not landed", self.name, self._waiting)
        self._sink = None

    def health(self) -> tuple[bool, str]:
        """See `base.Connector`."""
        if not self._running:
            return False, "stopped"
        return True, f"up (simulated), {self._waiting} on the air"

    # -- out ------------------------------------------------------------------------------------------------

    def _take(self, submission: Submission) -> Outcome:
        message = submission.message
        if not self._running:
            return Unavailable("the connector is not running", burns_attempt=False)
        if self._waiting >= self._settings.max_waiting:
            return Unavailable("too many messages are on the air", burns_attempt=False, retry_after_s=FIRST_RETRY_S)
        outcome = ENDINGS.get(message.to[-_ENDING_DIGITS:])
        if isinstance(outcome, Rejected | Unavailable):
            return outcome
        urls = tuple(item.url for item in message.media if item.url)
        segments = self._segments(submission.sender, message.to, message.body, urls)
        ids = tuple([f"{message.sid}-{part.part}" for part in segments])
        self._waiting += 1
        self._air.append(_Air(self._clock.monotonic() + self._settings.delay_s, ids, segments))
        if self._timer is None:
            self._timer = self._later(self._settings.delay_s, self._due)
        return Submitted(ids)

    def _answer(self) -> None:
        answers, self._answers = self._answers, []
        for submission, outcome in answers:
            self._gate.answered()
            try:
                submission.done(outcome)
            except Exception:
                log.exception("%s: the outcome of %s was not taken", self.name, submission.message.sid)
        if answers and self._running:
            self._wake()

    def _segments(self, source: str, destination: str, text: str, media_urls: Sequence[str]) -> list[Segment]:
        plan = segment.plan(text)
        self._reference = (self._reference + 1) & 0xFF
        return [
            Segment(
                source,
                destination,
                plan.encoding,
                octets,
                part,
                plan.count,
                self._reference,
                media_urls if part == 1 else (),
            )
            for part, octets in enumerate(plan.segments, 1)
        ]

    # -- landing --------------------------------------------------------------------------------------------

    def _due(self) -> None:
        """Land what is due (the delay is the same for all, so the air is in order), then sleep until the next."""
        self._timer = None
        now = self._clock.monotonic()
        for _ in range(MAX_AT_ONCE):
            if not self._air or self._air[0].at > now:
                break
            self._land(self._air.popleft())
        if self._air:
            self._timer = self._later(max(0.0, self._air[0].at - now), self._due)

    def _land(self, air: _Air) -> None:
        first = air.segments[0]
        fate = ENDINGS.get(first.destination[-_ENDING_DIGITS:])
        if isinstance(fate, Fate):
            self._report(air, fate)
        elif self._settings.reply and self._owns(first.destination):
            parts = self._inbound(air.segments, air.ids)
            self._keep(parts, 1, lambda kept: self._report(air, DELIVERED if kept else FATES[30003]))
        else:
            self._report(air, self.phones.receive(air.segments) if self.phones is not None else DELIVERED)

    def _report(self, air: _Air, fate: Fate) -> None:
        if not fate.state or not self._settings.receipts:
            self._done()
            return
        stamp = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).strftime("%y%m%d%H%M")
        error = str(fate.error_code or "")
        receipts = [Receipt(self.name, one, fate.state, error, fate.error_code, stamp) for one in air.ids]
        self._keep(receipts, 1, lambda kept: self._done())

    def _done(self) -> None:
        full = self._waiting >= self._settings.max_waiting
        self._waiting -= 1
        if full and self._running:
            self._wake()
        if not self._waiting:
            self._landed.set()

    # -- in -------------------------------------------------------------------------------------------------

    def originate(self, source: str, destination: str, text: str, media_urls: Sequence[str] = ()) -> "Future[bool]":
        """A phone sends us a message; the future says whether it was kept, at last."""
        self._sent += 1
        segments = self._segments(source, destination, text, media_urls)
        ids = [f"{self.name}-{self._clock.now_ms():x}-{self._sent}-{part.part}" for part in segments]
        future: Future[bool] = asyncio.get_running_loop().create_future()

        def told(kept: bool) -> None:
            if not future.done():
                future.set_result(kept)

        self._keep(self._inbound(segments, ids), 1, told)
        return future

    def _inbound(self, segments: Sequence[Segment], ids: Sequence[str]) -> list[InboundPart]:
        return [
            InboundPart(
                connector=self.name,
                from_=part.source,
                to=part.destination,
                text=part.text,
                encoding=part.encoding,
                part=part.part,
                total=part.total,
                reference=part.reference if part.total > 1 else -1,
                media_urls=part.media_urls,
                carrier_id=carrier_id,
            )
            for part, carrier_id in zip(segments, ids, strict=True)
        ]

    def _keep(self, items: Sequence[Receipt | InboundPart], attempt: int, then: Callable[[bool], Any]) -> None:
        """Hand items to the sink, again and again until it keeps them; `then` is told whether it did."""
        left = len(items)
        refused: list[Receipt | InboundPart] = []

        def told(item: Receipt | InboundPart, future: Kept) -> None:
            nonlocal left
            if future.cancelled() or future.exception() is not None:
                refused.append(item)
            left -= 1
            if not left:
                self._settle(refused, attempt, then)

        for item in items:
            future = self._offer(item)
            if future.done():
                told(item, future)
            else:
                future.add_done_callback(partial(told, item))

    def _offer(self, item: Receipt | InboundPart) -> Kept:
        """The sink's future; a failed one when it raises or is gone."""
        try:
            if self._sink is None:
                raise ConnectionError("the connector has stopped")
            return self._sink.receipt(item) if isinstance(item, Receipt) else self._sink.inbound(item)
        except Exception as error:
            failed: Future[Any] = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            return failed

    def _settle(self, refused: Sequence[Receipt | InboundPart], attempt: int, then: Callable[[bool], Any]) -> None:
        if not refused:
            then(True)
        elif attempt >= MAX_TRIES or self._sink is None:
            log.warning("%s: %d parts or receipts were not kept", self.name, len(refused))
            then(False)
        else:
            self._later(FIRST_RETRY_S * 2.0 ** (attempt - 1), lambda: self._keep(refused, attempt + 1, then))

    # -- timers ---------------------------------------------------------------------------------------------

    def _later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        timers: Timers = self._timers or asyncio.get_running_loop()
        return timers.call_later(delay_s, callback)

    def _wake_later(self) -> None:
        wait = self._gate.wait_s(self._clock.monotonic())
        if wait and self._pace_timer is None:
            self._pace_timer = self._later(wait, self._woken)

    def _woken(self) -> None:
        self._pace_timer = None
        if self._running:
            self._wake()
