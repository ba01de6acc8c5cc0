"""Keys that one side of a connection presses, pressed again towards the other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from trunkline.media import protocol

if TYPE_CHECKING:
    from trunkline.voice.live import LiveCall


class Keys:
    """Passes keys on to a leg, one after the other."""

    def __init__(self, to: LiveCall) -> None:
        self._to = to
        self._waiting = ""
        self._playing = False

    def press(self, digit: str) -> None:
        self._waiting += digit
        self._send()

    def _send(self) -> None:
        if self._playing or not self._waiting or not self._to.is_up:
            return
        digits, self._waiting = self._waiting, ""
        self._playing = True
        self._to.audio.play([protocol.Digits(digits=digits)]).add_done_callback(self._sent)

    def _sent(self, _played: asyncio.Future[Any]) -> None:
        self._playing = False
        self._send()
