"""Customers' SIP trunks at work: a PBX calls out through us, and is called (Twilio's Elastic SIP Trunking).

Termination: an INVITE to a trunk's domain is taken when its sender passes what the trunk asks for (as with SIP domains)
and shows a number that the account may show; it then dials the number it names. Origination: a call to a number of a
trunk dials the trunk's origination URLs, one after the other: priority first, then by weight at random.

Both run as a document of ours with one <Dial>, so that whatever holds for <Dial> (permissions, limits, recording,
takeover) holds here. What differs is how it ends: the call is over when the conversation is, and a call that was not
put through gets the far end's own response, or goes on at the trunk's disaster recovery URL.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape, quoteattr

from trunkline.model.call import Call, Direction, Status
from trunkline.model.sid import CALL, new_sid
from trunkline.model.sip_trunk import CUSTOMER_TRUNK, OriginationUrl, SipTrunk, TrunkCall
from trunkline.sip import number as numbers
from trunkline.sip.errors import MalformedMessage
from trunkline.sip.uri import Uri
from trunkline.voice.caller_id import may_show
from trunkline.voice.emergency import is_bare
from trunkline.voice.limits import AccountLimits
from trunkline.voice.logins import Refused
from trunkline.voice.registrations import NOT_SECURE
from trunkline.voice.steps import Goto, Stop
from trunkline.voice.trunks import SECURE

if TYPE_CHECKING:
    from trunkline.model.account import Account
    from trunkline.model.numbers import PhoneNumber
    from trunkline.sip.message import Request
    from trunkline.sip.server_invite import ServerInvite
    from trunkline.voice.dialing import Dialing
    from trunkline.voice.domains import Domains
    from trunkline.voice.service import VoiceServices
    from trunkline.voice.session import Session

NO_ORIGINATION_URL: Final = 32010
TOO_FAST: Final = 32001
NOT_A_NUMBER: Final = 32101
WRONG_CALLER: Final = 32206
RING_S: Final = 120
"""How long the far end may ring; the caller's own end usually gives up before."""
RESPONSES: Final[dict[Status, int]] = {Status.BUSY: 486, Status.NO_ANSWER: 480}
"""What a caller is told whose call was not put through; else the far end's own response."""
UNFIT: Final = frozenset({401, 407, 487})
"""Responses that are about our own INVITE and are not passed on."""
NOT_PUT_THROUGH: Final = 480
DIAL_ENDED: Final = "dial-ended"


class CustomerTrunks:
    """See the module."""

    def __init__(self, services: VoiceServices, domains: Domains, random: Random) -> None:
        self._services = services
        self._domains = domains
        self._random = random
        self._rate = services.settings.voice.trunk_calls_per_second
        self._paces = AccountLimits(self._rate, 0, services.clock.monotonic)

    # -- termination: the PBX calls out ----------------------------------------------------------------------

    def of(self, request: Request) -> SipTrunk | None:
        """The trunk whose domain a request is for."""
        host = request.request_uri.host
        return self._services.directory.sip.trunk(host) if host else None

    def terminate(self, invite: ServerInvite, trunk: SipTrunk) -> tuple[Account, Call]:
        """The call that a PBX makes through its trunk. Raises Asked, Refused."""
        account, _ = self._domains.let_in(invite, trunk)
        request = invite.request
        if trunk.secure and invite.flow.transport != "TLS":
            self._domains.warn(
                trunk, NOT_SECURE, f"a call from {self._domains.host(invite)} by {invite.flow.transport}"
            )
            raise Refused(403, f"{trunk.domain_name} wants TLS")
        shown, directory = numbers.caller_of(request).number_or_uri, self._services.directory
        called = self._services.outbound.emergency(request.request_uri.user, shown) or numbers.called_of(request)
        if not called.startswith("+") and not is_bare(called):
            self._domains.warn(trunk, NOT_A_NUMBER, f"a call to {called[:60]!r}, which is not E.164")
            raise Refused(404, f"{called[:60]!r} is no number")
        if not may_show(shown, account.sid, directory, self._services.settings.voice):
            self._domains.warn(trunk, WRONG_CALLER, f"a call from {shown[:60]!r}, which is no number of the account")
            raise Refused(403, f"{shown[:60]!r} may not be shown by account {account.sid}")
        denied = self._services.outbound.denial(account.sid, called)
        if denied is not None:
            self._domains.warn(trunk, denied.trunk, denied.why)
            raise Refused(403, denied.why)
        if not is_bare(called) and not self._paces.of(trunk.sid).pace.take(self._services.clock.monotonic()):
            self._domains.warn(trunk, TOO_FAST, f"more than {self._rate:g} calls a second")
            raise Refused(503, f"trunk {trunk.sid} starts more than {self._rate:g} calls a second")
        document = dial(trunk, f"<Number>{called}</Number>")
        call = self._record(account.sid, invite, TrunkCall.TERMINATING, trunk, document)
        call.from_, call.to = shown, called
        call.time_limit_s = int(self._services.settings.voice.time_limit_s)
        return account, call

    def _record(self, account_sid: str, invite: ServerInvite, kind: TrunkCall, trunk: SipTrunk, document: str) -> Call:
        now = self._services.clock.now_ms()
        call = Call(
            sid=new_sid(CALL, now),
            account_sid=account_sid,
            direction=Direction.INBOUND,
            created_ms=now,
            started_ms=now,
            sip_headers=numbers.custom_headers(invite.request),
        )
        take(call, kind, trunk, document)
        return call

    # -- origination: the PBX is called ----------------------------------------------------------------------

    def of_number(self, number: PhoneNumber) -> SipTrunk | None:
        """The trunk that calls to a number go to."""
        trunk = self._services.directory.sip.trunk_of_sid(number.trunk_sid) if number.trunk_sid else None
        return trunk if trunk is not None and trunk.account_sid == number.account_sid else None

    def originate(self, call: Call, trunk: SipTrunk) -> None:
        """Let a call to one of the trunk's numbers dial its PBX. Raises Refused."""
        urls = self._services.directory.sip.origination_urls(trunk.sid)
        if not urls and not trunk.disaster_recovery_url:
            self._domains.warn(trunk, NO_ORIGINATION_URL, f"{call.to} was called, but no origination URL is enabled")
            raise Refused(480, f"trunk {trunk.sid} has no origination URL")
        uris = "".join(
            f'<Uri priority="{rank}">{escape(uri)}</Uri>'
            for rank, uri in enumerate(addresses(call.to, in_turn(urls, self._random), secure=trunk.secure))
        )
        take(call, TrunkCall.ORIGINATING, trunk, dial(trunk, f"<Sip>{uris}</Sip>") if uris else "<Response/>")
        if not uris:
            call.url, call.method, call.twiml = trunk.disaster_recovery_url, trunk.disaster_recovery_method, ""


