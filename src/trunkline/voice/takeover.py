"""Going on with the calls of a host that is lost, on this one.

Theory. The partitions of the queue that a lost node owned belong to this one now, so its calls do (a SID names its
partition); what it stored of them is in the `MemoryStore`, which is on other hosts. Nothing that it had in its
processes is left: its peers have to learn where their call goes on. So:

    read      checkpoints, and nothing else; live calls are made, with ports and SRTP keys of ours, and their dialogs
              adopted, with our addresses and a gap in CSeq (trunkline.sip.takeover)
    reach     each peer gets a re-INVITE with our Contact and description, LEGS_PER_S at most, legs that speak or listen
              first; what may not have been acknowledged (a 200 or an ACK of the last 32 s) goes before it
    go on     once it is answered the media process has the leg; when both legs of a <Dial> are there, or one is lost,
              the session goes on at its verb: the prompt where its peer last heard it, the keys so far, the bridge
    settle    once the partition of the queue can be written (which may take a database's fail-over): what happened to
              the calls meanwhile is written (trunkline.voice.held), and calls of which nothing was stored are ended

Whatever else answers ends the leg, `completed` as of when its host was last seen: 481, because the peer hung up
meanwhile, 408 or silence for PATIENCE_S, because it cannot be reached from here (a NAT, a firewall, a carrier that
knows one address; see trunkline.voice.takeover_ways). 491 is retried by the rule of RFC 3261 section 14.1, 5xx by
AGAIN_S. Applications are told the last as ever.

Calls that were not answered end `failed`: callers get 503, so that their carrier tries another of our nodes, callees a
CANCEL by the stored Via. Calls of the API that waited for their turn are placed here, once they can be read.

A call that cannot be worked with (what a peer or another release has put into its state raises) is ended by itself: the
others go on.

`let_go` is the other side: a node that has lost its lease drops its calls without a word, for another has them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from trunkline.media.protocol import Recorded
from trunkline.model.call import Direction, Status
from trunkline.model.sid import created_ms
from trunkline.sip import offer_answer
from trunkline.sip import takeover as dialogs
from trunkline.sip.core import DialogListener
from trunkline.sip.errors import MalformedMessage, NotAcceptable
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.voice import adopting, checkpoints, securing, timeline
from trunkline.voice.adopting import OPEN, Saved
from trunkline.voice.flights import KIND, RECOVERY_PAGE
from trunkline.voice.outbound import PROCESS_LOST
from trunkline.voice.takeover_leg import Leg, end
from trunkline.voice.takeover_report import Report

if TYPE_CHECKING:
    from trunkline.model.recording import Recording
    from trunkline.sip.stack import Stack
    from trunkline.storage.queue import Flight, Queue
    from trunkline.voice.flights import CallFlight
    from trunkline.voice.live import LiveCall
    from trunkline.voice.recordings import Recordings
    from trunkline.voice.service import VoiceServices

LEGS_PER_S: Final = 1000
"""Re-INVITEs that leave in a second: 100 calls are reached in a tenth of one, and a full node's do not fill anybody's
buffers."""
BATCH: Final = 20
"""Of them at once."""
PATIENCE_S: Final = 8.0
"""How long a peer may leave its re-INVITE unanswered: it is repeated after 0.5, 1.5, 3.5 and 7.5 s."""
ACKED_MS: Final = 32_000
"""A 200 older than that is acknowledged, or given up (RFC 3261 section 13.3.1.4: 64*T1)."""
AGAIN: Final = frozenset({500, 502, 503, 504})
AGAIN_S: Final = (0.5, 2.0)
"""After which waits a re-INVITE that got one of them is sent again."""
PORT_LOOK_S: Final = 0.02
PORT_LOOKS: Final = 50
"""A leg that finds no port looks again, for a second: the media process leases more while they are taken."""
STORE_LOOK_S: Final = 0.1
STORE_WAIT_S: Final = 15.0
"""How long stores that are being switched over may be away."""
RECORDS_LOOK_S: Final = 0.5
"""Between two looks whether the database that knows the recordings is there again: its primary may have been lost with
the host. A session that records waits for it, unless the memory store knows its recording."""
LOST: Final = "not-taken-over"
"""Why a call ended whose peer was not reached."""
RETRY_AFTER: Final = ("Retry-After", "1")
_REASON: Final = ("Reason", 'Q.850;cause=41;text="Temporary failure"')

log = logging.getLogger(__name__)


class ContinuesRecordings(Protocol):
    """What goes on with the recordings of calls that were taken over (segments that left the lost host)."""

    async def continue_recording(
        self, call: LiveCall, sid: str, lost_ms: int, known_row: Recording | None = None
    ) -> bool:
        """Go on recording, with a gap from `lost_ms` to now; False: it cannot, and has ended as it is. `known_row`:
        what is known of it without the database."""


class Takeover:
    """See the module. `floats`: whether the address that our SIP names moves from host to host (`sip.advertised` is the
    same on all), so that NATs and firewalls on the way know it."""

    def __init__(
        self,
        services: VoiceServices,
        stack: Stack,
        recordings: ContinuesRecordings | None = None,
        *,
        floats: bool = False,
        legs_per_s: float = LEGS_PER_S,
    ) -> None:
        self._services = services
        self._stack = stack
        self.recordings = recordings
        self._floats = floats
        self._per_s = legs_per_s
        self._pace = asyncio.Lock()
        self._tasks: set[asyncio.Future[Any]] = set()
        self._unread: dict[str, Saved] = {}
        """What is stored of calls without their flights: the queue has those."""

    # -- taking over -----------------------------------------------------------------------------------------

    async def take_over(self, mine: Callable[[str], bool] | Collection[str], *, lost_ms: int = 0) -> Report:
        """Go on with the calls of which `mine` says, by SID, that they are this node's since a moment ago; those that
        it has in hand already are left alone. `lost_ms`: when their host was last known to live (Unix ms); 0: just now.
        The queue is not asked: `settle` follows when it can be.

        Returns when all re-INVITEs have left; `Report.settled` tells when all peers have answered, or not.
        """
        began, services, report = time.monotonic(), self._services, Report()
        lost_ms = min(lost_ms or services.clock.now_ms(), services.clock.now_ms())
        legs: dict[str, Leg] = {}
        for sid, one in (await self._saved(mine if callable(mine) else mine.__contains__)).items():
            if self._in_hand(sid):
                continue
            if self._is_former(sid):  # of an earlier reign of this region: the former one had that call since
                checkpoints.forget(services.memory, sid)
                continue
            flight = self._inherit(one)
            if flight is None:
                self._unread[sid] = one
            elif flight.ended:
                report.ended += 1
            else:
                self._take(flight, one, lost_ms, legs, report)
        await self._go(legs, report)
        report.took_s = time.monotonic() - began
        if report.complete:
            report.tell()
        return report

    async def settle(self, queue: Queue, mine: Callable[[str], bool] | Collection[str], *, lost_ms: int = 0) -> Report:
        """The queue, or this partition of it, can be read and written: write what is held of these calls, and deal with
        those that only the queue knows. After `take_over`. Raises StoreUnavailable: to be done again."""
        began, services, report = time.monotonic(), self._services, Report()
        chosen = mine if callable(mine) else mine.__contains__
        lost_ms = min(lost_ms or services.clock.now_ms(), services.clock.now_ms())
        open_ = {one.sid: one for one in await self._open(queue, chosen)}
        unknown = []
        for held in services.flights.held(chosen):
            stored = open_.pop(held.call.sid, None)
            try:
                if stored is None or not services.flights.settle(held, stored):
                    unknown.append(held)
            except Exception:
                log.exception("%s: what happened to the call meanwhile is not written", held.call.sid)
        for held in unknown:  # the queue may go away again: before anything is begun
            await self._look_up(queue, held)
        legs: dict[str, Leg] = {}
        for sid, stored in open_.items():
            if self._in_hand(sid):
                continue
            one = self._unread.pop(sid, None) or Saved({})
            try:
                flight = services.flights.adopt(stored)
                if flight.status is Status.QUEUED:
                    services.outbound.wait_again(flight)
                    report.queued += 1
                elif flight.status in OPEN:
                    self._take(flight, one, lost_ms, legs, report)
            except Exception:
                log.exception("%s: the queue's record of the call is of no use", sid)
        for sid in [sid for sid in self._unread if chosen(sid)]:
            for row in self._unread.pop(sid).recordings:
                checkpoints.drop_recording(services.memory, row)
            checkpoints.forget(services.memory, sid)
        await self._go(legs, report)
        report.took_s = time.monotonic() - began
        if report.complete:
            report.tell()
        return report

    def _is_former(self, sid: str) -> bool:
        """Whether the call was up in the region whose place this one has taken."""
        former = self._services.former
        return former is not None and created_ms(sid) < former.until_ms

    def _in_hand(self, sid: str) -> bool:
        """Whether this process has begun the call, or goes on with it."""
        flight, live = self._services.flights.cached(sid), self._services.live.get(sid)
        if live is not None and not live.abandoned:  # an abandoned one waits for its media side alone
            return True
        return flight is not None and (flight.begun_here or flight.held is not None)

    def _inherit(self, saved: Saved) -> CallFlight | None:
        """Its flight; None where nothing of it is stored that can be read."""
        if saved.flight is None:
            return None
        try:
            return self._services.flights.inherit(saved.flight)
        except (msgspec.MsgspecError, ValueError) as error:
            log.warning("a call's record cannot be read: %s", error)
        except Exception:
            log.exception("a call's record is of no use")
        return None

    async def _look_up(self, queue: Queue, held: CallFlight) -> None:
        """One that is not open in the queue: it had ended, and is over here too."""
        services, sid = self._services, held.call.sid
        found = await queue.get(held.call.account_sid, sid)
        if held.held is None or services.flights.settle(held, found[0] if found is not None else None):
            return
        live = services.live.get(sid)
        if live is not None:
            live.flight = None
            live.hangup(LOST)

    async def _saved(self, mine: Callable[[str], bool]) -> dict[str, Saved]:
        """What is stored of these calls. A store whose primary was lost with them is waited for."""
        until = time.monotonic() + STORE_WAIT_S
        while True:
            try:
                return await adopting.read(self._services.memory, mine)
            except StoreUnavailable:
                if time.monotonic() >= until:
                    raise
                await asyncio.sleep(STORE_LOOK_S)

    async def _open(self, queue: Queue, mine: Callable[[str], bool]) -> list[Flight]:
        """The calls that have not ended, as the queue has them."""
        statuses = (*OPEN, Status.QUEUED) if self._services.outbound is not None else OPEN
        found: list[Flight] = []
        for status in statuses:
            after = 0
            while page := await queue.in_state(KIND, status, after, RECOVERY_PAGE):
                after = page[-1].id
                found += [one for one in page if mine(one.sid)]
        return found

    def _take(self, flight: CallFlight, saved: Saved, lost_ms: int, legs: dict[str, Leg], report: Report) -> None:
        """Make a live call, or end what cannot be one: also where what is stored of it cannot be worked with."""
        live, sid = None, flight.call.sid
        try:
            live = self._make(flight, saved, lost_ms)
        except Exception:
            log.exception("%s: the call cannot be taken over", sid)
            made = self._services.live.get(sid)
            if made is not None and made.flight is flight:
                end(made, LOST)
                report.lost += 1
                return
        if live is not None:
            legs[sid] = Leg(live, saved)
        else:
            self._end(flight, saved, lost_ms, report)

    async def _go(self, legs: dict[str, Leg], report: Report) -> None:
        """Reach the peers of all."""
        self._join(legs, report)
        self._record_on(legs)
        report.legs = len(legs)
        await self._reach_all(legs.values(), report)

    def _make(self, flight: CallFlight, saved: Saved, lost_ms: int) -> LiveCall | None:
        """A live call of one that was answered; None where that cannot be."""
        leg, services = saved.leg, self._services
        if leg is None or leg.dialog is None or leg.local is None:
            return None
        live = adopting.live_call(services, flight, leg)
        age_s = (services.clock.now_ms() - leg.answered_ms) / 1000
        state = dialogs.moved(leg.dialog, self._stack, age_s)
        if live is None:  # its account is gone
            self._stack.adopt(state, DialogListener()).bye([_REASON])
            return None
        live.lost_ms, live.reached = max(lost_ms, leg.answered_ms, flight.call.answered_ms), False
        live.take_up(flight, leg, adopting.adopt(self._stack, live, state), here=False)
        live.local = None  # the lost host's
        adopting.count(live)
        return live

    def _join(self, legs: dict[str, Leg], report: Report) -> None:
        """Children find their parents; those that no <Dial> had connected are hung up."""
        adopting.join(self._services, [one.saved.leg for one in legs.values() if one.saved.leg is not None])
        for one in legs.values():
            parent = legs.get(one.live.parent.sid) if one.live.parent is not None else None
            if parent is not None:
                one.parent = parent
                parent.children.append(one)
            else:
                one.live.resumes = True
            if one.live.parent is not None:
                with self._alone(one, report):
                    adopting.resume_child(one.live, parent.saved if parent is not None else None)

    def _end(self, flight: CallFlight, saved: Saved, lost_ms: int, report: Report) -> None:
        """A call that cannot go on: not answered, or nothing of it is stored."""
        services, call = self._services, flight.call
        call.hangup_cause = PROCESS_LOST
        if flight.status is Status.IN_PROGRESS:
            report.lost += 1
            seen_ms = services.former.seen_ms if services.former and self._is_former(call.sid) else lost_ms
            adopting.date(call, seen_ms, services.clock.now_ms())
            services.flights.advance(flight, Status.COMPLETED)
        else:
            report.early += 1
            if call.direction is Direction.INBOUND:
                call.sip_response_code = 503
            self._say_so(call.direction, saved)
            services.flights.advance(flight, Status.FAILED)
        checkpoints.drop(services.memory, call.sid)  # its flight stays until that is written

    def _say_so(self, direction: Direction, saved: Saved) -> None:
        """503 to a caller, CANCEL to callees."""
        invite = saved.invite
        if invite is None:
            return
        try:
            if direction is Direction.INBOUND:
                dialogs.refuse(self._stack, invite.request, invite.flow, 503, [RETRY_AFTER])
            else:
                dialogs.withdraw(self._stack, invite.request, invite.flow, invite.early)
                for request, flow in invite.others:
                    dialogs.withdraw(self._stack, request, flow)
        except MalformedMessage as error:
            log.warning("a stored INVITE cannot be read: %s", error)
        except Exception:
            log.exception("a stored INVITE is of no use: its peer is not told")

    # -- reaching peers --------------------------------------------------------------------------------------

    async def _reach_all(self, legs: Iterable[Leg], report: Report) -> None:
        order = sorted(legs, key=lambda one: not one.urgent)
        async with self._pace:
            loop = asyncio.get_running_loop()
            due = loop.time()
            for at in range(0, len(order), BATCH):
                await asyncio.sleep(max(0.0, due - loop.time()))
                due = max(due, loop.time()) + BATCH / self._per_s
                for one in order[at : at + BATCH]:
                    self._reach(one, report)

    def _reach(self, one: Leg, report: Report) -> None:
        """Send the re-INVITE, once there is a port."""
        with self._alone(one, report):
            self._try_to_reach(one, report)

    def _try_to_reach(self, one: Leg, report: Report) -> None:
        live, leg = one.live, one.saved.leg
        assert leg is not None
        if live.is_over or leg.dialog is None or live.dialog is None:
            self._settle(one, report)
            return
        why = dialogs.obstacle(leg.dialog)
        if why and not (self._floats and why == dialogs.BEHIND_NAT):
            live.note(timeline.ERROR, f"{why}: it takes an edge proxy in the route to reach it from another host")
        if why == dialogs.OVER_CONNECTION:
            live.dialog.abandon()
            self._give_up(one, report)
        elif self._lease(one):
            self._send(one, report)
        elif one.looks < PORT_LOOKS:
            one.looks += 1
            asyncio.get_running_loop().call_later(PORT_LOOK_S, self._reach, one, report)
        else:
            live.note(timeline.ERROR, "no media port is free")
            self._give_up(one, report)

    def _lease(self, one: Leg) -> bool:
        """A port of ours, and new keys: the lost host may have used its own up to any index."""
        live, leg = one.live, one.saved.leg
        if live.local is not None:
            return True
        if leg is None or leg.local is None or leg.dialog is None or not live.audio.lease():
            return False
        live.local = msgspec.structs.replace(
            leg.local,
            address=self._services.media_address(live.source or leg.dialog.flow.remote[0]),
            port=live.audio.port,
            srtp_keys=securing.keys(leg.local.srtp),
        )
        return True

    def _send(self, one: Leg, report: Report) -> None:
        live, leg = one.live, one.saved.leg
        assert leg is not None
        assert leg.dialog is not None
        assert live.local is not None
        assert live.dialog is not None
        previous = leg.negotiated.sdp if leg.negotiated is not None else b""
        fresh = offer_answer.offer(live.local, previous)
        one.offer = offer_answer.revise(previous, fresh) if previous else fresh
        if not one.tries and self._services.clock.now_ms() - leg.answered_ms < ACKED_MS:
            if leg.dialog.is_caller:
                dialogs.repeat_ack(live.dialog)
            else:
                dialogs.repeat_answer(self._stack, leg.dialog, one.offer)
        if one.timer is None:
            one.timer = asyncio.get_running_loop().call_later(PATIENCE_S, self._give_up, one, report)
        live.dialog.reinvite(one.offer, lambda status, answer: self._answered(one, report, status, answer))
        checkpoints.save_leg(live)  # whoever follows us goes on above our CSeq

    def _answered(self, one: Leg, report: Report, status: int, answer: bytes) -> None:
        live = one.live
        if live.is_over:
            self._settle(one, report)
        elif status == 200:
            self._reached(one, report, answer)
        elif status in AGAIN and one.tries < len(AGAIN_S):
            wait_s = AGAIN_S[one.tries]
            one.tries += 1
            asyncio.get_running_loop().call_later(wait_s, self._again, one, report)
        else:
            live.note(timeline.SIP, f"the re-INVITE from this host got {status}")
            ends_itself = status in (408, 481)  # the dialog does, when this returns
            self._give_up(one, report, hang_up=not ends_itself)

    def _again(self, one: Leg, report: Report) -> None:
        if one.live.is_over:
            self._settle(one, report)
        elif not one.settled:
            with self._alone(one, report):
                self._send(one, report)

    def _reached(self, one: Leg, report: Report, answer: bytes) -> None:
        """The peer knows of this host: from here on it is a call like others."""
        live = one.live
        assert live.local is not None
        try:
            negotiated = offer_answer.conclude(one.offer, answer, live.local)
        except NotAcceptable as refused:  # MalformedSdp too
            live.note(timeline.ERROR, f"the answer to this host's offer: {refused}")
            self._give_up(one, report)
            return
        live.reached = True
        live.media(negotiated)
        checkpoints.save_leg(live)
        report.reached_ms.append(self._services.clock.now_ms() - live.lost_ms)
        live.note(timeline.SIP, f"its peer has followed to this host after {report.reached_ms[-1]} ms")
        self._settle(one, report)

    def _give_up(self, one: Leg, report: Report, *, hang_up: bool = True) -> None:
        """Its peer is not to be reached, or has gone. Its application is told the last by its session."""
        if one.settled:
            return
        live = one.live
        if one.parent is None and not one.resumed and not live.is_over:
            one.resumed = True
            try:
                adopting.resume(live, one.saved)
            except Exception:
                log.exception("%s: its application is not told the last", live.sid)
            live.resumes = False
        if hang_up:
            end(live, LOST)
        self._settle(one, report)

    @contextlib.contextmanager
    def _alone(self, one: Leg, report: Report) -> Iterator[None]:
        """What goes wrong with a leg ends that one: the others are to be reached."""
        try:
            yield
        except Exception:
            log.exception("%s: the call cannot be taken over", one.live.sid)
            self._give_up(one, report)

    # -- going on --------------------------------------------------------------------------------------------

    def _settle(self, one: Leg, report: Report) -> None:
        """It is known whether a leg goes on; its call does when that is known of all its legs."""
        if one.settled:
            return
        one.settled = True
        one.arrived.set()
        if one.timer is not None:
            one.timer.cancel()
        if one.live.reached:
            report.reached += 1
        else:
            report.gone += 1
        if report.took_s and report.complete:
            report.tell()
        root = one.parent or one
        if root.settled and not root.resumed and all(child.settled for child in root.children):
            root.resumed = True
            self._keep(asyncio.get_running_loop().create_task(self._go_on(root)))

    async def close(self) -> None:
        """End without a word."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _keep(self, task: asyncio.Future[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _go_on(self, root: Leg) -> None:
        """The session of a call whose legs are there; one that has ended meanwhile tells its application the last."""
        live = root.live
        try:
            if root.recording is not None and root.saved.state.get("recording"):
                over: asyncio.Future[Any] = asyncio.ensure_future(live.ended.wait())
                self._keep(over)
                await asyncio.wait({root.recording, over}, return_when=asyncio.FIRST_COMPLETED)
                over.cancel()
            if not live.abandoned:
                adopting.resume(live, root.saved)
        except Exception:
            log.exception("%s: the call could not be taken over", live.sid)
            live.hangup(PROCESS_LOST, end=Status.FAILED)
        finally:
            live.resumes = False

    def _record_on(self, legs: dict[str, Leg]) -> None:
        """Have the recordings of these calls go on once their legs are here; sessions wait for that."""
        if self._services.recordings is None or not legs:
            return
        rows = asyncio.ensure_future(self._open_recordings(self._services.recordings, list(legs)))
        self._keep(rows)
        for leg in legs.values():
            known, its_own = leg.saved.recordings, leg.saved.state.get("recording")
            first = asyncio.ensure_future(self._recorded(leg, known)) if known and self.recordings is not None else None
            there = set() if first is None else {row.sid for row in known}
            then = asyncio.ensure_future(self._recorded_there(leg, there, rows))
            self._keep(then)
            if first is not None:
                self._keep(first)
            leg.recording = first if any(row.sid == its_own for row in known) and first is not None else then

    async def _open_recordings(self, recordings: Recordings, sids: list[str]) -> list[Recording]:
        """As the database knows them, once it answers."""
        while True:
            try:
                return await recordings.open_of(sids)
            except StoreUnavailable as error:
                log.warning("recordings of %d calls cannot be read yet: %s", len(sids), error)
                await asyncio.sleep(RECORDS_LOOK_S)

    async def _recorded_there(self, leg: Leg, known: set[str], rows: asyncio.Future[list[Recording]]) -> None:
        """Those that only the database knows."""
        found = [row for row in await asyncio.shield(rows) if row.call_sid == leg.live.sid and row.sid not in known]
        await self._recorded(leg, found, stored=True)

    async def _recorded(self, leg: Leg, rows: list[Recording], *, stored: bool = False) -> None:
        """The recordings of a leg go on, or have ended with the host that wrote them."""
        if rows:
            await leg.arrived.wait()
        if leg.live.reached:  # side by side: one may wait long for what is left of it here
            await asyncio.gather(*(self._recording_goes_on(leg.live, row, stored=stored) for row in rows))

    async def _recording_goes_on(self, live: LiveCall, row: Recording, *, stored: bool) -> None:
        try:
            if self.recordings is not None:
                known = () if stored else (row,)
                await self.recordings.continue_recording(live, row.sid, live.lost_ms, *known)
            elif self._services.recordings is not None:  # its audio was on the lost host
                self._services.recordings.conclude(Recorded(recording=row.sid, leg=live.sid, why="failed"))
        except Exception:
            log.exception("%s: its recording %s does not go on", live.sid, row.sid)

    # -- the other side --------------------------------------------------------------------------------------

    def let_go(self, mine: Callable[[str], bool] = lambda sid: True) -> int:
        """This node's fence has closed, and others have taken the calls of which `mine` says so: drop them, without a
        word to anyone, and close their legs. How many."""
        services = self._services
        gone = [live for live in services.live.values() if mine(live.sid)]
        call_ids = {call_id for call_id, live in services.traced.items() if live in gone}
        for call_id in call_ids:  # they may come back at once, as others
            del services.traced[call_id]
        call_ids |= {live.record.sip_call_id for live in gone if live.record.sip_call_id}
        dialogs.abandon(self._stack, call_ids)
        if services.outbound is not None:
            services.outbound.abandon(mine)
        services.flights.abandon(mine)
        for live in gone:
            if services.recordings is not None:
                services.recordings.abandon(live.sid)
            live.abandon()
        if gone:
            log.warning("%d calls were dropped: this node has lost them to another", len(gone))
        return len(gone)
