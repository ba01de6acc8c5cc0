"""A second region beside the lab's first: one host of engines, one node. Its PostgreSQL is a standby cluster of
Patroni's, with an etcd of its own; its node waits to be promoted.

It is added to a lab that runs, as an operator would add it: the nodes of the first region learn of it by a restart.
"""

import json
import sys
from functools import cached_property, partial
from pathlib import Path

from lab import etcd, node, outside, patroni, probe, redis
from lab.cluster import OUT, Lab, say
from lab.hosts import Host
from lab.network import zone_network
from lab.plan import ETCD_PORT, Cluster, Plan, Zone
from lab.system import Failed, in_network, run

TWO = Zone("r", "two", 9)
"""The only zone of the second region."""
FIRST = "one"
WAIT_S = 180.0
COMMAND_S = 240.0
ALONE_S = 10


class RegionPlan(Plan, frozen=True, kw_only=True):
    """The second region, as the first one's plan describes itself."""

    @property
    def zones(self) -> tuple[Zone, ...]:
        return (TWO,)

    @property
    def clusters(self) -> tuple[Cluster, ...]:
        return tuple(one._replace(first=TWO.name) for one in super().clusters)


def regions(plan: Plan, name: str, promote: str) -> str:
    """What a node's settings say of the other region `name`."""
    queues = [plan.dsn(cluster, "queue") for cluster in plan.clusters if "queue" in cluster.databases]
    (records,) = [cluster for cluster in plan.clusters if "records" in cluster.databases]
    return (
        f"\n[region]\nalone_s = {ALONE_S}\npromote_command = {json.dumps(promote)}\n"
        f"\n[[regions]]\nname = {json.dumps(name)}\nqueue = {json.dumps(queues)}\n"
        f"database = {json.dumps(plan.dsn(records, 'records'))}\n"
    )


class RegionLab(Lab):
    """`with RegionLab(plan) as lab`: two regions. `plan.own_database` is false: one PostgreSQL cluster in each."""

    @cached_property
    def two(self) -> RegionPlan:
        """The second region's plan."""
        own = self.plan
        return RegionPlan(
            name=own.name, home=own.home, queues=1, own_database=False, nodes=2, lease_s=own.lease_s, disks=False
        )  # nodes=2: what a node of several needs

    @property
    def second(self) -> Host:
        """The host of the second region's node."""
        return self.hosts[f"{TWO.name}-node"]

    @property
    def second_store(self) -> Host:
        """The host of its engines."""
        return self.hosts[f"{TWO.name}-store"]

    def first_hosts(self) -> list[Host]:
        """All of the first region."""
        return [host for zone in self.plan.zones for host in self.zone(zone.name)]

    def _make(self) -> None:
        super()._make()
        self._host(f"{TWO.name}-store", TWO.name, TWO.store)
        self._host(f"{TWO.name}-node", TWO.name, TWO.node)

    def _remove(self) -> None:
        host = self.hosts.get(f"{TWO.name}-node")
        if host is not None:
            host.stop()
        super()._remove()

    def _start(self) -> None:
        super()._start()
        self._engines()
        self._nodes()

    def _engines(self) -> None:
        say("region two: etcd, Redis, PostgreSQL")
        host, plan = self.second_store, self.two
        host.put(etcd.service(plan, TWO, host.folder))
        for server in redis.services(plan, TWO, host.folder):
            host.put(server)
        config = host.folder / "redis/redis.conf"
        config.write_text(config.read_text().replace("min-replicas-to-write 1", "min-replicas-to-write 0"))
        (cluster,) = plan.clusters
        host.put(patroni.service(plan, cluster, TWO, host.folder, self._programs, self._patroni))
        follow(self.plan, plan, cluster, host.folder / cluster.name / "patroni.yml")
        host.start("etcd", "redis")
        host.until_ready("etcd", "redis")
        host.start("sentinel", cluster.name)
        self._until(
            lambda: probe.answers_http(TWO.store, cluster.rest, "/standby-leader"), "region two follows", WAIT_S
        )

    def _nodes(self) -> None:
        say("both regions' nodes learn of each other")
        (cluster,) = self.two.clusters
        file = self.second_store.folder / cluster.name / "patroni.yml"
        # Patroni's API takes the same; the command is what an operator would type.
        promote = f"{self._patroni.parent / 'patronictl'} -c {file} edit-config --force -s standby_cluster=null"
        self.second.put(node.service(self.two, TWO, self.second.folder))
        settings = self.second.folder / "trunkline.toml"
        settings.write_text(alone(settings.read_text()) + regions(self.plan, FIRST, promote))
        for zone in self.nodes:
            own = self.node(zone).folder / "trunkline.toml"
            own.write_text(own.read_text() + regions(self.two, TWO.region, ""))
            self.node(zone).stop()
            self._until(partial(up, self.node(zone)), f"the node in {zone.name}", WAIT_S)
        self.second.start()
        self._until(lambda: probe.answers_http(TWO.node, 8080, "/healthz"), "region two's node waits", WAIT_S)
        outer = self.hosts[OUT]
        outer.put(outside.edge((*self.nodes, TWO), outer.folder, "/readyz"))
        outer.stop("edge")
        outer.start("edge")
        outer.until_ready("edge")

    def trunkline(self, *words: str, check: bool = True) -> str:
        """A command on the second region's node. Raises Failed."""
        file = self.second.folder / "trunkline.toml"
        command = (sys.executable, "-m", "trunkline", "--config", str(file), *words)
        return run(*in_network(self.second.namespace, command), check=check, timeout_s=COMMAND_S)

    def cut(self) -> None:
        """The line between the regions breaks; each goes on."""
        self.network.part(self.second_store.name, zone_network(TWO.octet))
        self.network.part(self.second.name, zone_network(TWO.octet))

    def join(self) -> None:
        """The line is whole again."""
        self.network.heal(self.second_store.name)
        self.network.heal(self.second.name)


