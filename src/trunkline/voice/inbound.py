"""Calls that come in: who may call whom, and the beginning of the call's own session.

`Inbound` is the core of the SIP stack. An INVITE is taken only if its source is a trunk (trunkline.voice.sources) and
its target is a number of an active account with something to run, or if its target is a SIP domain or a customer's
trunk that lets its sender in (trunkline.voice.domains, trunkline.voice.customer_trunks); else it gets 401, 403, 404 or
407. Nothing is ever forwarded: this is no relay. A call that is taken is stored as `ringing` while its first document
is fetched; what it needs to be answered (a port, a codec in common) is settled before.
"""

from __future__ import annotations

import logging
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from trunkline.model.account import Account
from trunkline.model.call import Call, Direction, Status, StatusTarget
from trunkline.model.numbers import Application, PhoneNumber
from trunkline.model.sid import CALL, new_sid
from trunkline.model.sip_trunk import CUSTOMER_TRUNK
from trunkline.settings import Trunk
from trunkline.sip import number as numbers
from trunkline.sip.offer_answer import NotAcceptable
from trunkline.storage.written import when_done
from trunkline.voice import emergency, securing, timeline
from trunkline.voice.checkpoints import save_invite
from trunkline.voice.customer_trunks import CustomerTrunks
from trunkline.voice.domains import NO_SRTP, record
from trunkline.voice.doorkeeper import Doorkeeper, Told
from trunkline.voice.held_invites import HeldInvites
from trunkline.voice.live import LiveCall
from trunkline.voice.logins import Asked, Refused
from trunkline.voice.params import SIP_DOMAIN
from trunkline.voice.replacing import take_place
from trunkline.voice.session import Session
from trunkline.voice.sources import ASKED, TURNED_AWAY, Challenge, Sources
from trunkline.voice.steps import Goto, Inline, Source
from trunkline.voice.trunk_doors import TrunkDoors

if TYPE_CHECKING:
    from trunkline.model.sip_domain import SipDomain
    from trunkline.model.sip_trunk import SipTrunk
    from trunkline.sip.core import Answer
    from trunkline.sip.flow import Flow
    from trunkline.sip.message import Request
    from trunkline.sip.server_invite import ServerInvite
    from trunkline.voice.domains import Domains
    from trunkline.voice.flights import CallFlight
    from trunkline.voice.service import VoiceServices

RETRY_AFTER: Final = ("Retry-After", "5")
NO_URL: Final = 11100
ACTIVE: Final = "active"
BY_STRANGERS: Final = ASKED | TURNED_AWAY
"""Responses that count against an address that is nobody's (trunkline.voice.bans)."""

log = logging.getLogger(__name__)


class Target(NamedTuple):
    """Whom a call is for, and what it runs."""

    account: Account
    number: PhoneNumber
    application: Application | None
    trunk: SipTrunk | None = None
    """The customer's trunk that the number is on; no URL is asked then."""

    @property
    def owner(self) -> PhoneNumber | Application:
        """What holds the URLs."""
        return self.application or self.number


class Refusal(Refused):
    """An INVITE is not taken. `number`: because it is nobody's."""

    number = ""


