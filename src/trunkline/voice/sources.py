"""Which requests are listened to: trunks by address and by login, and a limit for everyone else.

A request is from a trunk when it comes from one of the trunk's `addresses`, or when it carries the trunk's digest
credentials (RFC 7616). Everything else is a stranger: it may ask a few times a second, and is told 401 or 403.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from secrets import token_hex
from typing import Final, Protocol

from trunkline.model.clock import Clock
from trunkline.settings import Trunk
from trunkline.sip import digest
from trunkline.sip.digest import Freshness, Nonces
from trunkline.sip.errors import MalformedMessage
from trunkline.sip.flow import Flow
from trunkline.sip.message import Request
from trunkline.voice.edges import DIRECT, Edges

MAX_SOURCES: Final = 10_000
"""Addresses remembered, of trunks and of strangers each; the longest unused leaves first."""
ALGORITHM: Final = "MD5"
"""What challenges ask for: what every phone and carrier can. Stronger answers are taken too."""

FAILED_COST: Final = 10
"""A wrong login costs as many requests, so that passwords are not guessed at the rate of requests."""

ASKED: Final = frozenset({401, 407})
ASKED_COST: Final = 0.1
"""What a challenge counts against a ban while nobody has answered it: a right answer clears the score."""
TURNED_AWAY: Final = frozenset({403, 404})
SCANNER: Final = "scanner"
UNKNOWN: Final = "unknown-target"
UNANSWERED: Final = "challenge-unanswered"
WRONG_LOGIN: Final = "wrong-login"

log = logging.getLogger(__name__)


class Banning(Protocol):
    """trunkline.voice.bans.Bans."""

    def refuses(self, host: str) -> bool: ...

    def offended(self, host: str, why: str, *, proven: bool, cost: float = 1.0) -> None: ...

    def vouched(self, host: str) -> None: ...

    def spares(self, host: str) -> bool: ...


class Nobody:
    """Bans nobody."""

    def refuses(self, host: str) -> bool:
        """See Banning."""
        return False

    def offended(self, host: str, why: str, *, proven: bool, cost: float = 1.0) -> None:
        """See Banning."""

    def vouched(self, host: str) -> None:
        """See Banning."""

    def spares(self, host: str) -> bool:
        """See Banning."""
        return False


class Challenge(Exception):
    """Credentials are wanted: the value of WWW-Authenticate."""

    def __init__(self, value: str) -> None:
        super().__init__(value)
        self.value = value


class Sources:
    """See the module. `realm` is that of challenges, `secret` the key of nonces, `rate` what a stranger may send,
    `edges` are the proxies in front of us."""

    def __init__(
        self, trunks: Sequence[Trunk], realm: str, secret: bytes, rate: float, clock: Clock, edges: Edges = DIRECT
    ) -> None:
        self.edges = edges
        self._clock = clock
        self._realm = realm
        self._nonces = Nonces(secret)
        self._rate = max(rate, 1.0)
        self._networks = [(ip_network(text, strict=False), trunk) for trunk in trunks for text in trunk.addresses]
        self._networks.sort(key=_narrowest_first)
        self._by_user: dict[str, list[Trunk]] = {}
        for trunk in trunks:
            if trunk.username and trunk.password:
                self._by_user.setdefault(trunk.username, []).append(trunk)
        self._ha1 = {trunk.name: _hashes(trunk, realm) for several in self._by_user.values() for trunk in several}
        self._known: OrderedDict[str, Trunk | None] = OrderedDict()
        self._strangers: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._nobody = dict.fromkeys(digest.ALGORITHMS, token_hex(32))
        self.bans: Banning = Nobody()
        self.scanners: tuple[str, ...] = ()
        """What the User-Agent of scanners contains, in lower case."""
        self.wrong_logins = 0

    def by_address(self, host: str) -> Trunk | None:
        """The trunk that an address belongs to (the narrowest network wins)."""
        try:
            return self._known[host]
        except KeyError:
            pass
        found = None
        address = _address(host)
        if address is not None:
            found = next((trunk for network, trunk in self._networks if address in network), None)
        self._known[host] = found
        if len(self._known) > MAX_SOURCES:
            self._known.popitem(last=False)
        return found

    def permitted(self, host: str) -> bool:
        """Whether a request from `host` is looked at: a trunk's and an edge's own always, a stranger's within the
        rate."""
        if self.by_address(host) is not None or host in self.edges:
            return True
        now = self._clock.monotonic()
        tokens, at = self._strangers.pop(host, (self._rate, now))
        tokens = min(self._rate, tokens + (now - at) * self._rate)
        allowed = tokens >= 1
        self._strangers[host] = (tokens - 1 if allowed else tokens), now
        if len(self._strangers) > MAX_SOURCES:
            self._strangers.popitem(last=False)
        return allowed

    def is_scanner(self, request: Request) -> bool:
        """Whether a request says of itself that it is a scanner's."""
        agent = request.headers.get("User-Agent").lower()
        return bool(agent) and any(one in agent for one in self.scanners)

    def suspects(self, request: Request, flow: Flow) -> bool:
        """Whether a permitted request is dropped all the same: of an address that is banned, or of a scanner."""
        host = self.edges.source(request, flow)
        if self._known.get(host) is not None:
            return False
        if self.bans.refuses(host):
            return True
        if not self.is_scanner(request):
            return False
        self.bans.offended(host, SCANNER, proven=flow.transport != "UDP")
        return True

    def answered(self, status: int, request: Request, flow: Flow, wrong_logins: int) -> None:
        """A request was answered; `wrong_logins` is how many there had been before it."""
        host = self.edges.source(request, flow)
        if self.by_address(host) is not None:
            return
        if status in ASKED:
            self.bans.offended(host, UNANSWERED, proven=flow.transport != "UDP", cost=ASKED_COST)
        elif status in TURNED_AWAY and wrong_logins == self.wrong_logins:
            self.bans.offended(host, UNKNOWN, proven=flow.transport != "UDP")

    def failed(self, host: str) -> None:
        """A wrong login, in answer to a challenge of ours, came from a stranger: it counts as FAILED_COST requests."""
        self.wrong_logins += 1
        self.bans.offended(host, WRONG_LOGIN, proven=True)
        if self.by_address(host) is None:
            tokens, at = self._strangers.pop(host, (self._rate, self._clock.monotonic()))
            self._strangers[host] = max(tokens - FAILED_COST, -self._rate), at

    def trunk_of(self, request: Request, host: str) -> Trunk | None:
        """The trunk that a request comes from; None: from nobody we know. Raises Challenge."""
        found = self.by_address(host)
        if found is not None or not self._by_user:
            return found
        value = request.headers.get("Authorization") or request.headers.get("Proxy-Authorization")
        if not value:
            raise Challenge(self._challenge(host))
        try:
            credentials = digest.parse_credentials(value)
        except MalformedMessage:
            return None
        return self._verified(credentials, request, host)

    def _verified(self, credentials: digest.Credentials, request: Request, host: str) -> Trunk | None:
        if credentials.realm != self._realm:
            raise Challenge(self._challenge(host))
        freshness = self._nonces.check(credentials.nonce, self._clock.now_ms() / 1000, host, self._realm)
        if freshness is Freshness.FORGED:
            raise Challenge(self._challenge(host))
        for trunk in self._by_user.get(credentials.username, ()):
            if digest.verify(credentials, self._ha1[trunk.name], request.method, request.body):
                if freshness is Freshness.STALE or not self._nonces.use(credentials.nonce, credentials.nc):
                    raise Challenge(self._challenge(host, stale=True))
                self.bans.vouched(host)
                return trunk
        if credentials.username not in self._by_user:  # takes as long as a user who is one
            digest.verify(credentials, self._nobody, request.method, request.body)
        self.failed(host)
        return None

    def _challenge(self, host: str, *, stale: bool = False) -> str:
        nonce = self._nonces.make(self._clock.now_ms() / 1000, host, self._realm)
        return digest.challenge(self._realm, nonce, ALGORITHM, stale=stale)


def _hashes(trunk: Trunk, realm: str) -> dict[str, str]:
    return {name: digest.ha1(name, trunk.username, realm, str(trunk.password)) for name in digest.ALGORITHMS}


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.partition("%")[0].strip("[]"))
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _narrowest_first(entry: tuple[IPv4Network | IPv6Network, Trunk]) -> int:
    return -entry[0].prefixlen
