"""What legs play: items one after the other, sample by sample without a gap.

Legs in the middle of a sound or of silence are moved by array operations; a leg at the end of an item, one that waits
for its file, and one that sends telephone-events are each taken by hand (`_fill`), which few are in any tick. Positions
are in the State; what is in memory only (samples, item lists) is made anew from the stored description by `restore`.
"""

import logging
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from trunkline.media import protocol
from trunkline.media.engine.digits import KeyPacket, at_offset, script, script_length
from trunkline.media.engine.sounds import Sound, Sounds
from trunkline.media.engine.state import (
    FRAME,
    PLAY_AUDIO,
    PLAY_EVENTS,
    PLAY_NONE,
    PLAY_SILENCE,
    PLAY_WAITING,
    RATE,
    Rows,
    Samples,
    State,
)
from trunkline.media.native.interface import Helper

logger = logging.getLogger(__name__)

ENDLESS: Final = 1 << 40
"""Samples of a tone without an end."""
MAX_ITEMS: Final = 256
"""Items of one play."""
MAX_DIGITS: Final = 256
"""Characters of one digit string."""
MAX_STEPS: Final = 64
"""Items without a length that one tick passes over."""

_decode: Final = msgspec.json.Decoder(protocol.Play).decode


class _Playing:
    """A leg's play: the command, and the sound of each item that has one."""

    __slots__ = ("command", "script", "sounds")

    def __init__(self, command: protocol.Play, sounds: list[Sound | None]) -> None:
        self.command = command
        self.sounds = sounds
        self.script: list[tuple[int, int, int]] = []


