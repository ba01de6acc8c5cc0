"""Legs whose codec remembers (G.722, Opus): their packets wait here as they came and are decoded when they are due.

While no leg has had such a codec, `used` is false, and the tick passes all of this by. Everything outside counts in
samples of 8 kHz; Opus has a clock of 48 kHz (RFC 7587), so its timestamps are followed from packet to packet: a leg may
change between codecs of both clocks, and goes on where it was.

Channels (decoders, encoders, packets) are in this process's memory only. A successor begins with fresh ones, which
costs a leg what its jitter buffer held, and the packets that it sends then begin with a marker.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from trunkline.media.engine.state import KIND_OPUS, KIND_PCMU, Flags, Int32s, Ints, Rows, Samples, State
from trunkline.media.native.coding import DTX_OCTETS, G722, OPUS, Coders, OpusSettings
from trunkline.media.native.interface import Bytes, Helper
from trunkline.rtp import opus

FIRST_LOSS: Final = 5
"""Percent of loss that Opus reckons with before the first report of the peer."""
MOST_LOSS: Final = 25
LEAST_LOSS: Final = 1
"""So that FEC is never off: what repeats cost at this is little."""

_NAMES: Final = {"G722": G722, "OPUS": OPUS}
_FRAMES: Final = np.array(opus.FRAME_SAMPLES, np.int64)


class Codecs:
    """Between the engine's arrays and the Coders, which are made when the first leg needs them."""

    def __init__(self, state: State, helper: Helper, settings: OpusSettings) -> None:
        self._state = state
        self._helper = helper
        self._settings = settings
        self.used = False
        """Whether any leg has had such a codec."""
        self._coders: Coders | None = None
        self.has_channel: npt.NDArray[np.bool_] = np.zeros(state.legs, np.bool_)
        self._concealed: Int32s = np.zeros(state.legs, np.int32)
        self._loss: npt.NDArray[np.float64] = np.full(state.legs, FIRST_LOSS, np.float64)

    @property
    def coders(self) -> Coders:
        if self._coders is None:
            self._coders = self._helper.coders(self._state.legs, self._settings)
        return self._coders

    # -- legs

    def expect(self, names: Iterable[str]) -> None:
        """A leg may use these codecs. Raises NoCodec."""
        for name in names:
            kind = _NAMES.get(name.upper())
            if kind is not None:
                self.coders.require(kind)
                self.used = True

    def close(self, row: int) -> None:
        """The leg is gone."""
        if self.used:
            self.coders.close(row)
            self.has_channel[row] = False
            self._loss[row] = FIRST_LOSS
            self._concealed[row] = 0

    def reset(self, row: int) -> None:
        """Another stream follows."""
        if self.used:
            self.coders.reset(row)
            self._concealed[row] = 0

    def heard_of_loss(self, row: int) -> None:
        """The peer has reported: follow what it loses, up at once and down slowly."""
        state = self._state
        if state.law[row] != OPUS:
            return
        percent = float(state.remote_fraction[row]) * 100 / 256
        self._loss[row] = max(percent, self._loss[row] + (percent - self._loss[row]) / 4)
        self.coders.loss(row, int(min(MOST_LOSS, max(LEAST_LOSS, round(float(self._loss[row]))))))

    def _open(self, rows: Ints | Rows) -> None:
        for row in rows[~self.has_channel[rows]].tolist():
            self.coders.open(row)
            self.has_channel[row] = True

    # -- in

    def clocked(self, rows: Ints, kind: Flags, timestamp: Ints) -> Ints:
        """Timestamps in samples of 8 kHz."""
        state = self._state
        scale = np.where(kind == KIND_OPUS, opus.PER_SAMPLE, 1)
        before = state.clock_scale[rows]
        at = np.flatnonzero((scale > 1) | (before > 0))
        if not len(at):
            return timestamp
        mine, raw, scale, before = rows[at], timestamp[at], scale[at], before[at]
        # The first packet, and the first of another clock: from there on.
        fresh = before != scale
        begin = np.where(before == 0, raw // scale, state.newest[mine])
        base_raw = np.where(fresh, raw, state.clock_raw[mine])
        base = np.where(fresh, begin, state.clock_base[mine])
        step = ((raw - base_raw + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        whole = step // scale
        clocked = (base + whole) & 0xFFFFFFFF
        state.clock_raw[mine] = (base_raw + whole * scale) & 0xFFFFFFFF
        state.clock_base[mine] = clocked
        state.clock_scale[mine] = scale
        found = timestamp.copy()
        found[at] = clocked
        return found

    def samples(self, kind: Flags, packet: Ints, offset: Ints, length: Ints, data: Bytes) -> Ints:
        """How much audio each payload holds; an octet is a sample of G.711 and of G.722."""
        at = np.flatnonzero(kind == KIND_OPUS)
        if not len(at):
            return length
        found, mine, begin = length.copy(), packet[at], offset[at]
        first = data[mine, begin]
        # The second octet of a packet of one is not its own; it counts no frames then (RFC 6716 section 3.2.5).
        many = np.where(length[at] > 1, data[mine, np.minimum(begin + 1, data.shape[1] - 1)] & 63, 0)
        code = first & 3
        total = _FRAMES[first >> 3] * np.where(code == 3, many, np.where(code == 0, 1, 2))
        found[at] = np.where(total <= opus.MOST_SAMPLES, total, 0)
        return found

    def keep(
        self,
        rows: Ints,
        packet: Ints,
        offset: Ints,
        length: Ints,
        samples: Ints,
        law: Flags,
        timestamp: Ints,
        data: Bytes,
    ) -> npt.NDArray[np.bool_]:
        """Take the packets that are not G.711's; which those are."""
        mine: npt.NDArray[np.bool_] = law >= G722
        at = np.flatnonzero(mine)
        if len(at):
            self._open(rows[at])
            self.coders.keep(rows[at], packet[at], offset[at], length[at], samples[at], law[at], timestamp[at], data)
            silent = at[(law[at] == OPUS) & (length[at] <= DTX_OCTETS)]
            self._state.noise[rows[silent]] = 1
        return mine

    def decode(self, rows: Ints | Rows, position: Ints, ring: Samples) -> None:
        """Before the frames at `position` are taken."""
        self.coders.play(rows, position, ring, self._concealed)

    def concealed(self, rows: Ints | Rows) -> Int32s:
        """Samples of the frame last decoded that were made up."""
        return self._concealed[rows]

    # -- out

    def code(self, rows: Rows, out: Samples, data: Bytes, length: Int32s) -> Rows:
        """Write the packets of the legs that do not send G.711; the others are left."""
        state = self._state
        mine = state.law[rows] >= G722
        if not mine.any():
            return rows
        coded = rows[mine]
        self._open(coded)
        self.coders.code(
            coded, out, state.law, state.payload_type, state.marker, state.sequence, state.timestamp, state.own_ssrc,
            data, length,
        )  # fmt: skip
        return rows[~mine]


def law_of(kind: Flags) -> Flags:
    """Laws and coders' kinds of the kinds of payload types."""
    law: Flags = kind - np.uint8(KIND_PCMU)
    return law
