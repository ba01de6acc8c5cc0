"""What going on with calls is made of, on the same host (trunkline.voice.recovery) and on another one
(trunkline.voice.takeover): what was stored of each, live calls made of it, sessions that go on where they were.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from trunkline.model.call import Call, Status
from trunkline.model.recording import Recording
from trunkline.voice.checkpoints import (
    DOCUMENT,
    FLIGHT,
    INVITE,
    LEG,
    NEXT,
    POSITION,
    RECORDING,
    DocumentCheckpoint,
    FlightCheckpoint,
    InviteCheckpoint,
    LegCheckpoint,
    NextCheckpoint,
    Position,
)
from trunkline.voice.live import LiveCall
from trunkline.voice.outbound import PROCESS_LOST
from trunkline.voice.session import Session
from trunkline.voice.steps import Goto, Inline

if TYPE_CHECKING:
    from trunkline.sip.dialog import Dialog
    from trunkline.sip.dialog_state import DialogState
    from trunkline.sip.stack import Stack
    from trunkline.storage.memory import MemoryStore
    from trunkline.voice.flights import CallFlight
    from trunkline.voice.service import VoiceServices

OPEN = (Status.INITIATED, Status.RINGING, Status.IN_PROGRESS)
"""Statuses of calls that somebody has in hand."""
_PREFIX = "call/"

T = TypeVar("T", bound=msgspec.Struct)
log = logging.getLogger(__name__)


class Saved:
    """What was stored of one call."""

    __slots__ = ("document", "flight", "invite", "leg", "next", "position", "recordings")

    def __init__(self, parts: Mapping[str, bytes]) -> None:
        self.leg = _decode(parts.get(LEG), LegCheckpoint)
        self.document = _decode(parts.get(DOCUMENT), DocumentCheckpoint)
        self.position = _decode(parts.get(POSITION), Position)
        self.next = _decode(parts.get(NEXT), NextCheckpoint)
        self.invite = _decode(parts.get(INVITE), InviteCheckpoint)
        self.flight = _decode(parts.get(FLIGHT), FlightCheckpoint)
        rows = [_decode(value, Recording) for part, value in parts.items() if part.startswith(f"{RECORDING}/")]
        self.recordings = [row for row in rows if row is not None]

    @property
    def state(self) -> dict[str, Any]:
        """The own state of the verb that ran."""
        return self.position.state if self.position is not None else {}


def _decode(value: bytes | None, kind: type[T]) -> T | None:
    """What another release wrote may not be readable: then it is as if it were not there."""
    if value is None:
        return None
    try:
        return msgspec.msgpack.decode(value, type=kind)
    except msgspec.MsgspecError as error:
        log.warning("a checkpoint cannot be read: %s", error)
        return None


async def read(memory: MemoryStore, mine: Callable[[str], bool]) -> dict[str, Saved]:
    """What is stored of the calls that are ours, by SID."""
    calls: dict[str, dict[str, bytes]] = {}
    for name, value in await memory.scan(_PREFIX):
        _, sid, part = name.split("/", 2)
        if mine(sid):
            calls.setdefault(sid, {})[part] = value
    return {sid: Saved(parts) for sid, parts in calls.items()}


def live_call(services: VoiceServices, flight: CallFlight, leg: LegCheckpoint) -> LiveCall | None:
    """A call that is up, still without its dialog; None when its account is gone."""
    account = services.directory.account(flight.call.account_sid)
    if account is None:
        return None
    trunk = next((one for one in services.trunks if one.name == leg.trunk), None)
    return LiveCall(services, account, flight.call, Status.IN_PROGRESS, trunk)


def adopt(stack: Stack, live: LiveCall, state: DialogState) -> Dialog:
    """Its dialog, in our stack."""
    outbound = live.services.outbound
    credentials = outbound.login_of(live) if not live.incoming and outbound is not None else None
    return stack.adopt(state, live, credentials)


def count(live: LiveCall) -> None:
    """It counts for its account and its trunk as if it had been placed here."""
    if not live.incoming and live.services.outbound is not None:
        live.services.outbound.take_up(live)
    if live.services.doors is not None:
        live.services.doors.recount(live)


def join(services: VoiceServices, legs: Iterable[LegCheckpoint]) -> None:
    """Children find their parents."""
    for leg in legs:
        child, parent = services.live.get(leg.sid), services.live.get(leg.parent_sid)
        if child is not None and parent is not None:
            child.join(parent)


def resume(live: LiveCall, saved: Saved) -> None:
    """Let the session of a call that is nobody's leg go on."""
    if saved.next is not None:
        Session(live).start(saved.next.step())
    elif saved.document is not None and saved.position is not None:
        Session(live).resume(saved.document, saved.position)
    else:
        record = live.record
        Session(live).start(Goto(record.url, record.method) if record.url else Inline(record.twiml))


def resume_child(live: LiveCall, parent: Saved | None) -> None:
    """A callee goes on if its caller's <Dial> has connected it (that one's session looks after it); one who was still
    being asked, or whose caller is gone, cannot be."""
    state = parent.state if parent is not None else {}
    if live.parent is None or live.parent.is_over or state.get("child") != live.sid:
        live.hangup(PROCESS_LOST)


def date(call: Call, seen_ms: int, now_ms: int) -> None:
    """A call that is lost ended when it was last seen, not now."""
    if not call.ended_ms:
        call.ended_ms = min(max(seen_ms, call.answered_ms, call.started_ms, call.created_ms), now_ms)
