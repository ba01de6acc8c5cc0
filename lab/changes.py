"""What operators do to a cluster that runs, as docs/howto/cluster.md says, put in and taken back as the faults are."""

import shutil
import time
from http.client import HTTPException

from lab import etcd, node, redis
from lab.cluster import say
from lab.fault import Fault
from lab.plan import Zone
from lab.system import Failed
from lab.table import owners

FOURTH = Zone("d", "one", 4)
FIRST_S = 30.0
"""For a newcomer to have a partition; its share comes as calls end, which stay where they are."""
POLL_S = 0.5


class NewNode(Fault):
    name, what, hold_s = "new-node", "a fourth node joins, is given partitions, and is taken away again", 20.0
    nodes = 3

    def inject(self) -> str:
        self.host = self.lab.new_host("d-node", FOURTH.name, FOURTH.node)
        self.host.put(node.service(self.lab.plan, FOURTH, self.host.folder))
        self.host.start()
        self.host.until_ready()
        deadline = time.monotonic() + FIRST_S
        while not self._owned():
            if time.monotonic() > deadline:
                raise Failed(f"the fourth node owns nothing after {FIRST_S:.0f} s")
            time.sleep(POLL_S)
        return self.host.name

    def _owned(self) -> int:
        first = redis.primary(self.lab.plan)
        return sum(one.isdigit() for one in owners(first.store if first else "").get(FOURTH.name, "").split())

    def heal(self) -> None:
        say(f"  the fourth node owns {self._owned()} of {node.PARTITIONS} partitions")
        self.host.stop()
        self.host.services.clear()


class NewEngines(Fault):
    name, what, hold_s = "new-engines", "a machine of engines is lost with its disk, and replaced by an empty one", 30.0

    def inject(self) -> str:
        self.zone = self.away()
        self.host = self.lab.store(self.zone)
        self.host.kill()
        for folder in self.host.folder.iterdir():
            shutil.rmtree(folder)
        return self.host.name

    def heal(self) -> None:
        first = redis.primary(self.lab.plan)
        if first is None or first == self.zone:
            raise Failed("Redis has no other primary")
        try:
            etcd.replace(self.lab.plan, self.zone)
        except (OSError, HTTPException) as error:
            raise Failed(f"etcd takes no new member: {error}") from None
        self.lab.furnish(self.zone, first, joins=True)
        self.host.start()

    def after(self) -> None:
        """As any other from now on: a member that has been one joins no more."""
        self.host.put(etcd.service(self.lab.plan, self.zone, self.host.folder))
