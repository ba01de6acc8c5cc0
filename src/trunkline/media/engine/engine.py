"""The engine: all legs advance together, 20 ms a tick.

    receive -> jitter buffer -> keys, silence -> what is bridged or played -> record -> encode, pack, send

Every step is array operations over the legs in use. Nothing here reads a clock for audio: the caller says which tick
it is (`tick = monotonic ns // 20 ms`), and a tick that never was shows as a step of more than one. RTP timestamps
follow the ticks; what legs play goes on where it was; packets of missed ticks are never sent.

Commands (trunkline.media.engine.commands) run between ticks; what happened is left in `events`.
"""

import logging
import time
from collections.abc import Callable
from errno import ECANCELED
from typing import Final, Protocol

import msgspec
import numpy as np

from trunkline.media import protocol
from trunkline.media.engine import legs
from trunkline.media.engine.codecs import Codecs
from trunkline.media.engine.digits import KeyPacket
from trunkline.media.engine.guard import Guard
from trunkline.media.engine.jitter import JitterBuffer
from trunkline.media.engine.keys import Keys
from trunkline.media.engine.legs import TIMESTAMP_MASK, Leg
from trunkline.media.engine.player import Player
from trunkline.media.engine.receive import Receiver
from trunkline.media.engine.record_ring import RecordRing
from trunkline.media.engine.recordings import Recordings
from trunkline.media.engine.reports import Reports
from trunkline.media.engine.secure import Secure
from trunkline.media.engine.slots import Slots
from trunkline.media.engine.sounds import Sounds
from trunkline.media.engine.state import FRAME, TICKS_PER_S, Int32s, Ints, Rows, Samples, State
from trunkline.media.engine.usual import usual
from trunkline.media.engine.watch import Watch
from trunkline.media.fence import boottime_ns
from trunkline.media.native.addresses import unpack_sockaddr
from trunkline.media.native.coding import G722, NoCodec, OpusSettings
from trunkline.media.native.interface import BURST, HEADER, SEND_BYTES, Batch, Helper
from trunkline.media.native.srtp import TAG_ROOM

logger = logging.getLogger(__name__)

RTCP_EVERY: Final = 25
"""Ticks in which every RTCP socket is read once."""
QUALITY_EVERY: Final = 5 * TICKS_PER_S
CHECK_EVERY: Final = 10
"""Ticks between looks at time-outs, completed recordings and resting slots."""
PACKETS_PER_LEG: Final = 4
"""Packets a leg that one tick has room for, on average; the rest waits in its socket."""


class Sockets(Protocol):
    """The sockets of the slots (trunkline.media.ports)."""

    six: bool
    """Whether they are IPv6."""

    def rtp(self, slot: int) -> int:
        """The fd of a slot's RTP socket."""
        ...

    def rtcp(self, slot: int) -> int: ...

    @property
    def everywhere(self) -> bool:
        """Whether they are bound to no address of their own."""
        ...

    def drain(self, slot: int) -> None:
        """Throw away what waits on a slot's sockets."""
        ...

    def send_rtcp(self, slot: int, data: bytes, to: tuple[str, int]) -> None:
        """Send; failing is no error."""
        ...


class Settings(msgspec.Struct, frozen=True):
    """What the engine needs of settings.MediaEngine."""

    legs: int = 1000
    jitter_min_ms: int = 40
    jitter_max_ms: int = 200
    dtmf_in_band: bool = True
    quarantine_s: float = 5.0
    opus: OpusSettings = OpusSettings()


