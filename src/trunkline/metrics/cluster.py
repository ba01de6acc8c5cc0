"""What is measured of a node that is one of several: its lease, what it owns, whom it sees."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from trunkline.cluster.fence import margin_ns

NS_PER_S = 1e9


def of_cluster(cluster: Any, lease_s: float) -> Iterator[Any]:
    """Membership, fence and ownership, as this node sees them."""
    fence = cluster.fence
    age_s = lease_s - margin_ns(lease_s * 1000) / NS_PER_S - fence.remaining_s
    yield GaugeMetricFamily("trunkline_members", "Nodes of the cluster", len(cluster.membership.view.map.members))
    yield GaugeMetricFamily("trunkline_fence_open", "Whether this node may send", float(fence.open))
    yield GaugeMetricFamily(
        "trunkline_lease_remaining_seconds", "Until this node may not send any more", max(0.0, fence.remaining_s)
    )
    yield GaugeMetricFamily(
        "trunkline_lease_age_seconds", "Since the renewal that this node's lease goes back to", max(0.0, age_s)
    )
    yield CounterMetricFamily("trunkline_fence_closings", "How often the lease ran out", fence.closings)
    yield CounterMetricFamily("trunkline_fence_held_back", "Sends that were held back then", fence.held_back)
    owned = GaugeMetricFamily("trunkline_owned", "What this node owns, by kind", labels=["kind"])
    for kind, count in sorted(Counter(name.partition("/")[0] for name in cluster.ownership.owned).items()):
        owned.add_metric([kind], count)
    yield owned
    mine = GaugeMetricFamily(
        "trunkline_partition_owned", "Whether a partition of the queue is open here", labels=["partition"]
    )
    nobody = 0
    for number in range(cluster.queue.partitions):
        mine.add_metric([str(number)], float(number in cluster.queue.owned))
        nobody += cluster.ownership.owner_of(number) is None
    yield mine
    yield GaugeMetricFamily("trunkline_partitions_ownerless", "Partitions that nobody owns, as seen here", nobody)
