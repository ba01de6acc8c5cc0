"""The compiled parts of a tick (tick.c, keys.c) by ctypes."""

import ctypes
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trunkline.media.native.interface import LEVELS, PACKET_BYTES, Batch, Ints, Samples
from trunkline.rtp import dtmf

ARRAYS: Final = (
    "kinds", "latched", "source", "source_port", "ssrc", "clock_scale", "receive", "started", "candidate", "last_rtp",
    "last_heard", "top_sequence", "seen", "received", "transit", "jitter", "max_jitter", "position", "newest", "gap",
    "stretched", "late_run", "noise", "least", "held", "window", "adjust", "ring", "heard", "last", "energy", "missing",
    "coded", "levels", "fade",
)  # fmt: skip
NUMBERS: Final = (
    "size", "most_dropout", "sample_ns", "rate", "most_payload", "room", "pause", "window_ticks",
)  # fmt: skip
"""The fields of tick.c's `struct legs`, in its order."""
EVENTS_PER_LEG: Final = 4
_INT, _LONG, _POINTER = ctypes.c_int, ctypes.c_int64, ctypes.c_void_p
_KINDS: Final = {"i": _INT, "l": _LONG, "p": _POINTER}


def _at(array: npt.NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _function(library: ctypes.CDLL, name: str, arguments: str) -> Any:
    function = getattr(library, name)
    function.argtypes = [_KINDS[letter] for letter in arguments]
    function.restype = _INT
    return function


class CompiledTick:
    """See interface.Tick."""

    def __init__(
        self, library: ctypes.CDLL, arrays: Mapping[str, npt.NDArray[Any]], numbers: Mapping[str, int]
    ) -> None:
        self._arrays = {**arrays, "levels": LEVELS}  # they must not move, nor go
        for name in ARRAYS:
            assert self._arrays[name].flags.c_contiguous, name
        values = [*(_at(self._arrays[name]) for name in ARRAYS), *(numbers[name] for name in NUMBERS)]
        self._legs = np.array(values, np.uint64)
        legs = len(arrays["position"])
        self._left: Ints = np.zeros(legs, np.int64)
        self._due: Ints = np.zeros(legs, np.int64)
        self._counts = np.zeros(2, np.int32)
        self._hear = _function(library, "tl_hear", "piipppppp" + "llp")
        self._frames = _function(library, "tl_frames", "pipppp")

    def hear(self, batch: Batch, count: int, tick: int, now_ns: int) -> Ints:
        left = np.empty(count, np.int64)
        lefts = self._hear(
            _at(self._legs), count, PACKET_BYTES, _at(batch.data), _at(batch.row), _at(batch.length),
            _at(batch.address), _at(batch.port), _at(batch.at), tick, now_ns, _at(left),
        )  # fmt: skip
        return left[:lefts]

    def frames(self, rows: Ints) -> tuple[Ints, Ints]:
        rows = np.ascontiguousarray(rows, np.int64)
        self._frames(_at(self._legs), len(rows), _at(rows), _at(self._left), _at(self._due), _at(self._counts))
        return self._left[: self._counts[0]].copy(), self._due[: self._counts[1]].copy()


class CompiledKeys:
    """Keys in the audio of many legs."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._keys = _function(library, "tl_keys", "ipppppp" + "ppp")
        self._row: Ints = np.zeros(0, np.int64)
        self._code = np.zeros(0, np.int8)
        self._when = np.zeros(0, np.uint8)

    def feed(
        self, detector: dtmf.Detector, rows: Ints, heard: Samples
    ) -> tuple[Ints, npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
        """See interface.Helper.keys."""
        rows = np.ascontiguousarray(rows, np.int64)
        if len(self._row) < EVENTS_PER_LEG * len(rows):
            most = EVENTS_PER_LEG * len(rows)
            self._row, self._code = np.zeros(most, np.int64), np.zeros(most, np.int8)
            self._when = np.zeros(most, np.uint8)
        count = self._keys(
            len(rows), _at(rows), _at(heard), _at(detector.state), _at(dtmf.TONES), _at(dtmf.HARMONICS),
            _at(dtmf.LIMITS), _at(self._row), _at(self._code), _at(self._when),
        )  # fmt: skip
        when = self._when[:count]
        order = np.argsort(when, kind="stable")
        return self._row[order], self._code[order], when[order] % 2 == 0
