"""<Say voice language loop>text or SSML</Say>: speak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape, quoteattr

from trunkline.media.protocol import Item
from trunkline.twiml import kinds
from trunkline.twiml.document import DocumentKind, Verb
from trunkline.twiml.schema import SCHEMA_WARNING, Attribute, Notes, Value, VerbSpec
from trunkline.twiml.xmltree import Element
from trunkline.voice import prompting
from trunkline.voice.prompting import TEXT_TOO_LONG

if TYPE_CHECKING:
    from trunkline.voice.session import Session

MAX_LOOP: Final = 1000
INVALID_LOOP: Final = 13510
INVALID_VOICE: Final = 13511
INVALID_LANGUAGE: Final = 13512
INVALID_TEXT: Final = 13520
MAX_NAME: Final = 100
SSML: Final = frozenset({"break", "emphasis", "lang", "p", "phoneme", "prosody", "s", "say-as", "sub", "w"})
"""Elements that may stand in the text, at any depth."""


def _name(raw: str) -> str | None:
    return raw if raw and len(raw) <= MAX_NAME and raw.isascii() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Say(Verb):
    """`text` is plain, `ssml` the same with its mark-up (`<speak>...</speak>`), empty where there is none.

    `loop` 0: until the call ends.
    """

    text: str = ""
    ssml: str = ""
    voice: str = ""
    language: str = ""
    loop: int = 1


ATTRIBUTES: Final = (
    Attribute("voice", "voice", _name, default="", invalid_code=INVALID_VOICE),
    Attribute("language", "language", _name, default="", invalid_code=INVALID_LANGUAGE),
    Attribute("loop", "loop", kinds.whole(0, MAX_LOOP), default=1, invalid_code=INVALID_LOOP),
)


def build(element: Element, values: dict[str, Value], notes: Notes) -> Say | None:
    """The verb, or None when it says nothing."""
    plain: list[str] = []
    marked: list[str] = []
    _read(element, plain, marked, notes)
    text = " ".join("".join(plain).split())
    if not text and not element.children:
        notes.add(INVALID_TEXT, "<Say> has no text", element)
        return None
    ssml = f"<speak>{''.join(marked).strip()}</speak>" if element.children else ""
    return Say(text=text, ssml=ssml, line=element.line, column=element.column, **values)


def _read(element: Element, plain: list[str], marked: list[str], notes: Notes) -> None:
    """Collect the text and the mark-up of an element's content; unknown elements are noted and left out."""
    for piece in element.content:
        if isinstance(piece, str):
            plain.append(piece)
            marked.append(escape(piece))
        elif piece.name not in SSML:
            notes.add(SCHEMA_WARNING, f"element <{piece.name[:60]}> is not allowed in <{element.name}>", piece)
        else:
            attributes = "".join(f" {name}={quoteattr(value)}" for name, value in piece.attributes.items())
            marked.append(f"<{piece.name}{attributes}>")
            _read(piece, plain, marked, notes)
            marked.append(f"</{piece.name}>")
            if piece.name in ("p", "s", "break"):
                plain.append(" ")


SPEC: Final = VerbSpec("Say", kinds=frozenset({DocumentKind.VOICE}), build=build, attributes=ATTRIBUTES, has_text=True)


async def items(verb: Say, session: Session) -> list[Item]:
    """What is said once; empty, with an alert, when it cannot be spoken."""
    limit = session.services.settings.speech.max_characters
    text = verb.ssml or verb.text
    if len(verb.text) > limit:
        session.alert(TEXT_TOO_LONG, f"<Say> has {len(verb.text)} characters; the first {limit} are spoken")
        text = verb.text[:limit]
    return await prompting.spoken(session, text, verb.voice, verb.language)


async def run(verb: Say, session: Session, state: dict[str, Any]) -> None:
    """Source: Twilio's <Say>."""
    found = await items(verb, session)
    if found:
        await prompting.play(session, found, verb.loop, state)
