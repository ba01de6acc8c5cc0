"""Where webhooks may go: the guard against server-side request forgery.

Customers choose the URLs, so a URL must not reach into the operator's own network. A host is resolved once,
every address is checked against the IANA special-purpose registries (RFC 6890 and its updates), and the
connection is made to the checked address: the name is never resolved a second time (no DNS rebinding).

While no name server answers, an address that was right lately is used on (RFC 8767): it has been checked. A name
that is said not to exist is unknown at once.

IPv6 is an allow list: only global unicast 2000::/3, so that loopback, link-local, unique local, multicast,
IPv4-mapped (::ffff:0:0/96) and NAT64 (64:ff9b::/96, 64:ff9b:1::/48) are all outside.
"""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from trunkline.webhooks.failures import Failure, HostRefused, HostUnknown

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
Resolver = Callable[[str], Awaitable[Sequence[str]]]
"""A host name to addresses; raises OSError when there are none."""

LOOPBACK: Final = ("127.0.0.0/8", "::1/128")
PRIVATE: Final = (
    *LOOPBACK,
    "10.0.0.0/8",
    "100.64.0.0/10",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "fc00::/7",
)
"""What an operator lets through who trusts every customer with his own network. Link-local addresses are not in it:
clouds hand out credentials there (169.254.169.254); who needs one names it in `webhook_allow`."""

_REFUSED: Final[tuple[tuple[Network, str], ...]] = tuple(
    (ip_network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared address space"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local or metadata"),
        ("168.63.129.16/32", "metadata"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved or metadata"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved or broadcast"),
        ("2001::/23", "protocol assignments (Teredo, ORCHID)"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "documentation"),
    )
)
_GLOBAL_V6: Final = IPv6Network("2000::/3")

MAX_CACHED_HOSTS: Final = 4096
MAX_PENDING_LOOKUPS: Final = 256
MAX_ADDRESSES: Final = 8  # kept of one host
LOOKUP_THREADS: Final = 8
TTL_S: Final = 30.0
NEGATIVE_TTL_S: Final = 5.0
LOOKUP_TIMEOUT_S: Final = 5.0
STALE_S: Final = 24 * 3600.0
"""How long an address is used on while no name server answers; RFC 8767 section 6 says one to three days."""
STALE_AFTER_S: Final = 1.0
"""How long the name servers are waited for where there is such an address (its client response timer: 1.8 s)."""
_NO_SUCH_NAME: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})


class LookupFailed(HostUnknown):
    """Nobody said whether there is such a host."""


def refusal(address: Address, allowed: Iterable[Network] = ()) -> str | None:
    """Why webhooks may not go to an address, or None when they may."""
    if any(address in network for network in allowed if network.version == address.version):
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return "scoped"
        if address.ipv4_mapped is not None:
            return "IPv4-mapped"
        if address not in _GLOBAL_V6:
            return "not global unicast"
    for network, reason in _REFUSED:
        if network.version == address.version and address in network:
            return reason
    return None


