"""Audio from packets to frames. Depth 40 ms: a packet is heard from the third tick after it came on."""

import numpy as np
import pytest

from tests.media.engine.rig import Peer, Rig, exact, ramp, sine
from trunkline.media import protocol
from trunkline.media.engine import receive
from trunkline.rtp import g711

DEPTH = 2
"""Frames held back."""


@pytest.fixture(params=["compiled", "fallback"])
def rig(request: pytest.FixtureRequest) -> Rig:
    return Rig(request.param)


def collect(rig: Rig, ticks: int) -> np.ndarray:
    frames = []
    for _ in range(ticks):
        rig.tick()
        frames.append(rig.hears())
    return np.concatenate(frames)


def lost(rig: Rig) -> int:
    return receive.lost(rig.state, rig.row())


@pytest.mark.parametrize("ptime", [10, 20, 30, 40, 60])
def test_every_packet_length_comes_out_whole_across_the_wrap(rig: Rig, ptime: int) -> None:
    peer = rig.open()
    size, said = ptime * 8, []
    heard = []
    for tick in range(60):
        while len(said) * size < (tick + 1) * 160 and (len(said) + 1) * size <= (tick + 1) * 160 + size - 160:
            said.append(ramp(len(said) * size, size))
            peer.speak(said[-1])
        rig.tick()
        heard.append(rig.hears())
    audio, sent = np.concatenate(heard), np.concatenate(said)
    first = int(np.flatnonzero(audio)[0])
    assert first <= 4 * 160
    length = len(audio) - first
    assert np.array_equal(audio[first:], sent[:length])
    assert lost(rig) == 0
    assert rig.state.late[rig.row()] == 0


def test_reordered_and_repeated_packets_are_heard_in_order(rig: Rig) -> None:
    peer = rig.open()
    frames = [ramp(i * 160) for i in range(20)]
    start, sequence = peer.timestamp, peer.sequence
    order = [0, 2, 1, 3, 5, 4, 6, 7, 9, 8, *range(10, 20)]
    heard = []
    for i in order:
        peer.timestamp, peer.sequence = start + i * 160, sequence + i
        peer.speak(frames[i], copies=2)
        rig.tick()
        heard.append(rig.hears())
    assert np.array_equal(np.concatenate(heard)[DEPTH * 160 :], np.concatenate(frames[: 20 - DEPTH]))
    assert receive.received(rig.state, rig.row()) == 20
    assert lost(rig) == 0


def test_both_laws_are_heard_by_payload_type(rig: Rig) -> None:
    peer = rig.open()
    said = sine(300)
    heard = []
    for i in range(6):
        peer.speak(said, law=g711.PCMA if i % 2 else g711.PCMU)
        rig.tick()
        heard.append(rig.hears())
    assert np.array_equal(heard[DEPTH], exact(said))
    assert np.array_equal(heard[DEPTH + 1], exact(said, g711.PCMA))


def test_a_lost_packet_is_concealed_and_counted(rig: Rig) -> None:
    peer = rig.open()
    heard = []
    for i in range(10):
        if i == 5:
            peer.sequence += 1
            peer.timestamp += 160
        else:
            peer.speak(sine(400, start=i * 160))
        rig.tick()
        heard.append(rig.hears())
    assert np.abs(heard[5 + DEPTH]).max() > 4000
    assert np.array_equal(heard[6 + DEPTH], exact(sine(400, start=6 * 160)))
    assert lost(rig) == 1


def test_a_stream_that_stops_fades_to_silence_and_begins_again_at_depth(rig: Rig) -> None:
    peer = rig.open()
    for i in range(10):
        peer.speak(sine(400, start=i * 160))
        rig.tick()
    rest = collect(rig, 10)
    assert not rest[-4 * 160 :].any()
    peer.timestamp += 10 * 160
    heard = []
    for i in range(5):
        peer.speak(ramp(i * 160))
        rig.tick()
        heard.append(rig.hears())
    at = [i for i in range(5) if np.array_equal(heard[i], ramp(0))]
    assert at
    assert at[0] <= DEPTH + 2
    assert lost(rig) == 0


def test_comfort_noise_is_no_loss_and_is_not_concealed(rig: Rig) -> None:
    peer = rig.open()
    for _ in range(6):
        peer.speak(sine(400))
        rig.tick()
    peer.send(b"\x40", 13)
    heard = collect(rig, 6)
    assert not heard[DEPTH * 160 + 160 :].any()
    assert lost(rig) == 0


def test_a_late_burst_makes_the_buffer_deeper(rig: Rig) -> None:
    peer = rig.open()
    heard = []
    waiting = 0
    for i in range(200):
        held = i % 20 in (10, 11, 12)  # every 400 ms three packets come 60 ms late
        waiting += 1
        if not held:
            for _ in range(waiting):
                peer.speak(ramp(int((peer.timestamp - (2**32 - 1000)) % 2**32)))
            waiting = 0
        rig.tick()
        heard.append(rig.hears())
    row = rig.row()
    late = int(rig.state.late[row])
    assert rig.state.depth[row] > 320
    for i in range(200, 300):
        held = i % 20 in (10, 11, 12)
        waiting += 1
        if not held:
            for _ in range(waiting):
                peer.speak(ramp(int((peer.timestamp - (2**32 - 1000)) % 2**32)))
            waiting = 0
        rig.tick()
    assert rig.state.late[row] == late


