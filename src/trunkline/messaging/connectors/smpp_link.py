"""One bind to an SMSC, kept up, with its queue and its pace.

Theory. A message becomes a `Job`: its segments, and what became of them. A job waits in the queue of one link and
leaves it segment by segment, as the window, the pace of this bind (AIMD, after ESME_RTHROTTLED) and the carrier's own
limit allow. A segment that was throttled goes back to where it was in the queue, so that order is kept; a job that is
refused for longer than HOLD_S is handed back. What was sent and not answered when the connection goes is in doubt;
what was still in the queue is not: it moves to another link, or back to the dispatcher.
"""

import asyncio
import hashlib
import logging
import random
import socket
import ssl as ssl_module
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from trunkline.messaging.connectors.base import Outcome, Rejected, Submission, Submitted, Unavailable
from trunkline.messaging.connectors.smpp_errors import UNKNOWN_ERROR, Statuses
from trunkline.smpp import constants as c
from trunkline.smpp import events, transport
from trunkline.smpp import pdu as p
from trunkline.smpp.errors import ConnectError, EncodeError, SessionStateError, WindowFullError
from trunkline.smpp.session import Limits
from trunkline.smpp.throttle import Pacer
from trunkline.smpp.transport import Connection
from trunkline.smpp.transport import Outcome as Answer

HOLD_S: Final = 1.0
"""How long a message that the SMSC throttles is kept here before the dispatcher gets it back."""
LOOKAHEAD_S: Final = 0.1
"""What a paced link takes on ahead, in seconds of its pace."""
STEADY_S: Final = 5.0
"""A bind that stood for so long, or took a message, is renewed with the shortest wait."""
AHEAD: Final = 4
"""A quarter of the window waits behind it, lest that runs empty while the next are being claimed."""
FENCED_S: Final = 0.05
"""Between two looks whether this node may send again."""

log = logging.getLogger(__name__)


class Job:
    """One message on its way through a link."""

    __slots__ = ("failure", "held_since", "ids", "open", "order", "pdus", "submission", "taken", "todo", "trace")

    def __init__(self, submission: Submission, pdus: list[p.SubmitSm], order: int) -> None:
        self.submission = submission
        self.pdus = pdus
        self.order = order
        self.ids = [""] * len(pdus)
        self.todo = [*range(len(pdus) - 1, -1, -1)]
        """Segments to send, the next one last."""
        self.open = 0
        """Segments sent and not answered."""
        self.taken = 0
        """Segments the SMSC has accepted."""
        self.failure: Outcome | None = None
        self.held_since = 0.0
        """When the SMSC first throttled it; 0: it did not."""
        self.trace = ""


class Rate:
    """A limit in segments a second over all links; 0: none."""

    __slots__ = ("_burst", "_next_at", "_step", "per_s")

    def __init__(self, per_s: float) -> None:
        self.per_s = per_s
        self._step = 1.0 / per_s if per_s else 0.0
        self._burst = LOOKAHEAD_S / 2
        self._next_at = 0.0

    def delay(self, now: float) -> float:
        """Seconds until the next segment may go; 0 or less: now."""
        return self._next_at - self._burst - now if self._step else 0.0

    def spent(self, now: float) -> None:
        """A segment has gone."""
        if self._step:
            self._next_at = max(self._next_at, now) + self._step


class Owner(Protocol):
    """What a link needs of its connector."""

    name: str
    rate: Rate
    statuses: Statuses
    normal_id: Callable[[str], str]
    may_send: Callable[[], bool]
    """Asked before each segment, and before whatever else is written."""

    def finished(self, job: Job, outcome: Outcome) -> None:
        """A job has its outcome."""

    def orphaned(self, job: Job) -> None:
        """It waits in no queue any more, and nothing of it is unanswered: the link is down."""

    def delivered(self, connection: Connection, sequence: int, pdu: p.Request) -> None:
        """The SMSC has sent a request, to be answered when it is kept."""

    def changed(self) -> None:
        """Capacity may have grown."""


