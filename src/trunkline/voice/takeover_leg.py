"""One leg of a lost host's call, on its way to this one (trunkline.voice.takeover)."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trunkline.voice.adopting import Saved
    from trunkline.voice.live import LiveCall

log = logging.getLogger(__name__)


class Leg:
    """See the module."""

    __slots__ = (
        "arrived", "children", "live", "looks", "offer", "parent", "recording", "resumed", "saved", "settled", "timer",
        "tries",
    )  # fmt: skip

    def __init__(self, live: LiveCall, saved: Saved) -> None:
        self.live = live
        self.saved = saved
        self.parent: Leg | None = None
        self.children: list[Leg] = []
        self.offer = b""
        self.tries = self.looks = 0
        self.settled = self.resumed = False
        self.timer: asyncio.TimerHandle | None = None
        self.recording: asyncio.Future[None] | None = None
        """Done when its recordings go on."""
        self.arrived = asyncio.Event()
        """It is settled."""

    @property
    def urgent(self) -> bool:
        """Whether somebody hears or says something just now."""
        state = self.saved.state
        return bool(self.parent or self.children or "play" in state or "recording" in state)


def end(live: LiveCall, why: str) -> None:
    """It is over, whether or not its peer can be told."""
    try:
        live.hangup(why)
    except Exception:
        log.exception("%s: its peer cannot be told that it is over", live.sid)
        if live.dialog is not None:
            live.dialog.abandon()
        live.hangup(why)
