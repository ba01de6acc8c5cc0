"""Which carrier a message goes out by, and what it costs.

Routes are matched on destination prefix, sender and account. The longest prefix wins, then priority; among equals the
weights share by the message's own key, so that the same message always gets the same answer and a candidate in
learning mode can be compared. The rest, in order, are what failover tries next.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import lru_cache

from trunkline.settings import Rate, Route

CACHED_DECISIONS = 20_000
"""(account, sender, destination prefix) decisions remembered."""
_PREFIX_DIGITS = 9
"""Digits of the destination that decisions are remembered by, plus sign included; longer prefixes are not cached."""


class Router:
    """The routing table. Immutable: a change of the settings makes a new one."""

    def __init__(self, routes: Sequence[Route], rates: Sequence[Rate], connectors: Iterable[str]) -> None:
        names = list(connectors)
        self._routes = [r for r in routes if r.connector in names]
        if not self._routes and len(names) == 1:
            self._routes = [Route(name="default", connector=names[0])]
        longest = max((len(p) for r in self._routes for p in r.prefixes), default=0) + 1
        self._digits = max(_PREFIX_DIGITS, longest)
        self._rates = sorted(((r.prefix.lstrip("+"), r) for r in rates), key=lambda pair: -len(pair[0]))
        self._matching = lru_cache(CACHED_DECISIONS)(self._match)
        self._rating = lru_cache(CACHED_DECISIONS)(self._rate)

    @property
    def routes(self) -> Sequence[Route]:
        """The routes whose connector exists, as configured."""
        return self._routes

    def candidates(self, account: str, sender: str, to: str, key: str) -> list[Route]:
        """The routes that may take a message, best first; empty when none goes there."""
        groups = self._matching(account, sender, to[: self._digits])
        if len(groups) == 1 and len(groups[0]) == 1:
            return [groups[0][0]]
        chosen: list[Route] = []
        for group in groups:
            chosen.extend(_by_weight(group, key))
        return chosen

    def _match(self, account: str, sender: str, to: str) -> list[list[Route]]:
        """Matching routes grouped by (prefix length, priority), best group first."""
        digits = to.lstrip("+")
        groups: dict[tuple[int, int], list[Route]] = {}
        for route in self._routes:
            if route.accounts and account not in route.accounts:
                continue
            if route.senders and not any(_sender_matches(pattern, sender) for pattern in route.senders):
                continue
            lengths = [len(p.lstrip("+")) for p in route.prefixes if digits.startswith(p.lstrip("+"))]
            if lengths:
                groups.setdefault((max(lengths), route.priority), []).append(route)
        return [groups[rank] for rank in sorted(groups, reverse=True)]

    def price(self, number: str, *, inbound: bool = False) -> tuple[Decimal, str] | None:
        """(price of a segment, currency) for a destination (or an origin); None where no rate is set."""
        rate = self._rating(number[: self._digits])
        if rate is None:
            return None
        return (rate.inbound_price if inbound else rate.price), rate.currency

    def _rate(self, number: str) -> Rate | None:
        digits = number.lstrip("+")
        return next((rate for prefix, rate in self._rates if digits.startswith(prefix)), None)


def _sender_matches(pattern: str, sender: str) -> bool:
    return sender.startswith(pattern[:-1]) if pattern.endswith("*") else sender == pattern


def _by_weight(group: Sequence[Route], key: str) -> list[Route]:
    """The routes of a group in an order drawn by their weights, the draw being the key's last 8 hex digits."""
    if len(group) == 1:
        return list(group)
    rest, ordered, draw = list(group), [], int(key[-8:], 16)
    while rest:
        total = sum(route.weight for route in rest)
        point = draw % total
        for route in rest:
            if point < route.weight:
                ordered.append(route)
                rest.remove(route)
                break
            point -= route.weight
    return ordered


def amount(price: Decimal, segments: int) -> str:
    """Price of a whole message as the API writes it: five decimals (Twilio: "-0.00750")."""
    return f"{price * segments:.5f}"
