"""RTP endpoints for tests that look at every packet: a thread paces and sends what they say, notes what they hear.

Packets are written and read here by hand (RFC 3550, RFC 4733), so that nothing of the media engine checks itself.
Times are Unix ns: of sending just before the system call, of receiving from the kernel.
"""

import heapq
import itertools
import os
import random
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trunkline.rtp import g711

Samples = npt.NDArray[np.int16]
HOST = "127.0.0.1"
RATE = 8000
LAWS = {"PCMU": g711.PCMU, "PCMA": g711.PCMA}
EVENT_KEYS = "0123456789*#ABCD"
LOW = {key: hz for row, hz in zip(("123A", "456B", "789C", "*0#D"), (697, 770, 852, 941), strict=True) for key in row}
HIGH = {
    key: hz for row, hz in zip(("147*", "2580", "369#", "ABCD"), (1209, 1336, 1477, 1633), strict=True) for key in row
}
_LEVELS = {law: np.array(g711.LEVELS[law], np.int16) for law in LAWS.values()}
_CODES = {law: np.frombuffer(g711.CODES[law], np.uint8) for law in LAWS.values()}
_HEAD = struct.Struct("!BBHII")
_TIMESTAMPNS = 35
"""SO_TIMESTAMPNS of Linux."""
_BUFFER = 1 << 20
STALL_MS = 20
MASK = 0xFFFFFFFF


def encoded(samples: Samples, codec: str = "PCMU") -> bytes:
    """G.711 of samples."""
    return _CODES[LAWS[codec]][samples.astype(np.int16).view(np.uint16)].tobytes()


def decoded(payload: bytes, codec: str = "PCMU") -> Samples:
    """Samples of G.711."""
    return _LEVELS[LAWS[codec]][np.frombuffer(payload, np.uint8)]


