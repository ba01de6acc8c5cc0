"""What membership believes, tells and needs."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import msgspec

from trunkline.cluster.records import ClusterMap, NodeRecord
from trunkline.cluster.votes import HOLD_ALL_S, HOLD_LIMIT_S

STEP_SHARE: Final = 0.25
"""Longest wait for the store or the peers in one step, as a part of the lease."""


class NameTaken(Exception):
    """Another process is alive under this node's name; one line for the operator."""


class Expelled(Exception):
    """This node's life is over: it was called lost, or cannot show that it was not."""


class Peers(Protocol):
    """trunkline.cluster.peers.Peers, as far as it is needed."""

    async def call(self, node: str, kind: str, payload: bytes, timeout_s: float) -> bytes: ...

    def handle(self, kind: str, handler: Callable[[str, bytes], Awaitable[bytes]]) -> None: ...

    def know(self, addresses: Mapping[str, str]) -> None: ...


class View(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster as this node believes it to be."""

    map: ClusterMap = ClusterMap()
    nodes: Mapping[str, NodeRecord] = {}
    """The members' records, this node's own included."""


class Listener:
    """What happens to members; override what is of interest. Called in order, must not raise."""

    def joined(self, member: NodeRecord) -> None:
        """A member that was not there before, or in a new epoch."""

    def left(self, member: NodeRecord) -> None:
        """It went in order."""

    def lost(self, member: NodeRecord) -> None:
        """It died or cannot be reached; what it owned belongs to its heir now. Once in an epoch."""

    def changed(self, view: View) -> None:
        """The map, or who is there, is another one."""

    def expelled(self) -> None:
        """This node owns nothing any more; it will join again."""


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How long a lease is and what follows from it; seconds."""

    lease_s: float = 1.0
    hold_limit_s: float = HOLD_LIMIT_S
    hold_all_s: float = HOLD_ALL_S
    patience: float = 1.0
    """Leases that others wait before they call a node lost. 1 is right: less is unsafe, more is slow."""

    @property
    def ttl_ms(self) -> float:
        return self.lease_s * 1000

    @property
    def ttl_ns(self) -> int:
        return int(self.lease_s * 1e9)

    @property
    def step_s(self) -> float:
        return self.lease_s * STEP_SHARE
