"""etcd, in which Patroni keeps who leads: one member in each zone."""

from pathlib import Path

from lab.hosts import Service
from lab.plan import ETCD_PEER_PORT, ETCD_PORT, Plan, Zone
from lab.probe import answers_http
from lab.system import program

HEARTBEAT_MS = 100
ELECTION_MS = 1000


def service(plan: Plan, zone: Zone, folder: Path) -> Service:
    """The member of a zone."""
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
        "initial-cluster-state": "new",
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
