"""A leg with SRTP through real processes and sockets; the far end is libsrtp."""

import asyncio
import os
import random
import socket
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
import pylibsrtp
import pytest
from pylibsrtp import Policy

from tests.media.helpers import Leg, config, end_process, start_process, until
from trunkline.media import protocol
from trunkline.media.client import MediaClient
from trunkline.media.ports import PortKeeper, PortService
from trunkline.rtp import packet

TONE = (8000 * np.sin(2 * np.pi * 440 * np.arange(160) / 8000)).astype("<i2").tobytes()
OURS, THEIRS = (random.Random(seed).randbytes(30) for seed in (1, 2))
KEYS = protocol.Srtp(suite="AES_CM_128_HMAC_SHA1_80", ours=b64encode(OURS).decode(), theirs=b64encode(THEIRS).decode())


class SecureLeg(Leg):
    """The far end encrypts and decrypts; a packet that comes twice, or is not authentic, raises."""

    def __init__(self, client: MediaClient, name: str, **fields: Any) -> None:
        super().__init__(client, name, srtp=KEYS, **fields)
        self.sender = pylibsrtp.Session(Policy(key=THEIRS, ssrc_type=Policy.SSRC_ANY_OUTBOUND))
        self.receiver = pylibsrtp.Session(Policy(key=OURS, ssrc_type=Policy.SSRC_ANY_INBOUND))
        self.sock = _Secured(self)  # type: ignore[assignment]


class _Secured:
    """The leg's socket."""

    def __init__(self, leg: SecureLeg) -> None:
        self.inner: socket.socket = leg.sock
        self.leg = leg

    def sendto(self, data: bytes, address: tuple[str, int]) -> None:
        self.inner.sendto(self.leg.sender.protect(data), address)

    def recvfrom(self, most: int) -> tuple[bytes, Any]:
        data, source = self.inner.recvfrom(most)
        return (self.leg.receiver.unprotect(data) if source[1] == self.leg.port else data), source

    def close(self) -> None:
        self.inner.close()


@pytest.mark.parametrize("helper", ["compiled", "fallback"])
async def test_killed_processes_leave_a_stream_that_libsrtp_takes(
    tmp_path: Path, helper: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Three times the process is killed while it sends; no index of the key is used again."""
    settings = config(tmp_path, ports_path=str(tmp_path / "ports.sock"), helper=helper)
    keeper = PortKeeper("127.0.0.1", settings.port_min, settings.port_max, 40)
    service = PortService(keeper, settings.ports_path)
    settings.state_fd, settings.ring_fd = os.memfd_create("state"), os.memfd_create("ring")
    fds = (settings.state_fd, settings.ring_fd)
    process = start_process(settings, fds)
    client = MediaClient()
    assert await client.start(settings.control)
    leg = SecureLeg(client, "CA1")
    packets: list[packet.Packet] = []
    for _ in range(3):
        await until(leg.waiting)
        leg.speak(TONE)
        await asyncio.sleep(random.uniform(0.05, 0.1))
        process.kill()
        process.wait()
        packets += leg.received()
        process = start_process(settings, fds)
    await until(lambda: client.available)
    await until(leg.waiting)
    for _ in range(5):
        leg.speak(TONE)
        await asyncio.sleep(0.02)
    await leg.event(protocol.Flowing)
    leg.press(7)
    assert (await leg.event(protocol.Digit)).digit == "7"
    packets += leg.received()
    sequences = [(one.sequence - packets[0].sequence) & 0xFFFF for one in packets]
    assert sequences == sorted(set(sequences))
    assert sequences[-1] - len(sequences) <= 4, "a packet at most is missing for each process"
    client.send(protocol.Close(leg="CA1"))
    closed = await leg.event(protocol.Closed)
    assert closed.numbers["packets_received"] >= 5
    leg.close()
    await client.close()
    end_process(process)
    service.close()
    keeper.close()
    for fd in fds:
        os.close(fd)
    out, err = capfd.readouterr()
    for key in (KEYS.ours, KEYS.theirs, OURS.hex(), THEIRS.hex()):
        assert key not in caplog.text + out + err
