"""The faults: each a small class that is put in and taken back. They touch the lab's own hosts only.

`inject` and `heal` block; `heal` brings back what the fault has ended, too.
"""

import os
import random
import shutil
import signal
import threading
import time
from typing import ClassVar

from lab import made, node, outside, patroni, redis, sip_edge, throttle
from lab.changes import NewEngines, NewNode
from lab.fault import Fault
from lab.hosts import Host
from lab.network import zone_network
from lab.system import Failed


class Nothing(Fault):
    name, what, hold_s = "none", "nothing: what the load is without a fault", 10.0

    def inject(self) -> str:
        return "nothing"


class _Kill(Fault):
    """kill -9 of one service."""

    hold_s = 12.0

    def target(self) -> tuple[Host, str]:
        """Host and service. Raises Failed."""
        raise Failed(f"{self.name} has no target")

    def inject(self) -> str:
        self.hit, self.service = self.target()
        self.hit.kill(self.service)
        return f"{self.service} on {self.hit.name}"

    def heal(self) -> None:
        self.hit.start(self.service)


class KillNode(_Kill):
    name, what = "kill-node", "kill -9 of all processes of a node"

    def target(self) -> tuple[Host, str]:
        return self.owner(), "trunkline"


class KillWorker(Fault):
    """kill -9 of one process below the supervisor, by a word of its command line; the supervisor starts it again."""

    word: ClassVar[str]
    hold_s = 10.0

    def inject(self) -> str:
        host = self.owner()
        pids = [pid for pid in host.members("trunkline") if self.word in made.command(pid)]
        if not pids:
            raise Failed(f"no {self.word} on {host.name}")
        made.kill(pids[:1])
        return f"{self.word} ({pids[0]}) on {host.name}"

    def heal(self) -> None:
        """What systemd does where the whole node has ended because of it."""
        for zone in self.lab.nodes:
            self.lab.node(zone).start()


class KillNodeProcess(KillWorker):
    name, what, word = "kill-process", "kill -9 of the node process alone; supervisor and media live on", "serve"

    def inject(self) -> str:
        host = self.owner()
        first = host.pid("trunkline")
        pids = [pid for pid in host.members("trunkline") if pid != first and self.word in made.command(pid).split()]
        made.kill(pids[:1] or [first])
        return f"node process ({(pids or [first])[0]}) on {host.name}"


class KillMedia(KillWorker):
    name, what, word = "kill-media", "kill -9 of a media process", "trunkline.media.process"


class KillPostgres(Fault):
    name, what, hold_s = "kill-postgres", "kill -9 of the first queue's primary server; Patroni lives on", 15.0

    def inject(self) -> str:
        host = self.lab.store(self.primary())
        folder = str(host.folder / self.lab.plan.clusters[0].name / "data")
        pids = [pid for pid in made.processes_in(host.namespace) if f"-D {folder}" in made.command(pid)]
        made.kill(pids)
        return f"postmaster {pids} on {host.name}"


class KillPatroni(_Kill):
    name, what, hold_s = "kill-patroni", "kill -9 of Patroni at the first queue's primary, and of its server", 30.0

    def target(self) -> tuple[Host, str]:
        return self.lab.store(self.primary()), self.lab.plan.clusters[0].name

    def inject(self) -> str:
        said = super().inject()
        folder = str(self.hit.folder / self.service / "data")
        made.kill([pid for pid in made.processes_in(self.hit.namespace) if f"-D {folder}" in made.command(pid)])
        return said


class KillRedis(_Kill):
    name, what = "kill-redis", "kill -9 of the Redis primary"

    def target(self) -> tuple[Host, str]:
        zone = redis.primary(self.lab.plan)
        if zone is None:
            raise Failed("Redis has no primary")
        return self.lab.store(zone), "redis"


class KillSentinel(_Kill):
    name, what = "kill-sentinel", "kill -9 of a Sentinel"

    def target(self) -> tuple[Host, str]:
        return self.lab.store(random.choice(self.lab.plan.zones)), "sentinel"


