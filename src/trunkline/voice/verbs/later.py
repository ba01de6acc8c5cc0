"""Verbs of Twilio's that this release does not run yet: each raises one clear alert, and the call goes on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from trunkline.twiml.document import DocumentKind, Verb
from trunkline.twiml.schema import Notes, Value, VerbSpec
from trunkline.twiml.xmltree import Element

if TYPE_CHECKING:
    from trunkline.voice.session import Session

NOT_SUPPORTED: Final = 13750
"""Twilio's "TwiML verb not supported by this API version"."""
NAMES: Final = ("Connect", "Echo", "Enqueue", "Leave", "Pay", "Prompt", "Queue", "Start", "Stop")
"""Elements directly under <Response>. What stands inside them is not looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Later(Verb):
    """`name` is the element's."""

    name: str


def _build(name: str, element: Element, values: dict[str, Value], notes: Notes) -> Later:
    return Later(name=name, line=element.line, column=element.column)


SPECS: Final = tuple(
    VerbSpec(name, kinds=frozenset({DocumentKind.VOICE}), build=partial(_build, name), unchecked=True) for name in NAMES
)


def not_yet(session: Session, name: str) -> None:
    """The alert, once a call for each name; also for nouns (<Conference>, <Client>, <Queue>) inside other verbs."""
    session.alert_once(NOT_SUPPORTED, f"<{name}> is not supported yet; the call goes on without it")


async def run(verb: Later, session: Session, state: dict[str, Any]) -> None:
    """Say so, and go on with the next verb."""
    not_yet(session, verb.name)
