"""What an operator gets wrong about a cluster, found by asking: wall clocks that differ, one zone label for all.

Leases do not depend on wall clocks; records, SIDs' times and schedules do.
"""

import struct
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, Protocol

from trunkline.cluster.peers import PeerError, PeerUnavailable
from trunkline.cluster.records import NodeRecord

CLOCK: Final = "clock"
MAX_SKEW_S: Final = 1.0
ASK_S: Final = 2.0
_TIME: Final = struct.Struct("!Q")


class Peers(Protocol):
    """trunkline.cluster.peers.Peers, as far as it is needed."""

    async def call(self, node: str, kind: str, payload: bytes, timeout_s: float) -> bytes: ...

    def handle(self, kind: str, handler: Callable[[str, bytes], Awaitable[bytes]]) -> None: ...


def serve(peers: Peers, now_ns: Callable[[], int] = time.time_ns) -> None:
    """Tell peers this node's wall clock."""

    async def tell(node: str, payload: bytes) -> bytes:
        return _TIME.pack(now_ns())

    peers.handle(CLOCK, tell)


async def skew_s(peers: Peers, node: str, now_ns: Callable[[], int] = time.time_ns) -> float:
    """By how many seconds a node's wall clock is ahead of this one's, give or take half the time that asking took.
    Raises PeerUnavailable, PeerError."""
    before = now_ns()
    told = await peers.call(node, CLOCK, b"", ASK_S)
    after = now_ns()
    if len(told) != _TIME.size:
        raise PeerError("malformed", "no clock")
    return float(_TIME.unpack(told)[0] - (before + after) // 2) / 1e9


async def problems(
    peers: Peers, me: str, nodes: Sequence[NodeRecord], now_ns: Callable[[], int] = time.time_ns
) -> list[str]:
    """What is wrong among the members, one line each; empty: nothing."""
    found = [*label_problems(nodes)]
    for node in nodes:
        if node.name == me:
            continue
        try:
            ahead = await skew_s(peers, node.name, now_ns)
        except (PeerUnavailable, PeerError) as error:
            found.append(f"node {node.name} does not answer: {error}")
            continue
        if abs(ahead) > MAX_SKEW_S:
            word = "ahead of" if ahead > 0 else "behind"
            found.append(f"node {node.name}: its clock is {abs(ahead):.1f} s {word} this one's; run chrony on each")
    return found


def label_problems(nodes: Sequence[NodeRecord]) -> Iterator[str]:
    """What the members' labels show."""
    zones = {node.zone for node in nodes}
    if len(nodes) > 1 and len(zones) == 1:
        zone = next(iter(zones))
        said = f"zone {zone}" if zone else "no zone"
        yield f"node.zone: all {len(nodes)} nodes say {said}; nothing tells which of them fail together"
    addresses: dict[str, str] = {}
    for node in sorted(nodes, key=lambda node: node.name):
        if node.address and node.address in addresses:
            yield f"node.address: {addresses[node.address]} and {node.name} both say {node.address}; each needs its own"
        addresses.setdefault(node.address, node.name)
