"""SRTP of the legs that have it: keys by leg, packets by batch. The others cost one branch a tick.

Which indices were used lies in the State: a successor never uses one again, and hears no packet twice. A leg has one
key of ours for each suite as long as it lives, so what is kept for each suite is enough for a session that changes to
and fro. A new key of the other side's begins its indices anew (RFC 3711 section 3.3.1: so does its rollover counter).
"""

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Iterable
from typing import Final

import numpy as np

from trunkline.media import protocol
from trunkline.media.engine.legs import BadLeg, Leg
from trunkline.media.engine.state import SRTP_KEY_BYTES, Int32s, Rows, State
from trunkline.media.native.interface import Batch, Bytes, Helper, Ints
from trunkline.media.native.srtp import KEY_BYTES, NOT_AUTHENTIC, REPLAYED, TAGS, Streams

SUITES: Final = tuple(TAGS)


class _Wanted:
    """What a description asks for, checked."""

    def __init__(self, asked: protocol.Srtp) -> None:
        """Raises BadLeg."""
        if asked.suite not in SUITES:
            raise BadLeg(f"SRTP suite {asked.suite}")
        self.suite = SUITES.index(asked.suite)
        self.ours, self.theirs = _octets(asked.ours), _octets(asked.theirs)


def _octets(key: str) -> bytes:
    try:
        octets = b64decode(key, validate=True)
    except (NotBase64, ValueError):
        octets = b""
    if len(octets) != SRTP_KEY_BYTES:
        raise BadLeg("bad SRTP key")
    return octets


class Secure:
    """Works on the `srtp` fields of a State."""

    def __init__(self, state: State, helper: Helper) -> None:
        self._state = state
        self._helper = helper
        self.used = False
        """Whether any leg has SRTP."""
        self._refused: Ints = np.zeros(2, np.int64)

    def _begin(self) -> None:
        """The first leg with SRTP of this process."""
        if self.used:
            return
        self.used = True
        state = self._state
        self._srtp = self._helper.srtp()
        size = self._srtp.context_bytes
        self._in: Bytes = np.zeros((state.legs, size), np.uint8)
        self._out: Bytes = np.zeros((state.legs, size), np.uint8)
        self._rtp = Streams(state.srtp_ssrc, state.srtp_index, state.srtp_window)
        self._rtcp = Streams(state.srtcp_ssrc, state.srtcp_index, state.srtcp_window)

    @property
    def not_authentic(self) -> int:
        """Packets that were refused because they were not what the other side had sent."""
        return int(self._refused[NOT_AUTHENTIC])

    @property
    def replayed(self) -> int:
        """Packets that came once more, or far too late."""
        return int(self._refused[REPLAYED])

    # -- legs

    @staticmethod
    def expect(asked: protocol.Srtp | None) -> None:
        """Raises BadLeg for keys that cannot be used."""
        if asked is not None:
            _Wanted(asked)

    def set(self, row: int, asked: protocol.Srtp | None) -> None:
        """A leg was opened or changed. Raises BadLeg."""
        state = self._state
        wanted = _Wanted(asked) if asked is not None else None
        self._keep(row)
        if wanted is None:
            state.srtp[row] = 0
            return
        self._begin()
        self._set_ours(row, wanted)
        self._set_theirs(row, wanted)
        self._make(row, wanted)
        state.srtp[row] = 1 + wanted.suite

    def _keep(self, row: int) -> None:
        """Keep what was used of the key in use."""
        state = self._state
        suite = int(state.srtp[row]) - 1
        if suite >= 0:
            state.srtp_kept[row, 2 * suite : 2 * suite + 2] = state.srtp_last[row], state.srtcp_last[row]

    def _set_ours(self, row: int, wanted: _Wanted) -> None:
        """Never an index twice with one key: whatever is written here when the process dies, what follows is higher."""
        state, at = self._state, wanted.suite
        mine = slice(at * SRTP_KEY_BYTES, (at + 1) * SRTP_KEY_BYTES)
        known = bytes(state.srtp_ours[row, mine]) == wanted.ours
        last, rtcp_last = state.srtp_kept[row, 2 * at : 2 * at + 2].tolist() if known else (-1, -1)
        state.srtp_ours[row, mine] = list(wanted.ours)
        state.srtp_last[row], state.srtcp_last[row] = last, rtcp_last

    def _set_theirs(self, row: int, wanted: _Wanted) -> None:
        state = self._state
        key = [wanted.suite, *wanted.theirs]
        if state.srtp_theirs[row].tolist() != key:
            state.srtp_ssrc[row] = state.srtcp_ssrc[row] = -1
            state.srtp_theirs[row] = key

    def _make(self, row: int, wanted: _Wanted) -> None:
        tag = TAGS[SUITES[wanted.suite]]
        for context, key in ((self._out[row], wanted.ours), (self._in[row], wanted.theirs)):
            self._srtp.keys(context, key[:KEY_BYTES], key[KEY_BYTES:], tag)

    def restore(self, legs: Iterable[Leg]) -> None:
        """Go on with the legs of a process that died."""
        state = self._state
        for leg in legs:
            if state.srtp[leg.row] and leg.description.srtp is not None:
                self._begin()
                self._make(leg.row, _Wanted(leg.description.srtp))

    def forget(self, row: int) -> None:
        """A leg has ended."""
        state = self._state
        if state.srtp[row]:
            state.srtp[row] = 0
            state.srtp_ours[row] = state.srtp_theirs[row] = 0
            self._in[row] = self._out[row] = 0

    # -- packets; called while `used`

    def receive(self, batch: Batch, count: int, *, rtcp: bool = False) -> None:
        """Decrypt what came; what is not authentic, or a repetition, gets length 0."""
        self._srtp.unprotect(
            count, batch.row, batch.data, batch.length, self._state.srtp, self._in,
            self._rtcp if rtcp else self._rtp, self._refused, rtcp=rtcp,
        )  # fmt: skip

    def send(self, rows: Rows, data: Bytes, length: Int32s) -> None:
        """Encrypt what is about to be sent; its indices are in the State from then on."""
        self._srtp.protect(rows, data, length, self._state.srtp, self._out, self._state.srtp_last)

    def report(self, row: int, packet: bytes) -> bytes:
        """An RTCP packet as the leg sends it; empty: not at all."""
        if not self._state.srtp[row]:
            return packet
        return self._srtp.protect_rtcp(packet, self._out[row], self._state.srtcp_last[row : row + 1])
