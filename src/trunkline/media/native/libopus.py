"""libopus by ctypes: the one in the wheel of PyAV, which the project needs anyway, else the system's.

For single streams (simulated phones, the plain coders) there are `Encoder` and `Decoder`; the compiled coders call the
library's functions from C.
"""

import ctypes
import ctypes.util
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from trunkline.media.native.coding import NoCodec, OpusSettings

RATE: Final = 8000
VOIP: Final = 2048
BITRATE, COMPLEXITY, FEC, LOSS, SIGNAL = 4002, 4010, 4012, 4014, 4024
VOICE: Final = 3001
"""Requests and values of opus_defines.h."""
MOST_OCTETS: Final = 160
"""Of a packet that we write: 64 kbit/s."""
MOST_SAMPLES: Final = 960

_INT, _POINTER = ctypes.c_int32, ctypes.c_void_p
_FUNCTIONS: Final[dict[str, tuple[Any, list[Any]]]] = {
    "opus_encoder_create": (_POINTER, [_INT, _INT, _INT, _POINTER]),
    "opus_encoder_ctl": (_INT, [_POINTER, _INT, _INT]),
    "opus_encode": (_INT, [_POINTER, _POINTER, _INT, _POINTER, _INT]),
    "opus_encoder_destroy": (None, [_POINTER]),
    "opus_decoder_create": (_POINTER, [_INT, _INT, _POINTER]),
    "opus_decode": (_INT, [_POINTER, _POINTER, _INT, _POINTER, _INT, _INT]),
    "opus_decoder_destroy": (None, [_POINTER]),
}
"""In the order of codecs.c."""


def _places() -> list[str]:
    spec = find_spec("av")
    places: list[str] = []
    if spec is not None and spec.origin is not None:
        package = Path(spec.origin).parent
        for folder in (package.parent / "av.libs", package / ".dylibs"):
            places += sorted(str(path) for path in folder.glob("libopus*"))
    found = ctypes.util.find_library("opus")
    return [*places, *([found] if found else []), "libopus.so.0"]


@cache
def library() -> ctypes.CDLL:
    """Raises NoCodec."""
    for place in _places():
        try:
            loaded = ctypes.CDLL(place)
            for name, (result, arguments) in _FUNCTIONS.items():
                function = getattr(loaded, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError):
            continue
        return loaded
    raise NoCodec("Opus: libopus is not installed (the wheel of the av package brings it, or Debian's libopus0)")


def functions() -> "ctypes.Array[ctypes.c_void_p]":
    """Where the functions are. Raises NoCodec."""
    loaded = library()
    addresses = [ctypes.cast(getattr(loaded, name), _POINTER).value for name in _FUNCTIONS]
    return (_POINTER * len(addresses))(*addresses)


class Encoder:
    """One stream out. Raises NoCodec."""

    def __init__(self, settings: OpusSettings, loss: int = 0) -> None:
        self._library = library()
        self._state = self._library.opus_encoder_create(RATE, 1, VOIP, None)
        if not self._state:
            raise NoCodec("Opus: no encoder")
        for request, value in (
            (BITRATE, settings.bitrate), (COMPLEXITY, settings.complexity), (SIGNAL, VOICE), (FEC, 1), (LOSS, loss),
        ):  # fmt: skip
            self._library.opus_encoder_ctl(self._state, request, value)
        self._room = ctypes.create_string_buffer(MOST_OCTETS)

    def loss(self, percent: int) -> None:
        """What the peer loses."""
        self._library.opus_encoder_ctl(self._state, LOSS, percent)

    def encode(self, pcm: bytes) -> bytes:
        """The packet of 16-bit samples of 8 kHz (2.5, 5, 10, 20, 40 or 60 ms); empty when that fails."""
        count = self._library.opus_encode(self._state, pcm, len(pcm) // 2, self._room, MOST_OCTETS)
        return self._room.raw[: max(0, count)]

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._library.opus_encoder_destroy(self._state)


class Decoder:
    """One stream in. Raises NoCodec."""

    def __init__(self) -> None:
        self._library = library()
        self._state = self._library.opus_decoder_create(RATE, 1, None)
        if not self._state:
            raise NoCodec("Opus: no decoder")
        self._room = ctypes.create_string_buffer(2 * MOST_SAMPLES)

    def decode(self, packet: bytes) -> bytes:
        """Its 16-bit samples of 8 kHz; empty when it is none."""
        return self._decode(packet, MOST_SAMPLES, repair=False)

    def conceal(self, samples: int) -> bytes:
        """What may have been in a lost packet of so many samples."""
        return self._decode(None, samples, repair=False)

    def repair(self, following: bytes, samples: int) -> bytes:
        """The same, from what the packet after it repeats (in-band FEC)."""
        return self._decode(following, samples, repair=True)

    def _decode(self, packet: bytes | None, samples: int, *, repair: bool) -> bytes:
        length = len(packet) if packet is not None else 0
        count = self._library.opus_decode(self._state, packet, length, self._room, samples, int(repair))
        return self._room.raw[: 2 * max(0, count)]

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self._library.opus_decoder_destroy(self._state)
