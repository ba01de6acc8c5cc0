"""The engine's state: arrays over all legs in shared memory, so that a new process maps it and goes on.

Everything that a leg needs to go on is here; what can be made anew (loaded prompts, sockets, the frame being worked on)
is not. Times are in ticks of 20 ms on the monotonic clock (`tick = ns // TICK_NS`), which goes on across processes of
one host. RTP timestamps and SSRCs are kept as 64-bit integers between 0 and 2**32 - 1, so that differences are plain
arithmetic; -1 means none.
"""

import mmap
import os
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from trunkline.media.native.interface import ADDRESS_BYTES, MISSING
from trunkline.media.native.srtp import KEY_BYTES, SALT_BYTES, STREAMS
from trunkline.rtp import dtmf

TICK_NS: Final = 20_000_000
TICKS_PER_S: Final = 50
FRAME: Final = 160
RATE: Final = 8000
RING: Final = 4096
"""Samples of a leg's jitter ring: 512 ms."""
LEG_BYTES: Final = 2048
"""Room for the JSON description of a leg."""
PLAY_BYTES: Final = 32_768
"""Room for the JSON description of what a leg plays; only what is used takes memory."""
MAX_LEG_NAME: Final = 64
SRTP_KEY_BYTES: Final = KEY_BYTES + SALT_BYTES
LAYOUT: Final = 4
"""Version of this layout; memory of another one is not taken over."""
_MAGIC: Final = 0x54524B4D45444941
_HEADER_WORDS: Final = 32
_ALIGN: Final = 64
_MAGIC_AT, _LAYOUT_AT, _LEGS_AT, _SLOTS_AT, _RECORDINGS_AT, _EPOCH_AT, _DONE_AT, _EVENT_AT, _TICK_AT = range(9)

Ints = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.uint8]
Samples = npt.NDArray[np.int16]
Rows = npt.NDArray[np.intp]

PLAY_NONE, PLAY_AUDIO, PLAY_SILENCE, PLAY_WAITING, PLAY_EVENTS = range(5)
"""What a leg's current item is: WAITING for its file, EVENTS: digits as telephone-events."""
KIND_NONE, KIND_PCMU, KIND_PCMA, KIND_G722, KIND_OPUS, KIND_NOISE, KIND_EVENT, KIND_EVENT_48000 = range(8)
"""What a payload type number stands for: audio in the order of laws and coders, events last, by their clock."""
SLOT_FREE, SLOT_LEASED, SLOT_USED, SLOT_RESTING = range(4)
REC_NONE, REC_BEEP, REC_RUNNING, REC_SKIPPING, REC_SILENT = range(5)
"""A recording: beeping first, running, paused leaving out, paused writing silence."""

