"""The parts that calls are made of, by name; filled in by bootstrap.

What other layers (or siblings) implement stands here as a protocol, so that a test can hand in its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from trunkline.accounts.alerts import Alerts
from trunkline.accounts.directory import Directory
from trunkline.media.prompts import Prepared
from trunkline.model.call import Call
from trunkline.model.clock import Clock
from trunkline.settings import Settings, Trunk
from trunkline.storage.memory import MemoryStore
from trunkline.voice.flights import CallFlights
from trunkline.voice.media_leg import Media
from trunkline.voice.params import Place, place
from trunkline.voice.timeline import SIP
from trunkline.webhooks.fetch import Fetcher

if TYPE_CHECKING:
    from trunkline.voice.live import LiveCall
    from trunkline.voice.recordings import Recordings
    from trunkline.voice.trunk_doors import TrunkDoors


class Prompts(Protocol):
    """Texts and audio files to prompts (trunkline.media.prompts.Prompts); what waits raises PromptFailed."""

    def cached_speech(self, text: str, *, voice: str = "", language: str = "") -> Prepared | None:
        """The prompt of a text that was spoken before, without waiting."""

    def speech(self, text: str, *, voice: str = "", language: str = "") -> Awaitable[Prepared]:
        """Speak a text, or SSML (it begins with `<speak`)."""

    def cached_audio(self, url: str, *, scope: str = "") -> Prepared | None:
        """The prompt of a URL whose answer is still fresh, without waiting."""

    def audio(self, url: str, *, scope: str = "") -> Awaitable[Prepared]:
        """Fetch and decode an audio file."""

    def given(self, body: bytes, content_type: str) -> Awaitable[Prepared]:
        """Decode an audio file that came as an answer."""


class Gate(Protocol):
    """Of the lease of a node that is one of several (trunkline.cluster.fence.Fence)."""

    @property
    def open(self) -> bool:
        """Whether nobody else can have what is ours."""


class Former(NamedTuple):
    """Another region, whose place this one has taken. Its `MemoryStore` is not ours, so its calls are over."""

    until_ms: int
    """Since when it is not the active one: calls that are older were its own."""
    seen_ms: int
    """When it was last known to live."""


class Counts:
    """How many calls are live, by trunk and by account."""

    def __init__(self) -> None:
        self.trunk: dict[str, int] = {}
        self.account: dict[str, int] = {}
        self._counted: dict[str, tuple[str, str]] = {}

    def add(self, call: LiveCall) -> None:
        """Count a call; again, it is counted where it is now."""
        self.remove(call)
        trunk, account = call.record.trunk, call.account.sid
        self._counted[call.sid] = trunk, account
        self.trunk[trunk] = self.trunk.get(trunk, 0) + 1
        self.account[account] = self.account.get(account, 0) + 1

    def remove(self, call: LiveCall) -> None:
        """It is gone."""
        counted = self._counted.pop(call.sid, None)
        if counted is None:
            return
        for table, name in ((self.trunk, counted[0]), (self.account, counted[1])):
            table[name] -= 1
            if not table[name]:
                del table[name]


@dataclass(slots=True, kw_only=True)
class VoiceServices:
    """See the module. `live` has every call of this node that has not ended, by SID."""

    settings: Settings
    clock: Clock
    directory: Directory
    alerts: Alerts
    fetcher: Fetcher
    flights: CallFlights
    memory: MemoryStore
    media: Media
    prompts: Prompts
    trunks: Sequence[Trunk] = ()
    media_address: Callable[[str], str] = lambda host: "127.0.0.1"
    """The address that our SDP names towards a host."""
    recordings: Recordings | None = None
    outbound: Any = None
    """trunkline.voice.outbound.Outbound: what `<Dial>` places calls with."""
    doors: TrunkDoors | None = None
    """By which trunk a call comes in, and how many may."""
    settled: Callable[[float], Awaitable[bool]] | None = None
    """Waits until what was posted to a `MemoryStore` on other hosts is there (seconds at most); None: it has everything
    at once."""
    gate: Gate | None = None
    """Whether this node may speak for its calls; None: always."""
    former: Former | None = None
    """The region whose place this one has taken; None: there was none."""
    send_message: Any = None
    """What `<Sms>` sends messages with."""
    watch: Callable[[Call, Any, Any, Any], None] | None = None
    """Told of each document that a call goes on with: the position, what was asked for and `documents.Found` (learning
    mode; else None)."""
    live: dict[str, LiveCall] = field(default_factory=dict)
    traced: dict[str, LiveCall] = field(default_factory=dict)
    """By Call-ID."""
    counts: Counts = field(default_factory=Counts)

    def __post_init__(self) -> None:
        self.flights.places = self.places

    def places(self, record: Call) -> dict[str, Place]:
        """Where both ends of a call are, as keyword arguments of trunkline.voice.params.standard."""
        number = self.directory.number
        return {
            "from_place": place(record.from_, number(record.from_)),
            "to_place": place(record.to, number(record.to)),
        }

    def trace(self, call_id: str, sent: bool, line: str) -> None:
        """A SIP message, for the timeline of its call (`Stack.trace`)."""
        call = self.traced.get(call_id)
        if call is not None:
            call.note(SIP, f"-> {line}" if sent else f"<- {line}")
