"""Delivery receipts: from a carrier's word to the message's status.

A receipt is matched by (connector, carrier id). It may come before the submit's answer: then it is parked durably and
applied when the id becomes known. It may come after the message has landed: then it appends a revision to the
post-flight document and still owes its callback. The returned future is done after the commit, and only then does the
connector acknowledge the carrier.
"""

import asyncio
import logging
from asyncio import Future
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any

import msgspec
import orjson

from trunkline.inflight.store import Inflight, Live
from trunkline.messaging.connectors.base import Receipt
from trunkline.messaging.outbound import Outbound, status_callback
from trunkline.model.errors import describe
from trunkline.model.message import TRANSITIONS, Message, Status
from trunkline.storage.archive import Archive, Document
from trunkline.storage.queue import Orphan, Owed, Queue
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.storage.written import Kept, Written, when_done

FINAL: dict[str, tuple[Status, int]] = {
    "delivered": (Status.DELIVERED, 0),
    "read": (Status.READ, 0),
    "undeliverable": (Status.UNDELIVERED, 30005),
    "rejected": (Status.UNDELIVERED, 30007),
    "expired": (Status.UNDELIVERED, 30003),
    "deleted": (Status.UNDELIVERED, 30008),
    "unknown": (Status.UNDELIVERED, 30008),
}
"""Receipt states that end a message, with the status and Twilio's error code; all others are intermediate."""

log = logging.getLogger(__name__)

MAX_PARKED = 100_000
"""Receipts without a message that are remembered; the oldest is forgotten first, as in the queue."""
ASKED_AT_ONCE = 1000
"""Parked receipts that are looked for in one read."""
AGAIN_S = 2.0
"""Wait before receipts are applied again whose message's node, or store, was away."""
LOOK_S = 30.0
"""After one or two of them a parked receipt's message is looked for once more: a node may have died while it committed
the carrier's id."""
LATE_SEQ = 1_000_000
"""Callback order of late receipts: after all others."""

_FIELDS = {field.encode_name for field in msgspec.structs.fields(Message)}
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Receipt).decode


