"""The shared-memory ring by which recorded audio leaves the tick for the recorder process.

One writer (the media process), one reader (trunkline.media.recorder); both may die and come back.

- A *table* of recordings: each slot has a state, a generation and a JSON description. The writer `open`s a slot; the
  reader `complete`s it, with a JSON result, once it has dealt with its STOP entry; the writer `finished`-reads the
  result and `free`s the slot. A reader that starts anew learns what is running from `active()`.
- A *ring* of entries in the order in which they happened: AUDIO (one frame of both tracks, with its sample index in
  the recording) and controls (START, PAUSE, RESUME, STOP) with the sample index at which they hold.

Sample indices are the truth: the reader puts each frame where its index says, and what no frame covers is silence (a
gap). Entries are taken by `take` and stay in the ring until `release`, so that a reader that died between writing and
releasing sees them again: writing a frame twice at the same index does no harm.

A full ring (reader away for longer than it is sized for) holds: new frames are dropped and counted, controls wait for
room. Nothing here blocks.
"""

import mmap
import os
from collections import deque
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

FRAME: Final = 160
"""Samples of one frame: 20 ms at 8 kHz."""
AUDIO, START, PAUSE, RESUME, STOP = range(5)
"""Kinds of entries."""
FREE, ACTIVE, COMPLETE = range(3)
"""States of a table slot. COMPLETE: the reader is done and the result is there."""
DESCRIPTION_BYTES: Final = 4096
"""Room for a recording's description, and as much again for its result."""
DETAIL_BYTES: Final = FRAME * 4
"""Room for the JSON details of a control entry (they lie where audio would)."""
MAX_WAITING_CONTROLS: Final = 100_000
"""Control entries that wait for room in a full ring."""
HOLD_S: Final = 5
"""Seconds of all recording legs that the ring is sized for."""
TICKS_PER_S: Final = 50

_MAGIC: Final = 0x54524B52494E4731
_VERSION: Final = 1
_HEADER_WORDS: Final = 16
_MAGIC_AT, _VERSION_AT, _SLOTS_AT, _FRAMES_AT, _HEAD_AT, _TAIL_AT, _DROPPED_AT = range(7)

ENTRY: Final = np.dtype(
    [
        ("sample", "<u8"),
        ("slot", "<u4"),
        ("generation", "<u4"),
        ("kind", "<u4"),
        ("length", "<u4"),
        ("inbound", "<i2", (FRAME,)),
        ("outbound", "<i2", (FRAME,)),
    ]
)
"""One entry: `sample` counts from the recording's start; `length` is that of a control's JSON details."""

_SLOT: Final = np.dtype(
    [
        ("state", "<u4"),
        ("generation", "<u4"),
        ("length", "<u4"),
        ("result_length", "<u4"),
        ("description", "u1", (DESCRIPTION_BYTES,)),
        ("result", "u1", (DESCRIPTION_BYTES,)),
    ]
)

Samples = npt.NDArray[np.int16]


class RingMismatch(Exception):
    """The memory holds a ring of another version or size."""


class Active(msgspec.Struct, frozen=True):
    """A slot in use: `state` is ACTIVE or COMPLETE."""

    slot: int
    generation: int
    state: int
    description: dict[str, Any]


def ring_bytes(slots: int, frames: int) -> int:
    """Size of the shared memory for `slots` recordings at once and `frames` entries."""
    return _HEADER_WORDS * 8 + slots * _SLOT.itemsize + frames * ENTRY.itemsize


def frames_for(legs: int) -> int:
    """Entries that hold HOLD_S seconds of so many recorded legs."""
    return max(4096, legs * TICKS_PER_S * HOLD_S)


