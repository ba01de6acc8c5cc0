"""Which servers stand behind a name, in which order to try them (RFC 3263 section 4, RFC 2782), and a cache of DNS.

    name without port and transport    NAPTR, else SRV of every transport, else addresses
    name without port                  SRV of the transport, else addresses
    name with port                     addresses
    address                            itself

Answers are kept as long as they say; when DNS does not answer, old ones are used (RFC 8767). Everything a hostile zone
could make long is bounded: records of one answer, targets, look-ups of one question, names that are kept.
"""

import asyncio
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from trunkline.sip.flow import Target, default_port, is_numeric

MAX_RECORDS: Final = 20  # of one answer that are looked at
MAX_ADDRESSES: Final = 8  # of one host
MAX_TARGETS: Final = 32  # of one name
MAX_LOOKUPS: Final = 40  # for one name
MAX_ASKING: Final = 256  # look-ups under way
MAX_CACHED: Final = 5000  # answers kept; the longest unused leaves first
RESOLVE_S: Final = 8.0  # for everything about one name
MIN_TTL_S: Final = 1.0
MAX_TTL_S: Final = 3600.0
STALE_S: Final = 86_400.0  # how old an answer may be that stands in for none

SERVICES: Final = {"SIP+D2U": "UDP", "SIP+D2T": "TCP", "SIPS+D2T": "TLS"}
"""Of NAPTR records: the transports that we have."""
SRV_NAMES: Final = {"UDP": "_sip._udp.", "TCP": "_sip._tcp.", "TLS": "_sips._tcp."}
"""In the order of preference where nothing else says."""


class Naptr(NamedTuple):
    """What section 4.1 uses of a NAPTR record (RFC 3403)."""

    order: int
    preference: int
    flags: str
    service: str
    replacement: str


class Srv(NamedTuple):
    """RFC 2782."""

    priority: int
    weight: int
    port: int
    target: str


class Found(NamedTuple):
    """Records, empty where there are none, and for how many seconds that may be believed."""

    records: Sequence[Any]
    """Naptr, Srv, or addresses as text."""
    ttl_s: float


class Lookup(Protocol):
    """Asks DNS."""

    def __call__(self, name: str, kind: str) -> Awaitable[Found]:
        """Records of a kind: NAPTR, SRV, or HOST for addresses that we can reach. Raises OSError where nobody knows."""


class Resolver:
    """See the module. `now` is monotonic seconds."""

    def __init__(self, lookup: Lookup, now: Callable[[], float], dice: random.Random | None = None) -> None:
        self._lookup = lookup
        self._now = now
        self._dice = dice or random.Random()
        self._cache: OrderedDict[tuple[str, str], tuple[Sequence[Any], float]] = OrderedDict()
        self._asking: dict[tuple[str, str], asyncio.Future[Sequence[Any]]] = {}

    async def resolve(self, host: str, port: int | None, transport: str = "", secure: bool = False) -> list[Target]:
        """The targets for a URI's host, port and transport parameter (`secure`: a SIPS URI), best first; numeric,
        those over TLS with the name that their certificate has to carry. `transport` stays empty where nothing says
        it. Raises OSError for a name that is unknown, or that DNS does not answer for."""
        transport = "TLS" if secure else transport.upper()
        host = host.strip("[]")
        if is_numeric(host):
            return [Target(transport, host, port or default_port(transport))]
        try:
            async with asyncio.timeout(RESOLVE_S):
                return await _Question(self, host.lower().rstrip("."), self._dice).targets(port, transport)
        except TimeoutError:
            raise OSError(f"DNS does not answer for {host}") from None

    async def records(self, name: str, kind: str) -> Sequence[Any]:
        """Records, from the cache if they are there; one question is asked once at a time. Raises OSError."""
        key = name.lower().rstrip("."), kind
        kept = self._cache.get(key)
        if kept is not None and kept[1] > self._now():
            self._cache.move_to_end(key)
            return kept[0]
        asking = self._asking.get(key)
        if asking is None:
            if len(self._asking) >= MAX_ASKING:
                raise OSError("too many look-ups")
            asking = self._asking[key] = asyncio.ensure_future(self._ask(key))
            asking.add_done_callback(lambda done: self._told(key, done))
        return await asyncio.shield(asking)

    async def _ask(self, key: tuple[str, str]) -> Sequence[Any]:
        try:
            async with asyncio.timeout(RESOLVE_S):
                found = await self._lookup(*key)
        except (OSError, TimeoutError) as error:
            kept = self._cache.get(key)
            if kept is None or kept[1] + STALE_S < self._now():
                raise OSError(str(error) or "DNS does not answer") from None
            return kept[0]
        records = tuple(found.records[:MAX_RECORDS])
        self._cache[key] = records, self._now() + min(max(found.ttl_s, MIN_TTL_S), MAX_TTL_S)
        self._cache.move_to_end(key)
        if len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        return records

    def _told(self, key: tuple[str, str], done: "asyncio.Future[Sequence[Any]]") -> None:
        del self._asking[key]
        if not done.cancelled():
            done.exception()  # whoever waits hears of it; nobody may