class Link(transport.Handler):
    """See the module. `sends` is False for a receiver."""

    def __init__(
        self,
        owner: Owner,
        label: str,
        bind: p.Bind,
        address: tuple[str, int],
        ssl: ssl_module.SSLContext | None,
        limits: Limits,
        backoff: tuple[float, float],
    ) -> None:
        self.label = label
        self.sends = not isinstance(bind, p.BindReceiver)
        self._owner = owner
        self._bind = bind
        self._address = address
        self._ssl = ssl
        self._limits = limits
        self._backoff = backoff
        self._loop = asyncio.get_running_loop()
        self.connection: Connection | None = None
        """The bound connection."""
        self.state = "not connected yet"
        """For the operator."""
        self.open = 0
        """Segments sent and not answered."""
        self.queued = 0
        """Segments that wait here."""
        self._queue: deque[Job] = deque()
        self._pacer = Pacer(self._loop.time())
        self._worked = False
        """Whether this connection has taken anything."""
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self.given: tuple[socket.socket, bytes] | None = None
        """The connection of the process before this one, still bound, and its state."""

    @property
    def mark(self) -> str:
        """What tells whether two links are bound alike, as whom and where."""
        return hashlib.sha256(repr((self.label, self._address, self._ssl is None, self._bind)).encode()).hexdigest()

    # -- the bind ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Bind, and bind again whenever the connection ends."""
        self._task = self._loop.create_task(self._keep_up())

    async def _keep_up(self) -> None:
        failures = 0
        while True:
            began = self._loop.time()
            try:
                connection = await self._connected()
            except ConnectError as error:
                reason = str(error)
            except Exception as error:  # whatever it is, the carrier is tried again
                log.exception("%s: %s cannot connect", self._owner.name, self.label)
                reason = f"{type(error).__name__}: {error}"
            else:
                began = self._loop.time()
                self._up(connection)
                reason = await asyncio.shield(connection.closed)
            if self.state == "up" and (self._worked or self._loop.time() - began >= STEADY_S):
                failures = 0
            self._down(reason)
            first, longest = self._backoff
            await asyncio.sleep(min(longest, first * 2.0 ** min(failures, 32)) * random.uniform(0.5, 1.0))
            failures += 1

    async def _connected(self) -> Connection:
        """Bound. Raises ConnectError."""
        given, self.given = self.given, None
        if given is not None:
            log.info("%s: %s goes on as the process before left it", self._owner.name, self.label)
            return await transport.resume(*given, self, self._limits, self._owner.may_send)
        return await transport.connect(
            *self._address,
            self._bind,
            self,
            limits=self._limits,
            ssl=self._ssl,
            server_hostname=self._address[0],
            gate=self._owner.may_send,
        )

    def _up(self, connection: Connection) -> None:
        if not connection.bound:
            return
        log.info("%s: %s bound to %s", self._owner.name, self.label, connection.peer)
        self.connection = connection
        self.state = "up"
        self._worked = False
        self._pacer = Pacer(self._loop.time())
        self._owner.changed()

    def _down(self, reason: str) -> None:
        if self.state != reason:
            log.warning("%s: %s is down: %s", self._owner.name, self.label, reason)
        self.state = reason
        self._abandon()

    def on_closed(self, connection: Connection, reason: str) -> None:
        """What was unanswered has failed by now; the rest must not wait for the reconnect."""
        if connection is self.connection:
            self._abandon()

    def _abandon(self) -> None:
        """The connection is gone: give away what was not sent."""
        self.connection = None
        jobs = [*self._queue]
        self._queue.clear()
        self.queued = 0
        for job in jobs:
            self._owner.orphaned(job)

    async def let_go(self, timeout_s: float) -> tuple[int, bytes] | None:
        """As `stop`, but where it can be the bind is left to another process: see `transport.Connection.let_go`."""
        left = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self.connection is not None:
            left = await self.connection.let_go(timeout_s)
        await self.stop(timeout_s)
        return left

    async def stop(self, timeout_s: float) -> None:
        """Unbind and close; what is still unanswered then is in doubt."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        connection = self.connection
        self.state = "stopped"
        if connection is not None:
            connection.close()
            await asyncio.wait((connection.closed,), timeout=timeout_s)
            if not connection.closed.done():
                connection.abort("stopped")
        self._abandon()

    def cut(self, reason: str) -> None:
        """End without a word to the SMSC, at once; what is unanswered is in doubt."""
        if self._task is not None:
            self._task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self.state = reason
        if self.connection is not None:
            self.connection.reset(reason)
        self._abandon()

    @property
    def is_up(self) -> bool:
        """Whether it is bound, and its SMSC not silent."""
        return self.connection is not None and not self.connection.silent

    # -- what it takes ----------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """Segments this link takes on now: the window, and what waits behind it."""
        if not self.is_up:
            return 0
        window = self._limits.window
        free = window + window // AHEAD - self.open - self.queued
        pace = self._pacer.rate
        if pace is not None:
            free = min(free, max(1, int(pace * LOOKAHEAD_S)) - self.queued)
        return max(0, free)

    @property
    def pace(self) -> float | None:
        """Segments a second while the SMSC throttles; None: as many as the window lets through."""
        return self._pacer.rate

    def take(self, job: Job) -> None:
        """Put a job at its place in the queue, which is at the end unless it has been here before."""
        queue = self._queue
        self.queued += len(job.todo)
        if not queue or queue[-1].order < job.order:
            queue.append(job)
        else:
            self._insert(job)
        self.pump()

    def _insert(self, job: Job) -> None:
        """Jobs that come back are older than most that waits, so their place is near the front."""
        older: list[Job] = []
        while self._queue and self._queue[0].order < job.order:
            older.append(self._queue.popleft())
        self._queue.appendleft(job)
        self._queue.extendleft(reversed(older))

    # -- sending ----------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Send what may be sent now."""
        connection = self.connection
        queue = self._queue
        if connection is None or not queue:
            return
        now = self._loop.time()
        rate = self._owner.rate
        while queue and connection.room > 0:
            wait = max(self._pacer.delay(now), rate.delay(now))
            if wait > 0:
                self._pump_in(wait)
                return
            if not self._owner.may_send():
                self._pump_in(FENCED_S)
                return
            job = queue[0]
            index = job.todo.pop()
            if not job.todo:
                queue.popleft()
            self.queued -= 1
            if not self._send(connection, job, index, now):
                return

    def _send(self, connection: Connection, job: Job, index: int, now: float) -> bool:
        try:
            sequence = connection.submit(job.pdus[index], self._answered, (job, index))
        except EncodeError as error:
            self._fail(job, Rejected(UNKNOWN_ERROR, f"cannot be written as SMPP: {error}"[:200], try_elsewhere=True))
            return True
        except (SessionStateError, WindowFullError):  # it is closing: `on_closed` gives the queue away
            self._put_back(job, index)
            return False
        if not job.trace:
            job.trace = f"{self.label}#{sequence}"
        self._pacer.sent(now)
        self._owner.rate.spent(now)
        self.open += 1
        job.open += 1
        return True

    def _put_back(self, job: Job, index: int) -> None:
        job.todo.append(index)
        self.queued += 1
        if len(job.todo) == 1:
            self._insert(job)

    def _pump_in(self, wait_s: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(wait_s, self._pump_now)

    def _pump_now(self) -> None:
        self._timer = None
        self.pump()
        self._owner.changed()

    def on_request(self, connection: Connection, sequence: int, pdu: p.Request) -> None:
        """The SMSC delivers something."""
        self._owner.delivered(connection, sequence, pdu)

    def on_room(self, connection: Connection) -> None:
        """The peer reads again, or the window has room, or a silence has ended."""
        self.pump()
        self._owner.changed()

    # -- answers ----------------------------------------------------------------------------------------------

    def _answered(self, context: tuple[Job, int], answer: Answer) -> None:
        job, index = context
        if isinstance(answer, events.ResponseReceived):
            if answer.late:
                return  # the message is in doubt already, and its policy has been applied
            self.open -= 1
            job.open -= 1
            response = answer.pdu
            if type(response) is p.SubmitSmResp and not response.status:
                self._pacer.accepted(self._loop.time())
                job.ids[index] = self._owner.normal_id(response.message_id)
                job.taken += 1
                self._worked = True
                if job.taken == len(job.ids):
                    self._owner.finished(job, Submitted(job.ids, trace=job.trace))
                elif job.failure is not None:
                    self._settle(job)
            else:
                self._refused(job, index, response.status or c.ESME_RUNKNOWNERR)
        else:
            self.open -= 1
            job.open -= 1
            reason = "no answer in time" if answer.reason == "timeout" else "connection lost before the answer"
            self._fail(job, Unavailable(reason, in_doubt=True, sent_segments=job.taken))
            if self.connection is not None and self.connection.silent:
                self.hand_back_all(Unavailable("the SMSC has fallen silent", burns_attempt=False))
        if self._queue:
            self.pump()

    def _refused(self, job: Job, index: int, status: int) -> None:
        meaning = self._owner.statuses.meaning(status)
        if status == c.ESME_RINVBNDSTS and self.connection is not None:
            self.connection.close()  # the SMSC has lost this bind: make a new one
        if meaning.kind != "throttle" or job.failure is not None:
            self._fail(job, meaning.outcome(job.taken))
            return
        now = self._loop.time()
        self._pacer.throttled(now)
        job.held_since = job.held_since or now
        if now - job.held_since >= HOLD_S or self.connection is None:
            self._fail(job, meaning.outcome(job.taken))
        else:
            self._put_back(job, index)
        self._hand_back(meaning.outcome(0))

    def hand_back_all(self, outcome: Outcome) -> None:
        """Keep only messages of which something has been sent."""
        for job in [job for job in self._queue if not job.open and not job.taken]:
            self._fail(job, outcome)

    def _hand_back(self, outcome: Outcome) -> None:
        """Keep no more than goes out within HOLD_S at the pace that is left."""
        keep = max(1, int((self._pacer.rate or 0.0) * HOLD_S))
        while len(self._queue) > keep and not self._queue[-1].open and not self._queue[-1].taken:
            self._fail(self._queue[-1], outcome)

    def _fail(self, job: Job, outcome: Outcome) -> None:
        """Send no more of a job; its outcome is told once nothing of it is unanswered."""
        if job.failure is None or _weight(outcome) > _weight(job.failure):
            job.failure = outcome
        if job.todo:
            self.queued -= len(job.todo)
            job.todo.clear()
            if self._queue[-1] is job:
                self._queue.pop()
            else:
                self._queue.remove(job)
        self._settle(job)

    def _settle(self, job: Job) -> None:
        if not job.open and job.failure is not None:
            self._owner.finished(job, job.failure)


def _weight(outcome: Outcome) -> int:
    """Which of several segments' failures tells for the message: a refusal is certain, a doubt must be declared."""
    if isinstance(outcome, Rejected):
        return 2
    return 1 if isinstance(outcome, Unavailable) and outcome.in_doubt else 0
