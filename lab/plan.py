"""Which hosts there are, where they lie and what runs on them: data, decided before anything is made."""

from pathlib import Path
from typing import NamedTuple

import msgspec

HOME = Path("/var/tmp/trunkline-lab")
RESULTS = Path(__file__).resolve().parents[1] / "var/lab"
"""Where chaos keeps what it has counted."""
NETWORK = "10.77"
"""First half of all addresses. They exist inside the lab's namespaces only, so that two labs do not meet."""
OUTSIDE = f"{NETWORK}.200"
"""Carriers, customers and phones."""
POSTGRES_PORT = 5432
REST_PORT = 8008
ETCD_PORT, ETCD_PEER_PORT = 2379, 2380
REDIS_PORT, SENTINEL_PORT = 6379, 26379
HTTP_PORT, SIP_PORT, PEER_PORT = 8080, 5060, 7400
DNS_PORT = 53
SMSC_PORT, SMSC_CONTROL_PORT, WEBHOOK_PORT, EDGE_PORT = 2775, 2776, 8000, 80


class Zone(NamedTuple):
    """A zone: one host for the engines, one for the node."""

    name: str
    region: str
    octet: int
    """Third one of its addresses."""

    @property
    def store(self) -> str:
        """Address of the host of PostgreSQL, etcd, Redis and Sentinel."""
        return f"{NETWORK}.{self.octet}.2"

    @property
    def node(self) -> str:
        """Address of the host of the node."""
        return f"{NETWORK}.{self.octet}.1"


class Cluster(NamedTuple):
    """A PostgreSQL cluster under Patroni: one server in each zone."""

    name: str
    offset: int
    """Of its ports."""
    databases: tuple[str, ...]
    first: str
    """The zone whose server is the primary at first."""

    @property
    def port(self) -> int:
        return POSTGRES_PORT + self.offset

    @property
    def rest(self) -> int:
        """Port of Patroni's own API."""
        return REST_PORT + self.offset


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The whole lab."""

    name: str = "tl"
    """Prefix of the namespaces' names; 8 characters at most, as names of links have no more than 15."""
    home: Path = HOME
    queues: int = 2
    """Independent PostgreSQL clusters for the queue."""
    own_database: bool = True
    """Whether the control plane's records have a cluster of their own; else they lie beside the first queue."""
    nodes: int = 3
    lease_s: float = 1.0
    """`cluster.lease_s` of the nodes."""
    edge: bool = False
    """Whether phones reach the nodes through the SIP edge alone (docs/howto/sip-edge.md), and are reached by it."""
    disks: bool = False
    """Whether each host has a file system of its own (an image on a loop device), for faults of disks and power."""

    @property
    def folder(self) -> Path:
        return self.home / self.name

    @property
    def run(self) -> Path:
        """What one run writes."""
        return self.folder / "run"

    @property
    def zones(self) -> tuple[Zone, ...]:
        """Three of one region."""
        return tuple(Zone(name, "one", number) for number, name in enumerate("abc", 1))

    @property
    def clusters(self) -> tuple[Cluster, ...]:
        names: list[tuple[str, tuple[str, ...]]] = [("q" + str(index), ("queue",)) for index in range(self.queues)]
        if self.own_database:
            names.append(("db", ("records",)))
        else:
            names[0] = (names[0][0], ("queue", "records"))
        zones = "abc"
        return tuple(
            Cluster(name, index, databases, zones[index % len(zones)]) for index, (name, databases) in enumerate(names)
        )

    def namespace(self, host: str) -> str:
        return f"{self.name}-{host}"

    def dsn(self, cluster: Cluster, database: str) -> str:
        """The connection string of one database, all its servers named."""
        hosts = ",".join(f"{zone.store}:{cluster.port}" for zone in self.zones)
        return f"postgresql://trunkline:lab@{hosts}/{database}"
