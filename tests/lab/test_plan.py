"""The plan and what is generated from it: addresses, engines' configuration, nodes' settings."""

import json
from pathlib import Path

import pytest
from lab.plan import Plan
from lab.system import ROOT

from lab import etcd, node, outside, patroni, sip_edge
from trunkline.settings import load

LONGEST_LINK = 15
"""IFNAMSIZ less its zero."""
SMALL = Plan(queues=1, own_database=False)


@pytest.mark.parametrize("plan", [Plan(), SMALL, Plan(queues=3)])
def test_addresses_and_ports_are_used_once(plan: Plan) -> None:
    addresses = [address for zone in plan.zones for address in (zone.node, zone.store)]
    addresses += [*outside.ADDRESSES, outside.SIP_EDGE, *sip_edge.HOSTS.values()]
    assert len(set(addresses)) == len(addresses)
    ports = [port for cluster in plan.clusters for port in (cluster.port, cluster.rest)]
    assert len(set(ports)) == len(ports)


def test_primaries_of_queues_lie_in_different_zones() -> None:
    queues = [cluster for cluster in Plan().clusters if "queue" in cluster.databases]
    assert len({cluster.first for cluster in queues}) == len(queues) == 2


def test_everything_may_lie_in_one_cluster() -> None:
    (only,) = SMALL.clusters
    assert set(only.databases) == {"queue", "records"}


def test_names_are_short_enough() -> None:
    assert all(len(f"{zone.name}-store") <= LONGEST_LINK for zone in Plan().zones)


def test_the_sip_edge_is_ours_with_all_nodes_behind_it(tmp_path: Path) -> None:
    command = sip_edge._kamailio(Plan().zones, tmp_path).command
    assert (tmp_path / "kamailio.cfg").read_text() == (ROOT / "deploy/kamailio.cfg").read_text()
    assert str(tmp_path / "kamailio.cfg") in command
    assert [line.split()[0] for line in (tmp_path / "dispatcher.list").read_text().splitlines()] == ["1", "1", "1", "3"]


def test_patroni_is_strict_and_asks_all_of_etcd(tmp_path: Path) -> None:
    plan = Plan()
    made = patroni.configuration(plan, plan.clusters[1], plan.zones[0], tmp_path, Path("/usr/lib/postgresql/15/bin"))
    dynamic = made["bootstrap"]["dcs"]
    assert (dynamic["synchronous_mode"], dynamic["synchronous_mode_strict"]) == ("quorum", True)
    assert dynamic["ttl"] >= dynamic["loop_wait"] + 2 * dynamic["retry_timeout"]
    assert len(made["etcd3"]["hosts"]) == 3
    assert made["name"] == "a"
    json.dumps(made)


def test_etcd_names_its_peers(tmp_path: Path) -> None:
    command = etcd.service(Plan(), Plan().zones[2], tmp_path).command
    assert command[command.index("--name") + 1] == "c"
    assert command[command.index("--initial-cluster") + 1].count("http://") == 3


@pytest.mark.parametrize("plan", [Plan(nodes=1), Plan(), SMALL, Plan(edge=True)])
def test_the_nodes_settings_load(plan: Plan, tmp_path: Path) -> None:
    for zone in plan.zones[: plan.nodes]:
        settings = load(node.write(plan, zone, tmp_path), {})
        assert settings.server.host == zone.node
        assert settings.sip.edges == ((outside.SIP_EDGE,) if plan.edge else ())
        assert settings.storage.survives == "zone"
        assert settings.connectors[0].name == "carrier"
