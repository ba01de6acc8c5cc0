"""Two endpoints that a <Dial> connects, and how long their audio takes."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import numpy as np

from tests.e2e.audio_line import Call, Line
from tests.e2e.audio_peer import HOST, MASK, RATE, Got, Peer, Samples, Wire, encoded
from tests.interop.switch import Switch

FLOW_S = 5.0
FRAME = 160
PAUSE = 100
"""Frames without a packet that are no stall."""


def noise(seconds: float, seed: int, level: float = 3000.0) -> Samples:
    """Audio of which no 20 ms come twice."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(0, level, int(seconds * RATE)), -30000, 30000).astype(np.int16)


def sounding(peer: Peer, since_ns: int = 0) -> list[tuple[int, bytes]]:
    """When packets that hold more than silence came, and what they held."""
    quiet = {codec: set(encoded(np.zeros(1, np.int16), codec)) for codec in ("PCMU", "PCMA")}
    still = quiet["PCMU"] | quiet["PCMA"]
    return [(got.at_ns, got.payload) for got in peer.audio() if got.at_ns >= since_ns and not set(got.payload) <= still]


def delays(talker: Peer, listener: Peer, since_ns: int = 0, until_ns: int = 1 << 63) -> list[tuple[int, float]]:
    """When each packet of the talker that came out as it was had left, and how many ms it took."""
    left = {one.payload: one.at_ns for one in talker.sent}
    found = []
    for got in listener.audio():
        at_ns = left.get(got.payload)
        if at_ns is not None and since_ns <= at_ns < until_ns:
            found.append((at_ns, (got.at_ns - at_ns) / 1e6))
    return found


@contextmanager
def bridged(switch: Switch, line: Line, caller: Peer, callee: Peer, dial: str = "") -> Iterator[tuple[Call, Call]]:
    """A call that is connected with another; both talk (silence). `dial`: attributes of <Dial>."""
    switch.answers(f"<Dial {dial}><Sip>sip:bob@{HOST}:{line.port}</Sip></Dial>")
    line.expect(callee)
    calls = [line.dial(switch.number, caller), line.taken()]
    try:
        for peer, other in ((caller, callee), (callee, caller)):
            mark = noise(0.06, id(peer) % 1000)
            peer.say(mark)
            heard(other, encoded(mark, other.codec)[:60])
        yield calls[0], calls[1]
    finally:
        for call in calls:
            call.hang_up()


def heard(peer: Peer, octets: bytes, timeout_s: float = FLOW_S) -> None:
    """Wait until this comes."""
    until = time.monotonic() + timeout_s
    while octets not in b"".join(got.payload for got in peer.audio()[-100:]):
        assert time.monotonic() < until, "it is not heard"
        time.sleep(0.02)


def missed(packets: Sequence[Got]) -> list[tuple[int, int]]:
    """When the server missed ticks while it sent these: between which two packets."""
    steps = [((after.timestamp - before.timestamp) & MASK, before, after) for before, after in pairwise(packets)]
    return [(before.at_ns, after.at_ns) for step, before, after in steps if FRAME < step <= PAUSE * FRAME]


def stalls(wire: Wire, peer: Peer) -> list[tuple[int, int]]:
    """When the machine stood still: here, or at the server as this one heard."""
    return wire.stalls + missed(peer.audio())
