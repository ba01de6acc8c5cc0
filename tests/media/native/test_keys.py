"""The compiled detector of keys decides as `rtp.dtmf` does, to the last bit."""

import numpy as np
import pytest

from trunkline.media import native
from trunkline.rtp import dtmf

LEGS, TICKS = 64, 60


def sounds(rng: np.random.Generator) -> np.ndarray:
    """Keys of all lengths, levels, twists and deviations in noise, noise alone, chords, extremes and silence."""
    audio = rng.normal(0, rng.choice([0, 30, 300, 3000], LEGS)[:, None], (LEGS, TICKS * dtmf.TICK))
    n = np.arange(audio.shape[1]) / dtmf.RATE
    for row in range(LEGS):
        at = 0
        while at < audio.shape[1]:
            length = int(rng.integers(100, 1200))
            low, high = rng.choice(dtmf.LOW_HZ), rng.choice([*dtmf.HIGH_HZ, 440, 1100])
            peak = 10 ** rng.uniform(1.5, 4.4)
            part = slice(at, at + length)
            audio[row, part] += peak * np.sin(2 * np.pi * low * rng.uniform(0.98, 1.02) * n[part])
            audio[row, part] += (
                peak * rng.uniform(0.3, 3) * np.sin(2 * np.pi * high * rng.uniform(0.98, 1.02) * n[part])
            )
            at += length + int(rng.integers(100, 900))
    audio[0] = rng.choice([-32768, 32767], audio.shape[1])
    audio[1] = -32768
    audio[2] = 0
    audio[3, ::2], audio[3, 1::2] = -219, 219  # below the least peak
    return np.clip(audio, -32768, 32767).astype(np.int16)


@pytest.mark.parametrize("seed", range(4))
def test_compiled_and_plain_agree_on_every_window(seed: int) -> None:
    rng = np.random.default_rng(seed)
    audio = sounds(rng)
    one, two = dtmf.Detector(LEGS), dtmf.Detector(LEGS)
    compiled, plain = native.load("compiled"), native.load("fallback")
    pressed = 0
    for tick in range(TICKS):
        rows = np.sort(rng.choice(LEGS, LEGS - 3, replace=False))
        heard = np.ascontiguousarray(audio[:, tick * dtmf.TICK : (tick + 1) * dtmf.TICK])
        first, second = compiled.keys(one, rows, heard), plain.keys(two, rows, heard)
        for mine, theirs in zip(first, second, strict=True):
            assert mine.tolist() == theirs.tolist()
        assert one.state.tobytes() == two.state.tobytes()
        pressed += int(np.count_nonzero(~first[2]))
    assert pressed > 100
