"""etcd, in which Patroni keeps who leads: one member in each zone."""

import json
from http.client import HTTPException
from pathlib import Path
from typing import Any

from lab.hosts import Service
from lab.plan import ETCD_PEER_PORT, ETCD_PORT, Plan, Zone
from lab.probe import answers_http, ask
from lab.system import program

HEARTBEAT_MS = 100
ELECTION_MS = 1000


def replace(plan: Plan, zone: Zone) -> None:
    """Have the members that are left take a new one in the place of a zone's. Raises OSError, HTTPException."""
    left = next(one for one in plan.zones if one != zone)
    members = _ask(left, "list", {})["members"]
    for one in members:
        if one.get("name") == zone.name:
            _ask(left, "remove", {"ID": one["ID"]})
    _ask(left, "add", {"peerURLs": [f"http://{zone.store}:{ETCD_PEER_PORT}"]})


def _ask(zone: Zone, what: str, body: dict[str, object]) -> dict[str, Any]:
    status, found = ask(
        zone.store, ETCD_PORT, f"/v3/cluster/member/{what}", method="POST", body=json.dumps(body).encode()
    )
    if status != 200:
        raise HTTPException(f"etcd: member {what}: {found}")
    return dict(found)


def service(plan: Plan, zone: Zone, folder: Path, *, joins: bool = False) -> Service:
    """The member of a zone; `joins`: one that the others wait for (`replace`)."""
    peers = ",".join(f"{one.name}=http://{one.store}:{ETCD_PEER_PORT}" for one in plan.zones)
    peer, client = f"http://{zone.store}:{ETCD_PEER_PORT}", f"http://{zone.store}:{ETCD_PORT}"
    options = {
        "name": zone.name,
        "data-dir": folder / "etcd",
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "initial-cluster": peers,
        "initial-cluster-token": plan.name,
        "initial-cluster-state": "existing" if joins else "new",
        "heartbeat-interval": HEARTBEAT_MS,
        "election-timeout": ELECTION_MS,
        "auto-compaction-retention": "5m",
        "quota-backend-bytes": 64 * 1024 * 1024,
        "snapshot-count": 5000,
        "logger": "zap",
        "log-level": "warn",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return Service(
        name="etcd", kind="etcd", command=(program("etcd") or "etcd", *words),
        ready=lambda: answers_http(zone.store, ETCD_PORT, "/health"),
    )  # fmt: skip
