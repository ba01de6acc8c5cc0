"""An engine on an in-memory network: no sockets, no clock."""

from collections import defaultdict, deque
from typing import Any

import numpy as np

from trunkline.media import native, protocol
from trunkline.media.engine.commands import carry_out
from trunkline.media.engine.engine import Engine, Settings
from trunkline.media.engine.record_ring import AUDIO, RecordRing
from trunkline.media.engine.sounds import Sounds
from trunkline.media.engine.state import State
from trunkline.media.native.addresses import packed_address, unpack_sockaddr
from trunkline.media.native.fallback import Fallback
from trunkline.media.native.interface import BURST, PER_SOCKET, Batch
from trunkline.rtp import g711, packet

PEER = ("192.0.2.1", 4000)
LEGS, SLOTS = 8, 16
START = 1_000_000
"""First tick."""
EPOCH_NS = 1_700_000_000 * 10**9
TICK_LATE_NS = 1_000_000
"""How long before a tick that packets come which were delivered since the one before."""


class Wire:
    """What sockets do, as queues: `inbox[fd]` of (data, source, ns), `outbox[fd]` of (data, target)."""

    def __init__(self) -> None:
        self.inbox: dict[int, deque[tuple[bytes, tuple[str, int], int]]] = defaultdict(deque)
        self.outbox: dict[int, list[tuple[bytes, tuple[str, int]]]] = defaultdict(list)
        self.six = self.everywhere = False
        self.connected: dict[int, tuple[str, int]] = {}

    def rtp(self, slot: int) -> int:
        return 2 * slot

    def rtcp(self, slot: int) -> int:
        return 2 * slot + 1

    def drain(self, slot: int) -> None:
        self.inbox[2 * slot].clear()
        self.inbox[2 * slot + 1].clear()

    def send_rtcp(self, slot: int, data: bytes, to: tuple[str, int]) -> None:
        self.outbox[2 * slot + 1].append((data, to))


class WiredHelper:
    """A helper whose sockets are a Wire."""

    def __init__(self, wire: Wire, inner: Any) -> None:
        self.name = "wired"
        self._wire = wire
        self.coders, self.srtp = inner.coders, inner.srtp
        self.keys, self.tick = inner.keys, inner.tick
        self.put, self.take, self.gather, self.pack = inner.put, inner.take, inner.gather, inner.pack

    def connect(self, fd: int, address: bytes) -> bool:
        self._wire.connected.pop(fd, None)
        if address:
            self._wire.connected[fd] = unpack_sockaddr(address)
        return True

    def receive(self, fds: Any, rows: Any, batch: Batch) -> int:
        count = 0
        for fd, row in zip(fds.tolist(), rows.tolist(), strict=True):
            queue = self._wire.inbox[fd]
            for _ in range(min(len(queue), PER_SOCKET)):
                if count + BURST > batch.most:
                    return count
                data, (host, port), at = queue.popleft()
                batch.row[count], batch.length[count] = row, len(data)
                batch.data[count, : len(data)] = np.frombuffer(data, np.uint8)
                batch.address[count] = np.frombuffer(packed_address(host), np.uint8)
                batch.port[count], batch.at[count] = port, at
                count += 1
        return count

    def send(self, fds: Any, rows: Any, data: Any, length: Any, to: Any, to_length: Any, until: Any = None) -> Any:
        for fd, row in zip(fds.tolist(), rows.tolist(), strict=True):
            target = unpack_sockaddr(to[row, : to_length[row]].tobytes())
            self._wire.outbox[fd].append((data[row, : length[row]].tobytes(), target))
        return np.zeros(len(rows), np.int32)


class Peer:
    """The far end of a leg. `position` is the timestamp of the next packet."""

    def __init__(self, rig: "Rig", slot: int, *, source: tuple[str, int] = PEER, ssrc: int = 77) -> None:
        self.rig, self.slot, self.source, self.ssrc = rig, slot, source, ssrc
        self.sequence, self.timestamp = 65_530, 2**32 - 1000
        self._taken = 0

    def send(self, payload: bytes, payload_type: int = 0, *, marker: bool = False, copies: int = 1) -> None:
        """One packet now, as it is; the timestamp stays."""
        data = packet.Packet(
            payload_type=payload_type,
            sequence=self.sequence & 0xFFFF,
            timestamp=self.timestamp & 0xFFFFFFFF,
            ssrc=self.ssrc,
            marker=marker,
            payload=payload,
        ).encode()
        self.sequence += 1
        for _ in range(copies):
            self.rig.deliver(self.slot, data, self.source)

    def speak(self, samples: Any, *, law: int = g711.PCMU, **options: Any) -> None:
        """Audio in one packet."""
        pcm = np.asarray(samples, "<i2")
        self.send(g711.encode(pcm.tobytes(), law), law, **options)
        self.timestamp += len(pcm)

    def packets(self) -> list[packet.Packet]:
        """What the engine has sent here since the last time."""
        sent = self.rig.wire.outbox[2 * self.slot][self._taken :]
        self._taken += len(sent)
        return [packet.parse(data) for data, _ in sent]

    def heard(self, law: int = g711.PCMU) -> np.ndarray:
        """The audio of them."""
        audio = b"".join(g711.decode(p.payload, law) for p in self.packets() if p.payload_type == law)
        return np.frombuffer(audio, "<i2")

    def target(self) -> tuple[str, int]:
        """Where the last packet went."""
        return self.rig.wire.outbox[2 * self.slot][-1][1]


