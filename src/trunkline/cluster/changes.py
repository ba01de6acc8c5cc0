"""Changes of the map, as pure functions: a node joins, goes, dies. None: there is nothing to change."""

import msgspec

from trunkline.cluster import placement
from trunkline.cluster.records import MAX_MEMBERS, ClusterMap, NodeRecord, Owner


def with_member(now: ClusterMap, node: NodeRecord) -> ClusterMap | None:
    """The map with a node in its new epoch. What its former life owned and nobody took is its own again."""
    if now.members.get(node.name) == node.epoch or len(now.members) >= MAX_MEMBERS:
        return None
    things = {
        name: Owner(node.name, node.epoch, node.name) if owner.node == node.name else owner
        for name, owner in now.things.items()
    }
    return msgspec.structs.replace(now, members={**now.members, node.name: node.epoch}, things=things)


def without(now: ClusterMap, gone: NodeRecord, heir: str) -> ClusterMap | None:
    """The map without a node, its things in the hands of its heir (if any). None: it is not on it, or lives anew."""
    if now.members.get(gone.name, gone.epoch + 1) > gone.epoch:
        return None
    members = {name: epoch for name, epoch in now.members.items() if name != gone.name}
    inherited = Owner(heir, members[heir], gone.name) if heir in members else None
    things = {
        name: inherited if inherited is not None and owner.node == gone.name else owner
        for name, owner in now.things.items()
        if owner.node != gone.name or inherited is not None
    }
    return msgspec.structs.replace(now, members=members, things=things)


def heir_of(gone: NodeRecord, now: ClusterMap, places: list[placement.Place]) -> str:
    """As the node wrote it before it died, if that one is alive."""
    if gone.heir in now.members:
        return gone.heir
    return placement.heir(gone.name, [one for one in places if one.name in now.members or one.name == gone.name])