class Receipts:
    """See the module."""

    def __init__(self, inflight: Inflight, outbound: Outbound, archive: Archive) -> None:
        self._inflight = inflight
        self._outbound = outbound
        self._archive = archive
        self._parked: dict[tuple[str, str], None] = {}
        self._unsure: deque[tuple[float, tuple[str, str]]] = deque()
        """What is to be looked for once more, and when it was parked."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._late_lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self.entry: Callable[[Receipt], Kept] = self.apply
        """Where parked receipts go when their message is known; in a cluster that may be another node's."""

    async def recover(self, queue: Queue | None = None) -> None:
        """Remember which receipts are parked (in this partition of the queue); apply those whose message got its id
        just before the last process ended. There may be many, so none is asked for alone, nor on the event loop."""
        queue = queue or self._inflight.queue
        found = list(dict.fromkeys(await queue.parked()))
        for pair in found:
            self._remember(pair)
        await self._look_for(queue, found)

    async def _look_for(self, queue: Queue, parked: Sequence[tuple[str, str]]) -> None:
        """Apply those parked receipts whose message has its id by now."""
        for start in range(0, len(parked), ASKED_AT_ONCE):
            some = parked[start : start + ASKED_AT_ONCE]
            # Also those that were named here while this was read: their commit may still be under way.
            known = dict.fromkeys(pair for pair in some if self._inflight.sid_of_carrier_id(*pair) is not None)
            known |= dict.fromkeys(await queue.known(some))
            by_connector: dict[str, list[str]] = {}
            for connector, carrier_id in known:
                by_connector.setdefault(connector, []).append(carrier_id)
            for connector, carrier_ids in by_connector.items():
                self._unpark_later(connector, carrier_ids)

    def apply(self, receipt: Receipt) -> Kept:
        """Take a receipt; the future is done once it is kept. Next: trunkline.webhooks.delivery.Delivery.push"""
        return self._apply(receipt, last=False)

    def _apply(self, receipt: Receipt, *, last: bool) -> Kept:
        """`last`: a step that the store refuses is not tried again."""
        live = self._inflight.by_carrier_id(receipt.connector, receipt.carrier_id)
        if live is not None:
            step = self._step(live, receipt)
            if step is None:
                return self._early(receipt) if live.pending and receipt.state in FINAL else self._nothing()
            kept: Written[Any] = Written()
            when_done(step, lambda done: self._stepped(kept, done, receipt, last))
            return kept
        found = self._inflight.queue.find_carrier_id(receipt.connector, receipt.carrier_id)
        if found is not None:
            return self._loop.create_task(self._late(found[1], found[2], receipt))
        return asyncio.ensure_future(self._park(receipt))

    def known(self, live: Live) -> None:
        """A submit's answer has just named its ids: receipts that came before it are applied now."""
        if self._parked:
            self.named(live.message.connector, [segment.id for segment in live.message.segments])

    def named(self, connector: str, carrier_ids: Iterable[str]) -> None:
        """These ids have just been named: receipts that came before are taken to `entry`."""
        early = [carrier_id for carrier_id in carrier_ids if (connector, carrier_id) in self._parked]
        if early:
            self._unpark_later(connector, early)

    def _stepped(self, kept: Written[Any], step: Kept, receipt: Receipt, last: bool) -> None:
        """A step was written, or not. One that the store refuses was made on a copy that is old: it is made once more
        on what the store has by now. Refused again, it is not kept, and the carrier says it again."""
        error = _error(step)
        if error is not None:
            kept.settle(None, error)
        elif step.result() is not False:
            kept.settle(None, None)
        elif last:
            kept.settle(None, StoreUnavailable(f"the message of {receipt.carrier_id} is being changed"))
        else:
            try:
                again = self._apply(receipt, last=True)
            except Exception as fault:
                kept.settle(None, fault)
            else:
                again.add_done_callback(lambda done: kept.settle(None, _error(done)))

    def _early(self, receipt: Receipt) -> "Future[Any]":
        """The same was said a moment ago and is not written yet: who takes it for kept may lose it. The carrier says it
        again."""
        future = self._loop.create_future()
        future.set_exception(StoreUnavailable(f"what was said of {receipt.carrier_id} before is still being written"))
        return future

    def _nothing(self) -> "Future[Any]":
        future = self._loop.create_future()
        future.set_result(None)
        return future

    # -- the usual case --------------------------------------------------------------------------------------

    def _step(self, live: Live, receipt: Receipt) -> Awaitable[Any] | None:
        """Note the segment's state and advance the message once its last segment is settled."""
        changed, outcome = settle(live.message, receipt)
        if outcome is None or outcome is live.status or outcome not in TRANSITIONS[live.status]:
            # One of several segments: kept all the same, the carrier will not say it again.
            return self._inflight.advance(live, live.status, lane=live.lane, land_ms=live.land_ms) if changed else None
        owed = self._outbound.owe_status(live, outcome)
        return self._inflight.advance(live, outcome, land_ms=self._inflight.clock.now_ms(), owed=owed)

    # -- before its time -------------------------------------------------------------------------------------

    def _park(self, receipt: Receipt) -> Awaitable[None]:
        self._remember((receipt.connector, receipt.carrier_id))
        return self._inflight.queue.park(
            Orphan(
                connector=receipt.connector,
                carrier_id=receipt.carrier_id,
                at_ms=self._inflight.clock.now_ms(),
                receipt=_encode(receipt),
            )
        )

    def _remember(self, pair: tuple[str, str]) -> None:
        self._parked[pair] = None
        if len(self._parked) > MAX_PARKED:
            del self._parked[next(iter(self._parked))]
        if not self._unsure:
            self._loop.call_later(LOOK_S, self._look_again)
        if len(self._unsure) < MAX_PARKED:
            self._unsure.append((self._loop.time(), pair))

    def _look_again(self) -> None:
        """Look for the messages of what has been parked for LOOK_S."""
        until = self._loop.time() - LOOK_S
        due = []
        while self._unsure and self._unsure[0][0] <= until:
            due.append(self._unsure.popleft()[1])
        if self._unsure:
            self._loop.call_later(LOOK_S, self._look_again)
        self._begin(self._look_for_due([pair for pair in due if pair in self._parked]))

    async def _look_for_due(self, parked: list[tuple[str, str]]) -> None:
        try:
            await self._look_for(self._inflight.queue, parked)
        except StoreUnavailable:
            self._loop.call_later(AGAIN_S, lambda: self._begin(self._look_for_due(parked)))
        except Exception:
            log.exception("the messages of receipts that came early could not be looked for; they are kept")

    def _unpark_later(self, connector: str, carrier_ids: list[str]) -> None:
        self._begin(self._unpark(connector, carrier_ids))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)  # the loop itself keeps no reference
        task.add_done_callback(self._tasks.discard)

    async def _unpark(self, connector: str, carrier_ids: list[str]) -> None:
        """Apply parked receipts, in the order they came, and forget them after their effect is committed."""
        try:
            orphans = await self._inflight.queue.orphans(connector, carrier_ids)
            for orphan in orphans:
                await self.entry(_decode(orphan.receipt))
            if orphans:
                await self._inflight.queue.drop_orphans(orphans)
        except StoreUnavailable as error:
            log.warning("receipts that came early wait: %s", error)
            self._loop.call_later(AGAIN_S, self._unpark_later, connector, carrier_ids)
            return
        except Exception:
            log.exception("receipts that came early could not be applied; they are kept")
            return
        for carrier_id in carrier_ids:
            self._parked.pop((connector, carrier_id), None)

    # -- after its time --------------------------------------------------------------------------------------

    async def _late(self, account: str, sid: str, receipt: Receipt) -> None:
        async with self._late_lock:  # two segments' receipts must not write the same revision
            await self._revise(account, sid, receipt)

    async def _revise(self, account: str, sid: str, receipt: Receipt) -> None:
        document = await self._archive.get(account, sid)
        if document is None:
            return  # deleted, or past its retention
        body = orjson.loads(document.body)
        message = msgspec.convert(body, Message)
        before = Status(body["status"])
        changed, outcome = settle(message, receipt)
        if outcome is None or outcome not in TRANSITIONS[before]:
            outcome = before
        if outcome is before and not changed:
            return
        message.updated_ms = self._inflight.clock.now_ms()
        rest = {name: value for name, value in body.items() if name not in _FIELDS}
        revised = rest | msgspec.to_builtins(message) | {"status": outcome}
        owed: list[Owed] = []
        if message.status_callback and outcome is not before:
            owed.append(status_callback(message, outcome, LATE_SEQ))
            await self._inflight.queue.owe(owed)  # first: a crash in between repeats it rather than losing it
        await self._archive.revise(
            Document(sid=sid, account=account, kind="message", rev=document.rev + 1, body=orjson.dumps(revised))
        )
        if owed:
            self._inflight.owed(owed)


