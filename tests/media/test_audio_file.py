"""Audio files: decoded as the ffmpeg program does, and never a danger."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trunkline.media import audio_file, wav
from trunkline.media.audio_file import Unreadable, decode, to_mp3

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is the oracle")
SOURCE = "aevalsrc=0.4*sin(2*PI*(300+200*t)*t)+0.1*random(0)|0.3*sin(2*PI*(500+100*t)*t)+0.1*random(1):s=44100:d={}"

EXACT = {
    "8k-mono.wav": "-ar 8000 -ac 1",
    "8k-stereo.wav": "-ar 8000 -ac 2",
    "16k-mono.wav": "-ar 16000 -ac 1",
    "16k-stereo.wav": "-ar 16000 -ac 2",
    "44k-mono.wav": "-ar 44100 -ac 1",
    "44k-stereo.wav": "-ar 44100 -ac 2",
    "48k-24bit.wav": "-ar 48000 -c:a pcm_s24le",
    "float.wav": "-c:a pcm_f32le",
    "11k-8bit.wav": "-ar 11025 -c:a pcm_u8",
    "surround.wav": "-ac 6",
    "ulaw.wav": "-ar 8000 -ac 1 -c:a pcm_mulaw",
    "alaw.wav": "-ar 8000 -ac 1 -c:a pcm_alaw",
    "adpcm.wav": "-c:a adpcm_ms",
    "64k.mp3": "-ac 1 -b:a 64k",
    "128k-stereo.mp3": "-b:a 128k",
    "8k.mp3": "-ar 8000 -ac 1",
    "variable.mp3": "-q:a 4",
    "lossless.flac": "",
    "apple.aiff": "",
    "sun.au": "",
}
CLOSE = {
    "vorbis.ogg": "-c:a libvorbis",
    "opus.ogg": "-c:a libopus",
    "aac.m4a": "-c:a aac",
    "aac.aac": "-c:a aac",
    "opus.webm": "-c:a libopus",
}


def make(path: Path, options: str, seconds: float = 3.3) -> None:
    command = [
        "ffmpeg",
        "-y",
        "-loglevel",
        "error",
        "-f",
        "lavfi",
        "-i",
        SOURCE.format(seconds),
        *options.split(),
        path,
    ]
    subprocess.run(command, check=True, timeout=60)


def by_ffmpeg(path: Path, *options: str) -> bytes:
    command = ["ffmpeg", "-loglevel", "error", *options, "-i", path, "-ar", "8000", "-ac", "1", "-f", "s16le", "-"]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


@needs_ffmpeg
@pytest.mark.parametrize("name", EXACT)
def test_audio_is_the_ffmpeg_programs_sample_by_sample(name: str, tmp_path: Path) -> None:
    source, target = tmp_path / name, tmp_path / "out.pcm"
    make(source, EXACT[name])
    decoded = decode(source, target)
    assert target.read_bytes() == by_ffmpeg(source)
    assert decoded.samples == target.stat().st_size // 2
    assert decoded.ms == pytest.approx(3300, abs=60)


@needs_ffmpeg
@pytest.mark.parametrize("name", CLOSE)
def test_lossy_codecs_agree_to_a_rounding(name: str, tmp_path: Path) -> None:
    source, target = tmp_path / name, tmp_path / "out.pcm"
    make(source, CLOSE[name])
    decode(source, target)
    ours = np.frombuffer(target.read_bytes(), "<i2").astype(int)
    theirs = np.frombuffer(by_ffmpeg(source), "<i2").astype(int)
    assert len(ours) == len(theirs)
    assert np.abs(ours - theirs).max() <= 1


@needs_ffmpeg
@pytest.mark.slow
def test_ten_minutes_are_exact(tmp_path: Path) -> None:
    source, target = tmp_path / "long.wav", tmp_path / "out.pcm"
    make(source, "-ar 44100 -ac 2", 600)
    assert decode(source, target).ms == 600_000
    assert target.read_bytes() == by_ffmpeg(source)


@pytest.mark.parametrize(("content_type", "law"), [("audio/basic", "mulaw"), ("audio/pcma", "alaw")])
@needs_ffmpeg
def test_raw_g711_is_known_by_its_content_type(tmp_path: Path, content_type: str, law: str) -> None:
    source, target = tmp_path / "raw", tmp_path / "out.pcm"
    make(source, f"-ar 8000 -ac 1 -f {law}")
    decode(source, target, content_type=content_type)
    assert target.read_bytes() == by_ffmpeg(source, "-f", law, "-ar", "8000")


@needs_ffmpeg
def test_sun_audio_says_what_it_is_itself(tmp_path: Path) -> None:
    source, target = tmp_path / "sun.au", tmp_path / "out.pcm"
    make(source, "-ar 16000 -ac 2")
    decode(source, target, content_type="audio/basic")
    assert target.read_bytes() == by_ffmpeg(source)


def write_wav(path: Path, samples: int = 8000) -> None:
    tone = (9000 * np.sin(np.arange(samples) / 5)).astype("<i2")
    path.write_bytes(wav.header(len(tone) * 2) + tone.tobytes())


def test_longer_than_allowed_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", 9000)
    with pytest.raises(Unreadable, match="longer than 1 s"):
        decode(tmp_path / "a.wav", tmp_path / "out.pcm", max_ms=1000)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_playlists_and_files_that_name_others_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    write_wav(secret)
    lists = {
        "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        "b.ffconcat": f"ffconcat version 1.0\nfile '{secret}'\n",
        "c.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "d.mpd": f'<?xml version="1.0"?><MPD><Period><AdaptationSet><Representation><BaseURL>{secret}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>",
    }
    for name, text in lists.items():
        source = tmp_path / name
        source.write_text(text)
        with pytest.raises(Unreadable):
            decode(source, tmp_path / "out.pcm")


def test_no_audio_is_unreadable(tmp_path: Path) -> None:
    for content in (b"", b"<html>no audio</html>", wav.header(0)):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(Unreadable):
            decode(tmp_path / "x", tmp_path / "out.pcm")
    with pytest.raises((Unreadable, OSError)):
        decode(tmp_path / "nowhere", tmp_path / "out.pcm")


HEADERS = [
    b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x02\0\x44\xac\0\0\x10\xb1\x02\0\x04\0\x10\0data\xff\xff\xff\x7f",
    b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x11\0\x02\0\xff\xff\xff\x7f\0\0\0\0\0\0\x04\0data\x24\0\0\0",
    b"ID3\x04\0\0\0\0\0\x05hello\xff\xfb\x90\x44",
    b"\xff\xfb\x90\x44",
    b"fLaC\0\0\0\x22\x10\0\x10\0",
    b"OggS\0\x02",
    b"FORM\0\0\0\x2eAIFFCOMM\0\0\0\x12\0\x02",
    b"\0\0\0\x20ftypM4A ",
    b"\x1a\x45\xdf\xa3",
    b".snd\0\0\0\x18\xff\xff\xff\xff\0\0\0\x01\0\0\x1f\x40\0\0\0\x01",
    b"#!AMR\n",
    b"caff\0\x01\0\0",
    b"wvpk",
    b"",
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=st.sampled_from(HEADERS), rest=st.binary(max_size=3000))
def test_hostile_bytes_are_read_or_refused(tmp_path: Path, header: bytes, rest: bytes) -> None:
    source, target = tmp_path / "hostile", tmp_path / "out.pcm"
    source.write_bytes(header + rest)
    try:
        decoded = decode(source, target, max_ms=60_000)
    except Unreadable:
        assert not target.exists()
    else:
        assert target.stat().st_size == decoded.samples * 2
        target.unlink()
    assert not list(tmp_path.glob("*.draft"))


def test_recordings_become_mp3_with_as_many_channels(tmp_path: Path) -> None:
    source, target, back = tmp_path / "r.wav", tmp_path / "r.mp3", tmp_path / "r.pcm"
    n = np.arange(16_000)
    left, right = 9000 * np.sin(n / 5), 5000 * np.sin(n / 3)
    source.write_bytes(wav.header(64_000, 2) + np.stack([left, right], 1).astype("<i2").tobytes())
    assert to_mp3(source, target) == target.stat().st_size > 5000
    with audio_file.av.open(str(target)) as container:
        assert (container.streams.audio[0].codec_context.channels, container.streams.audio[0].rate) == (2, 8000)
    decode(target, back)
    ours = np.frombuffer(back.read_bytes(), "<i2").astype(float)
    mono = (left + right) / 2
    best = max(np.corrcoef(ours[shift : shift + 12_000], mono[:12_000])[0, 1] for shift in range(3000))
    assert best > 0.99


def test_mp3_of_what_is_no_wav_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"no wav at all")
    with pytest.raises(Unreadable):
        to_mp3(tmp_path / "x.wav", tmp_path / "x.mp3")
    assert not list(tmp_path.glob("*.mp3*"))


def test_our_wav_header_reads_back(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(wav.header(32_000, 2) + bytes(32_000))
    assert wav.channels_and_ms(tmp_path / "x.wav") == (2, 1000)
    for content in (b"RIFF", b"x" * 44):
        (tmp_path / "y.wav").write_bytes(content)
        with pytest.raises(wav.NotWav):
            wav.channels_and_ms(tmp_path / "y.wav")
    with pytest.raises(ValueError, match="cannot hold"):
        wav.header(1 << 32)
