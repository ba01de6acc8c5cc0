"""<Play loop digits>url</Play>: play an audio file, or press keys."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trunkline.media.protocol import Digits, Item
from trunkline.twiml import kinds
from trunkline.twiml.document import DocumentKind, Verb
from trunkline.twiml.schema import SCHEMA_WARNING, Attribute, Notes, Value, VerbSpec, check_content, shown
from trunkline.twiml.xmltree import Element
from trunkline.voice import prompting

if TYPE_CHECKING:
    from trunkline.voice.session import Session

MAX_LOOP: Final = 1000
INVALID_LOOP: Final = 13410
INVALID_DIGITS: Final = 13430
_DIGITS: Final = re.compile(r"[0-9A-Da-d*#wW]{1,200}")


def _digits(raw: str) -> str | None:
    return raw if _DIGITS.fullmatch(raw) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Play(Verb):
    """`url` as written; `loop` 0: until the call ends. Without a URL `digits` are pressed (w: 0.5 s, W: 1 s)."""

    url: str = ""
    loop: int = 1
    digits: str = ""


ATTRIBUTES: Final = (
    Attribute("loop", "loop", kinds.whole(0, MAX_LOOP), default=1, invalid_code=INVALID_LOOP),
    Attribute("digits", "digits", _digits, default="", invalid_code=INVALID_DIGITS),
)


def build(element: Element, values: dict[str, Value], notes: Notes) -> Play | None:
    """The verb, or None when there is nothing to play."""
    check_content(element, SPEC, notes)
    url = element.text
    if url and kinds.url(url) is None:
        notes.add(SCHEMA_WARNING, f"{shown(url)} is not a URL <Play> can play", element)
        return None
    if not url and not values["digits"]:
        notes.add(SCHEMA_WARNING, "<Play> has neither a URL nor digits", element)
        return None
    return Play(url=url, line=element.line, column=element.column, **values)


SPEC: Final = VerbSpec("Play", kinds=frozenset({DocumentKind.VOICE}), build=build, attributes=ATTRIBUTES, has_text=True)


async def items(verb: Play, session: Session) -> list[Item]:
    """What is played once; empty, with an alert, when it cannot be had."""
    if verb.url:
        return await prompting.fetched(session, verb.url)
    return [Digits(digits=verb.digits)]


async def run(verb: Play, session: Session, state: dict[str, Any]) -> None:
    """Source: Twilio's <Play>. A file that cannot be had is an alert, and the call goes on."""
    found = await items(verb, session)
    if found:
        await prompting.play(session, found, verb.loop, state)
