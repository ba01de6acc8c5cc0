"""Which way a call goes out: the trunks in the order in which they are tried, with their limits and prices.

Order: longest matching prefix first, then priority, then by weight at random; within a trunk its gateways
(trunkline.voice.trunk_gateways). Whatever is down comes after everything that is up. A `sip:` URI needs no trunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

from trunkline.model.call import Call, Direction
from trunkline.settings import Trunk
from trunkline.sip.flow import Target
from trunkline.sip.uri import SIP_SCHEMES, Uri
from trunkline.voice.callbacks import minutes
from trunkline.voice.emergency import is_bare
from trunkline.voice.limits import CallLimit
from trunkline.voice.trunk_dialect import Dialect
from trunkline.voice.trunk_gateways import Endpoint, Gateways, GatewayWays

if TYPE_CHECKING:
    from trunkline.voice.domains import Phones

SECURE: Final = "secure"
"""Parameter of a `sip:` URI."""
MAX_WAYS: Final = 16
"""INVITEs of one call that are tried at most, one after the other."""


class Way(NamedTuple):
    """One INVITE that may be tried."""

    uri: Uri
    """Request-URI."""
    host: str
    port: int | None
    transport: str
    """UDP, TCP or TLS; empty: UDP, or what the size asks for."""
    trunk: Trunk | None
    endpoint: Endpoint | None = None
    """What learns from the call whether it is alive."""
    dialect: Dialect | None = None
    phones: Phones | None = None
    """Registered phones, in place of a host."""
    secure: bool = False
    """Whether its audio must be encrypted."""


class Trunks:
    """See the module. `now` is monotonic seconds, `clock` tells them later."""

    def __init__(
        self,
        trunks: Sequence[Trunk],
        random: Random,
        now: float,
        clock: Callable[[], float] | None = None,
        emergency: str = "",
    ) -> None:
        self._clock = clock or (lambda: now)
        self._trunks = tuple(trunks)
        self.emergency = self.named(emergency) if emergency else None
        """By which emergency numbers are called, and by no other; None: they are not."""
        self._random = random
        self._limits = {one.name: CallLimit(one.calls_per_second, one.calls_at_once, now) for one in trunks}
        self._prefixes = [
            (prefix.removeprefix("+"), trunk) for trunk in trunks if trunk.gateways for prefix in trunk.prefixes
        ]
        self.gateways = {trunk.name: Gateways(trunk, random, now) for trunk in self._trunks}
        self.dialects = {trunk.name: Dialect(trunk) for trunk in self._trunks}
        self._advertised = {
            one.uri.bare_host: trunk.advertised
            for trunk in self._trunks
            if trunk.advertised
            for one in self.gateways[trunk.name].all
        }

    @property
    def all(self) -> tuple[Trunk, ...]:
        """In the order of the settings."""
        return self._trunks

    def named(self, name: str) -> Trunk | None:
        """The trunk of that name."""
        return next((trunk for trunk in self._trunks if trunk.name == name), None)

    def limit(self, trunk: Trunk) -> CallLimit:
        """Its pace and its running calls."""
        return self._limits[trunk.name]

    def gate(self, trunk: Trunk, address: str) -> CallLimit | None:
        """The limit of the gateway that calls of a trunk to an address go to, if it has one."""
        endpoints = (one for gateway in self.gateways[trunk.name].all for one in gateway.endpoints)
        return next((one.limit for one in endpoints if one.target.host == address), None)

    def reach(self, number: str) -> bool:
        """Whether any trunk takes calls to an E.164 number."""
        if is_bare(number):
            return self.emergency is not None
        digits = number.removeprefix("+")
        return any(digits.startswith(prefix) for prefix, _ in self._prefixes)

    def leads(self, trunk: Trunk, number: str) -> bool:
        """Whether a trunk takes calls to an E.164 number."""
        digits = number.removeprefix("+")
        return any(one is trunk and digits.startswith(prefix) for prefix, one in self._prefixes)

    def advertised(self, host: str) -> str:
        """Our address towards a gateway's host, where its trunk has one of its own; else empty."""
        return self._advertised.get(host, "")

    def reached(self, trunk: Trunk, gateway: GatewayWays, targets: Sequence[Target], now: float) -> None:
        """A gateway's name was looked up."""
        gateway.reach(targets, now)
        if trunk.advertised:
            for endpoint in gateway.endpoints:
                self._advertised[endpoint.target.host] = trunk.advertised

    def ways(self, to: str) -> list[Way]:
        """The INVITEs to try for a number or a `sip:` URI, in order, at most MAX_WAYS; none when nothing leads
        there."""
        if to.partition(":")[0].lower() in SIP_SCHEMES:
            uri, secure = secured(Uri.parse(to))
            transport = "TLS" if uri.scheme == "sips" else uri.transport
            return [Way(uri, uri.bare_host, uri.port, transport, None, secure=secure)]
        found: list[Way] = []
        down: list[Way] = []
        for trunk in self._order(to):
            dialect = self.dialects[trunk.name]
            for gateway in self.gateways[trunk.name].order():
                uri = dialect.request_uri(gateway.uri, to)
                for endpoint in gateway.endpoints:
                    target = endpoint.target
                    way = Way(uri, target.host, target.port, target.transport, trunk, endpoint, dialect)
                    (found if endpoint.is_up or endpoint.counts_up(self._clock()) else down).append(way)
        return (found + down)[:MAX_WAYS]

    def _order(self, number: str) -> list[Trunk]:
        """The trunks for a number, each once, by its longest prefix; for an emergency number the one for those."""
        if is_bare(number):
            return [self.emergency] if self.emergency is not None else []
        digits = number.removeprefix("+")
        longest: dict[str, tuple[int, Trunk]] = {}
        for prefix, trunk in self._prefixes:
            if digits.startswith(prefix) and len(prefix) >= longest.get(trunk.name, (-1, trunk))[0]:
                longest[trunk.name] = len(prefix), trunk
        if len(longest) < 2:
            return [trunk for _, trunk in longest.values()]
        # A random number to the power of 1/weight orders as drawing by weight without putting back does (Efraimidis
        # and Spirakis, 2006).
        drawn = {name: self._random.random() ** (1 / trunk.weight) for name, (_, trunk) in longest.items()}
        ranked = sorted(longest.values(), key=lambda one: (one[0], one[1].priority, drawn[one[1].name]), reverse=True)
        return [trunk for _, trunk in ranked]

    def price(self, call: Call) -> None:
        """Put price and cost of an ended call into its record: begun minutes at the trunk's rate, nothing if it was
        never answered or went by no trunk."""
        trunk = self.named(call.trunk)
        billed = minutes(call.duration_s)
        if trunk is None or not billed:
            return
        inbound = call.direction is Direction.INBOUND
        rate = trunk.inbound_price if inbound else trunk.price
        call.price, call.price_unit = amount(rate, billed), trunk.currency
        if trunk.cost and not inbound:
            call.cost = amount(trunk.cost, billed)


def secured(uri: Uri) -> tuple[Uri, bool]:
    """A customer's `;secure=true` (Twilio's: TLS, and SRTP or no call) as the far end is shown it, and whether it was
    there."""
    if (uri.params.get(SECURE) or "").lower() != "true":
        return uri, False
    params = {name: value for name, value in uri.params.items() if name != SECURE}
    return uri.replace(params=params | {"transport": "tls"}), True


def amount(rate: Decimal, billed: int) -> str:
    """A plain decimal string."""
    return format((rate * billed).normalize(), "f")
