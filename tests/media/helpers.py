"""A media process, its client and a peer on the wire, for tests across processes."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from trunkline.inherited import NAMES
from trunkline.media import protocol
from trunkline.media.client import MediaClient
from trunkline.media.process import Config
from trunkline.rtp import g711, packet
from trunkline.rtp.telephone_event import Payload

WAIT_S = 30.0
"""A process takes a second to load; where many start at once on a busy machine, many times that."""


def start_process(config: Config, pass_fds: tuple[int, ...] = (), inherited: str = "") -> subprocess.Popen[bytes]:
    """`python -m trunkline.media.process` with this configuration; `inherited`: descriptors by name."""
    command = [sys.executable, "-m", "trunkline.media.process", "--config-json", msgspec.json.encode(config).decode()]
    environment = {**os.environ, **({NAMES: inherited} if inherited else {})}
    return subprocess.Popen(command, pass_fds=pass_fds, env=environment)


def end_process(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    assert process.wait(WAIT_S) == 0


def free_range() -> tuple[int, int]:
    """A range of ports that is likely to be free: around one that the system gave."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    first = min(port & ~1, 65_000)
    return first, first + 400


def config(folder: Path, **changes: Any) -> Config:
    low, high = free_range()
    given = {"control": str(folder / "media.sock"), "port_min": low, "port_max": high, "legs": 20, **changes}
    return Config(**given)


class Leg:
    """A leg of the process, its events, and the far end's socket."""

    def __init__(self, client: MediaClient, name: str, *, host: str = "127.0.0.1", **fields: Any) -> None:
        self.client = client
        self.name = name
        self.events: list[protocol.Event] = []
        self._changed = asyncio.Event()
        self.host = host
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((host, 0))
        self.sock.setblocking(False)
        self._came: list[bytes] = []
        taken = client.take_slot()
        assert taken is not None
        self.slot, self.port = taken
        self.sequence, self.timestamp = 100, 5000
        client.watch(name, self._take)
        given = {
            "payload_types": {0: "PCMU", 101: "telephone-event"},
            "dtmf_payload_type": 101,
            "remote": self.sock.getsockname()[:2],
            **fields,
        }
        client.send(protocol.Open(leg=name, slot=self.slot, **given))

    def _take(self, event: protocol.Event) -> None:
        self.events.append(event)
        self._changed.set()

    def speak(self, samples: bytes, payload_type: int = 0) -> None:
        """Send 20 ms of PCM."""
        self.send(payload_type, g711.encode(samples))
        self.timestamp += 160

    def send(self, payload_type: int, payload: bytes) -> None:
        data = packet.Packet(
            payload_type=payload_type, sequence=self.sequence, timestamp=self.timestamp, ssrc=77, payload=payload
        )
        self.sequence += 1
        self.sock.sendto(data.encode(), (self.host, self.port))

    def press(self, code: int) -> None:
        """A key as telephone-events, all at once."""
        for duration in (160, 320, 480):
            self.send(101, Payload(code, False, duration).encode())
        for _ in range(3):
            self.send(101, Payload(code, True, 640).encode())
        self.timestamp += 800

    def received(self) -> list[packet.Packet]:
        """What has come since the last time."""
        self._listen()
        came, self._came = self._came, []
        return [packet.parse(data) for data in came]

    def waiting(self) -> bool:
        """Whether something has come that `received` has not taken."""
        self._listen()
        return bool(self._came)

    def _listen(self) -> None:
        """Take what has come from the media process; others may still send to who had the port before."""
        while True:
            try:
                data, source = self.sock.recvfrom(2000)
            except BlockingIOError:
                return
            if source[1] == self.port:
                self._came.append(data)

    async def event(self, kind: type, matching: Callable[[Any], bool] = lambda event: True) -> Any:
        """The first event of a kind, waiting for it."""
        end = time.monotonic() + WAIT_S
        while True:
            for event in self.events:
                if isinstance(event, kind) and matching(event):
                    return event
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), end - time.monotonic())

    def close(self) -> None:
        self.sock.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that no event tells."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.01)
