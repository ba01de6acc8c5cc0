"""<Dial> at work: legs are placed, the first who picks up is asked (`url`) and connected, until somebody hangs up.

Theory. Everything that happens (a leg was answered, has ended, was taken away; `*` was pressed; what a callee heard
before the connection has ended) is put into one queue, and one loop takes it out; so there is one place where the call
waits, and an interruption of the session leaves it there. `close` undoes whatever there is, once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from trunkline.media import protocol
from trunkline.media.tones import DEFAULT_RINGING, RINGING
from trunkline.model import phone
from trunkline.model.call import Call, Direction, Status, StatusTarget
from trunkline.model.errors import ApiError
from trunkline.model.recording import Source
from trunkline.voice import caller_id, customer_trunks, emergency, timeline, trunk_transfers
from trunkline.voice.callbacks import RECORDED, seconds
from trunkline.voice.dial_nouns import NotYet, Target
from trunkline.voice.domains import is_sip, user_of
from trunkline.voice.emergency import is_bare
from trunkline.voice.key_relay import Keys
from trunkline.voice.leg_changes import heard_early
from trunkline.voice.outbound import ACCOUNT_INACTIVE, ACTIVE, NewLeg
from trunkline.voice.params import SIP_DOMAIN
from trunkline.voice.recording_running import Running
from trunkline.voice.recordings import NewRecording
from trunkline.voice.session import END, CallEnded, Session
from trunkline.voice.steps import Goto, Next, Redirected, Stop
from trunkline.voice.steps import Source as Document
from trunkline.voice.verbs.later import not_yet

if TYPE_CHECKING:
    from trunkline.sip.core import Answer
    from trunkline.sip.refer import ReferRequest
    from trunkline.voice.live import LiveCall
    from trunkline.voice.verbs.dial import Dial

NOT_A_NUMBER: Final = 13223
NO_ROUTE: Final = 13224
INVALID_CALLER_ID: Final = 13214
INVALID_SIP_URI: Final = 13243
TOO_MANY_CALLS: Final = 10004
NO_MACHINE_DETECTION: Final = 21263
WITHOUT: Final = ("Dial",)
"""Verbs that what a callee hears before the connection must not have (alert 13201)."""
RANK: Final = (Status.COMPLETED, Status.BUSY, Status.NO_ANSWER, Status.FAILED, Status.CANCELED)
"""Of several legs that nobody picked up, the one with the first of these is told of."""
STAR: Final = "*"
NO_REFER_URL: Final = 13802
TRANSFER_TARGET: Final = "ReferTransferTarget"
TRANSFERRED: Final = "transferred"
"""Why a leg is hung up whose REFER was followed."""
COUNTRY_TONES: Final = {"gb": "uk"}
"""Countries whose tone has another name."""


async def dial(verb: Dial, session: Session, state: dict[str, Any]) -> Next | None:
    """Run a <Dial>; what comes next."""
    dialing = Dialing(session, verb)
    try:
        await dialing.run(state)
    except CallEnded:
        dialing.close("caller")
        if verb.action:
            await session.finish(Goto(verb.action, verb.method, tuple(dialing.params())))
        raise
    except Exception:  # a node that stops leaves the legs to the next process
        dialing.close("redirected")
        raise
    if dialing.transferred is not None:
        return dialing.transferred
    if customer_trunks.ends_with_dial(session.call.record):
        return customer_trunks.after_dial(session, dialing)
    return Goto(verb.action, verb.method, tuple(dialing.params())) if verb.action else None


class Leg:
    """One callee."""

    __slots__ = ("asked", "is_sip", "live", "target", "was_up")

    def __init__(self, live: LiveCall, target: Target) -> None:
        self.live = live
        self.target = target
        self.is_sip = bool(target.uris)
        self.was_up = False
        self.asked: asyncio.Task[None] | None = None
        """What the callee hears before the connection."""


class Dialing:
    """See the module."""

    def __init__(self, session: Session, verb: Dial) -> None:
        self._session = session
        self._call = session.call
        self._services = session.services
        self._verb = verb
        self._events: asyncio.Queue[tuple[str, Leg | None, Any]] = asyncio.Queue()
        self._waiting: list[Target] = []
        self._legs: list[Leg] = []
        self._told: Leg | None = None
        """The leg that the application is told of."""
        self._connected: Leg | None = None
        self._bridged = False
        self._was_bridged = False
        self._recording: Running | None = None
        self._closed = False
        self._gone = ""
        """The SID of a connected leg that ended while there was no process to notice."""
        self.transferred: Next | None = None
        """What follows in place of the action, when one of the two was transferred (REFER)."""
        self._in_band = False
        self._to_callee = self._to_caller = Keys(self._call)

    # -- the whole -------------------------------------------------------------------------------------------

    async def run(self, state: dict[str, Any]) -> None:
        """Until the call goes on. Raises CallEnded, Redirected."""
        if "child" in state:
            leg = self._resumed(state)
        elif self._call.is_over:  # its caller gave up while nobody had it: nobody is called for him
            leg = None
        else:
            self._session.save({"dialing": True})
            leg = await self._connect()
        if leg is not None:
            await self._talk(leg)
        elif self._call.is_over:
            raise CallEnded
        elif not self._call.is_up:
            self._session.may_end_unanswered = True  # answerOnBridge: the caller does not pay for nobody
        self.close("dial-ended")

    def _resumed(self, state: dict[str, Any]) -> Leg | None:
        """The connection that a lost process had made; None when it has ended, or was not made."""
        live = self._services.live.get(str(state.get("child", "")))
        if live is None or not live.is_up:
            self._gone = str(state["child"])
            return None
        leg = Leg(live, Target())
        leg.was_up, leg.is_sip = True, live.record.to.startswith("sip:")
        self._was_bridged = True
        if self._services.recordings is not None:
            self._recording = self._services.recordings.running(str(state.get("recording", "")))
        self._legs.append(leg)
        live.on_end(lambda _: self._happened("over", leg))
        return leg

    def _happened(self, what: str, leg: Leg | None, detail: Any = None) -> None:
        self._events.put_nowait((what, leg, detail))

    # -- placing ---------------------------------------------------------------------------------------------

    async def _connect(self) -> Leg | None:
        """Place legs until one wants to be connected; None when there is none left."""
        self._waiting = self._targets()
        self._begin_ringing()
        self._place()
        while self._open:
            what, leg, detail = await self._session.wait(self._events.get())
            if what == "answered" and leg is not None:
                self._answered(leg)
            elif what == "asked" and leg is not None:
                if detail == END and leg.live.is_up:
                    return leg
                leg.live.hangup("not-connected")
            elif what == "over" and leg is not None:
                self._next(leg)
            elif what == "star":
                return None
        return None

    @property
    def _open(self) -> list[Leg]:
        """Legs that may still be connected."""
        return [leg for leg in self._legs if not leg.live.is_over]

    def _targets(self) -> list[Target]:
        targets: list[Target] = []
        for noun in self._verb.nouns:
            if isinstance(noun, NotYet):
                not_yet(self._session, noun.name)
            else:
                targets.append(noun)
        return targets

    def _place(self) -> None:
        """Place what is due: everything at once, or one after the other."""
        while self._waiting and not (self._verb.sequential and self._open):
            if any(leg.was_up for leg in self._legs):
                return  # somebody has picked up: nobody else is called
            target = self._waiting.pop(0)
            new = self._new_leg(target)
            outgoing = self._services.outbound.dial(self._call, new) if new is not None else None
            if outgoing is None:
                if new is not None:
                    self._session.alert(TOO_MANY_CALLS, "the account has as many calls as it may have")
                continue
            leg = Leg(outgoing.live, target)
            self._legs.append(leg)
            outgoing.early = lambda _negotiated, leg=leg: self._hear_early(leg)
            outgoing.outcome.add_done_callback(lambda future, leg=leg: self._settled(leg, future))
            outgoing.live.on_end(lambda _live, leg=leg: self._happened("over", leg))

    def _next(self, leg: Leg) -> None:
        """A leg has ended without being connected: another may be due."""
        early = self._bridged
        if early:  # it was heard before it answered
            self._part(leg)
        self._place()
        if early and self._open and heard_early(self._call):
            self._call.play([RINGING[self._tone()]])

    def _settled(self, leg: Leg, future: asyncio.Future[bool]) -> None:
        if not future.cancelled() and future.result():
            self._happened("answered", leg)

    def _new_leg(self, target: Target) -> NewLeg | None:
        """What is called; None, with an alert, when it cannot be."""
        account = self._services.directory.account(self._call.record.account_sid)
        if account is None or account.status != ACTIVE:
            self._session.alert_once(ACCOUNT_INACTIVE, "the account was suspended or closed: nobody is called any more")
            return None
        try:
            addresses, headers = self._addresses(target)
        except ApiError as error:
            code = INVALID_SIP_URI if target.uris else NOT_A_NUMBER
            hint = ""
            if self._services.outbound.takes_emergency and emergency.anywhere(target.number.strip()):
                hint = "; emergency numbers are those of the country of callerId, which must be a number of the account"
            self._session.alert(code, error.message + hint)
            return None
        if not addresses or not self._services.outbound.leads_to(addresses[0]):
            self._session.alert(NO_ROUTE, f"nothing leads to {target.number[:60] or 'an empty address'}")
            return None
        denied = next(filter(None, (self._services.outbound.denial(account.sid, one) for one in addresses)), None)
        if denied is not None:
            self._session.alert(denied.dial, denied.why)
            return None
        caller = self._caller(addresses[0])
        if caller is None:
            return None
        if target.machine_detection:
            self._session.alert_once(
                NO_MACHINE_DETECTION, "machineDetection is not available on this server: AnsweredBy is `unknown`"
            )
        login = next((uri for uri in target.uris if uri.username), None)
        return NewLeg(
            to=addresses[0],
            others=addresses[1:],
            from_=caller,
            headers=headers,
            username=login.username if login is not None else "",
            password=login.password if login is not None else "",
            timeout_s=self._verb.timeout,
            time_limit_s=self._verb.time_limit,
            status_callbacks=self._callbacks(target),
            machine_detection=target.machine_detection,
            amd=self._amd_callback(target),
        )

    def _addresses(self, target: Target) -> tuple[list[str], dict[str, str]]:
        """Raises ApiError."""
        if not target.uris:
            urgent = self._services.outbound.emergency(target.number, self._own_number())
            return [urgent or caller_id.destination(target.number).address], {}
        found = [caller_id.destination(one.uri if ":" in one.uri else f"sip:{one.uri}") for one in target.uris]
        return [one.address for one in found], {**(found[0].headers if found else {}), **target.headers}

    def _own_number(self) -> str:
        """The number that an emergency call shows."""
        return phone.to_e164(user_of(self._verb.caller_id.strip() or self._call.record.from_)) or ""

    def _caller(self, to: str) -> str | None:
        """Who is shown: `callerId`, else the call's own caller, who need not be a number of the account (but must be
        for emergency calls)."""
        record, wanted = self._call.record, self._verb.caller_id.strip()
        passed_on = {record.from_, record.to}
        if is_bare(to):
            wanted = self._own_number()
        elif not wanted or wanted in passed_on or (phone.to_e164(wanted) or wanted) in passed_on:
            if is_sip(to) or not _may_be_anybody(record):
                return phone.to_e164(wanted) or wanted or record.from_
            wanted = user_of(wanted or record.from_)  # as if it were `callerId`
        try:
            directory, voice = self._services.directory, self._services.settings.voice
            return caller_id.caller(wanted, to, record.account_sid, directory, voice)
        except ApiError as error:
            self._session.alert(INVALID_CALLER_ID, error.message)
            return None

    def _callbacks(self, target: Target) -> list[StatusTarget]:
        url = self._session.resolve(target.status_callback) if target.status_callback else None
        if url is None:
            return []
        return [StatusTarget(url, target.status_callback_method, target.status_callback_event or ("completed",))]

    def _amd_callback(self, target: Target) -> StatusTarget | None:
        callback = target.amd_status_callback if target.machine_detection else ""
        url = self._session.resolve(callback) if callback else None
        return StatusTarget(url, target.amd_status_callback_method) if url is not None else None

    # -- ringing ---------------------------------------------------------------------------------------------

    def _begin_ringing(self) -> None:
        """Let the caller know that it rings."""
        call = self._call
        call.on_digit = self._key
        call.digits.clear()
        if not call.is_up and not (self._verb.ring_tone and heard_early(call)):
            call.ring()
            return
        if self._verb.record.startswith("ringing"):
            self._record()
        call.play([RINGING[self._tone()]], loop=1)

    def _tone(self) -> str:
        if self._verb.ring_tone:
            return self._verb.ring_tone
        number = next((one.number for one in self._waiting if one.number), "")
        country = (phone.country(phone.to_e164(number) or "") or "").lower()
        name = COUNTRY_TONES.get(country, country)
        return name if name in RINGING else DEFAULT_RINGING

    def _hear_early(self, leg: Leg) -> None:
        """The far end has something to hear before it answers: instead of our tone, if there is but this leg. A call
        that is not answered hears it as early media."""
        alone = len(self._open) == 1 and (self._verb.sequential or not self._waiting)
        if not alone or self._bridged or self._verb.ring_tone or leg.target.url:
            return
        if heard_early(self._call):
            self._bridge(leg)

    def _key(self, digit: str) -> None:
        """The caller has pressed a key."""
        if digit == STAR and self._verb.hangup_on_star:
            self._happened("star", None)
        elif self._connected is not None and not self._in_band:
            self._to_callee.press(digit)

    # -- the callee ------------------------------------------------------------------------------------------

    def _answered(self, leg: Leg) -> None:
        """Somebody has picked up: nobody else may, and he hears what he has to hear first."""
        if leg.live.is_over:
            return
        if any(other.was_up for other in self._legs):
            leg.live.hangup("answered-elsewhere")
            return
        leg.was_up = True
        for other in self._legs:
            if other is not leg:
                other.live.hangup("answered-elsewhere")
        leg.asked = asyncio.get_running_loop().create_task(self._ask(leg))

    async def _ask(self, leg: Leg) -> None:
        """Press the keys, run the document of `url`; what it ends with decides whether he is connected."""
        ending = END
        inner = leg.live.session = Session(leg.live, without=WITHOUT)
        try:
            source = await self._first_words(leg, inner)
            if source is not None and leg.live.is_up:
                ending = await inner.run(source)
        except Exception as error:
            leg.live.note(timeline.ERROR, f"the document for the callee failed: {error!r}")
            ending = ""
        finally:
            leg.live.session = None
        self._happened("asked", leg, ending)

    async def _first_words(self, leg: Leg, inner: Session) -> Document | None:
        """What the callee hears before the connection, after the keys were pressed; None: nothing."""
        target = leg.target
        if target.send_digits:
            try:
                await inner.wait(leg.live.send_digits(target.send_digits))
            except Redirected as update:
                leg.live.stop()
                return update.to
        url = self._session.resolve(target.url) if target.url else None
        return Goto(url, target.method) if url is not None else None

    # -- connected -------------------------------------------------------------------------------------------

    async def _talk(self, leg: Leg) -> None:
        """Connect, until one of the two has enough."""
        call, session = self._call, self._session
        self._connected = self._told = leg
        if not call.is_up:
            await session.wait(call.answer())
        self._to_callee, self._to_caller = Keys(leg.live), Keys(call)
        call.on_digit = self._key
        self._listen(call)
        self._listen(leg.live)
        leg.live.on_digit = self._callee_key
        call.refers = lambda refer: self._refers(None, refer)
        leg.live.refers = lambda refer: self._refers(leg, refer)
        while call.digits:  # pressed while nobody listened: the process was lost
            self._key(call.digits.popleft())
        self._services.outbound.bridged[leg.live.sid] = lambda to: self._take_away(leg, to)
        self._bridge(leg)
        if self._verb.record and self._recording is None:
            self._record()
        recordings = self._services.recordings
        if self._recording is not None and recordings is not None:
            row = self._recording.row
            leg.live.record.extra[RECORDED] = {"sid": row.sid, "url": recordings.url(row), "start_ms": row.start_ms}
        session.save({"child": leg.live.sid, "recording": self._recording.row.sid if self._recording else ""})
        while not leg.live.is_over:
            what, who, detail = await session.wait(self._events.get())
            if what == "star":
                leg.live.hangup("star")
            if what == "refer":
                await self._transfer(leg, who, detail)
                return
            if what == "taken" or (what == "over" and who is leg):
                return

    def _bridge(self, leg: Leg) -> None:
        if not self._bridged:
            self._bridged = True
            self._call.stop()
            self._call.audio.send(protocol.Bridge(a=self._call.sid, b=leg.live.sid))
            self._call.note(timeline.MEDIA, f"connected with {leg.live.sid}")
        if leg.live.is_up:
            self._was_bridged = True

    def _listen(self, live: LiveCall) -> None:
        """Know how keys come: those in the audio reach the other side with it."""

        def heard(digit: str, how: str) -> None:
            self._in_band = how == "in-band"
            try:
                live.press(digit, how)
            finally:
                self._in_band = False

        live.audio.on_digit = heard

    def _callee_key(self, digit: str) -> None:
        if not self._in_band:
            self._to_caller.press(digit)

    def _record(self) -> None:
        recordings, verb = self._services.recordings, self._verb
        if recordings is None:
            return
        url = self._session.resolve(verb.recording_status_callback) if verb.recording_status_callback else None
        new = NewRecording(
            source=Source.DIAL_VERB, channels=2 if verb.record.endswith("dual") else 1, track=verb.recording_track,
            trim=verb.trim, status_callback=url or "", status_callback_method=verb.recording_status_callback_method,
            status_callback_events=verb.recording_status_callback_event,
        )  # fmt: skip
        try:
            self._recording = recordings.begin(self._call, new)
        except ApiError as error:
            self._session.alert(error.code or 0, error.message)

    def _take_away(self, leg: Leg, to: Document) -> bool:
        """A live update of the callee's leg: it goes on with a document of its own, the caller with what follows."""
        if self._closed or leg.live.is_over:
            return False
        self._part(leg)
        self._legs.remove(leg)
        leg.live.leave()
        Session(leg.live).start(to)
        self._happened("taken", leg)
        return True

    # -- transfers (REFER) -----------------------------------------------------------------------------------

    def _refers(self, by: Leg | None, refer: ReferRequest) -> Answer:
        """One of the two (None: the caller) wants the other one to be connected elsewhere."""
        to = self._elsewhere(by, refer)
        if to is None:
            return 603, []
        self._happened("refer", by, (refer, to))
        return 202, []

    def _elsewhere(self, by: Leg | None, refer: ReferRequest) -> Document | None:
        """What the other one goes on with: `referUrl`, or what a customer's trunk allows; None: the call as it is."""
        call, verb = self._call, self._verb
        if customer_trunks.ends_with_dial(call.record):
            try:
                return trunk_transfers.transfer(self._services, call.record, refer, by_callee=by is not None)
            except trunk_transfers.Declined as declined:
                call.note(timeline.SIP, f"REFER declined: {declined}")
                return None
        url = self._session.resolve(verb.refer_url) if verb.refer_url else None
        if url is None:
            if not verb.refer_url:
                self._session.alert(NO_REFER_URL, "a REFER came in a <Dial> without a referUrl")
            return None
        return Goto(url, verb.refer_method, ((TRANSFER_TARGET, refer.target),))

    async def _transfer(self, leg: Leg, by: Leg | None, detail: tuple[ReferRequest, Document]) -> None:
        """Who asked for it is told that it is done, and hung up; the other one goes on with the document."""
        refer, to = detail
        if by is not None:
            self._part(leg)
            self._legs.remove(leg)
            leg.live.part()
            self.transferred = to
            refer.tell(200, then=lambda: leg.live.hangup(TRANSFERRED))
            return
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._take_away(leg, to)
        self.transferred = Stop(TRANSFERRED)
        refer.tell(200, then=lambda: None if told.done() else told.set_result(None))
        await self._session.wait(told)

    # -- the end ---------------------------------------------------------------------------------------------

    def _part(self, leg: Leg) -> None:
        """Undo what connects the two."""
        self._services.outbound.bridged.pop(leg.live.sid, None)
        if self._bridged:
            self._bridged = False
            self._call.audio.send(protocol.Unbridge(leg=self._call.sid))
        for live in (self._call, leg.live):
            if not live.is_over:  # else its audio lets go of it, or has done so
                live.audio.on_digit = live.press
            live.on_digit = live.refers = None

    def close(self, why: str) -> None:
        """Hang up what is still there; does nothing the second time."""
        if self._closed:
            return
        self._closed = True
        self._call.on_digit = None
        for leg in self._legs:
            if leg.asked is not None:
                leg.asked.cancel()
            if leg is self._connected or self._bridged:
                self._part(leg)
            leg.live.hangup(why)
        self._call.stop()
        if self._recording is not None and self._services.recordings is not None:
            self._services.recordings.stop(self._recording)

    @property
    def outcome(self) -> tuple[bool, Status, int]:
        """Whether two were connected; how the leg that the application is told of ended; its SIP response."""
        leg = self._told_of
        if self._was_bridged or self._gone:
            return True, Status.COMPLETED, 0
        return (False, leg.live.status, leg.live.record.sip_response_code) if leg else (False, Status.FAILED, 0)

    @property
    def _told_of(self) -> Leg | None:
        return self._told or min(self._legs, key=lambda one: _rank(one.live.status), default=None)

    def params(self) -> list[tuple[str, str]]:
        """What the action is told."""
        leg = self._told_of
        if self._gone:
            return [("DialCallStatus", "completed"), ("DialCallSid", self._gone), ("DialBridged", "true")]
        if leg is None:  # nobody could be called, or those who rang were called by a process before this one
            status = Status.CANCELED if self._call.is_over else Status.FAILED
            return [("DialCallStatus", status.value), ("DialBridged", "false")]
        record = leg.live.record
        status = leg.live.status if leg.live.is_over else Status.COMPLETED
        params = [("DialCallStatus", status.value), ("DialCallSid", record.sid)]
        duration_s = record.duration_s
        if record.answered_ms and not record.ended_ms:  # it was taken away
            duration_s = -(-(self._services.clock.now_ms() - record.answered_ms) // 1000)
        params += [
            ("DialCallDuration", str(duration_s)),
            ("DialBridged", "true" if self._was_bridged else "false"),
        ]
        if leg.is_sip:
            params += [("DialSipCallId", record.sip_call_id), ("DialSipResponseCode", str(record.sip_response_code))]
            params += [(f"DialSipHeader_{name}", value) for name, value in record.sip_headers.items()]
        if self._recording is not None and self._services.recordings is not None:
            row = self._recording.row
            length_ms = row.duration_ms or max(0, self._services.clock.now_ms() - row.start_ms)
            params += [
                ("RecordingUrl", self._services.recordings.url(row)),
                ("RecordingSid", row.sid),
                ("RecordingDuration", str(seconds(length_ms))),
            ]
        return params


def _may_be_anybody(record: Call) -> bool:
    """Whether nobody has checked a call's addresses: a phone says of itself what it likes, and towards a `sip:` URI a
    caller of ours has whatever number was asked for. Neither is shown to the telephone network on that account."""
    return SIP_DOMAIN in record.extra or (record.direction is not Direction.INBOUND and is_sip(record.to))


def _rank(status: Status) -> int:
    return RANK.index(status) if status in RANK else len(RANK)
