"""What a flood of REGISTERs does to calls: the time from INVITE to final response, quiet and flooded in turns.

The times are printed. What fails the test is the node's CPU time that the flood costs, for on a machine that does other
things as well (the flood is made on it) the 99th percentile of the times moves by more than the flood's share."""

import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.test_sip_phones import Domain, node_of
from tests.e2e.voice_app import VoiceApp
from tests.security.test_registration_flood import FLOOD_S, RATE
from trunkline.testing.local import Local

ROOT = Path(__file__).parents[2]
ROUNDS = 4
CALLS = 60
"""Of each round, quiet and flooded."""
PAUSE_S = 0.05
PATIENCE_S = 3.0
MOST_CPU = 0.2
"""Of a core, that a flood of 1,500 REGISTERs a second may cost the node."""
FLOOD = (
    "import sys; from tests.security.test_registration_flood import Flood;"
    " flood = Flood(sys.argv[1], int(sys.argv[2])); flood.run(); print(flood.sent, sum(flood.statuses.values()))"
)
ANSWERED = 100
"""Least REGISTERs of the first flood that are answered."""
_numbers = itertools.count(1)

pytestmark = pytest.mark.slow


@pytest.fixture
def app() -> Iterator[VoiceApp]:
    app = VoiceApp()
    yield app
    app.close()


class Carrier:
    """Sends INVITEs from the address of the simulated trunk."""

    def __init__(self, port: int, number: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(PATIENCE_S)
        self._target, self._number = ("127.0.0.1", port), number

    def call(self) -> float:
        """Seconds from INVITE to final response."""
        count, port = next(_numbers), self._socket.getsockname()[1]
        sdp = f"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n"
        head = (
            f"{{}} sip:{self._number}@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bKf{count}\r\n"
            f"From: <sip:+12025550123@127.0.0.1>;tag={count}\r\nTo: <sip:{self._number}@127.0.0.1>{{}}\r\n"
            f"Call-ID: latency-{os.getpid()}-{count}\r\nCSeq: 1 {{}}\r\nMax-Forwards: 70\r\n"
            f"Contact: <sip:127.0.0.1:{port}>\r\n"
        )
        body = f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n\r\n{sdp}"
        began = time.perf_counter()
        self._socket.sendto((head.format("INVITE", "", "INVITE") + body).encode(), self._target)
        while True:
            text = self._socket.recv(65536).decode()
            if f"latency-{os.getpid()}-{count}\r\n" in text and not text.startswith("SIP/2.0 1"):
                break
        took = time.perf_counter() - began
        assert text.startswith("SIP/2.0 486"), text
        tag = text.partition("\r\nTo: ")[2].partition("\r\n")[0].partition(";tag=")[2]
        ack = head.format("ACK", f";tag={tag}", "ACK") + "Content-Length: 0\r\n\r\n"
        self._socket.sendto(ack.encode(), self._target)
        return took

    def close(self) -> None:
        self._socket.close()

    def calls(self) -> list[float]:
        """A round."""
        found = []
        for _ in range(CALLS):
            found.append(self.call())
            time.sleep(PAUSE_S)
        return found


@contextmanager
def measured(trunkline: Local, shares: list[float]) -> Iterator[None]:
    """The share of a core that the node uses inside."""
    node, began = node_of(trunkline), time.monotonic()
    before = cpu_s(node)
    yield
    shares.append((cpu_s(node) - before) / (time.monotonic() - began))


def cpu_s(pid: int) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def test_what_a_flood_costs_calls(trunkline: Local, app: VoiceApp, capsys: pytest.CaptureFixture[str]) -> None:
    domain = Domain(trunkline, app)
    domain.phone("ada")
    domain.answers("<Reject reason='busy'/>")
    trunkline.answer_at(f"{app.url}/domain")
    port = trunkline.simulator("GET", "/_simulator/phones")["platform"][1]
    carrier = Carrier(port, trunkline.number)
    carrier.calls()  # everything is loaded
    quiet: list[float] = []
    flooded: list[float] = []
    shares: list[list[float]] = [[], []]
    floods: list[tuple[int, int]] = []
    for _ in range(ROUNDS):
        with measured(trunkline, shares[0]):
            quiet += carrier.calls()
        flood = subprocess.Popen(
            [sys.executable, "-c", FLOOD, domain.name, str(port)], cwd=ROOT, preexec_fn=lambda: os.nice(10),
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            time.sleep(1.0)  # it has begun
            with measured(trunkline, shares[1]):
                flooded += carrier.calls()
        finally:
            told, _ = flood.communicate(timeout=60)
        counted = [int(word) for word in told.split()]
        floods.append((counted[0], counted[1]))
    with capsys.disabled():
        for name, values in (("quiet", quiet), ("flooded", flooded)):
            figures = ", ".join(
                f"p{int(share * 100)} {percentile(values, share) * 1e3:.1f} ms" for share in (0.5, 0.9, 0.99)
            )
            print(f"\n{name}: {figures} of {len(values)} calls", end="")
        print(f"\nCPU of the node: {min(shares[0]):.3f} quiet, {max(shares[1]):.3f} flooded (the worst round)", end="")
    carrier.close()
    assert min(sent for sent, _ in floods) >= RATE * FLOOD_S * 0.9, floods
    assert floods[0][1] > ANSWERED, "the flood has to reach the node before it is banned"
    assert max(shares[1]) - min(shares[0]) < MOST_CPU
