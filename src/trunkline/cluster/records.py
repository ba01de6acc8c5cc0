"""What the cluster keeps in the MemoryStore, as msgpack.

    node/<name>    NodeRecord  the node's lease: counted up with each renewal, by compare-and-set of its whole value
    epoch/<name>   integer     the last epoch given to that name
    cluster/map    ClusterMap  who is a member, who owns what: one value, so that every change of it is atomic

None has a time to live: a store's clock decides nothing (see trunkline.cluster.membership).
"""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

MAP_KEY: Final = "cluster/map"
MAX_MEMBERS: Final = 64
"""Nodes of one cluster."""


def node_key(name: str) -> str:
    """Where a node's record lies."""
    return f"node/{name}"


def epoch_key(name: str) -> str:
    """Where the last epoch of a name lies."""
    return f"epoch/{name}"


class NodeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A node as the others see it."""

    name: str
    zone: str = ""
    region: str = ""
    address: str = ""
    """Where its peers reach it, `host:port`."""
    http: str = ""
    """Where its API is reached."""
    sip: str = ""
    """Where its SIP is reached, `host:port`."""
    epoch: int = 0
    """Counts the lives of this name up."""
    seq: int = 0
    """Counts the renewals of this life up."""
    run: str = ""
    """Random, of this process."""
    place: str = ""
    """Names the one data folder of the node; see Membership's `alone_here`."""
    state: Literal["live", "lost", "left"] = "live"
    view: Mapping[str, int] = {}
    """The other members and their epochs, as this renewal knows them: they may vote on this node."""
    heir: str = ""
    """Who gets what this node owns when it dies."""
    started_ms: int = 0
    roles: tuple[str, ...] = ()
    """What it does, of `trunkline.cluster.placement.ROLES`; empty: everything."""
    voice_partitions: int = 0
    """As its settings have it: all nodes must agree."""


class Owner(msgspec.Struct, frozen=True, array_like=True):
    """Who owns a thing."""

    node: str
    epoch: int
    former: str = ""
    """The dead node it was inherited from; empty: claimed, or handed over."""


class ClusterMap(msgspec.Struct, frozen=True, kw_only=True):
    """Who is a member, and who owns what."""

    lineage: str = ""
    """Random, of the first version: another one was begun after the store had lost this one."""
    version: int = 0
    """Counts the changes up."""
    restored_ms: int = 0
    """When it was last written back after the store had forgotten it: what changed hands just before may be missing."""
    members: Mapping[str, int] = {}
    """Name -> epoch."""
    things: Mapping[str, Owner] = {}
    """`p/<number>` for partitions; other names as their users choose."""

    def owner(self, thing: str) -> Owner | None:
        """The owner of a thing if he is a member; None: nobody owns it."""
        owner = self.things.get(thing)
        return owner if owner is not None and self.members.get(owner.node) == owner.epoch else None


encode: Final = msgspec.msgpack.Encoder(order="deterministic").encode
_node: Final = msgspec.msgpack.Decoder(NodeRecord).decode
_map: Final = msgspec.msgpack.Decoder(ClusterMap).decode
_epoch: Final = msgspec.msgpack.Decoder(int).decode


def decode_node(value: bytes | None) -> NodeRecord | None:
    """A node's record; None if there is none, or none that can be read."""
    try:
        return None if value is None else _node(value)
    except msgspec.MsgspecError:
        return None


def decode_map(value: bytes | None) -> ClusterMap | None:
    """The map; None if there is none, or none that can be read."""
    try:
        return None if value is None else _map(value)
    except msgspec.MsgspecError:
        return None


def decode_epoch(value: bytes | None) -> int:
    """The last epoch; 0 if there is none."""
    try:
        return 0 if value is None else _epoch(value)
    except msgspec.MsgspecError:
        return 0