class _Question:
    """One name on its way to targets."""

    def __init__(self, resolver: Resolver, name: str, dice: random.Random) -> None:
        self._resolver = resolver
        self._name = name
        self._dice = dice
        self._left = MAX_LOOKUPS
        self._found: list[Target] = []

    async def targets(self, port: int | None, transport: str) -> list[Target]:
        """RFC 3263 sections 4.1 and 4.2."""
        if port is not None:
            await self._add(self._name, port, transport)
        elif not await self._services(transport):
            await self._add(self._name, default_port(transport), transport)
        return list(dict.fromkeys(self._found))

    async def _services(self, transport: str) -> bool:
        """Whether the zone says by SRV where to go, if perhaps nowhere."""
        try:
            pointers = [] if transport else await self._pointers()
            pointers = pointers or [(one, SRV_NAMES[one] + self._name) for one in SRV_NAMES if transport in ("", one)]
            said = False
            for kind, name in pointers:
                records = await self._ask(name, "SRV")
                said = said or bool(records)
                for record in in_order(records, self._dice):
                    if record.target.rstrip("."):  # "." says that there is no such service
                        await self._add(record.target, record.port, kind)
            return said
        except OSError:  # some resolvers fail on what they do not know; an address may be known in spite of it
            return bool(self._found)

    async def _pointers(self) -> list[tuple[str, str]]:
        """Transport and SRV name of every NAPTR record that we can use, in their order."""
        records = sorted(await self._ask(self._name, "NAPTR"), key=lambda one: (one.order, one.preference))
        usable = [one for one in records if one.flags.lower() == "s" and one.service.upper() in SERVICES]
        return [(SERVICES[one.service.upper()], one.replacement) for one in usable]

    async def _add(self, host: str, port: int, transport: str) -> None:
        """A host's addresses; one that has none is passed over where there are others."""
        if is_numeric(host):
            addresses: Sequence[str] = [host]
        else:
            try:
                addresses = await self._ask(host, "HOST")
            except OSError:
                if host == self._name:
                    raise
                return
        room = min(MAX_ADDRESSES, MAX_TARGETS - len(self._found))
        domain = self._name if transport == "TLS" else ""
        self._found += [Target(transport, address, port, domain) for address in addresses[: max(0, room)]]

    async def _ask(self, name: str, kind: str) -> Sequence[Any]:
        self._left -= 1
        return await self._resolver.records(name, kind) if self._left >= 0 else ()


def in_order(records: Iterable[Srv], dice: random.Random) -> list[Srv]:
    """SRV records by priority, and by weight at random among equals (RFC 2782)."""
    waiting = sorted(records, key=lambda one: (one.priority, one.weight))
    ordered: list[Srv] = []
    while waiting:
        equals = [one for one in waiting if one.priority == waiting[0].priority]
        at = dice.randint(0, sum(one.weight for one in equals))
        for one in equals:  # those of weight 0 stand first: they are drawn when the number is 0
            at -= one.weight
            if at <= 0:
                break
        ordered.append(one)
        waiting.remove(one)
    return ordered