_PER_LEG: Final[dict[str, tuple[Any, int, int]]] = {
    # name: type, width (0: one value), initial value
    "active": (np.uint8, 0, 0),
    "slot": (np.int64, 0, -1),
    # receiving
    "receive": (np.uint8, 0, 0),  # whether the direction lets us hear
    "muted": (np.uint8, 0, 0),
    "latch": (np.uint8, 0, 0),  # whether latching is allowed
    "latched": (np.uint8, 0, 0),
    "source": (np.uint8, 16, 0),  # once latched
    "source_port": (np.int64, 0, 0),
    "settled": (np.int64, 0, 0),  # tick since which the source is the same
    "connected": (np.uint8, 0, 0),  # whether the socket is, to the source
    "ssrc": (np.int64, 0, -1),
    "candidate": (np.int64, 0, -1),  # a new SSRC that came once
    "kinds": (np.uint8, 128, 0),
    "flowing": (np.uint8, 0, 0),
    "last_rtp": (np.int64, 0, 0),  # tick
    "last_heard": (np.int64, 0, 0),  # tick of RTP or RTCP
    "timeout": (np.int64, 0, 0),  # ticks; 0: none
    "timed_out": (np.uint8, 0, 0),
    # statistics (RFC 3550 A.1, A.3, A.8)
    "base_sequence": (np.int64, 0, 0),
    "top_sequence": (np.int64, 0, 0),  # extended
    "seen": (np.uint64, 0, 0),  # bit b: top_sequence - b came
    "received": (np.int64, 0, 0),
    "lost_before": (np.int64, 0, 0),  # of earlier SSRCs
    "received_before": (np.int64, 0, 0),
    "expected_told": (np.int64, 0, 0),  # at the last report
    "received_told": (np.int64, 0, 0),
    "late": (np.int64, 0, 0),
    "transit": (np.int64, 0, 0),
    "jitter": (np.float64, 0, 0),
    "max_jitter": (np.float64, 0, 0),
    # clock of what comes in, where it may be another than 8 kHz (engine.codecs)
    "clock_scale": (np.int64, 0, 0),  # units of a sample; 0: not known
    "clock_raw": (np.int64, 0, 0),  # a timestamp as it came,
    "clock_base": (np.int64, 0, 0),  # and in samples
    # jitter buffer
    "started": (np.uint8, 0, 0),
    "position": (np.int64, 0, 0),  # timestamp of the next frame
    "newest": (np.int64, 0, 0),  # timestamp after the newest sample
    "depth": (np.int64, 0, 0),  # samples to hold back when a talkspurt begins
    "gap": (np.int64, 0, 0),  # frames in a row that were not whole
    "stretched": (np.int64, 0, 0),  # frames that the playing waited in this gap
    "late_run": (np.int64, 0, 0),
    "noise": (np.uint8, 0, 0),  # comfort noise was announced
    "least": (np.int64, 0, 0),  # least level of the window
    "held": (np.int64, 0, 0),  # least samples of the window from a packet's arrival to its playing
    "window": (np.int64, 0, 0),  # ticks of the window
    "adjust": (np.int64, 0, 0),  # n: drop n frames, -1: repeat one, in silence; jitter.FORCED + n: at once
    # keys in
    "press_timestamp": (np.int64, 0, -1),
    "press_code": (np.int64, 0, -1),
    "press_told": (np.uint8, 0, 0),
    "press_ended": (np.uint8, 0, 0),
    "last_event": (np.int64, 0, -(1 << 40)),  # tick of the last telephone-event
    "last_in_band": (np.int64, 0, -(1 << 40)),
    "last_in_band_key": (np.int64, 0, -1),
    # SRTP (trunkline.media.engine.secure)
    "srtp": (np.uint8, 0, 0),  # 0: none, else 1 + number of the suite
    "srtp_ours": (np.uint8, 2 * SRTP_KEY_BYTES, 0),  # the key of each suite
    "srtp_theirs": (np.uint8, 1 + SRTP_KEY_BYTES, 0),  # number of the suite, key
    "srtp_last": (np.int64, 0, -1),  # index of the last packet sent
    "srtcp_last": (np.int64, 0, -1),
    "srtp_kept": (np.int64, 4, -1),  # those two of each suite while another is in use
    "srtp_ssrc": (np.int64, STREAMS, -1),  # see trunkline.media.native.srtp.Streams
    "srtp_index": (np.int64, STREAMS, 0),
    "srtp_window": (np.uint64, STREAMS, 0),
    "srtcp_ssrc": (np.int64, STREAMS, -1),
    "srtcp_index": (np.int64, STREAMS, 0),
    "srtcp_window": (np.uint64, STREAMS, 0),
    # sending
    "transmit": (np.uint8, 0, 0),
    "to": (np.uint8, ADDRESS_BYTES, 0),
    "to_length": (np.int32, 0, 0),
    "rtcp_to": (np.uint8, ADDRESS_BYTES, 0),
    "rtcp_to_length": (np.int32, 0, 0),
    "law": (np.uint8, 0, 0),
    "payload_type": (np.uint8, 0, 0),
    "event_type": (np.int64, 0, -1),
    "event_scale": (np.int64, 0, 1),  # units of a sample in our telephone-events
    "step": (np.int64, 0, FRAME),  # timestamp units of a frame sent
    "marker": (np.uint8, 0, 0),
    "sequence": (np.int64, 0, 0),
    "timestamp": (np.int64, 0, 0),
    "own_ssrc": (np.int64, 0, 0),
    "sent": (np.int64, 0, 0),
    "octets": (np.int64, 0, 0),
    # playing
    "play": (np.uint8, 0, 0),
    "item": (np.int64, 0, 0),
    "offset": (np.int64, 0, 0),  # samples into the item
    "left": (np.int64, 0, 0),  # samples of the item from there
    "loops": (np.int64, 0, 0),  # done
    "event_at": (np.int64, 0, 0),  # RTP timestamp of the telephone-event being sent
    "peer": (np.int64, 0, -1),
    # silence detection
    "detect": (np.int64, 0, 0),  # samples; 0: off
    "quiet": (np.int64, 0, 0),  # samples without voice
    "voiced": (np.int64, 0, 0),  # samples with voice
    "quiet_told": (np.int64, 0, -1),  # 1: silence was told, 0: speech, -1: nothing
    # RTCP
    "next_report": (np.int64, 0, 0),  # tick
    "peer_report": (np.int64, 0, 0),  # middle of the NTP time of their last SR
    "peer_report_ns": (np.int64, 0, 0),  # when it came, Unix ns
    "round_trip": (np.float64, 0, 0),
    "remote_lost": (np.int64, 0, 0),
    "remote_fraction": (np.int64, 0, 0),  # of 256, at the last report
    "peer_events": (np.int64, 0, 0),  # telephone-events received
    # descriptions
    "leg_length": (np.int64, 0, 0),
    "play_length": (np.int64, 0, 0),
}
_PER_SLOT: Final = {"slot_state": (np.uint8, 0, 0), "slot_port": (np.int64, 0, 0), "slot_until": (np.int64, 0, 0)}
_PER_RECORDING: Final = {
    "rec_state": (np.uint8, 0, 0),
    "rec_row": (np.int64, 0, -1),
    "rec_sample": (np.int64, 0, 0),
    "rec_beep": (np.int64, 0, 0),  # samples of the beep still to play
    "rec_most": (np.int64, 0, 0),  # samples; 0: no limit
    "rec_silence": (np.int64, 0, 0),  # samples of silence that end it; 0: never
    "rec_quiet": (np.int64, 0, 0),
}
_NO_KEY: Final = dtmf.blank(1)[0]
_BIG: Final = {"ring": (np.int16, RING), "leg_blob": (np.uint8, LEG_BYTES), "play_blob": (np.uint8, PLAY_BYTES)}


