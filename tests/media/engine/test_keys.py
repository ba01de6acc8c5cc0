"""Keys in the audio through the whole engine on a clock of its own: jitter buffer, G.711, detector."""

import random

import numpy as np
import pytest

from tests.e2e.audio_keys import Score, noisy_keys, score
from tests.e2e.audio_legs import shuffled
from tests.media.engine.rig import LEGS, Peer, Rig
from trunkline.media import protocol
from trunkline.rtp import g711

KEYS = 96
SHARE = 0.99
FRAME = 160
SETTLE = 15
"""Ticks of silence before and after."""


def press(peers: list[Peer], audio: list[np.ndarray], dice: random.Random, most_late: int) -> None:
    """Say all of it; each packet waits for up to so many ticks."""
    rig = peers[0].rig
    frames = [np.pad(one, (SETTLE * FRAME, SETTLE * FRAME + -len(one) % FRAME)).reshape(-1, FRAME) for one in audio]
    longest = max(map(len, frames))
    arrivals: list[list[tuple[Peer, np.ndarray, int]]] = [[] for _ in range(longest + most_late + SETTLE)]
    for peer, of_leg in zip(peers, frames, strict=True):
        for tick, frame in enumerate(of_leg):
            arrivals[tick + dice.randint(0, most_late)].append((peer, frame, tick))
    began = [(peer.sequence, peer.timestamp) for peer in peers]
    for due in arrivals:
        for peer, frame, tick in due:
            sequence, timestamp = began[peers.index(peer)]
            peer.sequence, peer.timestamp = sequence + tick, timestamp + tick * FRAME
            peer.speak(frame, law=(g711.PCMU, g711.PCMA)[peers.index(peer) % 2])
        rig.tick()


@pytest.mark.parametrize("most_late", [0, 2])
def test_noisy_keys_are_told_and_nothing_beside(most_late: int) -> None:
    """At their times, and up to 40 ms late in any order. What a press is, and the share, are those of
    tests/e2e/test_audio_keys.py, where a machine that stands still takes audio away; here nothing is."""
    rig, dice = Rig(), random.Random(11)
    names = [f"leg{index}" for index in range(LEGS)]
    peers = [rig.open(name, dtmf_payload_type=-1) for name in names]
    wanted = [shuffled(KEYS, 100 + index) for index in range(LEGS)]
    press(peers, [noisy_keys(keys, dice)[0] for keys in wanted], dice, most_late)
    told = dict.fromkeys(names, "")
    for event in rig.told(protocol.Digit):
        assert event.how == "in-band"
        told[event.leg] += event.digit
    total = Score(0, 0, 0)
    for name, keys in zip(names, wanted, strict=True):
        total = total.plus(score(keys, told[name]))
    assert total.told >= SHARE * total.pressed
    assert total.beside <= (1 - SHARE) * total.pressed
