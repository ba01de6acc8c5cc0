"""What an engine is: text to audio at 8000 Hz."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from trunkline.media.speech.voices import Voice

Wave = npt.NDArray[np.float32]
"""Samples from -1 to 1, 8000 Hz."""


class CannotSpeak(Exception):
    """The engine is not there, does not have that language, or failed; the sentence says which."""


class Engine(Protocol):
    """A way to speak. Blocking: lives in a worker."""

    name: str

    def speaks(self, language: str) -> bool:
        """Whether it has that language."""

    def warm(self) -> None:
        """Load what the first text would have to wait for. Raises CannotSpeak."""

    def synth(self, text: str, voice: Voice, *, rate: float = 1.0, pitch: float = 1.0, ipa: str = "") -> Wave:
        """Speak a text in the voice's language. `rate` and `pitch` are factors, `ipa` its pronunciation.

        Raises CannotSpeak.
        """
