"""Settings of a cluster that could not work together."""

import pytest

from trunkline.cluster import peers_wire
from trunkline.settings import Settings, SettingsError, load
from trunkline.settings.cluster import MAX_BODY_BYTES, ROLES, Cluster, Node, cluster_problems
from trunkline.settings.sections import Server, Storage


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


def role_complaints(roles, partitions=4, voice=0, enabled=True):
    cluster = Cluster(enabled=enabled, voice_partitions=voice)
    settings = Settings(cluster=cluster, node=Node(roles=roles), storage=Storage(partitions=partitions))
    return [line for line in cluster_problems(settings) if line.startswith(("node.roles", "cluster.voice_partitions"))]


@pytest.mark.parametrize(
    ("roles", "voice"),
    [
        (ROLES, 0), (("api",), 0), (("api", "messaging"), 0), (("messaging", "voice", "media"), 0),
        (("voice", "media"), 2), (("messaging",), 2), (ROLES, 3),
    ],
)  # fmt: skip
def test_roles_that_work_together(roles, voice):
    assert role_complaints(roles, voice=voice) == []


@pytest.mark.parametrize(
    ("roles", "voice", "enabled", "told"),
    [
        ((), 0, True, "needs one at least"),
        (("api",), 0, False, "a single server has all"),
        (("voice", "messaging"), 0, True, "voice and media go together"),
        (("media",), 2, True, "voice and media go together"),
        (("voice", "media"), 0, True, "cluster.voice_partitions: a node with voice and without messaging needs some"),
        (ROLES, 4, True, "leave none for messages"),
    ],
)
def test_roles_that_cannot_work_are_one_clear_line(roles, voice, enabled, told):
    (line,) = role_complaints(roles, voice=voice, enabled=enabled)
    assert told in line


def test_a_role_that_is_none_is_refused(tmp_path):
    file = tmp_path / "trunkline.toml"
    file.write_text('profile = "development"\n[node]\nroles = ["api", "mail"]\n')
    with pytest.raises(SettingsError, match=r"node\.roles"):
        load(file, {})
