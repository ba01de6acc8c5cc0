"""<Sms to from action method statusCallback>text</Sms>, and <Message> likewise: send a message from a call.

Without `to` it goes to the other party of the call, without `from` it comes from our number in it. The call goes on at
`action` when the message has been taken on (or refused), else with the next verb.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from trunkline.model.errors import ApiError
from trunkline.twiml import kinds
from trunkline.twiml.document import DocumentKind, Verb
from trunkline.twiml.schema import SCHEMA_WARNING, Attribute, Notes, Noun, Value, VerbSpec, check_content, shown
from trunkline.twiml.xmltree import Element
from trunkline.voice.steps import Goto
from trunkline.voice.verbs.later import NOT_SUPPORTED

if TYPE_CHECKING:
    from trunkline.voice.session import Session

INVALID_TO: Final = 14101
INVALID_FROM: Final = 14102
INVALID_BODY: Final = 14103
INVALID_METHOD: Final = 14104
INVALID_CALLBACK: Final = 14105
MAX_CHARACTERS: Final = 1600
MAX_MEDIA: Final = 10


class SendMessage(Protocol):
    """Takes a message on (made of trunkline.messaging.outbound by bootstrap); its SID and status. Raises ApiError."""

    def __call__(
        self, account: str, from_: str, to: str, body: str, *, media: Sequence[str], status_callback: str
    ) -> Awaitable[tuple[str, str]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sms(Verb):
    """`name` is the element's. URLs as written; `to` and `from_` empty: as the call has them."""

    name: str = "Sms"
    body: str = ""
    media: tuple[str, ...] = ()
    to: str = ""
    from_: str = ""
    action: str = ""
    method: str = "POST"
    status_callback: str = ""


ATTRIBUTES: Final = (
    Attribute("to", "to", kinds.recipient, default="", invalid_code=INVALID_TO, required=True),
    Attribute("from", "from_", kinds.sender, default="", invalid_code=INVALID_FROM, required=True),
    Attribute("action", "action", kinds.url, default=""),
    Attribute("method", "method", kinds.method, default="POST", invalid_code=INVALID_METHOD),
    Attribute("statusCallback", "status_callback", kinds.url, default="", invalid_code=INVALID_CALLBACK),
)
NOUNS: Final = {"Body": Noun("Body", has_text=True), "Media": Noun("Media", has_text=True)}


def _build(name: str, element: Element, values: dict[str, Value], notes: Notes) -> Sms | None:
    """The verb, or None when there is nothing to send or it is too long."""
    children = check_content(element, _BY_NAME[name], notes)
    body = "".join(child.text for child in children if child.name == "Body") or element.text
    media: list[str] = []
    for child in children:
        if child.name == "Media":
            if kinds.url(child.text) is None:
                notes.add(SCHEMA_WARNING, f"{shown(child.text)} is not a media URL", child)
            elif len(media) < MAX_MEDIA:
                media.append(child.text)
    if not body and not media:
        notes.add(INVALID_BODY, f"<{name}> has nothing to send", element)
        return None
    if len(body) > MAX_CHARACTERS:
        notes.add(INVALID_BODY, f"the body has {len(body)} of at most {MAX_CHARACTERS} characters", element)
        return None
    return Sms(name=name, body=body, media=tuple(media), line=element.line, column=element.column, **values)


SPECS: Final = (
    VerbSpec(
        "Sms", frozenset({DocumentKind.VOICE}), partial(_build, "Sms"), attributes=ATTRIBUTES, has_text=True
    ),
    VerbSpec(
        "Message", frozenset({DocumentKind.VOICE}), partial(_build, "Message"), attributes=ATTRIBUTES, has_text=True,
        children=NOUNS,
    ),
)  # fmt: skip
_BY_NAME: Final = {spec.name: spec for spec in SPECS}


async def run(verb: Sms, session: Session, state: dict[str, Any]) -> Goto | None:
    """Hand the message over. Next: trunkline.messaging.outbound.Outbound.accept"""
    send: SendMessage | None = session.services.send_message
    sid, status = str(state.get("sid", "")), str(state.get("status", "failed"))
    if send is None:
        session.alert_once(NOT_SUPPORTED, "this server sends no messages from calls")
    elif not sid:
        try:
            sid, status = await session.wait(_send(verb, session, send))
            session.save({"sid": sid, "status": status})
        except ApiError as error:
            session.alert(error.code or 0, error.message)
    if not verb.action:
        return None
    params = (("MessageSid", sid), ("SmsSid", sid), ("MessageStatus", status), ("SmsStatus", status))
    return Goto(verb.action, verb.method, params)


async def _send(verb: Sms, session: Session, send: SendMessage) -> tuple[str, str]:
    record = session.call.record
    ours, theirs = (record.to, record.from_) if session.call.incoming else (record.from_, record.to)
    media = [url for one in verb.media if (url := session.resolve(one)) is not None]
    callback = session.resolve(verb.status_callback) if verb.status_callback else None
    return await send(
        record.account_sid, verb.from_ or ours, verb.to or theirs, verb.body, media=media,
        status_callback=callback or "",
    )  # fmt: skip