class Engine:
    """Works on a State, new or taken over from a process that died."""

    def __init__(
        self, settings: Settings, state: State, ring: RecordRing, helper: Helper, sockets: Sockets, sounds: Sounds
    ) -> None:
        self.settings = settings
        self.now_ns: Callable[[], int] = time.time_ns
        """The clock of the packets' arrival times."""
        self.state = state
        self.ring = ring
        self.helper = helper
        self.sockets = sockets
        self.events: list[protocol.Event] = []
        """What happened since the caller last emptied it."""
        self.legs: dict[str, Leg] = {}
        self.slots = Slots(state, int(settings.quarantine_s * TICKS_PER_S))
        self.codecs = Codecs(state, helper, settings.opus)
        self.buffer = JitterBuffer(
            state, helper, self.codecs, min_ms=settings.jitter_min_ms, max_ms=settings.jitter_max_ms
        )
        self.keys = Keys(state, helper, in_band=settings.dtmf_in_band, press=self._pressed)
        self.receiver = Receiver(
            state, self.buffer, self.codecs, latch=self._latch, event=self.keys.packet, flowing=self._tell_flowing
        )
        self.buffer.usual = self.receiver.usual = usual(state, helper, self.buffer, self.codecs)
        self.player = Player(state, helper, sounds, self._tell_played)
        self.watch = Watch(state, silent=self._tell_silent, timed_out=self._tell_timed_out)
        self.recordings = Recordings(state, ring)
        self.reports = Reports(state)
        self.packets_received = self.packets_sent = self.send_errors = self.packets_fenced = 0
        self.until: Ints | None = None
        """The deadline after which nothing is sent (trunkline.media.fence); None: there is none."""
        self.out: Samples = np.zeros((state.legs, FRAME), np.int16)
        """What each leg is sent in this tick."""
        self._by_row: list[Leg | None] = [None] * state.legs
        self._batch = Batch(state.legs * PACKETS_PER_LEG + 16 * BURST)
        self._rtcp_batch = Batch(1024)
        self._data = np.zeros((state.legs, SEND_BYTES + TAG_ROOM), np.uint8)
        self._length: Int32s = np.zeros(state.legs, np.int32)
        self._fds: Int32s = np.full(state.legs, -1, np.int32)
        self._rtcp_fds: Int32s = np.full(state.legs, -1, np.int32)
        self.guard = Guard(state, helper, self._fds)
        self.secure = Secure(state, helper)
        self._rows: Rows = np.zeros(0, np.intp)
        self._phase = 0
        self._first = 0
        if state.taken_over:
            self._restore()

    def _restore(self) -> None:
        state = self.state
        for leg in legs.restored(state, np.flatnonzero(state.active != 0).tolist()):
            self._by_row[leg.row] = leg
            self.legs[leg.description.leg] = leg
            self._expect_again(leg)
        self.secure.restore(self.legs.values())
        self.player.restore()

    def _expect_again(self, leg: Leg) -> None:
        """The codecs of a leg taken over begin anew, which its packets say."""
        try:
            self.codecs.expect(leg.codecs)
        except NoCodec as error:
            logger.error("a leg is silent: %s", error)
        if self.state.law[leg.row] >= G722:
            self.state.marker[leg.row] = 1

    def sockets_ready(self) -> None:
        """The sockets of every slot in use are there: find those of the legs. Call after taking over, and after
        offering slots."""
        for leg in self.legs.values():
            self._attach(leg)
        self._changed()

    def _attach(self, leg: Leg) -> None:
        slot = int(self.state.slot[leg.row])
        self._fds[leg.row] = self.sockets.rtp(slot)
        self._rtcp_fds[leg.row] = self.sockets.rtcp(slot)

    def _changed(self) -> None:
        """Legs came or went."""
        self._rows = np.flatnonzero(self.state.active)

    # -- legs (called by commands)

    def free_row(self) -> int:
        """A row for a new leg, -1 when all are in use."""
        row = int(self.state.active.argmin())
        return -1 if self.state.active[row] else row

    def add(self, leg: Leg) -> None:
        """A leg was opened."""
        self.legs[leg.description.leg] = leg
        self._by_row[leg.row] = leg
        self.buffer.reset(leg.row)
        self.out[leg.row] = 0
        self._attach(leg)
        self._changed()

    def replace(self, leg: Leg) -> None:
        """A leg was changed."""
        self.legs[leg.description.leg] = leg
        self._by_row[leg.row] = leg

    def remove(self, leg: Leg) -> None:
        """End a leg: what it plays and records, its bridge, its stream; its slot rests."""
        state, row = self.state, leg.row
        self.recordings.close(row)
        self.unbridge(row)
        self.player.forget(row)
        self._send_report(leg, bye=True)
        numbers = self.reports.quality(row)
        self.guard.release(row)
        state.active[row] = 0
        self.codecs.close(row)
        self.secure.forget(row)
        self.slots.rest(int(state.slot[row]), state.tick)
        del self.legs[leg.description.leg]
        self._by_row[row] = None
        self.buffer.reset(row)
        self._changed()
        self.tell(protocol.Closed(leg=leg.description.leg, numbers=numbers))

    def unbridge(self, row: int) -> None:
        """Part a leg from its bridge, if it is in one."""
        state = self.state
        peer = int(state.peer[row])
        if peer >= 0:
            state.peer[row] = state.peer[peer] = -1

    # -- the tick

    def tick(self, number: int) -> None:
        """Do tick `number`, later than the last one."""
        state = self.state
        skipped = max(0, number - state.tick - 1) if state.tick else 0
        self.keys.tick = number
        rows = self._rows
        if len(rows):
            self._receive(rows, number)
            self._process(rows, skipped)
            self._send(rows)
        state.tick = number
        self._now_and_then(number)

    def _receive(self, rows: Rows, number: int) -> None:
        turned = np.roll(rows, -self._first) if self._first else rows
        count = self.helper.receive(self._fds[turned], turned.astype(np.int32), self._batch)
        self.packets_received += count
        if count + BURST > self._batch.most:  # a flood: those that were not read come first in the next tick
            last = int(np.flatnonzero(turned == self._batch.row[count - 1])[0])
            self._first = (self._first + last + 1) % len(rows)
        else:
            self._first = 0
        if self.secure.used:
            self.secure.receive(self._batch, count)
        self.receiver.process(self._batch, count, number, self.now_ns())
        # Every leg's RTCP socket once in RTCP_EVERY ticks: the kernel's time stamps make that good enough.
        turn = rows[self._phase :: RTCP_EVERY]
        self._phase = (self._phase + 1) % RTCP_EVERY
        if len(turn):
            self._receive_rtcp(turn, number)

    def _receive_rtcp(self, rows: Rows, number: int) -> None:
        batch = self._rtcp_batch
        count = self.helper.receive(self._rtcp_fds[rows], rows.astype(np.int32), batch)
        if self.secure.used:
            self.secure.receive(batch, count, rtcp=True)
        for i in range(count):
            row, length = int(batch.row[i]), int(batch.length[i])
            data, address = batch.data[i, :length].tobytes(), batch.address[i].tobytes()
            at = int(batch.at[i]) or time.time_ns()
            if self.reports.take(row, data, address, int(batch.port[i]), at, six=self.sockets.six):
                self.state.last_heard[row] = number
                if self.codecs.used:
                    self.codecs.heard_of_loss(row)

    def _process(self, rows: Rows, skipped: int) -> None:
        """From the jitter buffers to `out`."""
        state, heard, energy, out = self.state, self.buffer.heard, self.buffer.energy, self.out
        step = state.step[rows] if self.codecs.used else FRAME
        state.timestamp[rows] = (state.timestamp[rows] + step * (1 + skipped)) & TIMESTAMP_MASK
        if skipped:
            state.marker[rows] = 1
        listening = rows[state.receive[rows] != 0]
        self.buffer.take(listening)
        muted = rows[state.muted[rows] != 0]
        if len(muted):
            heard[muted] = 0
            energy[muted] = 0
        self.keys.listen(listening, heard)
        self.watch.listen(rows, energy)
        peers = state.peer[rows]
        bridged = peers >= 0
        if bridged.any():
            out[rows[bridged]] = heard[peers[bridged]]
            out[rows[~bridged]] = 0
        else:
            out[rows] = 0
        self.player.step(rows, out)
        self.recordings.beep(out, self.player.active)
        self.recordings.step(heard, out, energy, skipped)

    def _send(self, rows: Rows) -> None:
        state = self.state
        rows = rows[(state.transmit[rows] != 0) & (state.to_length[rows] > 0)]
        if not len(rows):
            return
        keys = [key for key in self.player.keys if state.transmit[key.row] and state.to_length[key.row]]
        audio = rows
        if keys:
            for key in keys:
                self._pack_key(key)
            audio = np.setdiff1d(rows, [key.row for key in keys], assume_unique=True)
        plain = audio
        if self.codecs.used:
            plain = self.codecs.code(audio, self.out, self._data, self._length)
        self.helper.pack(
            plain,
            self.out,
            state.law,
            state.payload_type,
            state.marker,
            state.sequence,
            state.timestamp,
            state.own_ssrc,
            self._data,
            self._length,
        )
        state.marker[audio] = 0
        # Before anything leaves: whatever happens to this process, no sequence number is used for two packets.
        state.sequence[rows] = (state.sequence[rows] + 1) & 0xFFFF
        state.sent[rows] += 1
        state.octets[rows] += self._length[rows] - HEADER
        if self.secure.used:
            self.secure.send(rows, self._data, self._length)
        to, to_length = state.to, state.to_length
        failed = self.helper.send(self._fds[rows], rows, self._data, self._length, to, to_length, self.until)
        errors = int(np.count_nonzero(failed))
        self.packets_sent += len(rows) - errors
        if errors:
            fenced = int(np.count_nonzero(failed == ECANCELED))
            self.packets_fenced += fenced
            self.send_errors += errors - fenced

    def _pack_key(self, key: KeyPacket) -> None:
        """A telephone-event packet instead of audio."""
        state, row, data = self.state, key.row, self._data[key.row]
        kind = int(state.event_type[row]) | (0x80 if key.marker else 0)
        header = bytes((0x80, kind)) + int(state.sequence[row]).to_bytes(2, "big")
        header += key.timestamp.to_bytes(4, "big") + int(state.own_ssrc[row]).to_bytes(4, "big")
        packet = header + key.payload
        data[: len(packet)] = np.frombuffer(packet, np.uint8)
        self._length[row] = len(packet)

    def _now_and_then(self, number: int) -> None:
        for row in self.reports.due(number):
            leg = self._by_row[row]
            if leg is not None:
                self._send_report(leg)
        for row in self._rows[(self._rows + number) % QUALITY_EVERY == 0].tolist():
            leg = self._by_row[row]
            if leg is not None:
                numbers = self.reports.quality(row)
                self.events.append(protocol.Quality(leg=leg.description.leg, numbers=numbers, at_ms=_now_ms()))
        if number % CHECK_EVERY == 0:
            self.watch.check(number)
            if not self.sockets.everywhere:
                self.guard.check(self._rows, number, six=self.sockets.six)
            self.slots.wake(number)
            self.ring.flush()
            for recorded in self.recordings.collect():
                self.tell(recorded)

    def _send_report(self, leg: Leg, *, bye: bool = False) -> None:
        state, row = self.state, leg.row
        length = int(state.rtcp_to_length[row])
        if length and (self.until is None or boottime_ns() < self.until[0]):
            data = self.secure.report(row, self.reports.make(row, leg.description.cname, bye=bye))
            to = unpack_sockaddr(state.rtcp_to[row, :length].tobytes())
            self.sockets.send_rtcp(int(state.slot[row]), data, to)

    # -- what happened

    def tell(self, event: protocol.Event) -> None:
        """Number an event and leave it for the node."""
        event.event = self.state.next_event()
        event.at_ms = _now_ms()
        self.events.append(event)

    def _name(self, row: int) -> str:
        leg = self._by_row[row]
        return leg.description.leg if leg is not None else ""

    def _latch(self, row: int, address: bytes, port: int) -> bool:
        leg = self._by_row[row]
        return leg is not None and legs.latch(self.state, leg, address, port, six=self.sockets.six)

    def _pressed(self, row: int, digit: str, how: str) -> None:
        self.tell(protocol.Digit(leg=self._name(row), digit=digit, how=how))
        self.player.barge(row, digit)
        self.recordings.press(row, digit)

    def _tell_flowing(self, row: int) -> None:
        self.tell(protocol.Flowing(leg=self._name(row)))

    def _tell_played(self, row: int, play: str, why: str, item: int, offset_ms: int) -> None:
        self.tell(protocol.Played(leg=self._name(row), play=play, why=why, item=item, offset_ms=offset_ms))

    def _tell_silent(self, row: int, silent: bool, ms: int) -> None:
        self.tell(protocol.Silent(leg=self._name(row), silent=silent, ms=ms))

    def _tell_timed_out(self, row: int) -> None:
        self.tell(protocol.TimedOut(leg=self._name(row)))

    def snapshot(self) -> list[protocol.LegState]:
        """Every leg as it is, for `Hello`."""
        state = self.state
        return [
            protocol.LegState(
                leg=name,
                slot=int(state.slot[leg.row]),
                play=self.player.name(leg.row),
                item=int(state.item[leg.row]),
                offset_ms=int(state.offset[leg.row]) // 8,
                loops_done=int(state.loops[leg.row]),
                peer=self._name(int(state.peer[leg.row])) if state.peer[leg.row] >= 0 else "",
                recordings=self.recordings.names(leg.row),
                remote=legs.destination(state, leg.row),
            )
            for name, leg in self.legs.items()
        ]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
