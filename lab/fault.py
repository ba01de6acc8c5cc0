"""What a fault is."""

import random
from typing import TYPE_CHECKING, ClassVar

from lab import patroni
from lab.hosts import Host
from lab.plan import Zone
from lab.system import Failed

if TYPE_CHECKING:
    from lab.cluster import Lab


class Fault:
    """One fault."""

    name: ClassVar[str]
    what: ClassVar[str]
    hold_s: ClassVar[float] = 30.0
    """From `inject` to `heal`: longer than Patroni's ttl where a primary may be lost."""
    disks: ClassVar[bool] = False
    """Whether hosts need file systems of their own."""
    edge: ClassVar[bool] = False
    """Whether it needs the SIP edges."""
    nodes: ClassVar[int] = 1
    """Least number of nodes of the cluster for which it makes sense."""
    says: ClassVar[int] = 0
    """Calls at each node, placed while it lasts, that are to hear what nobody has said before."""

    def __init__(self, lab: "Lab") -> None:
        self.lab = lab

    def prepare(self) -> None:
        """Before the load begins."""

    def inject(self) -> str:
        """Put it in; says what was hit. Raises Failed."""
        raise Failed(f"{self.name} has nothing to put in")

    def heal(self) -> None:
        """Take it back."""

    def after(self) -> None:
        """After the load: put back what `prepare` had changed."""

    # -- whom it hits ----------------------------------------------------------------------------------------------

    def primary(self) -> Zone:
        """The zone of the first queue's primary. Raises Failed."""
        zone = patroni.primary(self.lab.plan, self.lab.plan.clusters[0])
        if zone is None:
            raise Failed("the first queue has no primary")
        return zone

    def away(self) -> Zone:
        """A zone that holds neither that primary nor the first node, if there is one."""
        used = {self.primary().name, self.lab.nodes[0].name}
        return next((zone for zone in reversed(self.lab.plan.zones) if zone.name not in used), self.lab.plan.zones[-1])

    def owner(self) -> Host:
        """The host of a node: with several one at random, so that every run hits another."""
        return self.lab.node(random.choice(self.lab.nodes))
