"""Redis with Sentinel: what can be rebuilt or leased again lies here. One server and one Sentinel in each zone."""

from pathlib import Path

from lab import probe
from lab.hosts import Service
from lab.plan import REDIS_PORT, SENTINEL_PORT, Plan, Zone
from lab.system import program

MASTER = "trunkline"
"""Name of the group, as Sentinel knows it."""
DOWN_AFTER_MS = 1000
"""Silence after which a Sentinel takes a server for dead."""
FAILOVER_MS = 5000
QUORUM = 2
START = """
manifest="$1/appendonlydir/appendonly.aof.manifest"
[ ! -f "$manifest" ] || yes | redis-check-aof --fix "$manifest"
exec redis-server "$1/redis.conf"
"""
"""After a power loss the end of the journal may be garbage, with which Redis does not start. What it held is
not missed: replicas and nodes have it, or nobody does."""


def services(plan: Plan, zone: Zone, folder: Path, first: Zone) -> tuple[Service, Service]:
    """Server and Sentinel of a zone, with their configuration. Both write into it, so what is there is kept. `first`:
    the zone of the primary."""
    server, sentinel = folder / "redis", folder / "sentinel"
    if not server.exists():
        for made in (server, sentinel):
            made.mkdir()
        follow = f"replicaof {first.store} {REDIS_PORT}\n" if zone != first else ""
        (server / "redis.conf").write_text(
            f"bind {zone.store}\nport {REDIS_PORT}\ndir {server}\nprotected-mode no\ndaemonize no\n"
            'appendonly yes\nappendfsync everysec\nsave ""\nmaxmemory 128mb\nmaxmemory-policy noeviction\n'
            "min-replicas-to-write 1\nmin-replicas-max-lag 2\nrepl-ping-replica-period 1\nrepl-timeout 5\n"
            f"replica-announce-ip {zone.store}\nrepl-diskless-sync-delay 0\n{follow}"
        )
        (sentinel / "sentinel.conf").write_text(
            f"bind {zone.store}\nport {SENTINEL_PORT}\ndir {sentinel}\nprotected-mode no\ndaemonize no\n"
            f"sentinel announce-ip {zone.store}\nsentinel monitor {MASTER} {first.store} {REDIS_PORT} {QUORUM}\n"
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {MASTER} {FAILOVER_MS}\nsentinel parallel-syncs {MASTER} 2\n"
        )
    return (
        Service(
            name="redis",
            kind="redis",
            command=("sh", "-c", START, "redis", str(server)),
            ready=lambda: probe.pings(zone.store, REDIS_PORT),
        ),
        Service(
            name="sentinel", kind="sentinel",
            command=(program("redis-sentinel") or "redis-sentinel", str(sentinel / "sentinel.conf")),
            ready=lambda: probe.pings(zone.store, SENTINEL_PORT),
        ),
    )  # fmt: skip


def primary(plan: Plan) -> Zone | None:
    """The zone of the server that most Sentinels take for the primary."""
    votes: dict[str, int] = {}
    for zone in plan.zones:
        try:
            found = probe.redis(zone.store, SENTINEL_PORT, "SENTINEL", "get-master-addr-by-name", MASTER)
        except (OSError, ValueError):
            continue
        if found:
            votes[found[0]] = votes.get(found[0], 0) + 1
    best = max(votes, key=lambda address: votes[address], default="")
    return next((zone for zone in plan.zones if zone.store == best), None)


def whole(plan: Plan) -> bool:
    """Whether the primary has two replicas, and its Sentinel knows both others."""
    zone = primary(plan)
    if zone is None:
        return False
    try:
        replicas = probe.redis(zone.store, REDIS_PORT, "ROLE")[2]
        others = probe.redis(zone.store, SENTINEL_PORT, "SENTINEL", "sentinels", MASTER)
    except (OSError, ValueError, IndexError, TypeError):
        return False
    return len(replicas) == len(others) == len(plan.zones) - 1
