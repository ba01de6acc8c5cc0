"""A call that is up, or on its way there: one leg, its record, its SIP side and its media side.

A `LiveCall` begins in one of two ways and ends in one, whatever happens in between:

    incoming   `invited(invite, offer)`   `ring()`   `answer()` or `hangup()`
    outgoing   `offer(host)`, then the INVITE; `ringing()`, `connected(dialog, negotiated)` or `hangup()`
    end        `hangup()` by us, `on_bye` by the peer, RTP silence, the time limit, ... all lead to `_over`, once

`status` moves at once; the record's step in the flights follows, the last one when the media process has told its
numbers (`CLOSED_WAIT_S` at most). What hears of the end is told in the order it asked (`on_end`), then `ended` is set.

The stack calls the `on_` methods of the two listeners; nothing here waits, except `answer`, for the durable record.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from trunkline.media.protocol import Digits, Event, Item, Played
from trunkline.model.account import Account
from trunkline.model.call import TERMINAL, Call, Direction, MediaQuality, Status
from trunkline.model.event import Event as Flag
from trunkline.settings import Trunk
from trunkline.sip import offer_answer
from trunkline.sip.core import DialogListener, InviteListener
from trunkline.sip.flow import bracketed
from trunkline.sip.offer_answer import Local, Negotiated
from trunkline.sip.server_invite import NO_PRACK
from trunkline.voice import checkpoints, leg_changes, securing, settling, timeline
from trunkline.voice.checkpoints import LegCheckpoint, save_leg
from trunkline.voice.info_keys import info_digit
from trunkline.voice.media_leg import MediaLeg, quality_of
from trunkline.voice.steps import Goto, Inline
from trunkline.voice.timeline import Timeline

if TYPE_CHECKING:
    from trunkline.sip.core import Answer
    from trunkline.sip.dialog import Dialog
    from trunkline.sip.message import Request
    from trunkline.sip.refer import ReferRequest
    from trunkline.sip.server_invite import ServerInvite
    from trunkline.voice.flights import CallFlight
    from trunkline.voice.service import VoiceServices
    from trunkline.voice.session import Session

CLOSED_WAIT_S: Final = 1.0
"""How long a call that has ended waits for the media process's numbers."""
RECORDED_WAIT_S: Final = 60.0
"""How long the audio of its recordings may take to be finished after that."""
LINGER_MS: Final = 45_000
"""How long the flight of an ended call waits for its session to tell the application the last, at most."""
DEFAULT_REFUSAL: Final = 480
MAX_DIGITS: Final = 100
"""Keys kept of those that nobody asked for yet."""
NO_AUDIO: Final = 32014
TOO_LONG: Final = 32015
NO_ACK: Final = 32022
Q850_NORMAL: Final = ("Reason", 'Q.850;cause=16;text="Normal call clearing"')
UNANSWERED: Final[dict[int, Status]] = {486: Status.BUSY, 600: Status.BUSY, 480: Status.NO_ANSWER,
                                        603: Status.NO_ANSWER, 487: Status.CANCELED, 408: Status.NO_ANSWER}  # fmt: skip
"""How an incoming call that we refuse with a response ends; the rest is `failed`."""

log = logging.getLogger(__name__)


