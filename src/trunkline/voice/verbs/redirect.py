"""<Redirect method>url</Redirect>: go on with the document at another URL; what follows it is never reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trunkline.twiml import kinds
from trunkline.twiml.document import DocumentKind, Verb
from trunkline.twiml.schema import SCHEMA_WARNING, Attribute, Notes, Value, VerbSpec, check_content, shown
from trunkline.twiml.xmltree import Element
from trunkline.voice.steps import Goto

if TYPE_CHECKING:
    from trunkline.voice.session import Session

INVALID_METHOD: Final = 13710


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect(Verb):
    """`url` as written; empty means the current document again."""

    url: str = ""
    method: str = "POST"


ATTRIBUTES: Final = (Attribute("method", "method", kinds.method, default="POST", invalid_code=INVALID_METHOD),)


def build(element: Element, values: dict[str, Value], notes: Notes) -> Redirect | None:
    """The verb, or None when its URL can be none."""
    check_content(element, SPEC, notes)
    url = element.text
    if url and kinds.url(url) is None:
        notes.add(SCHEMA_WARNING, f"{shown(url)} is not a URL <Redirect> can go to", element)
        return None
    return Redirect(url=url, line=element.line, column=element.column, **values)


SPEC: Final = VerbSpec(
    "Redirect", kinds=frozenset({DocumentKind.VOICE}), build=build, attributes=ATTRIBUTES, has_text=True
)


async def run(verb: Redirect, session: Session, state: dict[str, Any]) -> Goto:
    """Source: Twilio's <Redirect>."""
    return Goto(verb.url, verb.method)
