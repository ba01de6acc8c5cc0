"""A second region beside the lab's first: one host of engines, one node. Its PostgreSQL is a standby cluster of
Patroni's, with an etcd of its own; its node waits to be promoted.

It is added to a lab that runs, as an operator would add it: the nodes of the first region learn of it by a restart.
"""

import json
import shlex
import shutil
import sys
import time
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
PROMOTE = ("edit-config", "--force", "-s", "standby_cluster=null")


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
        file = host.folder / cluster.name / "patroni.yml"
        single(file)
        following(self.plan, cluster, file)
        host.start("etcd", "redis")
        host.until_ready("etcd", "redis")
        host.start("sentinel", cluster.name)
        self._until(
            lambda: probe.answers_http(TWO.store, cluster.rest, "/standby-leader"), "region two follows", WAIT_S
        )

    def _nodes(self) -> None:
        say("both regions' nodes learn of each other")
        promote = " ".join(self.patronictl(TWO.region, *PROMOTE))
        self.second.put(node.service(self.two, TWO, self.second.folder))
        settings = self.second.folder / "trunkline.toml"
        settings.write_text(alone(settings.read_text()) + regions(self.plan, FIRST, promote))
        for zone in self.nodes:
            own = self.node(zone).folder / "trunkline.toml"
            own.write_text(own.read_text() + regions(self.two, TWO.region, " ".join(self.patronictl(FIRST, *PROMOTE))))
            self.node(zone).stop()
            self._until(partial(up, self.node(zone)), f"the node in {zone.name}", WAIT_S)
        self.second.start()
        self._until(lambda: probe.answers_http(TWO.node, 8080, "/healthz"), "region two's node waits", WAIT_S)
        outer = self.hosts[OUT]
        outer.put(outside.edge((*self.nodes, TWO), outer.folder, "/readyz"))
        outer.stop("edge")
        outer.start("edge")
        outer.until_ready("edge")

    def patronictl(self, region: str, *words: str) -> tuple[str, ...]:
        """The command, as an operator of that region types it."""
        (cluster,) = self.plan.clusters
        host = self.store(self.plan.zones[0]) if region == FIRST else self.second_store
        return str(self._patroni.parent / "patronictl"), "-c", str(host.folder / cluster.name / "patroni.yml"), *words

    def trunkline(self, *words: str, region: str = TWO.region, check: bool = True) -> str:
        """A command on a node of a region. Raises Failed."""
        host = self.second if region == TWO.region else self.node(self.nodes[0])
        command = (sys.executable, "-m", "trunkline", "--config", str(host.folder / "trunkline.toml"), *words)
        return run(*in_network(host.namespace, command), check=check, timeout_s=COMMAND_S)

    def follow(self, region: str) -> float:
        """Make a region's databases standbys of the other one's, as docs/howto/regions.md says: anew. Seconds that it
        took. Raises Failed."""
        began, (cluster,) = time.monotonic(), self.plan.clusters
        plan, other = (self.plan, self.two) if region == FIRST else (self.two, self.plan)
        hosts = [self.store(zone) for zone in plan.zones] if region == FIRST else [self.second_store]
        for host in hosts:
            host.stop(cluster.name)
            shutil.rmtree(host.folder / cluster.name / "data", ignore_errors=True)
            following(other, cluster, host.folder / cluster.name / "patroni.yml")
        scope = f"{plan.name}-{cluster.name}"
        remove = shlex.join(self.patronictl(region, "remove", scope))
        run(*in_network(hosts[0].namespace, ("sh", "-c", f"printf '%s\\n' {scope} 'Yes I am aware' | {remove}")))
        for host in hosts:
            host.start(cluster.name)
        deadline = began + WAIT_S
        while not streaming(plan, cluster, len(hosts)):
            if time.monotonic() > deadline:
                raise Failed(f"region {region} does not follow: {patroni.members(plan, cluster)}")
            time.sleep(0.5)
        return round(time.monotonic() - began, 1)

    def cut(self) -> None:
        """The line between the regions breaks; each goes on."""
        self.network.part(self.second_store.name, zone_network(TWO.octet))
        self.network.part(self.second.name, zone_network(TWO.octet))

    def join(self) -> None:
        """The line is whole again."""
        self.network.heal(self.second_store.name)
        self.network.heal(self.second.name)

    def hide(self) -> None:
        """The first region's nodes lose the object store: another folder lies over it, for them alone."""
        empty = self.plan.run / "empty"
        empty.mkdir(exist_ok=True)
        for zone in self.nodes:
            self._mounts(zone, "mount", "--bind", str(empty), str(self.plan.run / "objects"))

    def show(self) -> None:
        """They find it again."""
        for zone in self.nodes:
            self._mounts(zone, "umount", str(self.plan.run / "objects"))

    def _mounts(self, zone: Zone, *command: str) -> None:
        run("nsenter", "-t", self.node(zone).pid("trunkline"), "--mount", "--", *command)


def streaming(plan: Plan, cluster: Cluster, count: int) -> bool:
    """Whether all servers of a region follow, one of them the other region's."""
    found = patroni.members(plan, cluster)
    leads = any(one["role"] == "standby_leader" for one in found)
    return leads and sum(one["state"] == "streaming" for one in found) == count


def up(host: Host) -> bool:
    """Whether a node takes work; one that has ended is started again, as systemd would."""
    host.start("trunkline")
    ready = host.services["trunkline"].ready
    return ready is not None and ready()


def following(other: Plan, cluster: Cluster, file: Path) -> None:
    """Make of a server's configuration that of a member of a cluster that follows another region's."""
    found = json.loads(file.read_text())
    found["bootstrap"]["dcs"]["standby_cluster"] = {
        "host": ",".join(zone.store for zone in other.zones), "port": cluster.port,
        "create_replica_methods": ["basebackup"],
    }  # fmt: skip
    found["postgresql"]["basebackup"] = [{"checkpoint": "fast"}]  # else it waits for the primary's next one, minutes
    file.write_text(json.dumps(found, indent=1))


def single(file: Path) -> None:
    """The same of the only member of a cluster: there is nobody else to wait for."""
    found = json.loads(file.read_text())
    for name in ("synchronous_mode", "synchronous_mode_strict", "synchronous_node_count"):
        found["bootstrap"]["dcs"].pop(name)
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
