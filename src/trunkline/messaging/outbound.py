"""The outbound line: accept a message, choose its way, and settle what the carrier says.

`accept` is one transaction: record, idempotency row, lane and first callback. Then the dispatcher claims and submits,
and `settled` takes the carrier's answer. Every status change goes by compare-and-set, with its callback in the same
write.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from trunkline.accounts.callbacks import host_of
from trunkline.accounts.directory import Directory
from trunkline.inflight.store import IllegalTransition, Inflight, Live
from trunkline.messaging import smpp_clients
from trunkline.messaging.connectors.base import Outcome, Rejected, Submitted, Unavailable
from trunkline.messaging.lanes import lane_name, lane_parts
from trunkline.messaging.routing import Router, amount
from trunkline.model.errors import ApiError, describe
from trunkline.model.message import Attempt, Direction, MediaItem, Message, SegmentState, Status
from trunkline.model.octets import fitted
from trunkline.model.sid import new_sid
from trunkline.settings import Loopback, Settings
from trunkline.settings.connectors import Twilio
from trunkline.sms import segment
from trunkline.storage.queue import Advance, Owed, Queue, Replay
from trunkline.storage.written import when_done
from trunkline.webhooks import params as webhook_params

log = logging.getLogger(__name__)

QUEUE_OVERFLOW = 30001
ACCOUNT_SUSPENDED = 30002
UNKNOWN_ERROR = 30008
VALIDITY_EXPIRED = 30036
OPTED_OUT = 21610
NO_ROUTE = 21408
MEDIA_LANE = "~media"
"""Stands for the connector in the lanes of messages whose files are not fetched yet; no connector is named so."""
OPT_OUT_REPLY = "opt_out_reply"
"""Key of `extra` that marks the confirmation of an opt-out."""
REFUSED_RETRY_S = 5
"""What Retry-After says while nothing new is taken on."""
MAX_TRIED = 20
"""Attempts kept in a message's record; older ones are dropped."""


class NewMessage(msgspec.Struct, kw_only=True):
    """A message somebody wants sent, already checked for form: numbers are E.164, short codes or sender ids."""

    account_sid: str
    from_: str
    to: str
    body: str = ""
    direction: Direction = Direction.OUTBOUND_API
    messaging_service_sid: str = ""
    status_callback: str = ""
    application_sid: str = ""
    media: Sequence[MediaItem] = ()
    validity_s: int = 0
    smart_encoded: bool = False
    fallback_from: str = ""
    token: str = ""
    traceparent: str = ""
    """As the request brought it, or of the work that asks for the message; or empty."""
    sid: str = ""
    """Given when the message already has one (it was scheduled)."""
    created_ms: int = 0
    """When it was made (it was scheduled); 0: now."""
    announce: bool = False
    """Whether a `queued` callback is owed too (Messaging Services, scheduled messages)."""
    extra: Mapping[str, Any] = {}


