"""The SSML that `<Say>` knows, as a flat script: spans of text with a style, pauses and bleeps.

Elements: break, emphasis, lang, p, phoneme, prosody, s, say-as, sub, w. Anything else is read through, with a warning.
Meanings and values as Amazon Polly documents them, which Twilio passes SSML on to.
"""

import re
from typing import Final, NamedTuple

import msgspec

from trunkline.media.speech.say_as import spoken
from trunkline.twiml import xmltree
from trunkline.twiml.xmltree import Element, MalformedDocument

MAX_PAUSE_MS: Final = 10_000
"""Longest break (Polly: 10 s)."""
MAX_PIECES: Final = 2000
BLEEP_MS: Final = 400
PARAGRAPH_MS, SENTENCE_MS = 700, 350
_BREAKS: Final = {"none": 0, "x-weak": 0, "weak": 250, "medium": 250, "strong": 500, "x-strong": 1000}
_RATES: Final = {"x-slow": 0.5, "slow": 0.75, "medium": 1.0, "default": 1.0, "fast": 1.25, "x-fast": 1.6}
_PITCHES: Final = {"x-low": 0.75, "low": 0.87, "medium": 1.0, "default": 1.0, "high": 1.15, "x-high": 1.3}
_VOLUMES: Final = {
    "silent": -96.0,
    "x-soft": -12.0,
    "soft": -6.0,
    "medium": 0.0,
    "default": 0.0,
    "loud": 4.0,
    "x-loud": 8.0,
}
_EMPHASIS: Final = {"strong": (0.85, 4.0), "moderate": (0.93, 2.0), "reduced": (1.1, -3.0)}
_TIME: Final = re.compile(r"\+?(\d{1,6}(?:\.\d{1,3})?|\.\d{1,3})(ms|s)")
_PERCENT: Final = re.compile(r"([+-]?)(\d{1,4}(?:\.\d{1,3})?)%")
_SEMITONES: Final = re.compile(r"([+-]\d{1,2}(?:\.\d{1,2})?)st")
_DECIBELS: Final = re.compile(r"([+-]?\d{1,2}(?:\.\d{1,2})?)dB")
MIN_RATE, MAX_RATE = 0.2, 2.0
MIN_PITCH, MAX_PITCH = 0.5, 2.0
MIN_DB, MAX_DB = -96.0, 12.0


class Style(NamedTuple):
    """How a text is spoken: factors of speed and pitch, decibels of volume."""

    language: str
    rate: float = 1.0
    pitch: float = 1.0
    volume_db: float = 0.0


class Span(NamedTuple):
    """A text in one style. `ipa` is how to pronounce it, empty: as it is written."""

    text: str
    style: Style
    ipa: str = ""


class Pause(NamedTuple):
    ms: int


class Bleep(NamedTuple):
    """In place of an expletive."""

    ms: int = BLEEP_MS


Piece = Span | Pause | Bleep


class Script(msgspec.Struct):
    """What is to be said, in order. `warnings` are sentences for the author."""

    pieces: list[Piece] = []
    warnings: list[str] = []

    @property
    def text(self) -> str:
        """The words alone."""
        return " ".join(" ".join(piece.text for piece in self.pieces if isinstance(piece, Span)).split())

    @property
    def pause_ms(self) -> int:
        return sum(piece.ms for piece in self.pieces if isinstance(piece, Pause))


class BadSsml(Exception):
    """Not well-formed."""


def parse(text: str, language: str) -> Script:
    """A plain text, or SSML when it begins with `<speak`. Raises BadSsml."""
    script = Script()
    if not text.lstrip().startswith("<speak"):
        _add(script, Span(text, Style(language)))
        return script
    try:
        root = xmltree.read(text.strip())
    except MalformedDocument as error:
        raise BadSsml(f"SSML: {error.message}") from error
    _content(script, root, Style(language))
    return script


