"""How long audio takes through a bridge, with and without jitter, and how soon a key stops a prompt."""

import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

from tests.e2e.audio_bridge import bridged, delays, noise, sounding
from tests.e2e.audio_legs import Legs
from tests.e2e.audio_line import Line
from tests.e2e.audio_peer import Network, Peer, Press, Wire
from tests.e2e.test_audio_prompts import check_order
from tests.e2e.test_calls import wav
from tests.interop.switch import Switch

BAD_NETWORK = Network(loss=0.02, jitter_ms=40)
MOST_MS = 80.0
"""Of 95 % of what crosses a bridge."""
SETTLED_MS = 60.0
SETTLE_S = 10.0
STOP_MS = 60.0
MORE = 2
"""Packets that may be missing, or made up, beside those that a drift needs: the buffer's first steps."""
LONG_S = 600.0


def shares(values: list[float]) -> str:
    """Some percentiles."""
    return ", ".join(f"p{at} {np.percentile(values, at):.1f} ms" for at in (50, 95, 100))


def settled_after(found: list[tuple[int, float]], since_ns: int, seconds: float) -> float:
    """From how many seconds on all audio took no longer than it should, by medians of half a second; inf: never."""
    settled = math.inf
    for half in reversed(range(int(seconds * 2))):
        part = [took for at, took in found if 0 <= at - since_ns - half * 500_000_000 < 500_000_000]
        if not part or np.median(part) > SETTLED_MS:
            break
        settled = half / 2
    return settled


def measure(switch: Switch, line: Line, wire: Wire, normal_s: float, jitter_s: float, after_s: float) -> None:
    """A bridge in which both talk: in peace, with a bad network towards the server, and after that."""
    one, other = Peer(wire, seed=1), Peer(wire, seed=2)
    with bridged(switch, line, one, other):
        for seed, peer in enumerate((one, other)):
            peer.say(noise(normal_s + jitter_s + after_s + 1, 10 + seed))
        begin = time.time_ns()
        time.sleep(normal_s)
        jitter_at = time.time_ns()
        one.network = other.network = BAD_NETWORK
        time.sleep(jitter_s)
        one.network = other.network = None
        calm_at = time.time_ns()
        time.sleep(after_s)
    for name, talker, listener in (("one", one, other), ("other", other, one)):
        normal = [took for _, took in delays(talker, listener, begin, jitter_at)]
        bad = [took for _, took in delays(talker, listener, jitter_at, calm_at)]
        found = delays(talker, listener, calm_at)
        after = settled_after(found, calm_at, after_s - 0.5)
        print(f"{name}: in peace {shares(normal)}; with jitter {shares(bad)}; {after} s later {SETTLED_MS} ms at most")
        assert len(normal) > (normal_s - 1) * 45
        assert np.percentile(normal, 95) <= MOST_MS
        shown = " ".join(f"{(at - calm_at) / 1e9:.1f}s:{took:.0f}" for at, took in found[::25])
        assert after <= SETTLE_S, f"{len(found)} packets: {shown}"


@pytest.mark.slow
def test_the_delay_of_a_bridge(audio_switch: Switch, line: Line, wire: Wire) -> None:
    with drifting(audio_switch, line, wire, [3000, -3000], 13):
        measure(audio_switch, line, wire, 1.5, 2.5, 9)


@pytest.mark.slow
@pytest.mark.parametrize("run", range(3))
def test_the_delay_of_a_bridge_for_longer(audio_switch: Switch, line: Line, wire: Wire, run: int) -> None:
    measure(audio_switch, line, wire, 10, 20, 15)


@contextmanager
def drifting(switch: Switch, line: Line, wire: Wire, ppms: Sequence[int], seconds: float) -> Iterator[None]:
    """Meanwhile callers whose clocks are off talk without a break to callees whose clocks are right; then every packet
    of theirs has come out once, but for those that the drift needs."""
    pairs = [(Peer(wire, ppm=ppm, seed=ppm), Peer(wire, seed=ppm + 1, keep=False)) for ppm in ppms]
    with ExitStack() as stack:
        for caller, callee in pairs:
            stack.enter_context(bridged(switch, line, caller, callee))
        begin = time.time_ns()
        for index, (caller, _) in enumerate(pairs):
            for part in range(int(seconds) + 2):
                caller.say(noise(1, 1000 + index * 10_000 + part))
        yield
        end = time.time_ns() - 1_000_000_000
    for ppm, (caller, callee) in zip(ppms, pairs, strict=True):
        check_drift(ppm, caller, callee, begin + 1_000_000_000, end, wire.stalled_ms / 20)


def check_drift(ppm: int, caller: Peer, callee: Peer, begin: int, end: int, stalled: float) -> None:
    """Between two times, in which so many packets were late since this process stood still."""
    said = [one for one in caller.sent if begin <= one.at_ns < end]
    places = {one.payload: index for index, one in enumerate(said)}
    order = [places[got.payload] for got in callee.audio() if got.payload in places]
    missing, twice = len(said) - len(set(order)), len(order) - len(set(order))
    made_up = sum(got.payload not in places for got in callee.audio() if begin + 5e8 <= got.at_ns < end)
    needed = abs(ppm) * (end - begin) / 1e15 * 50
    skipped = check_order(callee.audio())
    print(f"{ppm} ppm: {len(said)} packets, {missing} missing, {twice} twice, {made_up} made up; {needed:.1f} needed;")
    print(f"{skipped} ticks were missed, packets came late by {stalled:.0f} of their times")
    assert order == sorted(order)
    assert twice == 0
    assert missing <= needed + skipped + stalled + MORE
    assert made_up <= needed + skipped + stalled + MORE


def stop_times(switch: Switch, legs: Legs, count: int) -> list[float]:
    """How many ms after a key's first packet the last packet of the prompt came, on so many legs."""
    rng = random.Random(4)
    switch.app.files["/prompt.wav"] = ("audio/wav", wav(noise(20, 3)))
    prompt = f"<Play>{switch.app.url}/prompt.wav</Play>"
    for _ in range(count):
        legs.add(Peer(legs.wire), 1, inner=prompt)
    legs.dialled()
    calls = list(legs.calls.values())
    until = time.monotonic() + 10
    while any(len(sounding(call.peer)) < 20 for call in calls):
        assert time.monotonic() < until, "the prompt is not heard"
        time.sleep(0.05)
    for call in calls:
        time.sleep(rng.uniform(0, 0.05))
        call.peer.say(Press("5", 80, 40))
    legs.told(10)
    return [(sounding(call.peer)[-1][0] - call.peer.pressed[0][0]) / 1e6 for call in calls]


def test_a_key_stops_the_prompt(audio_switch: Switch, legs: Legs) -> None:
    times = stop_times(audio_switch, legs, 20)
    print(f"a key stops a prompt after {shares(times)}")
    assert np.percentile(times, 95) <= STOP_MS


@pytest.mark.slow
def test_keys_stop_prompts_on_many_legs(audio_switch: Switch, legs: Legs) -> None:
    times = stop_times(audio_switch, legs, 100)
    print(f"a key stops a prompt after {shares(times)}")
    assert np.percentile(times, 95) <= STOP_MS


@pytest.mark.slow
def test_ten_minutes_of_drift(audio_switch: Switch, line: Line, wire: Wire) -> None:
    with drifting(audio_switch, line, wire, [200, -200], LONG_S):
        time.sleep(LONG_S)
