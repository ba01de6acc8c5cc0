"""The compiled SRTP (srtp.c) by ctypes."""

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from trunkline.media.native.interface import Bytes, Int32s, Ints
from trunkline.media.native.srtp import RTCP_ROOM, Streams

_INT, _POINTER, _OCTETS = ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p
_KINDS = {"i": _INT, "p": _POINTER, "o": _OCTETS}


def _at(array: npt.NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


class CompiledSrtp:
    """See srtp.Srtp. Arrays over all legs must be contiguous."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.context_bytes = int(library.tl_srtp_context_bytes())
        self._keys = self._function(library, "tl_srtp_keys", "pooi")
        self._unprotect = self._function(library, "tl_unprotect", "ipiipppppppp")
        self._protect = self._function(library, "tl_protect", "ipippppp")
        self._protect_rtcp = self._function(library, "tl_protect_rtcp", "pipp")
        self._hardware = self._function(library, "tl_srtp_hardware", "i")

    @staticmethod
    def _function(library: ctypes.CDLL, name: str, arguments: str) -> Any:
        """`arguments`: one letter each, i(nt), p(ointer) or o(ctets)."""
        function = getattr(library, name)
        function.argtypes = [_KINDS[letter] for letter in arguments]
        function.restype = _INT
        return function

    def hardware(self, wanted: bool) -> int:
        """Use the processor's own AES (1) and SHA (2) where it has them, or do without; contexts made before are void.
        Returns what is used."""
        used: int = self._hardware(int(wanted))
        return used

    def keys(self, context: Bytes, key: bytes, salt: bytes, tag: int) -> None:
        self._keys(_at(context), key, salt, tag)

    def unprotect(
        self,
        count: int,
        rows: Int32s,
        data: Bytes,
        length: Int32s,
        on: Bytes,
        contexts: Bytes,
        streams: Streams,
        refused: Ints,
        *,
        rtcp: bool,
    ) -> None:
        self._unprotect(
            count, _at(rows), int(rtcp), data.shape[1], _at(data), _at(length), _at(on), _at(contexts),
            _at(streams.ssrc), _at(streams.highest), _at(streams.window), _at(refused),
        )  # fmt: skip

    def protect(self, rows: Ints, data: Bytes, length: Int32s, on: Bytes, contexts: Bytes, last: Ints) -> None:
        rows = np.ascontiguousarray(rows, np.int64)
        self._protect(len(rows), _at(rows), data.shape[1], _at(data), _at(length), _at(on), _at(contexts), _at(last))

    def protect_rtcp(self, packet: bytes, context: Bytes, last: Ints) -> bytes:
        room = np.zeros(len(packet) + RTCP_ROOM, np.uint8)
        room[: len(packet)] = np.frombuffer(packet, np.uint8)
        length: int = self._protect_rtcp(_at(room), len(packet), _at(context), _at(last))
        return room[:length].tobytes()
