"""Keys through the whole engine on a clock of its own: in the audio (jitter buffer, G.711, detector), and as events."""

import random

import numpy as np
import pytest

from tests.e2e.audio_keys import Score, noisy_keys, score
from tests.e2e.audio_legs import shuffled
from tests.media.engine.rig import LEGS, Peer, Rig
from trunkline.media import protocol
from trunkline.rtp import g711
from trunkline.rtp.telephone_event import END_PACKETS, Payload
from trunkline.rtp.telephone_event import KEYS as EVENT_KEYS

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


ON, PERIOD = 5, 9
"""Ticks of a press by telephone-event, and with the pause after it."""
LOSS = 0.02


def event_packets(keys: str, dice: random.Random, most_late: int) -> list[list[tuple[int, int, Payload | None]]]:
    """By tick of arrival: (sequence number, timestamp, event or None: audio), counted from the first packet."""
    arrivals: list[list[tuple[int, int, Payload | None]]] = [[] for _ in range(len(keys) * PERIOD + most_late + SETTLE)]
    sequence = 0
    for tick in range(len(keys) * PERIOD):
        press, at = divmod(tick, PERIOD)
        last = at == ON - 1
        event = Payload(EVENT_KEYS.index(keys[press]), last, (at + 1) * FRAME) if at < ON else None
        for _ in range(END_PACKETS if last else 1):
            if dice.random() >= LOSS:
                stamp = (press * PERIOD if event else tick) * FRAME
                arrivals[tick + dice.randint(0, most_late)].append((sequence, stamp, event))
            sequence += 1
    for due in arrivals:
        dice.shuffle(due)
    return arrivals


@pytest.mark.parametrize("stall", [0, 5, 15, 30])
def test_events_are_told_once_whatever_the_network_and_stalls_do(stall: int) -> None:
    """2 % are lost, all are up to 40 ms late in any order; every two seconds the engine misses so many ticks."""
    rig, dice = Rig(), random.Random(stall)
    peers = {name: rig.open(name) for name in (f"leg{index}" for index in range(LEGS))}
    wanted = {name: shuffled(KEYS, index) for index, name in enumerate(peers)}
    arrivals = {name: event_packets(keys, dice, 2) for name, keys in wanted.items()}
    began = {name: (peer.sequence, peer.timestamp) for name, peer in peers.items()}
    for tick in range(len(arrivals["leg0"])):
        for name, peer in peers.items():
            for sequence, stamp, event in arrivals[name][tick]:
                peer.sequence, peer.timestamp = began[name][0] + sequence, began[name][1] + stamp
                peer.send(event.encode() if event else bytes(FRAME), 101 if event else 0)
        if tick % 100 < stall:
            rig.now += 1
        else:
            rig.tick()
    rig.tick(SETTLE)
    told = dict.fromkeys(peers, "")
    for digit in rig.told(protocol.Digit):
        assert digit.how == "rfc4733"
        told[digit.leg] += digit.digit
    assert told == wanted
