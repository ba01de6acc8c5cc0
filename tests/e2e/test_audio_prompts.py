"""Prompts arrive bit for bit as FFmpeg converts them, each RTP frame once and in order."""

import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.e2e.audio_line import Line
from tests.e2e.audio_peer import MASK, Got, Peer, Wire
from tests.e2e.voice_app import response
from tests.interop.conftest import program
from tests.interop.switch import Switch

FRAME = 160
SILENCE = {"PCMU": b"\xff", "PCMA": b"\xd5"}
RAW = {"PCMU": "mulaw", "PCMA": "alaw"}
MOST_SKIPPED = 0.2
"""Share of ticks that may be missed on a busy machine: the audio goes on where it was. How few a quiet one misses is
measured by bench/media.py."""


def ffmpeg(*arguments: str) -> None:
    subprocess.run([program("ffmpeg", "ffmpeg"), "-nostdin", "-loglevel", "error", "-y", *arguments], check=True)


def make_music(folder: Path, seconds: int) -> dict[str, Path]:
    """The same audio, loud from its first to its last sample, as a stereo WAV at 44.1 kHz and as MP3."""
    rng = np.random.default_rng(7)
    size = seconds * 44_100
    left = np.repeat(rng.normal(0, 5000, size // 4 + 1), 4)[:size]
    both = np.stack([left, rng.normal(0, 1500, size)], axis=1)
    raw, wav, mp3 = folder / "music.raw", folder / "music.wav", folder / "music.mp3"
    np.clip(both, -32000, 32000).astype("<i2").tofile(raw)
    ffmpeg("-f", "s16le", "-ar", "44100", "-ac", "2", "-i", str(raw), "-ar", "44100", str(folder / "wide.wav"))
    ffmpeg("-i", str(folder / "wide.wav"), "-ar", "16000", str(wav))
    ffmpeg("-i", str(folder / "wide.wav"), "-b:a", "64k", str(mp3))
    return {"wav": wav, "mp3": mp3}


def converted(source: Path, codec: str) -> bytes:
    """What FFmpeg makes of a file."""
    target = source.with_suffix(f".{RAW[codec]}")
    ffmpeg("-i", str(source), "-ar", "8000", "-ac", "1", "-f", RAW[codec], str(target))
    return target.read_bytes()


def check_order(packets: list[Got]) -> int:
    """Every packet follows the one before it; how many ticks were missed."""
    skipped = 0
    for before, packet in itertools.pairwise(packets):
        assert packet.ssrc == before.ssrc
        assert packet.sequence == (before.sequence + 1) & 0xFFFF, "a packet is lost, late or twice"
        step = (packet.timestamp - before.timestamp) & MASK
        assert step % FRAME == 0
        assert FRAME <= step <= 100 * FRAME
        assert packet.marker == (step > FRAME), "a jump of the timestamp is marked, nothing else is"
        skipped += step // FRAME - 1
    return skipped


def check_audio(packets: list[Got], expected: bytes, codec: str) -> None:
    """From its first frame on, the audio is exactly this."""
    expected += SILENCE[codec] * (-len(expected) % FRAME)
    payloads = [packet.payload for packet in packets]
    assert {len(payload) for payload in payloads} == {FRAME}
    first = payloads.index(expected[:FRAME])
    frames = len(expected) // FRAME
    assert b"".join(payloads[first : first + frames]) == expected
    assert set(b"".join([*payloads[:first], *payloads[first + frames :]])) <= set(SILENCE[codec])


class Leg(NamedTuple):
    """One call that hears one file."""

    kind: str
    codec: str
    peer: Peer


def play(switch: Switch, line: Line, wire: Wire, folder: Path, seconds: int) -> list[tuple[Leg, bytes]]:
    """Both files to a leg of each codec, all at once; what each should have heard."""
    files = make_music(folder, seconds)
    for kind, path in files.items():
        switch.app.files[f"/music.{kind}"] = (f"audio/{'wav' if kind == 'wav' else 'mpeg'}", path.read_bytes())
    legs = [Leg(kind, codec, Peer(wire, codec=codec)) for kind in files for codec in RAW]
    calls = []
    for leg in legs:
        url = f"{switch.app.url}/music.{leg.kind}"
        switch.app.answers["/voice"] = response(f"<Play>{url}</Play>")
        calls.append(line.dial(switch.number, leg.peer))
    for call in calls:
        assert call.ended.wait(seconds + 15), "the call goes on"
        call.hang_up()
    return [(leg, converted(files[leg.kind], leg.codec)) for leg in legs]


def check(legs: list[tuple[Leg, bytes]]) -> None:
    for leg, expected in legs:
        packets = leg.peer.audio()
        assert packets == leg.peer.got, "nothing but audio comes"
        skipped = check_order(packets)
        check_audio(packets, expected, leg.codec)
        print(f"{leg.kind} {leg.codec}: {len(packets)} packets in order, {skipped} ticks missed")
        assert skipped <= MOST_SKIPPED * len(packets)


@pytest.fixture
def folder(tmp_path: Path, audio_switch: Switch) -> Iterator[Path]:
    yield tmp_path
    audio_switch.app.files.clear()


def test_ten_seconds(audio_switch: Switch, line: Line, wire: Wire, folder: Path) -> None:
    check(play(audio_switch, line, wire, folder, 10))


@pytest.mark.slow
def test_ten_minutes(audio_switch: Switch, line: Line, wire: Wire, folder: Path) -> None:
    check(play(audio_switch, line, wire, folder, 600))
