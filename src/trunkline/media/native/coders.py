"""The compiled coders (codecs.c) by ctypes; the work of many legs is shared out among threads, without the GIL."""

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.media.native import libopus
from trunkline.media.native.coding import OPUS, NoCodec, OpusSettings
from trunkline.media.native.interface import Bytes, Int32s, Ints, Samples

_INT, _POINTER = ctypes.c_int, ctypes.c_void_p


def _at(array: npt.NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _ints(array: Any) -> Ints:
    return np.ascontiguousarray(array, np.int64)


class CompiledCoders:
    """See coding.Coders."""

    def __init__(self, library: ctypes.CDLL, legs: int, settings: OpusSettings) -> None:
        self._open = self._function(library, "tl_channel_open", "", _POINTER)
        self._close = self._function(library, "tl_channel_close", "p", None)
        self._reset = self._function(library, "tl_channel_reset", "p", None)
        self._loss = self._function(library, "tl_channel_loss", "pi", None)
        self._keep = self._function(library, "tl_keep", "ippppppp" + "ipp", None)
        self._play = self._function(library, "tl_play", "ippippp", None)
        self._code = self._function(library, "tl_code", "ipppppppppipp", None)
        self._channels: npt.NDArray[np.uint64] = np.zeros(legs, np.uint64)
        self._opus = ""
        """Why there is no Opus."""
        try:
            self._function(library, "tl_opus", "pii", None)(
                ctypes.addressof(pointers := libopus.functions()), settings.bitrate, settings.complexity
            )
            del pointers
        except NoCodec as error:
            self._opus = str(error)

    @staticmethod
    def _function(library: ctypes.CDLL, name: str, arguments: str, result: Any) -> Any:
        """`arguments`: one letter each, i(nt) or p(ointer)."""
        function = getattr(library, name)
        function.argtypes = [_INT if letter == "i" else _POINTER for letter in arguments]
        function.restype = result
        return function

    def require(self, kind: int) -> None:
        if kind == OPUS and self._opus:
            raise NoCodec(self._opus)

    def open(self, row: int) -> None:
        if not self._channels[row]:
            made = self._open()
            if not made:
                raise MemoryError
            self._channels[row] = made

    def close(self, row: int) -> None:
        if self._channels[row]:
            self._close(int(self._channels[row]))
            self._channels[row] = 0

    def reset(self, row: int) -> None:
        if self._channels[row]:
            self._reset(int(self._channels[row]))

    def loss(self, row: int, percent: int) -> None:
        if self._channels[row]:
            self._loss(int(self._channels[row]), percent)

    def keep(
        self,
        rows: Ints,
        packet: Ints,
        offset: Ints,
        length: Ints,
        samples: Ints,
        kind: Bytes,
        timestamp: Ints,
        data: Bytes,
    ) -> None:
        rows, packet, offset, length = _ints(rows), _ints(packet), _ints(offset), _ints(length)
        samples, timestamp, kind = _ints(samples), _ints(timestamp), np.ascontiguousarray(kind, np.uint8)
        self._keep(
            len(rows), _at(rows), _at(packet), _at(offset), _at(length), _at(samples), _at(kind), _at(timestamp),
            data.shape[1], _at(data), _at(self._channels),
        )  # fmt: skip

    def play(self, rows: Ints, position: Ints, ring: Samples, concealed: Int32s) -> None:
        rows, position = _ints(rows), _ints(position)
        self._play(len(rows), _at(rows), _at(position), ring.shape[1], _at(ring), _at(self._channels), _at(concealed))

    def code(
        self,
        rows: Ints,
        pcm: Samples,
        kind: Bytes,
        payload_type: Bytes,
        marker: Bytes,
        sequence: Ints,
        timestamp: Ints,
        ssrc: Ints,
        data: Bytes,
        length: Int32s,
    ) -> None:
        rows = _ints(rows)
        self._code(
            len(rows), _at(rows), _at(pcm), _at(kind), _at(payload_type), _at(marker), _at(sequence), _at(timestamp),
            _at(ssrc), _at(self._channels), data.shape[1], _at(data), _at(length),
        )  # fmt: skip

    def __del__(self) -> None:
        for row in np.flatnonzero(getattr(self, "_channels", ())).tolist():
            self.close(row)
