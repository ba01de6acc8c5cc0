"""baresip as a real phone at the whole server: real audio and keys in both directions, over UDP and TCP."""

import io
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.interop.baresip import Baresip, sound, write_wav
from tests.interop.switch import NUMBER, TO_PHONE, Peers, Switch
from trunkline.testing.phones.hearing import Listener

SAID = sound(40, 1)
GREETING, THANKS = sound(0.8, 2), sound(0.8, 3)
Start = Callable[..., Baresip]


@pytest.fixture(scope="session")
def said(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the phone says in every call."""
    return write_wav(tmp_path_factory.mktemp("says") / "said.wav", SAID)


@pytest.fixture
def start(switch: Switch, said: Path, tmp_path: Path) -> Iterator[Start]:
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
    phone.receives(60)
    phone.does("sndcode", "#")
    (kept,) = switch.app.wait("/recorded")
    assert kept["Digits"] == "#"
    phone.sees("CALL_CLOSED")
    phone.hears(THANKS[:-1600], timeout_s=1)  # it does not write what its jitter buffer holds when the call ends
    assert switch.ends() == ["completed"]
    audio = recorded(switch, kept["RecordingUrl"])
    assert contains(SAID, audio[2400:8000])


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


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_it_calls_presses_keys_and_is_recorded(switch: Switch, start: Start, transport: str) -> None:
    uri = f"sip:{NUMBER}@{switch.host}:{switch.sip_port};transport={transport.lower()}"
    an_ivr(switch, start(transport=transport), uri)


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_it_is_called_and_holds(switch: Switch, start: Start, peers: Peers, transport: str) -> None:
    number = f"{TO_PHONE[transport]}77"
    a_held_call(switch, start(transport=transport, port=peers.phone, user=number), number)


def test_a_law(switch: Switch, start: Start, peers: Peers) -> None:
    """The phone only knows A-law; the API hangs up."""
    number = f"{TO_PHONE['UDP']}77"
    phone = start(codecs="PCMA", port=peers.phone, user=number)
    switch.app.hooks.clear()
    made = switch.calls(number, f"<Play loop='0'>{switch.app.url}/greeting.wav</Play>")
    phone.hears(GREETING)
    switch.client.calls(made.sid).update(status="completed")
    phone.sees("CALL_CLOSED")
    assert switch.ends() == ["completed"]
