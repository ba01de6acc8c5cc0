"""What a node does where the nodes of a cluster have different roles, and who does the rest.

By default every node has all roles, and nothing here comes to anything. Otherwise what is made lies in a partition
whose owner has the role for it (trunkline.cluster.kinds), requests go to such a node, and a node without voice
reads calls but makes none.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Any

from trunkline.api import homes
from trunkline.bootstrap_processes import spool_folder
from trunkline.bootstrap_stores import RECORDING_FOLDER, open_blobs
from trunkline.cluster import placement
from trunkline.cluster.kinds import MESSAGING as MESSAGING
from trunkline.cluster.kinds import VOICE, Kinds, made_by, role_of
from trunkline.cluster.membership import Membership
from trunkline.cluster.ownership import Ownership
from trunkline.cluster.placement import CALLS, MESSAGES, UPKEEP, Thing, has
from trunkline.cluster.records import NodeRecord
from trunkline.model.call import Call
from trunkline.model.errors import ApiError
from trunkline.settings import Settings
from trunkline.settings.cluster import ROLES
from trunkline.settings.connectors import Smpp
from trunkline.storage.sharded import ShardedQueue
from trunkline.voice.calls import Calls
from trunkline.voice.flights import CallFlight, CallFlights
from trunkline.voice.reader import CallReader
from trunkline.voice.recordings import Recordings
from trunkline.voice.steps import Source

if TYPE_CHECKING:
    from trunkline.bootstrap import Node

CONNECTOR, TRUNK, SINGLE = "connector", "trunk", "single"
ARCHIVE = f"{SINGLE}/archive"
"""Rolling up, retention and compaction of what has landed: one node does it."""
NOBODY = "No live node has the role {role}, please try again"


def things(settings: Settings) -> list[Thing]:
    """All that there is to own."""
    own = settings.storage
    found = placement.partitions(own.partitions, max(1, len(own.queue)), settings.cluster.voice_partitions)
    carriers = [one.name for one in settings.connectors if isinstance(one, Smpp)]
    found += [Thing(f"{CONNECTOR}/{name}", "connectors", MESSAGES) for name in carriers]
    found += [Thing(f"{TRUNK}/{one.name}", "trunks", CALLS) for one in settings.trunks if one.register]
    found.append(Thing(ARCHIVE, "singletons", UPKEEP))
    return found


class RoleMap:
    """Who does what, and where what is made lies. Made before the node joins."""

    def __init__(self, settings: Settings, queue: ShardedQueue, membership: Membership, ownership: Ownership) -> None:
        self.mine = settings.node.roles
        self.kinds = Kinds(queue.partitions, settings.cluster.voice_partitions)
        self._queue = queue
        self._membership = membership
        self._ownership = ownership
        self._everything = set(self.mine) == set(ROLES)
        queue.voice_partitions = self.kinds.voice
        queue.home_of = self.kinds.home

    def shard_for_new(self, prefix: str) -> int:
        """Where what is made now lies, by its SID's two letters: at its key's home, or in any partition of this node's
        that is for it and takes writes."""
        role = role_of(prefix)
        home = homes.HOME.get()
        if home is not None:
            partition = home % self.kinds.partitions
            if partition in self._queue.owned and self.kinds.fits(partition, role):
                return home
        return self._queue.shard_for_new(role == VOICE)

    def can_begin_calls(self) -> bool:
        """Whether this node owns a partition for calls."""
        owned = self._queue.owned
        return bool(owned) and (not self.kinds.voice or any(self.kinds.fits(one, VOICE) for one in owned))

    def spare_shard(self, path: str) -> int | None:
        """A shard of another node for what a POST to `path` makes; None: it is made here."""
        owned = self._queue.owned
        if self._everything and owned and not self.kinds.voice:
            return None
        role = made_by(path)
        does = has(self.mine, (role,) if role else ())
        if does and any(self.kinds.fits(one, role) for one in owned):
            return None
        fitting = self.kinds.of(role)
        held = [one for one in fitting if self._can(self._ownership.owner_of(one), role)]
        if held:
            return random.choice(held)
        return None if does else random.choice(fitting)

    def _can(self, node: str | None, role: str) -> bool:
        if node is None or node == self._membership.name:
            return False
        record = self._membership.view.nodes.get(node)
        return not role or record is None or has(record.roles, (role,))

    def lacks(self, path: str) -> str:
        """The role that a POST to `path` needs and no live node has; empty: all is well."""
        if self._everything:
            return ""
        role = made_by(path)
        return "" if not role or role in self.mine or self.with_role(role) else role

    def with_role(self, role: str) -> list[str]:
        """The other live nodes that have a role. While the store is away nobody's renewals are seen, and nobody is
        silent."""
        membership = self._membership
        return [
            name
            for name, record in membership.view.nodes.items()
            if name != membership.name
            and has(record.roles, (role,))
            and (membership.away or not membership.silent(name))
        ]

    def check(self) -> None:
        """Whether all nodes agree on where calls lie. Raises ValueError, one line."""
        for record in self._membership.view.nodes.values():
            if record.voice_partitions != self.kinds.voice:
                raise ValueError(
                    f"cluster.voice_partitions is {self.kinds.voice} here and {record.voice_partitions} at node "
                    f"{record.name}; it must be the same on each"
                )


def missing_roles(nodes: Iterable[NodeRecord]) -> list[str]:
    """Roles that nobody has."""
    found = list(nodes)
    return [role for role in ROLES if not any(has(one.roles, (role,)) for one in found)]


# -- calls at a node that has none -----------------------------------------------------------------------------------


class NoPlacing:
    """`trunkline.voice.calls.Placing` of a node without voice: requests that make calls are answered elsewhere."""

    def check_route(self, call: Call) -> None:
        """Never. Raises ApiError 20503."""
        raise ApiError.of(20503, message=NOBODY.format(role=VOICE), headers=(("Retry-After", "1"),))

    def emergency(self, text: str, caller: str) -> str:
        """None."""
        return ""

    def reserve(self, account: str, to: str = "") -> bool:
        """Never."""
        return False

    def enqueue(self, flight: CallFlight, written: Awaitable[Any]) -> None:
        """Never called: `check_route` comes before it."""

    def cancel(self, flight: CallFlight) -> bool:
        """Nothing waits here."""
        return False

    def take_over(self, sid: str, to: Source) -> bool:
        """Nothing runs here."""
        return False


def reading_calls(node: Node) -> Calls | None:
    """What a node without voice shows of calls and recordings; None where all nodes are without."""
    settings = node.settings
    if node.cluster is None or VOICE in settings.node.roles:
        return None
    most = settings.media.recording_bytes
    blobs = open_blobs(settings, RECORDING_FOLDER, most, most)
    recordings = Recordings(
        settings, node.database, node.queue, blobs, spool_folder(settings), node.clock, lambda: node.base_url
    )
    return Calls(
        settings, CallFlights(node.queue, node.clock), CallReader(node.queue, node.archive), NoPlacing(), recordings,
        node.directory, node.archive, node.database, node.alerts, node.secrets, lambda sid: None,
    )  # fmt: skip
