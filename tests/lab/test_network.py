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
socket.setdefaulttimeout(0.4)
try:
    socket.create_connection((sys.argv[1], 99))
except ConnectionRefusedError:
    print("reached")
except OSError:
    print("silence")
"""
"""Nobody listens: whoever is reached refuses."""
TRIES = 20


def reaches(network: str, host: str, address: str) -> bool:
    command = in_network(f"{network}-{host}", (sys.executable, "-c", ASK, address))
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "reached"


def comes_to_reach(network: str, host: str, address: str) -> bool:
    """Now, or once a neighbour that was not found is asked for again, and a busy machine gets round to it."""
    return any(reaches(network, host, address) for _ in range(TRIES))


@pytest.fixture
def name(network: Network) -> str:
    network.add("a", "10.77.1.1")
    network.add("a2", "10.77.1.2")
    network.add("b", "10.77.2.1")
    network.add("out", "10.77.200.1", "10.77.200.2")
    return network._name


def test_a_cut_loses_everybody(network: Network, name: str) -> None:
    assert comes_to_reach(name, "a", "10.77.2.1")
    network.link("a", up=False)
    assert not reaches(name, "a", "10.77.2.1")
    assert not reaches(name, "out", "10.77.1.1")
    assert comes_to_reach(name, "out", "10.77.2.1")
    network.link("a", up=True)
    assert comes_to_reach(name, "a", "10.77.2.1")


def test_a_partial_cut_keeps_its_zone_and_the_outside(network: Network, name: str) -> None:
    network.part("a", zone_network(1))
    assert not reaches(name, "a", "10.77.2.1")
    assert not reaches(name, "b", "10.77.1.1")
    assert comes_to_reach(name, "a", "10.77.1.2")
    assert comes_to_reach(name, "out", "10.77.1.1")
    network.heal("a")
    assert comes_to_reach(name, "b", "10.77.1.1")


def test_one_address_of_a_host_falls_silent(network: Network, name: str) -> None:
    network.silence("out", "10.77.200.2")
    assert not reaches(name, "a", "10.77.200.2")
    assert comes_to_reach(name, "a", "10.77.200.1")
    network.heal("out")
    assert comes_to_reach(name, "a", "10.77.200.2")


def test_a_namespace_of_somebody_else_is_left_alone(network: Network, name: str) -> None:
    with pytest.raises(Failed, match="not this lab's"):
        network.add("a", "10.77.1.9")