class KillEtcd(_Kill):
    name, what = "kill-etcd", "kill -9 of a member of etcd"

    def target(self) -> tuple[Host, str]:
        return self.lab.store(random.choice(self.lab.plan.zones)), "etcd"


class _Hosts(Fault):
    """Something that is done to whole hosts."""

    def targets(self) -> list[Host]:
        """Raises Failed."""
        raise Failed(f"{self.name} has no target")

    def inject(self) -> str:
        self.hit = self.targets()
        for host in self.hit:
            self.do(host)
        return ", ".join(host.name for host in self.hit)

    def heal(self) -> None:
        for host in self.hit:
            self.undo(host)

    def do(self, host: Host) -> None:
        """To each of them."""
        host.kill()

    def undo(self, host: Host) -> None:
        """Take it back."""
        host.start()


class KillNodeHost(_Hosts):
    name, what, hold_s = "kill-node-host", "kill -9 of everything on the host of a node", 12.0

    def targets(self) -> list[Host]:
        return [self.owner()]


class KillStoreHost(_Hosts):
    name, what = "kill-store-host", "kill -9 of everything on the engine host with the first queue's primary"

    def targets(self) -> list[Host]:
        return [self.lab.store(self.primary())]


class KillZone(_Hosts):
    name, what = "kill-zone", "kill -9 of everything in the zone of the first queue's primary"

    def targets(self) -> list[Host]:
        return self.lab.zone(self.primary().name)


class KillOtherZone(KillZone):
    name, what = "kill-other-zone", "the same, in a zone without that primary"

    def targets(self) -> list[Host]:
        return self.lab.zone(self.away().name)


class Cut(KillZone):
    name, what = "cut-zone", "the links of that zone go down"

    def do(self, host: Host) -> None:
        self.lab.network.link(host.name, up=False)

    def undo(self, host: Host) -> None:
        self.lab.network.link(host.name, up=True)


class PartialCut(KillZone):
    name, what = "partial-cut", "that zone loses the other zones and keeps customers and carriers"

    def do(self, host: Host) -> None:
        octet = next(zone.octet for zone in self.lab.plan.zones if zone.name == host.zone)
        self.lab.network.part(host.name, zone_network(octet))

    def undo(self, host: Host) -> None:
        self.lab.network.heal(host.name)


class StopNode(_Hosts):
    name, what, hold_s = "stop-node-host", "SIGSTOP of everything on a node's host, then SIGCONT", 15.0

    def targets(self) -> list[Host]:
        return [self.owner()]

    def do(self, host: Host) -> None:
        host.pause()

    def undo(self, host: Host) -> None:
        host.resume()


class StopStore(StopNode):
    name, what, hold_s = "stop-store-host", "SIGSTOP of the engine host with the first queue's primary", 30.0

    def targets(self) -> list[Host]:
        return [self.lab.store(self.primary())]


class Rolling(Fault):
    name, what, hold_s = "rolling", "every node restarted in turn (SIGTERM, start, ready)", 2.0

    def inject(self) -> str:
        for zone in self.lab.nodes:
            host = self.lab.node(zone)
            host.stop("trunkline")
            host.start("trunkline")
            host.until_ready("trunkline")
        return "all nodes in turn"


class RollingEngines(Fault):
    name, what, hold_s = (
        "rolling-engines",
        "every engine host restarted in turn, each whole and primaries back in their zones before the next",
        2.0,
    )

    def inject(self) -> str:
        for zone in self.lab.plan.zones:
            host = self.lab.store(zone)
            host.stop()
            host.start()
            self.lab.until_whole()
            self.lab.spread()
        return "all engine hosts in turn"


class SwitchOver(Fault):
    name, what, hold_s = "switch-over", "patronictl switchover of the first queue", 10.0

    def inject(self) -> str:
        return patroni.switch_over(self.lab.plan, self.lab.plan.clusters[0])