def take(call: Call, kind: TrunkCall, trunk: SipTrunk, document: str) -> None:
    """Make a call the trunk's: it runs `document`, and ends as trunks' calls do."""
    call.url, call.twiml = "", document
    call.extra[CUSTOMER_TRUNK] = {
        "sid": trunk.sid,
        "direction": kind.value,
        "recovery": trunk.disaster_recovery_url if kind is TrunkCall.ORIGINATING else "",
        "recovery_method": trunk.disaster_recovery_method,
    }


def dial(trunk: SipTrunk, nouns: str, caller: str = "") -> str:
    """The document that a trunk's call runs. `caller` is shown instead of the call's own."""
    record, trim = quoteattr(trunk.recording_mode), quoteattr(trunk.recording_trim)
    shown = f" callerId={quoteattr(caller)}" if caller else ""
    opening = f'<Dial answerOnBridge="true" timeout="{RING_S}" record={record} trim={trim}{shown}>'
    return f"<Response>{opening}{nouns}</Dial></Response>"


def in_turn(urls: Sequence[OriginationUrl], random: Random) -> list[OriginationUrl]:
    """Lowest priority first; among equals as drawn by weight without putting back (Efraimidis and Spirakis, 2006)."""
    return sorted(urls, key=lambda url: (url.priority, -(random.random() ** (1 / url.weight))))


def addresses(called: str, urls: Sequence[OriginationUrl], *, secure: bool = False) -> list[str]:
    """The URIs that a PBX is called at: the number called at the host of each URL; `secure`: over TLS with SRTP."""
    found = []
    for url in urls:
        try:
            uri = Uri.parse(url.sip_url.replace("sip://", "sip:", 1))
        except MalformedMessage:
            continue  # checked when it was stored; another release may have been laxer
        params = {**uri.params, SECURE: "true"} if secure else uri.params
        found.append(str(uri.replace(user=called, headers={}, params=params)))
    return found


def after_dial(session: Session, dialing: Dialing) -> Goto | Stop:
    """How a trunk's call goes on when its <Dial> has ended."""
    call = session.call
    about = call.record.extra.pop(CUSTOMER_TRUNK)
    call.record.extra[CUSTOMER_TRUNK] = {**about, "recovery": "", "done": True}
    bridged, status, response = dialing.outcome
    if bridged:
        return Stop(DIAL_ENDED)
    if about["recovery"]:
        session.may_end_unanswered = False
        return Goto(about["recovery"], about["recovery_method"], tuple(dialing.params()))
    if status not in RESPONSES and not (400 <= response < 700 and response not in UNFIT):
        response = NOT_PUT_THROUGH
    call.hangup(f"not put through: {status}", RESPONSES.get(status, response))
    return Stop(DIAL_ENDED)


def ends_with_dial(record: Call) -> bool:
    """Whether a call is a trunk's whose <Dial> has not ended yet."""
    about = record.extra.get(CUSTOMER_TRUNK)
    return about is not None and not about.get("done")
