"""Both helpers: each test runs with the compiled one and the fallback; some compare the two."""

import socket

import numpy as np
import pytest

from trunkline.media import native
from trunkline.media.native.addresses import pack_sockaddr, packed_address, unpacked_address
from trunkline.media.native.interface import (
    ADDRESS_BYTES,
    BURST,
    FRAME,
    MISSING,
    PACKET_BYTES,
    PER_SOCKET,
    SEND_BYTES,
    Batch,
    Helper,
)
from trunkline.rtp import g711, packet

SO_TIMESTAMPNS = 35
RING = 1024


@pytest.fixture(params=["compiled", "fallback"])
def helper(request: pytest.FixtureRequest) -> Helper:
    return native.load(request.param)


def udp(family: int = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return sock


def fds(*socks: socket.socket) -> np.ndarray:
    return np.array([s.fileno() for s in socks], np.int32)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_receive_reads_all_sockets_with_source_and_time(helper: Helper, family: int) -> None:
    with udp(family) as a, udp(family) as b, udp(family) as peer:
        for n in range(BURST + 2):
            peer.sendto(b"a%d" % n, a.getsockname()[:2])
        peer.sendto(b"b", b.getsockname()[:2])
        peer.sendto(b"x" * (PACKET_BYTES + 1), b.getsockname()[:2])
        batch = Batch(100)
        count = helper.receive(fds(a, b), np.array([7, 9], np.int32), batch)
        assert count == BURST + 4
        assert batch.row[:count].tolist() == [7] * (BURST + 2) + [9, 9]
        assert [batch.data[i, : batch.length[i]].tobytes() for i in range(BURST + 2)] == [b"a%d" % n for n in range(6)]
        assert batch.length[count - 1] == 0
        assert {unpacked_address(batch.address[i].tobytes()) for i in range(count)} == {peer.getsockname()[0]}
        assert set(batch.port[:count].tolist()) == {peer.getsockname()[1]}
        assert (batch.at[:count] > 1_600_000_000 * 10**9).all()
        assert helper.receive(fds(a, b), np.array([7, 9], np.int32), batch) == 0


def test_a_flood_is_left_in_its_socket(helper: Helper) -> None:
    with udp() as a, udp() as peer:
        for _ in range(PER_SOCKET + 3):
            peer.sendto(b"x", a.getsockname())
        batch = Batch(100)
        assert helper.receive(fds(a), np.array([0], np.int32), batch) == PER_SOCKET
        assert helper.receive(fds(a), np.array([0], np.int32), batch) == 3


@pytest.mark.parametrize("host", ["", "phone.example", "192.0.2.1\0", "192.0.2.é", "::1\0", "1:2", "192.0.2.256"])
def test_what_is_no_address_is_refused(host: str) -> None:
    with pytest.raises(OSError):  # noqa: PT011 - a bad address is this one, whatever its text
        packed_address(host)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_send_reaches_each_address_and_reports_errors(helper: Helper, family: int) -> None:
    with udp(family) as sender, udp(family) as peer:
        host, port = peer.getsockname()[:2]
        to = np.zeros((3, ADDRESS_BYTES), np.uint8)
        raw = pack_sockaddr(packed_address(host), port, six=family == socket.AF_INET6)
        to[2, : len(raw)] = np.frombuffer(raw, np.uint8)
        to_length = np.array([0, 16, len(raw)], np.int32)
        data = np.zeros((3, SEND_BYTES), np.uint8)
        data[2, :3] = (1, 2, 3)
        length = np.full(3, 3, np.int32)
        failed = helper.send(fds(sender, sender), np.array([2, 1]), data, length, to, to_length)
        assert failed[0] == 0
        assert failed[1] != 0
        assert peer.recvfrom(100) == (b"\1\2\3", sender.getsockname())


def test_put_and_take_meet_at_the_timestamp_across_the_wrap(helper: Helper) -> None:
    ring = np.full((3, RING), MISSING, np.int16)
    heard, last = np.zeros((3, FRAME), np.int16), np.zeros((3, FRAME), np.int16)
    missing, energy = np.zeros(3, np.int32), np.zeros(3, np.float32)
    data = np.random.default_rng(1).integers(0, 256, (2, PACKET_BYTES), np.uint8)
    start = 2**32 - 100
    helper.put(
        np.array([1, 2]), np.array([0, 1]), np.array([12, 16]), np.array([240, 80]), np.array([0, 1], np.uint8),
        np.array([start, 40]), data, ring,
    )  # fmt: skip
    helper.take(np.array([1, 2]), np.array([start, 0]), ring, heard, last, missing, energy)
    expected = np.frombuffer(g711.decode(data[0, 12:252].tobytes()), "<i2")
    assert heard[1].tolist() == expected[:FRAME].tolist()
    assert last[1].tolist() == heard[1].tolist()
    assert energy[1] == pytest.approx((expected[:FRAME].astype(float) ** 2).mean(), rel=1e-5)
    alaw = np.frombuffer(g711.decode(data[1, 16:96].tobytes(), g711.PCMA), "<i2")
    assert heard[2].tolist() == [0] * 40 + alaw.tolist() + [0] * 40
    assert last[2].tolist() == [0] * FRAME
    assert missing.tolist() == [0, 0, 80]
    helper.take(np.array([1]), np.array([(start + FRAME) % 2**32]), ring, heard, last, missing, energy)
    assert heard[1].tolist() == expected[FRAME:].tolist() + [0] * 80
    assert missing[1] == 80
    assert (ring == MISSING).all()


def test_gather_copies_frames(helper: Helper) -> None:
    sources = [np.arange(400, dtype=np.int16), np.arange(1000, 1400, dtype=np.int16)]
    base = np.array([s.ctypes.data for s in sources], np.uint64)
    out = np.zeros((4, FRAME), np.int16)
    helper.gather(np.array([3, 0]), sources, np.array([1, 0]), np.array([5, 240]), base, out)
    assert out[3].tolist() == list(range(1005, 1165))
    assert out[0].tolist() == list(range(240, 400))
    assert not out[1:3].any()


def test_pack_writes_what_the_packet_parser_reads(helper: Helper) -> None:
    pcm = np.random.default_rng(2).integers(-32768, 32768, (3, FRAME)).astype(np.int16)
    data, length = np.zeros((3, SEND_BYTES), np.uint8), np.zeros(3, np.int32)
    helper.pack(
        np.array([0, 2]), pcm, np.array([0, 0, 1], np.uint8), np.array([0, 0, 8], np.uint8),
        np.array([1, 0, 0], np.uint8),
        np.array([65535, 0, 3]), np.array([2**32 - 1, 0, 4]), np.array([2**32 - 2, 0, 5]), data, length,
    )  # fmt: skip
    assert length.tolist() == [SEND_BYTES, 0, SEND_BYTES]
    assert packet.parse(data[0].tobytes()) == packet.Packet(
        payload_type=0, sequence=65535, timestamp=2**32 - 1, ssrc=2**32 - 2, marker=True,
        payload=g711.encode(pcm[0].tobytes()),
    )  # fmt: skip
    assert packet.parse(data[2].tobytes()) == packet.Packet(
        payload_type=8, sequence=3, timestamp=4, ssrc=5, payload=g711.encode(pcm[2].tobytes(), g711.PCMA)
    )
