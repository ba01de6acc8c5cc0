"""espeak-ng: many languages, by formants. It is GPL software and runs as a program of its own.

The `espeak-ng` (or `espeak`) program is used where it is installed; else the library of the package espeakng-loader,
when that is installed, in a process of its own too (`trunkline.media.speech.espeak_library`).
"""

import importlib.util
import shutil
import subprocess
import sys
from functools import cached_property
from typing import Final

import numpy as np

from trunkline.media.speech.engine import CannotSpeak, Wave
from trunkline.media.speech.resample import to_telephone
from trunkline.media.speech.voices import CHILD, DEFAULT_LANGUAGE, MAN, Voice, espeak_language

RATE: Final = 22_050
"""Sample rate of its output."""
WORDS_PER_MINUTE: Final = 160
PITCH: Final = 50
"""Its scale goes from 0 to 99."""
MIN_WPM, MAX_WPM = 80, 450
TIMEOUT_S: Final = 8.0
"""For one text; it takes some 10 ms."""
MAX_OUTPUT_S: Final = 1800
"""Most audio taken from it."""
_HEADER: Final = 44
_VARIANTS: Final = {MAN: "+m3", CHILD: "+f5"}
_WOMAN: Final = "+f3"


class Espeak:
    """See the module."""

    name = "espeak"

    @cached_property
    def _command(self) -> list[str]:
        """The program; empty: there is none."""
        program = shutil.which("espeak-ng") or shutil.which("espeak")
        if program:
            return [program]
        if importlib.util.find_spec("espeakng_loader") is not None:
            return [sys.executable, "-m", "trunkline.media.speech.espeak_library"]
        return []

    @cached_property
    def _languages(self) -> frozenset[str]:
        if not self._command:
            return frozenset()
        try:
            listing = subprocess.run(  # noqa: S603
                [*self._command, "--voices"], capture_output=True, timeout=TIMEOUT_S, check=True
            ).stdout.decode("utf-8", "replace")
        except (OSError, subprocess.SubprocessError):
            return frozenset()
        return frozenset(line.split()[1] for line in listing.splitlines()[1:] if len(line.split()) > 1)

    def speaks(self, language: str) -> bool:
        return espeak_language(language) in self._languages

    def warm(self) -> None:
        """It starts anew for every text: only look whether it is there."""
        self.synth("", Voice(DEFAULT_LANGUAGE))

    def synth(self, text: str, voice: Voice, *, rate: float = 1.0, pitch: float = 1.0, ipa: str = "") -> Wave:
        """`ipa` is not taken: espeak-ng reads phonemes in an alphabet of its own only."""
        if not self._command:
            raise CannotSpeak("espeak-ng is not installed (Debian: apt install espeak-ng)")
        language = espeak_language(voice.language)
        if language not in self._languages:
            raise CannotSpeak(f"espeak-ng does not speak {voice.language}")
        variant = _VARIANTS.get(voice.age if voice.age == CHILD else voice.gender, _WOMAN)
        speed = min(MAX_WPM, max(MIN_WPM, round(WORDS_PER_MINUTE * rate)))
        height = min(99, max(0, round(PITCH + 60 * (pitch - 1))))
        safe = text.replace("[[", "[ [").replace("\0", " ")  # [[...]] would be phonemes
        command = [*self._command, "-v", language + variant, "-s", str(speed), "-p", str(height), "-b", "1"]
        try:
            done = subprocess.run(  # noqa: S603
                [*command, "--stdin", "--stdout"], input=safe.encode("utf-8", "replace"), capture_output=True,
                timeout=TIMEOUT_S, check=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            raise CannotSpeak(f"espeak-ng failed: {type(error).__name__}") from error
        data = done.stdout[_HEADER : _HEADER + 2 * RATE * MAX_OUTPUT_S]
        wave = np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float32) * np.float32(1 / 32768)
        return to_telephone(wave, RATE)
