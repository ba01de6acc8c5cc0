"""Keys in the audio as lines and phones of all kinds press them, and how many of them were told."""

import difflib
import random
from collections.abc import Container
from typing import NamedTuple

import numpy as np

from tests.e2e.audio_peer import Samples, dual_tone, quiet

OFFSET = 0.015
SNR_DB = 20.0


class Score(NamedTuple):
    """Of keys that were pressed: how many were told in their place, and what was told beside."""

    pressed: int
    told: int
    beside: int

    def plus(self, other: "Score") -> "Score":
        return Score(self.pressed + other.pressed, self.told + other.told, self.beside + other.beside)


def noisy_keys(keys: str, rng: random.Random) -> tuple[Samples, list[tuple[int, int]]]:
    """Tones of 40 to 100 ms at random levels, frequencies up to 1.5 % off, in noise 20 dB below each; and at which
    samples each begins and the pause after it ends."""
    noise = np.random.default_rng(rng.getrandbits(32))
    level_db = rng.uniform(-22, -6)
    parts, spans, at = [], [], 0
    for key in keys:
        off = rng.uniform(-OFFSET, OFFSET), rng.uniform(-OFFSET, OFFSET)
        tone = dual_tone(key, rng.randint(40, 100), off=off, level_db=level_db, twist_db=rng.uniform(-6, 3))
        part = np.concatenate([tone, quiet(rng.randint(45, 100))]).astype(float)
        rms = np.sqrt(np.mean(tone.astype(float) ** 2))
        part += noise.normal(0, rms * 10 ** (-SNR_DB / 20), len(part))
        parts.append(part)
        spans.append((at, at + len(part)))
        at += len(part)
    return np.clip(np.concatenate(parts), -32768, 32767).astype(np.int16), spans


def score(wanted: str, told: str, counted: Container[int] | None = None) -> Score:
    """`counted`: which of the keys that were pressed are looked for; those beside are counted of all."""
    blocks = difflib.SequenceMatcher(None, wanted, told, autojunk=False).get_matching_blocks()
    right = [index for block in blocks for index in range(block.a, block.a + block.size)]
    looked_for = [index for index in range(len(wanted)) if counted is None or index in counted]
    return Score(len(looked_for), len(set(looked_for) & set(right)), len(told) - len(right))
