"""Going on with the calls of a process before this one.

Theory. Of every call that is up there is a checkpoint (trunkline.voice.checkpoints) that was stored before the other
side knew; its flight is in the queue; its audio goes on in the media process; SIP messages wait in the socket that the
supervisor keeps. So a node that starts again takes up, in this order:

    read()       flights and checkpoints; live calls are made, and their dialogs adopted, before anything can come in
    greeted()    the media process has told its legs, and then what happened meanwhile (keys, ends of plays)
    resume()     SIP works: sessions go on at their verbs; callers who hear it ring are rung anew

Sockets and legs exist only as long as the supervisor's run does (`run`): what is left of another run (power, a killed
supervisor) cannot go on. Those calls end `completed` or `failed` as of when they were last seen, and their peers are
sent a BYE.

What nobody claims is cleared away: legs without a call after GRACE_S, checkpoints without a flight at once, recordings
whose end was not heard by `trunkline.voice.lost_recordings`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

import msgspec

from trunkline.media.protocol import Close, LegState
from trunkline.model.call import Direction, Status
from trunkline.sip.core import DialogListener
from trunkline.sip.takeover import REQUESTS_PER_S
from trunkline.voice import adopting, checkpoints, securing
from trunkline.voice.adopting import OPEN, Saved
from trunkline.voice.checkpoints import InviteCheckpoint, LegCheckpoint
from trunkline.voice.live import LiveCall
from trunkline.voice.outbound import PROCESS_LOST

if TYPE_CHECKING:
    from trunkline.sip.stack import Stack
    from trunkline.voice.flights import CallFlight
    from trunkline.voice.inbound import Inbound
    from trunkline.voice.service import VoiceServices

GRACE_S: Final = 10.0
"""How long legs of the media process that no call claims go on."""
ACKED_MS: Final = 32_000
"""A 200 older than that is not repeated (RFC 3261 section 13.3.1.4: 64*T1); its ACK is not stored."""
SEEN_S: Final = 5.0
"""How often it is noted that this process lives, while there are calls."""
RUN_KEY: Final = "node/run"
SEEN_KEY: Final = "node/seen"
"""Where nodes share a store, each has its own: `run/<node>`, `seen/<node>`."""
_REASON: Final = ("Reason", 'Q.850;cause=41;text="Temporary failure"')

log = logging.getLogger(__name__)


class Recovery:
    """See the module. `run` names the supervisor's run, empty without one: then nothing can go on."""

    def __init__(
        self,
        services: VoiceServices,
        stack: Stack,
        inbound: Inbound,
        run: str,
        epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        """`epoch`: of the media process's memory; another one means that its legs were lost."""
        self._services = services
        self._stack = stack
        self._inbound = inbound
        self._run = run
        self._saved: dict[str, Saved] = {}
        self._epoch = epoch
        self._mine: Callable[[str], bool] = lambda sid: True
        self._run_key, self._seen_key = RUN_KEY, SEEN_KEY
        self._is_followed = False
        self._last_epoch = 0
        self._legs: dict[str, LegState] = {}
        self._lost: list[LegCheckpoint] = []
        self._rung: list[tuple[CallFlight, InviteCheckpoint]] = []
        self._withdrawn: list[InviteCheckpoint] = []

    def join(self, node: str, mine: Callable[[str], bool]) -> None:
        """This node is one of several, which share the stores. `mine`: whether a call, by its SID, (still) is this
        node's: another may have taken it over. What cannot go on here as it was is left to
        trunkline.voice.takeover."""
        self._mine, self._is_followed = mine, True
        self._run_key, self._seen_key = f"run/{node}", f"seen/{node}"

    @property
    def adopted(self) -> Collection[str]:
        """The SIDs of calls that go on; all others of the last process are over."""
        return {*self._saved, *(flight.call.sid for flight, _ in self._rung)}

    # -- reading ---------------------------------------------------------------------------------------------

    async def read(self) -> int:
        """Make live calls of what goes on; how many. Nothing may come in before."""
        services = self._services
        memory = services.memory
        same = bool(self._run) and await memory.get(self._run_key) == self._run.encode()
        seen_ms = int(await memory.get(self._seen_key) or b"0")
        memory.post(self._run_key, self._run.encode())
        found = [one for status in OPEN for one in await services.flights.in_state(status)]
        flights = {one.call.sid: one for one in found if self._mine(one.call.sid)}
        for sid, saved in (await adopting.read(memory, self._mine)).items():
            flight = flights.get(sid) or (self._inherit(saved) if same else None)
            if flight is None:
                if not self._is_followed:  # else the queue's partition may not be open yet
                    checkpoints.drop(memory, sid)
            elif self._is_followed and not (same and saved.leg is not None and saved.leg.dialog is not None):
                continue
            elif saved.leg is None or saved.leg.dialog is None:
                if not same or saved.invite is None or flight.status is Status.IN_PROGRESS:
                    checkpoints.drop(memory, sid)
                elif flight.call.direction is not Direction.INBOUND:
                    self._withdrawn.append(saved.invite)
                    checkpoints.drop(memory, sid)
                else:
                    self._rung.append((flight, saved.invite))
            elif same and self._take_up(flight, saved.leg):
                self._saved[sid] = saved
            else:
                saved.leg.dialog.answer = b""  # whether it was acknowledged or not: a BYE follows
                self._lost.append(saved.leg)
                checkpoints.drop(memory, sid)
        adopting.join(services, [saved.leg for saved in self._saved.values() if saved.leg is not None])
        adopted = self.adopted
        for sid, flight in flights.items():
            if sid not in adopted and not self._is_followed:
                adopting.date(flight.call, seen_ms, services.clock.now_ms())
        if self._saved or self._rung or self._lost:
            log.warning(
                "the process before this one left %d calls that go on, %d that ring, %d that are lost",
                len(self._saved), len(self._rung), len(self._lost),
            )  # fmt: skip
        return len(self._saved)

    def _inherit(self, saved: Saved) -> CallFlight | None:
        """The flight of a call that goes on, where the queue's partition cannot be read yet."""
        flight, leg = saved.flight, saved.leg
        if not self._is_followed or flight is None or leg is None or leg.dialog is None or flight.status not in OPEN:
            return None
        try:
            return self._services.flights.inherit(flight)
        except (msgspec.MsgspecError, ValueError) as error:
            log.warning("a call's record cannot be read: %s", error)
            return None

    def _take_up(self, flight: CallFlight, leg: LegCheckpoint) -> bool:
        """Make a live call; False when its account is gone."""
        assert leg.dialog is not None
        live = adopting.live_call(self._services, flight, leg)
        if live is None:
            return False
        age_ms = self._services.clock.now_ms() - leg.answered_ms
        if age_ms > ACKED_MS:
            leg.dialog.answer = b""
        leg.dialog.local_cseq += REQUESTS_PER_S * max(0, age_ms // 1000)
        live.take_up(flight, leg, adopting.adopt(self._stack, live, leg.dialog))
        adopting.count(live)
        return True

    # -- media -----------------------------------------------------------------------------------------------

    def greeted(self, legs: list[LegState]) -> None:
        """The media process has told its legs (`MediaClient.on_hello`); what happened meanwhile follows at once."""
        self._legs = {leg.leg: leg for leg in legs}
        before, self._last_epoch = self._last_epoch, self._epoch()
        if before not in (0, self._last_epoch):
            self._end_without_media()
        for sid in self._saved:
            live, leg = self._services.live.get(sid), self._legs.get(sid)
            if live is not None and leg is not None:
                live.audio.adopted = leg.play

    def _end_without_media(self) -> None:
        """The media process could not go on with its memory: what it does not know any more is over."""
        services = self._services
        if services.recordings is not None:
            services.recordings.former.clear()
        for live in list(services.live.values()):
            if live.audio.is_open and live.sid not in self._legs:
                if services.recordings is not None:
                    services.recordings.lost(live.sid)
                live.hangup("media-lost", end=Status.FAILED)

    @property
    def recorded(self) -> Collection[str]:
        """The recordings that the media process knows."""
        return {sid for leg in self._legs.values() for sid in leg.recordings}

    # -- going on --------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Let sessions go on. SIP and the media process have been started."""
        for sid, saved in self._saved.items():
            live = self._services.live.get(sid)
            if live is None or live.is_over:
                continue
            try:
                if sid not in self._legs:
                    self._reopen(live, saved)
                if live.parent is not None:
                    adopting.resume_child(live, self._saved.get(live.parent.sid))
                elif not live.is_over:
                    adopting.resume(live, saved)
            except Exception:
                log.exception("%s: the call could not be taken up", sid)
                live.hangup(PROCESS_LOST, end=Status.FAILED)
        for flight, invite in self._rung:
            self._ring(flight, invite)
        for invite in self._withdrawn:
            for request, flow in ((invite.request, invite.flow), *invite.others):
                self._stack.withdraw(request, flow)
        for leg in self._lost:
            assert leg.dialog is not None
            self._stack.adopt(leg.dialog, DialogListener()).bye([_REASON])
        if self._legs:
            asyncio.get_running_loop().call_later(GRACE_S, self._clear, list(self._legs))
        self._saved, self._rung, self._lost, self._withdrawn = {}, [], [], []

    def _reopen(self, live: LiveCall, saved: Saved) -> None:
        """The media process does not know the leg: it is opened, unless its SRTP keys may have been used already."""
        assert saved.leg is not None
        if securing.may_reopen(saved.leg, self._epoch()):
            live.reopen()
        else:
            live.hangup("media-lost", end=Status.FAILED)

    def _ring(self, flight: CallFlight, invite: InviteCheckpoint) -> None:
        """Take the INVITE as if it came now: the caller hears it ring on."""
        again, call_id = self._inbound.again, flight.call.sip_call_id
        again[call_id] = flight
        self._stack.receive(invite.request, invite.flow)
        if again.pop(call_id, None) is not None:  # the stack did not pass it on
            flight.call.hangup_cause = PROCESS_LOST
            self._services.flights.advance(flight, Status.FAILED)

    def _clear(self, names: list[str]) -> None:
        """End the legs that no call claims."""
        unclaimed = [name for name in names if name not in self._services.live]
        for name in unclaimed:
            self._services.media.send(Close(leg=name))
        if unclaimed:
            log.warning("%d legs of the media process belonged to no call: closed", len(unclaimed))

    # -- while it runs ---------------------------------------------------------------------------------------

    async def note_life(self) -> None:
        """Note now and then that this process lives."""
        services = self._services
        while True:
            if services.live:
                services.memory.post(self._seen_key, str(services.clock.now_ms()).encode())
            await asyncio.sleep(SEEN_S)
