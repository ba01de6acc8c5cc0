"""One call of a simulated phone: its SIP dialog, its audio, and what is scripted in it."""

import asyncio
import secrets
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from trunkline.sip import offer_answer
from trunkline.sip.core import Answer, CallListener, DialogListener, InviteListener
from trunkline.sip.dialog import Dialog
from trunkline.sip.errors import MalformedMessage, MalformedSdp, NotAcceptable
from trunkline.sip.message import Request, Response
from trunkline.sip.refer import ReferProgress, ReferRequest
from trunkline.testing.phones import hearing, tones
from trunkline.testing.phones.codecs import NAMES
from trunkline.testing.phones.heard import FRAME, RATE, Samples
from trunkline.testing.phones.rtp_peer import Impairment, Route, RtpPeer
from trunkline.testing.phones.things import (
    STATUSES,
    Behaviour,
    CallState,
    Dial,
    Keys,
    Media,
    Outcome,
    Press,
    Silence,
    Sound,
    Tone,
)

if TYPE_CHECKING:
    from trunkline.sip.client_invite import ClientInvite
    from trunkline.sip.server_invite import ServerInvite
    from trunkline.testing.phones.exchange import PhoneExchange
    from trunkline.testing.phones.line import Line
    from trunkline.testing.phones.phone import Phone

LISTEN_S: Final = 0.06
"""How often the audio is looked at while something is listened for."""
MAX_INFO: Final = 100
"""INFO requests kept of a call."""
RELAY: Final = "application/dtmf-relay"


class NotPossible(Exception):
    """The phone cannot do that as the call stands."""


