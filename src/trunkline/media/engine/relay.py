"""Keys across a bridge: what one leg presses as telephone-events, the other is sent as well.

Telephone-events are no audio, so a bridge alone would lose them. Each is played to the peer as a Digits item of its
own; keys pressed meanwhile wait. What the node plays to the peer goes first. Keys heard in-band cross as audio.
"""

from typing import Final

from trunkline.media import protocol
from trunkline.media.engine.player import Player
from trunkline.media.engine.state import State

NAME: Final = "\0key"
"""Begins the names of our own plays, which nobody is told of."""
ON_MS: Final = 100
OFF_MS: Final = 60
MAX_WAITING: Final = 32
"""Keys that wait for one leg."""


class KeyRelay:
    """Plays keys to bridged peers."""

    def __init__(self, state: State, player: Player) -> None:
        self._state = state
        self._player = player
        self._waiting: dict[int, str] = {}
        self._count = 0

    def press(self, row: int, digit: str) -> None:
        """A leg pressed a key."""
        peer = int(self._state.peer[row])
        if peer < 0:
            return
        playing = self._player.name(peer)
        if not playing:
            self._play(peer, digit)
        elif playing.startswith(NAME):
            self._waiting[peer] = (self._waiting.get(peer, "") + digit)[:MAX_WAITING]

    def ended(self, row: int, why: str) -> None:
        """One of our plays ended: the keys that waited are next, unless something else took its place."""
        digits = self._waiting.pop(row, "")
        if digits and why == "end" and self._state.peer[row] >= 0:
            self._play(row, digits)

    def _play(self, row: int, digits: str) -> None:
        self._count += 1
        item = protocol.Digits(digits=digits, on_ms=ON_MS, off_ms=OFF_MS)
        self._player.start(row, protocol.Play(leg="", play=f"{NAME}{self._count}", items=[item]))
