"""How well words survive Opus with lost packets: a recogniser listens to the engine."""

import random
from itertools import zip_longest

import numpy as np
import pytest

from tests.media.engine.rig import Rig
from tests.media.sounds import at_16k
from trunkline.media.engine import receive
from trunkline.media.native import libopus
from trunkline.media.native.coding import OpusSettings
from trunkline.media.speech.neural import Hibari
from trunkline.media.speech.voices import Voice

WORDS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "yes", "no", "sales", "support",
    "billing", "account", "operator", "monday", "tuesday", "friday", "morning", "evening", "cancel", "repeat",
    "station", "weather", "hospital", "number",
]  # fmt: skip
PHRASES, LENGTH = 40, 6
LOSS = 0.02
HINT = 5
"""Percent that the sender reckons with."""
MOST_WORSE = 0.05


def errors(said: list[str], heard: list[str]) -> int:
    """Words that are wrong, missing or too many (edit distance)."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


class Ear:
    """A recogniser of the words, in any order."""

    def __init__(self) -> None:
        pocketsphinx = pytest.importorskip("pocketsphinx")
        self._decoder = pocketsphinx.Decoder(samprate=16_000, lm=None, loglevel="FATAL")
        self._decoder.add_jsgf_string("words", f"#JSGF V1.0; grammar words; public <words> = ({' | '.join(WORDS)})+;")
        self._decoder.activate_search("words")

    def words(self, audio: np.ndarray) -> list[str]:
        self._decoder.start_utt()
        self._decoder.process_raw(at_16k(audio).tobytes(), no_search=False, full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return found.hypstr.split() if found is not None else []


def through_opus(phrases: list[np.ndarray], loss: float) -> list[np.ndarray]:
    """What the engine hears of them."""
    dice, heard, lost = random.Random(5), [], 0
    rig = Rig()
    peer = rig.open(codec="opus", send_payload_type=111, payload_types={111: "opus"})
    encoder = libopus.Encoder(OpusSettings(), HINT)
    for phrase in phrases:
        padded = np.concatenate([np.zeros(1600, np.int16), phrase, np.zeros(3200 - len(phrase) % 160, np.int16)])
        frames = []
        for at in range(0, len(padded), 160):
            payload = encoder.encode(padded[at : at + 160].tobytes())
            if dice.random() < loss:
                peer.sequence += 1
            else:
                peer.send(payload, 111)
            peer.timestamp += 960
            rig.tick()
            frames.append(rig.hears())
        heard.append(np.concatenate(frames))
    lost = receive.lost(rig.state, rig.row())
    assert (lost > 0) is (loss > 0)
    return heard


@pytest.mark.slow
def test_two_percent_of_loss_cost_few_words() -> None:
    dice, speaker, ear = random.Random(3), Hibari(), Ear()
    texts = [[dice.choice(WORDS) for _ in range(LENGTH)] for _ in range(PHRASES)]
    waves = [speaker.synth(", ".join(text) + ".", Voice("en-US")) for text in texts]
    spoken = [np.clip(wave * 32767, -32768, 32767).astype(np.int16) for wave in waves]
    rates = {}
    for name, audio in (
        ("plain", spoken), ("clean", through_opus(spoken, 0.0)), ("lossy", through_opus(spoken, LOSS)),
    ):  # fmt: skip
        wrong = sum(errors(text, ear.words(piece)) for text, piece in zip_longest(texts, audio))
        rates[name] = wrong / (PHRASES * LENGTH)
    assert rates["clean"] < 0.25, rates
    assert rates["lossy"] <= rates["clean"] + MOST_WORSE, rates
