"""<Message to from action method statusCallback>text | <Body/> <Media/></Message>: send a message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from trunkline.twiml import kinds
from trunkline.twiml.document import DocumentKind, Verb
from trunkline.twiml.schema import (
    SCHEMA_WARNING,
    Attribute,
    Notes,
    Noun,
    Value,
    VerbSpec,
    check_content,
    read_noun,
    shown,
)
from trunkline.twiml.xmltree import Element

MAX_BODY_CHARACTERS: Final = 1600
MAX_MEDIA: Final = 10  # of one message

INVALID_TO: Final = 14101
INVALID_FROM: Final = 14102
INVALID_BODY: Final = 14103
INVALID_METHOD: Final = 14104
INVALID_STATUS_CALLBACK: Final = 14105
TOO_MANY_MEDIA: Final = 21623


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(Verb):
    """`to` and `from_` None: back to the sender, from the number that received. URLs as written."""

    body: str = ""
    media: tuple[str, ...] = ()
    to: str | None = None
    from_: str | None = None
    action: str | None = None
    method: str = "POST"
    status_callback: str | None = None


ATTRIBUTES: Final = (
    Attribute("to", "to", kinds.recipient, invalid_code=INVALID_TO, required=True),
    Attribute("from", "from_", kinds.sender, invalid_code=INVALID_FROM, required=True),
    Attribute("action", "action", kinds.url),
    Attribute("method", "method", kinds.method, default="POST", invalid_code=INVALID_METHOD),
    Attribute("statusCallback", "status_callback", kinds.url, invalid_code=INVALID_STATUS_CALLBACK),
)

NOUNS: Final = {"Body": Noun("Body", has_text=True), "Media": Noun("Media", has_text=True)}


def build(element: Element, values: dict[str, Value], notes: Notes) -> Message | None:
    """The verb, or None when there is nothing to send or it is too long."""
    children = check_content(element, SPEC, notes)
    bodies: list[str] = []
    media: list[str] = []
    for child in children:
        read_noun(child, NOUNS[child.name], notes)
        if child.name == "Body":
            bodies.append(child.text)
        elif (url := kinds.url(child.text)) is not None:
            media.append(url)
        else:
            notes.add(SCHEMA_WARNING, f"{shown(child.text)} is not a media URL", child)
    body = element.text
    if bodies:
        if body:
            notes.add(SCHEMA_WARNING, "text beside <Body> in <Message> is ignored", element)
        body = "".join(bodies)
    if len(media) > MAX_MEDIA:
        notes.add(TOO_MANY_MEDIA, f"{len(media)} <Media> in a <Message>, at most {MAX_MEDIA} are sent", element)
        del media[MAX_MEDIA:]
    if not body and not media:
        notes.add(INVALID_BODY, "<Message> has neither text nor <Media>", element)
        return None
    if len(body) > MAX_BODY_CHARACTERS:
        notes.add(INVALID_BODY, f"the body has {len(body)} of at most {MAX_BODY_CHARACTERS} characters", element)
        return None
    return Message(body=body, media=tuple(media), line=element.line, column=element.column, **values)


SPEC: Final = VerbSpec(
    "Message",
    kinds=frozenset({DocumentKind.MESSAGING}),
    build=build,
    attributes=ATTRIBUTES,
    has_text=True,
    children=NOUNS,
)
