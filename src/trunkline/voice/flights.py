"""Calls in flight over the `Queue`: accepted durably, advanced by compare-and-set, landed once they have ended.

A `CallFlight` is the working copy of one call leg. All changes of a call go through one process, in the order of their
revs: the copy is changed at once and the write follows, so that the next step needs no read. A step to another status
owes the status callbacks of that event in the same commit; a terminal status drops the SIP password and lets the flight
land. A whole call costs three commits: accepted, answered, ended.

A step that the store could not write (a full disk) is repeated until it is written, unless the flight moved on.

One of several nodes keeps each step in the `MemoryStore` too, until the last is in the queue (trunkline.voice.held).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from trunkline.model import call as codec
from trunkline.model.call import TERMINAL, TRANSITIONS, Call, Status, StatusTarget
from trunkline.model.clock import Clock
from trunkline.storage.queue import Advance, Flight, Owed, Queue, Replay
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.storage.written import when_done
from trunkline.telemetry.stages import Stage, of_calls, standing
from trunkline.voice import callbacks
from trunkline.voice.checkpoints import FlightCheckpoint
from trunkline.voice.held import Held, HeldFlights
from trunkline.voice.timeline import masked

KIND = "call"
"""The kind of these flights and of the documents they become."""
REPEAT_S = 1.0
"""Wait before steps that the store could not write are tried again."""
MAX_UNWRITTEN = 10_000
"""Flights with such steps; those of more are in doubt until the next start."""
MAX_STEPS = 8
"""Such steps of one flight."""
RECOVERY_PAGE = 500
"""Flights read at once at the start."""


class IllegalTransition(Exception):
    """The transition table does not allow that step; nothing was changed."""


class CallFlight:
    """The working copy of a call in flight."""

    __slots__ = (
        "begun_here", "call", "given_up", "held", "id", "land_ms", "left", "next_seq", "path", "pending", "rev",
        "since", "stage", "status",
    )  # fmt: skip

    def __init__(self, call: Call, status: Status, flight_id: int, rev: int) -> None:
        self.call = call
        self.status = status
        self.id = flight_id
        self.rev = rev
        self.land_ms = 0
        self.next_seq = 0
        """Order of the next callback."""
        self.pending = 0
        """Writes under way."""
        self.begun_here = False
        """Whether this process accepted it."""
        self.path: list[tuple[str, int]] = []
        """The statuses it has been in, and since when (Unix ms); of a node that is one of several."""
        self.held: Held | None = None
        """What of it is to be written later; None: its steps go to the queue."""
        self.left = False
        """It ended while the fence was closed, so that all that is stored of it is still there."""
        self.given_up = False
        """Since then another node has it, and tells its application the last."""
        self.stage: Stage | None = None
        self.since = 0.0
        """When it came into its stage (trunkline.telemetry.stages)."""

    @property
    def ended(self) -> bool:
        """Whether no other status can follow."""
        return self.status in TERMINAL


class CallFlights(HeldFlights):
    """See the module. Used by one event loop."""

    def __init__(self, queue: Queue, clock: Clock) -> None:
        super().__init__()
        self.queue = queue
        self.clock = clock
        self._by_id: dict[int, CallFlight] = {}
        self._by_sid: dict[str, CallFlight] = {}
        self._unwritten: dict[int, list[Advance]] = {}
        self._repeating = False
        self.owed: Callable[[Sequence[Owed]], None] = lambda owed: None
        """Told of callbacks right after the commit that owes them (the delivery's `push`)."""
        self.landed: Callable[[], None] = lambda: None
        """Told when a flight may land (the landing's `wake`)."""
        self.watch: Callable[[Call, Advance], None] | None = None
        """Told of a step that has ended a call, once it is committed (learning mode; else None)."""
        self.price: Callable[[Call], None] = lambda call: None
        """Puts the price into the record of a call that has ended."""
        self.places: callbacks.Places = callbacks.nowhere
        """Where both ends of a call are, for its status callbacks."""
        self.line = of_calls()
        """The hand-overs between the stages of a call."""

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[CallFlight]:
        return iter(list(self._by_id.values()))

    def standing(self) -> dict[str, int]:
        """How many working copies stand in each stage."""
        return standing(self._by_id.values())

    # -- working copies --------------------------------------------------------------------------------------

    def _keep(self, flight: CallFlight) -> None:
        self._by_id[flight.id] = flight
        self._by_sid[flight.call.sid] = flight

    def _drop(self, flight: CallFlight) -> None:
        if self._by_id.get(flight.id) is flight:
            del self._by_id[flight.id]
            if self._by_sid.get(flight.call.sid) is flight:
                del self._by_sid[flight.call.sid]

    def cached(self, sid: str) -> CallFlight | None:
        """The working copy, if there is one in memory: of every call that this process has begun and that has not
        ended."""
        return self._by_sid.get(sid)

    def id_of(self, sid: str) -> int:
        """The id of a call's flight while the call has not ended; else 0."""
        flight = self._by_sid.get(sid)
        return 0 if flight is None or flight.ended else flight.id

    def adopt(self, stored: Flight) -> CallFlight:
        """The working copy of a stored flight (the cached one if it is there already)."""
        flight = self._by_id.get(stored.id)
        if flight is not None and flight.held is not None:
            return flight  # the queue is behind
        if flight is None or (stored.rev > flight.rev and not flight.pending):  # it moved on at another node
            flight = CallFlight(codec.decode(stored.record), Status(stored.status), stored.id, stored.rev)
            flight.land_ms = stored.land_ms
            flight.next_seq = flight.call.callback_sequence + stored.rev
            flight.path = [(stored.status, flight.call.updated_ms)]
            self.line.take_up(flight, flight.status, (self.clock.now_ms() - flight.call.updated_ms) / 1000)
            self._keep(flight)
        return flight

    def _copy(self, saved: FlightCheckpoint) -> CallFlight:
        flight = CallFlight(codec.decode(saved.record), Status(saved.status), saved.id, 0)
        former = self._by_sid.get(flight.call.sid)
        if former is not None:  # from when somebody asked for it here
            self._drop(former)
        self.line.take_up(flight, flight.status, (self.clock.now_ms() - flight.call.updated_ms) / 1000)
        self._keep(flight)
        return flight

    async def find(self, account: str, sid: str) -> CallFlight | None:
        """The working copy of a flight, read from the store if need be; None when it has landed."""
        flight = self._by_sid.get(sid)
        if flight is not None:
            return flight if flight.call.account_sid == account else None
        stored = await self.queue.get(account, sid)
        return self.adopt(stored[0]) if stored is not None and stored[0].kind == KIND else None

    async def in_state(self, status: Status) -> list[CallFlight]:
        """Every flight in `status`, oldest first (recovery)."""
        found: list[CallFlight] = []
        after = 0
        while stored := await self.queue.in_state(KIND, status, after, RECOVERY_PAGE):
            after = stored[-1].id
            found += [self.adopt(one) for one in stored]
        return found

    # -- writes ----------------------------------------------------------------------------------------------

    def accept(
        self, call: Call, status: Status, *, owed: Sequence[Owed] = (), replay: Replay | None = None
    ) -> tuple[CallFlight, Awaitable[None]]:
        """Put a new call into the store, in any status. It is accepted when the awaitable is done, not before.

        The awaitable raises `storage.queue.Exists` for a SID that was accepted before.
        """
        now = self.clock.now_ms()
        call.created_ms = call.created_ms or now
        call.updated_ms = now
        if status in TERMINAL:
            self._finish(call)
        flight = CallFlight(call, status, 0, 0)
        parent = self.line.begin(flight, call)
        owed = [*callbacks.status_events(call, status, now, places=self.places), *owed]
        for seq, item in enumerate(owed):
            item.seq = seq
        land_ms = now if status in TERMINAL else 0
        stored = Flight(
            sid=call.sid, account=call.account_sid, kind=KIND, status=status, land_ms=land_ms,
            record=codec.encode(call),
        )  # fmt: skip
        written = self.queue.accept(stored, owed, replay)
        flight.id = stored.id
        flight.next_seq, flight.land_ms, flight.begun_here = len(owed), land_ms, True
        flight.pending = 1
        self._keep(flight)
        if self.memory is not None:
            flight.path.append((status, now))
            self._save(flight, stored.record)
        when_done(written, lambda future: self._accepted(flight, future, owed, parent))
        return flight, written

    def _accepted(self, flight: CallFlight, future: "asyncio.Future[Any]", owed: Sequence[Owed], parent: str) -> None:
        failed = future.cancelled() or future.exception() is not None
        self.line.accepted(flight, flight.call, flight.status, self.clock.now_ms(), parent, failed)
        self._written(flight, future, owed)

    def advance(
        self, flight: CallFlight, to: Status, *, owed: Sequence[Owed] = (), stays_ms: int = 0
    ) -> Awaitable[bool]:
        """Move a call along the transition table (or stay) and store its record as it is now.

        Another status owes its callbacks in the same commit; a terminal one completes the record and lets the flight
        land, after `stays_ms` or at `release`: its record may still grow. Raises IllegalTransition. The awaitable says
        whether the store agreed.
        """
        moves = to is not flight.status
        if moves and to not in TRANSITIONS[flight.status]:
            raise IllegalTransition(f"{flight.call.sid}: {flight.status} -> {to}")
        now = self.clock.now_ms()
        flight.call.updated_ms = now
        if moves:
            self.line.hand_over(flight, flight.call, to, now)
        if moves and to in TERMINAL:
            self._finish(flight.call)
            flight.land_ms = now + stays_ms
        if flight.held is not None or (self.gate is not None and not self.gate.open):
            return self._hold(flight, to, owed)
        return self._step(flight, to, now, owed)

    def _step(self, flight: CallFlight, to: Status, at_ms: int, owed: Sequence[Owed]) -> Awaitable[bool]:
        """Hand a step to the queue, with the events that it is to be told."""
        call = flight.call
        if to is not flight.status:
            events = callbacks.status_events(call, to, at_ms, before=flight.status, places=self.places)
            owed = [*events, *owed]
            if to in TERMINAL:
                _forget_logins(call)
        for item in owed:
            item.seq = flight.next_seq
            flight.next_seq += 1
        step = Advance(
            id=flight.id, sid=call.sid, account=call.account_sid, rev=flight.rev, status=to,
            land_ms=flight.land_ms if to in TERMINAL else 0, record=codec.encode(call), owed=owed,
        )  # fmt: skip
        if self.memory is not None:
            if to is not flight.status:
                flight.path.append((to, at_ms))
            flight.status = to
            self._save(flight, step.record or b"")
        flight.status = to
        flight.rev += 1
        flight.pending += 1
        written = self.queue.advance(step)
        when_done(written, lambda future: self._written(flight, future, owed, step))
        return written

    def release(self, flight: CallFlight) -> Awaitable[bool]:
        """Store the record of an ended call once more, and let the flight land now."""
        flight.land_ms = self.clock.now_ms()
        return self.advance(flight, flight.status)

    def _finish(self, call: Call) -> None:
        """What the record of an ended call must and must not hold."""
        call.ended_ms = call.ended_ms or self.clock.now_ms()
        call.sip_auth_password = ""
        call.twiml = masked(call.twiml)
        self.price(call)

    def _written(
        self, flight: CallFlight, future: "asyncio.Future[Any]", owed: Sequence[Owed], step: Advance | None = None
    ) -> None:
        flight.pending -= 1
        if future.cancelled() or future.exception() is not None or future.result() is False:
            self._lost(flight, future, step)
            return
        if owed:
            self.owed(owed)
        if self.watch is not None and step is not None and step.land_ms:
            self.watch(flight.call, step)
        if self.memory is not None and flight.ended and not flight.pending:
            self._forget(flight.call.sid)
        if flight.land_ms and not flight.pending and flight.land_ms <= self.clock.now_ms():
            self._drop(flight)  # it may have to wait for its webhooks, and nothing changes it any more
            self.landed()

    def _lost(self, flight: CallFlight, future: "asyncio.Future[Any]", step: Advance | None) -> None:
        """A write failed: a new call is forgotten, a step is repeated where the store was not there."""
        if step is None:
            self._drop(flight)
            self._forget(flight.call.sid)
        elif not future.cancelled():
            error = future.exception()
            if isinstance(error, StoreUnavailable) or (error is None and step.id in self._unwritten):
                self._repeat_later(step)

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
                when_done(self.queue.advance(step), lambda future, step=step: self._repeated(step, future))  # type: ignore[misc]

    def _repeated(self, step: Advance, future: "asyncio.Future[Any]") -> None:
        """A repeated step was written, found the flight elsewhere, or could still not be written."""
        if isinstance(future.exception(), StoreUnavailable):
            self._repeat_later(step)
        elif future.exception() is None and future.result():
            if step.owed:
                self.owed(step.owed)
            if step.land_ms:
                self.landed()
                self._forget(step.sid)

    def abandon(self, mine: Callable[[str], bool]) -> None:
        """Other nodes have the flights of which `mine` says so, by SID: drop the working copies and what could not be
        written yet."""
        for flight in [one for one in self._by_id.values() if mine(one.call.sid)]:
            self._unwritten.pop(flight.id, None)
            self._drop(flight)
            flight.given_up = flight.left and flight.held is not None
            self._let_go(flight)

    def forget(self, flight_id: int, rev: int) -> None:
        """The flight has landed at `rev`; a copy that has moved on stays."""
        flight = self._by_id.get(flight_id)
        if flight is not None and flight.rev == rev and not flight.pending:
            self._drop(flight)

    def erase(self, flight: CallFlight) -> Awaitable[None]:
        """Remove an ended call with everything it owes (privacy deletion)."""
        self._drop(flight)
        return self.queue.erase(flight.id)


def _forget_logins(call: Call) -> None:
    """An ended call requests nothing any more that needs what its URLs may hold; what it owes has its own."""
    call.url, call.fallback_url = masked(call.url), masked(call.fallback_url)
    if any("@" in target.url for target in call.status_callbacks):
        call.status_callbacks = [StatusTarget(masked(one.url), one.method, one.events) for one in call.status_callbacks]
    call.extra.pop("amd", None)
