"""Tone patterns: every text its own, told apart by ear."""

import numpy as np
import numpy.typing as npt
import pytest

from trunkline.media.speech import tone_pattern
from trunkline.media.speech.tone_pattern import heard, hears, pattern, samples
from trunkline.rtp.dtmf import Detector

TEXTS = [f"Press {number} for department {number * 7}" for number in range(200)]


def mulaw(audio: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """What G.711 does to samples, roughly: a logarithmic step of 1/16 octave."""
    x = np.abs(audio.astype(float)) + 33
    step = 2 ** np.floor(np.log2(x)) / 16
    return (np.sign(audio) * (np.round(x / step) * step - 33)).astype(np.int16)


def test_every_text_has_a_pattern_of_its_own() -> None:
    assert len({pattern(text) for text in TEXTS}) == len(TEXTS)
    assert pattern(" Press  1 ") == pattern("Press 1") != pattern("press 1")
    assert pattern("Hello") == (1, 8, 5, 15, 8, 13, 11, 3)  # the same on every machine and in every version


def test_patterns_are_heard_in_order_with_their_times() -> None:
    audio = np.concatenate([np.zeros(1234, np.int16), samples("one"), np.zeros(333, np.int16), samples("two")])
    found = heard(audio)
    assert [symbols for _, symbols in found] == [pattern("one"), pattern("two")]
    assert found[0][0] == pytest.approx(1234 / 8, abs=15)
    assert found[1][0] == pytest.approx((1234 + len(samples("one")) + 333) / 8, abs=15)


@pytest.mark.parametrize("gain", [0.1, 0.5, 2.0])
def test_they_survive_a_telephone_line(gain: float) -> None:
    rng = np.random.default_rng(3)
    for shift, text in enumerate(TEXTS):
        audio = np.concatenate([np.zeros(shift, np.int16), samples(text)]).astype(float) * gain
        audio += rng.normal(0, 900 * gain, len(audio))
        assert hears(mulaw(np.clip(audio, -32768, 32767).astype(np.int16)), text)


def test_they_survive_a_lost_packet() -> None:
    for lost in range(8, 60):
        audio = np.concatenate([samples("the number you have dialled"), np.zeros(800, np.int16)])
        audio[lost * 80 : lost * 80 + 160] = 0
        assert hears(audio, "the number you have dialled")


def test_nothing_is_heard_in_silence_noise_or_half_a_pattern() -> None:
    rng = np.random.default_rng(4)
    noise = rng.integers(-8000, 8000, 80_000).astype(np.int16)
    for audio in (np.zeros(8000, np.int16), noise, samples("x")[:2500], np.zeros(0, np.int16)):
        assert heard(audio) == []


def test_they_press_no_keys() -> None:
    legs = np.stack([samples(text)[: 160 * 30] for text in TEXTS])
    detector = Detector(len(legs))
    for tick in range(legs.shape[1] // 160):
        rows, _, _ = detector.feed(np.arange(len(legs)), legs[:, tick * 160 : tick * 160 + 160])
        assert not len(rows)


def test_their_length_is_known() -> None:
    assert len(samples("x")) == tone_pattern.MS * 8
