"""What is kept of a live call outside this process, so that it goes on when the process is lost.

A few keys of the `MemoryStore` a call, each small and written only when it changes: `call/<sid>/leg` (dialog, media),
`call/<sid>/document` (the document that runs), `call/<sid>/position` (where in it, and the verb's own state); before
the answer `call/<sid>/invite` (the INVITE that came in); after a live update `call/<sid>/next` (what was asked for).
Writing never waits (`MemoryStore.post`): the embedded default has it when `post` returns.

Where other nodes take calls over there is also `call/<sid>/flight`: the record with its status, so that they need
no database to go on. It stays until the last status is in the queue (trunkline.voice.flights), all else until the call
ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from trunkline.sip.dialog import DialogState
from trunkline.sip.flow import Flow
from trunkline.sip.offer_answer import Local, Negotiated
from trunkline.storage.memory import MemoryStore
from trunkline.voice.steps import Goto, Inline, Source
from trunkline.webhooks import fetch

if TYPE_CHECKING:
    from trunkline.model.recording import Recording
    from trunkline.voice.live import LiveCall

VERSION: Final = 1
LEG, DOCUMENT, POSITION, INVITE, NEXT = PARTS = ("leg", "document", "position", "invite", "next")
FLIGHT: Final = "flight"
RECORDING: Final = "recording"
"""Before the SID of a recording: its row while it runs, where other nodes may go on with it."""
LIFE_MS: Final = 26 * 3600 * 1000
"""Longer than any call: what nobody removed goes by itself."""


class LegCheckpoint(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A leg's SIP and media side."""

    v: int = VERSION
    sid: str
    account_sid: str
    trunk: str = ""
    dialog: DialogState | None = None
    local: Local | None = None
    negotiated: Negotiated | None = None
    slot: int = -1
    plays: int = 0
    """Plays begun so far: their names count on."""
    source: str = ""
    parent_sid: str = ""
    answered_ms: int = 0
    media_epoch: int = 0
    """Of the media process's memory that the leg was opened in."""


class DocumentCheckpoint(msgspec.Struct, omit_defaults=True, kw_only=True):
    """The document that runs."""

    v: int = VERSION
    url: str = ""
    """Where it came from, after redirects; empty for one that the API gave."""
    content_type: str = ""
    body: bytes = b""
    web: fetch.Session | None = None
    """Cookies and log-ins of the call's requests, if there are any."""


class Position(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Where in the document."""

    v: int = VERSION
    verb: int = 0
    documents: int = 0
    verbs: int = 0
    state: dict[str, Any] = {}
    """The verb's own."""


class InviteCheckpoint(msgspec.Struct, kw_only=True):
    """An INVITE that was not answered yet."""

    v: int = VERSION
    request: bytes
    flow: Flow
    others: list[tuple[bytes, Flow]] = []
    """Where it rings too."""
    early: list[bytes] = []
    """Of one that rings: a response for each early dialog (RFC 3261 section 12.1), where other hosts may go on."""


class NextCheckpoint(msgspec.Struct, omit_defaults=True, kw_only=True):
    """What a live update asked for, until its document has begun."""

    v: int = VERSION
    url: str = ""
    method: str = "POST"
    twiml: str = ""

    def step(self) -> Source:
        return Goto(self.url, self.method) if self.url else Inline(self.twiml)


class FlightCheckpoint(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A call's flight, as far as its owner knows it: the queue may be behind."""

    v: int = VERSION
    id: int
    status: str
    path: list[tuple[str, int]] = []
    """The statuses it has been in and since when (Unix ms), oldest first."""
    record: bytes
    """trunkline.model.call.Call, as in the queue."""


_encode = msgspec.msgpack.Encoder().encode


def key(sid: str, part: str) -> str:
    return f"call/{sid}/{part}"


def save_leg(call: LiveCall) -> None:
    """Store the leg as it is now."""
    put(call.services.memory, key(call.sid, LEG), leg_of(call))


def leg_of(call: LiveCall) -> LegCheckpoint:
    """What another process needs to go on with a leg."""
    return LegCheckpoint(
        sid=call.sid,
        account_sid=call.account.sid,
        trunk=call.trunk.name if call.trunk is not None else "",
        dialog=call.dialog.state() if call.dialog is not None else None,
        local=call.local,
        negotiated=call.negotiated,
        slot=call.audio.slot,
        plays=call.audio.plays,
        source=call.source,
        parent_sid=call.parent.sid if call.parent is not None else "",
        answered_ms=call.record.answered_ms or call.services.clock.now_ms(),
        media_epoch=call.audio.epoch,
    )


def save_invite(
    memory: MemoryStore,
    sid: str,
    request: bytes,
    flow: Flow,
    others: Sequence[tuple[bytes, Flow]] = (),
    early: Sequence[bytes] = (),
) -> None:
    """Store the INVITE of a call that is not answered yet: one that came in, or one of ours that rings there."""
    kept = InviteCheckpoint(request=request, flow=flow, others=list(others), early=list(early))
    put(memory, key(sid, INVITE), kept)


def save_recording(memory: MemoryStore, row: Recording) -> None:
    """Store the row of a recording that runs."""
    put(memory, key(row.call_sid, f"{RECORDING}/{row.sid}"), row)


def drop_recording(memory: MemoryStore, row: Recording) -> None:
    """It has ended: whoever takes over its call has nothing to go on with."""
    memory.post(key(row.call_sid, f"{RECORDING}/{row.sid}"), None)


def put(memory: MemoryStore, name: str, value: msgspec.Struct) -> None:
    """Store a value without waiting."""
    memory.post(name, _encode(value), LIFE_MS)


def put_all(memory: MemoryStore, sid: str, parts: dict[str, msgspec.Struct | None]) -> None:
    """Store several parts of a call together; None removes one."""
    changes = [(key(sid, part), None if value is None else _encode(value)) for part, value in parts.items()]
    memory.post_all(changes, LIFE_MS)


def ended(call: LiveCall) -> None:
    """A live call is over: nobody is to go on with it. What another host may have by now (the fence is closed) is left
    to that one."""
    gate = call.services.gate
    if not call.abandoned and (gate is None or gate.open):
        drop(call.services.memory, call.sid)


def drop(memory: MemoryStore, sid: str) -> None:
    """A call has ended: forget it, but for its flight."""
    memory.post_all([(key(sid, part), None) for part in PARTS])


def forget(memory: MemoryStore, sid: str) -> None:
    """The end of a call is in the queue: nothing of it is left here."""
    memory.post_all([(key(sid, part), None) for part in (*PARTS, FLIGHT)])