def test_a_jump_of_the_timestamp_starts_anew(rig: Rig) -> None:
    peer = rig.open()
    for _ in range(10):
        peer.speak(sine(400))
        rig.tick()
    for jump in (1_000_000, -3_000_000):
        peer.timestamp += jump
        heard = []
        for i in range(6):
            peer.speak(ramp(i * 160))
            rig.tick()
            heard.append(rig.hears())
        assert np.array_equal(heard[DEPTH], ramp(0)), jump


def test_another_stream_takes_over_with_its_second_packet(rig: Rig) -> None:
    peer = rig.open()
    for _ in range(10):
        peer.speak(sine(400))
        rig.tick()
    other = Peer(rig, peer.slot, ssrc=88)
    other.timestamp, other.sequence = 5000, 10
    heard = []
    for i in range(8):
        other.speak(ramp(i * 160))
        rig.tick()
        heard.append(rig.hears())
    assert np.array_equal(heard[1 + DEPTH], ramp(160))
    assert lost(rig) == 0
    assert receive.received(rig.state, rig.row()) == 17


@pytest.mark.parametrize("ppm", [5000, -5000])
def test_clock_drift_is_taken_up_in_silence(rig: Rig, ppm: int) -> None:
    """A peer whose clock is 0.5 % off, for a minute, half of it silence. No loss, bounded delay."""
    peer = rig.open()
    due = 0.0
    speech_missing = 0
    levels = []
    for tick in range(3000):
        due += 1 + ppm / 1e6
        while due >= 1:
            due -= 1
            talking = (peer.timestamp // 160) % 50 < 25
            peer.speak(sine(400) if talking else np.zeros(160))
        rig.tick()
        levels.append(int((rig.state.newest[rig.row()] - rig.state.position[rig.row()] + 2**31) % 2**32 - 2**31))
        if tick > 100 and rig.engine.buffer._missing[rig.row()] and np.abs(rig.hears()).max() > 100:
            speech_missing += 1
    assert rig.state.late[rig.row()] == 0
    assert max(levels[200:]) < 1600
    assert speech_missing <= 2


def test_more_than_the_most_is_never_held(rig: Rig) -> None:
    peer = rig.open()
    for _ in range(10):
        peer.speak(sine(400))
        rig.tick()
    for _ in range(16):  # a burst of 320 ms
        peer.speak(sine(400))
    for _ in range(300):
        peer.speak(sine(400))
        rig.tick()
    held = (int(rig.state.newest[rig.row()]) - int(rig.state.position[rig.row()])) % 2**32
    assert held <= 160 * 5


@pytest.mark.parametrize("extra", [1, 2, 4])
def test_what_is_held_in_vain_goes_within_six_seconds_of_speech(rig: Rig, extra: int) -> None:
    peer = rig.open()
    for _ in range(10):
        peer.speak(sine(400))
        rig.tick()
    for _ in range(extra):  # the network was slow before, and is not any more
        peer.speak(sine(400))
    for _ in range(300):
        peer.speak(sine(400))
        rig.tick()
    held = (int(rig.state.newest[rig.row()]) - int(rig.state.position[rig.row()])) % 2**32
    assert held == 160 * DEPTH
    assert rig.state.late[rig.row()] == 0


def test_packets_that_come_just_around_the_tick_drop_nothing(rig: Rig) -> None:
    """Now before, now after it: as much as is needed is held, and all is heard."""
    peer = rig.open()
    heard = []
    for i in range(600):
        for _ in range((1, 0, 2, 1)[i % 4] if i else 2):
            peer.speak(ramp((peer.timestamp - (2**32 - 1000)) % 2**32))
        rig.tick()
        heard.append(rig.hears())
    audio = np.concatenate(heard)
    first = int(np.flatnonzero(audio)[0])
    assert np.array_equal(audio[first:], ramp(0, len(audio) - first))


def test_muted_and_held_legs_are_not_heard() -> None:
    rig = Rig()
    peer = rig.open()
    for _ in range(6):
        peer.speak(sine(400))
        rig.tick()
    rig.do(protocol.Mute(leg="a"))
    rig.tick()
    assert not rig.hears().any()
    rig.do(protocol.Mute(leg="a", muted=False))
    rig.tick()
    assert rig.hears().any()
    rig.do(protocol.Modify(leg="a", payload_types={0: "PCMU"}, remote=("192.0.2.1", 4000), direction="sendonly"))
    peer.speak(sine(400))
    rig.tick()
    assert not rig.hears().any()
    rig.do(protocol.Modify(leg="a", payload_types={0: "PCMU"}, remote=("192.0.2.1", 4000)))
    for _ in range(6):
        peer.speak(sine(400))
        rig.tick()
    assert rig.hears().any()
