"""What connectors over HTTP share: one request a message, its outcome, pauses, and the carrier's own requests.

A connector derives from `HttpExchange` and says two things: `prepare` writes the request of a message, `judge` reads
the carrier's answer. Whether a failed request may have reached the carrier decides between "not taken" and "in doubt":
only a request that was never written to a connection surely did not.
"""

import abc
import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple

from trunkline.messaging.connectors.base import Outcome, Rejected, Sink, Submission, Unavailable
from trunkline.messaging.connectors.gate import Gate
from trunkline.messaging.connectors.incoming import Answer, Door, Record
from trunkline.messaging.connectors.table import Context, Timer, Timers
from trunkline.settings import Http, Twilio
from trunkline.webhooks.connection import Exchange, Response, Timeouts
from trunkline.webhooks.failures import ConnectionFailed, Failure, InvalidUrl, ProtocolError, ReadTimeout
from trunkline.webhooks.guard import Guard
from trunkline.webhooks.http import Client, Origin, build_request
from trunkline.webhooks.target import Target, target

EVERYWHERE: Final = ("0.0.0.0/0", "::/0")
"""The operator chose the carrier's address himself, so private networks are as good as any."""
CONNECT_TIMEOUT_S: Final = 5.0
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_RETRY_AFTER_S: Final = 300.0
UNKNOWN_ERROR: Final = 30008
ABOUT_THE_MESSAGE: Final = frozenset(
    {21211, 21214, 21265, 21602, 21604, 21605, 21610, 21614, 21617, 21619, 21620, 21623}
    | {30004, 30005, 30006, 30007, 30019}
)
"""Errors that every carrier would repeat; after any other refusal another route may still take the message."""
_NEVER: Final = -1.0
"""`Exchange.connected` of a request that no connection has taken."""

log = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """A request ready to be sent."""

    url: str
    method: str
    headers: Sequence[tuple[str, str]]
    body: bytes