def _error(done: Kept) -> BaseException | None:
    """Why something was not kept."""
    return StoreUnavailable("the write was given up") if done.cancelled() else done.exception()


def settle(message: Message, receipt: Receipt) -> tuple[bool, Status | None]:
    """Note a receipt in the message's record: whether that changed it, and the status that the message has by now,
    None while segments are open.

    A message of several segments is delivered when all are, and undelivered as soon as one is and the rest have
    settled. What was delivered stays so.
    """
    final = FINAL.get(receipt.state)
    if final is None:
        return False, None
    status, error_code = final
    changed = False
    for segment in message.segments:
        if segment.id == receipt.carrier_id and segment.state not in ("delivered", receipt.state):
            segment.state, segment.error, changed = receipt.state, receipt.error, True
            break
    states = [segment.state for segment in message.segments]
    if any(not state for state in states):
        return changed, None
    message.done_date = receipt.done_date or message.done_date
    failed = next((s for s in message.segments if FINAL[s.state][0] is Status.UNDELIVERED), None)
    if failed is None:
        message.error_code, message.error_message, message.carrier_error = 0, "", ""
        return changed, Status.DELIVERED if status is Status.UNDELIVERED else status
    message.carrier_error = failed.error
    message.error_code = receipt.error_code or FINAL[failed.state][1] or error_code
    message.error_message = describe(message.error_code).message
    return changed, Status.UNDELIVERED
