"""Addresses that are not listened to for a while: scanners, and those who guess passwords.

Theory. Each stranger's address has a score that begins anew with each window; what it does wrong adds to it, and at
`after` the address is banned: what it sends is dropped before it is parsed, but for what belongs to calls that are up.

**A ban must not be a weapon.** The source of a datagram can be forged, so whoever is known to be somebody is *spared*:
the addresses of trunks, and every address from which a login was right, or which passed an address list, within
`spare_s` (longer than a registration stands). He pays by the rate of `voice.sources` alone. An offence is *proven* if
its source must have heard us: it came over a connection, or answered a nonce that we had made for that address (RFC
7616 section 5.4; ours are bound to it). Offences that are not proven ban for FORGEABLE_S at most, and over UDP only.

IPv6 addresses count by their /64, which is what one host has.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from trunkline.model.clock import Clock
    from trunkline.settings.voice import Sip
    from trunkline.storage.memory import MemoryStore

PREFIX: Final = "ban/"
"""Keys of the `MemoryStore`: `ban/<address>`."""
LIFT_FILE: Final = "bans.lift"
"""In the data folder: addresses, one a line, whose bans are to be lifted; taken away once that is done."""
LIFT_LOOK_S: Final = 1.0
"""Between two looks for that file."""
MAX_LIFT_BYTES: Final = 64 * 1024
MAX_ADDRESSES: Final = 10_000
"""Bans, and scores of addresses not banned; the oldest leave first."""
MAX_SPARED: Final = 50_000
"""Addresses known to be somebody."""
FORGEABLE_S: Final = 300.0
"""Longest ban for what may have come from somebody else."""
SPARE_EXTRA_S: Final = 600.0
"""How much longer than a registration an address is spared."""
LOGGED: Final = 60
"""Bans logged in LOGGED_S; the rest are counted only, for forged sources can be many."""
LOGGED_S: Final = 60.0

log = logging.getLogger(__name__)


class Ban(msgspec.Struct, frozen=True, array_like=True):
    """One ban, as it is stored. `until_ms` is Unix milliseconds; `proven`: it holds for connections too."""

    address: str
    until_ms: int
    proven: bool
    why: str
    since_ms: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Ban).decode


class Bans:
    """See the module. `trusted` tells the addresses of trunks. `counters` are bans by their last reason."""

    def __init__(
        self, sip: Sip, memory: MemoryStore, clock: Clock, trusted: Callable[[str], object] = lambda host: None
    ) -> None:
        self._after = sip.ban_after
        self._window_s = sip.ban_window_s
        self._ban_s = sip.ban_s
        self._spare_s = sip.register_max_s + SPARE_EXTRA_S
        self._memory = memory
        self._clock = clock
        self._trusted = trusted
        self._bans: OrderedDict[str, Ban] = OrderedDict()
        self._ends: list[tuple[int, str]] = []
        self._scores: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Score, and the end of its window (monotonic)."""
        self._spared: OrderedDict[str, float] = OrderedDict()
        self._logged: tuple[float, int] = 0.0, 0
        self.counters: dict[str, int] = {}

    # -- asking ----------------------------------------------------------------------------------------------

    def refuses(self, host: str) -> bool:
        """Whether datagrams from an address are dropped: one look-up, and none while nobody is banned."""
        if not self._bans:
            return False
        found = self._bans.get(host if ":" not in host else group(host))
        return found is not None and found.until_ms > self._clock.now_ms()

    def admits(self, host: str) -> bool:
        """Whether connections from an address are taken: bans for what can be forged do not hold for them."""
        found = self._bans.get(group(host)) if self._bans else None
        return found is None or not found.proven or found.until_ms <= self._clock.now_ms()

    def listed(self) -> list[Ban]:
        """What stands, the oldest first."""
        now = self._clock.now_ms()
        return [ban for ban in self._bans.values() if ban.until_ms > now]

    # -- telling ---------------------------------------------------------------------------------------------

    def offended(self, host: str, why: str, *, proven: bool, cost: float = 1.0) -> None:
        """An address did something wrong; `why` is one of a few short texts (a label of metrics)."""
        if not self._after or self._is_spared(host):
            return
        name, now = group(host), self._clock.monotonic()
        score, end = self._scores.pop(name, (0.0, 0.0))
        if now >= end:
            score, end = 0.0, now + self._window_s
        score += cost
        if score < self._after:
            self._scores[name] = score, end
            if len(self._scores) > MAX_ADDRESSES:
                self._scores.popitem(last=False)
            return
        self._ban(name, why, proven)

    def vouched(self, host: str) -> None:
        """A login from an address was right, or it passed an address list: it is spared for a while."""
        name = group(host)
        self._scores.pop(name, None)
        self._spared.pop(name, None)
        self._spared[name] = self._clock.monotonic() + self._spare_s
        if len(self._spared) > MAX_SPARED:
            self._spared.popitem(last=False)

    def spares(self, host: str) -> bool:
        """Whether an address is known to be somebody's."""
        return self._is_spared(host)

    def _is_spared(self, host: str) -> bool:
        return self._spared.get(group(host), 0.0) > self._clock.monotonic() or bool(self._trusted(host))

    # -- bans ------------------------------------------------------------------------------------------------

    def _ban(self, name: str, why: str, proven: bool) -> None:
        seconds = self._ban_s if proven else min(self._ban_s, FORGEABLE_S)
        now_ms = self._clock.now_ms()
        self._put(Ban(name, now_ms + int(seconds * 1000), proven, why, now_ms))
        self.counters[why] = self.counters.get(why, 0) + 1
        since, count = self._logged
        if self._clock.monotonic() >= since + LOGGED_S:
            since, count = self._clock.monotonic(), 0
        self._logged = since, count + 1
        if count < LOGGED:
            kind = "" if proven else ", over UDP"
            log.warning("SIP: %s is banned for %d s%s: %s", name, seconds, kind, why)
        elif count == LOGGED:
            log.warning("SIP: more than %d addresses were banned in a minute; no more are told", LOGGED)

    def _put(self, ban: Ban, *, write: bool = True) -> None:
        self._drop_ended()
        before = self._bans.pop(ban.address, None)
        if before is not None and before.until_ms > ban.until_ms:
            ban = msgspec.structs.replace(ban, until_ms=before.until_ms)
        while len(self._bans) >= MAX_ADDRESSES:
            self._forget(next(iter(self._bans)))
        self._bans[ban.address] = ban
        heapq.heappush(self._ends, (ban.until_ms, ban.address))
        if len(self._ends) > 2 * MAX_ADDRESSES:
            self._ends = sorted((each.until_ms, name) for name, each in self._bans.items())
        if write:
            left_ms = ban.until_ms - self._clock.now_ms()
            self._memory.post(PREFIX + ban.address, _encode(ban), max(1, left_ms))

    def _drop_ended(self) -> None:
        now = self._clock.now_ms()
        while self._ends and self._ends[0][0] <= now:
            _, name = heapq.heappop(self._ends)
            found = self._bans.get(name)
            if found is not None and found.until_ms <= now:
                del self._bans[name]

    def _forget(self, name: str) -> None:
        del self._bans[name]
        self._memory.post(PREFIX + name, None)

    def lift(self, address: str) -> bool:
        """End the ban of an address; False when there is none."""
        name = group(address)
        self._scores.pop(name, None)
        if name not in self._bans:
            return False
        self._forget(name)
        log.warning("SIP: the ban of %s is lifted", name)
        return True

    # -- life ------------------------------------------------------------------------------------------------

    async def load(self) -> int:
        """Take up what a process before this one banned; how many. Trunks that have come since are spared."""
        now = self._clock.now_ms()
        for key, value in await self._memory.scan(PREFIX):
            ban = read(value)
            if ban is None or ban.until_ms <= now or self._trusted(ban.address) or not self._after:
                self._memory.post(key, None)
            else:
                self._put(ban, write=False)
        return len(self._bans)

    async def run(self, folder: Path) -> None:
        """Lift what the operator wants lifted (`trunkline bans --lift`), until cancelled."""
        path = folder / LIFT_FILE
        while True:
            for address in wanted(path):
                self.lift(address)
            self._drop_ended()
            await asyncio.sleep(LIFT_LOOK_S)


def read(value: bytes) -> Ban | None:
    """A stored ban; None if it cannot be read (another release's)."""
    try:
        return _decode(value)
    except msgspec.MsgspecError:
        return None


def wanted(path: Path) -> list[str]:
    """The addresses to be lifted; the file is gone afterwards."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_LIFT_BYTES)
        path.unlink()
    except FileNotFoundError:
        return []
    except OSError as error:
        log.error("%s cannot be read: %s", path, error)
        return []
    return [line.strip() for line in text.decode("ascii", "replace").splitlines() if line.strip()]


@lru_cache(maxsize=MAX_ADDRESSES)
def group(host: str) -> str:
    """What is banned together: an IPv4 address, an IPv6 network of 64 bits."""
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host.partition("%")[0].strip("[]"))
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64)) + "/64"