def up(host: Host) -> bool:
    """Whether a node takes work; one that has ended is started again, as systemd would."""
    host.start("trunkline")
    ready = host.services["trunkline"].ready
    return ready is not None and ready()


def follow(one: Plan, two: RegionPlan, cluster: Cluster, file: Path) -> None:
    """Make of a server's configuration that of the only member of a standby cluster."""
    found = json.loads(file.read_text())
    dynamic = found["bootstrap"]["dcs"]
    dynamic["standby_cluster"] = {
        "host": ",".join(zone.store for zone in one.zones), "port": cluster.port,
        "create_replica_methods": ["basebackup"],
    }  # fmt: skip
    found["postgresql"]["basebackup"] = [{"checkpoint": "fast"}]  # else it waits for the primary's next one, minutes
    for name in ("synchronous_mode", "synchronous_mode_strict", "synchronous_node_count"):
        dynamic.pop(name)  # there is nobody else to wait for
    assert found["etcd3"]["hosts"] == [f"{TWO.store}:{ETCD_PORT}"]
    file.write_text(json.dumps(found, indent=1))


def alone(settings: str) -> str:
    """A node's settings, for engines of which there is one each."""
    lines, section = [], ""
    for line in settings.splitlines():
        section = line if line.startswith("[") else section
        if line.startswith("survives") and section in ("[storage]", "[memory]"):
            line = f'survives = "{"power" if section == "[storage]" else "process"}"'
        lines.append(line)
    return "\n".join(lines) + "\n"


def old_primary(lab: RegionLab) -> Zone:
    """Start the first region's engines again, nodes excepted, and wait for a primary. Raises Failed."""
    for zone in lab.plan.zones:
        lab.store(zone).start()
    (cluster,) = lab.plan.clusters
    lab._until(lambda: patroni.primary(lab.plan, cluster) is not None, "the first region's databases", WAIT_S)
    found = patroni.primary(lab.plan, cluster)
    if found is None:
        raise Failed("the first region's databases have no primary")
    return found
