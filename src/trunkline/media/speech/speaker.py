"""Speaks one text after the other, in a worker: the engine for each language, SSML, the finished file."""

import os
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from trunkline.media.speech import tone_pattern
from trunkline.media.speech.engine import CannotSpeak, Engine, Wave
from trunkline.media.speech.espeak import Espeak
from trunkline.media.speech.neural import Hibari
from trunkline.media.speech.ssml import BadSsml, Bleep, Pause, Piece, Script, parse
from trunkline.media.speech.voices import DEFAULT_LANGUAGE, Voice, resolve
from trunkline.media.wav import RATE, SAMPLES_PER_MS

AUTO, TONES = "auto", "tones"
MAX_SECONDS: Final = 1800
"""Longest audio of one text; breaks alone could make hours."""
CEILING: Final = 0.95
"""Peak that louder audio is brought down to."""
BLEEP_HZ: Final = 1000
BLEEP_PEAK: Final = 0.25


class Spoken(msgspec.Struct, frozen=True):
    """What was written."""

    samples: int
    engine: str
    warning: str = ""


class Speaker:
    """`engine`: settings.speech.engine."""

    def __init__(self, engine: str = AUTO) -> None:
        self._setting = engine
        self._hibari: Engine = Hibari()
        self._espeak: Engine = Espeak()

    def warm(self) -> None:
        """Load the engine of English."""
        if self._setting in (AUTO, self._hibari.name):
            self._hibari.warm()

    def speak_to(self, target: Path, text: str, *, voice: str = "", language: str = "") -> Spoken:
        """Write a text's audio (s16le, 8000 Hz, mono) to `target`, which appears whole or not at all.

        Raises CannotSpeak, OSError.
        """
        chosen = resolve(voice, language)
        warnings = [] if chosen.known else [f"the voice {voice[:60]!r} is not known"]
        try:
            script = parse(text, chosen.language)
        except BadSsml as error:
            raise CannotSpeak(str(error)) from error
        warnings += script.warnings
        if self._setting == TONES:
            audio, engines = _tones(script), [TONES]
        else:
            audio, engines = self._speak(script, chosen, warnings)
        draft = target.with_name(f"{target.name}.{os.getpid()}.draft")
        try:
            draft.write_bytes(audio.astype("<i2").tobytes())
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)
        return Spoken(len(audio), "+".join(engines), "; ".join(dict.fromkeys(warnings)))

    def _speak(self, script: Script, voice: Voice, warnings: list[str]) -> tuple[tone_pattern.Samples, list[str]]:
        waves: list[Wave] = []
        engines: list[str] = []
        left = MAX_SECONDS * RATE
        for piece in script.pieces:
            wave = self._piece(piece, voice, engines, warnings)[:left]
            left -= len(wave)
            waves.append(wave)
            if left <= 0:
                warnings.append(f"only the first {MAX_SECONDS} s are spoken")
                break
        whole = np.concatenate(waves) if waves else np.zeros(0, np.float32)
        peak = float(np.abs(whole).max(initial=0.0))
        if peak > CEILING:
            whole = whole * np.float32(CEILING / peak)
        return np.rint(whole * 32767).astype(np.int16), engines

    def _piece(self, piece: Piece, voice: Voice, engines: list[str], warnings: list[str]) -> Wave:
        if isinstance(piece, Pause):
            return np.zeros(piece.ms * SAMPLES_PER_MS, np.float32)
        if isinstance(piece, Bleep):
            n = np.arange(piece.ms * SAMPLES_PER_MS)
            return (BLEEP_PEAK * np.sin(2 * np.pi * BLEEP_HZ * n / RATE)).astype(np.float32)
        style = piece.style
        engine, language = self._engine(style.language, warnings)
        if engine.name not in engines:
            engines.append(engine.name)
        chosen = voice._replace(language=language)
        wave = engine.synth(piece.text, chosen, rate=style.rate, pitch=style.pitch, ipa=piece.ipa)
        return wave * np.float32(10 ** (style.volume_db / 20)) if style.volume_db else wave

    def _engine(self, language: str, warnings: list[str]) -> tuple[Engine, str]:
        """The engine for a language, and the language that it will speak: English where there is nothing better."""
        first = self._espeak if self._setting == self._espeak.name else self._hibari
        for engine in (first, self._espeak if self._setting in (AUTO, self._espeak.name) else first):
            if engine.speaks(language):
                return engine, language
        fallback = first if first.speaks(DEFAULT_LANGUAGE) else self._hibari
        if not fallback.speaks(DEFAULT_LANGUAGE):
            raise CannotSpeak("no speech engine is installed")
        warnings.append(f"no engine here speaks {language[:20]}: an English voice reads it")
        return fallback, DEFAULT_LANGUAGE


def _tones(script: Script) -> tone_pattern.Samples:
    """The text's tone pattern, and as much silence as its breaks have."""
    silence = np.zeros(min(script.pause_ms * SAMPLES_PER_MS, MAX_SECONDS * RATE), np.int16)
    return np.concatenate([tone_pattern.samples(script.text), silence])