def _add(script: Script, piece: Piece) -> None:
    """Append, joining what belongs together."""
    if isinstance(piece, Span):
        if not piece.text.strip():
            return
        last = script.pieces[-1] if script.pieces else None
        if isinstance(last, Span) and last.style == piece.style and not last.ipa and not piece.ipa:
            script.pieces[-1] = Span(f"{last.text} {piece.text}", piece.style)
            return
    elif isinstance(piece, Pause) and not piece.ms:
        return
    if len(script.pieces) < MAX_PIECES:
        script.pieces.append(piece)


def _content(script: Script, element: Element, style: Style) -> None:
    for part in element.content:
        if isinstance(part, str):
            _add(script, Span(part, style))
        else:
            _element(script, part, style)


def _element(script: Script, element: Element, style: Style) -> None:
    attributes = element.attributes
    match element.name:
        case "break":
            _add(script, Pause(break_ms(attributes)))
        case "p" | "s":
            _content(script, element, style)
            _add(script, Pause(PARAGRAPH_MS if element.name == "p" else SENTENCE_MS))
        case "lang":
            language = attributes.get("xml:lang", "")[:20] or style.language
            _content(script, element, style._replace(language=language))
        case "emphasis":
            rate, volume = _EMPHASIS.get(attributes.get("level", "moderate"), _EMPHASIS["moderate"])
            _content(script, element, style._replace(rate=style.rate * rate, volume_db=style.volume_db + volume))
        case "prosody":
            _content(script, element, _prosody(attributes, style))
        case "sub":
            _add(script, Span(attributes.get("alias", "") or _words(element), style))
        case "phoneme":
            ipa = attributes.get("ph", "")[:100] if attributes.get("alphabet", "ipa") == "ipa" else ""
            _add(script, Span(_words(element), style, ipa))
        case "say-as":
            _say_as(script, element, style)
        case _:
            if element.name not in ("w", "speak"):
                script.warnings.append(f"<{element.name[:60]}> is not known in <Say>")
            _content(script, element, style)


def _say_as(script: Script, element: Element, style: Style) -> None:
    kind = element.attributes.get("interpret-as", "")
    if kind.strip().lower() == "expletive":
        _add(script, Bleep())
        return
    text = spoken(_words(element), kind, element.attributes.get("format", ""), style.language)
    _add(script, Span(text, style))


def _words(element: Element) -> str:
    """All character data of an element, its children's too."""
    return "".join(part if isinstance(part, str) else _words(part) for part in element.content).strip()


def break_ms(attributes: dict[str, str]) -> int:
    """How long a `<break>` is; one that is not understood is a medium one."""
    found = _TIME.fullmatch(attributes.get("time", "").strip())
    if found is not None:
        return min(MAX_PAUSE_MS, int(float(found[1]) * (1000 if found[2] == "s" else 1)))
    return _BREAKS.get(attributes.get("strength", "medium"), _BREAKS["medium"])


def _prosody(attributes: dict[str, str], style: Style) -> Style:
    rate = _factor(attributes.get("rate", ""), _RATES)
    pitch = _factor(attributes.get("pitch", ""), _PITCHES)
    volume = attributes.get("volume", "").strip()
    loudness = _DECIBELS.fullmatch(volume)
    decibels = float(loudness[1]) if loudness else _VOLUMES.get(volume, 0.0)
    return Style(
        style.language,
        min(MAX_RATE, max(MIN_RATE, style.rate * rate)),
        min(MAX_PITCH, max(MIN_PITCH, style.pitch * pitch)),
        min(MAX_DB, max(MIN_DB, style.volume_db + decibels)),
    )


def _factor(value: str, names: dict[str, float]) -> float:
    """A named value, a percentage (`80%`, `+10%`) or semitones as a factor; 1 when it is not understood."""
    value = value.strip()
    if (percent := _PERCENT.fullmatch(value)) is not None:
        number = float(percent[2]) / 100
        return {"": number, "+": 1 + number, "-": 1 - number}[percent[1]] or 1.0
    if (semitones := _SEMITONES.fullmatch(value)) is not None:
        return float(2 ** (float(semitones[1]) / 12))
    return names.get(value, 1.0)
