"""<Reject reason>: end an incoming call without answering it. Only before the call is answered: as the first verb, or
after nothing but <Pause>."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trunkline.model.call import Status
from trunkline.twiml import kinds
from trunkline.twiml.document import DocumentKind, Verb
from trunkline.twiml.schema import SCHEMA_WARNING, Attribute, Notes, Value, VerbSpec, check_content, read_noun
from trunkline.twiml.xmltree import Element
from trunkline.voice.steps import Stop
from trunkline.voice.verbs.hangup import PARAMETER

if TYPE_CHECKING:
    from trunkline.voice.session import Session

INVALID_REASON: Final = 13810
REASONS: Final = {"rejected": (603, Status.NO_ANSWER), "busy": (486, Status.BUSY)}
"""reason -> the response to the INVITE (the caller's carrier plays what goes with it), and the call's last status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject(Verb):
    """`reason` is `rejected` or `busy`."""

    reason: str = "rejected"


ATTRIBUTES: Final = (
    Attribute("reason", "reason", kinds.one_of(*REASONS), default="rejected", invalid_code=INVALID_REASON),
)


def build(element: Element, values: dict[str, Value], notes: Notes) -> Reject:
    for child in check_content(element, SPEC, notes):
        read_noun(child, PARAMETER, notes)
    return Reject(line=element.line, column=element.column, **values)


SPEC: Final = VerbSpec(
    "Reject",
    kinds=frozenset({DocumentKind.VOICE}),
    build=build,
    attributes=ATTRIBUTES,
    children={"Parameter": PARAMETER},
)


async def run(verb: Reject, session: Session, state: dict[str, Any]) -> Stop:
    """Source: Twilio's <Reject>: the call ends `busy` or `no-answer`."""
    call = session.call
    if call.is_up:
        session.alert(SCHEMA_WARNING, "<Reject> after the call was answered only hangs up")
        return Stop("hangup")
    status, end = REASONS[verb.reason]
    call.hangup("rejected", sip_status=status, end=end)
    return Stop("rejected")
