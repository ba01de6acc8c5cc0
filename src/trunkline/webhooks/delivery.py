"""Delivery of owed webhooks: each ends delivered, or recorded as exhausted under its policy.

Callbacks come by `push` right after the commit that owes them, and from the queue after a restart or when more are
owed than memory should hold. They leave in lanes, one a host, so that a slow host never holds up another. Within one
message a callback waits only for its predecessor's first attempt. An attempt counts once its outcome is recorded, so a
crash burns none: the same request, with the same token, is made again.

No more than MAX_HELD are in memory, whatever is owed. Once half of that is taken, no host gets more than SHARE, so that
those which are slow leave room for the others; hosts for which there is none wait for it in a line, and what is owed to
them in the queue. A lane that closes gives back what it has, else closed ones would fill the memory for good.
"""

import asyncio
import logging
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Protocol

import msgspec

from trunkline.model.clock import Clock
from trunkline.settings import Webhooks
from trunkline.storage.queue import Owed, Queue, made_ms, partition_of
from trunkline.storage.written import when_done
from trunkline.telemetry import traceparent
from trunkline.telemetry.stages import Line, Stage
from trunkline.telemetry.tracing import CLIENT

HEAD = 4096
"""Owed callbacks of one host kept in memory (about 1.5 KB each)."""
PAGE = 1024
"""Owed callbacks read from the queue at once."""
MAX_HELD = 20_000
"""Owed callbacks kept in memory, all hosts together."""
SHARE = 256
"""Of them, one host's, once there is not plenty of room."""
MAX_HOSTS = 50_000
"""Host lanes kept in memory; idle ones leave first."""
FAR_MS = 1 << 62
"""A due time after all others."""
SOON_S = 0.02
"""Retries that come due within a second share a look into the queue this far; later ones share one a second."""
EARLIEST, LATEST = 0.75, 1.25
"""Of a retry's wait, so much is left to chance."""
AHEAD_S = 60.0
"""How much later than the longest wait a retry may be due before its time is taken for a wrong clock's."""
LOAD_RETRY_S = 1.0
"""Wait after a failed read or write of the queue."""
TRACED = b'"traceparent":'
"""In the request of a callback whose work is traced."""

log = logging.getLogger(__name__)


class Result(msgspec.Struct):
    """How one attempt ended."""

    attempts: Sequence[bytes]
    """JSON objects to keep: request, response, timing."""
    delivered: bool
    retry: bool = False
    """Whether the policy allows another attempt (if the bounds do)."""
    error_code: int = 0
    error: str = ""
    max_tries: int = 0
    """The request's own bound on attempts (`#rc`); 0: the settings'."""


class _Traced(msgspec.Struct):
    """What is read here of a request."""

    traceparent: str = ""


class Handler(Protocol):
    """Makes the requests of one kind of callback."""

    def begin(self, owed: Owed, done: Callable[[Result], None]) -> None:
        """Start one attempt; `done` is called exactly once, on the event loop. Never raises."""

    def exhausted(self, owed: Owed, result: Result) -> None:
        """The callback was given up: tell the customer (an Alert)."""