class RecordRing:
    """Both sides of the ring over one shared memory. The writer calls `open`, `put`, `control`, `flush`, `finished`
    and `free`; the reader `active`, `take`, `release`, `details` and `complete`."""

    def __init__(self, fd: int, *, slots: int = 0, frames: int = 0) -> None:
        """Map the memory behind `fd` (a memfd or file). An empty one is laid out for `slots` and `frames`; of one in
        use those are read from it. Raises RingMismatch."""
        if os.fstat(fd).st_size == 0:
            os.ftruncate(fd, ring_bytes(slots, frames))
        self._map = mmap.mmap(fd, os.fstat(fd).st_size)
        self._header = np.frombuffer(self._map, np.uint64, _HEADER_WORDS)
        if not self._header[_MAGIC_AT]:
            self._header[_VERSION_AT : _FRAMES_AT + 1] = (_VERSION, slots, frames)
            self._header[_MAGIC_AT] = _MAGIC
        self.slots, self.frames = int(self._header[_SLOTS_AT]), int(self._header[_FRAMES_AT])
        if (
            int(self._header[_MAGIC_AT]) != _MAGIC
            or int(self._header[_VERSION_AT]) != _VERSION
            or len(self._map) < ring_bytes(self.slots, self.frames)
        ):
            raise RingMismatch("the record ring is of another version or size")
        self._table = np.frombuffer(self._map, _SLOT, self.slots, _HEADER_WORDS * 8)
        self._entries = np.frombuffer(self._map, ENTRY, self.frames, _HEADER_WORDS * 8 + self.slots * _SLOT.itemsize)
        self._state = self._table["state"]
        self._generation = self._table["generation"]
        self._waiting: deque[tuple[int, int, int, bytes]] = deque(maxlen=MAX_WAITING_CONTROLS)

    @classmethod
    def create(cls, slots: int, frames: int) -> tuple["RecordRing", int]:
        """A ring in new anonymous shared memory, and the fd to hand to the other process."""
        fd = os.memfd_create("trunkline-record-ring", os.MFD_CLOEXEC)
        return cls(fd, slots=slots, frames=frames), fd

    @property
    def held(self) -> int:
        """Entries that the reader has not released."""
        return int(self._header[_HEAD_AT]) - int(self._header[_TAIL_AT])

    @property
    def dropped(self) -> int:
        """Frames dropped because the ring was full, ever."""
        return int(self._header[_DROPPED_AT])

    # -- writer

    def open(self, description: dict[str, Any]) -> int:
        """A slot for a new recording, told to the reader by a START entry; -1 when there is none or the description
        is too long. `description`: the fields of protocol.Record."""
        blob = msgspec.json.encode(description)
        free = np.flatnonzero(self._state == FREE)
        if not len(free) or len(blob) > DESCRIPTION_BYTES:
            return -1
        slot = int(free[0])
        row = self._table[slot]
        row["generation"] += 1
        row["description"][: len(blob)] = np.frombuffer(blob, np.uint8)
        row["length"], row["result_length"] = len(blob), 0
        row["state"] = ACTIVE
        self.control(slot, START, 0)
        return slot

    def put(
        self,
        slots: npt.NDArray[np.integer[Any]],
        samples: npt.NDArray[np.integer[Any]],
        inbound: Samples,
        outbound: Samples,
    ) -> int:
        """Append one frame for each of `slots`, at its sample index. Returns how many went in; the rest is dropped."""
        if self._waiting:
            self.flush()
        head = int(self._header[_HEAD_AT])
        wanted = len(slots)
        room = 0 if self._waiting else self.frames - (head - int(self._header[_TAIL_AT]))
        count = min(wanted, room)
        if count < wanted:
            self._header[_DROPPED_AT] += np.uint64(wanted - count)
        done = 0
        while done < count:
            at = (head + done) % self.frames
            size = min(count - done, self.frames - at)
            part, source = self._entries[at : at + size], slice(done, done + size)
            part["sample"], part["slot"] = samples[source], slots[source]
            part["generation"] = self._generation[slots[source]]
            part["kind"] = AUDIO
            part["inbound"], part["outbound"] = inbound[source], outbound[source]
            done += size
        self._header[_HEAD_AT] = head + count
        return count

    def control(self, slot: int, kind: int, sample: int, details: dict[str, Any] | None = None) -> None:
        """Append START, PAUSE, RESUME or STOP at a sample index; waits inside the writer while the ring is full.
        Details longer than DETAIL_BYTES are left out. PAUSE: {"mode": ...}. STOP: {"why": ..., "digit": ...}."""
        blob = msgspec.json.encode(details) if details else b""
        self._waiting.append((slot, kind, sample, blob if len(blob) <= DETAIL_BYTES else b""))
        self.flush()

    def flush(self) -> None:
        """Put waiting controls into the ring as far as there is room."""
        while self._waiting and self.held < self.frames:
            slot, kind, sample, blob = self._waiting.popleft()
            head = int(self._header[_HEAD_AT])
            entry = self._entries[head % self.frames : head % self.frames + 1]
            entry["sample"], entry["slot"], entry["kind"], entry["length"] = sample, slot, kind, len(blob)
            entry["generation"] = self._generation[slot]
            entry["inbound"].view(np.uint8).reshape(-1)[: min(len(blob), FRAME * 2)] = list(blob[: FRAME * 2])
            entry["outbound"].view(np.uint8).reshape(-1)[: max(0, len(blob) - FRAME * 2)] = list(blob[FRAME * 2 :])
            self._header[_HEAD_AT] = head + 1

    def finished(self) -> list[tuple[int, dict[str, Any], dict[str, Any]]]:
        """(slot, description, result) of the recordings that the reader has completed."""
        done = np.flatnonzero(self._state == COMPLETE)
        return [(int(slot), self._read(int(slot), "description", "length"), self.result(int(slot))) for slot in done]

    def free(self, slot: int) -> None:
        """Give a slot back, once its result has been dealt with."""
        self._state[slot] = FREE

    # -- reader

    def active(self) -> list[Active]:
        """Every slot in use, for a reader that starts anew."""
        return [
            Active(int(slot), int(self._generation[slot]), int(self._state[slot]), self.description(int(slot)))
            for slot in np.flatnonzero(self._state != FREE)
        ]

    def description(self, slot: int) -> dict[str, Any]:
        """What `open` was given for a slot in use."""
        return self._read(slot, "description", "length")

    def running(self, slot: int, generation: int) -> dict[str, Any] | None:
        """The description of a recording that is not complete; None: the slot is not that recording's (any more)."""
        if self._state[slot] != ACTIVE or self._generation[slot] != generation:
            return None
        return self.description(slot)

    def take(self, limit: int = 4096) -> npt.NDArray[Any]:
        """Up to `limit` of the oldest entries, in order, as an array of ENTRY: a view of the ring, good until
        `release`. May be fewer than there are (where the ring wraps); empty when there is nothing."""
        head, tail = int(self._header[_HEAD_AT]), int(self._header[_TAIL_AT])
        at = tail % self.frames
        return self._entries[at : at + min(head - tail, limit, self.frames - at)]

    def release(self, count: int) -> None:
        """The oldest `count` entries are on disk (or otherwise dealt with) and their room may be used again."""
        self._header[_TAIL_AT] += np.uint64(min(count, self.held))

    def details(self, entry: npt.NDArray[Any]) -> dict[str, Any]:
        """The JSON details of a control entry (one element of what `take` gave)."""
        length = int(entry["length"])
        if entry["kind"] == AUDIO or not length:
            return {}
        raw = entry["inbound"].tobytes() + entry["outbound"].tobytes()
        details: dict[str, Any] = msgspec.json.decode(raw[:length])
        return details

    def complete(self, slot: int, generation: int, result: dict[str, Any]) -> bool:
        """The recording's file is whole (or failed): `result` holds fields of protocol.Recorded (duration_ms, file,
        gaps, peak, voiced_ms; why="failed" when it failed; `why` and `digit` as the STOP entry said). False when the
        slot is not that recording any more. Gaps are left out of a result that is too long."""
        if self._state[slot] != ACTIVE or self._generation[slot] != generation:
            return False
        blob = msgspec.json.encode(result)
        if len(blob) > DESCRIPTION_BYTES:
            blob = msgspec.json.encode({**result, "gaps": []})
        row = self._table[slot]
        row["result"][: len(blob)] = np.frombuffer(blob, np.uint8)
        row["result_length"] = len(blob)
        self._state[slot] = COMPLETE
        return True

    def result(self, slot: int) -> dict[str, Any]:
        """What `complete` was given."""
        return self._read(slot, "result", "result_length")

    def _read(self, slot: int, name: str, length: str) -> dict[str, Any]:
        row = self._table[slot]
        size = int(row[length])
        if not size:
            return {}
        value: dict[str, Any] = msgspec.json.decode(row[name][:size].tobytes())
        return value
