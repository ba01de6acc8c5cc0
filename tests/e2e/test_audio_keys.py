"""Keys, by telephone-event, in the audio and by INFO: each press is told once, and speech presses none."""

import difflib
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest

from tests.e2e.audio_bridge import stalls
from tests.e2e.audio_legs import Legs, shuffled
from tests.e2e.audio_peer import RATE, Network, Peer, Press, Samples, dual_tone, quiet
from tests.e2e.audio_speech import speech

SETTLE_MS = 300
IN_BAND_SHARE = 0.99
STALLED_SHARE = 0.85
"""Of in-band keys on a machine that stood still, each time of which may cut a key of each leg."""
OFFSET = 0.015
SNR_DB = 20.0
BAD_NETWORK = Network(loss=0.02, jitter_ms=40)


class Presses(NamedTuple):
    """How a leg presses keys."""

    on_ms: int
    off_ms: int
    network: Network | None = None
    ptime: int = 20


Check = Callable[[dict[str, str]], None]
"""Looks at what the calls' actions were told, by caller."""


def tell(legs: Legs, *checks: Check, timeout_s: float = 20) -> None:
    """Have all calls answered that were added, and check what they told."""
    legs.dialled()
    told = legs.told(timeout_s)
    for check in checks:
        check(told)


def events(legs: Legs, ways: Sequence[Presses], count: int) -> Check:
    """Add a leg for each way, of each codec in turn, that presses so many keys; all of them are told."""
    wanted = {}
    for index, way in enumerate(ways):
        codec, event_type = ("PCMU", "PCMA")[index % 2], (101, 96)[index // 2 % 2]
        peer = Peer(legs.wire, codec=codec, event_type=event_type, ptime=way.ptime, seed=index)
        peer.network = way.network
        keys = shuffled(count, index)
        legs.add(peer, count)
        wanted[next(reversed(legs.calls))] = keys
        peer.say(quiet(SETTLE_MS), *(Press(key, way.on_ms, way.off_ms) for key in keys))

    def check(told: dict[str, str]) -> None:
        assert {caller: told[caller] for caller in wanted} == wanted
        print(f"{count * len(ways)} presses by telephone-event, all told")

    return check


def test_keys_in_every_form(legs: Legs) -> None:
    good = [Presses(40, 40), Presses(50, 50), Presses(60, 40), Presses(100, 60, ptime=10), Presses(60, 60, ptime=30)]
    tell(legs, events(legs, [*good, *[Presses(100, 80, BAD_NETWORK)] * 8], 16), tones(legs, 32, 12), both_forms(legs))


@pytest.mark.slow
def test_hundreds_of_telephone_events(legs: Legs) -> None:
    times = (40, 40), (100, 100), (250, 50), (60, 200)
    ways = [Presses(*one, ptime=ptime) for one in times for ptime in (10, 20, 30, 60)]
    tell(legs, events(legs, ways, 100), timeout_s=60)


@pytest.mark.slow
def test_many_telephone_events_with_losses_and_jitter(legs: Legs) -> None:
    tell(legs, events(legs, [Presses(100, 100, BAD_NETWORK)] * 40, 100), timeout_s=60)


# -- in the audio --------------------------------------------------------------------------------------------------


class Score(NamedTuple):
    """Of keys that were pressed: how many were told in their place, and what was told beside."""

    pressed: int
    told: int
    beside: int


def noisy_keys(keys: str, rng: random.Random) -> Samples:
    """Tones of 40 to 100 ms at random levels, frequencies up to 1.5 % off, in noise 20 dB below each."""
    noise = np.random.default_rng(rng.getrandbits(32))
    level_db = rng.uniform(-22, -6)
    parts = []
    for key in keys:
        off = rng.uniform(-OFFSET, OFFSET), rng.uniform(-OFFSET, OFFSET)
        tone = dual_tone(key, rng.randint(40, 100), off=off, level_db=level_db, twist_db=rng.uniform(-6, 3))
        parts.append(np.concatenate([tone, quiet(rng.randint(45, 100))]).astype(float))
        rms = np.sqrt(np.mean(tone.astype(float) ** 2))
        parts[-1] += noise.normal(0, rms * 10 ** (-SNR_DB / 20), len(parts[-1]))
    return np.clip(np.concatenate(parts), -32768, 32767).astype(np.int16)


def score(wanted: str, told: str) -> Score:
    blocks = difflib.SequenceMatcher(None, wanted, told, autojunk=False).get_matching_blocks()
    right = sum(block.size for block in blocks)
    return Score(len(wanted), right, len(told) - right)


def tones(legs: Legs, count: int, each: int) -> Check:
    """Add so many legs without telephone-events that press so many keys each; nearly all are told, nothing beside, but
    for what the machine did not let through in time: such audio is cut, and a key with it may be two or none."""
    rng = random.Random(11)
    wanted, peers = {}, []
    for index in range(count):
        peer = Peer(legs.wire, codec=("PCMU", "PCMA")[index % 2], event_type=-1, keep=False)
        keys = shuffled(each, 100 + index)
        peer.say(quiet(SETTLE_MS), noisy_keys(keys, rng))
        legs.add(peer, each, timeout_s=2)
        peers.append(peer)
        wanted[next(reversed(legs.calls))] = keys

    def check(told: dict[str, str]) -> None:
        scores = [score(keys, told[caller]) for caller, keys in wanted.items()]
        total = Score(*(sum(column) for column in zip(*scores, strict=True)))
        print(f"in-band: {total}, {total.told / total.pressed:.2%}; the wire was {legs.wire.behind_ms:.0f} ms late")
        share = STALLED_SHARE if stalls(legs.wire, *peers) else IN_BAND_SHARE
        assert total.told >= share * total.pressed
        assert total.beside <= (1 - share) * total.pressed

    return check


@pytest.mark.slow
def test_many_tones(legs: Legs) -> None:
    tell(legs, tones(legs, 60, 100), timeout_s=40)


# -- in two ways at once -------------------------------------------------------------------------------------------


def both_forms(legs: Legs) -> Check:
    """Add legs whose keys are telephone-events and tones at once: each press is one key."""
    keys = shuffled(16, 5)
    together = Peer(legs.wire)  # events, and the tone in the audio beside them
    together.say(quiet(SETTLE_MS), *(Press(key, 80, 60, dual_tone(key, 80)) for key in keys))
    leaking = Peer(legs.wire)  # a gateway that hears the tone lets its beginning through before the event
    leaking.say(quiet(SETTLE_MS))
    for key in keys[:10]:
        leaking.say(dual_tone(key, 60), Press(key, 80, 60))
    twice = Peer(legs.wire)  # the same key again and again, in both forms
    twice.say(quiet(SETTLE_MS), *(Press("7", 80, 60, dual_tone("7", 80)) for _ in range(10)))
    wanted = {}
    for peer, pressed in zip((together, leaking, twice), (keys, keys[:10], "7" * 10), strict=True):
        peer.say(Press("#", 80, 60, dual_tone("#", 80)), quiet(1000))
        legs.add(peer, len(pressed) + 1)
        wanted[next(reversed(legs.calls))] = f"{pressed}#"

    def check(told: dict[str, str]) -> None:
        assert {caller: told[caller] for caller in wanted} == wanted

    return check


def test_info(legs: Legs) -> None:
    keys = shuffled(16, 6)
    alone, beside = Peer(legs.wire, event_type=-1), Peer(legs.wire)
    calls = [legs.add(alone, 16), legs.add(beside, 6)]
    legs.dialled()
    for key in keys:
        calls[0].info(key)
    for key in keys[:5]:  # an event, and INFO about the same press
        beside.say(Press(key, 60, 40))
        beside.said(2)
        calls[1].info(key)
    beside.say(Press("#", 60, 40))
    assert list(legs.told(20).values()) == [keys, f"{keys[:5]}#"]


# -- speech --------------------------------------------------------------------------------------------------------


def speak(legs: Legs, made: list[Samples]) -> int:
    """A leg for each of these speeches, which then presses two keys by INFO; how many keys more were told."""
    longest_s = max(len(samples) for samples in made) // RATE + 10
    for index, samples in enumerate(made):
        peer = Peer(legs.wire, codec=("PCMU", "PCMA")[index % 2], event_type=-1, keep=False)
        peer.say(quiet(SETTLE_MS), samples, quiet(SETTLE_MS))
        legs.add(peer, finish="#", timeout_s=longest_s + 30)
    legs.dialled()
    for call in legs.calls.values():
        call.peer.said(longest_s)
    for call in legs.calls.values():
        call.info("0")
        call.info("#")
    told = legs.told(20)
    assert all(keys.endswith("0") for keys in told.values())
    return sum(len(keys) - 1 for keys in told.values())


def test_speech_presses_nothing(legs: Legs) -> None:
    assert speak(legs, speech(16, 2, share_neural=0)) == 0


@pytest.mark.slow
def test_half_an_hour_of_speech(legs: Legs) -> None:
    false = speak(legs, speech(60, 30))
    print(f"{false} false keys in {60 * 30} s of speech")
    assert false <= 1
