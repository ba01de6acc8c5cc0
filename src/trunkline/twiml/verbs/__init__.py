"""The table of verbs. To add one: a file here with a `SPEC`, one line in `_SPECS`, one test."""

from __future__ import annotations

from typing import Final

from trunkline.twiml.document import DocumentKind
from trunkline.twiml.schema import VerbSpec
from trunkline.twiml.verbs import message, redirect

_SPECS: Final[tuple[VerbSpec, ...]] = (
    message.SPEC,
    redirect.SPEC,
)

VERBS: Final[dict[DocumentKind, dict[str, VerbSpec]]] = {
    kind: {spec.name: spec for spec in _SPECS if kind in spec.kinds} for kind in DocumentKind
}

# Names that are right in a voice document: elsewhere the author gets 14110 ("Invalid Verb for SMS Reply")
# and not 12200 ("no such element").
VOICE_NAMES: Final = frozenset(
    {
        "Connect",
        "Dial",
        "Echo",
        "Enqueue",
        "Gather",
        "Hangup",
        "Leave",
        "Pause",
        "Pay",
        "Play",
        "Prompt",
        "Queue",
        "Record",
        "Redirect",
        "Refer",
        "Reject",
        "Say",
        "Sms",
        "Start",
        "Stop",
    }
)