class _Host:
    """One delivery lane."""

    __slots__ = (
        "active",
        "after",
        "closed",
        "ended",
        "held",
        "inherited",
        "loading",
        "missed",
        "name",
        "ready",
        "rescan",
        "stored",
        "wakes",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready: deque[Owed] = deque()
        self.active = 0
        self.held: set[int] = set()
        """Callbacks in memory: ready, waiting for a predecessor, or under way."""
        self.after = 0
        """Callbacks up to this id have been in memory; they are committed in the order of their ids."""
        self.rescan = False
        """Whether older ones may be owed all the same: retries that have come due, a restart."""
        self.inherited = False
        """Whether the last process may have left retries whose time nobody here knows."""
        self.wakes: set[float] = set()
        """When it is looked for retries that have come due (loop time)."""
        self.stored = False
        """Whether the queue may hold callbacks of this host beyond those in memory."""
        self.loading = False
        self.missed = False
        self.ended: set[int] = set()
        """Callbacks that ended while a read of the queue was under way: it may still show them."""
        self.closed = False
        """Whether nobody is there to deliver to: what is owed waits in the queue."""


class Delivery:
    """See the module. Used by one event loop."""

    def __init__(self, queue: Queue, clock: Clock, settings: Webhooks, handlers: Mapping[str, Handler]) -> None:
        self._queue = queue
        self._ordered = queue.ordered
        self._clock = clock
        self._settings = settings
        self._handlers = handlers
        self._hosts: dict[str, _Host] = {}
        self._held = 0
        """Callbacks in memory, all hosts together."""
        self._chains: dict[str, list[Owed]] = {}
        """Callbacks that wait for the first attempt of an earlier one, by the message's SID."""
        self._active = 0
        self._starved: deque[str] = deque()
        """Hosts that could not begin because of the bound on all requests together."""
        self._coming = 0
        """The most callbacks that the reads under way may bring into memory."""
        self._unread: OrderedDict[str, None] = OrderedDict()
        """Hosts whose callbacks are read once there is room for them in memory, in the order of their coming."""
        self._loop = asyncio.get_running_loop()
        self._loads: set[asyncio.Task[None]] = set()
        self._stopped = False
        self._left: set[int] = set()
        """Partitions of the queue that another node delivers for, or is about to."""
        self._attempts: dict[int, float] = {}
        """When the attempts began that are under way or whose outcome is not recorded yet (monotonic)."""
        self.line = Line("callback")
        """A stage for each kind of callback."""
        self._idle = asyncio.Event()
        self._idle.set()
        self.delivered = 0
        self.failed = 0
        self.exhausted = 0

    async def recover(self, queue: Queue | None = None) -> None:
        """Take up what was owed when the last process ended; of `queue`, a partition of ours, only what is in that."""
        for name, _, due_ms in await (queue or self._queue).owed_hosts():
            self._host(name).inherited = True
            wait_ms = due_ms - self._clock.now_ms()
            self._later(name, 0.0 if self._is_beyond(wait_ms) else wait_ms / 1000)

    def leave(self, partition: int) -> None:
        """Begin nothing more of a partition of the queue: it is another node's, or will be when `busy` says no."""
        self._left.add(partition)
        # At once, not when its turn comes: by then the partition may be back, and what is kept here be old.
        for sid, chain in self._chains.items():
            self._chains[sid] = [item for item in chain if not self._has_gone(item)]
        for host in list(self._hosts.values()):
            gone = [item for item in host.ready if partition_of(item.id) == partition]
            if gone:
                host.ready = deque(item for item in host.ready if partition_of(item.id) != partition)
            for item in gone:
                self._let_go(host, item)
            self._pump(host)
        self._read_on()

    def _has_gone(self, item: Owed) -> bool:
        """Forget a callback behind another, if it is another node's now."""
        if partition_of(item.id) not in self._left:
            return False
        self._host(item.host).held.discard(item.id)
        self._held -= 1
        return True

    def enter(self, partition: int) -> None:
        """The partition is this node's (again); `recover` takes up what is in it."""
        self._left.discard(partition)

    def busy(self, partition: int) -> bool:
        """Whether attempts of a partition are under way."""
        return any(partition_of(one) == partition for one in self._attempts)

    async def stop(self, grace_s: float) -> None:
        """Begin nothing more; wait for attempts under way."""
        self._stopped = True
        try:
            await asyncio.wait_for(self._idle.wait(), grace_s)
        except TimeoutError:
            log.info("stopping with %d webhook requests under way; they are made again", self._active)

    def push(self, owed: Sequence[Owed]) -> None:
        """Callbacks were committed. Next: trunkline.webhooks.delivery.Delivery.settled"""
        for item in owed:
            host = self._host(item.host)
            if item.id in host.held:
                continue  # a read of the queue saw the commit before we were told of it
            if host.closed or host.stored or host.loading or len(host.held) >= self._most():
                host.stored = True
                host.missed = host.loading
            else:
                host.after = item.id
                self._hold(host, item)
        # A pump for each host at once would only find what the last one left.
        for name in {item.host for item in owed}:
            self._pump(self._hosts[name])

    def _most(self) -> int:
        """How many callbacks of one host may be in memory. Nobody overtakes those who wait for room."""
        if self._held < MAX_HELD // 2:
            return HEAD
        return 0 if self._unread or self._held >= MAX_HELD else SHARE

    # -- lanes -----------------------------------------------------------------------------------------------

    def _host(self, name: str) -> _Host:
        host = self._hosts.get(name)
        if host is None:
            if len(self._hosts) >= MAX_HOSTS:
                idle = [
                    h.name
                    for h in self._hosts.values()
                    if not (h.ready or h.active or h.stored or h.loading or h.wakes)
                ]
                for other in idle[: MAX_HOSTS // 10]:
                    del self._hosts[other]
            host = self._hosts[name] = _Host(name)
            host.closed = self.starts_closed(name)
        return host

    starts_closed: Callable[[str], bool] = staticmethod(lambda name: False)
    """Whether a lane that has not been seen yet is closed."""

    def set_lane(self, name: str, *, closed: bool) -> None:
        """Close a lane to which nothing can be delivered, or open it again; a closed lane burns no attempts."""
        host = self._host(name)
        host.closed = closed
        if closed:
            self._give_back(host)
        else:
            self._wake(name)

    def _give_back(self, host: _Host) -> None:
        """Forget what was not begun: it is read from the queue when the lane opens."""
        given, host.ready = host.ready, deque()
        for item in given:
            self._let_go(host, item)

    def _hold(self, host: _Host, item: Owed) -> None:
        """Keep a callback in memory, behind its predecessor if that has not been tried yet."""
        host.held.add(item.id)
        self._held += 1
        if not item.tries:
            chain = self._chains.get(item.sid)
            if chain is not None:
                chain.append(item)
                return
            self._chains[item.sid] = []
        host.ready.append(item)

    def _later(self, name: str, wait_s: float) -> None:
        """Look into the queue for a host's callbacks after so many seconds."""
        # Retries of a host that come due close together share a timer and a read: the memory and the reads that a host
        # which is down costs do not grow with what is owed to it.
        step = SOON_S if wait_s < 1.0 else 1.0
        at = (int((self._loop.time() + max(0.0, wait_s)) / step) + 1) * step
        host = self._host(name)
        if at not in host.wakes:
            host.wakes.add(at)
            self._loop.call_at(at, self._wake, name, at)

    def _wake(self, name: str, at: float = 0.0) -> None:
        host = self._host(name)
        host.wakes.discard(at)
        host.stored = host.rescan = True
        self._pump(host)

    def _pump(self, host: _Host) -> None:
        if host.closed:
            self._give_back(host)
            return
        settings = self._settings
        while host.ready and host.active < settings.per_host and self._active < settings.in_flight:
            if self._stopped:
                return
            item = host.ready.popleft()
            if self._left and partition_of(item.id) in self._left:
                self._let_go(host, item)
            else:
                self._begin(host, item)
        if host.ready and host.active < settings.per_host and host.name not in self._starved:
            self._starved.append(host.name)
        if host.stored and not host.loading and not self._stopped:
            self._read_more(host)

    def _read_more(self, host: _Host) -> None:
        """Begin to read more of a host's callbacks, or have it wait for room, if it has few in memory."""
        free = MAX_HELD - self._held - self._coming
        plenty = free > MAX_HELD // 2
        if len(host.held) > (HEAD if plenty else SHARE) // 4:
            return  # its next callback that is settled looks again
        count = min(PAGE, free) if plenty else SHARE
        if count > free:
            self._unread[host.name] = None
            return
        host.loading = True
        self._coming += count
        task = self._loop.create_task(self._load(host, count))
        self._loads.add(task)  # the loop itself keeps no reference
        task.add_done_callback(self._loads.discard)

    def _read_on(self) -> None:
        """There may be room again: read for the hosts that have waited longest."""
        while self._unread and MAX_HELD - self._held - self._coming >= SHARE:
            self._pump(self._host(self._unread.popitem(last=False)[0]))

    async def _load(self, host: _Host, count: int) -> None:
        """Read so many more of a host's callbacks from the queue."""
        # On a rescan those in memory come first, so ask for that many more.
        rescan = host.rescan or not self._ordered
        limit = count + len(host.held) if rescan else count
        after = 0 if rescan else host.after
        host.rescan = False
        now = self._clock.now_ms()
        try:
            found = await self._queue.owed(host.name, after, limit, now)
        except Exception:
            log.exception("owed callbacks could not be read; they are read again")
            host.loading = False
            host.ended.clear()
            self._later(host.name, LOAD_RETRY_S)
            self._loop.call_soon(self._read_on)
            return
        finally:
            self._coming -= count
        host.loading = False
        more = len(found) >= limit
        ours = [item for item in found if partition_of(item.id) not in self._left] if self._left else found
        new = [item for item in ours if item.id not in host.held and item.id not in host.ended]
        after = found[-1].id if found else host.after
        room = max(0, min(count, MAX_HELD - self._held))  # others have come meanwhile
        if len(new) > room:
            more, after = True, new[room].id - 1
        host.after = after if more else max(host.after, after)
        # What another node delivers is not read over and over until it has gone.
        host.stored = (more and bool(ours)) or host.missed or host.rescan
        host.missed = False
        for item in new[:room]:
            self._hold(host, item)
        host.ended.clear()
        self._pump(host)
        self._read_on()
        if host.inherited and not more:
            await self._look_ahead(host, now)

    async def _look_ahead(self, host: _Host, since_ms: int) -> None:
        """Find out when the next of the retries that the last process left comes due, after what a read of
        `since_ms` has found. One that no retry waits for so long comes from a clock that was ahead: it is due now."""
        try:
            found = await self._queue.owed(host.name, 0, PAGE, FAR_MS)
        except Exception:
            log.exception("owed callbacks could not be read; they are read again")
            self._later(host.name, LOAD_RETRY_S)
            return
        now = self._clock.now_ms()
        waits = []
        for item in (one for one in found if one.due_ms > since_ms):
            if not self._is_beyond(item.due_ms - now):
                waits.append(max(0, item.due_ms - now) / 1000)
            elif item.id not in host.held and partition_of(item.id) not in self._left:
                if self._held < MAX_HELD:
                    self._hold(host, item)
                else:
                    waits.append(LOAD_RETRY_S)  # it has no room yet
        self._pump(host)
        host.inherited = bool(waits) or len(found) >= PAGE
        if host.inherited:
            self._loop.call_later(min(waits, default=LOAD_RETRY_S) + 0.001, self._wake, host.name)

    def _is_beyond(self, wait_ms: int) -> bool:
        """Whether a wait is longer than any that is chosen here, by a clock that is right."""
        return wait_ms > 1000 * (LATEST * self._settings.retry_longest_s + AHEAD_S)

    def _let_go(self, host: _Host, item: Owed) -> None:
        """Forget a callback that is another node's now."""
        host.held.discard(item.id)
        self._held -= 1
        if self._unread:
            self._loop.call_soon(self._read_on)
        if not item.tries:
            self._next_in_chain(item.sid)

    # -- attempts --------------------------------------------------------------------------------------------

    def _begin(self, host: _Host, item: Owed) -> None:
        handler = self._handlers.get(item.kind)
        host.active += 1
        self._active += 1
        self._attempts[item.id] = monotonic()
        stage = self.line.stages.get(item.kind) or self.line.of_kind(item.kind)
        if not item.tries:
            stage.waited(max(0, self._clock.now_ms() - made_ms(item.id)) / 1000)
        self._idle.clear()
        if handler is None:
            self._done(host, item, Result([], False, error=f"no handler for callbacks of kind {item.kind}"))
        else:
            try:
                handler.begin(item, lambda result: self._done(host, item, result))
            except Exception:  # else its place would be taken for ever, and with enough of them the lane would stand
                log.exception("a callback of %s could not be begun", item.sid)
                failed = Result([], False, retry=True, error="internal failure")
                self._loop.call_soon(self._done, host, item, failed)

    def _done(self, host: _Host, item: Owed, result: Result) -> None:
        first = not item.tries
        self._measure(item, result)
        item.tries += 1
        item.attempts = append_attempts(item.attempts, result.attempts, self._settings.keep_attempts)
        if result.delivered:
            item.state = "delivered"
            self.delivered += 1
        else:
            self.failed += 1
            self._fail(item, result)
        when_done(self._queue.settle(item), lambda future: self.settled(host, item, future))
        if first:
            self._next_in_chain(item.sid)

    def _measure(self, item: Owed, result: Result) -> None:
        """An attempt has ended."""
        line = self.line
        stage = line.stages[item.kind]  # made when it began
        seconds = monotonic() - self._attempts[item.id]
        stage.left(seconds, not result.delivered)
        if line.tracer.exporting and TRACED in item.request:
            self._trace(item, stage, seconds, not result.delivered)

    def _trace(self, item: Owed, stage: Stage, seconds: float, failed: bool) -> None:
        given = msgspec.json.decode(item.request, type=_Traced).traceparent
        own = traceparent.attempt_span(item.id, item.tries)
        about = (("trunkline.sid", item.sid), ("trunkline.try", item.tries + 1))
        self.line.tracer.span(given, stage.span, seconds, failed=failed, own_id=own, attributes=about, kind=CLIENT)

    @property
    def under_way(self) -> int:
        """Attempts under way."""
        return self._active

    @property
    def in_memory(self) -> int:
        """Owed callbacks in memory: under way, ready, or behind another."""
        return self._held

    def _fail(self, item: Owed, result: Result) -> None:
        """Another attempt later, or the end of it."""
        bound = result.max_tries or self._settings.status_tries
        now = self._clock.now_ms()
        too_old = now - made_ms(item.id) > self._settings.give_up_s * 1000
        if result.retry and item.tries < bound and not too_old:
            wait = min(self._settings.retry_first_s * 2 ** (item.tries - 1), self._settings.retry_longest_s)
            item.due_ms = now + int(1000 * wait * random.uniform(EARLIEST, LATEST))
            return
        item.state = "exhausted"
        self.exhausted += 1
        handler = self._handlers.get(item.kind)
        if handler is not None:
            handler.exhausted(item, result)

    def _next_in_chain(self, sid: str) -> None:
        """The message's next callback need not wait any longer."""
        chain = self._chains.get(sid)
        if not chain:
            self._chains.pop(sid, None)
            return
        follower = chain.pop(0)
        host = self._host(follower.host)
        host.ready.append(follower)
        self._pump(host)

    def settled(self, host: _Host, item: Owed, future: "asyncio.Future[Any]") -> None:
        """The outcome is recorded (or could not be: then it is read from the queue and made again)."""
        host.active -= 1
        self._active -= 1
        self._attempts.pop(item.id, None)
        host.held.discard(item.id)
        self._held -= 1
        if host.loading:
            host.ended.add(item.id)
        if not self._active:
            self._idle.set()
        if future.cancelled() or future.exception() is not None:
            self._later(host.name, LOAD_RETRY_S)
        elif item.state == "owed":
            self._later(host.name, (item.due_ms - self._clock.now_ms()) / 1000)
        else:
            self.finished(item)
        self._pump(host)
        if self._starved and self._active < self._settings.in_flight:
            self._pump(self._host(self._starved.popleft()))
        if self._unread:
            self._read_on()

    finished: Callable[[Owed], None] = staticmethod(lambda owed: None)
    """Told of each callback that ended (its flight may land now)."""


def append_attempts(kept: bytes, new: Sequence[bytes], most: int) -> bytes:
    """A JSON array with `new` objects appended, the oldest dropped beyond `most`."""
    if not new:
        return kept
    if kept == b"[]":
        return b"[" + b",".join(new[-most:]) + b"]"
    all_of_them: list[msgspec.Raw] = [*msgspec.json.decode(kept, type=list[msgspec.Raw]), *map(msgspec.Raw, new)]
    return msgspec.json.encode(all_of_them[-most:])
