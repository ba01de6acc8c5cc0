"""Lanes: who may send next.

A lane holds the waiting messages of one connector, account and sender. Only the head of a lane is in memory (HEAD
messages); the rest lies in the queue and is read when the head runs low, so 100,000 waiting messages cost no memory.
Lanes of one connector take turns by account, so a busy account never starves another; a lane that has used its
sender's rate steps aside until its time comes, so a slow sender never blocks another. All lanes of an account, over all
connectors, share the account's own rate; when it is used up they step aside together.

No I/O here: the dispatcher asks `next_ready`, tells `push` and `loaded`, and passes the time (monotonic seconds).
"""

import heapq
import random
from collections import OrderedDict, deque

from trunkline.inflight.store import Live

HEAD = 64
"""Messages of one lane kept in memory."""
BURST_S = 0.02
"""Seconds of its rate that a sender may catch up at once, so that a fast one need not be woken for each message."""


def lane_name(connector: str, account: str, sender: str) -> str:
    """The name under which the queue keeps a lane."""
    return f"{connector}|{account}|{sender}"


def lane_parts(name: str) -> tuple[str, str, str]:
    """(connector, account, sender) of a lane's name."""
    connector, account, sender = name.split("|", 2)
    return connector, account, sender


class Pace:
    """An account's own rate, shared by its lanes."""

    __slots__ = ("next_at", "paused", "rate")

    def __init__(self, rate: float = 0.0) -> None:
        self.rate = rate
        """Segments a second; 0: no limit."""
        self.next_at = 0.0
        """Monotonic seconds before which it allows nothing."""
        self.paused = 0
        """Connectors where lanes wait for it: nothing may skip the line then."""


class Lane:
    """One lane's head, and what is known of the rest."""

    __slots__ = (
        "account",
        "head",
        "held",
        "loading",
        "missed",
        "name",
        "next_at",
        "pace",
        "queued",
        "rate",
        "sender",
        "stored",
        "wake_at",
    )

    def __init__(self, name: str, rate: float, pace: Pace | None = None) -> None:
        self.name = name
        self.pace = pace or Pace()
        _, self.account, self.sender = lane_parts(name)
        self.head: deque[Live] = deque()
        self.held: set[int] = set()
        """Ids that left the head but may still show in the queue as waiting (claims under way)."""
        self.stored = False
        """Whether the queue may hold messages of this lane beyond the head."""
        self.loading = False
        self.missed = False
        """Whether something was committed behind the back of a read under way."""
        self.rate = rate
        """Segments a second; 0: no limit."""
        self.next_at = 0.0
        """Monotonic seconds before which the sender's rate allows nothing."""
        self.wake_at = 0.0
        """Monotonic seconds at which a stored message comes due; 0: nothing known."""
        self.queued = False
        """Whether it stands in the rotation."""

    def push(self, live: Live) -> None:
        """A message was committed to this lane."""
        if self.stored or self.loading or len(self.head) >= HEAD:
            self.stored = True
            self.missed = self.loading
        else:
            self.head.append(live)

    def loaded(self, lives: list[Live], more: bool) -> None:
        """What a read of the queue found, oldest first. `more`: there may be others."""
        self.loading = False
        known = {live.id for live in self.head} | self.held
        self.head.extend(live for live in lives if live.id not in known)
        self.stored = more or self.missed
        self.missed = False

    def wants_load(self) -> bool:
        """Whether the head runs low and the queue has more."""
        return self.stored and not self.loading and len(self.head) <= HEAD // 4

    def spend(self, segments: int, now: float) -> None:
        """Use up the sender's rate, and the account's, for one message."""
        if self.rate > 0:
            self.next_at = max(self.next_at, now - BURST_S) + segments / self.rate
        pace = self.pace
        if pace.rate > 0:
            pace.next_at = max(pace.next_at, now - BURST_S) + segments / pace.rate

    def may_skip(self, now: float) -> bool:
        """Whether nobody is before a new message, and the rates allow it."""
        pace = self.pace
        busy = self.head or self.stored or self.loading or pace.paused
        return not busy and self.next_at <= now and pace.next_at <= now


class Rotation:
    """The lanes of one connector, taking turns by account."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[str, deque[Lane]] = OrderedDict()
        self._paused: dict[str, deque[Lane]] = {}
        """Ready lanes of accounts whose own rate is used up."""
        self._resting: list[tuple[float, int, Lane | str]] = []
        """When the time of a lane, or of a paused account, comes."""
        self._serial = 0

    def offer(self, lane: Lane, now: float) -> None:
        """Put a lane with a head into the rotation (once), or to rest until its rate allows."""
        if lane.queued or not lane.head:
            return
        lane.queued = True
        if lane.next_at > now:
            self._rest(lane.next_at, lane)
        else:
            lanes = self._accounts.get(lane.account) or self._paused.get(lane.account)
            if lanes is None:
                lanes = self._accounts[lane.account] = deque()
            lanes.append(lane)

    def _rest(self, until: float, who: Lane | str) -> None:
        self._serial += 1
        heapq.heappush(self._resting, (until, self._serial, who))

    def _pause(self, account: str, lanes: deque[Lane]) -> None:
        """Let all lanes of an account rest. By a bit of chance, which the burst makes up for, connectors that share the
        account's rate take turns."""
        pace = lanes[0].pace
        pace.paused += 1
        del self._accounts[account]
        self._paused[account] = lanes
        self._rest(pace.next_at + random.uniform(0, BURST_S), account)

    def _resume(self, account: str) -> None:
        lanes = self._paused.pop(account)
        lanes[0].pace.paused -= 1
        self._accounts[account] = lanes

    def next_ready(self, now: float) -> Lane | None:
        """The lane whose turn it is; it leaves the rotation and is offered again after use."""
        resting = self._resting
        while resting and resting[0][0] <= now:
            who = heapq.heappop(resting)[2]
            if isinstance(who, str):
                self._resume(who)
            else:
                who.queued = False
                self.offer(who, now)
        accounts = self._accounts
        while accounts:
            account, lanes = next(iter(accounts.items()))
            if lanes[0].pace.next_at > now:
                self._pause(account, lanes)
                continue
            lane = lanes.popleft()
            if lanes:
                accounts.move_to_end(account)
            else:
                del accounts[account]
            lane.queued = False
            if lane.head:
                return lane
        return None

    @property
    def is_idle(self) -> bool:
        """Whether no lane waits for its turn now (some may rest)."""
        return not self._accounts

    def next_time(self) -> float | None:
        """When the next resting lane's or account's time comes (monotonic seconds)."""
        return self._resting[0][0] if self._resting else None
