"""How a part of a node tells the others of a cluster something."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

Handle = Callable[[str, Callable[[str, bytes], Awaitable[bytes]]], None]
"""Takes a kind of message, and what answers it to a node."""

log = logging.getLogger(__name__)


class Peers(Protocol):
    """The way to the other nodes (trunkline.bootstrap_cluster)."""

    def others(self) -> Iterable[str]:
        """The other live nodes."""

    def call(self, node: str, kind: str, payload: bytes, timeout_s: float) -> Awaitable[bytes]:
        """`trunkline.cluster.peers.Peers.call`."""


async def tell_all(peers: Peers, kind: str, payload: bytes, timeout_s: float) -> None:
    """Tell every peer; those that cannot be told miss it."""
    told = [peers.call(node, kind, payload, timeout_s) for node in peers.others()]
    await asyncio.gather(*told, return_exceptions=True)


async def keep_telling(tell: Callable[[], Awaitable[None]], every_s: float, what: str) -> None:
    """Tell again and again until cancelled; what fails is told at the next turn."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await tell()
        except Exception:
            log.exception("%s could not be told; they are in %g s", what, every_s)
