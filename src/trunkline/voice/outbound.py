"""Calls that go out: the API's, each in its account's turn, and the children of `<Dial>`.

A call of the API waits in its account's lane until the account may start another (`voice.calls_per_second`,
`voice.calls_at_once`). The intent is durable before the INVITE leaves (`initiated`); where nothing is before it,
acceptance and intent are one commit. After a restart what was queued is placed again, in the order of acceptance; what
had been initiated or rang ends `failed`, with its callback.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, Final

import msgspec

from trunkline.model.call import Call, Direction, Status, StatusTarget
from trunkline.model.errors import ApiError, describe
from trunkline.model.recording import Source
from trunkline.model.sid import CALL, new_sid, shard_of
from trunkline.sip.uri import SIP_SCHEMES, Uri
from trunkline.storage.secrets import CannotOpen, Secrets
from trunkline.storage.written import when_done
from trunkline.voice import callbacks, emergency
from trunkline.voice.caller_id import UNREACHABLE
from trunkline.voice.calls import SEALED_FOR, UNKNOWN_ANSWER
from trunkline.voice.domains import is_sip
from trunkline.voice.emergency import is_bare
from trunkline.voice.flights import CallFlight
from trunkline.voice.limits import AccountLimits
from trunkline.voice.live import LiveCall
from trunkline.voice.outgoing import Outgoing, Plan, Wires
from trunkline.voice.params import ASYNC_DETECTION
from trunkline.voice.recordings import NewRecording, Recordings
from trunkline.voice.session import Session
from trunkline.voice.steps import Goto, Inline, Redirected
from trunkline.voice.steps import Source as Document
from trunkline.voice.trunks import Way, secured

if TYPE_CHECKING:
    from trunkline.voice.denials import Denial
    from trunkline.voice.domains import Domains
    from trunkline.voice.permissions import Permissions
    from trunkline.voice.service import VoiceServices

ACTIVE: Final = "active"
ACCOUNT_INACTIVE: Final = 10001
TOO_MANY: Final = 10004
"""Twilio's "Call concurrency limit exceeded": a call waited longer than `voice.queue_s`."""
PROCESS_LOST: Final = "process-lost"
"""`hangup_cause` of calls that ended because the process did."""
MAX_QUEUED: Final = 100_000
"""Calls of one account that wait, whatever its rate."""
RETRY_AFTER_S: Final = 5
FULL_S: Final = 1.0
"""How often an account that has as many calls as it may is looked at again, for received ones that have ended."""

log = logging.getLogger(__name__)


class NewLeg(msgspec.Struct, kw_only=True):
    """A leg that `<Dial>` wants, checked for form."""

    to: str
    """E.164, an emergency number or a `sip:` URI without headers."""
    others: list[str] = []
    """`sip:` URIs to try after `to`."""
    from_: str
    display: str = ""
    headers: dict[str, str] = {}
    username: str = ""
    password: str = ""
    timeout_s: int = 30
    time_limit_s: int = 0
    status_callbacks: list[StatusTarget] = []
    machine_detection: str = ""
    amd: StatusTarget | None = None
    """Who is told what detection found."""


