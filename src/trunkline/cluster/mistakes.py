"""What an operator gets wrong about a cluster, found by asking: wall clocks that differ, another secret, one zone label
for all, one zone with more nodes than the others can do without.

Leases do not depend on wall clocks; records, SIDs' times and schedules do.
"""

import asyncio
import struct
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, Protocol

from trunkline.cluster.peers import PeerError, PeerUnavailable
from trunkline.cluster.peers_link import REFUSED
from trunkline.cluster.records import NodeRecord
from trunkline.cluster.votes import takeover_quorum

CLOCK: Final = "clock"
MAX_SKEW_S: Final = 1.0
ASK_S: Final = 2.0
PROOFS: Final = 3
"""Times that a node must refuse the secret: one that just ends closes its connections as well."""
BETWEEN_PROOFS_S: Final = 0.4
PROOF_S: Final = 1.0
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
    """What is wrong between this node and each of the members, one line each; empty: nothing."""
    found: list[str] = []
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


async def check_secret(peers: Peers, me: str, nodes: Sequence[NodeRecord]) -> None:
    """Raises ValueError, in one line, when another member has another secret. Who cannot be reached is not waited for
    longer than PROOF_S."""
    others = [node.name for node in nodes if node.name != me]
    for name, refused in zip(others, await asyncio.gather(*(_is_refused(peers, name) for name in others)), strict=True):
        if refused:
            raise ValueError(f"cluster.secret: node {name} has another one; it must be the same on each node")


async def _is_refused(peers: Peers, node: str) -> bool:
    for proof in range(PROOFS):
        try:
            await peers.call(node, CLOCK, b"", PROOF_S)
        except PeerError:
            return False
        except PeerUnavailable as error:
            if REFUSED not in str(error):
                return False
        else:
            return False
        if proof < PROOFS - 1:
            await asyncio.sleep(BETWEEN_PROOFS_S)
    return True


def label_problems(nodes: Sequence[NodeRecord]) -> Iterator[str]:
    """What the members' labels show."""
    zones = {node.zone for node in nodes}
    if len(nodes) > 1 and len(zones) == 1:
        zone = next(iter(zones))
        said = f"zone {zone}" if zone else "no zone"
        yield f"node.zone: all {len(nodes)} nodes say {said}; nothing tells which of them fail together"
    yield from _crowded_zones(nodes)
    addresses: dict[str, str] = {}
    for node in sorted(nodes, key=lambda node: node.name):
        if node.address and node.address in addresses:
            yield f"node.address: {addresses[node.address]} and {node.name} both say {node.address}; each needs its own"
        addresses.setdefault(node.address, node.name)


def _crowded_zones(nodes: Sequence[NodeRecord]) -> Iterator[str]:
    """Zones whose loss leaves fewer nodes than must consent to a takeover (trunkline.cluster.votes)."""
    needed = takeover_quorum(len(nodes) - 1)
    labels = Counter((node.region, node.zone) for node in nodes)
    for (_, zone), count in sorted(labels.items()):
        if count < len(nodes) and len(nodes) - count < needed:
            yield (
                f"node.zone: {count} of {len(nodes)} nodes say {zone or 'no zone'}; if that is lost, the others must"
                " wait 30 s before they take over: spread them evenly"
            )