class Player:
    """`played(row, play, why, item, offset_ms)` is called when a play ends. `active` marks the legs that played in the
    last tick, `frames[row]` is what; `keys` are the telephone-events of that tick."""

    def __init__(
        self, state: State, helper: Helper, sounds: Sounds, played: Callable[[int, str, str, int, int], None]
    ) -> None:
        self._state = state
        self._helper = helper
        self._sounds = sounds
        self._played = played
        self._playing: dict[int, _Playing] = {}
        self._samples: list[Samples] = [np.zeros(0, np.int16)] * state.legs
        self._base = np.zeros(state.legs, np.uint64)
        self._cycle = np.ones(state.legs, np.int64)
        self.active: npt.NDArray[np.bool_] = np.zeros(state.legs, np.bool_)
        self.keys: list[KeyPacket] = []

    # -- commands

    def start(self, row: int, command: protocol.Play) -> str:
        """Begin; why not, or "". A command that is being carried out already (sent again) goes on."""
        playing = self._playing.get(row)
        if playing is not None and playing.command.play == command.play:
            return ""
        reason = _fault(command)
        if reason:
            return reason
        self.stop(row, "stopped")
        state = self._state
        if not state.describe_play(row, command):
            return "the list of items is too long"
        self._prepare(row, command)
        state.loops[row] = 0
        self._enter(row, command.start_item, command.start_ms * RATE // 1000)
        return ""

    def stop(self, row: int, why: str) -> None:
        """End what a leg plays, if anything, and tell."""
        playing = self._playing.pop(row, None)
        if playing is None:
            return
        state = self._state
        item, offset = int(state.item[row]), int(state.offset[row]) * 1000 // RATE
        state.play[row] = PLAY_NONE
        state.describe_play(row, None)
        self._samples[row] = np.zeros(0, np.int16)
        self._played(row, playing.command.play, why, item, offset)

    def barge(self, row: int, digit: str) -> None:
        """A key was pressed: it may end the play."""
        playing = self._playing.get(row)
        if playing is not None and digit in playing.command.barge:
            self.stop(row, "digit")

    def forget(self, row: int) -> None:
        """The leg is gone."""
        self._playing.pop(row, None)
        self._samples[row] = np.zeros(0, np.int16)

    def name(self, row: int) -> str:
        """What is playing, or ""."""
        playing = self._playing.get(row)
        return playing.command.play if playing else ""

    def restore(self) -> None:
        """Go on with what the State says is playing (a process that took over)."""
        state = self._state
        for row in np.flatnonzero((state.active != 0) & (state.play_length > 0)).tolist():
            try:
                command = _decode(state.play_description(row))
            except msgspec.DecodeError as error:  # of another version
                logger.error("what a leg played is lost: %s", error)
                state.play[row] = PLAY_NONE
                continue
            self._prepare(row, command)
            if state.play[row] == PLAY_AUDIO:
                left = int(state.left[row])
                self._enter(row, int(state.item[row]), int(state.offset[row]))
                if state.play[row] == PLAY_AUDIO:
                    state.left[row] = min(left, int(state.left[row]))

    def _prepare(self, row: int, command: protocol.Play) -> None:
        as_events = self._state.event_type[row] >= 0
        sounds: list[Sound | None] = []
        for item in command.items:
            sound: Sound | None = None
            if isinstance(item, protocol.Audio):
                sound = self._sounds.file(item.path)
            elif isinstance(item, protocol.Tone):
                sound = self._sounds.tone(item)
            elif isinstance(item, protocol.Digits) and not as_events:
                sound = self._sounds.keys(item)
            sounds.append(sound)
        self._playing[row] = _Playing(command, sounds)

    def _enter(self, row: int, number: int, offset: int) -> None:
        """Stand at `offset` samples of an item."""
        state, playing = self._state, self._playing[row]
        state.item[row], state.offset[row] = number, offset
        item, sound = playing.command.items[number], playing.sounds[number]
        playing.script = []
        if sound is not None:
            if not sound.ready:
                state.play[row] = PLAY_WAITING
                state.left[row] = 0
                return
            if isinstance(item, protocol.Audio) and offset == 0:
                state.offset[row] = offset = item.start_ms * RATE // 1000
            state.play[row] = PLAY_AUDIO
            self._samples[row] = sound.samples
            self._base[row] = sound.samples.__array_interface__["data"][0]
            self._cycle[row] = max(1, sound.cycle)
            length = sound.cycle
            if isinstance(item, protocol.Tone) and sound.cycle:
                length = item.ms * RATE // 1000 or ENDLESS
        elif isinstance(item, protocol.Digits):
            state.play[row] = PLAY_EVENTS
            playing.script = script(item)
            length = script_length(playing.script)
        else:
            state.play[row] = PLAY_SILENCE
            length = item.ms * RATE // 1000 if isinstance(item, protocol.Silence) else 0
        state.left[row] = max(0, length - offset)

    # -- the tick

    def step(self, rows: Rows, out: Samples) -> None:
        """The next frame of every leg of `rows` that plays into `out[row]`."""
        state = self._state
        self.keys.clear()
        self.active[:] = False
        kind = state.play[rows]
        rows = rows[kind != PLAY_NONE]
        if not len(rows):
            return
        kind = state.play[rows]
        easy = (state.left[rows] >= FRAME) & (kind <= PLAY_SILENCE)
        sounding = rows[easy & (kind == PLAY_AUDIO)]
        if len(sounding):
            position = state.offset[sounding] % self._cycle[sounding]
            self._helper.gather(sounding, self._samples, sounding, position, self._base, out)
        out[rows[easy & (kind == PLAY_SILENCE)]] = 0
        moved = rows[easy]
        state.offset[moved] += FRAME
        state.left[moved] -= FRAME
        self.active[moved] = True
        for row in rows[~easy].tolist():
            self.active[row] = self._fill(row, out[row])

    def _fill(self, row: int, frame: Samples) -> bool:
        """One frame by hand; False when the play ended before it."""
        state, playing = self._state, self._playing.get(row)
        if playing is None:
            state.play[row] = PLAY_NONE
            return False
        frame[:] = 0
        filled = 0
        for _ in range(MAX_STEPS):
            kind = int(state.play[row])
            if kind == PLAY_WAITING:
                if not self._arrived(row, playing):
                    return row in self._playing or filled > 0
                continue
            if kind == PLAY_EVENTS and state.left[row] > 0:
                if not filled:
                    self._send_keys(row, playing)
                return True
            size = min(FRAME - filled, int(state.left[row]))
            if size and kind == PLAY_AUDIO:
                at = int(state.offset[row] % self._cycle[row])
                frame[filled : filled + size] = self._samples[row][at : at + size]
            state.offset[row] += size
            state.left[row] -= size
            filled += size
            if filled == FRAME:
                return True
            if not self._next(row, playing):
                return filled > 0
        if not filled:
            self.stop(row, "failed")
        return filled > 0

    def _arrived(self, row: int, playing: _Playing) -> bool:
        """Whether the sound that a leg waits for is there; a sound that failed ends the play."""
        number = int(self._state.item[row])
        sound = playing.sounds[number]
        if sound is None or sound.failed:
            self.stop(row, "failed")
            return False
        if sound.ready:
            self._enter(row, number, int(self._state.offset[row]))
        return sound.ready

    def _next(self, row: int, playing: _Playing) -> bool:
        """Go to the next item, or the first again; False when that was all."""
        state, command = self._state, playing.command
        number = int(state.item[row]) + 1
        if number >= len(command.items):
            state.loops[row] += 1
            if command.loop and state.loops[row] >= command.loop:
                self.stop(row, "end")
                return False
            number = 0
        self._enter(row, number, 0)
        return True

    def _send_keys(self, row: int, playing: _Playing) -> None:
        """The telephone-event of this tick, if one is due (RFC 4733 section 2.5.1)."""
        state = self._state
        if not playing.script:
            item = playing.command.items[int(state.item[row])]
            playing.script = script(item) if isinstance(item, protocol.Digits) else []
        offset = int(state.offset[row])
        key = at_offset(playing.script, offset, int(state.event_scale[row]))
        if key is not None:
            if key.first:
                state.event_at[row] = state.timestamp[row]
            at = int(state.event_at[row]) + key.begin * (int(state.step[row]) // FRAME)
            self.keys.append(KeyPacket(row, at & 0xFFFFFFFF, key.payload, key.first))
        state.offset[row] += FRAME
        state.left[row] -= FRAME


def _fault(command: protocol.Play) -> str:
    """Why a play cannot be carried out, or ""."""
    if not command.items or len(command.items) > MAX_ITEMS:
        return f"between 1 and {MAX_ITEMS} items are needed"
    if not 0 <= command.start_item < len(command.items) or command.start_ms < 0:
        return "there is no such place to begin at"
    for item in command.items:
        if isinstance(item, protocol.Digits):
            if len(item.digits) > MAX_DIGITS or not set(item.digits) <= set("0123456789*#ABCDabcdwW"):
                return "bad digits"
            if not 0 < item.on_ms <= 10_000 or not 0 < item.off_ms <= 10_000:
                return "bad digit times"
        elif isinstance(item, protocol.Silence) and item.ms < 0:
            return "bad length of silence"
    return ""