class Outbound:
    """See the module."""

    def __init__(self, services: VoiceServices, wires: Wires, recordings: Recordings, secrets: Secrets) -> None:
        self._services = services
        self._wires = wires
        self._recordings = recordings
        self._secrets = secrets
        self._voice = services.settings.voice
        self._flights = services.flights
        self.limits = AccountLimits(self._voice.calls_per_second, self._voice.calls_at_once, wires.now)
        self._lanes: dict[str, deque[CallFlight]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self.bridged: dict[str, Callable[[Document], bool]] = {}
        """By SID, children that are connected: lets one go on with a document of its own."""
        self._stopped = False
        self._held = False
        self.permissions: Permissions | None = None
        """Whom accounts may call; None: everybody."""
        self.domains: Domains | None = None
        """SIP domains, whose phones are called where they are registered."""
        self.refuse = ""
        self.beside: Callable[[str], int] = shard_of
        """The virtual shard for a leg of a call that has this SID."""
        """Why new calls are refused just now (the disk is nearly full, the node stops), or empty."""
        wires.busy_on_decline = self._voice.busy_on_decline
        services.flights.price = wires.trunks.price

    def refuse_all(self, why: str) -> None:
        """Take no new calls of the API, or take them again (an empty text)."""
        if not self._stopped:
            self.refuse = why

    # -- acceptance ------------------------------------------------------------------------------------------

    def check_route(self, call: Call) -> None:
        """Raises ApiError: 20503 while nothing new is taken, 20429 when too many wait, 21214 when nothing leads
        there, 21215 and 21216 when the account may not call there."""
        if self.refuse:
            raise ApiError.of(20503, headers=(("Retry-After", str(RETRY_AFTER_S)),))
        if not self.leads_to(call.to):
            raise ApiError.of(UNREACHABLE)
        denied = self.denial(call.account_sid, call.to)
        if denied is not None:
            raise ApiError.of(denied.api, message=f"{describe(denied.api).message}: {denied.why}")
        if is_bare(call.to):
            return
        lane = self._lanes.get(call.account_sid)
        rate = self._voice.calls_per_second
        most = min(MAX_QUEUED, max(1, int(rate * self._voice.queue_s))) if rate else MAX_QUEUED
        if lane is not None and len(lane) >= most:
            raise ApiError.of(20429)

    def denial(self, account: str, to: str) -> Denial | None:
        """Why an account may not call an address; None: it may."""
        return self.permissions.denial(account, to) if self.permissions is not None else None

    def emergency(self, text: str, caller: str) -> str:
        """The emergency number that `text` is for somebody who calls from a number; empty: none, or there is no trunk
        for such calls."""
        return emergency.called(text, caller) if self._wires.trunks.emergency is not None else ""

    @property
    def takes_emergency(self) -> bool:
        """Whether emergency numbers are called at all."""
        return self._wires.trunks.emergency is not None

    def placed(self, account: str, to: str) -> None:
        """Count a call for its account's limits."""
        if self.permissions is not None and self.permissions.spending is not None:
            self.permissions.spending.placed(account, self.permissions.risks.of(to))

    def leads_to(self, to: str) -> bool:
        """Whether anything leads to an address."""
        return to.partition(":")[0].lower() in SIP_SCHEMES or self._wires.trunks.reach(to)

    def reserve(self, account: str, to: str = "") -> bool:
        """Whether a call may go out without waiting; if so it is counted, and `enqueue` must follow."""
        if is_bare(to):
            self.limits.of(account).force()
            return True
        if self._held or account in self._lanes or self._is_full(account):
            return False
        return self.limits.of(account).begin(self._wires.now())

    def _is_full(self, account: str) -> bool:
        """Whether a call of the account must end before another may begin, received ones included."""
        most = self._voice.calls_at_once
        return 0 < most <= max(self.limits.of(account).running, self._services.counts.account.get(account, 0))

    def enqueue(self, flight: CallFlight, written: Awaitable[Any]) -> None:
        """A call was handed to the store: place it once it is there, in its turn.

        Next: trunkline.voice.outgoing.Outgoing.start
        """
        when_done(written, lambda future: self._accepted(flight, future))

    def _accepted(self, flight: CallFlight, future: asyncio.Future[Any]) -> None:
        account = flight.call.account_sid
        lost = future.cancelled() or future.exception() is not None
        if flight.status is Status.INITIATED:  # it had been reserved
            if lost:
                self._left(account)
            else:
                self._place(flight, None)
        elif not lost:
            self._wait(flight)

    def wait_again(self, flight: CallFlight) -> None:
        """Place a call in its turn that waited for that at another node."""
        self._wait(flight)

    def abandon(self, mine: Callable[[str], bool]) -> None:
        """Other nodes place the calls of which `mine` says so, by SID."""
        for lane in self._lanes.values():
            kept = [flight for flight in lane if not mine(flight.call.sid)]
            lane.clear()
            lane.extend(kept)

    def _wait(self, flight: CallFlight) -> None:
        account = flight.call.account_sid
        self._lanes.setdefault(account, deque()).append(flight)
        if account not in self._timers:
            self._pump(account)

    # -- the account's lane ----------------------------------------------------------------------------------

    def _pump(self, account: str) -> None:
        """Place what may be placed now; come back when more may."""
        timer = self._timers.pop(account, None)
        if timer is not None:
            timer.cancel()
        lane = self._lanes.get(account)
        limit = self.limits.of(account)
        if self._held:
            return
        while lane:
            flight = lane[0]
            left_s = (flight.call.created_ms - self._flights.clock.now_ms()) / 1000 + self._voice.queue_s
            if flight.ended:
                lane.popleft()
            elif left_s <= 0:
                lane.popleft()
                self._refuse(flight, TOO_MANY)
            elif not self._is_full(account) and limit.begin(self._wires.now()):
                lane.popleft()
                self._intend(flight)
            else:
                wait_s = min(left_s, FULL_S if self._is_full(account) else limit.pace.wait_s(self._wires.now()))
                loop = asyncio.get_running_loop()
                self._timers[account] = loop.call_later(wait_s + 0.001, self._pump, account)
                return
        self._lanes.pop(account, None)

    def _left(self, account: str) -> None:
        """One of the account's calls has ended: another may begin."""
        self.limits.of(account).end()
        if account in self._lanes:
            self._pump(account)

    def _refuse(self, flight: CallFlight, code: int) -> None:
        """End a call that was not placed."""
        flight.call.error_code, flight.call.error_message = code, describe(code).message
        flight.call.hangup_cause = "not-placed"
        self._flights.advance(flight, Status.FAILED)

    def _intend(self, flight: CallFlight) -> None:
        """State the intent durably, then place the call."""
        record, now = flight.call, self._flights.clock.now_ms()
        record.started_ms, record.queue_time_ms = now, max(0, now - record.created_ms)
        self._place(flight, self._flights.advance(flight, Status.INITIATED))

    # -- calls of the API ------------------------------------------------------------------------------------

    def _place(self, flight: CallFlight, intended: Awaitable[bool] | None) -> None:
        """The INVITE leaves when `intended` is stored."""
        record = flight.call
        account = self._services.directory.account(record.account_sid)
        if account is None or account.status != ACTIVE:
            self._refuse(flight, ACCOUNT_INACTIVE)
            self._left(record.account_sid)
            return
        denied = self.denial(account.sid, record.to)
        if denied is not None:  # it may have waited for hours
            self._refuse(flight, denied.api)
            self._left(record.account_sid)
            return
        self.placed(account.sid, record.to)
        live = LiveCall(self._services, account, record, Status.INITIATED)
        live.enlist(flight)
        live.on_end(lambda _: self._left(record.account_sid))
        headers = dict(record.extra.get("out_headers", {}))
        plan = Plan(self._ways(record.to, account.sid), record.timeout_s, list(headers.items()), self._login(record))
        outgoing = Outgoing(self._wires, live, plan)
        if record.extra.get("detect"):
            outgoing.before_up = lambda: setattr(record, "answered_by", UNKNOWN_ANSWER)
        outgoing.outcome.add_done_callback(lambda future: self._settled(live, future))
        if intended is None:
            outgoing.start()
        else:
            when_done(intended, lambda future: self._intended(outgoing, future))

    def _intended(self, outgoing: Outgoing, future: asyncio.Future[Any]) -> None:
        if future.cancelled() or future.exception() is not None or not future.result():
            outgoing.live.hangup("store-unavailable", end=Status.FAILED)
        else:
            outgoing.start()

    def login_of(self, live: LiveCall) -> tuple[str, str] | None:
        """The digest user and password of a leg that we placed."""
        trunk = live.trunk
        if trunk is not None:
            return (trunk.username, str(trunk.password)) if trunk.username else None
        return self._login(live.record)

    def _login(self, record: Call) -> tuple[str, str] | None:
        if not record.sip_auth_username:
            return None
        try:
            return record.sip_auth_username, self._secrets.open(record.sip_auth_password, SEALED_FOR)
        except CannotOpen as error:
            log.error("%s: its SIP password cannot be read: %s", record.sid, error)
            return None

    def _settled(self, live: LiveCall, future: asyncio.Future[bool]) -> None:
        """Answered, or over."""
        if not future.result() or live.is_over:
            return
        record = live.record
        if record.record:
            self._record(live)
        if record.extra.get("amd"):
            self._tell_amd(record)
        if record.send_digits:
            live.session = session = Session(live)
            task = asyncio.get_running_loop().create_task(self._dial_on(live, session))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            Session(live).start(_first_document(record))

    def _record(self, live: LiveCall) -> None:
        record = live.record
        running = self._recordings.begin(
            live,
            NewRecording(
                source=Source.OUTBOUND_API, channels=record.record_channels, track=record.record_track,
                trim=record.record_trim, status_callback=record.recording_status_callback,
                status_callback_method=record.recording_status_callback_method,
                status_callback_events=record.recording_status_callback_events,
            ),
        )  # fmt: skip
        row = running.row
        record.extra[callbacks.RECORDED] = {
            "sid": row.sid, "url": self._recordings.url(row), "start_ms": row.start_ms,
        }  # fmt: skip

    def _detect(self, outgoing: Outgoing, amd: StatusTarget | None) -> None:
        """Detection on a leg of `<Dial>`, which goes on beside the call."""
        record = outgoing.live.record
        record.extra[ASYNC_DETECTION] = True
        outgoing.before_up = lambda: setattr(record, "answered_by", UNKNOWN_ANSWER)
        if amd is not None:
            record.extra["amd"] = [amd.url, amd.method]
            outgoing.outcome.add_done_callback(lambda future: self._tell_amd(record) if future.result() else None)

    def _tell_amd(self, record: Call) -> None:
        """Detection is over at once: nobody can tell."""
        url, method = record.extra["amd"]
        owed = [callbacks.amd_event(record, StatusTarget(url, method), 0)]
        owed[0].flight = self._flights.id_of(record.sid)
        when_done(self._flights.queue.owe(owed), lambda future: self._owed(owed, future))

    def _owed(self, owed: list[Any], future: asyncio.Future[Any]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._flights.owed(owed)

    async def _dial_on(self, live: LiveCall, session: Session) -> None:
        """Press the keys (an extension), then let the document begin, or the one of a live update at once."""
        source = _first_document(live.record)
        try:
            await session.wait(live.send_digits(live.record.send_digits))
        except Redirected as update:
            live.stop()
            source = update.to
        if live.is_up:
            session.start(source)

    def cancel(self, flight: CallFlight) -> bool:
        """End a call of ours that nobody has answered, by the API; False when it is none."""
        if flight.status is Status.QUEUED:
            lane = self._lanes.get(flight.call.account_sid)
            if lane is not None and flight in lane:
                lane.remove(flight)
            self._flights.advance(flight, Status.CANCELED)
            return True
        live = self._services.live.get(flight.call.sid)
        if live is None or live.is_up or live.is_over or live.incoming:
            return False
        live.hangup("api", end=Status.CANCELED)
        return True

    def _ways(self, to: str, account: str) -> list[Way]:
        """The ways to an address: to the phones of a SIP domain of ours, else by the trunks or as the URI says."""
        if self.domains is not None and is_sip(to):
            phones = self.domains.phones(to, account)
            if phones is not None:
                uri, secure = secured(Uri.parse(to))
                phones = phones.in_secret() if secure else phones
                return [Way(uri, uri.bare_host, uri.port, "", None, phones=phones)]
        return self._wires.trunks.ways(to)

    # -- children of <Dial> ----------------------------------------------------------------------------------

    def dial(self, parent: LiveCall, new: NewLeg) -> Outgoing | None:
        """Place a child leg; its INVITE leaves when its record is stored. None when the account's calls are as many
        as may be."""
        account = parent.account
        if is_bare(new.to):
            self.limits.of(account.sid).force()
        elif self._is_full(account.sid):
            return None
        else:
            self.limits.of(account.sid).join()
        self.placed(account.sid, new.to)
        now = self._flights.clock.now_ms()
        record = Call(
            sid=new_sid(CALL, now, self.beside(parent.sid)),  # whoever takes one over takes both
            account_sid=account.sid,
            direction=Direction.OUTBOUND_DIAL,
            from_=new.from_,
            to=new.to,
            parent_sid=parent.sid,
            traceparent=parent.record.traceparent,
            application_sid=parent.record.application_sid,
            phone_number_sid=parent.record.phone_number_sid,
            forwarded_from="",
            created_ms=now,
            started_ms=now,
            timeout_s=new.timeout_s,
            time_limit_s=new.time_limit_s or int(self._voice.time_limit_s),
            status_callbacks=new.status_callbacks,
        )
        live = LiveCall(self._services, account, record, Status.INITIATED)
        live.join(parent)
        live.on_end(lambda _: self._left(account.sid))
        login = (new.username, new.password) if new.username else None
        ways = [way for to in (new.to, *new.others) for way in self._ways(to, account.sid)]
        plan = Plan(ways, new.timeout_s, list(new.headers.items()), login, new.display)
        outgoing = Outgoing(self._wires, live, plan)
        if new.machine_detection:
            self._detect(outgoing, new.amd)
        flight, written = self._flights.accept(record, Status.INITIATED)
        live.enlist(flight)
        when_done(written, lambda future: self._stored(outgoing, future))
        return outgoing

    def _stored(self, outgoing: Outgoing, future: asyncio.Future[Any]) -> None:
        if future.cancelled() or future.exception() is not None:
            outgoing.live.flight = None
            outgoing.live.hangup("store-unavailable", end=Status.FAILED)
        else:
            outgoing.start()

    def take_over(self, sid: str, to: Document) -> bool:
        """Let a child that is connected go on with a document of its own; False when it is none."""
        take = self.bridged.get(sid)
        return take is not None and take(to)

    def take_up(self, live: LiveCall) -> None:
        """Count a leg that a process before this one placed."""
        self.limits.of(live.account.sid).force()
        live.on_end(lambda _: self._left(live.account.sid))
        if live.trunk is not None:
            limit = self._wires.trunks.limit(live.trunk)
            limit.force()
            live.on_end(lambda _: limit.end())
            gate = self._wires.trunks.gate(live.trunk, live.source)
            if gate is not None:
                gate.force()
                live.on_end(lambda _: gate.end())

    # -- life ------------------------------------------------------------------------------------------------

    async def recover(self, adopted: Collection[str] = ()) -> int:
        """Settle what the last process left, but for calls that were `adopted`: what was queued waits for `start`, the
        rest is ended. Returns how many calls were ended. Must be done before calls can come in."""
        lost = 0
        for status, end in _LOST.items():
            for flight in await self._flights.in_state(status):
                if flight.call.sid not in adopted:
                    flight.call.hangup_cause = PROCESS_LOST
                    self._flights.advance(flight, end)
                    lost += 1
        for flight in await self._flights.in_state(Status.QUEUED):
            self._lanes.setdefault(flight.call.account_sid, deque()).append(flight)
        return lost

    def start(self) -> None:
        """INVITEs can leave: place what waited for that."""
        for account in list(self._lanes):
            self._pump(account)

    def hold(self) -> None:
        """Take calls of the API, but place none: another process does."""
        self._held = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def stop(self) -> None:
        """Place nothing more; what waits is placed by the next process."""
        self._stopped = True
        self.refuse = "the server is stopping"
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._lanes.clear()
        for task in self._tasks:
            task.cancel()


def _first_document(record: Call) -> Document:
    return Goto(record.url, record.method) if record.url else Inline(record.twiml)


_LOST: dict[Status, Status] = {
    Status.INITIATED: Status.FAILED,
    Status.RINGING: Status.FAILED,
    Status.IN_PROGRESS: Status.COMPLETED,
}
"""How calls end whose process is gone."""
