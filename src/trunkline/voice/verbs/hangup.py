"""<Hangup/>: end the call. As the first verb it does not keep the call from being answered (use <Reject>)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trunkline.twiml import kinds
from trunkline.twiml.document import DocumentKind, Verb
from trunkline.twiml.schema import Attribute, Notes, Noun, Value, VerbSpec, check_content, read_noun
from trunkline.twiml.xmltree import Element
from trunkline.voice.steps import Stop

if TYPE_CHECKING:
    from trunkline.voice.session import Session

PARAMETER: Final = Noun("Parameter", (Attribute("name", "name", kinds.text), Attribute("value", "value", kinds.text)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Hangup(Verb):
    """Nothing to say."""


def build(element: Element, values: dict[str, Value], notes: Notes) -> Hangup:
    for child in check_content(element, SPEC, notes):
        read_noun(child, PARAMETER, notes)
    return Hangup(line=element.line, column=element.column, **values)


SPEC: Final = VerbSpec("Hangup", kinds=frozenset({DocumentKind.VOICE}), build=build, children={"Parameter": PARAMETER})


async def run(verb: Hangup, session: Session, state: dict[str, Any]) -> Stop:
    """Source: Twilio's <Hangup>."""
    return Stop("hangup")
