"""What baresip does at the whole server, whichever way it gets there: the calls of test_baresip and test_kamailio."""

import io
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.interop.baresip import Baresip, sound, write_wav
from tests.interop.switch import Switch
from trunkline.testing.phones.hearing import Listener

SAID = sound(40, 1)
GREETING, THANKS = sound(0.5, 2), sound(0.5, 3)
Start = Callable[..., Baresip]


@pytest.fixture(scope="session", name="said")
def says(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the phone says in every call."""
    return write_wav(tmp_path_factory.mktemp("says") / "said.wav", SAID)


@pytest.fixture(name="start")
def starts(switch: Switch, said: Path, tmp_path: Path) -> Iterator[Start]:
    """Start phones."""
    for name, samples in (("greeting", GREETING), ("thanks", THANKS)):
        path = write_wav(tmp_path / f"{name}.wav", samples)
        switch.app.files[f"/{name}.wav"] = ("audio/wav", path.read_bytes())
    made = []

    def start(**options: object) -> Baresip:
        made.append(Baresip(tmp_path / f"phone{len(made)}", said, **options))
        return made[-1]

    yield start
    for one in made:
        one.close()


def recorded(switch: Switch, url: str) -> np.ndarray:
    """A recording's samples."""
    with wave.open(io.BytesIO(switch.fetch(f"{url}.wav"))) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def contains(heard: np.ndarray, what: np.ndarray) -> bool:
    """Whether a sound is in it, whole."""
    return Listener(what).listen(heard, np.ones(len(heard), np.bool_)) is not None


def an_ivr(switch: Switch, phone: Baresip, uri: str) -> None:
    """The phone calls, hears a prompt, presses keys, is recorded, hears that, and is hung up."""
    switch.answers(
        "<Gather numDigits='2' action='/chosen'><Play>/greeting.wav</Play></Gather>",
        chosen="<Record maxLength='10' finishOnKey='#' playBeep='false' action='/recorded'/>",
        recorded="<Play>/thanks.wav</Play><Hangup/>",
    )
    phone.does("dial", uri)
    phone.sees("CALL_ESTABLISHED")
    phone.hears(GREETING)
    for key in "42":
        phone.does("sndcode", key)
    (chosen,) = switch.app.wait("/chosen")
    assert chosen["Digits"] == "42"
    assert chosen["From"] == "+12025550177"
    phone.receives(45)
    phone.does("sndcode", "#")
    (kept,) = switch.app.wait("/recorded")
    assert kept["Digits"] == "#"
    phone.sees("CALL_CLOSED")
    phone.hears(THANKS[:-1600], timeout_s=1)  # it does not write what its jitter buffer holds when the call ends
    assert switch.ends() == ["completed"]
    audio = recorded(switch, kept["RecordingUrl"])
    assert contains(SAID, audio[1600:5600])


def a_held_call(switch: Switch, phone: Baresip, to: str) -> None:
    """The phone is called, hears a prompt, holds, resumes, hears on and hangs up."""
    switch.app.hooks.clear()
    made = switch.calls(to, f"<Play loop='0'>{switch.app.url}/greeting.wav</Play>")
    phone.sees("CALL_ESTABLISHED")
    phone.hears(GREETING)
    phone.does("hold")
    phone.receives_nothing()
    phone.does("resume")
    phone.receives(20)  # its file of what it heard ends with the hold
    phone.does("hangup")
    assert switch.ends() == ["completed"]
    assert int(switch.landed(made.sid).duration) >= 2
