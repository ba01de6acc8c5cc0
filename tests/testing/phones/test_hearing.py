"""Texts are heard where they are said, and no other text is, however much alike."""

import itertools
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from trunkline.media.speech.speaker import Speaker
from trunkline.rtp import g711
from trunkline.testing.phones.heard import FRAME
from trunkline.testing.phones.hearing import Listener, Silent, correlation
from trunkline.testing.phones.rtp_peer import decoded, encoded
from trunkline.testing.phones.tones import sine

TEXTS = (
    "Press one for sales.",
    "Press two for sales.",
    "Press one for support.",
    "Press three for sales.",
    "Welcome to Trunkline.",
    "Welcome to the bank.",
    "Thank you, goodbye.",
    "Thank you. Good day.",
    "Your code is one two three four.",
    "Your code is one two three five.",
    "Your code is one two four four.",
    "Yes.",
    "No.",
    "Hello.",
    "Hello there.",
    "Please leave a message after the tone.",
    "Please leave your message after the tone.",
    "You pressed 1.",
    "You pressed 2.",
    "You pressed 3.",
    "You pressed 7.",
)
ENGINES = ("hibari", "tones", "espeak")
STEP = 4000
"""Samples that are looked at at a time, as in a call."""


FEW = TEXTS[:12]


@cache
def spoken(engine: str, text: str) -> np.ndarray:
    speaker = Speaker(engine)
    with tempfile.TemporaryDirectory() as folder:
        speaker.speak_to(Path(folder) / "x", text)
        return np.frombuffer((Path(folder) / "x").read_bytes(), np.int16)


def line(*pieces, law=g711.PCMU) -> np.ndarray:
    return decoded(encoded(np.concatenate(pieces), law), law)


def listen(reference, heard, there=None):
    listener = Listener(reference)
    there = np.ones(len(heard), bool) if there is None else there
    for end in range(STEP, len(heard) + STEP, STEP):
        match = listener.listen(heard[:end], there[:end])
        if match is not None:
            return match, listener
    return None, listener


@pytest.mark.parametrize(
    "engine", [pytest.param(engine, marks=[] if engine == "tones" else pytest.mark.slow) for engine in ENGINES]
)
def test_only_the_text_that_was_said_is_heard(engine):
    rng = np.random.default_rng(7)
    wrong = []
    texts = TEXTS if engine == "hibari" else FEW
    for wanted, said in itertools.product(texts, texts):
        heard = line(sine((), int(rng.integers(0, 900))), spoken(engine, said), sine((), 300))
        match, listener = listen(spoken(engine, wanted), heard)
        if (match is not None) != (wanted == said):
            wrong.append((wanted, said, listener.best))
    assert wrong == []


@pytest.mark.parametrize("engine", ENGINES)
def test_it_is_heard_where_it_is_in_both_laws_and_at_another_level(engine):
    said, lead = spoken(engine, TEXTS[4]), 4321
    silence = int(np.argmax(np.abs(said.astype(np.int32)) > 40))
    for law, gain in ((g711.PCMU, 1.0), (g711.PCMA, 1.0), (g711.PCMU, 0.4)):
        heard = line(np.zeros(lead, np.int16), (said * gain).astype(np.int16), sine((), 500), law=law)
        match, _ = listen(said, heard)
        assert abs(match.start - lead - silence) <= 40
        assert match.score > 0.98


@pytest.mark.parametrize("engine", ENGINES)
def test_a_few_lost_packets_do_no_harm(engine):
    rng = np.random.default_rng(3)
    heard_all = total = 0
    for text, known in itertools.product(FEW, (True, False)):
        heard = line(sine((), 200), spoken(engine, text), sine((), 300)).copy()
        there = np.ones(len(heard), bool)
        for start in range(0, len(heard), FRAME):
            if rng.random() < 0.02:
                heard[start : start + FRAME] = 0
                there[start : start + FRAME] = not known
        total += 1
        heard_all += listen(spoken(engine, text), heard, there)[0] is not None
    assert heard_all >= total - 1


def test_a_repeated_or_dropped_packet_does_no_harm():
    said = spoken("hibari", TEXTS[15])
    middle = len(said) // 2
    longer = line(said[:middle], said[middle - FRAME : middle], said[middle:], sine((), 300))
    shorter = line(said[:middle], said[middle + FRAME :], sine((), 300))
    assert listen(said, longer)[0] is not None
    assert listen(said, shorter)[0] is not None


def test_half_of_a_text_is_not_the_text():
    said = spoken("hibari", TEXTS[15])
    assert listen(said, line(said[: len(said) * 3 // 4], sine((), 2000)))[0] is None
    assert listen(said, line(said[len(said) // 4 :], sine((), 2000)))[0] is None


def test_a_sentence_is_heard_among_others():
    whole = spoken("hibari", "Welcome. Press one for sales. Goodbye.")
    assert listen(spoken("hibari", "Press one for sales."), line(whole, sine((), 300)))[0] is not None
    assert listen(spoken("hibari", "Press two for sales."), line(whole, sine((), 300)))[0] is None


def test_noise_silence_and_loss_are_no_text():
    said = spoken("hibari", TEXTS[4])
    noise = (np.random.default_rng(2).normal(size=40_000) * 1500).astype(np.int16)
    assert listen(said, line(noise))[0] is None
    assert listen(said, line(np.zeros(40_000, np.int16)))[0] is None
    nothing = np.zeros(len(said) + 8000, np.int16)
    assert listen(said, nothing, np.zeros(len(nothing), bool))[0] is None
    with pytest.raises(Silent):
        Listener(np.zeros(8000, np.int16))


def test_long_and_short_correlation_agree():
    rng = np.random.default_rng(1)
    audio, pattern = rng.normal(size=3000) * 500, rng.normal(size=800) * 500
    audio[1234:2034] += pattern
    fast = correlation(audio, pattern)
    assert int(fast.argmax()) == 1234
    for start in (0, 1200, 1230):
        piece = correlation(audio[start : start + 830], pattern)
        assert np.allclose(piece, fast[start : start + 31])
