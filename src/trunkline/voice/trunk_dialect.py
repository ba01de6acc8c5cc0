"""How a trunk writes numbers and says who calls: everything that is worked out once for all of its calls.

What goes out names only the caller, the called number and, where the settings say so, who passed the call on: nothing
else of the other leg's headers or hosts crosses over (X- headers and User-to-User are the application's).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from trunkline.settings import Trunk
from trunkline.sip import identity
from trunkline.sip import number as numbers
from trunkline.sip.errors import MalformedMessage
from trunkline.sip.headers import Field, parse_list
from trunkline.sip.number import WITHHELD, Caller
from trunkline.sip.number_plan import NumberPlan
from trunkline.sip.uri import SIP_SCHEMES, Uri
from trunkline.voice.params import IDENTITY, PASSPORT, VERSTAT

if TYPE_CHECKING:
    from trunkline.sip.message import Request

STATUSES: Final = range(300, 600)
"""Final responses after which another way may be tried at all: a 6xx speaks for everybody."""
DECLINED: Final = frozenset({486, 487})
"""A person's answers: nobody else is called after them."""


class PassedOn(NamedTuple):
    """The call that a leg passes on with its caller's number."""

    called: str
    """The number that it was for."""
    identities: list[str]
    """Its signed Identity headers."""


class Dialect:
    """See the module."""

    def __init__(self, trunk: Trunk) -> None:
        self.trunk = trunk
        self.plan = NumberPlan(
            country=trunk.country_code, national=trunk.national_prefix, international=trunk.international_prefix,
            called=trunk.called_format, called_strip=trunk.called_strip, called_add=trunk.called_add,
            caller=trunk.caller_format, strip=trunk.inbound_strip, add=trunk.inbound_add,
        )  # fmt: skip
        self.domain = trunk.domain or (registrar_host(trunk) if trunk.register else "")
        """Host part of From; empty: our own."""
        self.again = again(trunk.failover)
        """Final responses after which the next way is tried."""
        self._phone = trunk.user_phone
        self._params: dict[str, str | None] = {"user": "phone"} if trunk.user_phone else {}

    # -- out

    def request_uri(self, gateway: Uri, to: str) -> Uri:
        """Whom an INVITE asks for."""
        user = self.plan.called_out(to)
        if self.trunk.domain:
            return Uri(user=user, host=self.trunk.domain, params=self._params)
        return gateway.replace(user=user, params={**gateway.params, **self._params} if self._phone else gateway.params)

    def from_(self, caller: str, display: str, domain: str) -> str:
        """The From of a call by `caller` (E.164, a name, a `sip:` URI); `domain`: our own."""
        host = self.domain or domain
        if self.trunk.from_user == "username":
            return identity.name_addr(display, identity.sip_uri(self.trunk.username, host))
        if caller in WITHHELD:
            return identity.ANONYMOUS_FROM
        return identity.name_addr(display, self._caller_uri(caller, host))

    def headers(self, caller: str, to: Uri, passed_on: PassedOn | None, domain: str) -> list[Field]:
        """Who calls, besides From, and who passed the call on."""
        trunk, host = self.trunk, self.domain or domain
        private = caller in WITHHELD
        number = caller if caller[:1] == "+" and not private else trunk.asserted_number
        fields: list[Field] = []
        if number or private:
            uri = self._caller_uri(number, host) if number else ""
            fields = identity.asserted(trunk.identity_headers, uri, private=private)
        if passed_on is not None:
            if trunk.diversion != "none":
                fields += identity.diverted(trunk.diversion, self._caller_uri(passed_on.called, host), str(to))
            if trunk.identity:
                fields += [("Identity", value) for value in passed_on.identities]
        return fields

    def _caller_uri(self, caller: str, host: str) -> str:
        if caller.partition(":")[0].lower() in SIP_SCHEMES:
            try:
                caller = Uri.parse(caller).user or "anonymous"  # not where it came from
            except MalformedMessage:
                caller = "anonymous"
        user = self.plan.caller_out(caller)
        return identity.sip_uri(user, host, phone=self._phone and caller[:1] == "+")

    # -- in

    def caller(self, request: Request) -> Caller:
        """Who calls."""
        trunk = self.trunk
        return numbers.caller_of(
            request, self.plan.caller_in, trusted=trunk.trusted, asserted_first=trunk.caller_from == "asserted"
        )

    def called(self, request: Request, contact_user: str = "") -> str:
        """Whom an INVITE is for: E.164, else `sip:user@host`; "" if it is malformed. One for the Contact that we have
        registered (`contact_user`) tells the number elsewhere: in P-Called-Party-ID (RFC 7315), else in To."""
        read = self.plan.called_in
        if contact_user:
            for name in ("P-Called-Party-ID", "To"):
                try:
                    addresses = parse_list(request.headers.all(name))
                except MalformedMessage:
                    continue
                if addresses and (number := numbers.number_of(addresses[0].uri, read)):
                    return number
        return numbers.called_of(request, read)

    def forwarded_from(self, request: Request) -> str:
        """Who passed the call on to us."""
        return numbers.forwarded_from(request, self.plan.caller_in)

    def vouched(self, request: Request) -> dict[str, Any]:
        """What a trusted trunk verified of the caller, and what was signed, for the record's `extra`."""
        found: dict[str, Any] = {}
        if not self.trunk.trusted:
            return found
        if "Identity" in request.headers:
            found[IDENTITY] = identity.identities(request)
            if token := identity.passport(found[IDENTITY]):
                found[PASSPORT] = token
        if status := identity.verification(request):
            found[VERSTAT] = status
        return found

    def caller_name(self, caller: Caller) -> str:
        """The name to show, of a trusted trunk."""
        return caller.display if self.trunk.trusted else ""


def again(failover: tuple[str, ...]) -> frozenset[int]:
    """The statuses of patterns like `404` and `5xx`; never those that a person answers with."""
    patterns = {pattern.rstrip("x") for pattern in failover}
    return frozenset(
        status
        for status in STATUSES
        if status not in DECLINED and not patterns.isdisjoint((str(status), str(status)[0]))
    )


def registrar_host(trunk: Trunk) -> str:
    """The host part of the address that is registered."""
    for uri in (*trunk.registrars, *(one.uri for one in trunk.gateway_list)):
        return Uri.parse(uri).host
    return ""
