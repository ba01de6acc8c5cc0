"""What is made of recordings, by the real worker."""

import array
import itertools
import math
from pathlib import Path

import av
import pytest

from trunkline.media import recording_file, wav
from trunkline.media.recording_audio import RecordingAudio

SECONDS = 2


def tone(hz: int, level: int = 16_000) -> list[int]:
    return [round(level * math.sin(2 * math.pi * hz * at / wav.RATE)) for at in range(SECONDS * wav.RATE)]


@pytest.fixture
def stereo(tmp_path: Path) -> Path:
    """440 Hz on the left, 1000 Hz on the right."""
    samples = array.array("h", itertools.chain.from_iterable(zip(tone(440), tone(1000), strict=True)))
    file = tmp_path / "stereo.wav"
    file.write_bytes(wav.header(len(samples) * 2, 2) + samples.tobytes())
    return file


def decoded(file: Path) -> tuple[str, int, float]:
    """Codec, channels and seconds, as FFmpeg reads it."""
    with av.open(str(file)) as container:
        stream = container.streams.audio[0]
        seconds = sum(frame.samples / frame.sample_rate for frame in container.decode(stream))
        return stream.codec_context.name, stream.codec_context.channels, seconds


def test_two_channels_are_mixed_to_their_mean(stereo: Path, tmp_path: Path) -> None:
    recording_file.mix(stereo, tmp_path / "mono.wav")
    assert wav.channels_and_ms(tmp_path / "mono.wav") == (1, SECONDS * 1000)
    mixed = array.array("h", (tmp_path / "mono.wav").read_bytes()[wav.HEADER_BYTES :])
    assert list(mixed) == [(left + right) >> 1 for left, right in zip(tone(440), tone(1000), strict=True)]


def test_the_loudest_is_not_cut_off(tmp_path: Path) -> None:
    samples = array.array("h", [32_767, 32_767, -32_768, -32_768, 32_767, -32_768])
    (tmp_path / "s.wav").write_bytes(wav.header(len(samples) * 2, 2) + samples.tobytes())
    recording_file.mix(tmp_path / "s.wav", tmp_path / "m.wav")
    assert list(array.array("h", (tmp_path / "m.wav").read_bytes()[wav.HEADER_BYTES :])) == [32_767, -32_768, -1]


async def test_the_worker_makes_every_form(stereo: Path, tmp_path: Path) -> None:
    audio = RecordingAudio()
    try:
        for form, channels, codec in (("mp3", 2, "mp3float"), ("mp3", 1, "mp3float"), ("wav", 1, "pcm_s16le")):
            target = tmp_path / f"made-{channels}.{form}"
            await audio.convert(stereo, target, form=form, channels=channels)
            made, has, seconds = decoded(target)
            assert (made, has) == (codec, channels)
            assert seconds == pytest.approx(SECONDS, abs=0.2)
        assert not list(tmp_path.glob("*.mono.wav"))
        with pytest.raises(OSError, match="No such file"):
            await audio.convert(tmp_path / "absent.wav", tmp_path / "x.mp3", form="mp3", channels=1)
        (tmp_path / "bad.wav").write_bytes(b"not a wav file" * 10)
        with pytest.raises(OSError, match="not 16-bit PCM"):
            await audio.convert(tmp_path / "bad.wav", tmp_path / "x.mp3", form="mp3", channels=1)
    finally:
        await audio.close()
