"""The coders without a compiler: Python, with libopus by ctypes. Slower by far, the same in what they do."""

from array import array
from typing import Final

import numpy as np

from trunkline.media.native import libopus
from trunkline.media.native.coding import (
    CONCEAL_MOST,
    DTX_OCTETS,
    FEC_MOST,
    G722,
    LONGEST,
    OPUS,
    PACKETS,
    PAUSE_MOST,
    UNIT,
    OpusSettings,
)
from trunkline.media.native.interface import FRAME, HEADER, MISSING, Bytes, Int32s, Ints, Samples
from trunkline.rtp import g722

_MASK: Final = 0xFFFFFFFF


def _later(a: int, b: int) -> int:
    """By how much one timestamp is later than another."""
    return ((a - b + 0x80000000) & _MASK) - 0x80000000


class _Packet:
    __slots__ = ("at", "data", "kind", "samples")

    def __init__(self, at: int, kind: int, samples: int, data: bytes) -> None:
        self.at, self.kind, self.samples, self.data = at, kind, samples, data


class _Channel:
    """As `struct channel` in codecs.c."""

    def __init__(self, settings: OpusSettings) -> None:
        self._settings = settings
        self._encoder: libopus.Encoder | None = None
        self._g722_out = g722.Encoder()
        self._loss = 0
        self.reset()

    def reset(self) -> None:
        self._decoder: libopus.Decoder | None = None
        self._g722_in = g722.Decoder()
        self._packets: list[_Packet] = []
        self._cursor, self._run = 0, 0
        self._started = self._fresh = self._pause = False

    def lose(self, percent: int) -> None:
        self._loss = percent
        if self._encoder is not None:
            self._encoder.loss(percent)

    def keep(self, packet: _Packet) -> None:
        if not packet.data or packet.samples <= 0:
            return
        if len(self._packets) >= PACKETS:
            oldest = self._packets[0]
            for other in self._packets:
                oldest = other if _later(oldest.at, other.at) > 0 else oldest
            self._packets.remove(oldest)
        self._packets.append(packet)
        if not self._started or (self._fresh and _later(self._cursor, packet.at) > 0):
            self._cursor = packet.at
        if not self._started:
            self._started = self._fresh = True

    def play(self, position: int, ring: Samples) -> int:
        """Decode what is due of the frame at `position`; the samples made up."""
        end, concealed = (position + FRAME) & _MASK, 0
        if not self._started:
            return 0
        if _later(position, self._cursor) > 0:
            self._cursor = position
        for _ in range(PACKETS + LONGEST // UNIT):
            if _later(end, self._cursor) <= 0:
                break
            packet = self._next()
            if packet is not None and _later(packet.at, self._cursor) <= 0:
                self._packets.remove(packet)
                pcm = self._decode(packet)
                _into_ring(pcm, packet.at, position, ring, fill=False)
                after = (packet.at + len(pcm)) & _MASK
                self._cursor = after if len(pcm) and _later(after, self._cursor) > 0 else self._cursor
                continue
            pcm, recovered = self._conceal(packet)
            if len(pcm):
                filled = _into_ring(pcm, self._cursor, position, ring, fill=True)
                concealed += 0 if recovered else filled
                self._cursor = (self._cursor + len(pcm)) & _MASK
            else:
                self._cursor = packet.at if packet is not None and _later(end, packet.at) > 0 else end
        return concealed

    def _next(self) -> _Packet | None:
        self._packets = [p for p in self._packets if _later(self._cursor, p.at + p.samples) < 0]
        found: _Packet | None = None
        for packet in self._packets:
            if found is None or _later(found.at, packet.at) > 0:
                found = packet
        return found

    def _decode(self, packet: _Packet) -> Samples:
        self._run, self._fresh = 0, False
        if packet.kind == G722:
            self._pause = False
            return np.frombuffer(self._g722_in.decode(packet.data[:LONGEST]), np.int16)
        self._pause = len(packet.data) <= DTX_OCTETS
        if self._decoder is None:
            self._decoder = libopus.Decoder()
        return np.frombuffer(self._decoder.decode(packet.data), np.int16)

    def _conceal(self, packet: _Packet | None) -> tuple[Samples, bool]:
        gap = _later(packet.at, self._cursor) if packet is not None else FRAME
        nothing: Samples = np.zeros(0, np.int16)
        if self._decoder is None or (packet is not None and packet.kind != OPUS):
            return nothing, False
        gap -= gap % UNIT
        if packet is not None and 0 < gap <= FEC_MOST:
            return np.frombuffer(self._decoder.repair(packet.data, gap), np.int16), True
        if gap <= 0 or self._run >= (PAUSE_MOST if self._pause else CONCEAL_MOST):
            return nothing, False
        pcm = np.frombuffer(self._decoder.conceal(min(gap, FRAME)), np.int16)
        self._run += len(pcm)
        return pcm, False

    def encode(self, kind: int, pcm: bytes) -> bytes:
        if kind == G722:
            return self._g722_out.encode(array("h", pcm))
        if self._encoder is None:
            self._encoder = libopus.Encoder(self._settings, self._loss)
        return self._encoder.encode(pcm)


def _into_ring(pcm: Samples, at: int, position: int, ring: Samples, *, fill: bool) -> int:
    """Samples into a ring, those from `position` on; `fill`: only where there are none. How many."""
    skip = max(0, _later(position, at))
    pcm = np.maximum(pcm[skip:], MISSING + 1)
    places = (at + skip + np.arange(len(pcm))) & (len(ring) - 1)
    if fill:
        empty = ring[places] == MISSING
        pcm, places = pcm[empty], places[empty]
    ring[places] = pcm
    return len(pcm)


class PlainCoders:
    """See coding.Coders."""

    def __init__(self, settings: OpusSettings) -> None:
        self._settings = settings
        self._channels: dict[int, _Channel] = {}

    def require(self, kind: int) -> None:
        if kind == OPUS:
            libopus.library()

    def open(self, row: int) -> None:
        if row not in self._channels:
            self._channels[row] = _Channel(self._settings)

    def close(self, row: int) -> None:
        self._channels.pop(row, None)

    def reset(self, row: int) -> None:
        if row in self._channels:
            self._channels[row].reset()

    def loss(self, row: int, percent: int) -> None:
        if row in self._channels:
            self._channels[row].lose(percent)

    def keep(
        self,
        rows: Ints,
        packet: Ints,
        offset: Ints,
        length: Ints,
        samples: Ints,
        kind: Bytes,
        timestamp: Ints,
        data: Bytes,
    ) -> None:
        for i, row in enumerate(rows.tolist()):
            payload = data[packet[i], offset[i] : offset[i] + length[i]].tobytes()
            kept = _Packet(int(timestamp[i]) & _MASK, int(kind[i]), int(samples[i]), payload)
            self._channels[row].keep(kept)

    def play(self, rows: Ints, position: Ints, ring: Samples, concealed: Int32s) -> None:
        for row, at in zip(rows.tolist(), position.tolist(), strict=True):
            channel = self._channels.get(row)
            if channel is not None:
                concealed[row] = channel.play(at & _MASK, ring[row])

    def code(
        self,
        rows: Ints,
        pcm: Samples,
        kind: Bytes,
        payload_type: Bytes,
        marker: Bytes,
        sequence: Ints,
        timestamp: Ints,
        ssrc: Ints,
        data: Bytes,
        length: Int32s,
    ) -> None:
        for row in rows.tolist():
            payload = self._channels[row].encode(int(kind[row]), pcm[row].tobytes())
            second = int(payload_type[row]) | (0x80 if marker[row] else 0)
            header = bytes((0x80, second)) + (int(sequence[row]) & 0xFFFF).to_bytes(2, "big")
            header += (int(timestamp[row]) & _MASK).to_bytes(4, "big") + (int(ssrc[row]) & _MASK).to_bytes(4, "big")
            data[row, : HEADER + len(payload)] = np.frombuffer(header + payload, np.uint8)
            length[row] = HEADER + len(payload)
