"""From datagrams to audio and keys: header, source, stream, statistics; one array operation for all packets.

Packets of one leg depend on each other, those of different legs do not: a batch is worked off in rounds, each with at
most one packet of a leg. There is one round when every peer sends every 20 ms.

Source (symmetric RTP): the first valid packet from an allowed address settles where the leg's audio comes from and goes
to; from then on other sources are not heard until a re-INVITE opens it again. The stream (SSRC) is locked as well: a
new SSRC from the same source takes over with its second packet in a row.

What happens to most packets is done before by the compiled helper (`engine.usual`), in the same way.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trunkline.media.engine.codecs import Codecs, law_of
from trunkline.media.engine.jitter import JitterBuffer
from trunkline.media.engine.state import (
    FRAME,
    KIND_EVENT,
    KIND_EVENT_48000,
    KIND_NOISE,
    KIND_NONE,
    RATE,
    Flags,
    Ints,
    State,
)
from trunkline.media.native.interface import HEADER, Batch, Tick
from trunkline.rtp import opus

MAX_DROPOUT: Final = 3000
"""Sequence numbers that may be missing before it is another sequence (RFC 3550 A.1)."""
SAMPLE_NS: Final = 1_000_000_000 // RATE
SEEN: Final = 64
"""Sequence numbers of which is known whether they came."""
NONE, ANY = -1, -2
"""In place of the SSRC that came once: none did; any may take over at once (after a re-INVITE)."""

Bools = npt.NDArray[np.bool_]


class _Packets:
    """The headers of a batch's datagrams `at` as columns."""

    def __init__(self, batch: Batch, at: Ints) -> None:
        self.batch = batch
        self.at = at
        count = len(at)
        head = np.ascontiguousarray(batch.data[at, :HEADER])
        self.row: Ints = batch.row[at].astype(np.int64)
        self.first = head[:, 0]
        self.type = head[:, 1] & 0x7F
        self.marker: Flags = (head[:, 1] >> 7).astype(np.uint8)
        self.sequence: Ints = head.view(">u2")[:, 1].astype(np.int64)
        words = head.view(">u4")
        self.timestamp: Ints = words[:, 1].astype(np.int64)
        self.ssrc: Ints = words[:, 2].astype(np.int64)
        length = batch.length[at].astype(np.int64)
        # RTCP on the RTP port (RFC 5761 section 4) was not negotiated.
        self.valid: Bools = (length >= HEADER) & (self.first >> 6 == 2) & ((head[:, 1] < 192) | (head[:, 1] > 223))
        self.offset: Ints = np.full(count, HEADER, np.int64)
        self.length: Ints = length - HEADER
        for i in np.flatnonzero(self.valid & (self.first != 0x80)):
            self._long_header(int(i))

    def _long_header(self, i: int) -> None:
        """Contributing sources, extension and padding."""
        data, end = self.batch.data[self.at[i]], int(self.length[i]) + HEADER
        first = int(self.first[i])
        start = HEADER + 4 * (first & 15)
        if first & 0x10 and start + 4 <= end:
            start += 4 + 4 * (int(data[start + 2]) << 8 | int(data[start + 3]))
        if first & 0x20 and end > start:
            end -= int(data[end - 1])
        self.offset[i], self.length[i] = start, end - start
        if end < start:
            self.valid[i] = False

    def rounds(self) -> list[Ints]:
        """Indices, each list with at most one packet of a leg, in order of arrival."""
        count = len(self.row)
        if count < 2:
            return [np.arange(count)]
        changes = np.empty(count, np.bool_)
        changes[0] = True
        np.not_equal(self.row[1:], self.row[:-1], out=changes[1:])
        if changes.all():
            return [np.arange(count)]
        starts = np.maximum.accumulate(np.where(changes, np.arange(count), 0))
        ordinal = np.arange(count) - starts
        return [np.flatnonzero(ordinal == k) for k in range(int(ordinal.max()) + 1)]


