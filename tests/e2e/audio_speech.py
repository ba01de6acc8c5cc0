"""Much speech in many voices, for tests that nothing in it is taken for something else."""

import random
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tests.e2e.audio_peer import RATE, Samples
from tests.interop.conftest import program
from trunkline.media.speech.neural import Hibari
from trunkline.media.speech.resample import to_telephone
from trunkline.media.speech.voices import CHILD, MAN, Voice

TEXT = """
one two three four five six seven eight nine zero star hash please press hold the line for sales support billing
account number order delivery tomorrow morning evening Monday Tuesday appointment doctor meeting yes no maybe
hello goodbye thank you sorry again could would should never always because window river mountain yellow green
silver whistle singing bee tree free sea feel ninety sixteen machine music human really early year dear fear you
who blue room noon moon soon lose choose beautiful international telephone company information operator
"""
WORDS = tuple(TEXT.split())
VOICES = ("en-us", "en-gb", "en-gb-scotland", "de", "fr-fr", "es", "it", "pt", "nl", "pl", "sv", "cs")
VARIANTS = ("+m1", "+m3", "+m7", "+f1", "+f2", "+f3", "+f5", "+croak", "+whisper")
ESPEAK_RATE = 22_050
HEADER = 44
WORDS_A_TEXT = 60
PEAK = 20_000
"""Of each text: a loud voice."""


def sentences(rng: random.Random) -> str:
    words = rng.choices(WORDS, k=WORDS_A_TEXT)
    return ", ".join(" ".join(words[at : at + 6]) for at in range(0, len(words), 6)) + "."


def espoken(seed: int) -> Samples:
    """About 20 s by espeak-ng."""
    rng = random.Random(seed)
    voice = rng.choice(VOICES) + rng.choice(VARIANTS)
    command = [program("espeak-ng", "espeak-ng"), "-v", voice, "-s", str(rng.randint(120, 190))]
    command += ["-p", str(rng.randint(10, 95)), "-b", "1", "--stdin", "--stdout"]
    done = subprocess.run(command, input=sentences(rng).encode(), capture_output=True, check=True)
    data = done.stdout[HEADER:]
    wave = np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float32) / 32768
    return loud(to_telephone(wave, ESPEAK_RATE))


def neural(seed: int, engine: Hibari) -> Samples:
    """About 20 s by the neural voice."""
    rng = random.Random(seed)
    voice = rng.choice((Voice("en-US"), Voice("en-US", gender=MAN), Voice("en-US", age=CHILD)))
    return loud(engine.synth(sentences(rng), voice, rate=rng.uniform(0.8, 1.3), pitch=rng.uniform(0.8, 1.3)))


def loud(wave: np.ndarray) -> Samples:
    return (wave * (PEAK / max(float(np.abs(wave).max()), 1e-3))).astype(np.int16)


def speech(legs: int, seconds: int, *, share_neural: float = 0.3) -> list[Samples]:
    """So much different speech for each of so many legs."""
    wanted, made = legs * seconds * RATE, 0
    pieces: list[Samples] = []
    engine, seed = Hibari(), 0
    with ThreadPoolExecutor(2) as pool:
        while made < wanted * share_neural:
            pieces.append(neural(seed, engine))
            made += len(pieces[-1])
            seed += 1
        while made < wanted:
            for piece in pool.map(espoken, range(seed, seed + 8)):
                pieces.append(piece)
                made += len(piece)
            seed += 8
    whole = np.concatenate(pieces)[:wanted]
    return list(whole.reshape(legs, seconds * RATE))
