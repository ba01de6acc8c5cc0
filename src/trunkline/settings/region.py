"""The `[region]` and `[[regions]]` sections: a whole cluster elsewhere, which follows or is followed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from trunkline.settings.kinds import Name, Seconds, Secret, Secrets, Section

if TYPE_CHECKING:
    from trunkline.settings.load import Settings

AloneSeconds = Annotated[float, Meta(ge=0, le=86_400)]


class Region(Section, frozen=True, kw_only=True):
    """How this region stands to the others (`[[regions]]`); without them it is of no use."""

    alone_s: AloneSeconds = 30
    """Seconds after which an active region that can ask neither the object store nor the other regions stops serving:
    another one may have been promoted. So long a promotion with `--lost` waits before its nodes open. 0: it goes on for
    ever, and a promotion does not wait; then turning the lost region off is up to you. The same in all regions."""
    drain_s: Seconds = 60
    """Seconds that the nodes of a region which is handed over have to finish what they have begun."""
    promote_command: str = ""
    """Makes the standby cluster of one database a primary, run by `trunkline region promote` once for each cluster:
    `{name}` is `queue0`, `queue1`, ... or `database`, `{host}` and `{port}` its first server. With Patroni:
    `patronictl -c /etc/patroni/{name}.yml edit-config --force -s standby_cluster=null`. Empty: `pg_promote()`."""


class OtherRegion(Section, frozen=True, kw_only=True):
    """Another region, as the nodes of this one reach it: to see whether it takes writes, to hand over in order, and to
    compare what it had. Best a user that may read everything; handing over needs the owner of the databases."""

    name: Name
    """Its nodes' `node.region`."""
    queue: Secrets
    """Its `storage.queue`: the same number and order of databases as here."""
    database: Secret
    """Its `storage.database`."""


def region_problems(settings: "Settings") -> Iterator[str]:
    """What does not fit together, one line each."""
    if not settings.regions:
        return
    names = [one.name for one in settings.regions]
    if not settings.node.region:
        yield "node.region: with [[regions]] each node must say which region it lies in"
    elif settings.node.region in names:
        yield f"regions: {settings.node.region!r} is this node's own region; name the others"
    if len(set(names)) < len(names):
        yield "regions: two have the same name"
    if not settings.cluster.enabled:
        yield "cluster.enabled: a region is a cluster, if only of one node; its lease is what stops it in time"
    for one in settings.regions:
        if len(one.queue) != len(settings.storage.queue):
            yield f"regions: {one.name}.queue: a region has the same queue databases as this one, in the same order"
