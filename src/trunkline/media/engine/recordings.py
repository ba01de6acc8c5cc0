"""Recordings of legs: when they begin, pause and end; their audio goes to the recorder by the RecordRing.

A recording's slot in the ring's table is its index in the State's `rec_*` arrays. It is in use until the recorder has
completed the file, which may be long after its last frame.
"""

from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from trunkline.media import protocol
from trunkline.media.engine.jitter import QUIET
from trunkline.media.engine.record_ring import ACTIVE, PAUSE, RESUME, STOP, RecordRing
from trunkline.media.engine.state import (
    FRAME,
    RATE,
    REC_BEEP,
    REC_NONE,
    REC_RUNNING,
    REC_SILENT,
    REC_SKIPPING,
    Samples,
    State,
)
from trunkline.rtp import dtmf

BEEP_MS: Final = 500
BEEP_HZ: Final = 1000
BEEP_DB: Final = -16.0
_BEEP: Final = dtmf.tone((BEEP_HZ,), BEEP_MS, BEEP_DB)


class Recordings:
    """One engine's recordings."""

    def __init__(self, state: State, ring: RecordRing) -> None:
        self._state = state
        self._ring = ring
        self._slots: dict[str, int] = {}
        self._commands: dict[int, protocol.Record] = {}
        self._zeros: Samples = np.zeros((state.recordings, FRAME), np.int16)
        for active in ring.active():
            command = msgspec.convert(active.description, protocol.Record)
            self._slots[command.recording] = active.slot
            self._commands[active.slot] = command
            if active.state == ACTIVE and state.rec_state[active.slot] == REC_NONE:
                # Begun or ended while a process died: its STOP may be missing; a second one does no harm.
                ring.control(active.slot, STOP, int(state.rec_sample[active.slot]), {"why": "failed"})

    # -- commands: "" or why not

    def start(self, row: int, command: protocol.Record) -> str:
        """Begin, after the beep if one is wanted. One that runs already (sent again) goes on."""
        if command.recording in self._slots:
            return ""
        slot = self._ring.open(msgspec.to_builtins(command))
        if slot < 0:
            return "no room for another recording"
        state = self._state
        self._slots[command.recording] = slot
        self._commands[slot] = command
        state.rec_row[slot] = row
        state.rec_sample[slot] = state.rec_quiet[slot] = 0
        state.rec_most[slot] = command.max_ms * RATE // 1000
        state.rec_silence[slot] = command.silence_ms * RATE // 1000
        state.rec_beep[slot] = len(_BEEP) if command.beep else 0
        state.rec_state[slot] = REC_BEEP if command.beep else REC_RUNNING
        return ""

    def pause(self, recording: str, mode: str) -> str:
        slot = self._slots.get(recording, -1)
        if slot < 0 or self._state.rec_state[slot] == REC_NONE:
            return "no such recording"
        if self._state.rec_state[slot] not in (REC_SKIPPING, REC_SILENT):
            self._state.rec_state[slot] = REC_SILENT if mode == "silence" else REC_SKIPPING
            self._control(slot, PAUSE, {"mode": mode})
        return ""

    def resume(self, recording: str) -> str:
        slot = self._slots.get(recording, -1)
        if slot < 0 or self._state.rec_state[slot] == REC_NONE:
            return "no such recording"
        if self._state.rec_state[slot] in (REC_SKIPPING, REC_SILENT):
            self._state.rec_state[slot] = REC_RUNNING
            self._control(slot, RESUME)
        return ""

    def stop(self, recording: str) -> str:
        slot = self._slots.get(recording, -1)
        if slot < 0:
            return "no such recording"
        self._stop(slot, "stopped")
        return ""

    def press(self, row: int, digit: str) -> None:
        """A key of a leg: it may end recordings of it."""
        for slot in self._of(row):
            if digit in self._commands[slot].finish_on:
                self._stop(slot, "digit", digit)

    def close(self, row: int) -> None:
        """The leg ends, and with it its recordings."""
        for slot in self._of(row):
            self._stop(slot, "closed")

    def names(self, row: int) -> list[str]:
        """The recordings of a leg that run."""
        return [self._commands[slot].recording for slot in self._of(row)]

    def _of(self, row: int) -> list[int]:
        if not self._commands:
            return []
        state = self._state
        slots: list[int] = np.flatnonzero((state.rec_state != REC_NONE) & (state.rec_row == row)).tolist()
        return [slot for slot in slots if slot in self._commands]

    def _control(self, slot: int, kind: int, details: dict[str, Any] | None = None) -> None:
        self._ring.control(slot, kind, int(self._state.rec_sample[slot]), details)

    def _stop(self, slot: int, why: str, digit: str = "") -> None:
        if self._state.rec_state[slot] == REC_NONE:
            return
        self._state.rec_state[slot] = REC_NONE
        self._control(slot, STOP, {"why": why, "digit": digit})

    # -- the tick

    def beep(self, out: Samples, active: npt.NDArray[np.bool_]) -> None:
        """Let legs hear the beep before their recording; they count as playing meanwhile."""
        state = self._state
        for slot in np.flatnonzero(state.rec_state == REC_BEEP).tolist():
            left = int(state.rec_beep[slot])
            if left <= 0:
                state.rec_state[slot] = REC_RUNNING
                continue
            row, at = int(state.rec_row[slot]), len(_BEEP) - left
            out[row] = _BEEP[at : at + FRAME]
            active[row] = True
            state.rec_beep[slot] = left - FRAME

    def step(self, heard: Samples, out: Samples, energy: npt.NDArray[np.float32], skipped: int) -> None:
        """Record this tick's frames; `skipped`: ticks since the last one that never were."""
        state = self._state
        slots = np.flatnonzero(state.rec_state >= REC_RUNNING)
        if not len(slots):
            return
        slots = slots[state.rec_state[slots] != REC_SKIPPING]
        if skipped:
            state.rec_sample[slots] += skipped * FRAME
        running = slots[state.rec_state[slots] == REC_RUNNING]
        if len(running):
            rows = state.rec_row[running]
            self._ring.put(running, state.rec_sample[running], heard[rows], out[rows])
            state.rec_quiet[running] = np.where(energy[rows] < QUIET, state.rec_quiet[running] + FRAME, 0)
        silent = slots[state.rec_state[slots] == REC_SILENT]
        if len(silent):
            zeros = self._zeros[: len(silent)]
            self._ring.put(silent, state.rec_sample[silent], zeros, zeros)
        state.rec_sample[slots] += FRAME
        most, silence = state.rec_most[slots], state.rec_silence[slots]
        full = (most > 0) & (state.rec_sample[slots] >= most)
        quiet = (silence > 0) & (state.rec_quiet[slots] >= silence)
        for i in np.flatnonzero(full | quiet):
            self._stop(int(slots[i]), "max-length" if full[i] else "silence")

    def collect(self) -> list[protocol.Recorded]:
        """What the recorder has completed since."""
        done = []
        for slot, description, result in self._ring.finished():
            command = self._commands.pop(slot, None) or msgspec.convert(description, protocol.Record)
            self._slots.pop(command.recording, None)
            self._state.rec_state[slot] = REC_NONE
            self._ring.free(slot)
            fields = {**result, "recording": command.recording, "leg": command.leg}
            try:
                done.append(msgspec.convert(fields, protocol.Recorded, strict=False))
            except msgspec.ValidationError:
                done.append(protocol.Recorded(recording=command.recording, leg=command.leg, why="failed"))
        return done
