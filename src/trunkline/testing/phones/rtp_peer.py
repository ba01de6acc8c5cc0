"""The audio side of a simulated phone: a small RTP endpoint that plays, presses keys and keeps what it hears.

All endpoints of a process are paced by one clock, every 20 ms. They send without a break, silence where nothing is
played, as phones do. Their own reading and writing of packets (RFC 3550, RFC 4733) shares nothing with the media
engine, so that the one is a check of the other. Loss and jitter can be put in, by a seed, in both directions.
"""

import asyncio
import random
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from trunkline.media.native.coding import NoCodec
from trunkline.rtp import rtcp
from trunkline.testing.phones.codecs import Ear, Mouth, units
from trunkline.testing.phones.codecs import decoded as decoded
from trunkline.testing.phones.codecs import encoded as encoded
from trunkline.testing.phones.heard import FRAME, RATE, Heard, Samples
from trunkline.testing.phones.tones import keys as in_band_keys

TICK_S: Final = 0.02
LATEST_S: Final = 0.5
"""After a longer stall the clock goes on from now, without catching up."""
KEYS: Final = "0123456789*#ABCD"
"""Key of each telephone-event (RFC 4733 section 3.2)."""
KEY_MS: Final = 100
GAP_MS: Final = 100
END_PACKETS: Final = 3
VOLUME: Final = 10
"""-dBm0."""
REPORT_TICKS: Final = 250
"""Ticks between two RTCP reports: 5 s."""
MAX_QUEUED: Final = 1000
"""Things to play and keys to press that may wait."""
MAX_KEYS: Final = 1000
"""Keys heard that are kept."""
MAX_PORT_TRIES: Final = 200
HEADER: Final = struct.Struct("!BBHII")
EVENT: Final = struct.Struct("!BBH")
DTMF: Final = "telephone-event"
EVENTS: Final = {DTMF: 1, f"{DTMF}/48000": 6}
"""Units of a sample in each clock of telephone-events."""
MAX_DURATION: Final = 0xFFFF
"""Of one segment of an event."""
_MASK32: Final = 0xFFFFFFFF


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how to send, and what may come: the fields of an offer/answer's outcome that matter here."""

    codec: str
    send_payload_type: int
    payload_types: dict[int, str]
    dtmf_payload_type: int
    remote: tuple[str, int] | None
    remote_rtcp: tuple[str, int] | None
    sends: bool = True


class Impairment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the network does to packets of one direction."""

    loss: float = 0.0
    """Share that is dropped."""
    jitter_ms: float = 0.0
    """Each packet waits for a random time up to this."""
    seed: int = 1


class Key(NamedTuple):
    """A key that was pressed on the other side, by telephone-event."""

    key: str
    position: int
    """Sample of the heard audio at which it began."""


class _Pressed(NamedTuple):
    key: str
    on_ms: int
    off_ms: int


class _Network:
    """One direction with an impairment."""

    def __init__(self, given: Impairment, deliver: Callable[..., None]) -> None:
        self._given = given
        self._random = random.Random(given.seed)
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()

    def pass_on(self, *packet: Any) -> None:
        if self._given.loss and self._random.random() < self._given.loss:
            return
        if self._given.jitter_ms:
            wait_s = self._random.uniform(0, self._given.jitter_ms) / 1000
            self._loop.call_later(wait_s, self._deliver, *packet)
        else:
            self._deliver(*packet)


class _Socket(asyncio.DatagramProtocol):
    def __init__(self, received: Callable[[bytes], None]) -> None:
        self._received = received

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._received(data)

    def error_received(self, exc: Exception) -> None:
        """The other side's port is closed: it will be told by SIP."""


