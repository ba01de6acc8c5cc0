"""The speaker with its real engines."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from trunkline.media.speech import tone_pattern
from trunkline.media.speech.engine import CannotSpeak
from trunkline.media.speech.espeak import Espeak
from trunkline.media.speech.resample import to_telephone
from trunkline.media.speech.speaker import Speaker, Spoken
from trunkline.media.speech.voices import MAN, WOMAN, Voice

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


@pytest.fixture(scope="module")
def speaker() -> Speaker:
    speaker = Speaker()
    speaker.warm()
    return speaker


def say(speaker: Speaker, path: Path, text: str, **how: str) -> tuple[Spoken, npt.NDArray[np.int16]]:
    spoken = speaker.speak_to(path, text, **how)
    audio = np.frombuffer(path.read_bytes(), "<i2")
    assert len(audio) == spoken.samples
    return spoken, audio


def pitch_hz(audio: npt.NDArray[np.int16]) -> float:
    """The commonest fundamental of voiced stretches, by autocorrelation."""
    found = []
    for start in range(0, len(audio) - 800, 400):
        frame = audio[start : start + 800].astype(float)
        if np.sqrt((frame**2).mean()) > 800:
            correlation = np.correlate(frame, frame, "full")[799:]
            lag = 22 + int(correlation[22:110].argmax())
            if correlation[lag] > 0.5 * correlation[0]:
                found.append(8000 / lag)
    return float(np.median(found))


def test_english_is_spoken_and_the_same_each_time(speaker: Speaker, tmp_path: Path) -> None:
    text = "Welcome to Trunkline. Press one for sales."
    spoken, first = say(speaker, tmp_path / "a.pcm", text)
    _, second = say(speaker, tmp_path / "b.pcm", text)
    assert (spoken.engine, spoken.warning) == ("hibari", "")
    assert 2.0 < len(first) / 8000 < 5.0
    assert 3000 < int(np.abs(first.astype(int)).max()) <= 32_767
    assert (first == second).all()


def test_a_man_is_lower_than_a_woman_and_as_fast(speaker: Speaker, tmp_path: Path) -> None:
    text = "We are all away, and will be home later in the evening."
    _, woman = say(speaker, tmp_path / "a.pcm", text, voice="woman")
    _, man = say(speaker, tmp_path / "b.pcm", text, voice="man")
    assert pitch_hz(man) < 0.9 * pitch_hz(woman)
    assert len(man) == pytest.approx(len(woman), rel=0.15)


def test_prosody_breaks_and_volume_change_the_audio(speaker: Speaker, tmp_path: Path) -> None:
    _, plain = say(speaker, tmp_path / "a.pcm", "Hello there, my friend.")
    _, slow = say(speaker, tmp_path / "b.pcm", '<speak><prosody rate="60%">Hello there, my friend.</prosody></speak>')
    _, soft = say(
        speaker, tmp_path / "c.pcm", '<speak><prosody volume="-12dB">Hello there, my friend.</prosody></speak>'
    )
    _, paused = say(speaker, tmp_path / "d.pcm", '<speak>Hello there, my friend.<break time="2s"/></speak>')
    assert len(slow) > 1.35 * len(plain)
    assert np.abs(soft.astype(int)).max() == pytest.approx(np.abs(plain.astype(int)).max() / 4, rel=0.05)
    assert len(paused) == len(plain) + 16_000
    assert not paused[-16_000:].any()


@needs_espeak
@pytest.mark.parametrize(
    ("voice", "language"), [("", "de-DE"), ("Polly.Hans", ""), ("alice", "ja-JP"), ("man", "ru-RU")]
)
def test_other_languages_are_espeaks(speaker: Speaker, tmp_path: Path, voice: str, language: str) -> None:
    spoken, audio = say(speaker, tmp_path / "a.pcm", "Guten Tag 123", voice=voice, language=language)
    assert (spoken.engine, spoken.warning) == ("espeak", "")
    assert len(audio) > 4000
    assert np.abs(audio.astype(int)).max() > 2000


@needs_espeak
def test_a_language_within_the_text(speaker: Speaker, tmp_path: Path) -> None:
    spoken, _ = say(speaker, tmp_path / "a.pcm", '<speak>Hello <lang xml:lang="de-DE">und guten Tag</lang></speak>')
    assert spoken.engine == "hibari+espeak"


def test_a_language_that_nobody_speaks_is_read_in_english_with_a_warning(
    speaker: Speaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken, audio = say(speaker, tmp_path / "a.pcm", "Magandang umaga", language="fil-PH")
    assert spoken.engine == "hibari"
    assert "fil-PH" in spoken.warning
    assert len(audio) > 4000
    monkeypatch.setattr(Espeak, "speaks", lambda _self, _language: False)
    spoken, _ = say(speaker, tmp_path / "a.pcm", "Guten Tag", language="de-DE")
    assert spoken.engine == "hibari"
    assert "de-DE" in spoken.warning


def test_a_voice_that_is_not_known_is_replaced_with_a_warning(speaker: Speaker, tmp_path: Path) -> None:
    spoken, _ = say(speaker, tmp_path / "a.pcm", "Hi", voice="nonsense")
    assert "nonsense" in spoken.warning


@pytest.mark.parametrize("text", ["...", "漢字 привет", "\x00\x01", "[a](/b/)", "a" * 500, "<speak><p/></speak>", "😀"])
def test_odd_texts_do_not_fail(speaker: Speaker, tmp_path: Path, text: str) -> None:
    say(speaker, tmp_path / "a.pcm", text)


def test_broken_ssml_is_refused(speaker: Speaker, tmp_path: Path) -> None:
    with pytest.raises(CannotSpeak, match="SSML"):
        speaker.speak_to(tmp_path / "a.pcm", "<speak>a")
    assert not list(tmp_path.iterdir())


def test_tones_speak_patterns_and_keep_breaks(tmp_path: Path) -> None:
    speaker = Speaker("tones")
    spoken, audio = say(speaker, tmp_path / "a.pcm", '<speak>Press <emphasis>one</emphasis><break time="1s"/></speak>')
    assert spoken.engine == "tones"
    assert tone_pattern.hears(audio, "Press one")
    assert len(audio) == (tone_pattern.MS + 1000) * 8


@needs_espeak
def test_espeak_by_setting_speaks_english_too(tmp_path: Path) -> None:
    spoken, _ = say(Speaker("espeak"), tmp_path / "a.pcm", "Hello there")
    assert spoken.engine == "espeak"


def test_espeak_that_is_not_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Espeak()
    monkeypatch.setitem(engine.__dict__, "_command", [])
    assert not engine.speaks("de-DE")
    with pytest.raises(CannotSpeak, match="not installed"):
        engine.synth("x", Voice("de-DE"))


def test_the_library_of_espeakng_loader_speaks_as_the_program_does() -> None:
    pytest.importorskip("espeakng_loader")
    engine = Espeak()
    engine.__dict__["_command"] = [sys.executable, "-m", "trunkline.media.speech.espeak_library"]
    assert engine.speaks("de-DE")
    assert not engine.speaks("xx-XX")
    wave = engine.synth("Guten Tag, wie geht es Ihnen?", Voice("de-DE", MAN))
    assert 1.0 < len(wave) / 8000 < 5.0
    assert float(np.abs(wave).max()) > 0.1
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run([*engine.__dict__["_command"], "-v", "xx"], check=True, input=b"x", capture_output=True)


@needs_espeak
def test_espeak_reads_no_phoneme_markup_and_no_options() -> None:
    engine = Espeak()
    woman = Voice("en-GB", WOMAN)
    assert len(engine.synth("--help -w /tmp/x", woman)) > 4000
    assert len(engine.synth("[[h@l'oU]]", woman)) > 1000


@pytest.mark.parametrize("rate", [24_000, 22_050, 19_200, 28_800, 24_123])
def test_resampling_keeps_the_band_and_nothing_else(rate: int) -> None:
    n = np.arange(rate) / rate

    def level_db(hz: int) -> float:
        out = to_telephone(np.sin(2 * np.pi * hz * n).astype(np.float32), rate)[500:-500]
        return float(20 * np.log10(np.sqrt((out.astype(float) ** 2).mean() * 2) + 1e-9))

    assert abs(level_db(400)) < 0.1
    assert abs(level_db(3000)) < 0.3
    assert level_db(4600) < -60
    assert len(to_telephone(np.zeros(rate, np.float32), rate)) == pytest.approx(8000, abs=60)
