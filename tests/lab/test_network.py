"""Hosts reach each other until they are cut; a partial cut leaves the way to the outside."""

import subprocess
import sys

import pytest
from lab.network import Network, zone_network
from lab.system import Failed, in_network

from tests.lab.conftest import needs_root

pytestmark = needs_root

ASK = """
import socket, sys
socket.setdefaulttimeout(float(sys.argv[2]))
try:
    socket.create_connection((sys.argv[1], 99))
except ConnectionRefusedError:
    print("reached")
except OSError:
    print("silence")
"""
"""Nobody listens: whoever is reached refuses."""
REACH_S = 15.0
"""TCP asks again after 1, 3 and 7 s: a busy machine may be late."""
CUT_S = 0.4
"""Without an answer for so long, there is none."""


def reaches(network: str, host: str, address: str, patience_s: float = REACH_S) -> bool:
    command = in_network(f"{network}-{host}", (sys.executable, "-c", ASK, address, str(patience_s)))
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "reached"


def is_cut(network: str, host: str, address: str) -> bool:
    return not reaches(network, host, address, CUT_S)


@pytest.fixture
def name(network: Network) -> str:
    network.add("a", "10.77.1.1")
    network.add("a2", "10.77.1.2")
    network.add("b", "10.77.2.1")
    network.add("out", "10.77.200.1", "10.77.200.2")
    return network._name


def test_a_cut_loses_everybody(network: Network, name: str) -> None:
    assert reaches(name, "a", "10.77.2.1")
    network.link("a", up=False)
    assert is_cut(name, "a", "10.77.2.1")
    assert is_cut(name, "out", "10.77.1.1")
    assert reaches(name, "out", "10.77.2.1")
    network.link("a", up=True)
    assert reaches(name, "a", "10.77.2.1")


def test_a_partial_cut_keeps_its_zone_and_the_outside(network: Network, name: str) -> None:
    network.part("a", zone_network(1))
    assert is_cut(name, "a", "10.77.2.1")
    assert is_cut(name, "b", "10.77.1.1")
    assert reaches(name, "a", "10.77.1.2")
    assert reaches(name, "out", "10.77.1.1")
    network.heal("a")
    assert reaches(name, "b", "10.77.1.1")


def test_one_address_of_a_host_falls_silent(network: Network, name: str) -> None:
    network.silence("out", "10.77.200.2")
    assert is_cut(name, "a", "10.77.200.2")
    assert reaches(name, "a", "10.77.200.1")
    network.heal("out")
    assert reaches(name, "a", "10.77.200.2")


def test_a_namespace_of_somebody_else_is_left_alone(network: Network, name: str) -> None:
    with pytest.raises(Failed, match="not this lab's"):
        network.add("a", "10.77.1.9")