class RtpPeer:
    """See the module. Made by `open`; `route` is None until the media is negotiated."""

    def __init__(self, host: str, pacer: "Pacer") -> None:
        self.host = host
        self.port = 0
        self.route: Route | None = None
        self.heard = Heard()
        self.keys: deque[Key] = deque(maxlen=MAX_KEYS)
        self.sent = self.received = self.strange = 0
        """Packets: of RTP sent, of RTP received, and of those that were none or of an unknown payload type."""
        self.reports = self.remote_lost = 0
        """RTCP packets received, and packets that their last report calls lost."""
        self.changed: Callable[[], None] = lambda: None
        """Called when audio or a key came."""
        self._pacer = pacer
        self._rtp: asyncio.DatagramTransport | None = None
        self._rtcp: asyncio.DatagramTransport | None = None
        self._queue: deque[Samples | _Pressed] = deque()
        self._offset = 0
        """Samples of the first thing in the queue that are sent."""
        self._event_start = -1
        self._random = random.SystemRandom()
        self._ssrc = self._random.getrandbits(32)
        self._sequence = self._random.getrandbits(16)
        self._timestamp = self._random.getrandbits(32)
        self._octets = self._ticks = 0
        self._marked = True
        self._mouth, self._ear = Mouth(), Ear()
        self._event_timestamp = -1
        self._source, self._highest = 0, 0
        self._idle: list[asyncio.Future[None]] = []
        self._out: _Network | None = None
        self._in: _Network | None = None

    @classmethod
    async def open(cls, host: str, pacer: "Pacer") -> "RtpPeer":
        """An endpoint on an even port that the system chooses, with RTCP on the next. Raises OSError."""
        peer = cls(host, pacer)
        loop = asyncio.get_running_loop()
        for _ in range(MAX_PORT_TRIES):
            rtp, _ = await loop.create_datagram_endpoint(lambda: _Socket(peer._take_packet), (host, 0))
            port = int(rtp.get_extra_info("sockname")[1])
            try:
                if port % 2 == 0:
                    peer._rtcp, _ = await loop.create_datagram_endpoint(lambda: _Socket(peer._report), (host, port + 1))
                    peer._rtp, peer.port = rtp, port
                    pacer.add(peer)
                    return peer
            except OSError:
                pass  # the next port is taken: try another pair
            rtp.close()
        raise OSError(f"no pair of ports is free on {host}")

    def close(self) -> None:
        """Stop; what was heard stays."""
        self._pacer.remove(self)
        for transport in (self._rtp, self._rtcp):
            if transport is not None:
                transport.close()
        self._rtp = self._rtcp = None
        self._queue.clear()
        self._wake_idle()

    def impair(self, outgoing: Impairment | None = None, incoming: Impairment | None = None) -> None:
        """Let the network lose and delay packets from now on; None: no more."""
        self._out = _Network(outgoing, self._put) if outgoing else None
        self._in = _Network(incoming, self._packet) if incoming else None

    # -- what it says ------------------------------------------------------------------------------------------

    def play(self, samples: Samples) -> None:
        """Say this after what is said already. Raises OverflowError."""
        self._enqueue(samples)

    def press(self, digits: str, *, in_band: bool = False, on_ms: int = KEY_MS, off_ms: int = GAP_MS) -> None:
        """Press keys, `w` waits 0.5 s: as telephone-events, or in the audio where the other side takes none.

        Raises ValueError for what is no key, OverflowError."""
        digits = digits.upper()
        strange = [digit for digit in digits if digit not in KEYS and digit != "W"]
        if strange:
            raise ValueError(f"{strange[0]!r} is no key of a telephone")
        in_band = in_band or (self.route is not None and self.route.dtmf_payload_type < 0)
        for digit in digits:
            if digit == "W":
                self._enqueue(np.zeros(RATE // 2, np.int16))
            elif in_band:
                self._enqueue(in_band_keys(digit, on_ms, off_ms))
            else:
                self._enqueue(_Pressed(digit, on_ms, off_ms))

    def stop(self) -> None:
        """Say nothing more of what waits."""
        self._queue.clear()
        self._offset, self._event_start = 0, -1
        self._wake_idle()

    async def idle(self) -> None:
        """Wait until all is said."""
        if self._queue and self._rtp is not None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(future)
            await future

    def _enqueue(self, thing: Samples | _Pressed) -> None:
        if len(self._queue) >= MAX_QUEUED:
            raise OverflowError(f"at most {MAX_QUEUED} things can wait to be said")
        self._queue.append(thing)

    def _wake_idle(self) -> None:
        waiting, self._idle = self._idle, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def tick(self) -> None:
        """Send what 20 ms hold."""
        route = self.route
        if route is None:
            return
        self._ticks += 1
        if self._ticks % REPORT_TICKS == 0:
            self._send_report(route)
        if self._queue and isinstance(self._queue[0], _Pressed):
            self._tick_key(route, self._queue[0])
        else:
            self._send_audio(route, self._frame())
        self._timestamp = (self._timestamp + FRAME * units(route.codec)) & _MASK32
        if not self._queue:
            self._wake_idle()

    def _send_audio(self, route: Route, samples: Samples) -> None:
        self._send(route, route.send_payload_type, self._mouth.encode(route.codec, samples), self._timestamp)

    def _frame(self) -> Samples:
        """The next 20 ms of audio."""
        frame = np.zeros(FRAME, np.int16)
        filled = 0
        while filled < FRAME and self._queue:
            first = self._queue[0]
            if isinstance(first, _Pressed):
                break
            piece = first[self._offset : self._offset + FRAME - filled]
            frame[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._offset += len(piece)
            if self._offset >= len(first):
                self._queue.popleft()
                self._offset = 0
        return frame

    def _tick_key(self, route: Route, pressed: _Pressed) -> None:
        """One packet of an event (RFC 4733 section 2.5.1), or silence after it."""
        if self._event_start < 0:
            self._event_start = self._timestamp
            self._marked = True
        scale = units(route.codec)
        duration = ((self._timestamp - self._event_start) & _MASK32) // scale + FRAME
        on, off = pressed.on_ms * RATE // 1000, pressed.off_ms * RATE // 1000
        code = KEYS.index(pressed.key)
        if duration <= max(on, FRAME):
            last = duration + FRAME > on
            each = EVENTS.get(route.payload_types.get(route.dtmf_payload_type, DTMF), 1)
            segment = MAX_DURATION // each // FRAME * FRAME
            begin = (duration - 1) // segment * segment
            payload = EVENT.pack(code, (0x80 if last else 0) | VOLUME, (duration - begin) * each)
            at = (self._event_start + begin * scale) & _MASK32
            for _ in range(END_PACKETS if last else 1):
                self._send(route, route.dtmf_payload_type, payload, at)
        else:
            self._send_audio(route, np.zeros(FRAME, np.int16))
        if duration >= on + off:
            self._queue.popleft()
            self._event_start = -1

    def _send(self, route: Route, payload_type: int, payload: bytes, timestamp: int) -> None:
        if not route.sends or route.remote is None or self._rtp is None:
            self._marked = True  # the first packet after a pause is marked (RFC 3551 section 4.1)
            return
        marker = 0x80 if self._marked else 0
        self._marked = False
        packet = HEADER.pack(0x80, marker | payload_type, self._sequence, timestamp, self._ssrc) + payload
        self._sequence = (self._sequence + 1) & 0xFFFF
        self.sent += 1
        self._octets += len(payload)
        if self._out is not None:
            self._out.pass_on(packet, route.remote)
        else:
            self._put(packet, route.remote)

    def _put(self, packet: bytes, remote: tuple[str, int]) -> None:
        if self._rtp is not None:
            self._rtp.sendto(packet, remote)

    def _send_report(self, route: Route) -> None:
        if self._rtcp is None or route.remote_rtcp is None:
            return
        sender = rtcp.Sender(rtcp.ntp(time.time_ns()), self._timestamp, self.sent, self._octets) if self.sent else None
        lost = self.heard.missing // FRAME
        blocks = (rtcp.Block(self._source, lost=lost, highest=self._highest),) if self._source else ()
        self._rtcp.sendto(
            rtcp.compound(self._ssrc, f"phone@{self.host}", sender=sender, blocks=blocks), route.remote_rtcp
        )

    # -- what it hears -----------------------------------------------------------------------------------------

    def _take_packet(self, data: bytes) -> None:
        now = time.monotonic()
        if self._in is not None:
            self._in.pass_on(data, now)
        else:
            self._packet(data, now)

    def _packet(self, data: bytes, at_s: float) -> None:
        route = self.route
        if route is None or len(data) < HEADER.size or data[0] >> 6 != 2:
            self.strange += 1
            return
        first, second, sequence, timestamp, ssrc = HEADER.unpack_from(data)
        start = HEADER.size + 4 * (first & 15)
        if first & 0x10 and len(data) >= start + 4:
            start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4])
        padding = data[-1] if first & 0x20 else 0
        payload = data[start : max(len(data) - padding, start)]
        name = route.payload_types.get(second & 0x7F)
        if name is None or not payload or (first & 0x20 and not padding):
            self.strange += 1
            return
        self.received += 1
        self._source, self._highest = ssrc, sequence
        if name in EVENTS:
            self._event(payload, timestamp)
        else:
            self._hear(name, payload, timestamp, ssrc, at_s)
        self.changed()

    def _hear(self, codec: str, payload: bytes, timestamp: int, ssrc: int, at_s: float) -> None:
        try:
            pieces = self._ear.decode(codec, payload, timestamp)
        except NoCodec:
            self.strange += 1
            return
        for piece in pieces:
            if len(piece.samples):
                self.heard.take(ssrc, piece.timestamp, piece.samples, at_s)

    def _event(self, payload: bytes, timestamp: int) -> None:
        """One press is one timestamp (RFC 4733 section 2.5.2.2)."""
        if len(payload) < EVENT.size or timestamp == self._event_timestamp:
            return
        self._event_timestamp = timestamp
        if payload[0] < len(KEYS):
            self.keys.append(Key(KEYS[payload[0]], self.heard.end))

    def _report(self, data: bytes) -> None:
        try:
            report = rtcp.parse(data)
        except rtcp.MalformedRtcp:
            self.strange += 1
            return
        self.reports += 1
        for block in report.blocks:
            if block.ssrc == self._ssrc:
                self.remote_lost = block.lost


class Pacer:
    """The clock of all endpoints of a process: runs while there are any."""

    def __init__(self) -> None:
        self._peers: list[RtpPeer] = []
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def add(self, peer: RtpPeer) -> None:
        """Let it tick from now on."""
        self._peers.append(peer)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._due = loop.time() + TICK_S
            self._timer = loop.call_at(self._due, self._tick, loop)

    def remove(self, peer: RtpPeer) -> None:
        """No more."""
        if peer in self._peers:
            self._peers.remove(peer)
        if not self._peers and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def peers(self) -> Sequence[RtpPeer]:
        """Those that tick."""
        return self._peers

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        for peer in list(self._peers):
            peer.tick()
        if not self._peers:
            self._timer = None
            return
        now = loop.time()
        self._due = self._due + TICK_S if now - self._due < LATEST_S else now + TICK_S
        self._timer = loop.call_at(self._due, self._tick, loop)
