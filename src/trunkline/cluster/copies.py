"""Read your writes across nodes: whoever changes an account, a key, a number waits until the others know.

Each node has copies of such records in memory, which follow the database by its notices within milliseconds. Before a
change is answered, its node asks the live ones whether they have its notice, for SETTLE_S at most. A node that is slow
to say so is not waited for again for REST_S: it costs one change that much, and no more; it has the change later.
Nothing is asked that a request of the hot path waits for: such records are changed rarely.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from trunkline.cluster.peers import PeerError, PeerUnavailable
from trunkline.cluster.telling import Handle, Peers

COPIES: Final = "copies"
SETTLE_S: Final = 0.5
"""Longest wait for a peer to have a change."""
SLOW_S: Final = 0.1
"""A failure that took longer is one that others are spared."""
REST_S: Final = 5.0
"""How long a peer that did not answer is not waited for."""

log = logging.getLogger(__name__)
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[str, int]).decode


class Copies:
    """See the module. `heard(writer, number)` waits until this node's copies have what a writer's notice was about."""

    def __init__(self, peers: Peers, heard: Callable[[str, int], Awaitable[None]], now: Callable[[], float]) -> None:
        """`now` counts seconds."""
        self._peers = peers
        self._heard = heard
        self._now = now
        self._resting: dict[str, float] = {}
        """Until when nodes are not waited for."""

    def serve(self, handle: Handle) -> None:
        """Answer peers."""
        handle(COPIES, self._answer)

    async def settle(self, writer: str, number: int) -> None:
        """Wait until the others have a notice of this node's."""
        now = self._now()
        self._resting = {node: until for node, until in self._resting.items() if until > now}
        asked = [node for node in self._peers.others() if node not in self._resting]
        if asked:
            payload = _encode((writer, number))
            await asyncio.gather(*(self._ask(node, payload) for node in asked))

    async def _ask(self, node: str, payload: bytes) -> None:
        began = self._now()
        try:
            await self._peers.call(node, COPIES, payload, SETTLE_S)
        except (PeerUnavailable, PeerError) as error:
            if self._now() - began > SLOW_S:
                self._resting[node] = self._now() + REST_S
            log.warning("%s may know of a change a little later: %s", node, error)

    async def _answer(self, node: str, payload: bytes) -> bytes:
        writer, number = _decode(payload)
        async with asyncio.timeout(SETTLE_S):
            await self._heard(writer, number)
        return b""
