"""Audio leaves no later than the host's deadline says, whatever the host does meanwhile."""

import asyncio
import errno
import os
import signal
import socket
from pathlib import Path

import numpy as np
import pytest

from tests.media.helpers import Leg, config, end_process, start_process, until
from trunkline.media import fence as module
from trunkline.media import protocol
from trunkline.media.client import MediaClient
from trunkline.media.fence import NEVER_NS, FenceMemory, boottime_ns
from trunkline.media.native import load
from trunkline.media.native.addresses import pack_sockaddr, packed_address

LEASE_NS = 400_000_000
FRAME_LEGS = 70
"""More packets than the helper sends between two looks at the deadline."""


def test_two_processes_share_the_deadline() -> None:
    fd = module.make()
    writer, reader = FenceMemory(fd), FenceMemory(fd)
    assert not reader.open  # nobody has written it yet
    writer.set(boottime_ns() + 10**10)
    assert reader.open
    assert reader.deadline_ns == writer.deadline_ns
    writer.deadline_ns = boottime_ns()
    assert not reader.open
    writer.set(NEVER_NS)
    assert reader.open
    os.close(fd)


@pytest.mark.parametrize("name", ["compiled", "fallback"])
def test_nothing_is_sent_once_the_deadline_has_passed(name: str) -> None:
    helper = load(name)
    ours, theirs = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    theirs.bind(("127.0.0.1", 0))
    theirs.setblocking(False)
    address = np.frombuffer(pack_sockaddr(packed_address("127.0.0.1"), theirs.getsockname()[1], six=False), np.uint8)
    to = np.zeros((FRAME_LEGS, 28), np.uint8)
    to[:, : len(address)] = address
    to_length = np.full(FRAME_LEGS, len(address), np.int32)
    data, length = np.full((FRAME_LEGS, 64), 7, np.uint8), np.full(FRAME_LEGS, 20, np.int32)
    rows, fds = np.arange(FRAME_LEGS), np.full(FRAME_LEGS, ours.fileno(), np.int32)
    until_ns = np.array([boottime_ns() - 1])
    assert set(helper.send(fds, rows, data, length, to, to_length, until_ns).tolist()) == {errno.ECANCELED}
    with pytest.raises(BlockingIOError):
        theirs.recv(100)
    until_ns[0] = boottime_ns() + 10**10
    assert not helper.send(fds, rows, data, length, to, to_length, until_ns).any()
    assert not helper.send(fds, rows, data, length, to, to_length).any()
    assert theirs.recv(100) == bytes([7] * 20)
    ours.close()
    theirs.close()


@pytest.mark.parametrize("helper", ["compiled", "fallback"])
async def test_after_a_stop_at_most_one_ticks_packet_leaves(tmp_path: Path, helper: str) -> None:
    fd = module.make()
    memory = FenceMemory(fd)
    process = start_process(config(tmp_path, fence_fd=fd, helper=helper), (fd,))
    client = MediaClient("node")
    assert await client.start(str(tmp_path / "media.sock"))
    leg = Leg(client, "CA1")
    client.send(protocol.Play(leg="CA1", play="p", items=[protocol.Silence(ms=60_000)]))
    await asyncio.sleep(0.2)
    assert leg.received() == []  # no lease yet
    memory.set(boottime_ns() + 10**11)
    await until(leg.waiting)
    memory.set(boottime_ns() + LEASE_NS)
    os.kill(process.pid, signal.SIGSTOP)
    await asyncio.sleep(2 * LEASE_NS / 1e9)
    leg.received()
    os.kill(process.pid, signal.SIGCONT)
    await asyncio.sleep(0.3)
    assert len(leg.received()) <= 1
    memory.set(boottime_ns() + 10**11)  # it has a lease again
    await until(leg.waiting)
    await client.close()
    end_process(process)
    leg.close()
    os.close(fd)
