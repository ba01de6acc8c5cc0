"""Asking DNS: dnspython for NAPTR and SRV, and the system's own way for addresses, which knows /etc/hosts and its like.

With servers of our own everything is asked there.
"""

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver

from trunkline.sip.resolve import Found, Naptr, Srv
from trunkline.sip.transport_sockets import plain_host

QUERY_S: Final = 4.0  # for one question, over all servers
TRY_S: Final = 1.5  # for one server, before it is asked again or the next
DNS_PORT: Final = 53
SYSTEM_TTL_S: Final = 60.0  # of what the system finds, which does not say
NOTHING_TTL_S: Final = 30.0  # of what does not exist
SETTINGS_S: Final = 60.0  # how long the system's list of servers is believed
LOCALHOST: Final = ("localhost", ".localhost")
"""Never asked for (RFC 6761 section 6.3)."""


class Names:
    """`trunkline.sip.resolve.Lookup`. `family` tells what our socket can reach: AF_INET, or AF_INET6 for both."""

    def __init__(self, servers: Sequence[str], family: Callable[[], int]) -> None:
        """`servers`: `address`, `address:port` or `[address]:port`; empty: the system's. Raises ValueError."""
        self._servers = [_server(text) for text in servers]
        self._family = family
        self._resolver: dns.asyncresolver.Resolver | None = None
        self._made_at = 0.0

    async def __call__(self, name: str, kind: str) -> Found:
        if kind != "HOST":
            return await self._query(name, kind)
        if name.endswith(LOCALHOST):
            return Found(("127.0.0.1",) if self._family() == socket.AF_INET else ("::1", "127.0.0.1"), SYSTEM_TTL_S)
        if not self._servers:
            return await self._ask_system(name)
        kinds = ("A",) if self._family() == socket.AF_INET else ("AAAA", "A")
        found = [await self._query(name, one) for one in kinds]
        records = [record for one in found for record in one.records]
        if not records:
            raise OSError(f"{name} has no address")
        return Found(records, min(one.ttl_s for one in found if one.records))

    async def _ask_system(self, name: str) -> Found:
        family = self._family()
        flags = socket.AI_V4MAPPED | socket.AI_ALL if family == socket.AF_INET6 else 0
        try:
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(name, None, family=family, type=socket.SOCK_DGRAM, flags=flags)
        except UnicodeError as error:
            raise OSError(f"no host name: {name}") from error
        return Found(tuple(dict.fromkeys(plain_host(str(one[4][0])) for one in found)), SYSTEM_TTL_S)

    async def _query(self, name: str, kind: str) -> Found:
        """Raises OSError."""
        try:
            answer = await self._asked().resolve(
                f"{name}.", kind, raise_on_no_answer=False, lifetime=QUERY_S, search=False
            )
        except dns.resolver.NXDOMAIN:
            return Found((), NOTHING_TTL_S)
        except (dns.exception.DNSException, ValueError) as error:
            raise OSError(f"{name}: {type(error).__name__}") from None
        if answer.rrset is None:
            return Found((), NOTHING_TTL_S)
        return Found([_READ[kind](record) for record in answer.rrset], float(answer.rrset.ttl))

    def _asked(self) -> dns.asyncresolver.Resolver:
        """Raises DNSException where the system knows no servers."""
        now = time.monotonic()
        if self._resolver is None or (not self._servers and now - self._made_at > SETTINGS_S):
            self._resolver = dns.asyncresolver.Resolver(configure=not self._servers)
            if self._servers:
                self._resolver.nameservers = list(self._servers)
            self._resolver.timeout = TRY_S
            self._made_at = now
        return self._resolver


def _server(text: str) -> dns.nameserver.Do53Nameserver:
    host, port = text, DNS_PORT
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = int(rest.removeprefix(":") or DNS_PORT)
    elif text.count(":") == 1:
        host, _, digits = text.partition(":")
        port = int(digits)
    return dns.nameserver.Do53Nameserver(host, port)


def _text(name: Any) -> str:
    return str(name.to_text(omit_final_dot=True)) if name.labels != (b"",) else ""


_READ: Final[dict[str, Callable[[Any], Any]]] = {
    "A": lambda one: one.address,
    "AAAA": lambda one: one.address,
    "SRV": lambda one: Srv(one.priority, one.weight, one.port, _text(one.target)),
    "NAPTR": lambda one: Naptr(
        one.order,
        one.preference,
        one.flags.decode("ascii", "replace"),
        one.service.decode("ascii", "replace"),
        _text(one.replacement),
    ),
}
"""From dnspython's records to ours."""
