"""Phones that are registered with SIP domains: who may register, what stands, and how a phone is reached.

Theory. What stands is a dictionary by address-of-record (domain and user), the same in the `MemoryStore`, written
before the 200 leaves: a node that starts again knows its phones. All is synchronous, for a refresh must cost little;
the rules are trunkline.sip.registrar's. Everything is bounded: contacts of a user, contacts in all, their bytes. What
lapses is found by a heap with one entry for each address; a phone on a connection is gone when that closes.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from trunkline.sip.registrar import Binding, Limits, Outcome, register
from trunkline.voice.edges import DIRECT, Edges
from trunkline.voice.logins import Asked, Logins, Refused, WrongLogin

if TYPE_CHECKING:
    from trunkline.accounts.alerts import Alerts
    from trunkline.accounts.directory import Directory
    from trunkline.model.clock import Clock
    from trunkline.model.sip_domain import Ha1, SipDomain
    from trunkline.model.sip_trunk import SipTrunk
    from trunkline.settings.voice import Sip
    from trunkline.sip.core import Answer
    from trunkline.sip.flow import Flow
    from trunkline.sip.message import Request
    from trunkline.storage.memory import MemoryStore

PREFIX: Final = "register/"
"""Keys of the `MemoryStore`: `register/<domain SID>/<user>`."""
MAX_USER: Final = 255
"""Characters of a user name."""
MAX_BYTES: Final = 64 * 1024 * 1024
"""Of all bindings together, as they are stored."""
SWEPT: Final = 20
"""Addresses looked at for lapsed bindings with each REGISTER: more than one can add."""
WARN_MS: Final = 60_000
"""A domain's account is warned of the same thing once in so long."""
MAX_WARNED: Final = 10_000
RETRY_AFTER: Final = ("Retry-After", "60")
ACTIVE: Final = "active"
REGISTRATIONS: Final = "registrations"
TOO_MANY: Final = 32007
NOT_SECURE: Final = 32209
NOT_ENABLED: Final = 32210
WRONG: Final = 32212

log = logging.getLogger(__name__)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Binding]).decode

Key = tuple[str, str]
"""Domain SID and user."""


class Registered(NamedTuple):
    """A stored address-of-record, for whoever lists them."""

    domain_sid: str
    user: str
    bindings: tuple[Binding, ...]