class PowerLoss(Fault):
    name, what, hold_s = "power-loss", "all hosts lose power at once; what was not synced is gone", 1.0
    disks = True

    def prepare(self) -> None:
        os.sync()  # settings were written long before power is lost, but for those of a lab

    def inject(self) -> str:
        hosts = [host for host in self.lab.hosts.values() if host.zone]
        for host in hosts:
            host.pause()  # nothing is acknowledged once the first disk is copied
        survived = {name: disk.copy() for name, disk in self.lab.disks.items()}
        for host in hosts:
            host.kill()
        for name, disk in self.lab.disks.items():
            disk.swap(survived[name])
        return f"{len(hosts)} hosts"

    def heal(self) -> None:
        for zone in self.lab.plan.zones:
            self.lab.store(zone).start()
        self.lab.until_whole(180.0)
        for zone in self.lab.nodes:
            self.lab.node(zone).start()


class FullNodeDisk(_Hosts):
    name, what, hold_s, disks = "full-node-disk", "the disk of a node's host is full", 15.0, True

    def targets(self) -> list[Host]:
        return [self.owner()]

    def do(self, host: Host) -> None:
        self.lab.disks[host.name].fill()

    def undo(self, host: Host) -> None:
        self.lab.disks[host.name].drain()


class FullStoreDisk(FullNodeDisk):
    name, what, hold_s = "full-store-disk", "the disk of the engine host with the first queue's primary is full", 40.0

    def targets(self) -> list[Host]:
        return [self.lab.store(self.primary())]

    def undo(self, host: Host) -> None:
        super().undo(host)
        host.start()


class SlowDisk(_Hosts):
    name, what, disks = "slow-disk", "the disk of the engine host with the first queue's primary: 10 writes/s", True
    writes_s: ClassVar[int] = 10

    def targets(self) -> list[Host]:
        return [self.lab.store(self.primary())]

    def do(self, host: Host) -> None:
        host.slow_disk(self.writes_s, self.lab.plan.namespace("slow"))

    def undo(self, host: Host) -> None:
        throttle.quick(host.folder, self.lab.plan.namespace("slow"))


class ClockJump(Fault):
    name, what, hold_s = (
        "clock-jump",
        "a node's wall clock jumps an hour ahead, and back (as its Python tells it)",
        15.0,
    )

    def prepare(self) -> None:
        self.host = self.owner()
        self.file = self.host.folder / "clock"
        self.file.write_text("+0\n")
        self.host.stop("trunkline")
        self.before = self.host.services["trunkline"]
        self.host.put(node.with_clock(self.before, self.file))
        self.host.start("trunkline")
        self.host.until_ready("trunkline")

    def inject(self) -> str:
        self.file.write_text("+3600\n")
        return self.host.name

    def heal(self) -> None:
        self.file.write_text("+0\n")

    def after(self) -> None:
        self.host.stop("trunkline")
        self.host.put(self.before)
        self.host.start("trunkline")
        self.host.until_ready("trunkline")


class CarrierDown(Fault):
    name, what, hold_s = "carrier-down", "the SMSC's address falls silent", 15.0
    address: ClassVar[str] = outside.SMSC

    def inject(self) -> str:
        self.lab.network.silence("out", self.address)
        return self.address

    def heal(self) -> None:
        self.lab.network.heal("out")


class WebhooksDown(CarrierDown):
    name, what, hold_s = "webhooks-down", "the customers' web server falls silent", 15.0
    address = outside.WEBHOOKS


class NamesDown(CarrierDown):
    name, what, hold_s = "dns-down", "the name server that knows the customers' web server falls silent", 45.0
    address = outside.NAMES


