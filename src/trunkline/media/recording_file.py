"""Recordings in the form that is asked for: mixed to one channel, as MP3. Runs in a worker only (NumPy, FFmpeg)."""

from pathlib import Path
from typing import Final

import numpy as np

from trunkline.media import wav
from trunkline.media.audio_file import to_mp3

CHUNK_BYTES: Final = 1 << 20
"""Audio mixed at once."""


def convert(source: Path, target: Path, *, form: str, channels: int) -> int:
    """Write the WAV file of a recording to `target` as `wav` or `mp3` with so many channels; returns its bytes.

    Raises NotWav, Unreadable, OSError; ValueError for channels that the recording does not have.
    """
    have, _ = wav.channels_and_ms(source)
    if channels > have:
        raise ValueError(f"{channels} channels of {have}")
    if channels == have:
        return to_mp3(source, target) if form == "mp3" else _copy(source, target)
    if form == "wav":
        return mix(source, target)
    mono = target.with_name(target.name + ".mono.wav")
    try:
        mix(source, mono)
        return to_mp3(mono, target)
    finally:
        mono.unlink(missing_ok=True)


def mix(source: Path, target: Path) -> int:
    """Two channels into one: the mean of both, so that nothing is cut off. Returns the bytes written."""
    size = source.stat().st_size - wav.HEADER_BYTES
    with source.open("rb") as stereo, target.open("wb") as mono:
        stereo.seek(wav.HEADER_BYTES)
        mono.write(wav.header(size // 4 * 2))
        while len(chunk := stereo.read(CHUNK_BYTES)) >= 4:
            pairs = np.frombuffer(chunk[: len(chunk) // 4 * 4], "<i2").reshape(-1, 2).astype(np.int32)
            mono.write(((pairs[:, 0] + pairs[:, 1]) >> 1).astype("<i2").tobytes())
    return target.stat().st_size


def _copy(source: Path, target: Path) -> int:
    target.write_bytes(source.read_bytes())
    return target.stat().st_size
