"""The media process's control socket, with raw bytes from the other side."""

import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.media.engine.rig import Rig
from trunkline.media import control as control_module
from trunkline.media import protocol
from trunkline.media.control import Control
from trunkline.media.wire import Deframer, decode_event, frame


class Served:
    """A Control over an engine, and connections to it."""

    def __init__(self, path: str) -> None:
        self.rig = Rig()
        self.rig.state.slot_state[:] = 0
        self.path = path
        self.epoll = select.epoll()
        self.control = Control(path, self.rig.engine, self.epoll)
        self._deframers: dict[socket.socket, Deframer] = {}
        self._sockets: list[socket.socket] = []

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sockets.append(sock)
        sock.connect(self.path)
        sock.settimeout(5)
        self.turn()
        return sock

    def turn(self) -> None:
        """One round of the process's loop."""
        for _ in range(3):
            for fd, mask in self.epoll.poll(0):
                self.control.ready(fd, mask)
            self.control.work(time.monotonic_ns() + 10**9)
            self.control.flush()

    def attach(self, **fields: Any) -> socket.socket:
        sock = self.connect()
        self.send(sock, protocol.Attach(**fields))
        return sock

    def send(self, sock: socket.socket, *messages: msgspec.Struct) -> None:
        sock.sendall(b"".join(map(frame, messages)))
        self.turn()

    def close(self) -> None:
        self.control.close()
        self.epoll.close()
        for sock in self._sockets:
            sock.close()

    def events(self, sock: socket.socket) -> list[Any]:
        """What has come."""
        deframer = self._deframers.setdefault(sock, Deframer())
        found = []
        sock.setblocking(False)
        try:
            while data := sock.recv(1 << 20):
                deframer.feed(data)
        except BlockingIOError:
            pass
        sock.setblocking(True)
        while (body := deframer.next()) is not None:
            found.append(decode_event(body))
        return found


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(str(tmp_path / "control"))
    yield served
    served.close()


def closed(sock: socket.socket) -> bool:
    try:
        while sock.recv(1 << 20):
            pass
    except ConnectionResetError:
        pass
    return True


def test_the_socket_is_ours_alone(served: Served, tmp_path: Path) -> None:
    assert (tmp_path / "control").stat().st_mode & 0o777 == 0o600


def test_attaching_gives_the_state_and_slots(served: Served) -> None:
    hello, ports = served.events(served.attach())
    assert (hello.done, hello.epoch, hello.legs) == (0, 1000, [])
    assert len(ports.slots) == 8


def test_commands_are_carried_out_once_and_told(served: Served) -> None:
    sock = served.attach()
    slot = served.events(sock)[1].slots[0][0]
    opening = protocol.Open(leg="CA1", slot=slot, n=1)
    served.send(sock, opening, protocol.Stop(leg="CA9", n=2), protocol.Stop(leg="CA9", n=2), opening)
    refused, done = served.events(sock)
    assert (refused.command, refused.what, refused.leg, refused.reason) == (2, "stop", "CA9", "no such leg")
    assert done.done == 2
    assert list(served.rig.engine.legs) == ["CA1"]


def test_unconfirmed_events_come_again_and_confirmed_ones_do_not(served: Served) -> None:
    sock = served.attach()
    served.send(sock, protocol.Stop(leg="CA7", n=1), protocol.Stop(leg="CA8", n=2))
    first, second = [e for e in served.events(sock) if isinstance(e, protocol.Refused)]
    served.send(sock, protocol.Seen(event=first.event))
    again = served.attach()
    assert [e for e in served.events(again) if isinstance(e, protocol.Refused)] == [second]
    assert closed(sock)
    last = served.attach(last_seen=second.event)
    assert [e for e in served.events(last) if isinstance(e, protocol.Refused)] == []


def test_events_wait_while_no_node_is_there(served: Served) -> None:
    sock = served.attach()
    slot = served.events(sock)[1].slots[0][0]
    served.send(sock, protocol.Open(leg="CA1", slot=slot, n=1))
    sock.close()
    served.turn()
    served.rig.engine.tell(protocol.Digit(leg="CA1", digit="1"))
    served.turn()
    told = served.events(served.attach())
    assert [e.digit for e in told if isinstance(e, protocol.Digit)] == ["1"]
    assert told[0].legs[0].leg == "CA1"


def test_unknown_commands_are_refused_and_counted_as_done(served: Served) -> None:
    sock = served.attach()
    served.events(sock)
    body = msgspec.msgpack.encode({"t": "levitate", "n": 5, "leg": "CA1"})
    sock.sendall(len(body).to_bytes(4, "big") + body)
    served.turn()
    refused, done = served.events(sock)
    assert (refused.command, refused.what, done.done) == (5, "levitate", 5)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\4\xc1\xc1\xc1\xc1",
        b"\0\0\0\0",
        frame(protocol.Stop(leg="x", n=1)),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["long", "garbage", "empty", "not attached", "other protocol"],
)
def test_bad_peers_lose_their_connection_and_others_do_not(served: Served, data: bytes) -> None:
    good = served.attach()
    bad = served.connect()
    bad.sendall(data)
    served.turn()
    assert closed(bad)
    served.send(good, protocol.Stop(leg="CA9", n=1))
    assert [e for e in served.events(good) if isinstance(e, protocol.Refused)]


def test_connections_are_bounded(served: Served) -> None:
    socks = [served.connect() for _ in range(control_module.MAX_CONNECTIONS + 1)]
    assert closed(socks[-1])


def test_a_node_that_does_not_read_is_dropped_and_nothing_blocks(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_module, "MAX_UNSENT", 100_000)
    sock = served.attach()
    for _ in range(20):
        for _ in range(1000):
            served.rig.engine.tell(protocol.Refused(command=1, what="x", reason="y" * 50))
        served.turn()
    assert closed(sock)
    again = served.attach(last_seen=served.rig.state.next_event())
    assert isinstance(served.events(again)[0], protocol.Hello)


def test_a_command_that_fails_is_refused_and_not_tried_again(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(engine: object, command: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(control_module, "carry_out", fail)
    sock = served.attach()
    served.send(sock, protocol.Stop(leg="CA9", n=3))
    assert [e.reason for e in served.events(sock) if isinstance(e, protocol.Refused)] == ["internal error"]
    assert served.rig.state.done == 3


def test_commands_stop_when_their_time_is_over(served: Served) -> None:
    sock = served.attach()
    sock.sendall(b"".join(frame(protocol.Stop(leg="CA9", n=i)) for i in range(1, 500)))
    for fd, mask in served.epoll.poll(0):
        served.control.ready(fd, mask)
    assert served.control.work(time.monotonic_ns())
    assert served.rig.state.done == 1
    served.turn()
    assert served.rig.state.done == 499