class SpeechDown(Fault):
    name, what, hold_s, says = "speech-down", "every process that speaks is stopped, new ones too", 40.0, 2
    role: ClassVar[str] = '"role":"speech"'
    look_s: ClassVar[float] = 0.05

    def inject(self) -> str:
        self.ends = threading.Event()
        self.stopped: set[int] = set()
        self.stopper = threading.Thread(target=self._stop, daemon=True)
        self.stopper.start()
        return "all nodes"

    def _stop(self) -> None:
        while not self.ends.wait(self.look_s):
            spaces = [self.lab.node(zone).namespace for zone in self.lab.nodes]
            found = {pid for space in spaces for pid in made.processes_in(space) if self.role in made.command(pid)}
            made.send(list(found - self.stopped), signal.SIGSTOP)
            self.stopped |= found

    def heal(self) -> None:
        self.ends.set()
        self.stopper.join()
        made.send(list(self.stopped), signal.SIGCONT)


class ObjectsDown(Fault):
    name, what, hold_s = "object-store-down", "the object store (a shared folder) is not there", 20.0

    def inject(self) -> str:
        folder = self.lab.plan.run / "objects"
        folder.rename(folder.with_suffix(".away"))
        return str(folder)

    def heal(self) -> None:
        folder = self.lab.plan.run / "objects"
        if folder.exists():  # somebody has made an empty one meanwhile
            shutil.rmtree(folder)
        folder.with_suffix(".away").rename(folder)


class RedisAndOwner(Fault):
    name, what, hold_s = "redis-and-owner", "the Redis primary is lost together with a node's host", 15.0

    def inject(self) -> str:
        zone = redis.primary(self.lab.plan)
        if zone is None:
            raise Failed("Redis has no primary")
        self.store = self.lab.store(zone)
        self.host = self.lab.node(zone) if zone in self.lab.nodes else self.owner()
        self.host.kill()
        self.store.kill("redis", "sentinel")
        return f"{self.host.name} and Redis on {self.store.name}"

    def heal(self) -> None:
        self.store.start()
        self.host.start()


class KillEdge(Fault):
    name, what, hold_s = "kill-edge", "kill -9 of everything on the SIP edge that has the floating address", 15.0
    edge, says = True, 2
    moved_s: ClassVar[float] = 20.0
    """For the other one to have the address."""

    def inject(self) -> str:
        self.host = next((host for host in self.lab.edges if sip_edge.has_address(host)), self.lab.edges[0])
        (other,) = [host for host in self.lab.edges if host is not self.host]
        self.host.kill()
        self.lab.network.link(self.host.name, up=False)  # what is dead answers no ARP either
        began = time.monotonic()
        while not (sip_edge.has_address(other) and sip_edge.answers() and sip_edge.has_nodes(other)):
            if time.monotonic() - began > self.moved_s:
                raise Failed(f"{other.name} does not take calls at the address of {self.host.name}")
        return f"{self.host.name}; {other.name} takes calls after {time.monotonic() - began:.1f} s"

    def heal(self) -> None:
        sip_edge.forget_address(self.host)
        self.lab.network.link(self.host.name, up=True)
        self.host.start()
        self.host.until_ready()


FAULTS: dict[str, type[Fault]] = {
    fault.name: fault
    for fault in (
        Nothing, KillNode, KillNodeProcess, KillMedia, KillPostgres, KillPatroni, KillRedis, KillSentinel, KillEtcd,
        KillNodeHost, KillStoreHost, KillZone, KillOtherZone, Cut, PartialCut, StopNode, StopStore, Rolling,
        RollingEngines, SwitchOver, PowerLoss, FullNodeDisk, FullStoreDisk, SlowDisk, ClockJump, CarrierDown,
        WebhooksDown, NamesDown, ObjectsDown, SpeechDown, RedisAndOwner, KillEdge,
        NewNode, NewEngines,
    )
}  # fmt: skip
"""Every fault, by its name."""
APART = {
    "region-loss": "measured apart, in a lab of two regions: [figures](regions.md)",
    "region-handover": "measured apart, in a lab of two regions: [figures](regions.md)",
}
"""Faults of whole regions (lab.region_rounds), and where their figures are."""
