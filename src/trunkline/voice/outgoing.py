"""The INVITEs of one outgoing leg: one way after the other, until one is answered or there is nothing left to try.

Another way is tried only where surely nobody was reached: the transport failed, nothing answered (for a trunk: within
its `failover_s`), or the far end gave one of the trunk's `failover` responses before it rang. A busy line, a refusal, a
phone that rang and was not picked up end the leg.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from trunkline.model.call import Status
from trunkline.sip import offer_answer
from trunkline.sip.core import CallListener
from trunkline.sip.errors import MalformedMessage, MalformedSdp, NotAcceptable
from trunkline.sip.flow import DEFAULT_PORT, DEFAULT_TLS_PORT, Target
from trunkline.sip.identity import name_addr, sip_uri
from trunkline.voice import emergency, leg_changes, redirects, securing, timeline
from trunkline.voice.caller_id import passes
from trunkline.voice.checkpoints import save_invite
from trunkline.voice.customer_trunks import ends_with_dial
from trunkline.voice.emergency import is_bare
from trunkline.voice.endings import NO_PORT, SERVER_ERRORS, TIMED_OUT, elsewhere, ending
from trunkline.voice.forking import Fork
from trunkline.voice.limits import CallLimit
from trunkline.voice.params import IDENTITY
from trunkline.voice.trunk_dialect import PassedOn
from trunkline.voice.trunks import Trunks, Way
from trunkline.webhooks.failures import Failure

if TYPE_CHECKING:
    from trunkline.settings import Trunk
    from trunkline.sip.dialog import Dialog
    from trunkline.sip.flow import Flow
    from trunkline.sip.message import Response
    from trunkline.sip.offer_answer import Negotiated
    from trunkline.voice.domains import Phones
    from trunkline.voice.live import LiveCall

RING_EXTRA_S: Final = 5.0
"""How much longer than `Timeout` a phone rings, as at Twilio."""
LEAST_WAIT_S: Final = 0.05
"""Least wait for a trunk that is at its limit."""
NO_CODEC: Final = 488
REQUEST_TERMINATED: Final = 487
SILENCE_S: Final = 4.0
"""How long the host of a `sip:` URI may be silent when there is another to try."""
SICK: Final = frozenset({TIMED_OUT, NO_PORT})
"""Responses of a gateway that is no better than a dead one."""
MAX_EARLY: Final = 4
"""Early dialogs of an INVITE that are kept for other hosts."""
MAX_HEADERS: Final = 50
"""Headers of an answer that are kept."""


def passed_on(response: Response) -> dict[str, str]:
    """The headers of an answer that customers see: X- ones and User-to-User."""
    found = [(name, value) for name, value in response.headers.items() if passes(name)]
    return dict(found[:MAX_HEADERS])


class Invite(Protocol):
    """An INVITE under way (trunkline.sip.client_invite.ClientInvite)."""

    @property
    def call_id(self) -> str: ...

    @property
    def sent(self) -> tuple[bytes, Flow]: ...

    @property
    def heard(self) -> bool: ...

    def cancel(self, headers: Any = ()) -> None: ...


class PlaceInvite(Protocol):
    """`trunkline.sip.stack.Stack.invite`."""

    def __call__(
        self, uri: str, *, to: str = "", from_: str, target: Target | tuple[str, str, int] | None, sdp: bytes,
        headers: Any = (), credentials: tuple[str, str] | None = None, routes: Sequence[str] = (),
        listener: CallListener, session_s: int | None = None,
    ) -> Invite: ...  # fmt: skip


@dataclass(slots=True)
class Plan:
    """What is to be sent."""

    ways: list[Way]
    timeout_s: float
    headers: list[tuple[str, str]] = field(default_factory=list)
    login: tuple[str, str] | None = None
    """For a `sip:` URI; trunks have their own."""
    display: str = ""


@dataclass(slots=True)
class Wires:
    """What all legs share."""

    invite: PlaceInvite
    trunks: Trunks
    domain: str
    """Host part of our own addresses."""
    resolve: Callable[[str], Awaitable[str]]
    """The address of a host that a customer named; raises Failure for one that may not be reached."""
    now: Callable[[], float]
    busy_on_decline: bool = True


class Outgoing(CallListener):
    """See the module. `outcome` is True once the leg is up, False when it ended before."""

    def __init__(self, wires: Wires, live: LiveCall, plan: Plan) -> None:
        self._wires = wires
        self._plan = plan
        self._ways = list(plan.ways)
        self._full: list[Way] = []
        self._limit: CallLimit | None = None
        self._gate: CallLimit | None = None
        """The limit of the gateway that has the call."""
        self._passed_over = False
        self._offer = b""
        self._way: Way | None = None
        self._plain: Way | None = None
        """The way whose far end refused SRTP, and is tried without it."""
        self._unreached = 0
        """The status of a user who has no phone."""
        self._rang = self._kept = self._forked = False
        self._early: dict[str, bytes] = {}  # by the callee's tag
        self._hops = 0
        self._seen: set[str] = set()
        """URIs that a 3xx named, or came from."""
        self._ring_timer: asyncio.TimerHandle | None = None
        self._limit_timer: asyncio.TimerHandle | None = None
        self._silence_timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._invite: Invite | None = None
        self.live = live
        self.outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.early: Callable[[Negotiated], None] = lambda negotiated: None
        """Told when the far end's audio can be heard before it answers."""
        self.before_up: Callable[[], None] = lambda: None
        """Called when it is answered, before the record says so."""
        live.on_end(self._over)

    def start(self) -> None:
        """Send the first INVITE. The record, with the intent, is durable."""
        if self.live.is_over:
            return
        loop = asyncio.get_running_loop()
        self._ring_timer = loop.call_later(self._plan.timeout_s + RING_EXTRA_S, self._timed_out)
        self._next()

    # -- ways ------------------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Try the next way that has room."""
        while self._ways:
            way = self._ways.pop(0)
            if way.phones is not None:
                if not self._ring_phones(way, way.phones):
                    continue
            elif way.trunk is not None:
                limit = self._wires.trunks.limit(way.trunk)
                if limit is not self._limit:  # the trunk's next gateway goes on with what its first was given
                    self._give_back()
                    if is_bare(self.live.record.to):
                        limit.force()
                    elif not limit.begin(self._wires.now()):
                        self._full.append(way)
                        continue
                    self._limit = limit
                if not self._enter(way):
                    self._full.append(way)
                    continue
                if self._is_foreign(way):
                    self._task = asyncio.get_running_loop().create_task(self._resolve(way))
                else:
                    self._send(way, way.host)
            else:
                self._give_back()
                self._task = asyncio.get_running_loop().create_task(self._resolve(way))
            return
        if self._full:
            self._wait_for_room()
        else:
            self._fail(self._unreached or NO_PORT, "no-phone" if self._unreached else "no-route")

    def _enter(self, way: Way) -> bool:
        """Whether the way's gateway takes one more call; that of the way before has one less."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.end()
        gate = way.endpoint.limit if way.endpoint is not None else None
        if gate is None:
            return True
        if is_bare(self.live.record.to):
            gate.force()
        elif not gate.join():
            return False
        self._gate = gate
        return True

    def _ring_phones(self, way: Way, phones: Phones) -> bool:
        """Call the phones of a SIP domain's user; False when there are none."""
        self._give_back()
        if phones.code:
            self._unreached = phones.status
            self.live.alert(phones.code, phones.why)
            return False
        self._send(way, phones.groups[0][0].flow.remote[0])
        return True

    def _wait_for_room(self) -> None:
        """All trunks are at their limits: try them again when the first has room; the ring timeout goes on."""
        now = self._wires.now()
        self._ways, self._full = self._full, []
        waits = [self._wires.trunks.limit(way.trunk).pace.wait_s(now) for way in self._ways if way.trunk is not None]
        delay = max(LEAST_WAIT_S, min(waits, default=LEAST_WAIT_S))
        self._limit_timer = asyncio.get_running_loop().call_later(delay, self._next)

    async def _resolve(self, way: Way) -> None:
        """A `sip:` URI of a customer's: its host is looked up and checked first."""
        try:
            address = await self._wires.resolve(way.host)
        except Failure as failure:
            self.live.note(timeline.ERROR, f"{way.host}: {failure}")
            address = ""
        if self.live.is_over:
            return
        if address:
            self._send(way, address)
        else:
            self._next()

    def _send(self, way: Way, address: str) -> None:
        live, trunk = self.live, way.trunk
        if live.local is not None:
            live.local = None  # another trunk may want other codecs, or see us at another address
        if trunk is not None:
            live.use(trunk)
        live.source = address
        endpoint, default = way.endpoint, DEFAULT_TLS_PORT if way.transport == "TLS" else DEFAULT_PORT
        transport = way.transport if endpoint is None else endpoint.target[0]
        try:
            if way.phones is not None:
                live.srtp = offer_answer.REQUIRED if way.phones.secure else offer_answer.OFF
            elif way.secure:
                live.srtp = offer_answer.REQUIRED
            else:
                live.srtp = securing.outgoing(trunk, transport, live.services.settings.sip, refused=way is self._plain)
        except NotAcceptable as refused:
            live.note(timeline.ERROR, str(refused))
            self._fail(NO_CODEC, "srtp-without-tls")
            return
        offer = live.offer(address)
        if offer is None:
            self._fail(NO_PORT, "no-media-port")
            return
        self._offer, self._way, self._kept, self._forked = offer, way, False, False
        self._early.clear()
        uri = str(way.uri.replace(headers={}))
        domain = way.host if way.transport == "TLS" else ""  # whose certificate it has to be
        target = Target(way.transport, address, default if way.port is None else way.port, domain)
        try:
            self._invite = self._fork(way, way.phones) if way.phones is not None else self._wires.invite(
                uri, from_=self._from(way), target=target if endpoint is None else endpoint.target, sdp=offer,
                headers=self._headers(way), credentials=self._login(way), listener=self,
                session_s=(int(trunk.session_timer_s) or None) if trunk is not None else None,
            )  # fmt: skip
        except MalformedMessage as error:
            self._fail(404, str(error))
            return
        live.cancel = self._cancel
        live.trace(self._invite.call_id)
        live.note(timeline.SIP, f"-> INVITE {uri}", to=address, trunk=live.record.trunk)
        if self._is_impatient(way):
            loop, silence_s = asyncio.get_running_loop(), SILENCE_S if trunk is None else trunk.failover_s
            self._silence_timer = loop.call_later(silence_s, self._pass_over)

    def _is_impatient(self, way: Way) -> bool:
        """Whether silence ends an INVITE early: there is another way, or something else to be done for the caller."""
        if way.phones is not None:
            return False  # a fork looks after itself
        parent = self.live.parent
        waited_for = way.trunk is None and parent is not None and ends_with_dial(parent.record)
        return bool(self._ways or self._full) or waited_for

    def _fork(self, way: Way, phones: Phones) -> Invite:
        """Ring all phones of a user. Raises MalformedMessage."""
        live = self.live
        self._forked = True  # it is kept for all of them

        def rings(sent: list[tuple[bytes, Flow]]) -> None:
            save_invite(live.services.memory, live.sid, *sent[0], others=sent[1:])

        at_once = live.services.settled is not None
        fork = Fork(
            self._wires.invite, phones.groups, to=phones.to, from_=self._from(way), sdp=self._offer,
            headers=self._headers(way), listener=self, rings=rings, at_once=at_once,
        )  # fmt: skip
        live.note(timeline.SIP, f"{len(phones.groups)} phones of {phones.to} are called", at=fork.addresses)
        return fork

    def _from(self, way: Way) -> str:
        caller, domain = self.live.record.from_, self._wires.domain
        if way.dialect is not None:
            return way.dialect.from_(caller, self._plan.display, domain)
        if caller.startswith(("sip:", "sips:")):
            return name_addr(self._plan.display, caller)
        return name_addr(self._plan.display, sip_uri(caller, domain))

    def _headers(self, way: Way) -> list[tuple[str, str]]:
        headers = list(self._plan.headers)
        if way.dialect is not None:
            record = self.live.record
            headers += way.dialect.headers(record.from_, way.uri, self._passed_on(), self._wires.domain)
        return headers

    def _passed_on(self) -> PassedOn | None:
        """The call whose caller this leg shows as its own."""
        parent = self.live.parent
        if parent is None or not parent.incoming or parent.record.from_ != self.live.record.from_:
            return None
        return PassedOn(parent.record.to, parent.record.extra.get(IDENTITY, []))

    def _login(self, way: Way) -> tuple[str, str] | None:
        if way.trunk is None:
            return self._plan.login
        if self._is_foreign(way):
            return None
        return (way.trunk.username, str(way.trunk.password)) if way.trunk.username else None

    # -- what the far end says -------------------------------------------------------------------------------

    def on_sent(self, invite: bytes, flow: Flow) -> None:
        """Where another host may go on with the call, what it takes to withdraw the INVITE is on its way there as the
        INVITE is on its own: this host may be gone before it has heard that it rings."""
        live = self.live
        if live.services.settled is not None and not self._forked and not live.is_over:
            self._kept = True
            self._early.clear()
            save_invite(live.services.memory, live.sid, invite, flow)

    def on_progress(self, response: Response, sdp: bytes) -> None:
        live = self.live
        if live.is_over:
            return
        self._keep(response)
        if response.status != 183:
            self._rang = True
        if self._silence_timer is not None:
            self._heard()
        early: Negotiated | None = None
        if sdp and live.local is not None:
            try:
                early = offer_answer.conclude(self._offer, sdp, live.local)
            except (NotAcceptable, MalformedSdp) as refused:
                live.note(timeline.ERROR, f"early media: {refused}")
        live.ringing(response.status, early)
        if early is not None:
            self.early(early)

    def _keep(self, response: Response) -> None:
        """Store the INVITE, so that another process can cancel it; for another host with the early dialogs, in which it
        hangs up on a callee who has picked up just then."""
        live, new = self.live, False
        if self._forked or self._invite is None:
            return
        if live.services.settled is not None and "Contact" in response.headers and len(self._early) < MAX_EARLY:
            tag = response.to_tag
            new = bool(tag) and tag not in self._early
            if new:
                self._early[tag] = response.encode()
        if new or not self._kept:
            self._kept = True
            save_invite(live.services.memory, live.sid, *self._invite.sent, early=[*self._early.values()])

    def on_answer(self, dialog: Dialog, response: Response, sdp: bytes) -> None:
        live = self.live
        self._stop_timers()
        self._invite = None
        self._learn(0, answered=True)
        if live.is_over or live.local is None:
            dialog.bye()
            return
        try:
            changed = live.negotiated if not sdp else None  # by an UPDATE, before it was answered
            negotiated = changed or offer_answer.conclude(self._offer, sdp, live.local)
        except (NotAcceptable, MalformedSdp) as refused:
            live.note(timeline.ERROR, f"the answer: {refused}")
            dialog.bye()
            live.failed(NO_CODEC, Status.FAILED, "no-common-codec")
            return
        live.record.sip_headers = passed_on(response)
        if self._way is not None and self._way.phones is not None:
            live.source = dialog.flow.remote[0]
            live.trace(dialog.call_id)
        self.before_up()
        live.connected(dialog, negotiated, response.status)
        if not self.outcome.done():
            self.outcome.set_result(True)

    def on_failure(self, status: int, reason: str, response: Response | None) -> None:
        self._invite = None
        self._heard()
        if self._passed_over:
            self._passed_over, status, reason = False, TIMED_OUT, "silence"
        self._learn(status, answered=response is not None)
        live = self.live
        if live.is_over:
            self._give_back()
            return
        live.cancel = None
        if status == TIMED_OUT and response is None:
            self._note_silence()
        if response is not None and self._is_followed(status, response):
            live.note(timeline.SIP, f"{status} {reason}: it is followed")
            self._next()
            return
        way = self._way
        if way is not None and securing.may_be_plain(way.trunk, status, live.srtp):
            live.note(timeline.SIP, f"{status} {reason}: once more without SRTP")
            self._plain = way
            self._ways.insert(0, way)
            self._next()
            return
        insisting = way.phones.encrypted() if way is not None and way.phones is not None else None
        if way is not None and insisting is not None and status in securing.REFUSED:
            live.note(timeline.SIP, f"{status} {reason}: once more with SRTP")
            self._ways.insert(0, way._replace(phones=insisting))
            self._next()
            return
        again = way.dialect.again if way is not None and way.dialect is not None else SERVER_ERRORS
        more = bool(self._ways or self._full)
        if more and elsewhere(status, answered=response is not None, rang=self._rang, again=again):
            live.note(timeline.SIP, f"{status} {reason}: another way is tried")
            self._next()
            return
        self._give_back()
        if response is not None:
            live.record.hangup_cause = response.headers.get("Reason")
        self._fail(status, f"sip-{status}")

    def on_early_update(self, tag: str, offer: bytes) -> bytes:
        """Raises NotAcceptable."""
        return leg_changes.changed(self.live, offer)

    def _is_followed(self, status: int, response: Response) -> bool:
        """Whether a 3xx gave other ways, which are tried next."""
        way = self._way
        if way is None or way.trunk is None or not way.trunk.follow_redirects or not redirects.is_redirect(status):
            return False
        if self._hops >= redirects.MAX_HOPS:
            return False
        self._hops += 1
        self._seen.add(str(way.uri))
        more = [one for one in redirects.ways(response, way, self._seen) if self._may_follow(one, way.trunk)]
        self._ways[:0] = more
        return bool(more)

    def _may_follow(self, way: Way, trunk: Trunk) -> bool:
        """Whether a way that a 3xx names is one that the account's own call could have taken."""
        live, number = self.live, redirects.number(way)
        record, outbound = live.record, live.services.outbound
        if number == record.to or is_bare(record.to):
            return True
        why = ""
        if any(emergency.called(way.uri.user, one) for one in (record.from_, record.to)):
            why = "an emergency number"
        elif number and not self._wires.trunks.leads(trunk, number):
            why = f"trunk {trunk.name} has no prefix for it"
        elif number and (denied := outbound.denial(record.account_sid, number)) is not None:
            why = denied.why
        if why:
            live.note(timeline.ERROR, f"the redirect to {way.uri} is not followed: {why}")
        elif number:
            outbound.placed(record.account_sid, number)
        return not why

    def _is_foreign(self, way: Way) -> bool:
        """Whether a 3xx led it away from its trunk's own gateways."""
        if way.trunk is None or way.endpoint is not None:
            return False
        gateways = self._wires.trunks.gateways[way.trunk.name].all
        addresses = {each.target.host for one in gateways for each in one.endpoints}
        return redirects.is_foreign(way, addresses | {one.uri.bare_host for one in gateways})

    def _fail(self, status: int, why: str) -> None:
        end = ending(status, busy_on_decline=self._wires.busy_on_decline)
        self.live.failed(status, end, why)

    def _pass_over(self) -> None:
        """The gateway has been silent for too long, and there is another way."""
        self._silence_timer = None
        invite = self._invite
        if invite is not None and not invite.heard and not self.live.is_over:
            self._passed_over = True
            invite.cancel()

    def _heard(self) -> None:
        timer, self._silence_timer = self._silence_timer, None
        if timer is not None:
            timer.cancel()

    def _learn(self, status: int, *, answered: bool) -> None:
        """What came of the INVITE tells whether its gateway is alive."""
        endpoint = self._way.endpoint if self._way is not None else None
        if endpoint is None:
            return
        if answered and status not in SICK:
            endpoint.answered(self._wires.now())
        elif answered or status in SICK:
            endpoint.failed(self._wires.now(), f"an INVITE got {status}" if answered else "no answer to an INVITE")

    # -- the end ---------------------------------------------------------------------------------------------

    def _timed_out(self) -> None:
        if self._invite is not None and not self._invite.heard:
            self._note_silence()
        self.live.hangup("timeout", end=Status.NO_ANSWER)

    def _note_silence(self) -> None:
        """A phone that nobody picks up and an address that does not answer end alike; the timeline tells them apart."""
        self.live.note(timeline.ERROR, f"nothing at all came back from {self.live.source}: address, port, firewall?")

    def _cancel(self) -> None:
        """We give up: CANCEL, to which the far end answers 487."""
        invite, self._invite = self._invite, None
        if invite is not None:
            self.live.record.sip_response_code = REQUEST_TERMINATED
            invite.cancel()

    def _over(self, _live: LiveCall) -> None:
        """The leg has ended, before or after it was answered."""
        self._stop_timers()
        self._give_back()
        if self._task is not None:
            self._task.cancel()
        if not self.outcome.done():
            self.outcome.set_result(False)

    def _give_back(self) -> None:
        for limit in (self._limit, self._gate):
            if limit is not None:
                limit.end()
        self._limit = self._gate = None

    def _stop_timers(self) -> None:
        for timer in (self._ring_timer, self._limit_timer, self._silence_timer):
            if timer is not None:
                timer.cancel()
        self._ring_timer = self._limit_timer = self._silence_timer = None
