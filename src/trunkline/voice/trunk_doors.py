"""By which trunk a call comes in, whom it is for there, and how many may.

An INVITE is a trunk's when it asks for the Contact that only its registrar knows, comes by TLS with one of its
certificates, comes from one of its addresses, or has its login; the first that holds wins. A Contact that the operator
has chosen can be guessed: it counts only from the addresses of the trunk's registrars and gateways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from trunkline.model.clock import Clock
from trunkline.settings import Trunk
from trunkline.sip.errors import MalformedMessage
from trunkline.voice.limits import CallLimit
from trunkline.voice.trunk_contact import contact_user, is_secret
from trunkline.voice.trunk_dialect import Dialect

if TYPE_CHECKING:
    from trunkline.sip.flow import Flow
    from trunkline.sip.message import Request
    from trunkline.voice.edges import Edges
    from trunkline.voice.live import LiveCall
    from trunkline.voice.sources import Banning


HIDDEN: Final = "..."
"""What stands for a Contact that nobody may guess."""
Trace = Callable[[str, bool, str], None]


class Certificate(Protocol):
    """A verified certificate of a TLS peer."""

    @property
    def names(self) -> tuple[str, ...]: ...


class Sources(Protocol):
    """trunkline.voice.sources.Sources."""

    @property
    def bans(self) -> Banning: ...

    @property
    def edges(self) -> Edges: ...

    def trunk_of(self, request: Request, host: str) -> Trunk | None: ...


class TrunkDoors:
    """See the module. `secret` and `certificate` are set by the wiring; without, nobody comes in by these doors."""

    def __init__(self, trunks: Sequence[Trunk], sources: Sources, clock: Clock) -> None:
        self._dialects: dict[str, Dialect] = {}
        self.certificate: Callable[[Flow], Certificate | None] = lambda flow: None
        self._trunks = trunks
        self._sources = sources
        self._clock = clock
        self._contacts: dict[str, Trunk] = {}
        self._secret: list[str] = []
        self._hosts: dict[str, set[str]] = {}
        self._names = {name.lower(): trunk for trunk in trunks for name in trunk.tls_names}
        now = clock.monotonic()
        self._limits = {
            one.name: CallLimit(one.inbound_calls_per_second, one.inbound_calls_at_once, now)
            for one in trunks
            if one.inbound_calls_per_second or one.inbound_calls_at_once
        }

    def know_contacts(self, secret: bytes) -> None:
        """From now on INVITEs for what trunks register are theirs."""
        self._contacts = {contact_user(trunk, secret): trunk for trunk in self._trunks if trunk.register}
        self._secret = [user for user, trunk in self._contacts.items() if is_secret(trunk)]

    def know_hosts(self, trunk: Trunk, hosts: Iterable[str]) -> None:
        """The addresses of its registrars and gateways."""
        self._hosts[trunk.name] = set(hosts)

    def knows(self, host: str) -> bool:
        """Whether an address is that of a trunk's registrar or gateway."""
        return any(host in hosts for hosts in self._hosts.values())

    def trunk_of(self, request: Request, flow: Flow) -> Trunk | None:
        """The trunk that a request comes by, None: a stranger's. Raises Challenge."""
        host = self._sources.edges.source(request, flow)
        trunk = self._registered(request, host) if self._contacts else None
        if trunk is None and self._names and flow.transport == "TLS" and host == flow.remote[0]:
            trunk = self._certified(flow)  # an edge's certificate says nothing of who is behind it
        if trunk is None:
            return self._sources.trunk_of(request, host)
        self._sources.bans.vouched(host)  # what it asks for may be nobody's, and it is a carrier all the same
        return trunk

    def is_at(self, request: Request, flow: Flow) -> bool:
        """Whether a request comes by a door that needs no address: one of a trunk's hosts, a certificate, a Contact."""
        host = self._sources.edges.source(request, flow)
        certain = flow.transport == "TLS" and host == flow.remote[0]
        if self.knows(host) or (certain and self.certificate(flow) is not None):
            return True
        return bool(self._contacts) and self._registered(request, host) is not None

    def _registered(self, request: Request, host: str) -> Trunk | None:
        trunk = self._contacts.get(_user(request))
        if trunk is None or is_secret(trunk) or host in self._hosts.get(trunk.name, ()):
            return trunk
        return None

    def _certified(self, flow: Flow) -> Trunk | None:
        certificate = self.certificate(flow)
        for name in certificate.names if certificate is not None else ():
            name = name.lower()
            trunk = self._names.get(name) or self._names.get("*." + name.partition(".")[2])
            if trunk is not None:
                return trunk
        return None

    def dialect(self, trunk: Trunk) -> Dialect:
        """How it writes numbers and says who calls."""
        found = self._dialects.get(trunk.name)
        if found is None:
            found = self._dialects[trunk.name] = Dialect(trunk)
        return found

    def called(self, trunk: Trunk, request: Request) -> str:
        """Whom an INVITE is for: E.164, else `sip:user@host`; "" if it is malformed."""
        user = _user(request) if self._contacts else ""
        return self.dialect(trunk).called(request, user if user in self._contacts else "")

    def redacted(self, text: str) -> str:
        """Without the Contacts that nobody may guess, for what customers and logs are shown."""
        for user in self._secret:
            if user in text:
                text = text.replace(user, HIDDEN)
        return text

    def tracing(self, trace: Trace) -> Trace:
        """The same, of what is told of each SIP message."""
        if not any(map(is_secret, self._trunks)):
            return trace
        return lambda call_id, sent, line: trace(call_id, sent, self.redacted(line))

    def has_room(self, trunk: Trunk) -> bool:
        """Whether it may bring one more call now."""
        limit = self._limits.get(trunk.name)
        return limit is None or (not limit.full and limit.pace.wait_s(self._clock.monotonic()) <= 0)

    def recount(self, call: LiveCall) -> None:
        """A call that a process before this one let in counts until it ends."""
        limit = self._limits.get(call.record.trunk) if call.incoming else None
        if limit is not None:
            limit.force()
            call.on_end(lambda _: limit.end())

    def let_in(self, trunk: Trunk, call: LiveCall) -> None:
        """A call has been taken: count it until it ends."""
        limit = self._limits.get(trunk.name)
        if limit is not None and limit.begin(self._clock.monotonic()):
            call.on_end(lambda _: limit.end())


def _user(request: Request) -> str:
    try:
        return request.request_uri.user
    except MalformedMessage:
        return ""