class LiveCall(DialogListener, InviteListener):
    """See the module."""

    # Of the class until they are set: beyond 30 attributes of its own an object takes 1.5 kB more.
    refers: Callable[[ReferRequest], Answer] | None = None
    """Who may transfer the peer, when it asks for that (REFER)."""
    offered = b""
    """Our offer in a 2xx, while the answer to it has not come."""
    answering: asyncio.Task[None] | None = None
    """The 200 that waits until it is stored elsewhere (trunkline.voice.settling)."""
    lost_ms = 0
    """When the host before this one was last known to have had it (Unix ms); 0: this one began it."""
    reached = True
    """Whether its peer knows of this host (trunkline.voice.takeover)."""
    abandoned = False
    """Whether another host has it now, with all that is stored of it."""
    resumes = False
    """Whether its session, which another host had begun, is still to go on here."""
    _rings = _lingers = False
    _unheard = False  # it was silent for too long before it was answered
    _heard_rfc4733 = False
    _call_id = ""

    def __init__(
        self, services: VoiceServices, account: Account, record: Call, status: Status, trunk: Trunk | None = None
    ) -> None:
        self.services = services
        self.account = account
        self.record = record
        self.sid = record.sid
        self.status = status
        self.flight: CallFlight | None = None
        self.accepted: Awaitable[Any] | None = None
        """Done when the record is stored; `answer` waits for it."""
        self.trunk = trunk
        self.parent: LiveCall | None = None
        self.children: list[LiveCall] = []
        self.session: Session | None = None
        """What runs documents on this leg."""
        self.invite: ServerInvite | None = None
        self.cancel: Callable[[], object] | None = None
        """Gives up an INVITE of ours that has no final response."""
        self.dialog: Dialog | None = None
        self.audio = MediaLeg(services.media, record.sid)
        self.audio.on_digit = self.press
        self.audio.on_timeout = self._silent
        self.audio.on_refused = self._refused
        self.audio.on_flowing = self._flowing
        self.audio.on_other = self._other
        self.local: Local | None = None
        self.negotiated: Negotiated | None = None
        self.srtp = offer_answer.OFF
        """Of our side (`Local.srtp`), before its port is leased."""
        self.source = ""
        """Address that the peer's signalling comes from."""
        self.digits: deque[str] = deque(maxlen=MAX_DIGITS)
        """Keys pressed, newest last; whoever listens takes or clears them."""
        self.on_digit: Callable[[str], None] | None = None
        """Who wants to know of keys as they are pressed."""
        self.ended = Flag()
        self.settled = Flag()
        """It has ended, and its record is complete."""
        self._log = Timeline(record.timeline)
        self._at_end: list[Callable[[LiveCall], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.TimerHandle | None = None

    def enlist(self, flight: CallFlight, accepted: Awaitable[Any] | None = None) -> None:
        """From now on it is one of the node's live calls. `accepted`: the write of its record, while under way."""
        self.flight, self.accepted = flight, accepted
        self.services.live[self.sid] = self
        self.services.counts.add(self)

    def use(self, trunk: Trunk | None) -> None:
        """Go by a trunk, or by another one."""
        self.trunk = trunk
        self.record.trunk = trunk.name if trunk is not None else ""
        if self.sid in self.services.live:
            self.services.counts.add(self)

    def trace(self, call_id: str) -> None:
        """SIP messages with this Call-ID belong into the timeline."""
        traced = self.services.traced
        if self._call_id != call_id and traced.get(self._call_id) is self:
            del traced[self._call_id]
        self.record.sip_call_id = self._call_id = call_id
        traced.setdefault(call_id, self)  # who names another call's gets none of its messages

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Answered and not ended."""
        return self.status is Status.IN_PROGRESS

    @property
    def is_over(self) -> bool:
        return self.status in TERMINAL

    @property
    def incoming(self) -> bool:
        return self.record.direction is Direction.INBOUND

    def note(self, kind: str, what: str, **details: Any) -> None:
        """Add a line to the timeline."""
        self._log.add(self.services.clock.now_ms(), kind, what, details)

    def alert(self, code: int, text: str = "") -> None:
        """Raise an alert about this call that no document is to blame for."""
        self.note(timeline.ERROR, f"{code} {text}")
        self.services.alerts.raise_(self.account.sid, code, resource_sid=self.sid, text=text)

    def on_end(self, callback: Callable[[LiveCall], None]) -> None:
        """Tell when it has ended; at once if it has."""
        if self.is_over:
            callback(self)
        else:
            self._at_end.append(callback)

    def forget_end(self, callback: Callable[[LiveCall], None]) -> None:
        """Tell it no more."""
        if callback in self._at_end:
            self._at_end.remove(callback)

    # -- incoming --------------------------------------------------------------------------------------------

    def negotiate(self, invite: ServerInvite) -> bool:
        """Lease a port and answer the INVITE's offer in advance; False when no port is free.

        Raises NotAcceptable. Next: trunkline.voice.session.Session.run
        """
        self.invite = invite
        self.source = invite.flow.remote[0]
        self.srtp = securing.incoming(self.trunk, invite.flow.transport, self.services.settings.sip)
        if not self._lease(self.source):
            return False
        assert self.local is not None
        if invite.offer:
            self.negotiated = offer_answer.answer(invite.offer, self.local)
        invite.listener = self
        return True

    def ring(self) -> None:
        """Tell the caller that it rings (180), once."""
        if self.invite is not None and not self._rings and self.status is Status.RINGING:
            self._rings = True
            self.invite.ring(180)

    async def answer(self) -> None:
        """Pick up: stored, then 200. Does nothing when it is up or over."""
        if self.accepted is not None:
            await self.accepted  # what is answered is stored
            self.accepted = None
        if self.invite is None or self.status is not Status.RINGING:
            return
        if not self.audio.is_open:  # there was no early media
            self._open(self.negotiated)
        assert self.local is not None
        sdp = self.negotiated.sdp if self.negotiated is not None else offer_answer.offer(self.local)
        await settling.answer(self, sdp)

    def store_dialog(self, dialog: Dialog) -> None:
        """Before our 200 leaves: another process can go on with what the caller takes for answered."""
        self.dialog = dialog
        dialog.listener = self
        save_leg(self)

    # -- outgoing --------------------------------------------------------------------------------------------

    def offer(self, host: str) -> bytes | None:
        """Lease a port and describe it for a peer at `host`; None when no port is free."""
        if not self._lease(host):
            return None
        assert self.local is not None
        return offer_answer.offer(self.local)

    def ringing(self, status: int, early: Negotiated | None = None) -> None:
        """A provisional response came; with `early` its media may already be heard."""
        if early is not None:
            self.media(early)
        if self.status in (Status.QUEUED, Status.INITIATED):
            self.status = Status.RINGING
            self.note(timeline.STATUS, Status.RINGING)
            self._advance(Status.RINGING)

    def connected(self, dialog: Dialog, negotiated: Negotiated | None, status: int = 200) -> None:
        """The INVITE was answered."""
        self.dialog = dialog
        self.cancel = None
        dialog.listener = self
        if negotiated is not None:
            self.media(negotiated)
        save_leg(self)
        if self.services.settled is not None:
            settling.acknowledge(self, dialog)
        self.came_up(status)

    # -- after the loss of the process -----------------------------------------------------------------------

    def take_up(self, flight: CallFlight, saved: LegCheckpoint, dialog: Dialog, *, here: bool = True) -> None:
        """Go on with a leg that is up, from what a process before this one stored. `here`: on the same host, whose
        media process still has it."""
        record = self.record
        self.enlist(flight)
        self.dialog, self.local, self.negotiated, self.source = dialog, saved.local, saved.negotiated, saved.source
        port = saved.local.port if saved.local is not None else 0
        self.audio.take_up(saved.slot if here else -1, port if here else 0, saved.plays)
        self.trace(dialog.call_id)
        self.note(timeline.STATUS, "taken up by another process" if here else "taken over by another host")
        record.answered_ms = record.answered_ms or saved.answered_ms or self.services.clock.now_ms()
        record.sip_response_code = record.sip_response_code or 200
        self._limit()
        self._advance(Status.IN_PROGRESS)

    def join(self, parent: LiveCall) -> None:
        """It is a leg that the parent's <Dial> made."""
        self.parent = parent
        parent.children.append(self)
        self.on_end(LiveCall.part)

    def part(self) -> None:
        """It is no longer one."""
        if self.parent is not None and self in self.parent.children:
            self.parent.children.remove(self)

    def leave(self) -> None:
        """It goes on without the <Dial> that made it."""
        self.part()
        self.parent = None
        save_leg(self)

    def reopen(self) -> None:
        """The media process does not know the leg (any more): give it its port again."""
        self._open(self.negotiated)

    # -- both ------------------------------------------------------------------------------------------------

    def _lease(self, host: str) -> bool:
        if self.local is None and self.audio.lease():
            codecs = self.trunk.codecs if self.trunk is not None else self.services.settings.voice.codecs
            self.local = Local(
                address=self.services.media_address(host), port=self.audio.port, codecs=codecs,
                session_id=int(self.sid[2:14], 16), version=1, srtp=self.srtp, srtp_keys=securing.keys(self.srtp),
            )  # fmt: skip
        return self.local is not None

    def _open(self, negotiated: Negotiated | None) -> None:
        assert self.local is not None
        self.audio.open(
            negotiated, self.local.codecs[0], source=self.source,
            rtp_timeout_ms=int(self.services.settings.media.rtp_timeout_s * 1000), cname=self.sid,
        )  # fmt: skip
        self._note_audio(negotiated)

    def _note_audio(self, negotiated: Negotiated | None) -> None:
        """Where audio goes and comes from: what one wants to know of a silent call."""
        if negotiated is not None and self.local is not None:
            ours, theirs = (self.local.address, self.local.port), negotiated.remote
            ends = [f"{bracketed(end[0])}:{end[1]}" if end else "nowhere" for end in (ours, theirs)]
            secret = f", {negotiated.srtp.suite}" if negotiated.srtp is not None else ""
            what = f"{negotiated.codec} {negotiated.direction}, ours {ends[0]}, theirs {ends[1]}{secret}"
            self.note(timeline.MEDIA, what)

    def media(self, negotiated: Negotiated) -> None:
        """Take on what was negotiated, first or again."""
        if self.audio.is_open:
            if negotiated != self.negotiated:
                self.audio.modify(negotiated, source=self.source)
                self._note_audio(negotiated)
        else:
            self._open(negotiated)
        self.negotiated = negotiated

    def came_up(self, status: int) -> None:
        """It is answered, with that SIP status."""
        self.status = Status.IN_PROGRESS
        record = self.record
        record.sip_response_code = status
        record.answered_ms = self.services.clock.now_ms()
        if self.negotiated is not None:
            record.quality = MediaQuality(codec=self.negotiated.codec)
        self.note(timeline.STATUS, Status.IN_PROGRESS)
        if self._unheard:
            loop = asyncio.get_running_loop()
            loop.call_later(self.services.settings.media.rtp_timeout_s, self._still_silent)
        self._limit()
        self._advance(Status.IN_PROGRESS)

    def _limit(self) -> None:
        """Set the timer of the time limit."""
        if self._timer is not None:
            self._timer.cancel()
        longest_s = self.services.settings.voice.time_limit_s
        limit_s = min(self.record.time_limit_s or longest_s, longest_s)
        passed_s = (self.services.clock.now_ms() - self.record.answered_ms) / 1000
        self._timer = asyncio.get_running_loop().call_later(max(0, limit_s - passed_s), self._too_long)

    def _advance(self, to: Status) -> None:
        if self.flight is not None:
            self.services.flights.advance(self.flight, to)

    # -- audio -----------------------------------------------------------------------------------------------

    def play(
        self, items: Sequence[Item], *, loop: int = 1, barge: str = "", start_item: int = 0, start_ms: int = 0
    ) -> asyncio.Future[Played]:
        """See MediaLeg.play."""
        return self.audio.play(items, loop=loop, barge=barge, start_item=start_item, start_ms=start_ms)

    def stop(self) -> None:
        """End what is played."""
        self.audio.stop()

    def send_digits(self, digits: str) -> asyncio.Future[Played]:
        """Press keys (`w` = 0.5 s, `W` = 1 s of silence)."""
        self.note(timeline.MEDIA, f"digits {digits} are sent")
        return self.audio.play([Digits(digits=digits)])

    def press(self, digit: str, how: str) -> None:
        """The peer pressed a key; by INFO only as long as the same peer sends no telephone-events."""
        if how == "rfc4733":
            self._heard_rfc4733 = True
        elif how == "info" and self._heard_rfc4733:
            return
        self.note(timeline.DIGIT, digit, how=how)
        if how == "info" and digit in self.audio.barge:
            self.audio.stop()
        if self.on_digit is not None:
            self.on_digit(digit)
        else:
            self.digits.append(digit)

    # -- the end ---------------------------------------------------------------------------------------------

    def redirect(self, *, url: str = "", method: str = "POST", twiml: str = "") -> bool:
        """A live update: leave the verb that runs and go on with another document; False when no session runs it."""
        if self.session is None or self.is_over:
            return False
        self.note(timeline.TWIML, f"redirected to {url}" if url else "redirected to a document")
        self.session.redirect(Goto(url, method) if url else Inline(twiml))
        return True

    def set_time_limit(self, seconds: int) -> None:
        """The call ends that long after its answer."""
        self.record.time_limit_s = seconds
        if self.is_up:
            self._limit()

    def hangup(self, why: str, sip_status: int = 0, *, end: Status | None = None) -> None:
        """End the leg: BYE, CANCEL, or `sip_status` (480) for a call that we have not answered. `end` is its last
        status where that does not follow. Does nothing when it is over."""
        if self.is_over:
            return
        sip_status = sip_status or DEFAULT_REFUSAL
        if self.dialog is not None:
            self.dialog.bye(headers=(Q850_NORMAL,))
            self._over(end or Status.COMPLETED, why)
        elif self.invite is not None:
            self.invite.reject(sip_status)
            self.record.sip_response_code = sip_status
            self._over(end or UNANSWERED.get(sip_status, Status.FAILED), why)
        else:
            if self.cancel is not None:
                self.cancel()
            self._over(end or Status.CANCELED, why)

    def failed(self, status: int, end: Status, why: str) -> None:
        """An INVITE of ours got a final response above 299 (or none)."""
        if not self.is_over:
            self.cancel = None
            self.record.sip_response_code = status
            self._over(end, why)

    def _over(self, status: Status, why: str) -> None:
        """The one way out."""
        if self.is_over:
            return
        self.status = status
        record = self.record
        record.ended_ms = self.services.clock.now_ms() if self.reached else self.lost_ms
        record.hangup_cause = record.hangup_cause or why
        self.note(timeline.STATUS, status, why=why)
        if self._timer is not None:
            self._timer.cancel()
        self.dialog = self.invite = None
        self.cancel = None
        if self.flight is not None:
            self.services.flights.ends(self.flight, status)
        checkpoints.ended(self)
        self.audio.on_closed = self._closed
        self._closing = asyncio.get_running_loop().call_later(CLOSED_WAIT_S, self._closed, {})
        self.audio.close()
        callbacks, self._at_end = self._at_end, []
        for callback in callbacks:
            try:
                callback(self)
            except Exception:
                log.exception("%s: what follows the end of a call failed", self.sid)
        self.ended.set()

    def _closed(self, numbers: dict[str, Any]) -> None:
        """The media process has let go of it: the record is complete."""
        if self._closing is None:
            return
        self._closing.cancel()
        self._closing = None
        if numbers:
            self.record.quality = quality_of(numbers, self.record.quality)
        services = self.services
        if self.flight is not None:
            finishing = self.resumes or (self.session is not None and not self.session.done)
            self._lingers = finishing  # its last request, and what is said to it, belong into the record
            services.flights.advance(self.flight, self.status, stays_ms=LINGER_MS if finishing else 0)
        if services.live.get(self.sid, self) is not self:  # it was abandoned, and has come back as another object
            self.settled.set()
            return
        services.live.pop(self.sid, None)
        services.counts.remove(self)
        if services.traced.get(self._call_id) is self:
            del services.traced[self._call_id]
        self.settled.set()
        checkpoints.ended(self)
        if services.recordings is not None and services.recordings.of_call(self.sid):
            asyncio.get_running_loop().call_later(RECORDED_WAIT_S, self.audio.forget)  # their audio is yet to come
        else:
            self.audio.forget()

    def abandon(self) -> None:
        """Another host has the call: it ends here without a word to its peer, its application or the stores. What the
        SIP stack has of it is `trunkline.sip.takeover.abandon`'s."""
        self.flight, self.abandoned = None, True
        session, self.session = self.session, None
        if session is not None:
            self.forget_end(session.ended)
            session.abandon()
        self.dialog = self.invite = self.cancel = None
        self._over(Status.FAILED, "taken over by another host")

    def finished(self) -> None:
        """The session has told its application the last: nothing more is added to the record."""
        if self._lingers and self.flight is not None:
            self._lingers = False
            self.services.flights.release(self.flight)

    # -- what the stack tells --------------------------------------------------------------------------------

    def on_cancel(self, reason: str) -> None:
        """The caller gave up before we answered."""
        self.record.sip_response_code = 504 if reason == NO_PRACK else 487
        if reason:
            self.note(timeline.SIP, f"Reason: {reason}")
        self.invite = None
        self._over(Status.NO_ANSWER, "caller")

    def on_bye(self, request: Request) -> None:
        reason = request.headers.get("Reason")
        if reason:
            self.note(timeline.SIP, f"Reason: {reason}")
        self.dialog = None
        self._over(Status.COMPLETED, "caller" if self.incoming else "callee")

    def on_ended(self, reason: str) -> None:
        if reason in ("cancelled", "no-prack") and not self.is_up:  # while our 200 waited
            self.on_cancel(NO_PRACK if reason == "no-prack" else "")
            return
        if reason == "no-ack":
            self.alert(NO_ACK)
        self.dialog = None
        self._over(Status.COMPLETED, reason)

    def on_ack(self, sdp: bytes) -> None:
        leg_changes.concluded(self, sdp)

    def on_reinvite(self, offer: bytes) -> bytes:
        """Raises NotAcceptable."""
        return leg_changes.changed(self, offer)

    def on_update(self, offer: bytes) -> bytes:
        """Answered already or not. Raises NotAcceptable."""
        return leg_changes.changed(self, offer)

    def on_refresh(self) -> bytes:
        return self.negotiated.sdp if self.negotiated is not None else b""

    def on_refreshed(self, sdp: bytes) -> None:
        leg_changes.refreshed(self, sdp)

    def on_refer(self, refer: ReferRequest) -> Answer:
        self.note(timeline.SIP, f"Refer-To: {refer.target[:200]}")
        return self.refers(refer) if self.refers is not None else (603, [])

    def on_info(self, request: Request) -> None:
        """Keys by INFO (application/dtmf-relay, application/dtmf)."""
        digit = info_digit(request.content_type, request.body)
        if digit:
            self.press(digit, "info")

    # -- what the media process tells ------------------------------------------------------------------------

    def _flowing(self) -> None:
        self._unheard = False
        self.note(timeline.MEDIA, "their audio comes")

    def _still_silent(self) -> None:
        if self._unheard and self.is_up:
            self._silent()

    def _silent(self) -> None:
        if not self.is_up:  # who only listens to early media need not send yet
            self._unheard = True
            return
        self.alert(NO_AUDIO)
        self.hangup("rtp-timeout")

    def _too_long(self) -> None:
        if self.record.time_limit_s >= self.services.settings.voice.time_limit_s:
            self.alert(TOO_LONG)
        self.hangup("time-limit")

    def _other(self, event: Event) -> None:
        if self.services.recordings is not None:
            self.services.recordings.event(event)

    def _refused(self, what: str, reason: str) -> None:
        self.note(timeline.ERROR, f"the media process refused {what}: {reason}")
        if what == "open":
            self.hangup("media-failure", end=Status.FAILED)


__all__ = ["Event", "LiveCall"]
