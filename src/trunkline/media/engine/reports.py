"""RTCP of each leg, and what is known of its quality."""

import random
import time
from typing import Any, Final

import numpy as np

from trunkline.media import protocol
from trunkline.media.engine import receive
from trunkline.media.engine.state import RATE, TICKS_PER_S, State
from trunkline.media.native.addresses import pack_sockaddr
from trunkline.media.native.interface import ADDRESS_BYTES
from trunkline.rtp import emodel, rtcp

INTERVAL: Final = int(rtcp.INTERVAL_S * TICKS_PER_S)
"""Ticks between reports, before randomising."""
CODECS: Final = (protocol.PCMU, protocol.PCMA, protocol.G722, protocol.OPUS)
"""By law."""
NETWORK_MS: Final = 20.0
"""One-way delay assumed while no round trip is known."""


class Reports:
    """Makes and reads RTCP; the engine sends what `make` returns."""

    def __init__(self, state: State) -> None:
        self._state = state

    def due(self, tick: int) -> list[int]:
        """Legs whose report is due; each is given its next time."""
        state = self._state
        rows: list[int] = np.flatnonzero((state.active != 0) & (state.next_report <= tick)).tolist()
        for row in rows:
            state.next_report[row] = tick + int(INTERVAL * random.uniform(0.5, 1.5))
        return rows

    def make(self, row: int, cname: str, *, bye: bool = False) -> bytes:
        """A compound packet of what we sent and received."""
        state = self._state
        sent = int(state.sent[row])
        sender = None
        if sent:
            stamp = rtcp.ntp(time.time_ns())
            sender = rtcp.Sender(stamp, int(state.timestamp[row]), sent, int(state.octets[row]))
        blocks = (self._block(row),) if state.ssrc[row] >= 0 and state.received[row] else ()
        return rtcp.compound(int(state.own_ssrc[row]), cname, sender=sender, blocks=blocks, bye=bye)

    def _block(self, row: int) -> rtcp.Block:
        """RFC 3550 A.3."""
        state = self._state
        top = int(state.top_sequence[row])
        expected = top - int(state.base_sequence[row]) + 1
        received = int(state.received[row])
        expected_now = expected - int(state.expected_told[row])
        lost_now = expected_now - (received - int(state.received_told[row]))
        state.expected_told[row], state.received_told[row] = expected, received
        fraction = (lost_now << 8) // expected_now if expected_now > 0 and lost_now > 0 else 0
        since = 0
        if state.peer_report_ns[row]:
            since = max(0, time.time_ns() - int(state.peer_report_ns[row])) * 65536 // 1_000_000_000
        return rtcp.Block(
            int(state.ssrc[row]),
            min(fraction, 255),
            expected - received,
            top,
            int(state.jitter[row] * max(1, int(state.clock_scale[row]))),
            int(state.peer_report[row]),
            since,
        )

    def take(self, row: int, data: bytes, address: bytes, port: int, at_ns: int, *, six: bool) -> bool:
        """Read a datagram of a leg's RTCP port that came at `at_ns` (Unix); whether it was one of the leg's peer: it
        must come from where the leg's audio comes from."""
        state = self._state
        if state.latched[row] and state.source[row].tobytes() != address:
            return False
        try:
            report = rtcp.parse(data)
        except rtcp.MalformedRtcp:
            return False
        if state.latched[row]:
            raw = pack_sockaddr(address, port, six=six)
            state.rtcp_to[row, : len(raw)] = np.frombuffer(raw, np.uint8)
            state.rtcp_to[row, len(raw) : ADDRESS_BYTES] = 0
            state.rtcp_to_length[row] = len(raw)
        if report.sender is not None:
            state.peer_report[row] = report.sender.middle
            state.peer_report_ns[row] = at_ns
        for block in report.blocks:
            if block.ssrc == state.own_ssrc[row]:
                state.remote_lost[row] = max(0, block.lost)
                state.remote_fraction[row] = block.fraction_lost
                trip = rtcp.round_trip_ms(block, rtcp.ntp(at_ns))
                if trip:
                    state.round_trip[row] = trip
        return True

    def quality(self, row: int) -> dict[str, Any]:
        """Fields of model.call.MediaQuality."""
        state = self._state
        got, lost, late = receive.received(state, row), receive.lost(state, row), int(state.late[row])
        expected = got + lost
        per_ms = RATE / 1000
        trip = float(state.round_trip[row])
        network = trip / 2 if trip else NETWORK_MS
        buffered = float(state.depth[row]) / per_ms
        share = (lost + late) / expected if expected else 0.0
        return {
            "codec": CODECS[int(state.law[row])],
            "packets_received": got,
            "packets_sent": int(state.sent[row]),
            "lost": lost + late,
            "jitter_ms": round(float(state.jitter[row]) / per_ms, 2),
            "max_jitter_ms": round(float(state.max_jitter[row]) / per_ms, 2),
            "round_trip_ms": round(trip, 1),
            "remote_lost": int(state.remote_lost[row]),
            "mos": emodel.mos(share, network + buffered + 20) if got else 0.0,
        }