class PhoneCall(CallListener, DialogListener, InviteListener):
    """See the module. Made by `Phone`; everything runs on the exchange's event loop."""

    def __init__(self, exchange: "PhoneExchange", state: CallState, line: "Line | None" = None) -> None:
        self.state = state
        self._line = line
        self._exchange = exchange
        self._peer: RtpPeer | None = None
        self._outgoing: ClientInvite | None = None
        self._incoming: ServerInvite | None = None
        self._dialog: Dialog | None = None
        self._local: offer_answer.Local | None = None
        self._sdp = b""
        """Our description as the other side has it."""
        self._wanted: Dial | None = None
        self._takes: tuple[str, ...] = NAMES
        self._cursor = 0
        """Where listening goes on: after what was heard last."""
        self._keys_seen = 0
        self._listening: tuple[Sound, hearing.Listener] | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._answering = False
        self._referred: ReferRequest | None = None
        """Whose outcome this call is: it was made because of a REFER."""

    # -- being told --------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        return self.state.state == "ended"

    def snapshot(self) -> CallState:
        """The state with the latest figures."""
        state, peer = self.state, self._peer
        if peer is not None:
            state.keys = "".join(key.key for key in peer.keys)
            state.heard_ms = peer.heard.end * 1000 // RATE
            codec = peer.route.codec if peer.route else state.media.codec
            state.media = Media(
                codec=codec, sent=peer.sent, received=peer.received, lost=peer.heard.missing // FRAME,
                longest_gap_ms=int(peer.heard.longest_gap_s * 1000), strange=peer.strange, reports=peer.reports,
            )  # fmt: skip
        return state

    @property
    def peer(self) -> RtpPeer | None:
        """Its audio, once there is any."""
        return self._peer

    async def changed(self, after: int, wait_s: float) -> CallState:
        """The state once it has changed more often than `after`, or after a while."""
        if self.state.changes <= after and not self.over:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                await asyncio.wait_for(future, wait_s)
            except TimeoutError:
                pass  # nothing changed: the state says so
            finally:
                if future in self._waiting:
                    self._waiting.remove(future)
        return self.snapshot()

    def _change(self) -> None:
        self.state.changes += 1
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _end(self, by: str, reason: str = "", headers: Mapping[str, str] | None = None) -> None:
        if self.over:
            return
        state = self.state
        state.state, state.ended_by, state.hangup_reason = "ended", by, reason
        state.bye_headers = dict(headers or {})
        state.ended_s = time.time()
        if self._timer is not None:
            self._timer.cancel()
        if self._peer is not None:
            self._peer.close()
        self._change()
        self._exchange.ended(self)

    def forget(self) -> None:
        """Give up the audio of an ended call."""
        self.snapshot()
        self._peer = self._listening = None

    # -- making and taking it ----------------------------------------------------------------------------------

    async def place(self, wanted: Dial) -> None:
        """Send the INVITE. Raises NotPossible, OSError."""
        self._wanted = wanted
        await self._prepare(tuple(wanted.codecs) or ("PCMU", "PCMA"), wanted.dtmf)
        assert self._local is not None
        self._sdp = b"" if wanted.late_offer else offer_answer.offer(self._local)
        exchange = self._exchange
        caller, line = wanted.caller or self.state.phone, self._line
        try:
            self._outgoing = exchange.stack.invite(
                exchange.uri_of(wanted.to) if line is None else line.uri_of(wanted.to),
                from_=f"<{exchange.own_uri(caller) if line is None or wanted.caller else line.uri}>",
                target=exchange.target(wanted.to, wanted.transport),
                sdp=self._sdp,
                headers=[*(identity_of(caller) if line is None else ()), *wanted.headers.items()],
                credentials=exchange.credentials if line is None else line.credentials,
                listener=self,
            )
        except MalformedMessage as error:
            self._end("phone", str(error))
            raise NotPossible(f"{wanted.to} cannot be dialled: {error}") from None
        self.state.call_id = self._outgoing.call_id

    async def _prepare(self, codecs: tuple[str, ...], dtmf: bool = True) -> None:
        if self._peer is None:
            peer = await RtpPeer.open(self._exchange.host, self._exchange.pacer)
            if self.over:
                peer.close()
            self._peer = peer
            session = secrets.randbits(32)
            self._local = offer_answer.Local(
                address=peer.host, port=peer.port, codecs=codecs, session_id=session, version=1, dtmf=dtmf
            )

    def take(self, invite: "ServerInvite", behaviour: Behaviour) -> None:
        """An INVITE came in."""
        self._incoming = invite
        self._takes = tuple(behaviour.codecs) or NAMES
        invite.listener = self
        self.state.call_id = invite.request.call_id
        self.state.headers = dict(invite.request.headers.items())
        if behaviour.does != "silent":
            if behaviour.does not in ("off",):
                self.ring()
            self.behave(behaviour)

    def behave(self, behaviour: Behaviour) -> None:
        """Do with the ringing call as the phone is told; nothing if that is decided already."""
        if self._incoming is None or self._answering or self.over:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if behaviour.does in ("rings", "silent"):
            return
        if behaviour.after_s and behaviour.does != "off":
            self._timer = asyncio.get_running_loop().call_later(behaviour.after_s, self._act, behaviour)
        else:
            self._act(behaviour)

    def _act(self, behaviour: Behaviour) -> None:
        if behaviour.does == "answers":
            self._exchange.spawn(self.answer(behaviour.headers))
        else:
            status = STATUSES.get(behaviour.does, behaviour.status)
            self.reject(status, headers=behaviour.headers)

    def ring(self, status: int = 180) -> None:
        """Ring. Raises NotPossible."""
        if self._incoming is None or self._answering or self.over:
            raise NotPossible("there is no call to ring for")
        self._incoming.ring(status)
        self.state.provisional.append(status)
        self.state.state = "ringing"
        self._change()

    async def answer(self, headers: Mapping[str, str] | None = None) -> None:
        """Pick up. Raises NotPossible."""
        invite = self._incoming
        if invite is None or self.over:
            raise NotPossible("no call is coming in")
        if self._answering:
            return
        self._answering = True
        await self._prepare(self._takes)
        assert self._local is not None
        if self.state.state == "ended":  # meanwhile
            return
        try:
            negotiated = offer_answer.answer(invite.offer, self._local) if invite.offer else None
        except (NotAcceptable, MalformedSdp) as error:
            self._answering = False
            self.reject(488, str(error)[:100])
            return
        self._sdp = negotiated.sdp if negotiated else offer_answer.offer(self._local)
        dialog = invite.accept(self._sdp, list((headers or {}).items()))
        if dialog.ended:
            return
        self._dialog = dialog
        dialog.listener = self
        if negotiated:
            self._take_route(negotiated)
        self._up(200)

    def reject(self, status: int, reason: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Refuse the call. Raises NotPossible."""
        if self._incoming is None or self._answering or self.over:
            raise NotPossible("there is no call to refuse")
        self._incoming.reject(status, reason, list((headers or {}).items()))
        self.state.status, self.state.reason = status, reason
        self._end("phone")

    def _up(self, status: int) -> None:
        self.state.state, self.state.status = "up", status
        self.state.answered_s = time.time()
        self._change()

    # -- in the call -------------------------------------------------------------------------------------------

    def hang_up(self, headers: Mapping[str, str] | None = None) -> None:
        """End it, as it stands."""
        if self.over:
            return
        fields = list((headers or {}).items())
        if self._dialog is not None:
            self._dialog.bye(fields)
            self._end("phone", (headers or {}).get("Reason", ""))
        elif self._outgoing is not None:
            self.state.ended_by = "phone"
            self._outgoing.cancel(fields)
        elif self._incoming is not None:
            self.reject(603, headers=headers)

    def drop(self) -> None:
        """Hang up, without waiting for what the other side says."""
        self.hang_up()
        self._end("phone")

    def press(self, wanted: Press) -> None:
        """Press keys. Raises NotPossible, OverflowError, ValueError."""
        if wanted.how == "info":
            if self._dialog is None or self.over:
                raise NotPossible("the call is not up")
            for digit in wanted.digits:
                body = f"Signal={digit}\r\nDuration={wanted.on_ms}\r\n"
                self._dialog.info(RELAY, body.encode())
            return
        peer = self._audio()
        peer.press(wanted.digits, in_band=wanted.how == "in-band", on_ms=wanted.on_ms, off_ms=wanted.off_ms)

    def say(self, samples: Samples) -> None:
        """Say this after what is said already. Raises NotPossible, OverflowError."""
        self._audio().play(samples)

    async def finished(self, wait_s: float) -> bool:
        """Whether all is said; waits for it a while."""
        if self._peer is None or self.over:
            return self.over
        try:
            await asyncio.wait_for(self._peer.idle(), wait_s)
        except TimeoutError:
            return False
        return True

    def stop(self) -> None:
        """Say no more."""
        self._audio().stop()

    def impair(self, given: Impairment, direction: str) -> None:
        """Let packets be lost and late. Raises NotPossible."""
        wanted = given if given.loss or given.jitter_ms else None
        self._audio().impair(
            outgoing=wanted if direction in ("out", "both") else None,
            incoming=wanted if direction in ("in", "both") else None,
        )

    def _audio(self) -> RtpPeer:
        if self._peer is None or self.over:
            raise NotPossible(f"the call is {self.state.state}")
        return self._peer

    def hold(self, on: bool) -> None:
        """Hold the call, or take it up again; the state says when it is done. Raises NotPossible."""
        if self._dialog is None or self._local is None or self.over:
            raise NotPossible("the call is not up")
        local = offer_answer.Local(
            address=self._local.address, port=self._local.port, codecs=self._local.codecs,
            session_id=self._local.session_id, version=self._local.version, dtmf=self._local.dtmf,
            direction="sendonly" if on else "sendrecv",
        )  # fmt: skip
        sdp = offer_answer.revise(self._sdp, offer_answer.offer(local, self._sdp))
        self._dialog.reinvite(sdp, lambda status, answer: self._held(on, local, sdp, status, answer))

    def refer(self, to: str) -> None:
        """Ask the other side to call somewhere else; the state says how it goes. Raises NotPossible."""
        if self._dialog is None or self.over:
            raise NotPossible("the call is not up")
        self._dialog.refer(f"<{self._exchange.uri_of(to)}>", self._refer_goes)

    def _refer_goes(self, progress: ReferProgress) -> None:
        state = self.state
        state.refer_response, state.refer_status = progress.response, progress.status
        state.refer_over = progress.over
        self._change()

    def _held(self, on: bool, local: offer_answer.Local, sdp: bytes, status: int, answer: bytes) -> None:
        if status == 200:
            self._local, self._sdp = local, sdp
            self.state.on_hold = on
            self._conclude(answer)
        self._change()

    def _conclude(self, answer: bytes) -> None:
        """The answer to our offer."""
        assert self._local is not None
        try:
            self._take_route(offer_answer.conclude(self._sdp, answer, self._local))
        except (NotAcceptable, MalformedSdp) as error:
            self.hang_up({"Reason": f'SIP;cause=488;text="{str(error)[:60]}"'})

    def _take_route(self, negotiated: offer_answer.Negotiated) -> None:
        if self._peer is None:
            return
        self._peer.route = Route(
            codec=negotiated.codec,
            send_payload_type=negotiated.send_payload_type,
            payload_types=negotiated.payload_types,
            dtmf_payload_type=negotiated.dtmf_payload_type,
            remote=negotiated.remote,
            remote_rtcp=negotiated.remote_rtcp,
            sends=negotiated.direction in ("sendrecv", "sendonly") and not self.state.on_hold,
        )
        self.state.held = negotiated.held

    # -- hearing -----------------------------------------------------------------------------------------------

    async def hear(self, what: Sound, wait_s: float, reference: Samples | None) -> Outcome:
        """Listen until it is heard, for a while. What is heard is used up: listening goes on after it.

        `reference` is the audio of a text or file. Raises hearing.Silent."""
        end = time.monotonic() + wait_s
        while True:
            over = self.over
            outcome = self._hear_now(what, reference)
            if outcome.heard or over or time.monotonic() >= end:
                outcome.over = over
                return outcome
            await asyncio.sleep(min(LISTEN_S, max(end - time.monotonic(), 0.001)))

    def _hear_now(self, what: Sound, reference: Samples | None) -> Outcome:
        peer = self._peer
        if peer is None:
            return Outcome(heard=False)
        heard = peer.heard
        if isinstance(what, Keys):
            return self._hear_keys(peer, what.keys.upper())
        if isinstance(what, Tone):
            found = tones.find_tone(heard.samples(), what.frequencies, what.ms, self._cursor)
        elif isinstance(what, Silence):
            found = tones.find_silence(heard.samples(), what.ms, self._cursor)
        else:
            assert reference is not None
            if self._listening is None or self._listening[0] != what:
                self._listening = (what, hearing.Listener(reference, self._cursor))
            listener = self._listening[1]
            match = listener.listen(heard.samples(), heard.there())
            if match is None:
                return Outcome(heard=False, score=listener.best.score, at_ms=listener.best.start * 1000 // RATE)
            return self._used(match.start, match.end, match.score)
        return Outcome(heard=False) if found is None else self._used(*found)

    def _hear_keys(self, peer: RtpPeer, wanted: str) -> Outcome:
        """The next keys, however they came."""
        events = [key.key for key in peer.keys][self._keys_seen :]
        if "".join(events).startswith(wanted):
            self._keys_seen += len(wanted)
            return Outcome(heard=True, score=1.0, at_ms=peer.keys[self._keys_seen - 1].position * 1000 // RATE)
        found = [s for s in tones.stretches(peer.heard.samples(self._cursor)) if s.what == "key"]
        if "".join(stretch.key for stretch in found).startswith(wanted):
            last = found[len(wanted) - 1]
            return self._used(self._cursor + found[0].start, self._cursor + last.end)
        return Outcome(heard=False)

    def _used(self, start: int, end: int, score: float = 1.0) -> Outcome:
        self._cursor, self._listening = max(self._cursor, end), None
        return Outcome(heard=True, at_ms=start * 1000 // RATE, end_ms=end * 1000 // RATE, score=score)

    def explain(self) -> str:
        """What was heard since the last thing that was listened for, in words."""
        state, peer = self.snapshot(), self._peer
        where = f"the call is {state.state}"
        if self.over:
            where += f" by the {state.ended_by or 'other'}, SIP status {state.status} {state.hangup_reason}".rstrip()
        if peer is None or not peer.heard.end:
            return f"{where}; no audio came"
        heard = peer.heard
        words = tones.describe(heard.samples(self._cursor), heard.there(self._cursor))
        text = f"{where}; heard since {self._cursor / RATE:.1f} s: {words}"
        if state.keys:
            text += f"; keys by telephone-event: {state.keys}"
        if self._listening is not None:
            best = self._listening[1].best
            text += f"; best match: {best.score:.0%} of it at {best.start / RATE:.1f} s"
        return text

    # -- from the stack ----------------------------------------------------------------------------------------

    def on_progress(self, response: Response, sdp: bytes) -> None:
        """180 or 183 to our INVITE, with early media perhaps."""
        self.state.provisional.append(response.status)
        self.state.state = "ringing"
        self._report(response.status)
        if sdp and self._sdp:
            self._conclude_early(sdp)
        self._change()

    def _conclude_early(self, sdp: bytes) -> None:
        assert self._local is not None
        try:
            self._take_route(offer_answer.conclude(self._sdp, sdp, self._local))
        except (NotAcceptable, MalformedSdp):
            return  # the answer may still come with the 200

    def on_answer(self, dialog: Dialog, response: Response, sdp: bytes) -> None:
        """200 to our INVITE."""
        self._dialog = dialog
        dialog.listener = self
        self.state.headers = dict(response.headers.items())
        if self._wanted is not None and self._wanted.late_offer:
            assert self._local is not None
            try:
                negotiated = offer_answer.answer(sdp, self._local)
            except (NotAcceptable, MalformedSdp):
                dialog.ack(b"")
                dialog.bye()
                self._end("phone", "the offer does not suit")
                return
            self._sdp = negotiated.sdp
            dialog.ack(self._sdp)
            self._take_route(negotiated)
        else:
            self._conclude(sdp)
        if not self.over:
            self._up(response.status)
            self._report(response.status)

    def on_failure(self, status: int, reason: str, response: Response | None) -> None:
        """Our INVITE was refused or given up."""
        self._report(status)
        self.state.status, self.state.reason = status, reason
        if response is not None:
            self.state.headers = dict(response.headers.items())
        by = self.state.ended_by or ("other" if response is not None else "network")
        self._end(by, response.headers.get("Reason") if response is not None else "")

    def on_cancel(self, reason: str) -> None:
        """The caller gave up."""
        self.state.status = 487
        self._end("other", reason)

    def on_bye(self, request: Request) -> None:
        """The other side hung up."""
        self._end("other", request.headers.get("Reason"), dict(request.headers.items()))

    def on_ended(self, reason: str) -> None:
        """The dialog is gone."""
        self._end("network", reason)

    def on_reinvite(self, offer: bytes) -> bytes:
        """Our description for a re-INVITE. Raises NotAcceptable."""
        assert self._local is not None
        self.state.reinvites += 1
        if not offer:
            self._change()
            return self._sdp
        negotiated = offer_answer.answer(offer, self._local)
        self._sdp = offer_answer.revise(self._sdp, negotiated.sdp)
        self._take_route(negotiated)
        self._change()
        return self._sdp

    def on_refresh(self) -> bytes:
        """Our description, for a refresh of the session."""
        return self._sdp

    def on_refer(self, refer: ReferRequest) -> Answer:
        """Call somewhere else, as a phone does: a call of its own, of whose progress the other side is told."""
        self.state.referred_to = refer.target
        self._change()
        phone = self._exchange.phone(self.state.phone)
        status = phone.behaviour.refer_status
        if 200 <= status < 300:
            self._exchange.spawn(self._obey(phone, refer))
        return status, []

    async def _obey(self, phone: "Phone", refer: ReferRequest) -> None:
        headers = {name: value for name, value in refer.uri.headers.items() if name != "replaces"}
        try:
            call = await phone.dial(Dial(to=str(refer.uri.replace(headers={})), headers=headers))
        except (NotPossible, OverflowError, OSError):
            refer.tell(503)
            return
        call.follows(refer)

    def follows(self, refer: ReferRequest) -> None:
        """Tell of this call whoever asked for it."""
        self._referred = refer
        if self.state.provisional or self.state.status:
            self._report(self.state.status or self.state.provisional[-1])

    def _report(self, status: int) -> None:
        if self._referred is not None:
            self._referred.tell(status)

    def on_ack(self, sdp: bytes) -> None:
        """The answer, when we had offered."""
        if sdp:
            self._conclude(sdp)

    def on_info(self, request: Request) -> None:
        """INFO: kept as it is."""
        if len(self.state.info) < MAX_INFO:
            self.state.info.append(request.body.decode("utf-8", "replace"))
            self._change()


def identity_of(caller: str) -> Iterable[tuple[str, str]]:
    """What says that the caller hides (RFC 3323)."""
    return [("Privacy", "id")] if caller == "anonymous" else []
