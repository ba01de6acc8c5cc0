"""hibari: a small neural voice for English, in its package whole (nothing is downloaded).

It has one speaker, a woman. A man and a child are the same speaker at another pitch: spoken slower or faster, and
played back so that the pace is right again.
"""

import re
from typing import Any, Final

import numpy as np

from trunkline.media.speech.engine import CannotSpeak, Wave
from trunkline.media.speech.resample import to_telephone
from trunkline.media.speech.voices import CHILD, DEFAULT_LANGUAGE, MAN, Voice, is_english

MAN_PITCH: Final = 0.8
CHILD_PITCH: Final = 1.2
GAIN: Final = 1.6
"""Brings its speech to the level of a telephone call."""
MIN_SPEED, MAX_SPEED = 0.5, 2.0
_MARKUP: Final = re.compile(r"\[([^\]]*)\]\(/[^)]*/?\)")
_WARM_UP: Final = "Welcome. Please press one, or hold the line for 25 seconds."


class Hibari:
    """See the module."""

    name = "hibari"

    def __init__(self) -> None:
        self._model: Any = None

    def speaks(self, language: str) -> bool:
        return is_english(language)

    def warm(self) -> None:
        self.synth(_WARM_UP, Voice(DEFAULT_LANGUAGE))

    def synth(self, text: str, voice: Voice, *, rate: float = 1.0, pitch: float = 1.0, ipa: str = "") -> Wave:
        """The same text gives the same samples."""
        model = self._load()
        shift = pitch * (MAN_PITCH if voice.gender == MAN else CHILD_PITCH if voice.age == CHILD else 1.0)
        plain = _MARKUP.sub(r"\1", text)  # its own markup is not the customer's to use
        if ipa and not set(ipa) & set("/()[]") and not set(plain) & set("[]()"):
            plain = f"[{plain}](/{ipa}/)"
        try:
            wave = model(plain, speed=min(MAX_SPEED, max(MIN_SPEED, rate / shift)), seed=0)
        except (ValueError, IndexError, KeyError, RuntimeError, TypeError) as error:
            raise CannotSpeak(f"hibari failed: {type(error).__name__}") from error
        loud: Wave = np.asarray(wave, np.float32) * np.float32(GAIN)
        return to_telephone(loud, round(model.sample_rate * shift / 100) * 100)

    def _load(self) -> Any:
        if self._model is None:
            try:
                import hibari
            except ImportError as error:
                raise CannotSpeak("the package hibari-tts is not installed") from error
            self._model = hibari.Hibari(threads=1)
        return self._model
