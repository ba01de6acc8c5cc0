"""Which way a call goes out: the trunks in the order in which they are tried, with their limits and prices.

Order: longest matching prefix first, then priority, then by weight at random. A trunk's gateways follow in the order of
the settings. A `sip:` URI needs no trunk.
"""

from collections.abc import Sequence
from decimal import Decimal
from random import Random
from typing import NamedTuple

from trunkline.model.call import Call, Direction
from trunkline.settings import Trunk
from trunkline.sip.uri import SIP_SCHEMES, Uri
from trunkline.voice.callbacks import minutes
from trunkline.voice.limits import CallLimit


class Way(NamedTuple):
    """One INVITE that may be tried."""

    uri: Uri
    """Request-URI."""
    host: str
    port: int | None
    transport: str
    """UDP or TCP; empty: UDP, or what the size asks for."""
    trunk: Trunk | None


class Trunks:
    """See the module. `now` is monotonic seconds."""

    def __init__(self, trunks: Sequence[Trunk], random: Random, now: float) -> None:
        self._trunks = tuple(trunks)
        self._random = random
        self._limits = {one.name: CallLimit(one.calls_per_second, one.calls_at_once, now) for one in trunks}
        self._prefixes = [
            (prefix.removeprefix("+"), trunk) for trunk in trunks if trunk.gateways for prefix in trunk.prefixes
        ]
        self._gateways = {trunk.name: tuple(Uri.parse(one.uri) for one in trunk.gateway_list) for trunk in self._trunks}

    def named(self, name: str) -> Trunk | None:
        """The trunk of that name."""
        return next((trunk for trunk in self._trunks if trunk.name == name), None)

    def limit(self, trunk: Trunk) -> CallLimit:
        """Its pace and its running calls."""
        return self._limits[trunk.name]

    def reach(self, number: str) -> bool:
        """Whether any trunk takes calls to an E.164 number."""
        digits = number.removeprefix("+")
        return any(digits.startswith(prefix) for prefix, _ in self._prefixes)

    def ways(self, to: str) -> list[Way]:
        """The INVITEs to try for an E.164 number or a `sip:` URI, in order; none when nothing leads there."""
        if to.partition(":")[0].lower() in SIP_SCHEMES:
            uri = Uri.parse(to)
            return [Way(uri, uri.bare_host, uri.port, uri.transport, None)]
        found: list[Way] = []
        for trunk in self._order(to.removeprefix("+")):
            for gateway in self._gateways[trunk.name]:
                uri = gateway.replace(user=to)
                found.append(Way(uri, gateway.bare_host, gateway.port, gateway.transport, trunk))
        return found

    def _order(self, digits: str) -> list[Trunk]:
        """The trunks for a number, each once, by its longest prefix."""
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


def amount(rate: Decimal, billed: int) -> str:
    """A plain decimal string."""
    return format((rate * billed).normalize(), "f")
