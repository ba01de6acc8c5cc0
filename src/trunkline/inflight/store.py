"""The in-flight store: live records over the `Queue`.

A `Live` is the working copy of one flight. All changes of a flight go through one process, in the order of their revs;
the copy is changed at once and the write follows, so that the next step needs no read. A write that finds another rev
in the store (someone else moved the flight) drops the copy.

What a carrier said cannot be asked for again: a step that the store could not write (a full disk) is repeated until it
is written, unless the flight has moved on meanwhile.

Copies are cached up to `max_live`; one that is being written or submitted is never dropped. One that was dropped may
still stand in a lane, and the flight have been read anew meanwhile. So whatever copy is claimed or stepped takes the
place in the cache, unless a newer one stands there: receipts, and whoever asks what is under way, find that one.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from trunkline.model import message as codec
from trunkline.model.clock import Clock
from trunkline.model.message import TRANSITIONS, Message, Status
from trunkline.storage.queue import Advance, Flight, Owed, Queue, Replay, partition_of
from trunkline.storage.unavailable import NotOwned, StoreUnavailable
from trunkline.storage.written import when_done
from trunkline.telemetry.stages import Stage, of_messages, standing

DEFAULT_MAX_LIVE = 10_000
"""Cached working copies (about 2 KB each)."""

REPEAT_S = 1.0
"""Wait before steps that the store could not write are tried again."""
MAX_UNWRITTEN = 10_000
"""Flights with such steps; those of more are in doubt until the next start."""
MAX_STEPS = 8
"""Such steps of one flight."""
_BEFORE = frozenset({Status.QUEUED, Status.ACCEPTED})


class Live:
    """The working copy of a message in flight."""

    __slots__ = (
        "attempts",
        "id",
        "land_ms",
        "lane",
        "message",
        "next_seq",
        "pending",
        "rev",
        "since",
        "stage",
        "status",
    )

    def __init__(self, message: Message, status: Status, flight_id: int, rev: int, lane: str) -> None:
        self.message = message
        self.status = status
        self.id = flight_id
        self.rev = rev
        self.lane = lane
        self.land_ms = 0
        self.pending = 0
        """Writes under way."""
        self.next_seq = 0
        """Order of the next callback."""
        self.attempts = 0
        self.stage: Stage | None = None
        self.since = 0.0
        """When it came into its stage (trunkline.telemetry.stages)."""


class IllegalTransition(Exception):
    """The transition table does not allow that step; nothing was changed."""


class Inflight:
    """See the module. Used by one event loop."""

    def __init__(self, queue: Queue, clock: Clock, max_live: int = DEFAULT_MAX_LIVE) -> None:
        self.queue = queue
        self.clock = clock
        self._max_live = max_live
        self._live: OrderedDict[int, Live] = OrderedDict()
        self._by_sid: dict[str, Live] = {}
        self._by_carrier: dict[tuple[str, str], int] = {}
        self.owed: Callable[[Sequence[Owed]], None] = lambda owed: None
        """Told of callbacks right after the commit that owes them (the delivery's `push`)."""
        self.repeated: Callable[[Live, Advance], None] = lambda live, step: None
        """Told of a step that was written at last."""
        self.watch: Callable[[Message, Advance], None] | None = None
        """Told of each step that was committed (learning mode; else None)."""
        self._unwritten: dict[int, list[Advance]] = {}
        self._handed: dict[int, list[int]] = {}
        """Flight -> revisions of those of its steps that are being tried again."""
        self._repeating = False
        self.landed: Callable[[], None] = lambda: None
        """Told when a flight may land."""
        self.line = of_messages()
        """The hand-overs between the stages of a message."""

    def standing(self) -> dict[str, int]:
        """How many working copies stand in each stage."""
        return standing(self._live.values())

    # -- cache -----------------------------------------------------------------------------------------------

    def _keep(self, live: Live) -> None:
        self._live[live.id] = live
        self._by_sid[live.message.sid] = live
        while len(self._live) > self._max_live:
            oldest = next(iter(self._live.values()))
            if oldest.pending or oldest.status is Status.SENDING:
                self._live.move_to_end(oldest.id)
                return
            self._drop(oldest)

    def _drop(self, live: Live) -> None:
        if self._live.get(live.id) is not live:
            return  # another copy has taken its place
        del self._live[live.id]
        self._by_sid.pop(live.message.sid, None)
        connector = live.message.connector
        for segment in live.message.segments:
            self._by_carrier.pop((connector, segment.id), None)

    def _put_in_place(self, live: Live, rev: int) -> bool:
        """A copy that is being worked on becomes the cached one, if it is not, unless one of `rev` or later is. Whether
        it is now."""
        held = self._live.get(live.id)
        if held is live:
            return True
        if held is not None:
            if held.rev >= rev:
                return False
            self._drop(held)
        self._keep(live)
        return True

    def cached(self, sid: str) -> Live | None:
        """The working copy, if there is one in memory."""
        return self._by_sid.get(sid)

    def adopt(self, flight: Flight) -> Live:
        """The working copy of a stored flight (the cached one if it is there already)."""
        live = self._live.get(flight.id)
        if live is None:
            live = Live(codec.decode(flight.record), Status(flight.status), flight.id, flight.rev, flight.lane)
            live.land_ms = flight.land_ms
            live.next_seq = flight.rev  # later than any callback owed so far: each step owes at most one
            self.line.take_up(live, live.status, (self.clock.now_ms() - live.message.updated_ms) / 1000)
            self._keep(live)
        return live

    def sid_of_carrier_id(self, connector: str, carrier_id: str) -> str | None:
        """The SID of a flight in memory that a carrier's id belongs to."""
        live = self._live.get(self._by_carrier.get((connector, carrier_id), 0))
        return live.message.sid if live is not None else None

    def busy(self, partition: int) -> bool:
        """Whether a flight of a partition is being submitted, or its outcome written. What is handed in for others is
        committed when the partition is let go of."""
        return any(
            (live.status is Status.SENDING or (live.pending and live.status not in _BEFORE))
            and partition_of(live.id) == partition
            for live in self._live.values()
        ) or any(partition_of(one) == partition for one in (*self._unwritten, *self._handed))

    def in_hand(self, flight_id: int) -> bool:
        """Whether this process is writing or submitting a flight just now: its outcome is still to come."""
        live = self._live.get(flight_id)
        if live is not None and (live.pending or live.status is Status.SENDING):
            return True
        return flight_id in self._unwritten or flight_id in self._handed

    def leave(self, partition: int) -> None:
        """Another node owns a partition now: its flights are read anew if they are wanted."""
        for live in [live for live in self._live.values() if partition_of(live.id) == partition]:
            self._drop(live)
        self._unwritten = {one: steps for one, steps in self._unwritten.items() if partition_of(one) != partition}

    async def find(self, account: str, sid: str) -> Live | None:
        """The working copy of a flight, read from the store if need be."""
        live = self._by_sid.get(sid)
        if live is not None:
            return live if live.message.account_sid == account else None
        found = await self.queue.get(account, sid)
        return self.adopt(found[0]) if found else None

    def by_carrier_id(self, connector: str, carrier_id: str) -> Live | None:
        """The flight that a carrier's id belongs to, unless it has landed (see `Queue.find_carrier_id`)."""
        flight_id = self._by_carrier.get((connector, carrier_id))
        if flight_id is not None:
            live = self._live.get(flight_id)
            if live is not None:
                return live
        found = self.queue.find_carrier_id(connector, carrier_id)
        if found is None:
            return None
        live = self._live.get(found[0])
        if live is not None:
            return live
        flight = self.queue.by_id(found[0])
        return self.adopt(flight) if flight else None

    # -- steps -----------------------------------------------------------------------------------------------

    def accept(
        self,
        message: Message,
        status: Status,
        *,
        lane: str = "",
        due_ms: int = 0,
        land_ms: int = 0,
        owed: Sequence[Owed] = (),
        replay: Replay | None = None,
    ) -> tuple[Live, Awaitable[None]]:
        """Put a new flight into the store. The message is accepted when the awaitable is done, not before."""
        live = Live(message, status, 0, 0, lane)
        parent = self.line.begin(live, message)
        flight = Flight(
            sid=message.sid,
            account=message.account_sid,
            status=status,
            lane=lane,
            due_ms=due_ms,
            land_ms=land_ms,
            record=codec.encode(message),
        )
        written = self.queue.accept(flight, owed, replay)
        live.id = flight.id
        live.land_ms = land_ms
        live.next_seq = len(owed)
        live.pending += 1
        self._keep(live)
        when_done(written, lambda future: self._accepted(live, future, owed, parent))
        return live, written

    def _accepted(self, live: Live, future: "asyncio.Future[Any]", owed: Sequence[Owed], parent: str) -> None:
        failed = future.cancelled() or future.exception() is not None
        self.line.accepted(live, live.message, live.status, self.clock.now_ms(), parent, failed)
        self._written(live, future, owed)

    def advance(
        self,
        live: Live,
        to: Status,
        *,
        lane: str = "",
        due_ms: int = 0,
        land_ms: int = 0,
        owed: Sequence[Owed] = (),
        carrier_ids: Sequence[tuple[str, str]] = (),
    ) -> Awaitable[bool]:
        """Move a flight along the transition table and store its record as it is now.

        Raises IllegalTransition. The awaitable says whether the store agreed.
        """
        if to is not live.status and to not in TRANSITIONS[live.status]:
            raise IllegalTransition(f"{live.message.sid}: {live.status} -> {to}")
        message = live.message
        now = message.updated_ms = self.clock.now_ms()
        again = to is Status.QUEUED and live.status is Status.SENDING and live.attempts > 0  # not for pacing alone
        self.line.hand_over(live, message, to, now, again)
        step = Advance(
            id=live.id,
            sid=message.sid,
            account=message.account_sid,
            rev=live.rev,
            status=to,
            lane=lane,
            due_ms=due_ms,
            land_ms=land_ms,
            record=codec.encode(message),
            owed=owed,
            carrier_ids=carrier_ids,
        )
        live.status = to
        live.rev += 1
        live.lane = lane
        live.land_ms = land_ms
        live.pending += 1
        if self._put_in_place(live, live.rev):  # the ids leave the cache with the copy
            for pair in carrier_ids:
                self._by_carrier[pair] = live.id
        written = self.queue.advance(step)
        when_done(written, lambda future: self._written(live, future, owed, step))
        return written

    def claim(self, lives: Sequence[Live]) -> Awaitable[list[int]]:
        """Record the intent to submit these (status `sending`); the awaitable tells which ids are not ours."""
        written = self.queue.claim([(live.id, live.rev) for live in lives])
        for live in lives:
            live.status = Status.SENDING
            live.rev += 1
            live.lane = ""
            live.pending += 1
            self._put_in_place(live, live.rev)

        def done(future: "asyncio.Future[Any]") -> None:
            failed = future.cancelled() or future.exception() is not None
            lost = set() if failed else set(future.result())
            now = self.clock.now_ms()
            for live in lives:
                live.pending -= 1
                if failed or live.id in lost:
                    self._drop(live)
                else:
                    self._put_in_place(live, live.rev + 1)  # a newer one had its step refused
                    self.line.hand_over(live, live.message, Status.SENDING, now)

        when_done(written, done)
        return written

    def _written(
        self, live: Live, future: "asyncio.Future[Any]", owed: Sequence[Owed], step: Advance | None = None
    ) -> None:
        live.pending -= 1
        if future.cancelled() or future.exception() is not None or future.result() is False:
            self._drop(live)
            if step is not None and not future.cancelled():
                error = future.exception()
                if _may_pass(error) or (error is None and self._follows(step)):
                    self._repeat_later(step)
            return
        if owed:
            self.owed(owed)
        if self.watch is not None and step is not None:
            self.watch(live.message, step)
        if live.land_ms and not live.pending:
            self.landed()

    def _follows(self, step: Advance) -> bool:
        """Whether a step before it is still to be written: without that one it does not fit the flight."""
        waiting = (one.rev for one in self._unwritten.get(step.id, ()))
        return any(rev < step.rev for rev in (*waiting, *self._handed.get(step.id, ())))

    def _repeat_later(self, step: Advance) -> None:
        if step.id not in self._unwritten and len(self._unwritten) >= MAX_UNWRITTEN:
            return
        steps = self._unwritten.setdefault(step.id, [])
        if len(steps) < MAX_STEPS:
            steps.append(step)
        if not self._repeating:
            self._repeating = True
            asyncio.get_running_loop().call_later(REPEAT_S, self._repeat)

    def _repeat(self) -> None:
        self._repeating = False
        unwritten, self._unwritten = self._unwritten, {}
        for steps in unwritten.values():
            for step in sorted(steps, key=lambda one: one.rev):
                self._handed.setdefault(step.id, []).append(step.rev)
                when_done(self.queue.advance(step), lambda future, step=step: self._settle(step, future))  # type: ignore[misc]

    def _settle(self, step: Advance, future: "asyncio.Future[Any]") -> None:
        """A repeated step was written, found the flight elsewhere, or could still not be written."""
        revs = self._handed[step.id]
        revs.remove(step.rev)
        if not revs:
            del self._handed[step.id]
        if future.exception() is not None:
            if _may_pass(future.exception()):
                self._repeat_later(step)
            return
        if not future.result():
            if self._follows(step):
                self._repeat_later(step)
            return
        old = self._live.get(step.id)
        if old is not None and old.rev <= step.rev and not old.pending:
            self._drop(old)
        if step.owed:
            self.owed(step.owed)
        if step.land_ms:
            self.landed()
        self._tell_repeated(step)

    def _tell_repeated(self, step: Advance) -> None:
        """Now, or once the flight can be read: what waits for the step (a receipt that came first) has no other way."""
        try:
            flight = self.queue.by_id(step.id)
        except NotOwned:
            return  # its next owner finds what waits
        except StoreUnavailable:
            asyncio.get_running_loop().call_later(REPEAT_S, self._tell_repeated, step)
            return
        if flight is not None:
            self.repeated(self.adopt(flight), step)

    def forget(self, flight_id: int, rev: int) -> None:
        """The flight has landed at `rev`; a copy that has moved on stays."""
        live = self._live.get(flight_id)
        if live is not None and live.rev == rev and not live.pending:
            self._drop(live)


def _may_pass(error: BaseException | None) -> bool:
    """Whether a step that failed so is worth another try. What became of a flight that is another node's, that one
    settles."""
    return isinstance(error, StoreUnavailable) and not isinstance(error, NotOwned)
