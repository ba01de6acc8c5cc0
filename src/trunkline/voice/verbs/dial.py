"""<Dial ...>number | nouns</Dial>: call others and connect the call with the first who picks up.

The call goes on at `action`, else with the next verb, when the other side has hung up, nobody picked up, or `*` was
pressed (`hangupOnStar`). With `answerOnBridge` a call that nobody has answered yet keeps ringing meanwhile.
Source: Twilio's <Dial>, <Number>, <Sip>.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trunkline.media.tones import RINGING
from trunkline.twiml import kinds
from trunkline.twiml.document import DocumentKind, Verb
from trunkline.twiml.schema import SCHEMA_WARNING, Attribute, Notes, Noun, Value, VerbSpec
from trunkline.twiml.xmltree import Element
from trunkline.voice import dial_nouns
from trunkline.voice.callbacks import RECORDING_EVENTS
from trunkline.voice.dial_nouns import NotYet, Target
from trunkline.voice.steps import Next

if TYPE_CHECKING:
    from trunkline.voice.session import Session

INVALID_METHOD: Final = 13210
INVALID_TIMEOUT: Final = 13212
INVALID_HANGUP_ON_STAR: Final = 13213
INVALID_CALLER_ID: Final = 13214
INVALID_NESTED: Final = 13215
INVALID_TIME_LIMIT: Final = 13216
INVALID_RECORD: Final = 13217
INVALID_SEQUENTIAL: Final = 13218
INVALID_ANSWER_ON_BRIDGE: Final = 13219
INVALID_RING_TONE: Final = 13220
INVALID_RECORDING_CALLBACK: Final = 13256
INVALID_RECORDING_EVENT: Final = 13621
MAX_NOUNS: Final = 10
DEFAULT_TIMEOUT_S: Final = 30
MAX_TIMEOUT_S: Final = 600
MAX_TIME_LIMIT_S: Final = 86_400

RECORD: Final = {
    "do-not-record": "", "false": "",
    "record-from-answer": "answer", "true": "answer",
    "record-from-ringing": "ringing",
    "record-from-answer-dual": "answer-dual",
    "record-from-ringing-dual": "ringing-dual",
}  # fmt: skip
"""Values of `record`: when recording begins, and whether the two sides get a channel each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial(Verb):
    """URLs as written; times in seconds; `record` as the values of RECORD."""

    nouns: tuple[Target | NotYet, ...] = ()
    action: str = ""
    method: str = "POST"
    timeout: int = DEFAULT_TIMEOUT_S
    hangup_on_star: bool = False
    time_limit: int = 0
    """0: the settings' longest."""
    caller_id: str = ""
    record: str = ""
    trim: str = "do-not-trim"
    sequential: bool = False
    answer_on_bridge: bool = False
    ring_tone: str = ""
    """Empty: the far end's own, else that of the number's country."""
    refer_url: str = ""
    """Asked when one of the two wants to transfer the other (SIP REFER)."""
    refer_method: str = "POST"
    recording_track: str = "both"
    recording_status_callback: str = ""
    recording_status_callback_method: str = "POST"
    recording_status_callback_event: tuple[str, ...] = ("completed",)


def _record(raw: str) -> str | None:
    return RECORD.get(raw)


def _ring_tone(raw: str) -> str | None:
    return raw if raw in RINGING else None


ATTRIBUTES: Final = (
    Attribute("action", "action", kinds.url, default=""),
    Attribute("method", "method", kinds.method, default="POST", invalid_code=INVALID_METHOD),
    Attribute("timeout", "timeout", kinds.whole(1, MAX_TIMEOUT_S), DEFAULT_TIMEOUT_S, INVALID_TIMEOUT),
    Attribute("hangupOnStar", "hangup_on_star", kinds.boolean, False, INVALID_HANGUP_ON_STAR),
    Attribute("timeLimit", "time_limit", kinds.whole(1, MAX_TIME_LIMIT_S), 0, INVALID_TIME_LIMIT),
    Attribute("callerId", "caller_id", kinds.text, "", INVALID_CALLER_ID),
    Attribute("record", "record", _record, "", INVALID_RECORD),
    Attribute("trim", "trim", kinds.one_of("trim-silence", "do-not-trim"), "do-not-trim"),
    Attribute("sequential", "sequential", kinds.boolean, False, INVALID_SEQUENTIAL),
    Attribute("answerOnBridge", "answer_on_bridge", kinds.boolean, False, INVALID_ANSWER_ON_BRIDGE),
    Attribute("ringTone", "ring_tone", _ring_tone, "", INVALID_RING_TONE),
    Attribute("recordingTrack", "recording_track", kinds.one_of("both", "inbound", "outbound"), "both"),
    Attribute("recordingStatusCallback", "recording_status_callback", kinds.url, "", INVALID_RECORDING_CALLBACK),
    Attribute("recordingStatusCallbackMethod", "recording_status_callback_method", kinds.method, "POST"),
    Attribute(
        "recordingStatusCallbackEvent", "recording_status_callback_event", dial_nouns.events(*RECORDING_EVENTS),
        ("completed",), INVALID_RECORDING_EVENT,
    ),
    Attribute("referUrl", "refer_url", kinds.url, default=""),
    Attribute("referMethod", "refer_method", kinds.method, default="POST"),
    *(
        Attribute(name, "_", kinds.text)
        for name in ("recordingConfigurationId", "events", "passports", "callReason")
    ),
)  # fmt: skip


def build(element: Element, values: dict[str, Value], notes: Notes) -> Dial:
    """The verb; without a noun it fails at once, and the call goes on."""
    values.pop("_", None)
    nouns: list[Target | NotYet] = []
    if element.text:
        nouns.append(Target(number=element.text))
    for child in element.children:
        noun = dial_nouns.build(child, notes)
        if noun is not None:
            nouns.append(noun)
    if not nouns:
        notes.add(INVALID_NESTED, "<Dial> has nobody to call", element)
    if len(nouns) > MAX_NOUNS:
        notes.add(SCHEMA_WARNING, f"{len(nouns)} nouns in <Dial>, at most {MAX_NOUNS} are called", element)
    return Dial(nouns=tuple(nouns[:MAX_NOUNS]), line=element.line, column=element.column, **values)


SPEC: Final = VerbSpec(
    "Dial",
    kinds=frozenset({DocumentKind.VOICE}),
    build=build,
    attributes=ATTRIBUTES,
    has_text=True,
    children={name: Noun(name) for name in ("Number", "Sip", *dial_nouns.NOT_YET)},
)


def answers(verb: Dial) -> bool:
    """Whether the call is answered before it runs."""
    return not verb.answer_on_bridge


async def run(verb: Dial, session: Session, state: dict[str, Any]) -> Next | None:
    """Call, connect, and say how it went. Next: trunkline.voice.dialing.dial"""
    from trunkline.voice.dialing import dial  # it runs sessions, and these need the table of verbs

    return await dial(verb, session, state)
