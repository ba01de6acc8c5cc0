import os
import socket
from contextlib import closing
from pathlib import Path

import pytest

from tests.media.helpers import free_range
from trunkline.media.ports import BLOCK, NoPorts, PortKeeper, PortService, PortSet, RemotePorts


def test_pairs_are_even_and_odd_at_random_in_the_range() -> None:
    low, high = free_range()
    keeper = PortKeeper("127.0.0.1", low, high, 200)
    assert keeper.open_block() == BLOCK
    assert keeper.ports != sorted(keeper.ports)
    for port, (rtp, rtcp) in zip(keeper.ports, keeper.pairs, strict=True):
        assert port % 2 == 0
        assert low <= port <= high
        assert (rtp.getsockname()[1], rtcp.getsockname()[1]) == (port, port + 1)
    keeper.close()


def six_free_ports() -> int:
    """The first of six in a row that nobody has, as far as can be told."""
    for _ in range(50):
        low, _ = free_range()
        socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(6)]
        try:
            for number, sock in enumerate(socks):
                sock.bind(("127.0.0.1", low + number))
        except OSError:
            continue
        finally:
            for sock in socks:
                sock.close()
        return low
    raise AssertionError("no six free ports in a row")


def test_ports_in_use_are_passed_over_and_the_range_ends() -> None:
    low = six_free_ports()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", low + 3))
        with closing(PortKeeper("127.0.0.1", low, low + 5, 100)) as keeper:
            assert keeper.open_block() == 2
            assert sorted(keeper.ports) == [low, low + 4]
            assert keeper.open_block() == 0
            other = PortKeeper("127.0.0.1", low, low + 5, 100)
            with pytest.raises(NoPorts):
                other.open_block()


def test_draining_throws_away_what_waits() -> None:
    keeper = PortKeeper("127.0.0.1", *free_range(), 1)
    ports = PortSet(keeper)
    ports.more()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        for _ in range(5):
            peer.sendto(b"x", ("127.0.0.1", ports.ports[0]))
        ports.drain(0)
        with pytest.raises(BlockingIOError):
            keeper.pairs[0][0].recv(10)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as target:
            target.bind(("127.0.0.1", 0))
            ports.send_rtcp(0, b"rtcp", target.getsockname())
            assert target.recvfrom(10) == (b"rtcp", ("127.0.0.1", ports.ports[0] + 1))
        ports.send_rtcp(0, b"rtcp", ("256.0.0.1", 1))
    assert ports.rtp(7) == -1
    keeper.close()


def test_a_successor_gets_the_same_pairs_and_more_on_demand(tmp_path: Path) -> None:
    keeper = PortKeeper("127.0.0.1", *free_range(), 150)
    service = PortService(keeper, str(tmp_path / "ports"))
    assert (tmp_path / "ports").stat().st_mode & 0o777 == 0o600
    first = RemotePorts(str(tmp_path / "ports"))
    assert len(first) == BLOCK
    first._socket.setblocking(True)
    first.more()
    first.more()
    assert first.receive()
    assert len(first) == 2 * BLOCK
    second = RemotePorts(str(tmp_path / "ports"))
    assert second.ports == first.ports
    assert os.fstat(second.rtp(BLOCK)).st_ino == os.fstat(first.rtp(BLOCK)).st_ino
    second._socket.setblocking(True)
    for _ in range(2):
        second.more()
        second.receive()
    assert len(second) == 150
    assert second.exhausted
    service.close()
    with pytest.raises(ConnectionResetError):
        second.receive()
    first.close()
    second.close()
    keeper.close()
