"""Rates that the nodes of a cluster share: a sender's segments a second, and an account's.

Each node has lanes of its own. Once a second it tells the others which limited senders and accounts it has work for;
a rate is divided by the nodes that have any. A sender that one node alone works for has its whole rate there. When
another begins with it, both may use all of it for up to a second; a carrier's own limit is kept exactly all the time,
for one node holds its binds.
"""

import logging
from collections.abc import Callable, Collection
from typing import Final

import msgspec

from trunkline.cluster.telling import Handle, Peers, keep_telling, tell_all

ACTIVE: Final = "rates/active"
TELL_EVERY_S: Final = 1.0
TELL_S: Final = 1.0
"""Longest wait for a peer to take it."""
OLD_S: Final = 5.0
"""What a peer said so long ago counts no more."""
MAX_TOLD: Final = 20_000
"""Senders and accounts told at once; those beyond are taken to be nobody else's."""

log = logging.getLogger(__name__)
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[str]).decode


class SharedRates:
    """See the module. `active()` names the limited senders (`account|sender`) and accounts (`account|`) that this node
    has work for; `changed()` is called when rates ought to be asked for anew; `now` is monotonic seconds."""

    def __init__(
        self,
        peers: Peers,
        active: Callable[[], Collection[str]],
        changed: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        self._peers = peers
        self._active = active
        self._changed = changed
        self._now = now
        self._told: dict[str, tuple[frozenset[str], float]] = {}
        self._silent = False

    def serve(self, handle: Handle) -> None:
        """Answer peers."""
        handle(ACTIVE, self._hear)

    def nodes(self, account: str, sender: str) -> int:
        """How many nodes share a rate, this one included."""
        key, now = f"{account}|{sender}", self._now()
        return 1 + sum(key in keys and now - at <= OLD_S for keys, at in self._told.values())

    async def run(self) -> None:
        """Tell the others until cancelled."""
        await keep_telling(self.tell, TELL_EVERY_S, "shared rates")

    async def tell(self) -> None:
        """Tell every peer what this node has work for."""
        active = sorted(self._active())[:MAX_TOLD]
        now = self._now()
        known = len(self._told)
        self._told = {node: told for node, told in self._told.items() if now - told[1] <= OLD_S}
        if len(self._told) < known:
            self._changed()
        if not active and self._silent:
            return
        self._silent = not active
        payload = _encode(active)
        await tell_all(self._peers, ACTIVE, payload, TELL_S)

    async def _hear(self, node: str, payload: bytes) -> bytes:
        keys = frozenset(_decode(payload)[:MAX_TOLD])
        before = self._told.get(node, (frozenset(), 0.0))
        self._told[node] = (keys, self._now())
        if before[0] != keys:
            self._changed()
        return b""
