"""The compiled helper (helper.c) by ctypes."""

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.media.native.coders import CompiledCoders
from trunkline.media.native.coding import OpusSettings
from trunkline.media.native.compiled_srtp import CompiledSrtp
from trunkline.media.native.compiled_tick import CompiledKeys, CompiledTick
from trunkline.media.native.connect import connect
from trunkline.media.native.interface import (
    ABI,
    CODES,
    LEVELS,
    PACKET_BYTES,
    PER_SOCKET,
    Batch,
    Bytes,
    Int32s,
    Ints,
    Samples,
)
from trunkline.rtp.dtmf import Detector

_INT, _POINTER = ctypes.c_int, ctypes.c_void_p


def _at(array: npt.NDArray[Any]) -> int:
    """Where a contiguous array begins."""
    return int(array.__array_interface__["data"][0])


def _ints(array: Any) -> Ints:
    return np.ascontiguousarray(array, np.int64)


class Compiled:
    """See interface.Helper. The arrays over all legs must be contiguous; per-element ones are made so."""

    name = "compiled"

    def __init__(self, path: Path) -> None:
        """Raises OSError when the library does not load or is of another version."""
        library = ctypes.CDLL(str(path))
        if library.tl_abi() != ABI:
            raise OSError(f"{path} is of another version")
        self._library = library
        self._receive = self._function(library, "tl_receive", "ippiiipppppp")
        self._send = self._function(library, "tl_send", "ippipppppp")
        self._put = self._function(library, "tl_put", "ippppppippip")
        self._take = self._function(library, "tl_take", "ippippppp")
        self._gather = self._function(library, "tl_gather", "ippp")
        self._pack = self._function(library, "tl_pack", "ipppppppppipp")
        self._keys = CompiledKeys(library)
        self._levels, self._codes = _at(LEVELS), _at(CODES)

    @staticmethod
    def _function(library: ctypes.CDLL, name: str, arguments: str) -> Any:
        """`arguments`: one letter each, i(nt) or p(ointer)."""
        function = getattr(library, name)
        function.argtypes = [_INT if letter == "i" else _POINTER for letter in arguments]
        function.restype = _INT
        return function

    def coders(self, legs: int, settings: OpusSettings) -> CompiledCoders:
        return CompiledCoders(self._library, legs, settings)

    def receive(self, fds: Int32s, rows: Int32s, batch: Batch) -> int:
        count: int = self._receive(
            len(fds), _at(fds), _at(rows), PER_SOCKET, batch.most, PACKET_BYTES, _at(batch.data), _at(batch.row),
            _at(batch.length), _at(batch.address), _at(batch.port), _at(batch.at),
        )  # fmt: skip
        return count

    def srtp(self) -> CompiledSrtp:
        return CompiledSrtp(self._library)

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
        failed = np.empty(len(rows), np.int32)
        fds, rows = np.ascontiguousarray(fds, np.int32), _ints(rows)
        self._send(
            len(rows), _at(fds), _at(rows), data.shape[1], _at(data), _at(length), _at(to), _at(to_length), _at(failed),
            None if until is None else _at(until),
        )  # fmt: skip
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
        rows, packet, offset = _ints(rows), _ints(packet), _ints(offset)
        length, timestamp, law = _ints(length), _ints(timestamp), np.ascontiguousarray(law, np.uint8)
        self._put(
            len(rows), _at(rows), _at(packet), _at(offset), _at(length), _at(law), _at(timestamp), data.shape[1],
            _at(data), self._levels, ring.shape[1], _at(ring),
        )  # fmt: skip

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
        rows, position = _ints(rows), _ints(position)
        self._take(
            len(rows), _at(rows), _at(position), ring.shape[1], _at(ring), _at(heard), _at(last), _at(missing),
            _at(energy),
        )  # fmt: skip

    def gather(self, rows: Ints, sources: list[Samples], index: Ints, position: Ints, base: Any, out: Samples) -> None:
        rows = _ints(rows)
        starts = np.ascontiguousarray(base[index] + (position * 2).astype(np.uint64), np.uint64)
        self._gather(len(rows), _at(rows), _at(starts), _at(out))

    def keys(
        self, detector: Detector, rows: Ints, heard: Samples
    ) -> tuple[Ints, npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
        return self._keys.feed(detector, rows, heard)

    def tick(self, arrays: Mapping[str, npt.NDArray[Any]], numbers: Mapping[str, int]) -> CompiledTick:
        return CompiledTick(self._library, arrays, numbers)

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
        rows = _ints(rows)
        self._pack(
            len(rows), _at(rows), _at(pcm), _at(law), _at(payload_type), _at(marker), _at(sequence), _at(timestamp),
            _at(ssrc), self._codes, data.shape[1], _at(data), _at(length),
        )  # fmt: skip
