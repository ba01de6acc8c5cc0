"""<Pause length>: wait silently. As the first verb it delays the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trunkline.twiml import kinds
from trunkline.twiml.document import DocumentKind, Verb
from trunkline.twiml.schema import Attribute, Notes, Value, VerbSpec, check_content
from trunkline.twiml.xmltree import Element

if TYPE_CHECKING:
    from trunkline.voice.session import Session

MAX_LENGTH_S: Final = 24 * 3600
INVALID_LENGTH: Final = 13910


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause(Verb):
    """`length` in seconds."""

    length: int = 1


ATTRIBUTES: Final = (
    Attribute("length", "length", kinds.whole(0, MAX_LENGTH_S), default=1, invalid_code=INVALID_LENGTH),
)


def build(element: Element, values: dict[str, Value], notes: Notes) -> Pause:
    check_content(element, SPEC, notes)
    return Pause(line=element.line, column=element.column, **values)


SPEC: Final = VerbSpec("Pause", kinds=frozenset({DocumentKind.VOICE}), build=build, attributes=ATTRIBUTES)


async def run(verb: Pause, session: Session, state: dict[str, Any]) -> None:
    """Source: Twilio's <Pause>."""
    now_ms = session.services.clock.now_ms()
    until_ms = int(state.get("until_ms", now_ms + verb.length * 1000))
    session.save({"until_ms": until_ms})
    if not session.call.is_up:
        session.call.ring()
    await session.sleep(max(0, until_ms - now_ms) / 1000)