def dual_tone(
    key: str, ms: int, *, off: tuple[float, float] = (0.0, 0.0), level_db: float = -10.0, twist_db: float = 0.0
) -> Samples:
    """A key as its two tones: frequencies off by these shares, levels in dBm0, the high one above the low one."""
    at = np.arange(ms * RATE // 1000) / RATE
    peak = 32767 * 10 ** ((level_db - 3.17) / 20)
    wave = np.sin(2 * np.pi * LOW[key] * (1 + off[0]) * at)
    wave += 10 ** (twist_db / 20) * np.sin(2 * np.pi * HIGH[key] * (1 + off[1]) * at)
    return np.clip(peak * wave, -32768, 32767).astype(np.int16)


def quiet(ms: int) -> Samples:
    """Silence."""
    return np.zeros(ms * RATE // 1000, np.int16)


class Press(NamedTuple):
    """A key as telephone-event; with `tone` the audio holds it as well."""

    key: str
    on_ms: int = 100
    off_ms: int = 100
    tone: Samples | None = None


class Sent(NamedTuple):
    """A packet of audio that left."""

    at_ns: int
    timestamp: int
    payload: bytes


class Got(NamedTuple):
    """A packet that came."""

    at_ns: int
    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes


class Network(NamedTuple):
    """What happens to packets on the way: a share is lost, each waits for up to so long from when it is due."""

    loss: float = 0.0
    jitter_ms: float = 0.0


class Peer:
    """An endpoint. It talks from `start` on, silence where nothing else is queued, unless `talks` is False."""

    def __init__(
        self, wire: "Wire", *, codec: str = "PCMU", ptime: int = 20, event_type: int = 101, ppm: float = 0.0,
        seed: int = 1, keep: bool = True,
    ) -> None:  # fmt: skip
        """`event_type` -1: none is offered; `ppm`: its clock is so much too fast; `keep`: note what is sent."""
        self.codec, self.ptime, self.event_type = codec, ptime, event_type
        self.keep = keep
        self.period_ns = ptime * 1e6 / (1 + ppm * 1e-6)
        self.random = random.Random(seed)
        self.rtp, self.rtcp = _pair()
        self.port = int(self.rtp.getsockname()[1])
        self.remote: tuple[str, int] | None = None
        self.network: Network | None = None
        self.talks = True
        self.noise_type = -1
        """Payload type of comfort noise packets sent where nothing is queued; -1: silence is audio."""
        self.got: list[Got] = []
        self.reports: list[tuple[int, bytes]] = []
        self.sent: list[Sent] = []
        self.pressed: list[tuple[int, str]] = []
        """When the first packet of each key left."""
        self.packets = self.octets = 0
        self.lost: list[int] = []
        """Sequence numbers that the network dropped."""
        self.departed: list[tuple[int, int, int]] = []
        """When each packet that the network did not drop really left, its sequence number and timestamp."""
        self.ssrc = self.random.getrandbits(32)
        self.sequence = self.first_sequence = self.random.getrandbits(16)
        self.timestamp = self.random.getrandbits(32)
        self._queue: deque[Samples | Press] = deque()
        self._at = 0
        self._event_start = -1
        self._due_ns = 0.0
        """When the packet that is made was due."""
        self._marked = True
        self._wire = wire
        self.idle = threading.Event()
        wire.add(self)

    # -- what tests call -------------------------------------------------------------------------------------

    def start(self, remote: tuple[str, int]) -> None:
        """Talk to this address."""
        talking = self.remote is not None
        self.remote = remote
        if not talking:
            self._wire.later(time.time_ns(), self._tick)

    def say(self, *things: Samples | Press) -> None:
        """Queue samples and keys."""
        self.idle.clear()
        self._queue.extend(things)

    def said(self, timeout_s: float) -> None:
        """Wait until all that was queued has left."""
        assert self.idle.wait(timeout_s), f"{len(self._queue)} things are still to be said"

    def send(self, payload: bytes, payload_type: int, timestamp: int, *, marker: bool = False) -> None:
        """One packet of those that this tick makes."""
        if self.remote is None:
            return
        second = payload_type | (0x80 if marker else 0)
        packet = _HEAD.pack(0x80, second, self.sequence, timestamp & MASK, self.ssrc) + payload
        self.sequence = (self.sequence + 1) & 0xFFFF
        self.packets += 1
        self.octets += len(payload)
        network = self.network
        if network is None:
            self._put(packet)
        elif self.random.random() < network.loss:
            self.lost.append(self.sequence - 1 & 0xFFFF)
        else:
            # From when it was due: the packets of a time in which the wire stood still would be shuffled otherwise.
            wait_ns = int(self.random.uniform(0, network.jitter_ms) * 1e6)
            self._wire.later(self._due_ns + wait_ns, lambda _due: self._put(packet))

    def send_rtcp(self, data: bytes) -> None:
        """One RTCP packet."""
        assert self.remote is not None
        self.rtcp.sendto(data, (self.remote[0], self.remote[1] + 1))

    def audio(self, codec: str = "") -> list[Got]:
        """The packets of audio, those of a codec."""
        types = {LAWS[codec]} if codec else set(LAWS.values())
        return [one for one in self.got if one.payload_type in types]

    def events(self) -> list[Got]:
        """The packets of keys."""
        return [one for one in self.got if one.payload_type == self.event_type]

    # -- in the wire's thread ----------------------------------------------------------------------------------

    def _put(self, packet: bytes) -> None:
        if self.remote is not None and self.rtp.fileno() >= 0:
            if self.keep:
                _, _, sequence, timestamp, _ = _HEAD.unpack_from(packet)
                self.departed.append((time.time_ns(), sequence, timestamp))
            self.rtp.sendto(packet, self.remote)

    def _tick(self, due_ns: float) -> None:
        """What one packet's time holds."""
        if self.rtp.fileno() < 0:
            return
        self._due_ns = due_ns
        self._wire.later(due_ns + self.period_ns, self._tick)
        size = self.ptime * RATE // 1000
        timestamp, self.timestamp = self.timestamp, (self.timestamp + size) & MASK
        if self._queue and isinstance(self._queue[0], Press):
            self._press(self._queue[0], timestamp, size)
        elif not self._queue and (not self.talks or self.noise_type >= 0):
            self._pause(timestamp)
        else:
            self._talk(encoded(self._frame(size), self.codec), timestamp)
        if not self._queue:
            self.idle.set()

    def _talk(self, payload: bytes, timestamp: int) -> None:
        if self.keep:
            self.sent.append(Sent(time.time_ns(), timestamp, payload))
        self.send(payload, LAWS[self.codec], timestamp, marker=self._marked)
        self._marked = False

    def _pause(self, timestamp: int) -> None:
        """Nothing is said: once comfort noise, if any (RFC 3389), then nothing."""
        if self.noise_type >= 0 and not self._marked and self.talks:
            self.send(b"\x40", self.noise_type, timestamp)
        self._marked = True

    def _frame(self, size: int) -> Samples:
        frame, filled = np.zeros(size, np.int16), 0
        while filled < size and self._queue and not isinstance(self._queue[0], Press):
            first = self._queue[0]
            piece = first[self._at : self._at + size - filled]
            frame[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._at += len(piece)
            if self._at >= len(first):
                self._queue.popleft()
                self._at = 0
        return frame

    def _press(self, press: Press, timestamp: int, size: int) -> None:
        first = self._event_start < 0
        if first:
            self._event_start = timestamp
            self.pressed.append((time.time_ns(), press.key))
        duration = ((timestamp - self._event_start) & MASK) + size
        on, off = (-(-ms * RATE // 1000 // size) * size for ms in (press.on_ms, press.off_ms))  # whole packets
        if press.tone is not None:
            piece = np.zeros(size, np.int16)
            part = press.tone[duration - size : duration]
            piece[: len(part)] = part
            self._talk(encoded(piece, self.codec), timestamp)
        if duration <= on:
            last = duration + size > on
            payload = struct.pack("!BBH", EVENT_KEYS.index(press.key), (0x80 if last else 0) | 10, duration)
            for _ in range(3 if last else 1):
                self.send(payload, self.event_type, self._event_start, marker=first)
        elif press.tone is None:
            self._talk(encoded(np.zeros(size, np.int16), self.codec), timestamp)
        if duration >= on + off:
            self._queue.popleft()
            self._event_start = -1

    def received(self, at_ns: int, data: bytes) -> None:
        """A packet came."""
        if len(data) < _HEAD.size or data[0] != 0x80:
            return
        _, second, sequence, timestamp, ssrc = _HEAD.unpack_from(data)
        self.got.append(Got(at_ns, second & 127, bool(second & 128), sequence, timestamp, ssrc, data[12:]))

    def close(self) -> None:
        """Say and hear no more."""
        self._wire.remove(self)


def _pair() -> tuple[socket.socket, socket.socket]:
    """Sockets on an even port and the next one."""
    while True:
        rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        rtp.bind((HOST, 0))
        port = int(rtp.getsockname()[1])
        rtcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            if port % 2:
                raise OSError
            rtcp.bind((HOST, port + 1))
        except OSError:
            rtp.close()
            rtcp.close()
            continue
        for one in (rtp, rtcp):
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        return rtp, rtcp


class Wire:
    """The thread of all endpoints: does what is due, reads what comes."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = itertools.count()
        self._readers: dict[int, Callable[[int, bytes], None]] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._epoll = select.epoll()
        self._lock = threading.Lock()
        self._ended = False
        self.behind_ms = 0.0
        """The most by which something was done late."""
        self.stalls: list[tuple[int, int]] = []
        """When the thread stood still against its will, for STALL_MS and more: from, until."""
        self._thread = threading.Thread(target=self._run, name="wire", daemon=True)
        self._thread.start()

    @property
    def stalled_ms(self) -> float:
        """How long it stood still in all."""
        return sum(until - since for since, until in self.stalls) / 1e6

    @property
    def alive(self) -> bool:
        """Whether no error has ended it."""
        return self._thread.is_alive()

    def listen(self, one: socket.socket, received: Callable[[int, bytes], None]) -> None:
        """Read from this socket."""
        self._sockets[one.fileno()], self._readers[one.fileno()] = one, received
        self._epoll.register(one.fileno(), select.EPOLLIN)

    def forget(self, one: socket.socket) -> None:
        """Read from it no more, and close it."""
        number = one.fileno()
        if number >= 0:
            self._epoll.unregister(number)
            one.close()

    def add(self, peer: Peer) -> None:
        self.listen(peer.rtp, peer.received)
        self.listen(peer.rtcp, lambda at_ns, data: peer.reports.append((at_ns, data)))

    def remove(self, peer: Peer) -> None:
        for one in (peer.rtp, peer.rtcp):
            self.forget(one)

    def later(self, due_ns: float, work: Callable[[float], None]) -> None:
        """Do something at a time."""
        with self._lock:
            heapq.heappush(self._due, (due_ns, next(self._count), work))

    def _next(self, now: float) -> tuple[float, Callable[[float], None] | None]:
        """What is due, or when something will be."""
        with self._lock:
            if not self._due:
                return now + 5e6, None
            if self._due[0][0] > now:
                return min(self._due[0][0], now + 5e6), None
            due, _, work = heapq.heappop(self._due)
            return due, work

    def _run(self) -> None:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        except OSError:
            pass  # not allowed: it goes on without
        before = time.time_ns()
        while not self._ended:
            now = time.time_ns()
            if now - before > STALL_MS * 1e6:
                self.stalls.append((before, now))
            before = now
            due, work = self._next(now)
            if work is not None:
                self.behind_ms = max(self.behind_ms, (now - due) / 1e6)
                work(due)
                continue
            for number, _ in self._epoll.poll(max(0.0, (due - time.time_ns()) / 1e9)):
                self._read(number)

    def _read(self, number: int) -> None:
        one, received = self._sockets[number], self._readers[number]
        for _ in range(64):
            try:
                data, extra, _, _ = one.recvmsg(65536, 64)
            except OSError:
                return
            received(_stamp(extra), data)

    def close(self) -> None:
        """End the thread."""
        self._ended = True
        self._thread.join()
        self._epoll.close()
        for one in self._sockets.values():
            one.close()


def _stamp(extra: list[Any]) -> int:
    for level, kind, data in extra:
        if level == socket.SOL_SOCKET and kind == _TIMESTAMPNS:
            seconds, ns = struct.unpack("@qq", data[:16])
            return int(seconds * 1_000_000_000 + ns)
    return time.time_ns()