class Inbound:
    """See the module. `counters` are INVITEs by what became of them."""

    def __init__(self, services: VoiceServices, sources: Sources, domains: Domains | None = None) -> None:
        self._services = services
        self._sources = sources
        self._domains = domains
        self._customers = CustomerTrunks(services, domains, Random()) if domains is not None else None
        self.draining = False
        """Whether new calls are refused, because the node stops."""
        self.counters: dict[str, int] = {}
        self.again: dict[str, CallFlight] = {}
        """By Call-ID, calls that rang when a process before this one was lost: their INVITEs come once more."""
        self.doors = TrunkDoors(services.trunks, sources, services.clock)
        services.doors = self.doors
        self.doorkeeper: Doorkeeper | None = None
        """Who is answered at all; None: everybody."""
        self._told = Told(services.clock)
        self.held = HeldInvites()

    # -- the stack's core ------------------------------------------------------------------------------------

    def permitted(self, request: Request, flow: Flow) -> bool:
        """See trunkline.sip.core.Core."""
        host = self._sources.edges.source(request, flow)
        if not self._sources.permitted(host) or self._sources.suspects(request, flow):
            return False
        if self.doorkeeper is None or self.doorkeeper.answers(request, flow):
            return True
        self._count("unanswered")
        self._told.unanswered(request, host)
        return False

    def on_request(self, request: Request, flow: Flow) -> Answer | None:
        """Phones of SIP domains register; OPTIONS get 200, whoever asks, until the node stops: edge proxies and
        carriers then go elsewhere; the rest the stack's default."""
        if self.draining and request.method == "OPTIONS":
            return 503, [RETRY_AFTER]
        if request.method == "REGISTER" and self._domains is not None:
            return (503, [RETRY_AFTER]) if self.draining else self._domains.registrations.register(request, flow)
        return None

    def on_invite(self, invite: ServerInvite) -> None:
        """Take a call or refuse it. Next: trunkline.voice.session.Session.run"""
        if self.again and (flight := self.again.pop(invite.request.call_id, None)) is not None:
            self._take_up(invite, flight)
        elif self.held.can_begin() or not self.held.for_partition(invite, lambda: self._take(invite)):
            self._take(invite)

    def _take(self, invite: ServerInvite, looked: bool = False) -> None:
        """`looked`: its number has been looked for."""
        before, request, host = self._sources.wrong_logins, invite.request, self._host(invite)
        try:
            if "Replaces" in invite.request.headers:
                take_place(invite, self._owner(invite))
                self._count("replaced")
                return
            call = self._by_domain(invite) or self._by_customer(invite) or self._by_trunk(invite)
        except Asked as asked:
            self._count("challenged")
            self._sources.answered(407, request, invite.flow, before)
            invite.reject(407, headers=[("Proxy-Authenticate", value) for value in asked.challenges])
        except Challenge as challenge:
            self._count("challenged")
            self._sources.answered(401, request, invite.flow, before)
            self._told.challenged(host)
            invite.challenge(challenge.value)
        except Refused as refusal:
            number = refusal.number if isinstance(refusal, Refusal) and not looked else ""
            if number and self.held.for_number(invite, number, lambda: self._take(invite, looked=True)):
                return
            self._count(f"refused-{refusal.status}")
            if refusal.status in BY_STRANGERS:
                self._sources.answered(refusal.status, request, invite.flow, before)
            log.info("INVITE from %s refused with %d: %s", host, refusal.status, refusal)
            invite.reject(refusal.status, headers=(RETRY_AFTER,) if refusal.status == 503 else ())
        else:
            self._count("taken")
            if self._sources.by_address(host) is None:
                self._sources.bans.vouched(host)
            self._begin(call, invite)

    def _host(self, invite: ServerInvite) -> str:
        """Where a call comes from, through an edge or not."""
        return self._sources.edges.source(invite.request, invite.flow)

    def _owner(self, invite: ServerInvite) -> Trunk | Account:
        """Who sent an INVITE that replaces a dialog: a phone or PBX by the domain that it names, a phone that aims at
        our Contact (as a Refer-To has it) by its own. Raises Asked, Challenge, Refused."""
        if self._domains is not None:
            domain = self._domains.of(invite.request)
            if domain is None and self._sources.by_address(self._host(invite)) is None:
                domain = self._domains.of_phone(invite.request, invite.flow)
            if domain is not None:
                return self._domains.admit(invite, domain)[0]
            customer = self._customers.of(invite.request) if self._customers is not None else None
            if customer is not None:
                return self._domains.let_in(invite, customer)[0]
        self._turn_away(invite)
        trunk = self.doors.trunk_of(invite.request, invite.flow)
        if trunk is None:
            raise Refusal(403, "an unknown source")
        return trunk

    def _by_trunk(self, invite: ServerInvite) -> LiveCall:
        """A call from a carrier or a PBX. Raises Asked, Challenge, Refused."""
        self._turn_away(invite)
        trunk = self.doors.trunk_of(invite.request, invite.flow)
        if trunk is None:
            raise Refusal(403, "an unknown source")
        if self.draining:
            raise Refusal(503, "the node stops")
        target = self._target(invite.request, trunk)
        self._check_limits(trunk, target.account)
        call = self._call(invite, trunk, target.account, self._record(invite, trunk, target))
        self.doors.let_in(trunk, call)
        return call

    def _turn_away(self, invite: ServerInvite) -> None:
        """A stranger who calls a name that could be a SIP domain or a customer's trunk gets the same answers as for one
        that exists. Raises Asked, Refused."""
        if self._domains is None or self._sources.by_address(self._host(invite)) is not None:
            return
        if self._domains.is_name(invite.request):
            self._domains.turn_away(invite)

    def _by_domain(self, invite: ServerInvite) -> LiveCall | None:
        """A call from a phone of a SIP domain. Raises Asked, Refused."""
        domain = self._domains.of(invite.request) if self._domains is not None else None
        if self._domains is None or domain is None:
            return None
        account, username = self._domains.admit(invite, domain)
        if self.draining:
            raise Refusal(503, "the node stops")
        if not self._is_urgent(invite.request):
            self._check_limits(None, account)
        call = record(invite, domain, username, self._services.clock.now_ms(), self._host(invite))
        call.time_limit_s = int(self._services.settings.voice.time_limit_s)
        live = self._call(invite, None, account, call)
        if domain.secure:
            self._keep_srtp(live, domain, invite)
        return live

    def _keep_srtp(self, live: LiveCall, owner: SipDomain | SipTrunk, invite: ServerInvite) -> None:
        """Raises Refusal when the call has none."""
        if _bind(live) or self._domains is None:
            return
        live.audio.close()
        self._domains.warn(owner, NO_SRTP, f"a call from {self._host(invite)} without SRTP")
        raise Refusal(488, f"{owner.domain_name} wants SRTP")

    def _by_customer(self, invite: ServerInvite) -> LiveCall | None:
        """A call from a customer's PBX through its trunk. Raises Asked, Refused."""
        trunk = self._customers.of(invite.request) if self._customers is not None else None
        if self._customers is None or trunk is None:
            return None
        account, call = self._customers.terminate(invite, trunk)
        if self.draining:
            raise Refusal(503, "the node stops")
        if not emergency.is_bare(call.to):
            self._check_limits(None, account)
        live = self._call(invite, None, account, call)
        if trunk.secure:
            self._keep_srtp(live, trunk, invite)
        return live

    def _is_urgent(self, request: Request) -> bool:
        """Whether a phone may be calling for help: its call is taken past the account's limit of calls."""
        outbound = self._services.outbound
        return outbound is not None and outbound.takes_emergency and emergency.anywhere(request.request_uri.user)

    def _count(self, name: str) -> None:
        self.counters[name] = self.counters.get(name, 0) + 1

    # -- whether ---------------------------------------------------------------------------------------------

    def _target(self, request: Request, trunk: Trunk) -> Target:
        """The number that is called. Raises Refusal."""
        directory = self._services.directory
        called = self.doors.called(trunk, request)
        number = directory.number(called)
        account = directory.account(number.account_sid) if number is not None and number.account_sid else None
        if number is None or account is None or not number.voice_enabled:
            refusal = Refusal(404, f"{self.doors.redacted(called)[:60]!r} is no number of ours")
            refusal.number = called if called.startswith("+") else ""
            raise refusal
        if account.status != ACTIVE:
            raise Refusal(403, f"account {account.sid} is {account.status}")
        customer = self._customers.of_number(number) if number.trunk_sid and self._customers is not None else None
        if customer is not None:
            return Target(account, number, None, customer)
        application = None
        if number.voice_application_sid:
            application = directory.application(number.voice_application_sid)
            if application is not None and application.account_sid != account.sid:
                application = None
        target = Target(account, number, application)
        if not target.owner.voice_url:
            text = f"{number.phone_number} was called, but has no voice URL"
            self._services.alerts.raise_(account.sid, NO_URL, resource_sid=number.sid, text=text)
            raise Refusal(404, text)
        return target

    def _check_limits(self, trunk: Trunk | None, account: Account) -> None:
        """Raises Refusal: 503 for the trunk's limit, so that the carrier goes elsewhere, 486 for the account's."""
        counts = self._services.counts
        if trunk is not None and 0 < trunk.calls_at_once <= counts.trunk.get(trunk.name, 0):
            raise Refusal(503, f"trunk {trunk.name} has {trunk.calls_at_once} calls")
        if trunk is not None and not self.doors.has_room(trunk):
            raise Refusal(503, f"trunk {trunk.name} brings as many calls as it may")
        most = self._services.settings.voice.calls_at_once
        if 0 < most <= counts.account.get(account.sid, 0):
            raise Refusal(486, f"account {account.sid} has {most} calls")

    def _call(self, invite: ServerInvite, trunk: Trunk | None, account: Account, record: Call) -> LiveCall:
        """The call with its port and its answer to the offer. Raises Refusal."""
        call = LiveCall(self._services, account, record, Status.RINGING, trunk)
        self._negotiate(call, invite)
        return call

    def _negotiate(self, call: LiveCall, invite: ServerInvite) -> None:
        """Lease its port and answer the offer. Raises Refusal."""
        try:
            leased = call.negotiate(invite)
        except NotAcceptable as refused:
            call.audio.close()
            raise Refusal(refused.status, str(refused)) from None
        if not leased:
            call.audio.close()
            raise Refusal(503, "no media port is free")

    def _take_up(self, invite: ServerInvite, flight: CallFlight) -> None:
        """Go on with a call that rang: it is ours already, and begins anew."""
        services, record = self._services, flight.call
        account = services.directory.account(record.account_sid)
        trunk = next((one for one in services.trunks if one.name == record.trunk), None)
        try:
            if account is None or (trunk is None and record.trunk):
                raise Refusal(503, "its account or trunk is gone")
            call = LiveCall(services, account, record, Status.RINGING, trunk)
            self._negotiate(call, invite)
        except Refusal as refusal:
            self._count(f"refused-{refusal.status}")
            invite.reject(refusal.status, headers=(RETRY_AFTER,) if refusal.status == 503 else ())
            record.hangup_cause, record.sip_response_code = str(refusal), refusal.status
            services.flights.advance(flight, Status.FAILED)
            return
        if SIP_DOMAIN in record.extra or CUSTOMER_TRUNK in record.extra:
            _bind(call)  # its domain or trunk may be a secure one
        self.doors.recount(call)
        self._count("taken-up")
        call.trace(invite.request.call_id)
        call.note(timeline.SIP, "taken up by another process")
        call.enlist(flight)
        call.ring()
        Session(call).start(_first(record))

    # -- how -------------------------------------------------------------------------------------------------

    def _record(self, invite: ServerInvite, trunk: Trunk, target: Target) -> Call:
        services, request, owner = self._services, invite.request, target.owner
        now = services.clock.now_ms()
        dialect = self.doors.dialect(trunk)
        caller = dialect.caller(request)
        record = Call(
            sid=new_sid(CALL, now),
            account_sid=target.account.sid,
            direction=Direction.INBOUND,
            from_=caller.number_or_uri,
            to=target.number.phone_number,
            forwarded_from=dialect.forwarded_from(request),
            caller_name=dialect.caller_name(caller) if target.number.voice_caller_id_lookup else "",
            phone_number_sid=target.number.sid,
            application_sid=target.application.sid if target.application is not None else "",
            created_ms=now,
            started_ms=now,
            url=owner.voice_url,
            method=owner.voice_method,
            fallback_url=owner.voice_fallback_url,
            fallback_method=owner.voice_fallback_method,
            time_limit_s=int(services.settings.voice.time_limit_s),
            trunk=trunk.name,
            sip_headers=numbers.custom_headers(request),
        )
        record.extra.update(dialect.vouched(request))
        if owner.status_callback:
            record.status_callbacks = [StatusTarget(owner.status_callback, owner.status_callback_method)]
        if target.trunk is not None and self._customers is not None:
            record.fallback_url = ""
            self._customers.originate(record, target.trunk)
        return record

    def _begin(self, call: LiveCall, invite: ServerInvite) -> None:
        record = call.record
        call.trace(invite.request.call_id)
        uri = self.doors.redacted(invite.request.uri)
        call.note(timeline.SIP, f"<- INVITE {uri}", source=self._host(invite), trunk=record.trunk)
        flight, written = self._services.flights.accept(record, Status.RINGING)
        call.enlist(flight, written)
        save_invite(self._services.memory, call.sid, invite.request.encode(), invite.flow)
        when_done(written, lambda done: _stored(call, done))
        call.ring()
        Session(call).start(_first(record))


def _bind(call: LiveCall) -> bool:
    """Have a call that has SRTP keep it; False when it has none."""
    if call.local is None or call.negotiated is None or call.negotiated.srtp is None:
        return False
    call.local = securing.bound(call.local)
    return True


def _first(record: Call) -> Source:
    """The document that a call begins with: at its URL, or its own (a customer's trunk)."""
    return Goto(record.url, record.method) if record.url else Inline(record.twiml)


def _stored(call: LiveCall, done: Any) -> None:
    """A call that cannot be stored is not taken."""
    if done.cancelled() or done.exception() is not None:
        log.error("call %s could not be stored: %s", call.sid, "cancelled" if done.cancelled() else done.exception())
        call.flight = None
        call.hangup("not-stored", 503, end=Status.FAILED)
