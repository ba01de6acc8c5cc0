"""Keeping strangers out of the queues of legs' sockets.

A flood at a leg's own RTP port would fill the socket's queue, whatever is done with its packets afterwards, and deafen
the leg. So once a leg's source has been the same for SETTLE, its socket is connected to it: then the kernel drops what
others send. It is let go of when the source falls silent, and when a re-INVITE may bring another one.
"""

from typing import Final

from trunkline.media.engine.state import TICKS_PER_S, Int32s, Rows, State
from trunkline.media.native.addresses import pack_sockaddr
from trunkline.media.native.interface import Helper

SETTLE: Final = 2 * TICKS_PER_S
"""Ticks for which a source must be the same."""
FLOWS: Final = TICKS_PER_S
"""Ticks within which its last packet must have come."""
SILENT: Final = 3 * TICKS_PER_S
"""Ticks without a packet after which a source is let go of."""
AT_ONCE: Final = 64
"""Sockets that one check connects; the others follow."""


class Guard:
    """Works on the sockets of a State's legs; `fds` are theirs, by row."""

    def __init__(self, state: State, helper: Helper, fds: Int32s) -> None:
        self._state = state
        self._helper = helper
        self._fds = fds

    def check(self, rows: Rows, tick: int, *, six: bool) -> None:
        """Connect the sockets (`six`: IPv6) of those that are settled, let go of those that are silent."""
        state = self._state
        connected = state.connected[rows] != 0
        heard = tick - state.last_rtp[rows]
        settled = (state.latched[rows] != 0) & (tick - state.settled[rows] >= SETTLE) & (heard < FLOWS)
        for row in rows[settled & ~connected][:AT_ONCE].tolist():
            self._connect(row, tick, six)
        for row in rows[connected & (heard >= SILENT)].tolist():
            self.release(row)

    def _connect(self, row: int, tick: int, six: bool) -> None:
        state = self._state
        address = pack_sockaddr(state.source[row].tobytes(), int(state.source_port[row]), six=six)
        state.connected[row] = 1  # before it is: a successor undoes one too many rather than one too few
        if not self._helper.connect(int(self._fds[row]), address):
            state.connected[row] = 0
            state.settled[row] = tick  # not again at once

    def release(self, row: int) -> None:
        """Let anybody be heard again; the source must settle anew."""
        state = self._state
        state.settled[row] = state.tick
        if state.connected[row]:
            self._helper.connect(int(self._fds[row]), b"")
            state.connected[row] = 0
