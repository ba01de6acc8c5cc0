"""The helper without a compiler: NumPy and Python's sockets. Slower by a factor, the same in what it does."""

import errno
import socket
import struct
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trunkline.media.fence import boottime_ns
from trunkline.media.native.addresses import packed_address, unpack_sockaddr
from trunkline.media.native.coding import OpusSettings
from trunkline.media.native.connect import connect
from trunkline.media.native.interface import (
    CODES,
    FRAME,
    HEADER,
    LEVELS,
    MISSING,
    PACKET_BYTES,
    PER_SOCKET,
    Batch,
    Bytes,
    Int32s,
    Ints,
    Samples,
)
from trunkline.media.native.plain_coders import PlainCoders
from trunkline.media.native.srtp import Srtp
from trunkline.rtp.dtmf import Detector

SO_TIMESTAMPNS: Final = 35
"""Linux's number; Python does not name it. Also the type of the control message."""
_TIMESPEC: Final = struct.Struct("ll")
_CONTROL_BYTES: Final = socket.CMSG_SPACE(_TIMESPEC.size)
_OFFSETS: Final = np.arange(FRAME, dtype=np.int64)


class Fallback:
    """See interface.Helper."""

    name = "fallback"

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}

    def coders(self, legs: int, settings: OpusSettings) -> PlainCoders:
        return PlainCoders(settings)

    def receive(self, fds: Int32s, rows: Int32s, batch: Batch) -> int:
        count = 0
        for fd, row in zip(fds.tolist(), rows.tolist(), strict=True):
            sock = self._socket(fd)
            for _ in range(PER_SOCKET):
                if count >= batch.most:
                    return count
                try:
                    data, control, flags, source = sock.recvmsg(PACKET_BYTES, _CONTROL_BYTES, socket.MSG_DONTWAIT)
                except ConnectionRefusedError:  # an ICMP of something sent earlier
                    continue
                except OSError:
                    break
                batch.row[count] = row
                batch.length[count] = 0 if flags & socket.MSG_TRUNC else len(data)
                batch.data[count, : len(data)] = np.frombuffer(data, np.uint8)
                batch.address[count] = np.frombuffer(packed_address(source[0]), np.uint8)
                batch.port[count] = source[1]
                batch.at[count] = _arrival(control)
                count += 1
        return count

    def _socket(self, fd: int) -> socket.socket:
        sock = self._sockets.get(fd)
        if sock is None:
            # Borrowed: the owner closes the fd. The object is detached from it by never being closed here.
            sock = self._sockets[fd] = _Borrowed(fileno=fd)
        return sock

    def srtp(self) -> Srtp:
        from trunkline.media.native.plain_srtp import PlainSrtp  # OpenSSL: only where it is needed

        return PlainSrtp()

    def connect(self, fd: int, address: bytes) -> bool:
        return connect(fd, address)

    def send(
        self,
        fds: Int32s,
        rows: Ints,
        data: Bytes,
        length: Int32s,
        to: Bytes,
        to_length: Int32s,
        until: Ints | None = None,
    ) -> Int32s:
        failed = np.zeros(len(rows), np.int32)
        for i, (fd, row) in enumerate(zip(fds.tolist(), rows.tolist(), strict=True)):
            if until is not None and boottime_ns() >= until[0]:
                failed[i:] = errno.ECANCELED
                break
            if length[row] <= 0:
                failed[i] = errno.EMSGSIZE
                continue
            target = unpack_sockaddr(to[row, : to_length[row]].tobytes())
            sock = self._socket(fd)
            payload = data[row, : length[row]].tobytes()
            try:
                try:
                    sock.sendto(payload, socket.MSG_DONTWAIT, target)
                except ConnectionRefusedError:  # reports an earlier datagram; this one was not sent
                    sock.sendto(payload, socket.MSG_DONTWAIT, target)
            except OSError as error:
                failed[i] = error.errno or 1
        return failed

    def put(
        self,
        rows: Ints,
        packet: Ints,
        offset: Ints,
        length: Ints,
        law: Bytes,
        timestamp: Ints,
        data: Bytes,
        ring: Samples,
    ) -> None:
        mask = ring.shape[1] - 1
        for i in range(len(rows)):
            codes = data[packet[i], offset[i] : offset[i] + length[i]]
            at = (int(timestamp[i]) + np.arange(len(codes))) & mask
            ring[rows[i], at] = LEVELS[law[i], codes]

    def take(
        self,
        rows: Ints,
        position: Ints,
        ring: Samples,
        heard: Samples,
        last: Samples,
        missing: Int32s,
        energy: npt.NDArray[np.float32],
    ) -> None:
        at = (position[:, None] + _OFFSETS) & (ring.shape[1] - 1)
        frames = ring[rows[:, None], at]
        ring[rows[:, None], at] = MISSING
        gone = frames == MISSING
        count = gone.sum(axis=1)
        frames[gone] = 0
        heard[rows] = frames
        whole = count == 0
        last[rows[whole]] = frames[whole]
        missing[rows] = count
        energy[rows] = np.square(frames, dtype=np.int64).sum(axis=1).astype(np.float32) / FRAME

    def gather(self, rows: Ints, sources: list[Samples], index: Ints, position: Ints, base: Any, out: Samples) -> None:
        for row, source, at in zip(rows.tolist(), index.tolist(), position.tolist(), strict=True):
            out[row] = sources[source][at : at + FRAME]

    def keys(
        self, detector: Detector, rows: Ints, heard: Samples
    ) -> tuple[Ints, npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
        return detector.feed(rows, heard[rows])

    def tick(self, arrays: Mapping[str, npt.NDArray[Any]], numbers: Mapping[str, int]) -> None:
        return None

    def pack(
        self,
        rows: Ints,
        pcm: Samples,
        law: Bytes,
        payload_type: Bytes,
        marker: Bytes,
        sequence: Ints,
        timestamp: Ints,
        ssrc: Ints,
        data: Bytes,
        length: Int32s,
    ) -> None:
        out = np.empty((len(rows), HEADER + FRAME), np.uint8)
        out[:, 0] = 0x80
        out[:, 1] = payload_type[rows] | (marker[rows] != 0) * np.uint8(0x80)
        out[:, 2:4] = (sequence[rows] & 0xFFFF).astype(">u2")[:, None].view(np.uint8)
        out[:, 4:8] = (timestamp[rows] & 0xFFFFFFFF).astype(">u4")[:, None].view(np.uint8)
        out[:, 8:12] = (ssrc[rows] & 0xFFFFFFFF).astype(">u4")[:, None].view(np.uint8)
        out[:, HEADER:] = CODES[law[rows][:, None], pcm[rows].view(np.uint16)]
        data[rows, : HEADER + FRAME] = out
        length[rows] = HEADER + FRAME


class _Borrowed(socket.socket):
    """A socket object over somebody else's fd: it never closes it."""

    def __del__(self) -> None:
        self.detach()


def _arrival(control: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(data) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return 0
