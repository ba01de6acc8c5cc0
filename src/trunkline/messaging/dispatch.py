"""From a lane to a carrier: claim, then submit.

`push` takes committed messages, `_pump` fills the connector's window from the rotation of lanes. A batch is claimed
in one commit (the durable intent, status `sending`), then each message is submitted; no transaction spans a submit.
One loop pass pumps once, however many messages came in.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trunkline.inflight.store import Inflight, Live
from trunkline.messaging.connectors.base import Connector, Outcome, Submission, Unavailable
from trunkline.messaging.lanes import HEAD, Lane, Pace, Rotation, lane_parts
from trunkline.model.message import Status
from trunkline.model.sid import created_ms
from trunkline.storage.queue import Queue, partition_of
from trunkline.storage.written import when_done

MAX_LANES = 100_000
"""Lanes kept in memory; idle ones leave first."""
MAX_CLAIM = 256
"""Messages claimed in one commit."""
MIN_TIMER_S = 0.001
"""Shortest wait for a resting lane, so that fast lanes share a pump."""
FENCED = Unavailable("this node may not send now", burns_attempt=False, retry_after_s=0.25)
"""What becomes of a submit by a node whose lease has run out since the claim."""
LOAD_RETRY_S = 1.0
"""Wait after a failed read of the queue."""


class _Out:
    """One connector and what waits for it."""

    __slots__ = ("connector", "pumping", "reserved", "rotation", "timer", "timer_at")

    def __init__(self, connector: Connector) -> None:
        self.connector = connector
        self.rotation = Rotation()
        self.reserved = 0
        """Messages claimed but not yet handed to the connector."""
        self.pumping = False
        self.timer: asyncio.TimerHandle | None = None
        self.timer_at = 0.0


class Dispatcher:
    """See the module.

    `rate_of(account, sender)` gives a sender's segments a second, `pace_of(account)` the account's own. `allow(live)`
    looks once more, just before the submit, at what may have changed since the accept (opt-out, suspended account,
    expired validity); it settles the message itself and returns False when it must not go. `outcome(live, outcome)` is
    told what the carrier said.
    """

    def __init__(
        self,
        inflight: Inflight,
        connectors: Mapping[str, Connector],
        *,
        rate_of: Callable[[str, str], float],
        pace_of: Callable[[str], float],
        allow: Callable[[Live], bool],
        outcome: Callable[[Live, Outcome], None],
    ) -> None:
        self._inflight = inflight
        self._rate_of = rate_of
        self._pace_of = pace_of
        self._allow = allow
        self._outcome = outcome
        self._outs = {name: _Out(connector) for name, connector in connectors.items()}
        self._lanes: dict[str, Lane] = {}
        self._paces: dict[str, Pace] = {}
        """Of the accounts that have lanes."""
        self._refreshing = False
        self._left: set[int] = set()
        """Partitions of the queue that another node dispatches, or is about to."""
        self.may_send: Callable[[], bool] = lambda: True
        """Asked just before each submit: a node of a cluster whose lease has run out sends nothing."""
        self._loop = asyncio.get_running_loop()
        self._stopped = False

    def waiting(self, lane: str) -> bool:
        """Whether a lane is known to hold work."""
        found = self._lanes.get(lane)
        return found is not None and bool(found.head or found.stored)

    def leave(self, partition: int) -> None:
        """Claim nothing more of a partition of the queue."""
        self._left.add(partition)

    def enter(self, partition: int) -> None:
        """The partition is this node's (again); `recover` takes up what is in it."""
        self._left.discard(partition)

    def limited(self) -> set[str]:
        """The senders (`account|sender`) and accounts (`account|`) with a rate of their own that have work here."""
        now, found = self._loop.time(), set()
        for lane in self._lanes.values():
            if lane.head or lane.stored or lane.held or lane.next_at > now or lane.pace.next_at > now:
                if lane.rate > 0:
                    found.add(f"{lane.account}|{lane.sender}")
                if lane.pace.rate > 0:
                    found.add(f"{lane.account}|")
        return found

    async def recover(self, queue: Queue | None = None) -> None:
        """Take up what waited when the last process ended; of `queue`, a partition of ours, only what is in that."""
        for name, _, _ in await (queue or self._inflight.queue).lanes():
            if self._outs.get(lane_parts(name)[0]) is not None:  # else `failover` moves what it can
                self._wake_lane(name)

    def push(self, live: Live) -> None:
        """A message was committed to its lane; Next: trunkline.messaging.outbound.Outbound.settled"""
        if not live.lane:
            return  # another thread's read of the queue saw the commit first: it is on its way
        lane = self._lane(live.lane)
        lane.push(live)
        self._offer(lane)

    def reserve(self, name: str, segments: int) -> bool:
        """Whether a message may be accepted with the intent to submit it at once: nobody is before it in its lane or in
        the rotation, its sender's rate allows it, and the connector has room. The room is kept for it: `submit_now`
        after the commit, or `release`, must follow. It saves a commit; to a crash it is a claim like any other."""
        out = self._outs.get(lane_parts(name)[0])
        if out is None or self._stopped or not out.rotation.is_idle:
            return False
        lane = self._lane(name)
        now = self._loop.time()
        if not lane.may_skip(now):
            return False
        if out.connector.capacity() <= out.reserved:
            return False
        lane.spend(segments, now)
        out.reserved += 1
        return True

    def submit_now(self, live: Live) -> None:
        """A message with reserved room was committed. Next: trunkline.messaging.outbound.Outbound.settled"""
        out = self._outs[live.message.connector]
        out.reserved -= 1
        self._submit(out.connector, live)

    def release(self, connector: str) -> None:
        """The message that room was reserved for was not committed."""
        self._outs[connector].reserved -= 1
        self.wake(connector)

    def push_stored(self, name: str, due_in_s: float) -> None:
        """A message went (back) into a lane of the queue and comes due in so many seconds."""
        lane = self._lane(name)
        now = self._loop.time()
        at = now + max(0.0, due_in_s) + 0.001
        if not now < lane.wake_at <= at:
            lane.wake_at = at
            self._loop.call_at(at, self._lane_due, name, at)

    def _lane_due(self, name: str, at: float) -> None:
        lane = self._lane(name)
        if lane.wake_at == at:
            lane.wake_at = 0.0  # a timer that comes early finds nothing due: the read then sets another
        self._wake_lane(name)

    def _wake_lane(self, name: str) -> None:
        """Look into the queue for a lane's messages, once more if that is being done just now."""
        lane = self._lane(name)
        lane.stored = True
        lane.missed = lane.missed or lane.loading
        self._offer(lane)

    def wake(self, connector: str) -> None:
        """The connector may take more than before."""
        out = self._outs[connector]
        if not out.pumping and not self._stopped:
            out.pumping = True
            self._loop.call_soon(self._pump, out)

    def stop(self) -> None:
        """Hand out nothing more; what waits is in the queue."""
        self._stopped = True
        for out in self._outs.values():
            if out.timer:
                out.timer.cancel()

    def refresh_rates(self) -> None:
        """Ask for every rate anew (numbers or accounts have changed), once for all changes of one loop pass."""
        if not self._refreshing:
            self._refreshing = True
            self._loop.call_soon(self._refresh)

    def _refresh(self) -> None:
        self._refreshing = False
        for lane in self._lanes.values():
            lane.rate = self._rate_of(lane.account, lane.sender)
        for account, pace in self._paces.items():
            pace.rate = self._pace_of(account)

    # -- lanes -----------------------------------------------------------------------------------------------

    def _lane(self, name: str) -> Lane:
        lane = self._lanes.get(name)
        if lane is None:
            if len(self._lanes) >= MAX_LANES:
                self._evict()
            _, account, sender = lane_parts(name)
            pace = self._paces.get(account)
            if pace is None:
                pace = self._paces[account] = Pace(self._pace_of(account))
            lane = self._lanes[name] = Lane(name, self._rate_of(account, sender), pace)
        return lane

    def _evict(self) -> None:
        """Forget the oldest tenth of the lanes that hold nothing."""
        now = self._loop.time()
        idle = [
            x.name for x in self._lanes.values() if not (x.head or x.stored or x.loading or x.held or x.next_at > now)
        ]
        for name in idle[: MAX_LANES // 10]:
            del self._lanes[name]
        self._paces = {lane.account: lane.pace for lane in self._lanes.values()}

    def _offer(self, lane: Lane) -> None:
        out = self._outs.get(lane_parts(lane.name)[0])
        if out is None:
            return
        if lane.wants_load():
            self._load(lane)
        out.rotation.offer(lane, self._loop.time())
        if not out.pumping and not self._stopped:
            out.pumping = True
            self._loop.call_soon(self._pump, out)

    def _load(self, lane: Lane) -> None:
        """Read the next messages of a lane from the queue. One that was made later than now comes from a node whose
        clock was ahead, or our own before it was set: nobody knows when it is due, but that it waits already."""
        lane.loading = True
        task = self._loop.create_task(self._read(lane))
        task.add_done_callback(lambda t: self._read_done(lane, t))

    async def _read(self, lane: Lane) -> tuple[list[Live], bool]:
        held = len(lane.held) + len(lane.head)
        limit = HEAD + held
        flights = await self._inflight.queue.waiting(lane.name, (0, 0), limit)
        now_ms = self._inflight.clock.now_ms()
        due = [flight for flight in flights if flight.due_ms <= now_ms or created_ms(flight.sid) > now_ms]
        if len(due) < len(flights):
            later = min(flight.due_ms for flight in flights if flight.due_ms > now_ms >= created_ms(flight.sid))
            self.push_stored(lane.name, (later - now_ms) / 1000)
        ours = [flight for flight in due if partition_of(flight.id) not in self._left] if self._left else due
        more = len(due) >= limit and bool(ours)  # else it would be read over and over until the partition has left
        # A copy that stands in the head may have left the cache: another one of the same flight is of no use.
        known = {live.id for live in lane.head} | lane.held
        return [self._inflight.adopt(f) for f in ours if f.id not in known], more

    def _read_done(self, lane: Lane, task: "asyncio.Task[tuple[list[Live], bool]]") -> None:
        if task.cancelled():
            return
        if task.exception() is not None:
            lane.loading = False
            self._loop.call_later(LOAD_RETRY_S, self._wake_lane, lane.name)
            return
        if self._stopped:
            return
        lives, more = task.result()
        lane.loaded([live for live in lives if live.lane == lane.name], more)
        self._offer(lane)

    # -- the pump --------------------------------------------------------------------------------------------

    def _pump(self, out: _Out) -> None:
        out.pumping = False
        if self._stopped:
            return
        room = min(out.connector.capacity() - out.reserved, MAX_CLAIM)
        now = self._loop.time()
        batch: list[tuple[Lane, Live]] = []
        while len(batch) < room:
            lane = out.rotation.next_ready(now)
            if lane is None:
                break
            live = lane.head.popleft()
            # A message may stand here twice: read from the queue, and told of just after by `push`.
            waits = live.status in _WAITING and live.lane == lane.name and live.id not in lane.held
            if self._left and partition_of(live.id) in self._left:
                waits = False
            if waits and self._allow(live):
                lane.spend(live.message.num_segments, now)
                lane.held.add(live.id)
                batch.append((lane, live))
            if lane.wants_load():
                self._load(lane)
            out.rotation.offer(lane, now)
        if batch:
            self._claim(out, batch)
        self._set_timer(out, now)

    def _claim(self, out: _Out, batch: Sequence[tuple[Lane, Live]]) -> None:
        out.reserved += len(batch)
        claimed = self._inflight.claim([live for _, live in batch])
        when_done(claimed, lambda future: self._claimed(out, batch, future))

    def _claimed(self, out: _Out, batch: Sequence[tuple[Lane, Live]], future: "asyncio.Future[Any]") -> None:
        out.reserved -= len(batch)
        failed = future.cancelled() or future.exception() is not None
        lost = set() if failed else set(future.result())
        again: set[str] = set()
        for lane, live in batch:
            lane.held.discard(live.id)
            if failed or live.id in lost:
                lane.stored = True
                again.add(lane.name)  # it may wait in the very lane still: the copy in the head was an old one
            else:
                self._submit(out.connector, live)
        for name in again:
            self._loop.call_later(LOAD_RETRY_S, self._wake_lane, name)
        if len(batch) == MAX_CLAIM:
            self.wake(out.connector.name)

    def _submit(self, connector: Connector, live: Live) -> None:
        if not self.may_send():
            self._loop.call_soon(self._outcome, live, FENCED)
            return
        message = live.message
        connector.submit(
            Submission(message=message, sender=message.from_, done=lambda outcome: self._outcome(live, outcome))
        )

    def _set_timer(self, out: _Out, now: float) -> None:
        """Pump again when the first resting lane's time comes."""
        at = out.rotation.next_time()
        if at is None:
            return
        if out.timer is not None:
            if now < out.timer_at <= at:
                return
            out.timer.cancel()
        out.timer_at = max(at, now + MIN_TIMER_S)
        out.timer = self._loop.call_at(out.timer_at, self._timer_fired, out)

    def _timer_fired(self, out: _Out) -> None:
        out.timer = None  # a loop's timer may come a fraction of a millisecond early: the pump then sets another
        self._pump(out)


_WAITING = frozenset({Status.QUEUED, Status.ACCEPTED})
