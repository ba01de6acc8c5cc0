"""A carrier that one node of a cluster talks to: SMPP binds belong to whoever holds the connector's lease.

Every node has the connector; the holder runs the real one, the others hand it their submits and get its outcomes
(trunkline.messaging.across is the other end). The lease moves when its holder dies or hands over: then the real one is
made here, or stopped. What was on its way to a holder that died is in doubt, as an answer lost on the wire is.

A node that is cut off from the others but not from its carrier must not keep the bind either: the carrier would go on
giving it what it cannot store, and one that takes a single bind refuses the heir. So a holder whose fence has been shut
for a moment lets the binds drop (`cut`), and binds again when its fence opens again with the lease still its own
(`mend`), or when the lease comes back to it (`gain`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from trunkline.cluster.peers import PeerError, PeerUnavailable
from trunkline.messaging.connectors.base import Connector, Outcome, Rejected, Sink, Submission, Submitted, Unavailable
from trunkline.model import message as codec

MAX_LENT: Final = 256
"""Submits of one connector under way to its holder, or its window, if that is less."""
MAX_WAITING: Final = 4096
"""Submits of other nodes that wait for room at the holder; more are refused."""
ROOM_S: Final = 10.0
"""Longest wait for room at the holder; then the submit was not made, and is offered again."""
TURNS: Final = 3
"""When there is room, other nodes' submits go first so many times less one, then this node's go first once."""
ANSWER_S: Final = 90.0
"""Longest wait for an outcome: longer than any carrier's response timeout; then it is in doubt."""
NOT_DONE: Final = frozenset({"busy", "unknown-kind"})
"""Codes of a peer that did not act."""
LOOK_S: Final = 1.0
"""How often the holder is asked how its carrier is."""
LOOK_WAIT_S: Final = 2.0
AGAIN_S: Final = 0.25
"""Wait before a submit that nobody took is offered again."""
SUBMIT, HEALTH = "connector/submit", "connector/health"

log = logging.getLogger(__name__)


@runtime_checkable
class Cuttable(Protocol):
    """A connector that can end without a word to its carrier."""

    def cut(self, reason: str) -> None:
        """End at once; nothing more is sent."""


class Holders(Protocol):
    """Who holds what, and the way there (trunkline.bootstrap_cluster)."""

    def holder(self, connector: str) -> str | None:
        """The node that holds a connector, if it is known and another one."""

    def call(self, node: str, kind: str, payload: bytes, timeout_s: float) -> Awaitable[bytes]:
        """`trunkline.cluster.peers.Peers.call`."""

    def open(self) -> bool:
        """Whether this node may send."""


class Handed(msgspec.Struct, array_like=True):
    """A submit that crosses."""

    connector: str
    sender: str
    message: bytes


class Told(msgspec.Struct, array_like=True):
    """Its outcome: one of the three."""

    submitted: Submitted | None = None
    rejected: Rejected | None = None
    unavailable: Unavailable | None = None

    @classmethod
    def of(cls, outcome: Outcome) -> "Told":
        """For the wire."""
        if isinstance(outcome, Submitted):
            return cls(submitted=outcome)
        return cls(rejected=outcome) if isinstance(outcome, Rejected) else cls(unavailable=outcome)

    def outcome(self) -> Outcome:
        """As a connector tells it."""
        return self.submitted or self.rejected or self.unavailable or Unavailable("no outcome", in_doubt=True)


class Health(msgspec.Struct, array_like=True):
    """What a holder says of its carrier."""

    up: bool
    text: str


encode: Final = msgspec.msgpack.Encoder().encode
_decode_told: Final = msgspec.msgpack.Decoder(Told).decode
_decode_health: Final = msgspec.msgpack.Decoder(Health).decode
_FENCED: Final = Unavailable("this node may not send now", burns_attempt=False, retry_after_s=AGAIN_S)
_NO_ROOM: Final = Unavailable("no room", burns_attempt=False, retry_after_s=AGAIN_S)