class StateMismatch(Exception):
    """The memory is of another layout or size: its legs are lost."""


class State:
    """One array per field, as attributes. Rows are legs, except for `slot_*` and `rec_*`."""

    active: Flags
    slot: Ints
    receive: Flags
    muted: Flags
    latch: Flags
    latched: Flags
    source: Flags
    source_port: Ints
    settled: Ints
    connected: Flags
    ssrc: Ints
    candidate: Ints
    kinds: Flags
    flowing: Flags
    last_rtp: Ints
    last_heard: Ints
    timeout: Ints
    timed_out: Flags
    base_sequence: Ints
    top_sequence: Ints
    seen: npt.NDArray[np.uint64]
    received: Ints
    lost_before: Ints
    received_before: Ints
    expected_told: Ints
    received_told: Ints
    late: Ints
    transit: Ints
    jitter: Floats
    max_jitter: Floats
    clock_scale: Ints
    clock_raw: Ints
    clock_base: Ints
    started: Flags
    position: Ints
    newest: Ints
    depth: Ints
    gap: Ints
    stretched: Ints
    late_run: Ints
    noise: Flags
    least: Ints
    held: Ints
    window: Ints
    adjust: Ints
    press_timestamp: Ints
    press_code: Ints
    press_told: Flags
    press_ended: Flags
    last_event: Ints
    last_in_band: Ints
    last_in_band_key: Ints
    srtp: Flags
    srtp_ours: Flags
    srtp_theirs: Flags
    srtp_last: Ints
    srtcp_last: Ints
    srtp_kept: Ints
    srtp_ssrc: Ints
    srtp_index: Ints
    srtp_window: npt.NDArray[np.uint64]
    srtcp_ssrc: Ints
    srtcp_index: Ints
    srtcp_window: npt.NDArray[np.uint64]
    transmit: Flags
    to: Flags
    to_length: Int32s
    rtcp_to: Flags
    rtcp_to_length: Int32s
    law: Flags
    payload_type: Flags
    event_type: Ints
    event_scale: Ints
    step: Ints
    marker: Flags
    sequence: Ints
    timestamp: Ints
    own_ssrc: Ints
    sent: Ints
    octets: Ints
    play: Flags
    item: Ints
    offset: Ints
    left: Ints
    loops: Ints
    event_at: Ints
    peer: Ints
    detect: Ints
    quiet: Ints
    voiced: Ints
    quiet_told: Ints
    next_report: Ints
    peer_report: Ints
    peer_report_ns: Ints
    round_trip: Floats
    remote_lost: Ints
    remote_fraction: Ints
    peer_events: Ints
    leg_length: Ints
    play_length: Ints
    slot_state: Flags
    slot_port: Ints
    slot_until: Ints
    rec_state: Flags
    rec_row: Ints
    rec_sample: Ints
    rec_beep: Ints
    rec_most: Ints
    rec_silence: Ints
    rec_quiet: Ints
    ring: Samples
    leg_blob: Flags
    play_blob: Flags
    detector: npt.NDArray[np.void]

    def __init__(self, fd: int, *, legs: int, slots: int, recordings: int, epoch: int = 0) -> None:
        """Map the memory behind `fd`. An empty one is laid out, and starts `epoch`; one in use is taken over as it is.
        Raises StateMismatch when it is of another layout or for other numbers of things."""
        self.legs, self.slots, self.recordings = legs, slots, recordings
        size = self._size()
        existing = os.fstat(fd).st_size
        if existing == 0:
            os.ftruncate(fd, size)
        elif existing != size:
            raise StateMismatch(f"{existing} bytes where {size} belong")
        self._map = mmap.mmap(fd, size)
        self.header: npt.NDArray[np.int64] = np.frombuffer(self._map, np.int64, _HEADER_WORDS)
        self.taken_over = bool(self.header[_MAGIC_AT])
        expected = (_MAGIC, LAYOUT, legs, slots, recordings)
        if self.taken_over and tuple(self.header[:5].tolist()) != expected:
            raise StateMismatch("another layout")
        self._attach()
        if not self.taken_over:
            for values, initial in self._initial:
                if initial:  # fresh memory is zero, and takes no room before it is written to
                    values[:] = initial
            self.detector[:] = _NO_KEY
            self.rec_row[:] = -1
            self.header[_EPOCH_AT] = epoch
            # Above those of any memory before it, so that a number is never told twice.
            self.header[_EVENT_AT] = epoch
            self.header[_LAYOUT_AT : _RECORDINGS_AT + 1] = expected[1:]
            self.header[_MAGIC_AT] = _MAGIC

    def _fields(self) -> list[tuple[str, Any, tuple[int, ...]]]:
        fields: list[tuple[str, Any, tuple[int, ...]]] = []
        for count, table in ((self.legs, _PER_LEG), (self.slots, _PER_SLOT), (self.recordings, _PER_RECORDING)):
            fields += [(name, kind, (count, width) if width else (count,)) for name, (kind, width, _) in table.items()]
        fields.append(("detector", dtmf.STATE, (self.legs,)))
        fields += [(name, kind, (self.legs, width)) for name, (kind, width) in _BIG.items()]
        return fields

    def _size(self) -> int:
        size = _HEADER_WORDS * 8
        for _, kind, shape in self._fields():
            size += -size % _ALIGN + int(np.prod(shape)) * np.dtype(kind).itemsize
        return size

    def _attach(self) -> None:
        at = _HEADER_WORDS * 8
        for name, kind, shape in self._fields():
            at += -at % _ALIGN
            count = int(np.prod(shape))
            setattr(self, name, np.frombuffer(self._map, kind, count, at).reshape(shape))
            at += count * np.dtype(kind).itemsize
        self._initial = [(getattr(self, name), initial) for name, (_, _, initial) in _PER_LEG.items()]

    def clear(self, row: int) -> None:
        """A row as before any leg."""
        for values, initial in self._initial:
            values[row] = initial
        self.detector[row] = _NO_KEY
        self.ring[row] = MISSING

    @classmethod
    def create(cls, *, legs: int, slots: int, recordings: int, epoch: int = 0) -> tuple["State", int]:
        """State in new anonymous shared memory, and the fd to hand to a successor."""
        fd = os.memfd_create("trunkline-media-state", os.MFD_CLOEXEC)
        return cls(fd, legs=legs, slots=slots, recordings=recordings, epoch=epoch), fd

    # -- single values

    @property
    def epoch(self) -> int:
        return int(self.header[_EPOCH_AT])

    @property
    def done(self) -> int:
        """Number of the last command carried out."""
        return int(self.header[_DONE_AT])

    @done.setter
    def done(self, number: int) -> None:
        self.header[_DONE_AT] = number

    @property
    def tick(self) -> int:
        """The last tick that was done; 0: none yet."""
        return int(self.header[_TICK_AT])

    @tick.setter
    def tick(self, number: int) -> None:
        self.header[_TICK_AT] = number

    def next_event(self) -> int:
        """A number for an event."""
        self.header[_EVENT_AT] += 1
        return int(self.header[_EVENT_AT])

    # -- descriptions

    def describe_leg(self, row: int, description: msgspec.Struct) -> bool:
        """Keep a leg's description; False when it is too long."""
        return _keep(self.leg_blob[row], self.leg_length, row, msgspec.json.encode(description))

    def describe_play(self, row: int, description: msgspec.Struct | None) -> bool:
        """Keep what a leg plays; False when it is too long."""
        data = msgspec.json.encode(description) if description is not None else b""
        return _keep(self.play_blob[row], self.play_length, row, data)

    def leg_description(self, row: int) -> bytes:
        """JSON, empty when there is none."""
        return self.leg_blob[row, : self.leg_length[row]].tobytes()

    def play_description(self, row: int) -> bytes:
        """JSON, empty when the leg plays nothing."""
        return self.play_blob[row, : self.play_length[row]].tobytes()


def _keep(room: Flags, lengths: Ints, row: int, data: bytes) -> bool:
    if len(data) > len(room):
        return False
    lengths[row] = 0
    room[: len(data)] = np.frombuffer(data, np.uint8)
    lengths[row] = len(data)
    return True