class _Client(Client):
    """A kept-alive connection that dies under a request may have delivered it: that is told, never tried again."""

    def restart(self, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        exchange.connected = exchange.started
        exchange.finish(ConnectionFailed("the kept-alive connection was closed before any response"), loop)


class HttpExchange(abc.ABC):
    """See the module."""

    def __init__(self, settings: Http | Twilio, context: Context) -> None:
        self.name = settings.name
        self._public_url = context.public_url
        self._clock = context.clock
        self._timers = context.timers
        self._timeouts = Timeouts(min(CONNECT_TIMEOUT_S, settings.timeout_s), settings.timeout_s, settings.timeout_s)
        self._gate = Gate(settings.window, settings.mps, context.clock.monotonic())
        # One for each submit under way, one for each that is still closing: none ever waits for a connection.
        most = 2 * settings.window + 1
        self._client = _Client(max_per_host=most, max_total=most)
        self._guard = Guard(EVERYWHERE)
        self._door = Door(self.name, self.read, self.thanks)
        self._wake: Callable[[], None] = lambda: None
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._looking_up: set[asyncio.Task[None]] = set()
        self._running = False
        self._idle = asyncio.Event()
        self._trouble = ""
        """What is wrong at the carrier, in words; empty: nothing."""

    # -- what a kind of carrier says ------------------------------------------------------------------------

    @abc.abstractmethod
    def prepare(self, submission: Submission) -> Prepared | Rejected:
        """The request that submits a message."""

    @abc.abstractmethod
    def judge(self, response: Response) -> Outcome:
        """What the carrier's answer means."""

    @abc.abstractmethod
    def read(
        self, kind: str, method: str, headers: Mapping[bytes, bytes], query: bytes, body: bytes
    ) -> Sequence[Record]:
        """The receipts or inbound messages of the carrier's own request. Raises incoming.Refused."""

    def thanks(self, kind: str) -> Answer:
        """The answer to a request that was kept."""
        return 200, ((b"content-type", b"text/plain; charset=utf-8"),), b"OK"

    # -- base.Connector -------------------------------------------------------------------------------------

    def capacity(self) -> int:
        """See `base.Connector`."""
        if not self._running:
            return 0
        room = self._gate.room(self._clock.monotonic())
        if not room:
            self._wake_later()
        return room

    def submit(self, submission: Submission) -> None:
        """See `base.Connector`."""
        now = self._clock.monotonic()
        self._gate.took(submission.message.num_segments, now)
        if not self._running:
            self._soon(submission, Unavailable("the connector is not running", burns_attempt=False))
            return
        if self._gate.mps:
            self._wake_later()
        try:
            prepared = self.prepare(submission)
            if isinstance(prepared, Rejected):
                self._soon(submission, prepared)
                return
            where = target(prepared.url)
            payload = build_request(prepared.method, where.path, where.host_header, prepared.headers, prepared.body)
        except InvalidUrl as error:
            self._soon(submission, Rejected(UNKNOWN_ERROR, str(error), try_elsewhere=True))
            return
        except Exception as error:
            log.exception("%s: the request for %s could not be written", self.name, submission.message.sid)
            self._soon(submission, Rejected(UNKNOWN_ERROR, f"not written: {error}"[:200], try_elsewhere=True))
            return
        address = self._guard.cached(where.host, asyncio.get_running_loop().time())
        if address is not None:
            self._send(submission, where, address, payload)
            return
        task = asyncio.get_running_loop().create_task(self._look_up(submission, where, payload))
        self._looking_up.add(task)
        task.add_done_callback(self._looking_up.discard)

    def start(self, sink: Sink, wake: Callable[[], None]) -> None:
        """See `base.Connector`."""
        self._wake = wake
        self._door.sink = sink
        self._running = True
        wake()

    async def stop(self, grace_s: float) -> None:
        """See `base.Connector`."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
        self._idle.clear()
        if self._gate.busy:
            try:
                await asyncio.wait_for(self._idle.wait(), grace_s)
            except TimeoutError:
                log.warning("%s: %d answers were not waited for", self.name, self._gate.busy)
        for task in list(self._looking_up):
            task.cancel()
        await asyncio.gather(*self._looking_up, return_exceptions=True)
        await self._client.close()
        self._guard.close()
        self._door.sink = None

    def health(self) -> tuple[bool, str]:
        """See `base.Connector`."""
        if not self._running:
            return False, "stopped"
        if self._trouble:
            return False, self._trouble
        return True, f"up, {self._gate.busy} of {self._gate.window} under way"

    async def handle(self, kind: str, method: str, headers: Mapping[bytes, bytes], query: bytes, body: bytes) -> Answer:
        """See `incoming.Mounted`."""
        return await self._door.handle(kind, method, headers, query, body)

    # -- one request ----------------------------------------------------------------------------------------

    async def _look_up(self, submission: Submission, where: Target, payload: bytes) -> None:
        try:
            address = await self._guard.resolve(where.host)
        except Failure as failure:
            self._failed(submission, failure, sent=False)
        except asyncio.CancelledError:
            self._finish(submission, Unavailable("the connector is stopping", burns_attempt=False))
            raise
        else:
            self._send(submission, where, address, payload)

    def _send(self, submission: Submission, where: Target, address: str, payload: bytes) -> None:
        origin = Origin(where.scheme, where.host, where.port, address)

        def done(result: Response | Failure) -> None:
            if isinstance(result, Response):
                self._answered(submission, result)
                return
            sent = exchange.connected != _NEVER or isinstance(result, ReadTimeout | ProtocolError)
            if not sent:
                self._guard.demote(where.host, address)
            self._failed(submission, result, sent=sent)

        exchange = self._client.request_nowait(
            origin, payload, done, timeouts=self._timeouts, max_body_bytes=MAX_ANSWER_BYTES, truncate=True
        )
        if exchange.connection is None:  # a connection is being opened: the client notes when it is
            exchange.connected = _NEVER

    def _answered(self, submission: Submission, response: Response) -> None:
        try:
            outcome = self.judge(response)
        except Exception:
            log.exception("%s: an answer with status %d was not understood", self.name, response.status)
            outcome = Unavailable(f"HTTP {response.status}, not understood", in_doubt=True)
        now = self._clock.monotonic()
        if not isinstance(outcome, Unavailable):
            self._works()
        elif not outcome.burns_attempt:
            self._gate.pause(outcome.retry_after_s, now)
        elif self._gate.bad(now, certain=response.status in (401, 407)):
            self._troubled(outcome.reason)
        self._finish(submission, outcome)

    def _failed(self, submission: Submission, failure: Failure, *, sent: bool) -> None:
        reason = f"{failure.kind}: {failure}"
        pause = self._gate.bad(self._clock.monotonic(), certain=True)
        self._troubled(reason)
        if sent:
            self._finish(submission, Unavailable(reason, in_doubt=True))
        else:
            self._finish(submission, Unavailable(reason, burns_attempt=False, retry_after_s=pause))

    def _works(self) -> None:
        self._gate.good()
        if self._trouble:
            log.info("%s: works again", self.name)
            self._trouble = ""

    def _troubled(self, reason: str) -> None:
        if not self._trouble:
            log.warning("%s: %s", self.name, reason)
        self._trouble = reason

    def _soon(self, submission: Submission, outcome: Outcome) -> None:
        """Tell an outcome that is known at once, but not from within `submit`."""
        asyncio.get_running_loop().call_soon(self._finish, submission, outcome)

    def _finish(self, submission: Submission, outcome: Outcome) -> None:
        self._gate.answered()
        try:
            submission.done(outcome)
        finally:
            if not self._gate.busy:
                self._idle.set()
            if self._running:
                self._wake()

    def _wake_later(self) -> None:
        """Wake the dispatcher when a pause is over or the pace allows more."""
        now = self._clock.monotonic()
        wait = self._gate.wait_s(now)
        if not wait:
            return
        if self._timer is not None:
            if self._timer_at <= now + wait:
                return  # it will look again then
            self._timer.cancel()
        timers: Timers = self._timers or asyncio.get_running_loop()
        self._timer = timers.call_later(wait, self._woken)
        self._timer_at = now + wait

    def _woken(self) -> None:
        self._timer = None
        if self._running:
            self._wake()


def retry_after_s(response: Response) -> float:
    """The answer's Retry-After in seconds, bounded; 0 when there is none (dates are not read)."""
    text = response.header("retry-after").strip()
    return min(float(text), MAX_RETRY_AFTER_S) if text.isascii() and text.isdigit() and len(text) < 7 else 0.0


def settled_elsewhere(code: int) -> bool:
    """Whether a message refused with this code may still go by another carrier."""
    return code not in ABOUT_THE_MESSAGE


Handler = Callable[[str, str, Mapping[bytes, bytes], bytes, bytes], Awaitable[Answer]]
"""The shape of `HttpExchange.handle`, for whoever mounts it."""
