"""The `MemoryStore` primitive: fast state that may be rebuilt (rate limits, registrations, leases, presence).

`InProcess` is one dictionary with expiry and compare-and-set, bounded; the embedded default
(trunkline.storage.engines.journal) outlives its process too.
"""

from collections.abc import Awaitable, Sequence
from typing import Protocol

from trunkline.model.clock import Clock
from trunkline.storage.survives import Survives
from trunkline.storage.unavailable import StoreUnavailable

MAX_VALUE_BYTES = 1024 * 1024
"""Largest value, in the engines that keep values outside this process's dictionary."""


class ValueTooLarge(ValueError):
    """A value is larger than MAX_VALUE_BYTES; nothing was changed."""


class StoreInDoubt(StoreUnavailable):
    """The write may have been done, or may be lost again with the server that did it: not as `survives` promises."""


class MemoryStore(Protocol):
    """Values are bytes; `ttl_ms` of 0 never expires.

    What is awaited raises StoreUnavailable when the store is away (nothing was written) or StoreInDoubt; `post` and
    `post_all` never do."""

    survives: Survives

    def get(self, key: str) -> Awaitable[bytes | None]:
        """The value, or None when it is absent or expired."""

    def put(self, key: str, value: bytes, ttl_ms: int = 0) -> Awaitable[None]:
        """Set a value."""

    def compare_and_set(self, key: str, old: bytes | None, new: bytes, ttl_ms: int = 0) -> Awaitable[bool]:
        """Set `new` only if the present value is `old` (None: absent)."""

    def delete(self, key: str) -> Awaitable[None]:
        """Remove a value."""

    def post(self, key: str, value: bytes | None, ttl_ms: int = 0) -> None:
        """Set a value, or remove it (None), without waiting: done or on its way, in order, when this returns."""

    def post_all(self, changes: Sequence[tuple[str, bytes | None]], ttl_ms: int = 0) -> None:
        """`post` for each, in one go."""

    def settled(self, timeout_s: float) -> Awaitable[bool]:
        """True as soon as everything posted before is kept as `survives` promises; False: not within `timeout_s`."""

    def scan(self, prefix: str) -> Awaitable[list[tuple[str, bytes]]]:
        """Every key that begins with `prefix`, with its value (recovery; not for the hot path)."""


class InProcess:
    """A `MemoryStore` in this process; holds at most `max_entries`, the oldest written leave first."""

    survives = Survives.NOTHING

    def __init__(self, clock: Clock, max_entries: int = 1_000_000) -> None:
        self._clock = clock
        self._max = max_entries
        self._entries: dict[str, tuple[bytes, int]] = {}

    def _live(self, key: str) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        value, expires_ms = entry
        if expires_ms and expires_ms <= self._clock.now_ms():
            del self._entries[key]
            return None
        return value

    async def get(self, key: str) -> bytes | None:
        return self._live(key)

    async def put(self, key: str, value: bytes, ttl_ms: int = 0) -> None:
        self.post(key, value, ttl_ms)

    def post(self, key: str, value: bytes | None, ttl_ms: int = 0) -> None:
        self._entries.pop(key, None)
        if value is None:
            return
        while len(self._entries) >= self._max:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (value, self._clock.now_ms() + ttl_ms if ttl_ms else 0)

    def post_all(self, changes: Sequence[tuple[str, bytes | None]], ttl_ms: int = 0) -> None:
        for key, value in changes:
            self.post(key, value, ttl_ms)

    async def settled(self, timeout_s: float) -> bool:
        return True

    async def compare_and_set(self, key: str, old: bytes | None, new: bytes, ttl_ms: int = 0) -> bool:
        if self._live(key) != old:
            return False
        self.post(key, new, ttl_ms)
        return True

    async def delete(self, key: str) -> None:
        self._entries.pop(key, None)

    async def scan(self, prefix: str) -> list[tuple[str, bytes]]:
        found = [key for key in self._entries if key.startswith(prefix)]
        return [(key, value) for key in found if (value := self._live(key)) is not None]
