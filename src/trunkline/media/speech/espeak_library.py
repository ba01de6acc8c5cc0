"""The `espeak-ng` command, as far as we use it, over the library that the package espeakng-loader brings:
`python -m trunkline.media.speech.espeak_library -v VOICE -s WPM -p PITCH -b 1 --stdin --stdout`, or `--voices`.

A process of its own, for the library is GPL software, optional, and C that reads what customers write.
"""

import argparse
import ctypes
import sys
from collections.abc import Iterator
from typing import Any, Final

from trunkline.media import wav

_RETRIEVAL: Final = 1
_UTF8: Final = 1
_RATE, _PITCH = 1, 3
MAX_TEXT_BYTES: Final = 64 * 1024
_CALLBACK: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class _Voice(ctypes.Structure):
    """espeak_VOICE of speak_lib.h. `languages`: a priority byte and a name, both again and again, and a zero byte."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


def _library() -> Any:
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    if library.espeak_Initialize(_RETRIEVAL, 0, espeakng_loader.get_data_path().encode(), 0) < 0:
        raise SystemExit("espeak-ng cannot be initialised")
    return library


def _voices(library: Any) -> Iterator[str]:
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    listed = library.espeak_ListVoices(None)
    index = 0
    while listed[index]:
        languages = listed[index].contents.languages or b""
        yield languages[1:].decode("ascii", "replace")
        index += 1


def _speak(library: Any, options: argparse.Namespace, text: bytes) -> bytes:
    if library.espeak_SetVoiceByName(options.v.encode()):
        raise SystemExit(f"no voice {options.v}")
    library.espeak_SetParameter(_RATE, options.s, 0)
    library.espeak_SetParameter(_PITCH, options.p, 0)
    audio = bytearray()

    def take(samples: Any, count: int, _events: Any) -> int:
        if samples and count > 0:
            audio.extend(ctypes.string_at(samples, count * wav.SAMPLE_BYTES))
        return 0

    callback = _CALLBACK(take)
    library.espeak_SetSynthCallback(callback)
    if text.strip():
        library.espeak_Synth(text + b"\0", len(text) + 1, 0, 0, 0, _UTF8, None, None)
        library.espeak_Synchronize()
    return bytes(audio)


def main(arguments: list[str]) -> None:
    """See the module. The WAV header's sample rate is not to be trusted: the library's output is at 22050 Hz."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-v", default="en-us")
    parser.add_argument("-s", type=int, default=160)
    parser.add_argument("-p", type=int, default=50)
    parser.add_argument("-b")
    for flag in ("--stdin", "--stdout", "--voices"):
        parser.add_argument(flag, action="store_true")
    options = parser.parse_args(arguments)
    library = _library()
    if options.voices:
        listing = "".join(f" 5  {language}\n" for language in _voices(library))
        sys.stdout.write(f"Pty Language\n{listing}")
        return
    audio = _speak(library, options, sys.stdin.buffer.read(MAX_TEXT_BYTES))
    sys.stdout.buffer.write(wav.header(len(audio)) + audio)


if __name__ == "__main__":
    main(sys.argv[1:])
