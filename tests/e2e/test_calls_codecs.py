"""Calls between phones of different codecs through a whole server: both hear each other, and keys arrive."""

import wave
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from tests.media.sounds import likeness, voice
from trunkline.testing.local import Local
from trunkline.testing.phones.client import RemoteCall


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    with Local(tmp_path_factory.mktemp("codecs")) as local:
        yield local


@pytest.mark.parametrize(("one", "other"), [("opus", "PCMU"), ("PCMA", "G722"), ("G722", "opus"), ("opus", "opus")])
def test_phones_of_different_codecs_hear_each_other(local: Local, one: str, other: str) -> None:
    ada, bob = local.phone(), local.phone()
    ada.speaks(one)
    bob.speaks(other)
    twiml = f"<Response><Dial>{bob.number}</Dial></Response>"
    sid = local.client.calls.create(to=ada.number, from_=local.number, twiml=twiml).sid
    at_ada = ada.answers()
    at_bob = bob.answers()
    at_ada.says("Good morning, Bob")
    at_bob.hears("Good morning, Bob")
    at_bob.says("Good morning, Ada")
    at_ada.hears("Good morning, Ada")
    at_ada.press("42#")
    at_bob.hears_keys("42#")
    assert (at_ada.state.media.codec, at_bob.state.media.codec) == (one, other)
    at_ada.hangs_up()
    at_bob.ended()
    assert local.client.calls(sid).fetch().status == "completed"


@pytest.mark.parametrize("codec", ["G722", "opus"])
def test_a_caller_hears_prompts_and_its_keys_end_them(local: Local, codec: str) -> None:
    ada = local.phone()
    ada.speaks(codec)
    say = "".join(f"<Say>Choice number {n}</Say>" for n in range(40))
    twiml = f'<Response><Gather numDigits="1" actionOnEmptyResult="false">{say}</Gather></Response>'
    local.client.calls.create(to=ada.number, from_=local.number, twiml=twiml)
    call = ada.answers()
    call.hears("Choice number 0")
    call.hears("Choice number 2")
    call.press("5")
    call.ended(timeout_s=10)  # the same document again is none: the request for it fails


def pieces_heard(call: RemoteCall, said: np.ndarray) -> float:
    """How like half seconds of it are to what a phone heard, on average: silence gets 0, another voice a third."""
    with wave.open(BytesIO(call.heard_wav())) as file:
        heard = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    pieces = [said[at : at + 4000] for at in range(0, len(said) - 3999, 4000)]
    return float(np.mean([likeness(heard, piece, most_lag=len(heard) - 4000)[0] for piece in pieces]))


def test_opus_through_a_bad_network(local: Local, tmp_path: Path) -> None:
    """Both ways lose packets. A voice, no tones: what Opus makes up of them after a loss may be anything."""
    voices = [voice(4.0, seed=seed) for seed in (1, 2)]
    for name, said in zip(("ada", "bob"), voices, strict=True):
        with wave.open(str(tmp_path / f"{name}.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(said.tobytes())
    ada, bob = local.phone(), local.phone()
    ada.speaks("opus")
    twiml = f"<Response><Dial>{bob.number}</Dial></Response>"
    local.client.calls.create(to=ada.number, from_=local.number, twiml=twiml)
    at_ada = ada.answers()
    at_bob = bob.answers()
    at_ada.loses(0.03)
    at_ada.says(tmp_path / "ada.wav", wait=False)
    at_bob.says(tmp_path / "bob.wav")
    at_bob.hears_silence(0.5)
    at_ada.hears_silence(0.5)
    assert pieces_heard(at_bob, voices[0]) > 0.8
    assert pieces_heard(at_ada, voices[1]) > 0.65
    assert pieces_heard(at_ada, voices[0]) < 0.5
    at_ada.hangs_up()
