"""The jitter buffer: audio in by RTP timestamp, one frame out per leg and tick.

Each leg has a ring of samples; a packet's samples lie at their timestamp, so packets of any length (10 to 80 ms), late,
early or twice, need no care. `position` is the timestamp of the next frame to play, `level` how much audio lies between
it and the newest sample. A talkspurt begins `depth` samples behind its first packet; where that packet waited for the
tick for longer than WAIT, a frame less, for the wait counts. So without jitter every packet is played 35 to 55 ms after
it came, with the least depth of 40 ms.

- A frame that is not whole is concealed: the last whole frame again, fading over three frames.
- When the buffer runs empty, playing waits (at most STRETCH frames a gap): if audio comes soon it was jitter, and
  `depth` grows; a longer gap is a pause, and the next packet begins a talkspurt at the depth known.
- Clock drift and shrinking: over a window of 2 s the least time from a packet's arrival to its playing (`held`) tells
  how much is held in vain. That many frames are dropped in silence; what is still too much after another window goes
  without silence. Where the least level tells that too little is held, a frame is repeated in silence.
- A jump of the timestamp beyond the ring, or a run of late packets, starts anew.

Most packets and frames are moved by the compiled helper (`engine.usual`), in the same way.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trunkline.media.engine.codecs import Codecs
from trunkline.media.engine.state import FRAME, RATE, RING, Flags, Ints, Rows, Samples, State
from trunkline.media.native.interface import MISSING, Bytes, Helper, Int32s, Tick

MAX_PAYLOAD: Final = 640
"""Samples of one packet that are taken: 80 ms."""
ROOM: Final = RING - MAX_PAYLOAD - FRAME
"""Samples ahead of the position that a packet may be."""
STRETCH: Final = 2
"""Frames that playing waits for audio in one gap."""
PAUSE: Final = 4
"""Frames of gap, with nothing in the buffer, after which the next packet begins a talkspurt."""
LATE_RUN: Final = 8
"""Late packets in a row after which the stream starts anew."""
LATE_MOST: Final = RATE
"""Samples behind the position that are a jump, not lateness."""
WINDOW: Final = 100
"""Ticks over which the level is watched: 2 s."""
LOW_WATER: Final = 80
"""Samples; with less at the worst moment of a window a frame is repeated."""
WAIT: Final = 120
"""Samples (15 ms) beyond the least depth that a packet may be held. So packets are played at most 55 ms after they came
where the least depth is 40 ms; what a busy machine adds to that stays below 60 ms."""
FORCED: Final = 1000
"""Added to the number of frames to drop (`adjust`) that need not wait for silence."""
QUIET: Final = 40_000.0
"""Mean square below which a frame is silence: RMS 200, -44 dB of full scale."""
FADE: Final = np.array([1.0, 0.9, 0.5, 0.2, 0.0], np.float32)
"""Gain of the concealing frame by length of the gap."""
_EMPTY: Final = 1 << 40


def signed(difference: Ints) -> Ints:
    """Differences of 32-bit timestamps as signed numbers."""
    return ((difference + 0x80000000) & 0xFFFFFFFF) - 0x80000000


class JitterBuffer:
    """Works on the receive fields of a State. `heard` holds each leg's current frame, `energy` its mean square."""

    def __init__(self, state: State, helper: Helper, codecs: Codecs, *, min_ms: int, max_ms: int) -> None:
        self._state = state
        self._helper = helper
        self._codecs = codecs
        most = (RING - MAX_PAYLOAD) // 2
        self.min_depth = min(min_ms * RATE // 1000, most)
        self.max_depth = max(self.min_depth, min(max_ms * RATE // 1000, most))
        self.heard: Samples = np.zeros((state.legs, FRAME), np.int16)
        self.energy: npt.NDArray[np.float32] = np.zeros(state.legs, np.float32)
        self._last: Samples = np.zeros((state.legs, FRAME), np.int16)
        self._missing: Int32s = np.zeros(state.legs, np.int32)
        self.usual: Tick | None = None
        """Set by the engine."""

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What is not in the State, for engine.usual."""
        return {"heard": self.heard, "energy": self.energy, "last": self._last, "missing": self._missing}

    def reset(self, row: int) -> None:
        """Forget a leg's audio: a new leg, or one that is heard again after a hold."""
        state = self._state
        state.started[row] = 0
        state.ring[row] = MISSING
        state.depth[row] = self.min_depth
        self._codecs.reset(row)
        state.gap[row] = state.stretched[row] = state.late_run[row] = state.noise[row] = state.adjust[row] = 0
        self._last[row] = 0
        self.heard[row] = 0
        self.energy[row] = 0

    # -- in

    def insert(
        self,
        rows: Ints,
        timestamp: Ints,
        packet: Ints,
        offset: Ints,
        octets: Ints,
        length: Ints,
        law: Flags,
        marker: Flags,
        wait: Ints,
        data: Bytes,
    ) -> None:
        """Put packets in, at most one of each row. `length` is in samples; `wait`: samples that passed between
        their arrival and this tick."""
        state = self._state
        length = np.minimum(length, MAX_PAYLOAD)
        fresh = state.started[rows] == 0
        ahead = signed(timestamp - state.position[rows])
        late = ~fresh & (ahead + length <= 0)
        jump = ~fresh & ((ahead > ROOM) | (ahead < -LATE_MOST))
        if late.any():
            at = rows[late]
            state.late[at] += 1
            state.late_run[at] += 1
            jump |= late & (state.late_run[rows] >= LATE_RUN)
        if jump.any():
            state.ring[rows[jump]] = MISSING
            late &= ~jump
            for row in rows[jump].tolist():
                self._codecs.reset(row)
        empty = signed(state.newest[rows] - state.position[rows]) <= 0
        pause = empty & ((state.gap[rows] >= PAUSE) | (marker != 0)) & ~late
        begin = fresh | jump | pause
        self._resumed(rows[~begin & ~late])
        if begin.any():
            self._begin(rows[begin], timestamp[begin], wait[begin])
            ahead = signed(timestamp - state.position[rows])
        keep = ~late
        if not keep.all():
            rows, timestamp, packet, offset = rows[keep], timestamp[keep], packet[keep], offset[keep]
            octets, length, law, ahead, wait = octets[keep], length[keep], law[keep], ahead[keep], wait[keep]
        state.late_run[rows] = state.noise[rows] = 0
        state.held[rows] = np.minimum(state.held[rows], ahead + wait)
        end = (timestamp + length) & 0xFFFFFFFF
        newest = state.newest[rows]
        state.newest[rows] = np.where(signed(end - newest) > 0, end, newest)
        if self._codecs.used:
            plain = ~self._codecs.keep(rows, packet, offset, octets, length, law, timestamp, data)
            if not plain.all():
                rows, timestamp, packet, offset = rows[plain], timestamp[plain], packet[plain], offset[plain]
                length, law, ahead = length[plain], law[plain], ahead[plain]
        skip = np.maximum(0, -ahead)
        if skip.any():
            timestamp, offset, length = (timestamp + skip) & 0xFFFFFFFF, offset + skip, length - skip
        self._helper.put(rows, packet, offset, length, law, timestamp, data, state.ring)

    def _begin(self, rows: Ints, timestamp: Ints, wait: Ints) -> None:
        """A talkspurt begins with this packet."""
        state = self._state
        depth = state.depth[rows] = np.clip(state.depth[rows], self.min_depth, self.max_depth)
        waited = (wait > WAIT) & (depth >= FRAME + LOW_WATER)
        state.position[rows] = (timestamp - depth + FRAME * waited) & 0xFFFFFFFF
        state.newest[rows] = timestamp
        state.started[rows] = 1
        state.gap[rows] = state.stretched[rows] = state.late_run[rows] = state.adjust[rows] = 0
        self._open_window(rows)

    def _resumed(self, rows: Ints) -> None:
        """Audio came although playing had to wait for it: that was jitter."""
        state = self._state
        waited = rows[state.stretched[rows] > 0]
        if len(waited):
            deeper = state.depth[waited] + FRAME * state.stretched[waited]
            state.depth[waited] = np.minimum(deeper, self.max_depth)
            state.stretched[waited] = 0

    def _open_window(self, rows: Ints | Rows) -> None:
        state = self._state
        state.least[rows] = state.held[rows] = _EMPTY
        state.window[rows] = 0

    # -- out

    def take(self, rows: Rows | Ints) -> None:
        """The next frame of each of `rows` (those that may be heard) into `heard`; silence for those that have none."""
        state = self._state
        if self.usual is not None:
            rows, due = self.usual.frames(rows)
            if len(due):
                self._decide(due)
            if not len(rows):
                return
        started = state.started[rows] != 0
        if not started.all():
            idle = rows[~started]
            self.heard[idle] = 0
            self.energy[idle] = 0
            rows = rows[started]
        if not len(rows):
            return
        level = signed(state.newest[rows] - state.position[rows])
        waits = self._waits(rows, level)
        if waits.any():
            self._missing[rows[waits]] = FRAME
            self.heard[rows[waits]] = 0
            self.energy[rows[waits]] = 0
            self._move(rows[~waits])
        else:
            self._move(rows)
        gone = rows[self._missing[rows] > 0]
        if len(gone):
            self._conceal(gone)
        whole = rows[self._missing[rows] == 0]
        if self._codecs.used:
            # What a codec made up itself is heard as it is, and yet a gap.
            made_up = self._codecs.concealed(whole) > 0
            state.gap[whole[made_up]] += 1
            whole = whole[~made_up]
        state.gap[whole] = state.stretched[whole] = 0
        self._watch(rows, level)

    def _waits(self, rows: Rows | Ints, level: Ints) -> npt.NDArray[np.bool_]:
        """Who holds its position for this tick: the buffer ran empty, or a frame is to be repeated in silence."""
        state = self._state
        dry = (
            (level <= 0)
            & (state.gap[rows] == state.stretched[rows])  # the gap's beginning
            & (state.stretched[rows] < STRETCH)
            & (state.depth[rows] + FRAME <= self.max_depth)
            & (state.noise[rows] == 0)
        )
        repeat = (state.adjust[rows] < 0) & (self.energy[rows] < QUIET) & (level > 0)
        if dry.any():
            state.stretched[rows[dry]] += 1
        if repeat.any():
            at = rows[repeat]
            state.adjust[at] = 0
            state.depth[at] = np.minimum(state.depth[at] + FRAME, self.max_depth)
        waits: npt.NDArray[np.bool_] = dry | repeat
        return waits

    def _move(self, rows: Rows | Ints) -> None:
        """Take a frame from the rings, and another where one is to be dropped."""
        state = self._state
        self._frames(rows)
        drop = rows[(state.adjust[rows] > FORCED) | ((state.adjust[rows] > 0) & (self.energy[rows] < QUIET))]
        while len(drop):
            self._frames(drop)
            state.depth[drop] = np.maximum(state.depth[drop] - FRAME, self.min_depth)
            left = state.adjust[drop] - 1
            left[left == FORCED] = 0
            state.adjust[drop] = left
            drop = drop[(left > FORCED) | ((left > 0) & (self.energy[drop] < QUIET))]

    def _frames(self, rows: Rows | Ints) -> None:
        """The frames at the positions, which go on."""
        state = self._state
        position = state.position[rows]
        if self._codecs.used:
            self._codecs.decode(rows, position, state.ring)
        self._helper.take(rows, position, state.ring, self.heard, self._last, self._missing, self.energy)
        state.position[rows] = (position + FRAME) & 0xFFFFFFFF

    def _conceal(self, rows: Rows | Ints) -> None:
        state = self._state
        state.gap[rows] += 1
        gain = FADE[np.minimum(state.gap[rows], len(FADE) - 1)] * (state.noise[rows] == 0)
        filled = (self._last[rows] * gain[:, None]).astype(np.int16)
        frames = self.heard[rows]
        np.copyto(frames, filled, where=frames == 0)
        self.heard[rows] = frames

    def _watch(self, rows: Rows | Ints, level: Ints) -> None:
        """Follow the level; decide once a window."""
        state = self._state
        flowing = level > 0
        if not flowing.all():
            rows, level = rows[flowing], level[flowing]
        state.least[rows] = np.minimum(state.least[rows], level - FRAME)
        state.window[rows] += 1
        due = rows[state.window[rows] >= WINDOW]
        if len(due):
            self._decide(due)

    def _decide(self, due: Rows | Ints) -> None:
        """Their windows are over: is too much or too little held?"""
        state = self._state
        least, held = state.least[due], state.held[due]
        held = np.where(held == _EMPTY, 0, held)  # nothing came: nothing is known
        frames = -((self.min_depth + WAIT - held) // FRAME)
        # In silence first; by force when a window brought none, or far too much is held.
        force = (state.adjust[due] > 0) | (least > self.max_depth)
        grow = (least < LOW_WATER) & (least + FRAME <= self.max_depth)
        shrink = np.minimum(frames, FORCED - 1) + FORCED * force
        state.adjust[due] = np.where(frames > 0, shrink, np.where(grow, -1, 0))
        self._open_window(due)
