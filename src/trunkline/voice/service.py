"""The parts that calls are made of, by name; filled in by bootstrap.

What other layers (or siblings) implement stands here as a protocol, so that a test can hand in its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from trunkline.accounts.alerts import Alerts
from trunkline.accounts.directory import Directory
from trunkline.model.clock import Clock
from trunkline.settings import Settings, Trunk
from trunkline.storage.memory import MemoryStore
from trunkline.voice.flights import CallFlights
from trunkline.voice.media_leg import Media
from trunkline.webhooks.fetch import Fetcher

if TYPE_CHECKING:
    from trunkline.voice.live import LiveCall


class Prepared(Protocol):
    """A prompt that can be played: a file of PCM and its length."""

    @property
    def path(self) -> str: ...
    @property
    def ms(self) -> int: ...


class Prompts(Protocol):
    """Texts and audio files to prompts (trunkline.media.prompts.Prompts); raises PromptFailed(code, reason)."""

    def cached_speech(self, text: str, *, voice: str = "", language: str = "") -> Prepared | None:
        """The prompt of a text that was spoken before, without waiting."""

    def speech(self, text: str, *, voice: str = "", language: str = "") -> Awaitable[Prepared]:
        """Speak a text, or SSML (it begins with `<speak>`)."""

    def audio(self, url: str, **details: Any) -> Awaitable[Prepared]:
        """Fetch and decode an audio file."""


class PlaceCall(Protocol):
    """What `<Dial>` and the API need: see trunkline.voice.outbound."""


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
    live: dict[str, LiveCall] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)
