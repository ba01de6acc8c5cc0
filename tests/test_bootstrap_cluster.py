"""Parts of a node's wiring that need no other node; tests/e2e/test_cluster.py has the rest."""

from pathlib import Path
from typing import Any

import pytest

from trunkline.bootstrap_cluster import machine, own_http, things, tls_contexts
from trunkline.bootstrap_stores import CannotStart
from trunkline.settings import Settings, Smpp, Trunk
from trunkline.settings.cluster import Cluster, Node
from trunkline.settings.kinds import Secret, Secrets
from trunkline.settings.sections import Server, Storage


def settings(**cluster: str) -> Settings:
    return Settings(
        cluster=Cluster(enabled=True, **cluster),
        storage=Storage(engine="postgres", queue=Secrets([Secret("host=a"), Secret("host=b")]), partitions=4),
        connectors=(Smpp(name="acme", host="smsc.example", system_id="x"),),
        trunks=(Trunk(name="carrier", register=True, gateways=("sip:c.example",)), Trunk(name="fixed")),
    )


def test_what_there_is_to_own() -> None:
    found = {thing.name: thing.group for thing in things(settings())}
    assert found.keys() == {"p/0", "p/1", "p/2", "p/3", "connector/acme", "trunk/carrier", "single/archive"}
    assert found["p/0"] == found["p/2"] != found["p/1"] == found["p/3"], "each database's parts are spread"


def test_a_certificate_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "node.pem"
    file.write_text("nothing")
    with pytest.raises(CannotStart, match=r"cluster\.tls_certificate"):
        tls_contexts(settings(tls_certificate=str(file)))
    assert tls_contexts(settings()) == (None, None)


def test_this_machine_is_told_from_others() -> None:
    assert machine() == machine() != ""


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ({"host": "192.0.2.1", "port": 80}, "http://192.0.2.1:80"),
        ({"host": "0.0.0.0", "port": 81, "public_url": "https://sms.example.com"}, "http://192.0.2.7:81"),
        ({"host": "", "port": 82, "tls_cert": "cert.pem"}, "https://192.0.2.7:82"),
    ],
)
def test_a_node_says_where_it_answers_itself(server: dict[str, Any], address: str) -> None:
    """`server.public_url` is all nodes': by it a canary could not be told from the others."""
    assert own_http(Settings(server=Server(**server), node=Node(name="a", address="192.0.2.7:7001"))) == address
