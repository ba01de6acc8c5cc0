"""<Refer action method><Sip>sip:...</Sip></Refer>: ask the caller's phone to call somewhere else (SIP REFER, RFC 3515).

It waits for the phone's last word on the new call, at most three minutes; then the call goes on at `action`, else with
the next verb. The phone that was transferred usually hangs up by itself. Source: Twilio's <Refer>.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trunkline.model.call import Status
from trunkline.sip.errors import MalformedMessage
from trunkline.sip.uri import SIP_SCHEMES, Uri
from trunkline.twiml import kinds
from trunkline.twiml.document import DocumentKind, Verb
from trunkline.twiml.schema import SCHEMA_WARNING, Attribute, Notes, Noun, Value, VerbSpec, check_content
from trunkline.twiml.xmltree import Element
from trunkline.voice import timeline
from trunkline.voice.endings import ending
from trunkline.voice.steps import CallEnded, Goto

if TYPE_CHECKING:
    from trunkline.sip.refer import ReferProgress
    from trunkline.voice.session import Session

MAX_URI: Final = 2000
"""Characters of the address, headers included."""
NOT_ALLOWED: Final = 13801
FORBIDDEN: Final = 403
SIP: Final = Noun("Sip", has_text=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refer(Verb):
    """`to` is a SIP URI with its headers; `action` as written, empty for none."""

    to: str
    action: str = ""
    method: str = "POST"


ATTRIBUTES: Final = (
    Attribute("action", "action", kinds.url, default=""),
    Attribute("method", "method", kinds.method, default="POST"),
)


def build(element: Element, values: dict[str, Value], notes: Notes) -> Refer | None:
    """The verb, or None when it names no address."""
    check_content(element, SPEC, notes)
    targets = [child.text.strip() for child in element.children if child.name == "Sip"]
    if len(targets) != 1 or not _is_address(targets[0]):
        notes.add(SCHEMA_WARNING, "<Refer> needs one <Sip> with a sip: address", element)
        return None
    return Refer(to=targets[0], line=element.line, column=element.column, **values)


def _is_address(text: str) -> bool:
    if len(text) > MAX_URI or not text.isprintable() or not text.isascii() or "<" in text or ">" in text:
        return False
    try:
        uri = Uri.parse(text)
    except MalformedMessage:
        return False
    return uri.scheme in SIP_SCHEMES and bool(uri.host)


SPEC: Final = VerbSpec(
    "Refer",
    kinds=frozenset({DocumentKind.VOICE}),
    build=build,
    attributes=ATTRIBUTES,
    children={"Sip": SIP},
)


class _Progress:
    """What the phone has said so far."""

    def __init__(self) -> None:
        self.response = 0
        self.status = 0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def hear(self, progress: ReferProgress) -> None:
        self.response, self.status = progress.response, progress.status
        if progress.over and not self.over.done():
            self.over.set_result(None)

    def params(self, *, gone: bool = False) -> tuple[tuple[str, str], ...]:
        """What the action is told. Without a NOTIFY nothing is known of the new call."""
        params: list[tuple[str, str]] = []
        if gone:
            params.append(("ReferCallStatus", Status.CANCELED.value))
        elif self.response >= 300:
            params.append(("ReferCallStatus", Status.FAILED.value))
        elif self.status:
            params.append(("ReferCallStatus", _status_of(self.status)))
        if self.response:
            params.append(("ReferSipResponseCode", str(self.response)))
        if self.status:
            params.append(("NotifySipResponseCode", str(self.status)))
        return tuple(params)


def _status_of(status: int) -> str:
    """The new call's status as the last response to it tells."""
    if status < 200:
        return Status.RINGING.value
    return (Status.IN_PROGRESS if status < 300 else ending(status, busy_on_decline=True)).value


async def run(verb: Refer, session: Session, state: dict[str, Any]) -> Goto | None:
    """Send it, and wait until the phone has told the outcome (or refused)."""
    progress = _Progress()
    if state.get("sent") and session.call.is_over:  # the phone hung up while nobody had the call
        if verb.action:
            await session.finish(Goto(verb.action, verb.method, progress.params(gone=True)))
        raise CallEnded
    dialog = session.call.dialog
    if dialog is None:
        return None
    trunk = session.call.trunk
    if trunk is not None and not (trunk.refers or trunk.simulated):  # the carrier would call at the operator's cost
        session.alert(NOT_ALLOWED, f"<Refer> is not allowed on calls of trunk {trunk.name}")
        progress.response = FORBIDDEN
        return Goto(verb.action, verb.method, progress.params()) if verb.action else None
    session.call.note(timeline.SIP, f"REFER to {verb.to}")
    if not state.get("sent"):  # else a process before this one sent it, and it is not known what became of it
        session.save({"sent": True})
        by = f"<{dialog.local_uri}>"
        dialog.refer(f"<{verb.to}>", progress.hear, [("Referred-By", by)])
        try:
            await session.wait(progress.over)
        except CallEnded:
            if verb.action:
                await session.finish(Goto(verb.action, verb.method, progress.params(gone=True)))
            raise
    return Goto(verb.action, verb.method, progress.params()) if verb.action else None