class LeasedConnector:
    """See the module. `make` builds the real connector anew each time that the lease comes here. `window`: the
    carrier's, of all binds together: this node lends no more, so that no more is in doubt when the holder dies."""

    def __init__(self, name: str, make: Callable[[], Connector], holders: Holders, window: int = MAX_LENT) -> None:
        self.name = name
        self._most = min(window, MAX_LENT)
        self._make = make
        self._holders = holders
        self.real: Connector | None = None
        """While this node holds the lease, and may use it."""
        self._ours = False
        """Whether the lease is this node's."""
        self._sink: Sink | None = None
        self._wake: Callable[[], None] = lambda: None
        self._lent = 0
        self._resting = False
        self._waiting: dict[int, tuple[str, Submission, float]] = {}
        """Other nodes' submits, in their order, whose they are, and when they go back (the loop's clock)."""
        self._give_back: asyncio.TimerHandle | None = None
        """For the first of them."""
        self._admitted = 0
        self._turn = 0
        self._health = Health(False, "not asked yet")
        self._look: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # -- base.Connector ---------------------------------------------------------------------------------------

    def start(self, sink: Sink, wake: Callable[[], None]) -> None:
        """See `base.Connector`; the binds come with the lease."""
        self._sink, self._wake = sink, wake
        self._look = asyncio.get_running_loop().create_task(self._keep_looking())
        if self.real is not None:
            self.real.start(sink, self._woken)

    def capacity(self) -> int:
        """See `base.Connector`."""
        if self.real is not None:
            return self.real.capacity() if self._holders.open() else 0
        if self._resting or not self._health.up or self._holders.holder(self.name) is None:
            return 0
        return self._most - self._lent

    def submit(self, submission: Submission) -> None:
        """See `base.Connector`."""
        if not self._holders.open():
            asyncio.get_running_loop().call_soon(submission.done, _FENCED)
        elif self.real is not None:
            self.real.submit(submission)
        else:
            self._lent += 1
            self._spawn(self._lend(submission))

    async def stop(self, grace_s: float) -> None:
        """See `base.Connector`."""
        if self._look is not None:
            self._look.cancel()
            await asyncio.gather(self._look, return_exceptions=True)
        await self.lose(grace_s)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for task in list(self._tasks):
            task.cancel()
        self._sink = None

    def health(self) -> tuple[bool, str]:
        """See `base.Connector`; of a carrier that another node holds, what that one said last."""
        if self.real is not None:
            return self.real.health()
        holder = self._holders.holder(self.name)
        if holder is None:
            return False, "no node holds its binds"
        return self._health.up, f"held by {holder}: {self._health.text}"

    # -- the lease --------------------------------------------------------------------------------------------

    def gain(self) -> None:
        """The lease is ours: bind."""
        self._ours = True
        if self.real is None:
            self.real = self._make()
            if self._sink is not None:
                self.real.start(self._sink, self._woken)
            self._wake()

    async def lose(self, grace_s: float = 0.0) -> None:
        """The lease is handed over: unbind, after the answers under way, `grace_s` at most."""
        self._ours = False
        real, self.real = self.real, None
        self._refuse(list(self._waiting))
        if real is not None:
            await real.stop(grace_s)

    def drop(self) -> None:
        """The lease is another's already: end the binds without a word."""
        self._ours = False
        self.cut("another node has this carrier's binds")

    def cut(self, reason: str) -> None:
        """This node may not send: end the binds without a word. The lease may still be its own (`mend`)."""
        real, self.real = self.real, None
        self._refuse(list(self._waiting))
        if real is None:
            return
        log.warning("%s: the binds are dropped: %s", self.name, reason)
        if isinstance(real, Cuttable):
            real.cut(reason)
        self._spawn(real.stop(0.0))

    def mend(self) -> None:
        """This node may send again: bind, if the lease was its own all the time, or go on with what came meanwhile."""
        if self.real is not None:
            self._woken()
        elif self._ours:
            self.gain()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- for others -------------------------------------------------------------------------------------------

    def admit(self, node: str, submission: Submission) -> None:
        """Another node's, which waits its turn for room, ROOM_S at most: to refuse it would cost its owner two commits
        and a new try, and where others are quicker it would never get through."""
        if self.real is None or not self._holders.open() or len(self._waiting) >= MAX_WAITING:
            submission.done(_NO_ROOM)
            return
        self._admitted += 1
        loop = asyncio.get_running_loop()
        self._waiting[self._admitted] = node, submission, loop.time() + ROOM_S
        self._serve()
        if self._waiting and self._give_back is None:
            self._give_back = loop.call_later(ROOM_S, self._overdue)

    def _woken(self) -> None:
        """There is room, which this node and those that wait here share by turns."""
        if not self._waiting:
            self._wake()
            return
        self._turn = (self._turn + 1) % TURNS
        if self._turn:
            self._serve()
        self._wake()
        asyncio.get_running_loop().call_soon(self._serve)  # once this node has taken what it wants

    def _serve(self) -> None:
        real = self.real
        while self._waiting and real is not None and self._holders.open() and real.capacity() > 0:
            real.submit(self._waiting.pop(next(iter(self._waiting)))[1])

    def forget(self, node: str) -> None:
        """A node has gone: its heir offers its messages again."""
        self._refuse([number for number, (whose, _, _) in self._waiting.items() if whose == node])

    def _overdue(self) -> None:
        """Give back what has waited too long; one timer serves all, for they come due in their order."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._refuse([number for number, (_, _, at) in self._waiting.items() if at <= now])
        first = next(iter(self._waiting.values()), None)
        self._give_back = loop.call_at(first[2], self._overdue) if first else None

    def _refuse(self, numbers: list[int]) -> None:
        for number in numbers:
            waiting = self._waiting.pop(number, None)
            if waiting is not None:
                waiting[1].done(_NO_ROOM)

    # -- another's --------------------------------------------------------------------------------------------

    async def _lend(self, submission: Submission) -> None:
        outcome: Outcome
        holder = self._holders.holder(self.name)
        try:
            if holder is None:
                raise PeerUnavailable("no node holds the carrier's binds", sent=False)
            handed = Handed(self.name, submission.sender, codec.encode(submission.message))
            outcome = _decode_told(await self._holders.call(holder, SUBMIT, encode(handed), ANSWER_S)).outcome()
        except PeerUnavailable as error:
            if error.sent:
                outcome = Unavailable(f"node {holder}: {error}", in_doubt=True)
            else:
                outcome = Unavailable(str(error), burns_attempt=False, retry_after_s=AGAIN_S)
        except PeerError as error:
            if error.code in NOT_DONE:
                outcome = Unavailable(str(error), burns_attempt=False, retry_after_s=AGAIN_S)
            else:
                outcome = Unavailable(f"node {holder}: {error}", in_doubt=True)
        except msgspec.MsgspecError as error:
            outcome = Unavailable(f"node {holder}: {error}", in_doubt=True)
        except asyncio.CancelledError:
            outcome = Unavailable("this node stops", in_doubt=True)
        self._lent -= 1
        if isinstance(outcome, Unavailable) and not outcome.burns_attempt and not self._resting:
            self._resting = True
            asyncio.get_running_loop().call_later(max(AGAIN_S, outcome.retry_after_s), self._rested)
        try:
            submission.done(outcome)
        except Exception:
            log.exception("%s: the outcome of %s was not taken", self.name, submission.message.sid)
        self._wake()

    def _rested(self) -> None:
        self._resting = False
        self._wake()

    async def _keep_looking(self) -> None:
        """Know how the holder's carrier is: routes avoid one that is down."""
        while True:
            holder = self._holders.holder(self.name) if self.real is None else None
            if holder is not None:
                was = self._health.up
                try:
                    answer = await self._holders.call(holder, HEALTH, self.name.encode(), LOOK_WAIT_S)
                    self._health = _decode_health(answer)
                except (PeerUnavailable, PeerError, msgspec.MsgspecError) as error:
                    self._health = Health(False, str(error))
                if self._health.up and not was:
                    self._wake()
            await asyncio.sleep(LOOK_S)
