"""PostgreSQL under Patroni: quorum-synchronous, strict: a commit is on another zone's disk, or does not return."""

import json
import os
from http.client import HTTPException
from pathlib import Path
from typing import Any

from lab import probe
from lab.hosts import Service
from lab.plan import ETCD_PORT, NETWORK, Cluster, Plan, Zone
from lab.system import run

USER = "postgres"
"""PostgreSQL refuses to run as root."""
TTL_S = 20
"""Patroni's least: how long after the primary's host vanished another one takes over, at the latest."""
LOOP_S, RETRY_S = 5, 5
PARAMETERS = {
    "wal_level": "replica",
    "hot_standby": "on",
    "max_connections": 60,
    "max_worker_processes": 4,
    "max_wal_senders": 6,
    "max_replication_slots": 6,
    "shared_buffers": "16MB",
    "max_wal_size": "128MB",
    "min_wal_size": "32MB",
    "wal_keep_size": "64MB",
    "wal_log_hints": "on",
    "synchronous_commit": "on",
    "fsync": "on",
    "full_page_writes": "on",
    "tcp_keepalives_idle": 5,
    "tcp_keepalives_interval": 2,
    "tcp_keepalives_count": 3,
    "wal_sender_timeout": "5s",
    "wal_receiver_timeout": "5s",
    "huge_pages": "off",
}
"""A small server; on real machines leave out the sizes."""


SYNCHRONOUS = ("quorum_standby", "sync_standby")


def configuration(plan: Plan, cluster: Cluster, zone: Zone, folder: Path, programs: Path) -> dict[str, Any]:
    """patroni.yml of one server, as data (JSON is YAML)."""
    data = folder / cluster.name
    dynamic: dict[str, Any] = {
        "ttl": TTL_S,
        "loop_wait": LOOP_S,
        "retry_timeout": RETRY_S,
        "maximum_lag_on_failover": 1 << 20,
        "primary_start_timeout": 0,
        "synchronous_mode": "quorum",
        "synchronous_mode_strict": True,
        "synchronous_node_count": 1,
        "postgresql": {"use_pg_rewind": True, "use_slots": True, "parameters": PARAMETERS},
    }
    return {
        "scope": f"{plan.name}-{cluster.name}",
        "name": zone.name,
        "log": {"level": "INFO"},
        "restapi": {"listen": f"{zone.store}:{cluster.rest}", "connect_address": f"{zone.store}:{cluster.rest}"},
        "etcd3": {"hosts": [f"{one.store}:{ETCD_PORT}" for one in plan.zones]},
        "bootstrap": {"dcs": dynamic, "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"]},
        "postgresql": {
            "listen": f"{zone.store}:{cluster.port}",
            "connect_address": f"{zone.store}:{cluster.port}",
            "data_dir": str(data / "data"),
            "bin_dir": str(programs),
            "pgpass": str(data / "pgpass"),
            "basebackup": {"checkpoint": "fast"},
            "authentication": {
                "superuser": {"username": "postgres", "password": "lab"},
                "replication": {"username": "replicator", "password": "lab"},
                "rewind": {"username": "rewinder", "password": "lab"},
            },
            "parameters": {"unix_socket_directories": str(data)},
            "pg_hba": [
                "local all all peer",
                f"host replication replicator {NETWORK}.0.0/16 scram-sha-256",
                f"host all all {NETWORK}.0.0/16 scram-sha-256",
            ],
        },
        "tags": {"failover_priority": 2 if zone.name == cluster.first else 1},
    }


def service(plan: Plan, cluster: Cluster, zone: Zone, folder: Path, programs: Path, patroni: Path) -> Service:
    """The server of a cluster in a zone, its configuration written."""
    data = folder / cluster.name
    data.mkdir(parents=True, exist_ok=True)
    file = data / "patroni.yml"
    file.write_text(json.dumps(configuration(plan, cluster, zone, folder, programs), indent=1))
    run("chown", "-R", f"{USER}:{USER}", data)
    os.chmod(data, 0o700)
    return Service(
        name=cluster.name, kind="postgres", command=(str(patroni), str(file)), user=USER,
        environment={"HOME": str(data)},
        ready=lambda: probe.answers_http(zone.store, cluster.rest, "/readiness"),
    )  # fmt: skip


def members(plan: Plan, cluster: Cluster) -> list[dict[str, Any]]:
    """What Patroni says of the cluster's servers, asked of whoever answers first; empty: nobody does."""
    for zone in plan.zones:
        try:
            status, answer = probe.ask(zone.store, cluster.rest, "/cluster")
        except (OSError, HTTPException):
            continue
        if status == 200:
            return list(answer["members"])
    return []


def primary(plan: Plan, cluster: Cluster) -> Zone | None:
    """The zone whose server says that it is the primary now."""
    for zone in plan.zones:
        if probe.answers_http(zone.store, cluster.rest, "/primary"):
            return zone
    return None


def whole(plan: Plan, cluster: Cluster) -> bool:
    """Whether there are a primary and two standbys that follow, of which commits wait for one."""
    found = members(plan, cluster)
    standbys = [one for one in found if one["role"] in SYNCHRONOUS and one["state"] == "streaming"]
    return any(one["role"] == "leader" for one in found) and len(standbys) == len(plan.zones) - 1


def switch_over(plan: Plan, cluster: Cluster, candidate: str = "") -> str:
    """Ask the primary's Patroni to hand over, as `patronictl switchover` does; what it answers."""
    now = primary(plan, cluster)
    if now is None:
        return "no primary"
    asked = {"leader": now.name, **({"candidate": candidate} if candidate else {})}
    body = json.dumps(asked).encode()
    return str(probe.ask(now.store, cluster.rest, "/switchover", method="POST", body=body, timeout_s=40)[1])
