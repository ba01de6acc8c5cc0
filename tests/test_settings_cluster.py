"""Settings of a cluster that could not work together."""

import pytest

from trunkline.cluster import peers_wire
from trunkline.settings import Settings
from trunkline.settings.cluster import MAX_BODY_BYTES, Cluster, cluster_problems
from trunkline.settings.sections import Server


def complaints(enabled, size):
    settings = Settings(cluster=Cluster(enabled=enabled), server=Server(max_body_bytes=size))
    return [line for line in cluster_problems(settings) if line.startswith("server.max_body_bytes")]


@pytest.mark.parametrize(
    ("enabled", "size", "told"), [(True, MAX_BODY_BYTES, 0), (True, MAX_BODY_BYTES + 1, 1), (False, 1 << 30, 0)]
)
def test_a_body_that_no_peer_would_take_is_told(enabled, size, told):
    assert len(complaints(enabled, size)) == told


def test_a_body_and_its_headers_fit_into_a_frame():
    assert MAX_BODY_BYTES + 512 * 1024 < peers_wire.MAX_FRAME_BYTES
