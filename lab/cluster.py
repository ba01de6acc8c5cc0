"""The whole lab: made, started in order, and removed again."""

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType

from lab import etcd, made, node, outside, patroni, redis, sip_edge
from lab.disks import Disk
from lab.hosts import Host
from lab.made import Made
from lab.network import Network
from lab.plan import Cluster, Plan, Zone
from lab.system import Failed, enter, enter_network, need_packages, need_root, undisturbed, version
from lab.system import patroni as install_patroni

WHOLE_S = 180.0
POLL_S = 0.2
SPREAD_S, SPREAD_AGAIN_S = 60.0, 3.0
"""For primaries to be back where they began, and between two tries."""
OUT = "out"
"""The host of what is not ours."""


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class Lab:
    """`with Lab(plan) as lab`: the cluster runs inside. This process lives outside of it, where the customers are."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.hosts: dict[str, Host] = {}
        self.disks: dict[str, Disk] = {}
        self.customer: node.Customer | None = None
        self.version = version()
        self._made = Made(plan.folder)
        self.network = Network(plan.name, self._made)
        self._home = -1

    def __enter__(self) -> "Lab":
        need_root()
        self._programs = need_packages(*(sip_edge.PROGRAMS if self.plan.edge else ()))
        self._patroni = install_patroni(self.plan.home)
        self._made.__enter__()
        try:
            if gone := self._made.remove():
                say(f"removed what an earlier lab had left: {len(gone)} things")
            self._clean()
            self._make()
            self._start()
        except BaseException:
            with undisturbed():
                self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with undisturbed():
            self._remove()

    # -- making and removing ---------------------------------------------------------------------------------------

    def _clean(self) -> None:
        logs, former = self.plan.run / "hosts/log", self.plan.folder / "log.former"
        if logs.exists():
            shutil.rmtree(former, ignore_errors=True)
            logs.rename(former)
        shutil.rmtree(self.plan.run, ignore_errors=True)
        (self.plan.run / "hosts").mkdir(parents=True)
        (self.plan.run / "objects").mkdir()
        for folder in (self.plan.home, self.plan.folder, self.plan.run, self.plan.run / "hosts"):
            folder.chmod(0o755)

    def _make(self) -> None:
        self.network.begin()
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        enter_network(self._host(OUT, "", *outside.ADDRESSES).namespace)
        for name, address in sip_edge.HOSTS.items() if self.plan.edge else ():
            self._host(name, "", address)
        for zone in self.plan.zones:
            self._host(f"{zone.name}-store", zone.name, zone.store)
            self._host(f"{zone.name}-node", zone.name, zone.node)

    def _host(self, name: str, zone: str, *addresses: str) -> Host:
        folder = self.plan.run / "hosts" / name
        space = self.network.add(name, *addresses)
        folder.mkdir(parents=True)
        if self.plan.disks and zone:
            self.disks[name] = Disk(self.plan.run / "disks" / f"{name}.img", folder, self._made)
            self.disks[name].make()
        folder.chmod(0o755)
        host = self.hosts[name] = Host(name, zone, space, addresses[0], folder, self._made)
        return host

    def _remove(self) -> None:
        self._made.quicken()
        for zone in self.plan.zones:
            host = self.hosts.get(f"{zone.name}-node")
            if host and not host.paused:
                host.stop()
        if self._home >= 0:
            enter(self._home)
            os.close(self._home)
            self._home = -1
        for host in self.hosts.values():
            if os.path.exists(f"/run/netns/{host.namespace}"):
                host.kill()
        self._made.remove()
        self._made.__exit__()
        shutil.rmtree(self.plan.run / "disks", ignore_errors=True)

    # -- starting --------------------------------------------------------------------------------------------------

    def store(self, zone: Zone | str) -> Host:
        """The host of a zone's engines."""
        return self.hosts[f"{zone if isinstance(zone, str) else zone.name}-store"]

    def node(self, zone: Zone | str) -> Host:
        """The host of a zone's node."""
        return self.hosts[f"{zone if isinstance(zone, str) else zone.name}-node"]

    @property
    def edges(self) -> list[Host]:
        """The SIP edges."""
        return [self.hosts[name] for name in sip_edge.HOSTS if self.plan.edge]

    @property
    def nodes(self) -> tuple[Zone, ...]:
        """The zones that have a node."""
        return self.plan.zones[: self.plan.nodes]

    def zone(self, name: str) -> list[Host]:
        """The hosts of a zone."""
        return [host for host in self.hosts.values() if host.zone == name]

    def _start(self) -> None:
        plan = self.plan
        for zone in plan.zones:
            self.furnish(zone, plan.zones[0])
        say("etcd, Redis, Sentinel")
        self._each(lambda host: host.start("etcd", "redis"))
        self._each(lambda host: host.until_ready("etcd", "redis"))
        self._each(lambda host: host.start("sentinel"))
        say(f"PostgreSQL: {', '.join(cluster.name for cluster in plan.clusters)}")
        for cluster in plan.clusters:
            self.store(cluster.first).start(cluster.name)
        for cluster in plan.clusters:
            self._until(partial(_led, plan, cluster), f"a primary of {cluster.name}")
        self._each(lambda host: host.start())
        self.until_whole()
        self._databases()
        self._outside()

    def furnish(self, zone: Zone, first: Zone, *, joins: bool = False) -> None:
        """Put a zone's engines on its host. `first`: the zone of the Redis primary; `joins`: the others run already."""
        plan, host = self.plan, self.store(zone)
        host.put(etcd.service(plan, zone, host.folder, joins=joins))
        for server in redis.services(plan, zone, host.folder, first):
            host.put(server)
        for cluster in plan.clusters:
            host.put(patroni.service(plan, cluster, zone, host.folder, self._programs, self._patroni))

    def new_host(self, name: str, zone: str, address: str) -> Host:
        """A host that was not in the plan; the one of that name, if it was made before."""
        return self.hosts.get(name) or self._host(name, zone, address)

    def _each(self, work: Callable[[Host], None]) -> None:
        for zone in self.plan.zones:
            work(self.store(zone))

    def _until(self, done: Callable[[], bool], what: str, timeout_s: float = WHOLE_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            if time.monotonic() > deadline:
                logs = "\n".join(host.tail(name) for host in self.hosts.values() for name in host.services)
                raise Failed(f"{what}: not within {timeout_s:.0f} s\n{logs[-3000:]}")
            time.sleep(POLL_S)

    def until_whole(self, timeout_s: float = WHOLE_S) -> None:
        """Wait until every engine has all its members back. Raises Failed."""
        for cluster in self.plan.clusters:
            self._until(partial(patroni.whole, self.plan, cluster), f"{cluster.name} whole", timeout_s)
        self._until(lambda: redis.whole(self.plan), "Redis whole", timeout_s)

    def spread(self) -> None:
        """Bring each primary back to the zone that it began in, as an operator does after a fail-over: two queues whose
        primaries are in one zone are one queue to whoever loses that zone. Raises Failed."""
        for cluster in self.plan.clusters:
            deadline = time.monotonic() + SPREAD_S
            while (now := patroni.primary(self.plan, cluster)) is None or now.name != cluster.first:
                said = patroni.switch_over(self.plan, cluster, cluster.first)
                say(f"  {cluster.name} back to {cluster.first}: {said}")
                if time.monotonic() > deadline:
                    raise Failed(f"{cluster.name} does not go back to {cluster.first}: {said}")
                time.sleep(SPREAD_AGAIN_S)
        self.until_whole()

    def _databases(self) -> None:
        from lab import databases

        for cluster in self.plan.clusters:
            databases.make(self.plan, cluster)

    def _outside(self) -> None:
        host = self.hosts[OUT]
        host.put(outside.smsc())
        host.put(outside.names())
        host.start()
        host.until_ready("smsc", "names")
        for zone in self.nodes:
            self.node(zone).put(node.service(self.plan, zone, self.node(zone).folder))
        first = self.nodes[0] if self.nodes else None
        if first is not None:
            say(f"nodes: {', '.join(zone.name for zone in self.nodes)}")
            self.customer = node.seed(self.node(first).folder / "trunkline.toml")
            for zone in self.nodes:
                self.node(zone).start()
            for zone in self.nodes:
                self.node(zone).until_ready()
            host.put(outside.edge(self.nodes, host.folder, "/readyz/drain" if len(self.nodes) > 1 else "/healthz"))
            host.start("edge")
            host.until_ready("edge")
            for edge in self.edges:
                sip_edge.put(edge, self.nodes, priority=150 if edge is self.edges[0] else 100)
                edge.start()
            for edge in self.edges:
                edge.until_ready()

    def keep_logs(self, name: str) -> Path:
        """Copy what everything has written, to read it later; where."""
        kept = self.plan.folder / "kept" / name
        shutil.copytree(self.plan.run / "hosts/log", kept, dirs_exist_ok=True)
        return kept

    # -- what it costs -----------------------------------------------------------------------------------------------

    def pids(self) -> dict[str, list[int]]:
        """Host -> what runs on it."""
        return {name: made.processes_in(host.namespace) for name, host in self.hosts.items()}


def _led(plan: Plan, cluster: Cluster) -> bool:
    return patroni.primary(plan, cluster) is not None


def stop(plan: Plan) -> list[str]:
    """Remove what a lab that was killed has left. Raises Failed while it runs."""
    need_root()
    with Made(plan.folder) as things:
        gone = things.remove()
    shutil.rmtree(Path(plan.run) / "disks", ignore_errors=True)
    return gone
