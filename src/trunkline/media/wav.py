"""WAV files as we write them: 16-bit little-endian PCM in one RIFF `data` chunk, 8000 Hz, one or two channels."""

import struct
from pathlib import Path
from typing import Final

RATE: Final = 8000
"""Samples a second."""
SAMPLE_BYTES: Final = 2
SAMPLES_PER_MS: Final = RATE // 1000
HEADER_BYTES: Final = 44
MAX_DATA_BYTES: Final = 0xFFFFFFFF - HEADER_BYTES
"""Most audio that the 32-bit sizes of RIFF can name: 37 hours of two channels."""

_HEADER: Final = struct.Struct("<4sI4s4sIHHIIHH4sI")
_PCM: Final = 1


class NotWav(Exception):
    """The file is no WAV file of ours."""


def header(data_bytes: int, channels: int = 1) -> bytes:
    """The header of a file with so much audio. Raises ValueError beyond MAX_DATA_BYTES."""
    if not 0 <= data_bytes <= MAX_DATA_BYTES:
        raise ValueError(f"a WAV file cannot hold {data_bytes} bytes")
    frame = SAMPLE_BYTES * channels
    return _HEADER.pack(
        b"RIFF", HEADER_BYTES - 8 + data_bytes, b"WAVE", b"fmt ", 16, _PCM, channels, RATE, RATE * frame, frame,
        SAMPLE_BYTES * 8, b"data", data_bytes,
    )  # fmt: skip


def channels_and_ms(path: Path) -> tuple[int, int]:
    """Channels and length of a file that we wrote. Raises NotWav, OSError."""
    with path.open("rb") as file:
        start = file.read(HEADER_BYTES)
    if len(start) < HEADER_BYTES:
        raise NotWav(f"{path.name}: too short")
    riff, _, kind, _, _, coding, channels, rate, _, frame, bits, data, size = _HEADER.unpack(start)
    if (riff, kind, coding, rate, bits, data) != (b"RIFF", b"WAVE", _PCM, RATE, SAMPLE_BYTES * 8, b"data") or not frame:
        raise NotWav(f"{path.name}: not 16-bit PCM of 8000 Hz")
    return channels, size // frame // SAMPLES_PER_MS
