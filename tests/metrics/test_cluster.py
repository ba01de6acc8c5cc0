"""What /metrics says of a node that is one of several."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from trunkline.metrics.cluster import of_cluster

OWNERS = {0: "node-1", 1: "node-2", 2: None}


def page(*, remaining_s: float = 0.7) -> list[str]:
    cluster: Any = SimpleNamespace(
        fence=SimpleNamespace(open=remaining_s > 0, remaining_s=remaining_s, closings=2, held_back=9),
        membership=SimpleNamespace(view=SimpleNamespace(map=SimpleNamespace(members={"node-1": 1, "node-2": 1}))),
        ownership=SimpleNamespace(owned=frozenset({"p/0", "p/3", "connector/acme"}), owner_of=OWNERS.get),
        queue=SimpleNamespace(partitions=3, owned=frozenset({0})),
    )

    class Cluster:
        def collect(self) -> Iterator[Any]:
            yield from of_cluster(cluster, lease_s=1.0)

    registry = CollectorRegistry()
    registry.register(Cluster())
    return generate_latest(registry).decode().splitlines()


def test_lease_and_ownership() -> None:
    lines = page()
    assert "trunkline_members 2.0" in lines
    assert "trunkline_fence_open 1.0" in lines
    assert "trunkline_fence_closings_total 2.0" in lines
    assert "trunkline_fence_held_back_total 9.0" in lines
    assert 'trunkline_owned{kind="p"} 2.0' in lines
    assert 'trunkline_owned{kind="connector"} 1.0' in lines
    assert 'trunkline_partition_owned{partition="0"} 1.0' in lines
    assert 'trunkline_partition_owned{partition="1"} 0.0' in lines
    assert "trunkline_partitions_ownerless 1.0" in lines


def value(lines: list[str], name: str) -> float:
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def test_the_age_of_a_lease_is_what_is_gone_of_it() -> None:
    """A lease of 1 s is worth 0.9 s to its holder: the rest is for clocks of different speed."""
    assert value(page(remaining_s=0.7), "trunkline_lease_age_seconds") == pytest.approx(0.2)
    assert value(page(remaining_s=-3.0), "trunkline_lease_remaining_seconds") == 0
    assert value(page(remaining_s=5.0), "trunkline_lease_age_seconds") == 0  # extended by promises
