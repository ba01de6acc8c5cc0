"""Keys in the audio: what Q.24 wants recognised is, what it wants rejected is not, and speech presses nothing."""

import shutil
import subprocess
import time

import numpy as np
import numpy.typing as npt
import pytest

from trunkline.rtp import dtmf
from trunkline.rtp.dtmf import KEYS, TICK, Detector, key, tone

RNG_SEED = 20_240
FREQUENCIES = (*dtmf.LOW_HZ, *dtmf.HIGH_HZ)


def pressed(audio: npt.NDArray[np.int16], detector: Detector | None = None) -> list[list[str]]:
    """The keys heard on each leg (a row of `audio` each)."""
    detector = detector or Detector(len(audio))
    rows = np.arange(len(audio))
    heard: list[list[str]] = [[] for _ in audio]
    for start in range(0, audio.shape[1] - TICK + 1, TICK):
        for row, code, ended in zip(*detector.feed(rows, audio[:, start : start + TICK]), strict=True):
            if not ended:
                heard[row].append(KEYS[code])
    return heard


def trials(
    count: int, ms: int, *, offset: float = 0.015, snr_db: float = 20, seed: int = RNG_SEED
) -> tuple[npt.NDArray[np.int16], list[str]]:
    """Keys at random levels, twists (-6 to 3 dB), phases and frequency errors, in noise, one per leg."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(16, size=count)
    length = 8 * ms
    audio = np.zeros((count, TICK * 20))
    n = np.arange(length) / 8000
    for row, code in enumerate(codes):
        peak = 0.5 * 32767 * 10 ** (rng.uniform(-25, -6) / 20)
        low, high = rng.uniform(1 - offset, 1 + offset, 2) * (dtmf.LOW_HZ[code // 4], dtmf.HIGH_HZ[code % 4])
        begin = rng.integers(400, 800)
        audio[row] += rng.normal(0, peak * 10 ** (-snr_db / 20), audio.shape[1])
        audio[row, begin : begin + length] += peak * np.sin(2 * np.pi * low * n + rng.uniform(0, 6))
        audio[row, begin : begin + length] += (
            peak * 10 ** (rng.uniform(-6, 3) / 20) * np.sin(2 * np.pi * high * n + rng.uniform(0, 6))
        )
    return np.clip(audio, -32768, 32767).astype(np.int16), [KEYS[code] for code in codes]


def right(count: int, ms: int) -> float:
    audio, expected = trials(count, ms)
    return sum(got == [want] for got, want in zip(pressed(audio), expected, strict=True)) / count


@pytest.mark.parametrize("ms", [40, 60, 100])
def test_keys_of_40_to_100_ms_are_recognised_at_1_5_percent_deviation_and_20_db_noise(ms: int) -> None:
    assert right(1000, ms) >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("ms", range(40, 101, 5))
def test_every_length_from_40_to_100_ms_is_recognised(ms: int) -> None:
    assert right(10_000, ms) >= 0.99


@pytest.mark.parametrize("ms", [10, 20, 23])
def test_tones_of_up_to_23_ms_are_no_keys(ms: int) -> None:
    assert right(500, ms) == 0


def test_every_key_is_told_once_at_its_start_and_once_at_its_end() -> None:
    audio = np.zeros((16, TICK * 10), np.int16)
    for row, name in enumerate(KEYS):
        audio[row, 200:1000] = key(name, 100)
    detector = Detector(16)
    told: list[tuple[int, int, str, bool]] = []
    for tick in range(10):
        rows, codes, ended = detector.feed(np.arange(16), audio[:, tick * TICK : (tick + 1) * TICK])
        told += [(tick, int(r), KEYS[c], bool(e)) for r, c, e in zip(rows, codes, ended, strict=True)]
    starts = {r: (tick, name) for tick, r, name, ended_now in told if not ended_now}
    ends = {r: (tick, name) for tick, r, name, ended_now in told if ended_now}
    assert len(told) == 32
    assert [starts[r][1] for r in range(16)] == [ends[r][1] for r in range(16)] == list(KEYS)
    assert all(tick <= 3 for tick, _ in starts.values())  # begins in tick 1: certain within 60 ms
    assert all(7 <= tick <= 8 for tick, _ in ends.values())


def sequence(keys: str, on_ms: int, off_ms: int) -> npt.NDArray[np.int16]:
    gap = np.zeros(off_ms * 8, np.int16)
    audio = np.concatenate([gap, *[part for name in keys for part in (key(name, on_ms), gap)], np.zeros(480, np.int16)])
    return audio[None, : len(audio) // TICK * TICK]


def test_fast_dialling_with_repeated_keys_is_told_apart() -> None:
    assert pressed(sequence("1122*#A0099", 40, 40)) == [list("1122*#A0099")]


def test_a_lost_packet_parts_no_key() -> None:
    for shift in range(0, TICK, 7):
        audio = np.zeros((1, TICK * 25), np.int16)
        audio[0, 300 + shift : 300 + shift + 2400] = key("5", 300)
        audio[0, TICK * 8 : TICK * 9] = 0
        assert pressed(audio) == [["5"]]


def test_dial_tones_ringing_and_single_tones_are_no_keys() -> None:
    sounds = [(440, 480), (350, 440), (1000,), (697,), (1209,), (697, 770), (1209, 1336), (425,), (480, 620)]
    audio = np.stack([tone(sound, 1000) for sound in sounds])
    assert pressed(audio) == [[] for _ in sounds]


def test_twist_and_harmonics_beyond_the_limits_are_no_keys() -> None:
    n = np.arange(1600) / 8000
    low, high = np.sin(2 * np.pi * 770 * n), np.sin(2 * np.pi * 1336 * n)
    sounds = [
        6000 * low + 1000 * high,
        1000 * low + 6000 * high,
        4000 * (low + high + 0.7 * np.sin(4 * np.pi * 770 * n)),
    ]
    assert pressed(np.stack(sounds).astype(np.int16)) == [[], [], []]
    assert pressed((4000 * (low + high))[None].astype(np.int16)) == [["5"]]


def test_legs_come_and_go_and_state_moves_with_them() -> None:
    audio = sequence("159", 60, 60)[0]
    first, second = Detector(4), Detector(2)
    heard: list[str] = []
    for tick, start in enumerate(range(0, len(audio), TICK)):
        detector, row = (first, 3) if tick < 4 else (second, 0)
        if tick == 4:
            second.state[0] = first.state[3]
        _, codes, ended = detector.feed(np.array([row]), audio[None, start : start + TICK])
        heard += [KEYS[c] for c, e in zip(codes, ended, strict=True) if not e]
    assert heard == ["1", "5", "9"]


def test_reset_forgets_a_held_key() -> None:
    detector = Detector(1)
    held = key("7", 100)[None]
    assert pressed(held[:, : TICK * 3], detector) == [["7"]]
    detector.reset(np.array([0]))
    assert pressed(held[:, : TICK * 3], detector) == [["7"]]


def test_state_can_live_in_memory_that_is_given() -> None:
    shared = bytearray(3 * dtmf.STATE.itemsize)
    state = np.frombuffer(shared, dtmf.STATE)
    state[:] = dtmf.blank(3)
    audio = np.zeros((3, TICK * 3), np.int16)
    audio[2] = key("D", 60)
    assert pressed(audio, Detector(3, state)) == [[], [], ["D"]]
    assert np.frombuffer(shared, dtmf.STATE)["current"].tolist() == [-1, -1, 15]


def test_a_thousand_legs_cost_a_few_microseconds_each() -> None:
    """Of the thread's own CPU time, so that what else runs on the machine is not counted; of ten times the least, as
    caches are cold the first time."""
    noise = np.random.default_rng(1).integers(-3000, 3000, (1000, TICK)).astype(np.int16)
    detector, rows = Detector(1000), np.arange(1000)
    times = []
    for _ in range(10):
        begin = time.thread_time()
        detector.feed(rows, noise)
        times.append(time.thread_time() - begin)
    assert min(times) < 0.005


def test_tones_have_the_level_they_are_given() -> None:
    wave = tone((1000,), 1000, -10).astype(float)
    dbm0 = 10 * np.log10((wave**2).mean() / (32767**2 / 2)) + 3.17
    assert dbm0 == pytest.approx(-10, abs=0.05)
    with pytest.raises(ValueError, match="substring"):
        key("x")


def speech(seconds: int) -> npt.NDArray[np.int16]:
    """Speech of many voices and languages, 8 kHz."""
    text = " ".join(
        f"Number {n * 7919 % 1000}, the quick brown fox jumps over the lazy dog, and then she sells sea shells, "
        f"while peter piper picked {n} pecks; we are sitting in the evening light, {n * 31 % 97} times humming."
        for n in range(60)
    )
    parts: list[npt.NDArray[np.int16]] = []
    for voice in ("en-us", "en-gb+f3", "de", "es+f2", "fr", "en+m7", "it+f4", "pl", "ru+f1", "sv") * 20:
        pitch = str(20 + 13 * len(parts) % 70)
        wave = subprocess.run(
            ["espeak-ng", "-v", voice, "-p", pitch, "--stdout", text], capture_output=True, check=True, timeout=120
        ).stdout
        samples = np.frombuffer(wave[44:], np.int16)
        at = np.arange(0, len(samples) - 1, 22050 / 8000)
        parts.append(np.interp(at, np.arange(len(samples)), samples).astype(np.int16))
        if sum(map(len, parts)) >= seconds * 8000:
            break
    return np.concatenate(parts)[: seconds * 8000]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng makes the speech")
def test_at_most_one_false_key_in_30_minutes_of_speech() -> None:
    audio = speech(1800)
    for gain in (0.5, 1.0, 2.0):
        loud = np.clip(audio * gain, -32768, 32767).astype(np.int16)
        heard = pressed(loud.reshape(60, -1))
        assert sum(map(len, heard)) <= 1