class Outbound:
    """See the module."""

    def __init__(
        self,
        settings: Settings,
        inflight: Inflight,
        directory: Directory,
        router: Router,
        opted_out: Callable[[Message], bool],
    ) -> None:
        self._settings = settings.messaging
        self._inflight = inflight
        self._clock = inflight.clock
        self._directory = directory
        self.router = router
        self._opted_out = opted_out
        self.push: Callable[[Live], None] = lambda live: None
        """The dispatcher's entry for committed messages."""
        self.fetch_media: Callable[[Live], None] = lambda live: None
        """Fetches the files of a committed message, then calls `media_ready` or `media_failed`."""
        self.reserve: Callable[[str, int], bool] = lambda lane, segments: False
        """Whether a message of a lane may skip the line; then `submit_now` or `release` is called for it."""
        self.leaves: Callable[[str], bool] = lambda sid: False
        """Whether a message's partition is about to be another node's: that one submits what is accepted now."""
        self.submit_now: Callable[[Live], None] = lambda live: None
        self.release: Callable[[str], None] = lambda connector: None
        self.push_stored: Callable[[str, float], None] = lambda lane, due_in_s: None
        self.submitted: Callable[[Live], None] = lambda live: None
        """Told once a message has carrier ids (receipts may have come before)."""
        self.refuse = ""
        """Why new messages are refused just now (the disk is nearly full), or empty."""
        self.avoid: frozenset[str] = frozenset()
        """Connectors known to be down: taken only where no other goes."""
        self.waiting: dict[str, int] = {}
        """Segments accepted and not yet claimed, by account and sender (queue overflow)."""
        self.waiting_elsewhere: dict[str, int] = {}
        """The same at the other nodes of a cluster, as far as they told."""
        self._kinds = {c.name: c for c in settings.connectors}
        inflight.repeated = self._repeated

    # -- accept ----------------------------------------------------------------------------------------------

    def accept(
        self, new: NewMessage, complete: Callable[[Message], Replay | None] | None = None
    ) -> tuple[Message, Awaitable[None]]:
        """Take a message on. It is ours when the awaitable is done; before that nothing may be answered.

        `complete` builds the idempotency row to be written in the same commit.
        Raises ApiError: 21610 opted out, 21408 no route, 21611 queue full, 21617 too many segments, 20503 no room.
        Next: trunkline.messaging.dispatch.Dispatcher.push
        """
        if self.refuse and new.direction == Direction.OUTBOUND_API and not new.created_ms:
            self.check_room()  # replies and scheduled messages belong to what was taken on before
        now = self._clock.now_ms()
        message = self._message(new, now)
        if self._refuses(message):
            raise ApiError.of(OPTED_OUT)
        route = self._choose(message)
        message.route, message.connector = route.name, route.connector
        if message.media:
            self._link_media(message)
        self._check_queue(message)
        lane = lane_name(MEDIA_LANE if message.media else route.connector, message.account_sid, message.from_)
        replay = complete(message) if complete else None
        owed = [status_callback(message, "queued", 0)] if new.announce and message.status_callback else ()
        if not (message.media or self.leaves(message.sid)) and self.reserve(lane, message.num_segments):
            # Nobody is before it: the acceptance and the intent to submit are one commit.
            live, written = self._inflight.accept(message, Status.SENDING, owed=owed, replay=replay)
            when_done(written, lambda future: self._accepted_to_go(live, future))
            return message, written
        status = Status.ACCEPTED if message.messaging_service_sid else Status.QUEUED
        live, written = self._inflight.accept(message, status, lane=lane, due_ms=now, owed=owed, replay=replay)
        self._count(message, message.num_segments)
        when_done(written, lambda future: self._accepted(live, future))
        return message, written

    def check_room(self) -> None:
        """Raises ApiError 20503 while nothing new is taken on."""
        if self.refuse:
            raise ApiError.of(20503, headers=(("Retry-After", str(REFUSED_RETRY_S)),))

    def _accepted_to_go(self, live: Live, future: "asyncio.Future[Any]") -> None:
        if future.cancelled() or future.exception() is not None:
            self.release(live.message.connector)
        else:
            self.submit_now(live)

    def _accepted(self, live: Live, future: "asyncio.Future[Any]") -> None:
        if future.cancelled() or future.exception() is not None:
            self._count(live.message, -live.message.num_segments)
        elif live.message.media:
            self.fetch_media(live)
        else:
            self.push(live)

    def _refuses(self, message: Message) -> bool:
        """Whether the recipient wants nothing from this sender; the confirmation of an opt-out still goes."""
        return self._opted_out(message) and OPT_OUT_REPLY not in message.extra

    def _link_media(self, message: Message) -> None:
        """A carrier that takes text only gets the addresses of the files in it. Raises 21617."""
        if isinstance(self._kinds.get(message.connector), Twilio | Loopback):
            return
        text = "\n".join(filter(None, [message.body, *(item.url for item in message.media)]))
        plan = segment.plan(text, smart_encoding=message.smart_encoded)
        if plan.count > self._settings.max_segments:
            raise ApiError.of(21617)
        message.sent_text = plan.text
        message.num_segments, message.encoding = plan.count, plan.encoding

    def media_ready(self, live: Live) -> None:
        """Its files are stored: on to the carrier. Next: trunkline.messaging.dispatch.Dispatcher.push"""
        message = live.message
        if live.status not in (Status.QUEUED, Status.ACCEPTED):
            return  # canceled meanwhile
        lane = lane_name(message.connector, message.account_sid, message.from_)
        written = self._inflight.advance(live, live.status, lane=lane, due_ms=message.created_ms)
        when_done(written, lambda future: self._media_kept(live, future))

    def _media_kept(self, live: Live, future: "asyncio.Future[Any]") -> None:
        if not future.cancelled() and future.exception() is None and future.result():
            self.push(live)

    def media_failed(self, live: Live, error_code: int) -> None:
        """A file could not be fetched: the message fails, unsent."""
        if live.status in (Status.QUEUED, Status.ACCEPTED):
            self._count(live.message, -live.message.num_segments)
            self._fail(live, error_code)

    def draft(self, new: NewMessage) -> Message:
        """The record of a message that is not accepted yet (it waits for its SendAt). Raises 20503, 21617."""
        self.check_room()
        return self._message(new, self._clock.now_ms())

    def _message(self, new: NewMessage, now: int) -> Message:
        plan = segment.plan(new.body, smart_encoding=new.smart_encoded)
        if plan.count > self._settings.max_segments:
            raise ApiError.of(21617)
        validity_ms = int(1000 * min(new.validity_s or self._settings.validity_s, self._settings.validity_s))
        return Message(
            sid=new.sid or new_sid("MM" if new.media else "SM", now),
            account_sid=new.account_sid,
            direction=new.direction,
            from_=new.from_,
            to=new.to,
            body=plan.text if new.smart_encoded else new.body,
            num_segments=plan.count,
            encoding=plan.encoding,
            created_ms=new.created_ms or now,
            updated_ms=now,
            messaging_service_sid=new.messaging_service_sid,
            status_callback=new.status_callback,
            application_sid=new.application_sid,
            valid_until_ms=now + validity_ms,
            token=new.token,
            traceparent=new.traceparent,
            fallback_from=new.fallback_from,
            media=list(new.media),
            smart_encoded=new.smart_encoded,
            extra=dict(new.extra),
        )

    def _choose(self, message: Message) -> Any:
        """The first route; a number bound to a connector leaves by it. Raises 21408."""
        candidates = self._candidates(message)
        if not candidates:
            raise ApiError.of(NO_ROUTE, to=message.to)
        return candidates[0]

    def _candidates(self, message: Message) -> list[Any]:
        candidates = self.router.candidates(message.account_sid, message.from_, message.to, message.sid)
        number = self._directory.number(message.from_)
        if number is not None and number.connector:
            bound = [route for route in candidates if route.connector == number.connector]
            return bound or candidates
        if self.avoid and len(candidates) > 1:
            candidates = sorted(candidates, key=lambda route: route.connector in self.avoid)
        return candidates

    def detour(self, message: Message) -> Any:
        """A route by a connector that is not down, or None."""
        return next((route for route in self._candidates(message) if route.connector not in self.avoid), None)

    # -- queue length ----------------------------------------------------------------------------------------

    def _check_queue(self, message: Message) -> None:
        """Twilio takes at most four hours' worth of a sender's rate (21611)."""
        rate = self.rate_of(message.account_sid, message.from_)
        if rate <= 0:
            return
        limit = max(1.0, rate * self._settings.queue_s)
        key = message.account_sid + message.from_
        if self.waiting.get(key, 0) + self.waiting_elsewhere.get(key, 0) >= limit:
            raise ApiError.of(21611, from_=message.from_)

    def _count(self, message: Message, segments: int) -> None:
        key = message.account_sid + message.from_
        left = self.waiting.get(key, 0) + segments
        if left > 0:
            self.waiting[key] = left
        else:
            self.waiting.pop(key, None)

    def rate_of(self, account: str, sender: str) -> float:
        """A sender's segments a second: its own setting, else the default of its kind; 0: no limit."""
        number = self._directory.owned_sender(account, sender)
        own = float(getattr(number, "messages_per_second", 0) or 0)
        if own:
            return own
        if not sender.startswith("+"):
            return float(self._settings.short_code_mps if sender.isdigit() else self._settings.alpha_mps)
        toll_free = getattr(number, "type", "") == "tollfree"
        return float(self._settings.toll_free_mps if toll_free else self._settings.long_code_mps)

    def pace_of(self, account: str) -> float:
        """The segments a second of all of an account's senders together; 0: no limit."""
        found = self._directory.account(account)
        return float(found.messages_per_second) if found is not None else 0.0

    # -- dispatch --------------------------------------------------------------------------------------------

    def allow(self, live: Live) -> bool:
        """The last look before the submit: what has changed since the accept settles the message here."""
        message = live.message
        self._count(message, -message.num_segments)
        account = self._directory.account(message.account_sid)
        if account is None or account.status != "active":
            self._fail(live, ACCOUNT_SUSPENDED)
        elif message.valid_until_ms and message.valid_until_ms <= self._clock.now_ms():
            self._fail(live, VALIDITY_EXPIRED)
        elif self._refuses(message):
            self._fail(live, OPTED_OUT)
        else:
            return True
        return False

    def settled(self, live: Live, outcome: Outcome) -> None:
        """What the carrier said. Next: trunkline.messaging.receipts.Receipts.apply"""
        message = live.message
        live.attempts += 1
        if isinstance(outcome, Submitted):
            self._note(live, "submitted", "", outcome.trace)
            self._sent(live, outcome)
        elif isinstance(outcome, Rejected):
            self._note(live, "rejected", outcome.carrier_error)
            if outcome.try_elsewhere and self._elsewhere(live, 0.0):
                return
            message.carrier_error = outcome.carrier_error
            if not self._other_sender(live):
                self._fail(live, outcome.error_code)
        elif outcome.in_doubt:
            self._doubt(live, outcome)
        else:
            self._again(live, outcome)

    def _note(self, live: Live, outcome: str, error: str, trace: str = "") -> None:
        message = live.message
        if outcome == "submitted" and not message.tried:
            if trace:
                message.extra["trace"] = trace
            return  # the common case is told by connector, sent_ms and the segments' ids
        attempt = Attempt(self._clock.now_ms(), message.connector, message.from_, outcome, error, trace)
        message.tried = [*message.tried[-MAX_TRIED + 1 :], attempt]

    def _sent(self, live: Live, outcome: Submitted) -> None:
        message = live.message
        now = self._clock.now_ms()
        message.sent_ms = now
        message.segments = [SegmentState(id=carrier_id) for carrier_id in outcome.ids]
        self._price(message)
        status = Status.DELIVERED if outcome.final else Status.SENT
        owed = self.owe_status(live, "sent")
        if outcome.final:
            owed += self.owe_status(live, "delivered")
        land_ms = now if outcome.final else now + self._receipt_window_ms(message.connector)
        pairs = [(message.connector, carrier_id) for carrier_id in outcome.ids if carrier_id]
        self._inflight.advance(live, status, land_ms=land_ms, owed=owed, carrier_ids=pairs)
        self.submitted(live)

    def _repeated(self, live: Live, step: Advance) -> None:
        """A step was written at last that the store could not write when it was due."""
        if step.carrier_ids:
            self.submitted(live)
        if step.lane:
            self.push_stored(step.lane, max(0.0, (step.due_ms - self._clock.now_ms()) / 1000))

    def _receipt_window_ms(self, connector: str) -> int:
        own = self._kinds.get(connector)
        if own is not None and not own.receipts:
            return 0
        return int(1000 * ((own.receipt_window_s if own else 0) or self._settings.receipt_window_s))

    def _price(self, message: Message) -> None:
        rated = self.router.price(message.to)
        if rated is not None:
            message.price, message.price_unit = amount(rated[0], message.num_segments), rated[1]
        for route in self.router.routes:
            if route.name == message.route:
                if route.price is not None:
                    message.price = amount(route.price, message.num_segments)
                    message.price_unit = message.price_unit or "USD"
                if route.cost:
                    message.cost = amount(route.cost, message.num_segments)
                return

    def _doubt(self, live: Live, outcome: Unavailable) -> None:
        """The carrier may have it: the declared policy decides (DESIGN: in doubt)."""
        message = live.message
        message.in_doubt = True
        self._note(live, "in-doubt", outcome.reason)
        own = self._kinds.get(message.connector)
        policy = (own.in_doubt if own else "") or self._settings.in_doubt
        if policy == "prefer-loss":
            now = self._clock.now_ms()
            message.sent_ms = now
            self._price(message)
            window = self._receipt_window_ms(message.connector)
            self._inflight.advance(live, Status.SENT, land_ms=now + window, owed=self.owe_status(live, "sent"))
        elif live.attempts >= self._settings.max_attempts:
            message.carrier_error = outcome.reason
            self._fail(live, UNKNOWN_ERROR)
        else:
            self._requeue(live, message.connector, 0.0)

    def _again(self, live: Live, outcome: Unavailable) -> None:
        """Not taken: pacing waits its turn, trouble tries another route, then again later, then gives up."""
        message = live.message
        if not outcome.burns_attempt:
            live.attempts -= 1
            self._requeue(live, message.connector, outcome.retry_after_s)
            return
        self._note(live, "unavailable", outcome.reason)
        if self._elsewhere(live, 0.0):
            return
        if live.attempts >= self._settings.max_attempts:
            message.carrier_error = outcome.reason
            if not self._other_sender(live):
                self._fail(live, UNKNOWN_ERROR)
            return
        wait = min(self._settings.retry_first_s * 2 ** (live.attempts - 1), self._settings.retry_longest_s)
        first = self._candidates(message)
        connector = first[0].connector if first else message.connector
        self._requeue(live, connector, max(outcome.retry_after_s, wait * random.uniform(0.75, 1.25)))

    def _elsewhere(self, live: Live, wait_s: float) -> bool:
        """Hand the message to a route that has not been tried in this round."""
        message = live.message
        tried = {attempt.connector for attempt in message.tried} | {message.connector}
        for route in self._candidates(message):
            if route.connector not in tried:
                message.route = route.name
                self._requeue(live, route.connector, wait_s)
                return True
        return False

    def _other_sender(self, live: Live) -> bool:
        """A second sender (FallbackFrom) gets its own round."""
        message = live.message
        if not message.fallback_from or message.fallback_from == message.from_:
            return False
        message.from_, message.fallback_from = message.fallback_from, ""
        live.attempts = 0
        candidates = self._candidates(message)
        if not candidates:
            return False
        message.route = candidates[0].name
        self._requeue(live, candidates[0].connector, 0.0)
        return True

    def _requeue(self, live: Live, connector: str, wait_s: float) -> None:
        message = live.message
        message.connector = connector
        lane = lane_name(connector, message.account_sid, message.from_)
        due_ms = self._clock.now_ms() + int(wait_s * 1000) if wait_s else message.created_ms
        self._count(message, message.num_segments)
        written = self._inflight.advance(live, Status.QUEUED, lane=lane, due_ms=due_ms)
        when_done(written, lambda _: self.push_stored(lane, wait_s))

    def _fail(self, live: Live, error_code: int) -> None:
        message = live.message
        message.error_code = error_code
        message.error_message = describe(error_code).message
        try:
            self._inflight.advance(
                live, Status.FAILED, land_ms=self._clock.now_ms(), owed=self.owe_status(live, "failed")
            )
        except IllegalTransition:
            return  # a receipt has ended it already

    # -- customer's own changes ------------------------------------------------------------------------------

    async def cancel(self, live: Live) -> bool:
        """Stop a message that has not gone out yet; False when it is too late."""
        if live.status not in (Status.QUEUED, Status.ACCEPTED, Status.SCHEDULED):
            return False
        segments = live.message.num_segments
        owed = self.owe_status(live, "canceled")
        done = await self._inflight.advance(live, Status.CANCELED, land_ms=self._clock.now_ms(), owed=owed)
        if done:
            self._count(live.message, -segments)
        return done

    # -- callbacks -------------------------------------------------------------------------------------------

    def owe_status(self, live: Live, status: str) -> list[Owed]:
        """The status callback that a step owes, or nothing if nobody asked for one."""
        message = live.message
        callback = message.status_callback
        if not callback or (callback.startswith(smpp_clients.SCHEME) and not smpp_clients.wants(callback, status)):
            return []
        live.next_seq += 1
        return [status_callback(message, status, live.next_seq)]

    async def recount(self) -> None:
        """Count what waits anew: parts of the queue have come or gone."""
        waiting: dict[str, int] = {}
        for lane, count, _ in await self._inflight.queue.lanes():
            _, account, sender = lane_parts(lane)
            waiting[account + sender] = waiting.get(account + sender, 0) + count
        self.waiting = waiting

    # -- recovery --------------------------------------------------------------------------------------------

    async def recover(self, queue: Queue | None = None) -> int:
        """Settle the doubt about what was being submitted when the last process ended; returns how many. Of `queue`,
        a partition of ours, only what is in that."""
        queue = queue or self._inflight.queue
        await self.recount()
        after, found = 0, 0
        while flights := await queue.in_state("message", Status.SENDING, after, 500):
            for flight in flights:
                after = flight.id
                if self._inflight.in_hand(flight.id):
                    continue  # being submitted by this process: its outcome will come
                live = self._inflight.adopt(flight)
                if live.status is not Status.SENDING or live.rev != flight.rev:
                    continue  # its outcome was written while this was read
                try:
                    self._doubt(live, Unavailable("the process ended between the submit and its answer", in_doubt=True))
                except IllegalTransition as error:  # one message's fault must not keep the others lying
                    log.error("a message in doubt stays as it is: %s", error)
                    continue
                found += 1
            await asyncio.sleep(0)
        return found


def status_callback(message: Message, status: str, seq: int) -> Owed:
    """The owed callback for a status; self-contained, so that it can be delivered after the message has landed."""
    request = {
        "url": message.status_callback,
        "params": webhook_params.message_status(message, status),
        "token": f"{message.token or message.sid}:{status}",
    }
    if message.traceparent:
        request["traceparent"] = message.traceparent
    return Owed(
        sid=message.sid,
        account=message.account_sid,
        kind=smpp_clients.RECEIPT if message.status_callback.startswith(smpp_clients.SCHEME) else "status",
        host=host_of(message.status_callback),
        seq=seq,
        request=fitted(orjson.dumps(request)),
    )