class Registrations:
    """See the module. `counters` are REGISTERs by what became of them."""

    def __init__(
        self, memory: MemoryStore, directory: Directory, alerts: Alerts, logins: Logins, sip: Sip, clock: Clock,
        edges: Edges = DIRECT,
    ) -> None:  # fmt: skip
        self._edges = edges
        self._memory = memory
        self._directory = directory
        self._alerts = alerts
        self._logins = logins
        self._clock = clock
        self._most = sip.registrations
        self._limits = Limits(
            int(sip.register_min_s), int(sip.register_max_s), int(sip.register_max_s), sip.user_contacts
        )
        self._bindings: dict[Key, tuple[Binding, ...]] = {}
        self._sizes: dict[Key, int] = {}
        self._bytes = 0
        self._lapses: list[tuple[int, Key]] = []
        self._watched: set[Key] = set()
        """What `_lapses` has an entry of."""
        self._on_flow: dict[int, set[Key]] = {}
        self._at: dict[tuple[str, int], str] = {}
        """The domain of the phone that was registered last from an address and port."""
        self._warned: dict[tuple[str, int], int] = {}
        self.told: Callable[[str, bytes], None] = lambda name, value: None
        """Told of what is stored, for the other nodes' `take`; no value: it is removed."""
        self.count = 0
        """Contacts that stand."""
        self.counters: dict[str, int] = {}

    def hosts(self) -> set[str]:
        """Where phones are registered from."""
        return {one.flow.remote[0] for bindings in self._bindings.values() for one in bindings}

    async def load(self) -> int:
        """Take up what a process before this one stored, but for phones on its connections; how many contacts."""
        now = self._clock.now_ms()
        for name, value in await self._memory.scan(PREFIX):
            stored = read(name, value)
            if stored is None:
                self._memory.post(name, None)
                continue
            kept = tuple(one for one in stored.bindings if one.expires_ms > now and not one.vanishes)
            self._put((stored.domain_sid, stored.user), kept, write=len(kept) != len(stored.bindings))
        return self.count

    # -- one of several nodes --------------------------------------------------------------------------------

    def take(self, name: str, value: bytes) -> None:
        """Another node has registered a phone, or dropped one (no value). Phones on connections of that node cannot be
        reached from here; ours are kept."""
        stored = read(name, value or _encode(()))
        if stored is None:
            return
        key, now = (stored.domain_sid, stored.user), self._clock.now_ms()
        ours = tuple(one for one in self._bindings.get(key, ()) if one.vanishes)
        theirs = tuple(one for one in stored.bindings if one.expires_ms > now and not one.vanishes)
        uris = {one.uri for one in theirs}
        self._put(key, theirs + tuple(one for one in ours if one.uri not in uris), write=False)

    async def look_again(self) -> None:
        """Take what other nodes have registered and did not get told of here."""
        for name, value in await self._memory.scan(PREFIX):
            self.take(name, value)

    # -- REGISTER --------------------------------------------------------------------------------------------

    def register(self, request: Request, flow: Flow) -> Answer:
        """Answer a REGISTER (a part of `Core.on_request`)."""
        self._sweep()
        try:
            domain = self._domain(request, flow)
            outcome = self._process(request, flow, domain)
        except Asked as asked:
            self._told("challenged")
            return 401, [("WWW-Authenticate", challenge) for challenge in asked.challenges]
        except Refused as refused:
            self._told(f"refused-{refused.status}")
            host = self._edges.source(request, flow)
            log.debug("REGISTER from %s refused with %d: %s", host, refused.status, refused)
            return refused.status, [RETRY_AFTER] if refused.status == 503 else []
        self._told("registered" if outcome.status == 200 else f"refused-{outcome.status}")
        return outcome.status, outcome.headers

    def _domain(self, request: Request, flow: Flow) -> SipDomain:
        """The domain that a phone registers with. Strangers do not learn which there are: all get the answers of one
        that has no such user. Raises Asked, Refused, MalformedMessage."""
        host, source = request.request_uri.bare_host, self._edges.source(request, flow)
        domain = self._directory.sip_domain(host)
        account = self._directory.account(domain.account_sid) if domain is not None else None
        if domain is None or account is None:
            if self._directory.is_sip_name(host):
                self._logins.turn_away(request, source, "Authorization")
            raise Refused(404, f"{host[:60]!r} is no SIP domain of ours")
        if account.status != ACTIVE:
            self._logins.turn_away(request, source, "Authorization")
        if not domain.sip_registration:
            self.warn(domain, NOT_ENABLED, f"a phone at {source} wants to register")
            self._logins.turn_away(request, source, "Authorization")
        if domain.secure and flow.transport != "TLS":
            self.warn(domain, NOT_SECURE, f"a phone at {source} registers by {flow.transport}")
            raise Refused(403, f"{domain.domain_name} wants TLS")
        return domain

    def _process(self, request: Request, flow: Flow, domain: SipDomain) -> Outcome:
        """Raises Asked, Refused, MalformedMessage."""
        to, host = request.to.uri, self._edges.source(request, flow)
        user = to.user if len(to.user) <= MAX_USER and to.user.isprintable() else ""
        same_domain = self._directory.sip_domain(to.bare_host) is domain
        try:
            login = self._logins.check(
                request, host, lambda name: self._passwords(domain, name, user if same_domain else ""), "Authorization"
            )
        except WrongLogin as wrong:
            self.warn(domain, WRONG, f"{wrong}, at {host}")
            raise Refused(403, str(wrong)) from None
        key = domain.sid, user
        before = self._bindings.get(key, ())
        outcome = register(request, flow, before, self._clock.now_ms(), self._limits)
        if not outcome.repeated:
            self._logins.use(login, host)
        if outcome.changed:
            if len(outcome.bindings) > len(before) and not self._has_room():
                raise Refused(503, f"{self.count} contacts are registered")
            self._put(key, outcome.bindings)
        if outcome.crowded:
            self.warn(
                domain, TOO_MANY, f"{user[:60]} has more than {self._limits.contacts} phones: the oldest gives way"
            )
        return outcome

    def _passwords(self, domain: SipDomain, name: str, user: str) -> Sequence[Ha1]:
        """A user's, where the address to be changed is his own (RFC 3261 section 10.3, step 4)."""
        return self._directory.sip_login(domain.sid, name, REGISTRATIONS) if name and name == user else ()

    def _has_room(self) -> bool:
        if self.count < self._most and self._bytes < MAX_BYTES:
            return True
        self._sweep(len(self._lapses))
        return self.count < self._most and self._bytes < MAX_BYTES

    # -- what stands -----------------------------------------------------------------------------------------

    def contacts(self, domain: SipDomain, user: str) -> list[Binding]:
        """Where a user is registered, the preferred first; nowhere once he may not register any more. At a secure
        domain what was registered in the open, before it was one, does not count: the keys of SRTP would go there."""
        bindings = self._bindings.get((domain.sid, user), ())
        if not bindings or not domain.sip_registration:
            return []
        if not self._directory.sip_login(domain.sid, user, REGISTRATIONS):
            return []
        now = self._clock.now_ms()
        found = [one for one in bindings if one.expires_ms > now and (not domain.secure or one.flow.transport == "TLS")]
        return sorted(found, key=lambda one: (-one.q, -one.registered_ms))

    def domain_at(self, remote: tuple[str, int]) -> str:
        """The SID of the domain that a phone at an address and port is registered with; empty: none is."""
        return self._at.get(remote, "")

    def flow_closed(self, flow: Flow) -> None:
        """A connection has closed: who could be reached by it only is gone."""
        for key in self._on_flow.pop(flow.id, ()):
            left = tuple(one for one in self._bindings[key] if one.flow.id != flow.id or not one.vanishes)
            self._told("connection-closed")
            self._put(key, left)

    def stand(self) -> int:
        """How many contacts stand; what has lapsed is dropped first."""
        self._sweep(len(self._lapses))
        return self.count

    def _put(self, key: Key, bindings: tuple[Binding, ...], *, write: bool = True) -> None:
        """Have these stand, here and in the store."""
        before = self._bindings.pop(key, ())
        self._bytes -= self._sizes.pop(key, 0)
        self.count += len(bindings) - len(before)
        for one in before:
            self._at.pop(one.flow.remote, None)
            if one.flow.id and (keys := self._on_flow.get(one.flow.id)) is not None:
                keys.discard(key)
                if not keys:
                    del self._on_flow[one.flow.id]
        name = f"{PREFIX}{key[0]}/{key[1]}"
        if not bindings:
            if write:
                self._memory.post(name, None)
                self.told(name, b"")
            return
        value = _encode(bindings)
        self._bindings[key] = bindings
        self._sizes[key] = len(value)
        self._bytes += len(value)
        for one in bindings:
            self._at[one.flow.remote] = key[0]
            if one.vanishes:
                self._on_flow.setdefault(one.flow.id, set()).add(key)
        self._watch(key, bindings)
        if write:
            last = max(one.expires_ms for one in bindings)
            self._memory.post(name, value, max(1, last - self._clock.now_ms()))
            self.told(name, value)

    def _sweep(self, most: int = SWEPT) -> None:
        """Drop what has lapsed, of so many addresses at most."""
        now, lapses = self._clock.now_ms(), self._lapses
        for _ in range(most):
            if not lapses or lapses[0][0] > now:
                return
            _, key = heapq.heappop(lapses)
            self._watched.discard(key)
            bindings = self._bindings.get(key, ())
            left = tuple(one for one in bindings if one.expires_ms > now)
            if len(left) != len(bindings):
                self._told("expired")
                self._put(key, left)
            if left:
                self._watch(key, left)

    def _watch(self, key: Key, bindings: Sequence[Binding]) -> None:
        if key not in self._watched:
            self._watched.add(key)
            heapq.heappush(self._lapses, (min(one.expires_ms for one in bindings), key))

    # -- telling ---------------------------------------------------------------------------------------------

    def _told(self, name: str) -> None:
        self.counters[name] = self.counters.get(name, 0) + 1

    def warn(self, domain: SipDomain | SipTrunk, code: int, text: str) -> None:
        """Raise an alert, not more often than once in WARN_MS: strangers can cause it."""
        now = self._clock.now_ms()
        if self._warned.get((domain.sid, code), 0) > now - WARN_MS:
            return
        if len(self._warned) >= MAX_WARNED:
            self._warned.clear()
        self._warned[domain.sid, code] = now
        self._alerts.raise_(domain.account_sid, code, resource_sid=domain.sid, text=f"{domain.domain_name}: {text}")


def read(name: str, value: bytes) -> Registered | None:
    """An entry of the `MemoryStore`; None if it cannot be read (another release's)."""
    _, _, rest = name.partition("/")
    domain_sid, _, user = rest.partition("/")
    try:
        return Registered(domain_sid, user, tuple(_decode(value)))
    except msgspec.MsgspecError as error:
        log.warning("the registration of %s cannot be read: %s", name, error)
        return None
