"""What became of the calls that one node took over from another (trunkline.voice.takeover)."""

import asyncio
import logging
from dataclasses import dataclass, field

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Report:
    """What became of the calls of one `take_over`. The counts below `settled` are final once that is set."""

    legs: int = 0
    """Answered legs that were adopted."""
    early: int = 0
    """Calls that were not answered: ended."""
    queued: int = 0
    """Calls that waited to be placed: they wait here."""
    lost: int = 0
    """Answered calls of which nothing was stored: ended."""
    ended: int = 0
    """Calls that had ended, which the queue may not know."""
    took_s: float = 0.0
    """From the call of `take_over` until the last re-INVITE had left."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Every leg is reached or over."""
    reached: int = 0
    gone: int = 0
    """Legs whose peer had hung up, or was not reached."""
    reached_ms: list[int] = field(default_factory=list)
    """For each leg reached: from when its host was last seen."""

    def __str__(self) -> str:
        return (
            f"{self.legs} legs in {self.took_s * 1000:.0f} ms: {self.reached} reached, {self.gone} gone; {self.early} "
            f"calls were ringing, {self.queued} waiting, {self.lost} lost"
        )

    @property
    def complete(self) -> bool:
        """Whether it is known of every leg whether it goes on."""
        return self.reached + self.gone == self.legs

    def tell(self) -> None:
        """Every leg is reached or over."""
        self.settled.set()
        if self.legs or self.early or self.lost:
            longest_ms = max(self.reached_ms, default=0)
            log.warning("calls of another host were taken over: %s; the longest silence is %d ms", self, longest_ms)