class Receiver:
    """Takes batches in. `latch(row, address, port)` decides on the source of an open leg and settles it;
    `event(row, timestamp, payload, scale)` gets telephone-events, with the units of a sample; `flowing(row)` tells
    a leg's first audio packet."""

    def __init__(
        self,
        state: State,
        buffer: JitterBuffer,
        codecs: Codecs,
        *,
        latch: Callable[[int, bytes, int], bool],
        event: Callable[[int, int, bytes, int], None],
        flowing: Callable[[int], None],
    ) -> None:
        self._state = state
        self._buffer = buffer
        self._codecs = codecs
        self._latch = latch
        self._event = event
        self._flowing = flowing
        self._waited: Ints = np.zeros(0, np.int64)
        self.usual: Tick | None = None
        """Set by the engine."""
        self.foreign = 0
        """Packets dropped because of their source, stream or form."""

    def process(self, batch: Batch, count: int, tick: int, now_ns: int) -> None:
        """Work off `count` datagrams of legs in use; it is `now_ns` (Unix)."""
        if not count:
            return
        at: Ints = np.arange(count) if self.usual is None else self.usual.hear(batch, count, tick, now_ns)
        if not len(at):
            return
        packets = _Packets(batch, at)
        # Samples since they came, one tick's at most: what waited longer did so while this process did not run.
        arrived = np.where(batch.at[at] > 0, batch.at[at], now_ns)
        self._waited = np.clip((now_ns - arrived) // SAMPLE_NS, 0, FRAME)
        for index in packets.rounds():
            self._round(packets, index, tick)

    def _round(self, packets: _Packets, index: Ints, tick: int) -> None:
        state = self._state
        rows = packets.row[index]
        kind = state.kinds[rows, packets.type[index]]
        good = packets.valid[index] & (kind != KIND_NONE) & self._from_source(packets, index, rows, kind)
        good = self._same_stream(packets, index, rows, good)
        if not good.all():
            self.foreign += int(len(good) - good.sum())
            index, rows, kind = index[good], rows[good], kind[good]
            if not len(rows):
                return
        state.last_rtp[rows] = state.last_heard[rows] = tick
        new = self._count(rows, packets.sequence[index])
        events = kind >= KIND_EVENT
        if events.any():
            for i in index[events & new]:
                row, at, offset = int(packets.row[i]), int(packets.timestamp[i]), int(packets.offset[i])
                scale = opus.PER_SAMPLE if state.kinds[row, packets.type[i]] == KIND_EVENT_48000 else 1
                payload = packets.batch.data[packets.at[i], offset : offset + int(packets.length[i])].tobytes()
                self._event(row, at, payload, scale)
        audio = new & ~events & (packets.length[index] > 0)
        if not audio.all():
            index, rows, kind = index[audio], rows[audio], kind[audio]
        timestamp = packets.timestamp[index]
        if self._codecs.used:
            timestamp = self._codecs.clocked(rows, kind, timestamp)
        self._measure(packets, index, rows, timestamp)
        self._hear(packets, index, rows, kind, timestamp)

    def _from_source(self, packets: _Packets, index: Ints, rows: Ints, kind: npt.NDArray[np.uint8]) -> Bools:
        state, batch = self._state, packets.batch
        at = packets.at[index]
        addresses = batch.address[at].view(np.uint64)
        settled = state.source[rows].view(np.uint64)
        same: Bools = (
            (addresses[:, 0] == settled[:, 0])
            & (addresses[:, 1] == settled[:, 1])
            & (batch.port[at] == state.source_port[rows])
            & (state.latched[rows] != 0)
        )
        for i in np.flatnonzero((state.latched[rows] == 0) & packets.valid[index] & (kind != KIND_NONE)):
            same[i] = self._latch(int(rows[i]), batch.address[at[i]].tobytes(), int(batch.port[at[i]]))
        return same

    def _same_stream(self, packets: _Packets, index: Ints, rows: Ints, good: Bools) -> Bools:
        """Lock on to a stream; let another one take over with its second packet."""
        state = self._state
        ssrc, locked = packets.ssrc[index], state.ssrc[rows]
        other = good & (ssrc != locked)
        if not other.any():
            if (state.candidate[rows] != NONE).any():
                state.candidate[rows[good]] = NONE
            return good
        state.candidate[rows[good & ~other]] = NONE
        candidate = state.candidate[rows]
        takes = other & ((locked < 0) | (candidate == ssrc) | (candidate == ANY))
        waits = rows[other & ~takes]
        state.candidate[waits] = ssrc[other & ~takes]
        for i in np.flatnonzero(takes):
            self._new_stream(int(rows[i]), int(ssrc[i]), int(packets.sequence[index[i]]), first=bool(locked[i] < 0))
        streams: Bools = good & (~other | takes)
        return streams

    def _new_stream(self, row: int, ssrc: int, sequence: int, *, first: bool) -> None:
        state = self._state
        self._new_sequence(row, sequence)
        state.ssrc[row], state.candidate[row] = ssrc, NONE
        state.press_timestamp[row] = NONE
        if not first:
            depth = int(state.depth[row])
            self._buffer.reset(row)
            state.depth[row] = depth
        if not state.flowing[row]:
            state.flowing[row] = 1
            self._flowing(row)

    def _new_sequence(self, row: int, sequence: int) -> None:
        """Count from here (RFC 3550 A.1 init_seq); what was counted before is kept for the total."""
        state = self._state
        if state.received[row]:
            expected = int(state.top_sequence[row] - state.base_sequence[row] + 1)
            state.lost_before[row] += max(0, expected - int(state.received[row]))
            state.received_before[row] += state.received[row]
        state.base_sequence[row] = sequence
        state.top_sequence[row] = sequence - 1
        state.seen[row] = 0
        state.received[row] = state.expected_told[row] = state.received_told[row] = 0
        state.transit[row] = 0

    def _count(self, rows: Ints, sequence: Ints) -> Bools:
        """Extended sequence numbers and losses (RFC 3550 A.1, A.3); which packets are new."""
        state = self._state
        step = ((sequence - state.top_sequence[rows] + 0x8000) & 0xFFFF) - 0x8000
        for i in np.flatnonzero(np.abs(step) > MAX_DROPOUT):
            self._new_sequence(int(rows[i]), int(sequence[i]))
            step[i] = 1
        forward = step > 0
        seen = state.seen[rows]
        shift = np.clip(step, 0, SEEN - 1).astype(np.uint64)
        back = np.clip(-step, 0, SEEN - 1).astype(np.uint64)
        bit = np.uint64(1) << back
        new: Bools = forward | ((step > -SEEN) & (seen & bit == 0))
        moved = np.where(step < SEEN, seen << shift, np.uint64(0)) | np.uint64(1)
        state.seen[rows] = np.where(forward, moved, seen | bit)
        state.top_sequence[rows] += np.maximum(step, 0)
        state.received[rows] += new
        return new

    def _measure(self, packets: _Packets, index: Ints, rows: Ints, timestamp: Ints) -> None:
        """Interarrival jitter in samples (RFC 3550 A.8), by the kernel's arrival times."""
        state = self._state
        arrival = packets.batch.at[packets.at[index]] // SAMPLE_NS
        transit = (arrival - timestamp) & 0xFFFFFFFF
        before = state.transit[rows]
        apart = np.abs(((transit - before + 0x80000000) & 0xFFFFFFFF) - 0x80000000)
        # The first packet of a stream and jumps of the timestamp (longer than a second) say nothing about jitter.
        measured = (before != 0) & (apart < RATE)
        jitter = state.jitter[rows]
        jitter += np.where(measured, (apart - jitter) / 16, 0.0)
        state.jitter[rows] = jitter
        state.max_jitter[rows] = np.maximum(state.max_jitter[rows], jitter)
        state.transit[rows] = transit

    def _hear(self, packets: _Packets, index: Ints, rows: Ints, kind: npt.NDArray[np.uint8], timestamp: Ints) -> None:
        """Audio into the jitter buffer; comfort noise (RFC 3389) announces a pause."""
        state = self._state
        audible = state.receive[rows] != 0
        noise = kind == KIND_NOISE
        if noise.any():
            state.noise[rows[noise]] = 1
            audible &= ~noise
        if not audible.all():
            index, rows, kind, timestamp = index[audible], rows[audible], kind[audible], timestamp[audible]
        if len(rows):
            offset, length = packets.offset[index], packets.length[index]
            samples = length
            if self._codecs.used:
                samples = self._codecs.samples(kind, packets.at[index], offset, length, packets.batch.data)
            self._buffer.insert(
                rows,
                timestamp,
                packets.at[index],
                offset,
                length,
                samples,
                law_of(kind),
                packets.marker[index],
                self._waited[index],
                packets.batch.data,
            )


def lost(state: State, row: int) -> int:
    """Packets of a leg that never came (RFC 3550 A.3), over all its streams."""
    expected = int(state.top_sequence[row] - state.base_sequence[row] + 1) if state.received[row] else 0
    return int(state.lost_before[row]) + max(0, expected - int(state.received[row]))


def received(state: State, row: int) -> int:
    """Packets of a leg that came, over all its streams."""
    total: Any = state.received_before[row] + state.received[row]
    return int(total)
