"""What the old process of the node passes on reaches the next one, which reads nothing before its turn."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from trunkline.inherited import BEGUN, CONNECTIONS, KINDS, Channel
from trunkline.supervisor.handover import Handover, Patience
from trunkline.supervisor.life import Life
from trunkline.supervisor.plan import Child, Plan
from trunkline.supervisor.run import Supervisor

REQUESTS = 400
"""Each that ends in a turn of its own comes as a message; a socket that is not read takes some 280."""


@pytest.fixture
def lives() -> Iterator[list[tuple[Life, Channel]]]:
    """Two processes, and their ends of the channel."""
    made = []
    for _ in range(2):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        made.append((Life(process, ["x"], -1, 0.0, Channel(ours)), Channel(theirs)))
    yield made
    for life, theirs in made:
        life.kill()
        theirs.end.close()
        assert life.channel is not None
        life.channel.end.close()


def test_connections_passed_on_one_by_one_all_reach_the_next_process(lives: list[tuple[Life, Channel]]) -> None:
    (old, _), (new, its) = lives
    supervisor = Supervisor(Plan(children=[Child("node", [sys.executable], [], True)], sip_port=-1))
    assert supervisor.main is not None
    supervisor.main.life = old
    supervisor.handover = Handover(supervisor, old, ["x"], Patience())
    for _ in range(REQUESTS):
        supervisor._hold(CONNECTIONS, [os.open(os.devnull, os.O_RDONLY)])
    supervisor._hold(BEGUN, [os.open(os.devnull, os.O_RDONLY) for _ in range(2)])
    supervisor.take_turn(new)
    supervisor._close_held(KINDS)
    got = {CONNECTIONS: 0, BEGUN: 0}
    while (heard := its.heard()) is not None:
        message, descriptors = heard
        got[message["do"]] += len(descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
    assert got == {CONNECTIONS: REQUESTS, BEGUN: 2}