class Rig:
    """See the module."""

    def __init__(self, helper: str = "compiled", **settings: Any) -> None:
        self.wire = Wire()
        self.helper = WiredHelper(self.wire, Fallback() if helper == "fallback" else native.load(helper))
        self.settings = Settings(**{"legs": LEGS, **settings})
        self.ring, self.ring_fd = RecordRing.create(8, 4096)
        self.state, self.state_fd = State.create(legs=LEGS, slots=SLOTS, recordings=8, epoch=1000)
        self.now = self.state.tick = START
        self.events: list[Any] = []
        self._commands = 0
        self.engine = self._engine()
        self.engine.slots.lease(LEGS)

    def _engine(self) -> Engine:
        engine = Engine(self.settings, self.state, self.ring, self.helper, self.wire, Sounds(background=False))
        engine.now_ns = lambda: EPOCH_NS + (self.now - 1) * 20_000_000 + TICK_LATE_NS
        for slot in range(SLOTS):
            engine.slots.offer(slot, 20_000 + 2 * slot)
        engine.sockets_ready()
        return engine

    def replace_process(self) -> None:
        """A successor over the same memory."""
        self.ring = RecordRing(self.ring_fd)
        self.state = State(self.state_fd, legs=LEGS, slots=SLOTS, recordings=8)
        self.engine = self._engine()

    def do(self, command: protocol.Command) -> None:
        self._commands += 1
        command.n = self._commands
        carry_out(self.engine, command)
        self._collect()

    def open(self, name: str = "a", *, peer: Peer | None = None, **fields: Any) -> Peer:
        """A leg and its far end."""
        slot = self.engine.slots.leased()[0][0]
        given = {
            "payload_types": {0: "PCMU", 8: "PCMA", 101: "telephone-event"},
            "dtmf_payload_type": 101,
            "remote": PEER,
            **fields,
        }
        self.do(protocol.Open(leg=name, slot=slot, **given))
        return Peer(self, slot)

    def deliver(self, slot: int, data: bytes, source: tuple[str, int] = PEER, *, rtcp: bool = False) -> None:
        self.wire.inbox[2 * slot + rtcp].append((data, source, EPOCH_NS + self.now * 20_000_000))

    def tick(self, count: int = 1, *, skip: int = 0) -> None:
        """Ticks; `skip`: so many are missed before the first."""
        self.now += skip
        for _ in range(count):
            self.now += 1
            self.engine.tick(self.now)
            self._collect()

    def _collect(self) -> None:
        self.events += self.engine.events
        self.engine.events.clear()

    def told(self, kind: type) -> list[Any]:
        """Events of a kind so far; they are taken."""
        found = [event for event in self.events if isinstance(event, kind)]
        self.events = [event for event in self.events if not isinstance(event, kind)]
        return found

    def row(self, name: str = "a") -> int:
        return self.engine.legs[name].row

    def hears(self, name: str = "a") -> np.ndarray:
        """The frame that the engine has of a leg now."""
        return self.engine.buffer.heard[self.row(name)].copy()

    def recorded(self) -> np.ndarray:
        """Audio entries in the record ring."""
        taken = self.ring.take()
        return taken[taken["kind"] == AUDIO].copy()


def level(value: int, samples: int = 160) -> np.ndarray:
    """A constant that G.711 keeps exactly: pick it with `exact`."""
    return np.full(samples, value, np.int16)


def exact(samples: Any, law: int = g711.PCMU) -> np.ndarray:
    """Samples as they come through G.711."""
    pcm = np.asarray(samples, "<i2").tobytes()
    return np.frombuffer(g711.decode(g711.encode(pcm, law), law), "<i2").copy()


def sine(hz: float = 440, samples: int = 160, amplitude: float = 8000, start: int = 0) -> np.ndarray:
    n = np.arange(start, start + samples)
    return (amplitude * np.sin(2 * np.pi * hz * n / 8000)).astype(np.int16)


def ramp(start: int, samples: int = 160) -> np.ndarray:
    """Audio in which every sample tells its place, as far as G.711 goes."""
    return exact(((np.arange(start, start + samples) * 37) % 20_000 - 10_000).astype(np.int16))
