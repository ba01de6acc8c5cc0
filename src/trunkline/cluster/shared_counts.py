"""Limits that the nodes of a cluster share: how much an account asks of the API, who fails to log in, what waits.

Each node counts for itself. Once a second it tells the others what it has counted since, and they add that to their
own: a limit holds for all nodes together, but for what comes within that second. No request waits for it. Peers that
are not heard of count for nothing: then each node keeps the limit for itself alone.
"""

import logging
from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from trunkline.cluster.telling import Handle, Peers, keep_telling, tell_all

COUNTS: Final = "counts"
TELL_EVERY_S: Final = 1.0
TELL_S: Final = 1.0
"""Longest wait for a peer to take it."""
MAX_TOLD: Final = 5_000
"""Counts of one kind that are told at once, and heard of one node; the rest count where they were made."""
MAX_COUNT: Final = 1 << 40

Counts = dict[str, int]

log = logging.getLogger(__name__)
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(dict[str, Counts]).decode


class Shared(Protocol):
    """Something that counts."""

    def told(self) -> Counts:
        """What the others are to know now: counted since this was asked last (or, of what waits, all)."""

    def heard(self, node: str, counts: Mapping[str, int]) -> None:
        """What another node counts."""


class Events:
    """What has been counted since it was told of last; for those who add up what they hear."""

    def __init__(self) -> None:
        self._new: Counts = {}

    def note(self, key: str) -> None:
        """Count one."""
        new = self._new
        if key in new:
            new[key] += 1
        elif len(new) < MAX_TOLD:
            new[key] = 1

    def told(self) -> Counts:
        """See `Shared`."""
        told, self._new = self._new, {}
        return told


class SharedCounts:
    """See the module. `shared`: by name, the same on each node."""

    def __init__(self, peers: Peers, shared: Mapping[str, Shared]) -> None:
        self._peers = peers
        self._shared = dict(shared)
        self._silent = True

    def add(self, name: str, shared: Shared) -> None:
        """One more. Before `run`."""
        self._shared[name] = shared

    def serve(self, handle: Handle) -> None:
        """Answer peers."""
        handle(COUNTS, self._hear)

    async def run(self) -> None:
        """Tell the others until cancelled."""
        await keep_telling(self.tell, TELL_EVERY_S, "shared counts")

    async def tell(self) -> None:
        """Tell every peer."""
        counts = {name: told for name, one in self._shared.items() if (told := one.told())}
        if not counts and self._silent:
            return
        self._silent = not counts
        payload = _encode(counts)
        await tell_all(self._peers, COUNTS, payload, TELL_S)

    async def _hear(self, node: str, payload: bytes) -> bytes:
        counts = _decode(payload)
        for name, one in self._shared.items():
            heard = counts.get(name, {})
            if len(heard) > MAX_TOLD:
                heard = dict(list(heard.items())[:MAX_TOLD])
            one.heard(node, {key: min(count, MAX_COUNT) for key, count in heard.items() if count > 0})
        return b""
