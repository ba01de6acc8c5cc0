"""What `trunkline doctor` says of a cluster: its members, their labels and clocks, and what nobody owns."""

import asyncio
from collections.abc import Iterator

from trunkline.cli.common import bootstrap
from trunkline.cli.findings import Finding
from trunkline.cluster import mistakes, records
from trunkline.cluster.peers import Peers
from trunkline.cluster.records import ClusterMap, NodeRecord
from trunkline.settings import Settings
from trunkline.storage.survives import CannotSurvive, Survives
from trunkline.storage.unavailable import StoreUnavailable

NAME = "doctor"
"""As which the doctor calls the nodes; no member, and it owns nothing."""
SECTION = "cluster"


def look_at_cluster(settings: Settings) -> Iterator[Finding]:
    """Who is there, and what is wrong between them."""
    if not settings.cluster.enabled:
        return
    yield from _promises(settings)
    try:
        now, nodes = read(settings)
    except (StoreUnavailable, CannotSurvive) as error:
        yield Finding("bad", SECTION, f"the memory store cannot be asked: {error}")
        return
    if now is None:
        yield Finding("warn", SECTION, "no node has joined yet")
        return
    yield Finding("ok", SECTION, f"{len(nodes)} nodes: {', '.join(f'{one.name} ({one.zone})' for one in nodes)}")
    if len(nodes) < 2:
        yield Finding("warn", SECTION, "one node alone: nobody takes over what it does")
    for role in bootstrap().missing_roles(nodes):
        yield Finding("bad", SECTION, f"no live node has the role {role} (node.roles): what needs it is refused (503)")
    told = {one.voice_partitions for one in nodes} | {settings.cluster.voice_partitions}
    if len(told) > 1:
        yield Finding(
            "bad", "cluster.voice_partitions", f"not the same everywhere: {', '.join(map(str, sorted(told)))}"
        )
    free = [name for name in wanted(settings) if now.owner(name) is None]
    if free:
        yield Finding("bad", SECTION, f"nobody owns {', '.join(free)}")
    if len(nodes) > settings.storage.partitions:
        yield Finding(
            "warn", "storage.partitions", f"{settings.storage.partitions} for {len(nodes)} nodes: some own no part"
        )
    for problem in mistakes.label_problems(_with_own(settings, nodes)):
        yield Finding("warn", SECTION, problem)
    try:
        problems = asyncio.run(_ask(settings, nodes))
    except bootstrap().CannotJoin as error:
        yield Finding("bad", SECTION, str(error))
        return
    for problem in problems:
        yield Finding("warn", SECTION, problem)


def _promises(settings: Settings) -> Iterator[Finding]:
    """Stores that are asked for less than several nodes are there for: they would be lost with one host."""
    for name in ("storage", "memory"):
        asked = getattr(settings, name).survives
        if Survives[asked.upper()] < Survives.HOST:
            yield Finding(
                "warn", f"{name}.survives", f'{asked}: one host lost may take what is kept; say "zone", or "host"'
            )


def _with_own(settings: Settings, nodes: list[NodeRecord]) -> list[NodeRecord]:
    """The members, this node as its settings say now, be it one already or not."""
    own = settings.node
    me = NodeRecord(name=own.name, zone=own.zone, region=own.region, address=own.address)
    return [me, *(one for one in nodes if one.name != own.name)]


def read(settings: Settings) -> tuple[ClusterMap | None, list[NodeRecord]]:
    """The map and its members' records, as the memory store has them. Raises StoreUnavailable, CannotSurvive."""
    stored = dict(bootstrap().peek_memory(settings, "cluster/")) | dict(bootstrap().peek_memory(settings, "node/"))
    now = records.decode_map(stored.get(records.MAP_KEY))
    if now is None:
        return None, []
    found = [records.decode_node(stored.get(records.node_key(name))) for name in sorted(now.members)]
    return now, [one for one in found if one is not None]


def wanted(settings: Settings) -> list[str]:
    """All that there is to own, by these settings."""
    return [thing.name for thing in bootstrap().things(settings)]


async def _ask(settings: Settings, nodes: list[NodeRecord]) -> list[str]:
    peers = Peers(NAME, str(settings.cluster.secret), *bootstrap().tls_contexts(settings))
    peers.know({one.name: one.address for one in nodes})
    try:
        return await mistakes.problems(peers, NAME, nodes)
    finally:
        await peers.close()
