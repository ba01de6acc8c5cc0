"""The compiled helper and its fallback do the same: two engines on the same random network, compared tick by tick."""

import random

import numpy as np
import pytest

from tests.media.engine.rig import Peer, Rig, sine
from trunkline.media import protocol
from trunkline.rtp import dtmf, g711
from trunkline.rtp.telephone_event import Payload

LEGS = 4


class Network:
    """Peers that lose, delay, repeat and reorder; the same for the same seed."""

    def __init__(self, helper: str, seed: int) -> None:
        random.seed(seed)  # SSRCs and sequences of the engine
        self.rig = Rig(helper)
        self.peers = [self.rig.open(f"leg{i}") for i in range(LEGS)]
        self.rig.do(protocol.Bridge(a="leg0", b="leg1"))
        self.rig.do(protocol.Record(recording="RE1", leg="leg0", folder="f"))
        tone = protocol.Tone(parts=[((440, 480), 130), ((), 70)])
        self.rig.do(protocol.Play(leg="leg2", play="p", items=[tone, protocol.Digits(digits="12")], loop=0))
        self.random = random.Random(seed)
        self.late: list[tuple[int, Peer, bytes]] = []

    def tick(self) -> None:
        chance = self.random
        skip = chance.choice([0] * 40 + [1, 3])
        for peer in self.peers:
            for _ in range(chance.choice([0, 1, 1, 1, 1, 1, 2])):
                self._send(peer)
        for due, peer, data in [late for late in self.late if late[0] <= self.rig.now]:
            self.rig.deliver(peer.slot, data, peer.source)
            self.late.remove((due, peer, data))
        self.rig.tick(skip=skip)

    def _send(self, peer: Peer) -> None:
        chance = self.random
        what = chance.random()
        if what < 0.02:
            peer.timestamp += chance.choice([1600, 100_000, -50_000])
        elif what < 0.03:
            peer.ssrc += 1
        elif what < 0.06:
            peer.send(Payload(chance.randrange(16), chance.random() < 0.5, 480).encode(), 101)
        elif what < 0.07:
            peer.send(b"\x30", 13)
        samples = dtmf.key("5", 20) if chance.random() < 0.1 else sine(chance.choice([0, 300, 1000]), 160)
        law = chance.choice([g711.PCMU, g711.PCMA])
        queue = self.rig.wire.inbox[2 * peer.slot]
        before = len(queue)
        peer.speak(
            samples[: chance.choice([80, 160, 160, 160])], law=law, copies=chance.choice([0, 1, 1, 1, 1, 1, 1, 2])
        )
        while len(queue) > before and chance.random() < 0.1:
            data, _, _ = queue.pop()
            self.late.append((self.rig.now + chance.randrange(1, 8), peer, data))


@pytest.mark.parametrize("seed", range(6))
def test_both_helpers_do_the_same(seed: int) -> None:
    one, two = Network("compiled", seed), Network("fallback", seed)
    for number in range(250):
        one.tick()
        two.tick()
        assert np.array_equal(one.rig.engine.buffer.heard, two.rig.engine.buffer.heard), number
        assert np.allclose(one.rig.engine.buffer.energy, two.rig.engine.buffer.energy, rtol=1e-5), number
    for slot in range(16):
        assert one.rig.wire.outbox[2 * slot] == two.rig.wire.outbox[2 * slot]
    assert np.array_equal(one.rig.recorded(), two.rig.recorded())
    assert [(type(e), getattr(e, "digit", "")) for e in one.rig.events] == [
        (type(e), getattr(e, "digit", "")) for e in two.rig.events
    ]
    for name in ("received", "late", "position", "newest", "depth", "top_sequence", "ssrc"):
        assert np.array_equal(getattr(one.rig.state, name), getattr(two.rig.state, name)), name
    # Whatever came, what is held is bounded and the legs go on.
    held = (one.rig.state.newest - one.rig.state.position + 2**31) % 2**32 - 2**31
    assert held[:LEGS].max() < 4096
    assert (one.rig.state.sent[:LEGS] == 250).all()
