"""Keys, by telephone-event, in the audio and by INFO: each press is told once, and speech presses none."""

import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest

from tests.e2e.audio_bridge import stalls
from tests.e2e.audio_keys import Score, noisy_keys, score
from tests.e2e.audio_legs import Legs, shuffled
from tests.e2e.audio_peer import RATE, Network, Peer, Press, Samples, dual_tone, quiet
from tests.e2e.audio_speech import speech

SETTLE_MS = 300
IN_BAND_SHARE = 0.99
FRAME = 160
BEFORE_NS, AFTER_NS = 100_000_000, 400_000_000
"""How long before and after the machine stood still the jitter buffer may be too full or too empty."""
BAD_NETWORK = Network(loss=0.02, jitter_ms=40)
STALL_S = 0.25


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


def test_keys_are_told_of_peers_that_stand_still(legs: Legs) -> None:
    """With what they did not send in that time, all at once but in the order of its network, they catch up."""
    check = events(legs, [Presses(100, 80, BAD_NETWORK)] * 16, 8)
    legs.dialled()
    now = time.time_ns()
    for later_ms in range(300, 1500, 400):
        legs.wire.later(now + later_ms * 1e6, lambda _due: time.sleep(STALL_S))
    check(legs.told(20))
    assert legs.wire.stalled_ms >= 3 * 1000 * STALL_S


@pytest.mark.slow
def test_hundreds_of_telephone_events(legs: Legs) -> None:
    times = (40, 40), (100, 100), (250, 50), (60, 200)
    ways = [Presses(*one, ptime=ptime) for one in times for ptime in (10, 20, 30, 60)]
    tell(legs, events(legs, ways, 100), timeout_s=60)


@pytest.mark.slow
def test_many_telephone_events_with_losses_and_jitter(legs: Legs) -> None:
    tell(legs, events(legs, [Presses(100, 100, BAD_NETWORK)] * 40, 100), timeout_s=60)


# -- in the audio --------------------------------------------------------------------------------------------------


def tones(legs: Legs, count: int, each: int) -> Check:
    """Add so many legs without telephone-events that press so many keys each; nearly all are told, nothing beside.

    Of keys during which, and soon after which, neither this process nor the server stood still: the audio of others was
    cut on its way, and a key with it may be two or none. With the engine on a clock of its own, which never stands
    still, tests/media/engine/test_keys.py holds all keys to the same shares."""
    rng = random.Random(11)
    pressed = {}
    for index in range(count):
        peer = Peer(legs.wire, codec=("PCMU", "PCMA")[index % 2], event_type=-1)
        keys = shuffled(each, 100 + index)
        audio, spans = noisy_keys(keys, rng)
        peer.say(quiet(SETTLE_MS), audio)
        legs.add(peer, each, timeout_s=2)
        pressed[next(reversed(legs.calls))] = peer, keys, spans

    def check(told: dict[str, str]) -> None:
        total = Score(0, 0, 0)
        cut = 0
        for caller, (peer, keys, spans) in pressed.items():
            whole = [index for index, span in enumerate(spans) if not is_cut(legs, peer, span)]
            cut += len(keys) - len(whole)
            total = total.plus(score(keys, told[caller], whole))
        print(f"in-band: {total}, {cut} more were cut; the wire was {legs.wire.behind_ms:.0f} ms late")
        most = (1 - IN_BAND_SHARE) * (total.pressed + cut)
        assert total.pressed > cut, "the machine stands still all the time"
        assert total.pressed - total.told <= most
        assert total.beside <= most + cut

    return check


def is_cut(legs: Legs, peer: Peer, span: tuple[int, int]) -> bool:
    """Whether the machine stood still while these samples of the keys were on their way, or they never left: a key that
    is told twice ends the call before the last one."""
    first, last = ((SETTLE_MS * RATE // 1000 + at) // FRAME for at in span)
    if last >= len(peer.sent):
        return True
    first, last = peer.sent[first].at_ns, peer.sent[last].at_ns
    return any(since < last + AFTER_NS and first - BEFORE_NS < until for since, until in stalls(legs.wire, peer))


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