class Guard:
    """Resolves and checks hosts.

    `allow` holds what is let through though special: networks (CIDR), addresses, and host names (whatever they
    resolve to).
    """

    def __init__(
        self,
        allow: Sequence[str] = (),
        *,
        resolver: Resolver | None = None,
        ttl_s: float = TTL_S,
        timeout_s: float = LOOKUP_TIMEOUT_S,
    ) -> None:
        networks = [text for text in allow if _is_network(text)]
        self._allowed: tuple[Network, ...] = tuple(ip_network(text) for text in networks)
        self._allowed_hosts = frozenset(text.lower() for text in allow if text not in networks)
        self._executor: ThreadPoolExecutor | None = None
        self._resolver = resolver or self._getaddrinfo
        self._ttl_s = ttl_s
        self._timeout_s = timeout_s
        # Host -> (expiry on the loop's clock, permitted addresses or the failure).
        self._cache: OrderedDict[str, tuple[float, tuple[str, ...] | Failure]] = OrderedDict()
        self._known: OrderedDict[str, tuple[float, tuple[str, ...]]] = OrderedDict()
        """Host -> (until when they may be used though nobody confirms it, permitted addresses)."""
        self._pending: dict[str, asyncio.Task[tuple[str, ...]]] = {}

    @classmethod
    def development(cls) -> Guard:
        """Lets loopback through, nothing else."""
        return cls(LOOPBACK)

    def cached(self, host: str, now: float) -> str | None:
        """A checked address that is known already. `now` is the loop's time."""
        entry = self._cache.get(host)
        if entry is None or entry[0] <= now or isinstance(entry[1], Failure):
            return None
        return entry[1][0]

    async def resolve(self, host: str, timeout_s: float | None = None) -> str:
        """A checked address of the host.

        Raises HostRefused, HostUnknown.
        """
        now = asyncio.get_running_loop().time()
        entry = self._cache.get(host)
        if entry is not None and entry[0] > now:
            if isinstance(entry[1], Failure):
                raise type(entry[1])(*entry[1].args)
            return entry[1][0]
        task = self._pending.get(host)
        if task is None:
            if len(self._pending) >= MAX_PENDING_LOOKUPS:
                raise HostUnknown("too many host names are being looked up")
            task = asyncio.create_task(self._look_up(host))
            self._pending[host] = task
            task.add_done_callback(lambda done: self._looked_up(host, done))
        limit = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        until, stale = self._known.get(host, (0.0, ()))
        if until <= now:
            stale = ()
        try:
            # Shielded: others wait for the same answer.
            return (await asyncio.wait_for(asyncio.shield(task), min(limit, STALE_AFTER_S) if stale else limit))[0]
        except LookupFailed:
            if stale:
                return stale[0]
            raise
        except TimeoutError:
            if stale:
                return stale[0]
            raise HostUnknown(f"looking up {host} took longer than {limit:g} s") from None

    def refuses(self, host: str, address: str) -> bool:
        """Whether a host may not be reached at an address that it is known to have."""
        try:
            numeric = ip_address(address.strip("[]"))
        except ValueError:
            return True
        return host not in self._allowed_hosts and refusal(numeric, self._allowed) is not None

    def demote(self, host: str, address: str) -> None:
        """A connection to the address failed: the host's next permitted address comes first."""
        entry = self._cache.get(host)
        if entry is not None and not isinstance(entry[1], Failure) and entry[1][0] == address and len(entry[1]) > 1:
            self._cache[host] = (entry[0], (*entry[1][1:], address))

    def close(self) -> None:
        """Stop the lookups under way."""
        for task in self._pending.values():
            task.cancel()
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def _look_up(self, host: str) -> tuple[str, ...]:
        try:
            literal = ip_address(host)
        except ValueError:
            try:
                async with asyncio.timeout(self._timeout_s):
                    found = await self._resolver(host)
            except TimeoutError:
                raise LookupFailed(f"looking up {host} took longer than {self._timeout_s:g} s") from None
            except socket.gaierror as error:
                kind = HostUnknown if error.errno in _NO_SUCH_NAME else LookupFailed
                raise kind(f"the host name {host} does not resolve") from None
            except (OSError, UnicodeError):
                raise HostUnknown(f"the host name {host} does not resolve") from None
        else:
            found = [str(literal)]
        return self._permitted(host, found)

    def _permitted(self, host: str, found: Sequence[str]) -> tuple[str, ...]:
        """The addresses webhooks may go to; raises when there are none."""
        permitted: list[str] = []
        reason = None
        for text in dict.fromkeys(found[: 4 * MAX_ADDRESSES]):
            try:
                address = ip_address(text)
            except ValueError:
                continue
            why = None if host in self._allowed_hosts else refusal(address, self._allowed)
            if why is None:
                permitted.append(text)
            reason = reason or why
        if permitted:
            return tuple(permitted[:MAX_ADDRESSES])
        if reason is None:
            raise HostUnknown(f"the host name {host} does not resolve")
        # The address itself is not told: it would map the operator's network to whoever may set a URL.
        raise HostRefused(f"the host {host} is not reachable for webhooks ({reason} address)")

    def _looked_up(self, host: str, task: asyncio.Task[tuple[str, ...]]) -> None:
        self._pending.pop(host, None)
        if task.cancelled():
            return
        error = task.exception()
        now = task.get_loop().time()
        if error is None:
            self._cache[host] = (now + self._ttl_s, task.result())
            self._known[host] = (now + STALE_S, task.result())
            self._known.move_to_end(host)
        elif isinstance(error, Failure):
            if not isinstance(error, LookupFailed):
                self._known.pop(host, None)
            until, stale = self._known.get(host, (0.0, ()))
            goes_on = until > now
            self._cache[host] = (now + min(NEGATIVE_TTL_S, self._ttl_s), stale if goes_on else error)
        self._cache.move_to_end(host)
        for kept in (self._cache, self._known):
            while len(kept) > MAX_CACHED_HOSTS:
                kept.popitem(last=False)

    async def _getaddrinfo(self, host: str) -> Sequence[str]:
        """The system's resolver, in threads of its own: a slow name server must not block other work."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(LOOKUP_THREADS, thread_name_prefix="dns")
        return await asyncio.get_running_loop().run_in_executor(self._executor, _getaddrinfo, host)


def _is_network(text: str) -> bool:
    """Whether a configured entry is meant as addresses, right or wrong, and not as a host name."""
    return "/" in text or ":" in text or text.replace(".", "").isdigit()


def _getaddrinfo(host: str) -> list[str]:
    return [str(row[4][0]) for row in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
