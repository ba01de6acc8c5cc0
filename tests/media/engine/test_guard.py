"""Real sockets: strangers' floods stay in the kernel once a leg's source is settled."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.media.engine.rig import sine
from trunkline.media import native, protocol
from trunkline.media.engine.commands import carry_out
from trunkline.media.engine.engine import Engine, Settings
from trunkline.media.engine.guard import SETTLE, SILENT
from trunkline.media.engine.record_ring import RecordRing
from trunkline.media.engine.sounds import Sounds
from trunkline.media.engine.state import State
from trunkline.media.native.connect import is_connected
from trunkline.media.ports import PortKeeper, PortSet
from trunkline.rtp import g711, packet

SIZES = {"legs": 4, "slots": 8, "recordings": 4}
FLOOD = 600
"""Datagrams of a tick's flood: more than a socket's queue holds."""


class Bench:
    """An engine over sockets, its clock ours, and one leg's peer."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.keeper = PortKeeper(host, 20_000, 40_000, 8)
        self.keeper.open_block()
        self.state, self.fd = State.create(**SIZES, epoch=1)
        self.ring, _ = RecordRing.create(4, 256)
        self.now = self.state.tick = 1000
        self.numbers = 0
        self.start()
        self.host = "127.0.0.1" if ":" not in host else "::1"
        self.peer, self.stranger = self.udp(), self.udp()
        self.sequence = 0

    def start(self) -> None:
        """The process, or its successor over the same memory and sockets."""
        ports = PortSet(self.keeper)
        ports.six = self.keeper.six
        ports.add(self.keeper.pairs, self.keeper.ports)
        self.state = State(self.fd, **SIZES)
        self.engine = Engine(Settings(legs=4), self.state, self.ring, native.load(), ports, Sounds(background=False))
        for slot, port in enumerate(self.keeper.ports):
            self.engine.slots.offer(slot, port)
        self.engine.sockets_ready()

    def udp(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if self.keeper.six else socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((self.host, 0))
        sock.setblocking(False)
        return sock

    def open(self, name: str = "a", **fields: object) -> None:
        slot = self.engine.slots.lease(4, anew=True)[0][0]
        self.rtp = self.keeper.pairs[slot][0]
        self.to = (self.host, self.keeper.ports[slot])
        self.do(protocol.Open(leg=name, slot=slot, remote=self.peer.getsockname()[:2], **fields))  # type: ignore[arg-type]

    def do(self, command: protocol.Command) -> None:
        self.numbers += 1
        command.n = self.numbers
        carry_out(self.engine, command)

    def say(self, sock: socket.socket, ssrc: int = 7) -> None:
        payload = g711.encode(sine().tobytes())
        one = packet.Packet(
            payload_type=0, sequence=self.sequence & 0xFFFF, timestamp=160 * self.sequence, ssrc=ssrc, payload=payload
        )
        sock.sendto(one.encode(), self.to)

    def tick(self, count: int = 1, *, flood: int = 0, peer: socket.socket | None = None, talks: bool = True) -> None:
        for _ in range(count):
            for _ in range(flood):
                self.stranger.sendto(b"\x80" + bytes(171), self.to)
            if talks:
                self.sequence += 1
                self.say(peer or self.peer)
            self.now += 1
            self.engine.tick(self.now)

    @property
    def received(self) -> int:
        return int(self.state.received[self.engine.legs["a"].row])

    def close(self) -> None:
        with ExitStack() as stack:
            for sock in (self.peer, self.stranger):
                stack.enter_context(sock)
            stack.callback(self.keeper.close)


@pytest.fixture(params=["127.0.0.1", "::1"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(request.param)
    yield made
    made.close()


def settle(bench: Bench) -> None:
    bench.open()
    bench.tick(SETTLE + 20)
    assert bench.rtp.getpeername() == bench.peer.getsockname()


def test_a_flood_does_not_deafen_a_settled_leg(bench: Bench) -> None:
    settle(bench)
    before, foreign = bench.received, bench.engine.receiver.foreign
    bench.tick(50, flood=FLOOD)
    assert bench.received == before + 50
    assert bench.engine.receiver.foreign == foreign
    assert len(bench.peer.recv(2000)) == 172


def test_a_leg_is_not_tied_before_its_source_has_settled(bench: Bench) -> None:
    bench.open()
    bench.tick(SETTLE - 20)
    assert not is_connected(bench.rtp)


def test_a_source_that_falls_silent_is_let_go_of_and_taken_up_again(bench: Bench) -> None:
    settle(bench)
    bench.tick(SILENT + 20, talks=False)
    assert not is_connected(bench.rtp)
    bench.tick(SETTLE + 20)
    assert is_connected(bench.rtp)


def test_a_reinvite_opens_the_socket_to_another_source(bench: Bench) -> None:
    settle(bench)
    other = bench.udp()
    bench.do(protocol.Modify(leg="a", payload_types={0: "PCMU"}, remote=other.getsockname()[:2]))
    assert not is_connected(bench.rtp)
    before = bench.received
    bench.tick(SETTLE + 20, peer=other)
    assert bench.received >= before + SETTLE
    assert bench.rtp.getpeername() == other.getsockname()
    other.close()


def test_a_leg_that_ends_lets_go(bench: Bench) -> None:
    settle(bench)
    bench.do(protocol.Close(leg="a"))
    assert not is_connected(bench.rtp)


def test_a_successor_goes_on_and_lets_go(bench: Bench) -> None:
    settle(bench)
    bench.start()
    before = bench.received
    bench.tick(10, flood=50)
    assert bench.received == before + 10
    bench.tick(SILENT + 20, talks=False)
    assert not is_connected(bench.rtp)


def test_a_new_leg_hears_its_peer_on_a_socket_that_a_lost_process_left_connected() -> None:
    bench = Bench()
    for pair in bench.keeper.pairs:
        pair[0].connect(bench.stranger.getsockname())
    bench.open()
    bench.tick(5)
    assert bench.received == 5
    bench.close()


def test_a_peer_whose_port_is_closed_breaks_nothing(bench: Bench) -> None:
    """ICMP errors come to connected sockets."""
    settle(bench)
    address = bench.peer.getsockname()
    bench.peer.close()
    bench.tick(20, talks=False)
    assert is_connected(bench.rtp)
    bench.peer = socket.socket(socket.AF_INET6 if bench.keeper.six else socket.AF_INET, socket.SOCK_DGRAM)
    bench.peer.bind(address[:2])
    bench.peer.setblocking(False)
    before = bench.received
    bench.tick(10)
    assert bench.received >= before + 9
    assert len(bench.peer.recv(2000)) == 172


def test_sockets_of_no_address_are_never_connected() -> None:
    bench = Bench("0.0.0.0")
    bench.open()
    bench.tick(SETTLE + 40)
    assert bench.received == SETTLE + 40
    assert not is_connected(bench.rtp)
    bench.close()
