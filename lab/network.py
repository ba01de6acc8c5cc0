"""The network between the hosts: a namespace for each, all on one bridge in a namespace of its own.

Nothing is made outside these namespaces, so no address, link or route of the machine is touched. A cut takes the
host's link down; a partial cut drops what comes from and goes to the other zones (nft inside the host's namespace) and
leaves the way to the outside, where customers, carriers and phones are.
"""

import json
import os
import time

from lab.made import Made
from lab.plan import NETWORK
from lab.system import Failed, in_network, run

BRIDGE = "br0"
LINK = "eth0"
HUB = "hub"
"""Name of the host that holds the bridge."""
TABLE = "lab"
RULES = """
table inet {table} {{
  set own {{ type ipv4_addr; flags interval; elements = {{ {own} }} }}
  chain in {{ type filter hook input priority 0; policy accept;
    ip saddr {peers} ip saddr != @own drop; }}
  chain out {{ type filter hook output priority 0; policy accept;
    ip daddr {peers} ip daddr != @own drop; }}
}}
"""
UP_S = 20.0
UP_LOOK_S = 0.02
"""Longest wait for a link that was set up, and between two looks: the kernel carries nothing over it before it has seen
its carrier, which it looks for once a second at most."""
PEERS = f"{NETWORK}.0.0/17"
"""All hosts that are not outside."""


class Network:
    """Namespaces and links of one lab."""

    def __init__(self, name: str, made: Made) -> None:
        self._name = name
        self._made = made
        self._hub = f"{name}-{HUB}"

    def _space(self, name: str) -> None:
        if os.path.exists(f"/run/netns/{name}"):
            raise Failed(f"there is a network namespace {name} that is not this lab's: give the lab another NAME")
        self._made.note("netns", name)
        run("ip", "netns", "add", name)
        run("ip", "-n", name, "link", "set", "dev", "lo", "up")

    def begin(self) -> None:
        """Make the bridge. Raises Failed."""
        self._space(self._hub)
        run("ip", "-n", self._hub, "link", "add", BRIDGE, "type", "bridge")
        run("ip", "-n", self._hub, "link", "set", "dev", BRIDGE, "up")

    def add(self, host: str, *addresses: str) -> str:
        """Make a host with these addresses; returns its namespace. Raises Failed."""
        space = f"{self._name}-{host}"
        self._space(space)
        run("ip", "-n", space, "link", "add", LINK, "type", "veth", "peer", "name", host, "netns", self._hub)
        for address in addresses:
            run("ip", "-n", space, "addr", "add", f"{address}/16", "dev", LINK)
        run("ip", "-n", space, "link", "set", "dev", LINK, "up")
        run("ip", "-n", self._hub, "link", "set", "dev", host, "master", BRIDGE)
        self.link(host, up=True)
        return space

    def link(self, host: str, *, up: bool) -> None:
        """Take the host's link down: packets vanish, nobody is told. Or up again; it carries packets when this returns.
        Raises Failed."""
        run("ip", "-n", self._hub, "link", "set", "dev", host, "up" if up else "down")
        deadline = time.monotonic() + UP_S
        while up and not (_carries(self._hub, host) and _carries(f"{self._name}-{host}", LINK)):
            if time.monotonic() > deadline:
                raise Failed(f"the link of {host} does not come up")
            time.sleep(UP_LOOK_S)

    def part(self, host: str, own: str) -> None:
        """The host loses all peers but those in `own` (a network) and keeps the outside."""
        space = f"{self._name}-{host}"
        rules = RULES.format(table=TABLE, own=own, peers=PEERS)
        run(*in_network(space, ("nft", rules)))

    def silence(self, host: str, address: str) -> None:
        """Whatever is sent to this address of the host vanishes, and what it sends."""
        rules = (
            f"table inet {TABLE} {{ chain in {{ type filter hook input priority 0; ip daddr {address} drop; }}; "
            f"chain out {{ type filter hook output priority 0; ip saddr {address} drop; }}; }}"
        )
        run(*in_network(f"{self._name}-{host}", ("nft", rules)))

    def heal(self, host: str) -> None:
        """End a partial cut, or a silence."""
        space = f"{self._name}-{host}"
        run(*in_network(space, ("nft", "delete", "table", "inet", TABLE)), check=False)


def _carries(space: str, link: str) -> bool:
    """Whether the kernel sends over a link."""
    (found,) = json.loads(run("ip", "-n", space, "-j", "link", "show", "dev", link))
    return bool(found["operstate"] == "UP")


def zone_network(number: int) -> str:
    """The addresses of one zone."""
    return f"{NETWORK}.{number}.0/24"
