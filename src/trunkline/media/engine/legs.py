"""Opening, changing and closing legs: from what SDP agreed on to the fields of the State."""

import logging
import random
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec
import numpy as np

from trunkline.media import protocol
from trunkline.media.engine.receive import ANY
from trunkline.media.engine.state import (
    FRAME,
    KIND_EVENT,
    KIND_EVENT_48000,
    KIND_G722,
    KIND_NOISE,
    KIND_OPUS,
    KIND_PCMA,
    KIND_PCMU,
    MAX_LEG_NAME,
    TICKS_PER_S,
    Flags,
    Int32s,
    State,
)
from trunkline.media.native.addresses import pack_sockaddr, packed_address, unpack_sockaddr
from trunkline.media.native.coding import G722, OPUS
from trunkline.media.native.interface import ALAW, ULAW
from trunkline.rtp import opus

logger = logging.getLogger(__name__)

KINDS: Final = {
    "PCMU": KIND_PCMU, "PCMA": KIND_PCMA, "G722": KIND_G722, "OPUS": KIND_OPUS, "CN": KIND_NOISE,
    "TELEPHONE-EVENT": KIND_EVENT, "TELEPHONE-EVENT/48000": KIND_EVENT_48000,
}  # fmt: skip
LAWS: Final = {protocol.PCMU: ULAW, protocol.PCMA: ALAW, protocol.G722: G722, protocol.OPUS: OPUS}
NOISE_TYPE: Final = 13
"""Static payload type of comfort noise (RFC 3551)."""
TIMESTAMP_MASK: Final = 0xFFFFFFFF
LEFT: Final = 2 * TICKS_PER_S
"""Ticks for which the source that a peer has moved away from is not latched to."""

decode: Final = msgspec.json.Decoder(protocol.Open).decode


class BadLeg(Exception):
    """What a command asks for a leg cannot be done; says why."""


class Left(NamedTuple):
    """A source that is not latched to before the tick `until`, and the address that described it."""

    address: bytes
    port: int
    remote: tuple[str, int]
    until: int


class Leg:
    """What is known of a leg beside the State: its description and the addresses that it may be latched to."""

    __slots__ = ("allowed", "description", "left", "remote", "row")

    def __init__(self, row: int, description: protocol.Open) -> None:
        """Raises BadLeg for addresses that are none."""
        self.row = row
        self.description = description
        self.remote = _packed(description.remote[0]) if description.remote else b""
        latch_from = [_packed(address) for address in description.latch_from]
        self.allowed: frozenset[bytes] = frozenset([*latch_from, self.remote]) if latch_from else frozenset()
        """Empty: any."""
        self.left: Left | None = None

    @property
    def codecs(self) -> list[str]:
        """What it may send and hear."""
        return [self.description.codec, *self.description.payload_types.values()]


def check(command: protocol.Open | protocol.Modify) -> None:
    """Raise BadLeg for values that the State has no room for."""
    if command.codec not in LAWS:
        raise BadLeg(f"codec {command.codec}")
    if not 0 <= command.send_payload_type <= 127 or not -1 <= command.dtmf_payload_type <= 127:
        raise BadLeg("bad payload type")
    if any(not 0 <= number <= 127 for number in command.payload_types):
        raise BadLeg("bad payload type")
    if not 0 < len(command.leg) <= MAX_LEG_NAME or not command.leg.isascii():
        raise BadLeg("bad name")
    for address in (command.remote, command.remote_rtcp):
        if address is not None and not 0 < address[1] < 65536:
            raise BadLeg("bad port")


def open_leg(state: State, leg: Leg, tick: int, *, six: bool) -> None:
    """Fill a leg's row. Raises BadLeg; the row is not active then."""
    row, command = leg.row, leg.description
    state.clear(row)
    state.slot[row] = command.slot
    state.sequence[row] = random.getrandbits(15)
    state.timestamp[row] = random.getrandbits(32)
    state.own_ssrc[row] = random.getrandbits(32)
    state.marker[row] = 1
    state.latch[row] = command.latch
    state.timeout[row] = command.rtp_timeout_ms * TICKS_PER_S // 1000
    state.last_heard[row] = tick
    state.next_report[row] = tick + random.randint(TICKS_PER_S // 2, TICKS_PER_S * 5 // 2)
    apply(state, leg, six=six)
    if not state.describe_leg(row, command):
        raise BadLeg("the description is too long")
    state.active[row] = 1


def apply(state: State, leg: Leg, *, six: bool) -> None:
    """Write what SDP agreed on (codec, payload types, direction, addresses). Raises BadLeg."""
    row, command = leg.row, leg.description
    kinds = np.zeros(128, np.uint8)
    kinds[NOISE_TYPE] = KIND_NOISE
    for number, name in (command.payload_types or {0: "PCMU", 8: "PCMA"}).items():
        kinds[number] = KINDS.get(name.upper(), 0)
    to = _target(command.remote, six=six)
    state.kinds[row] = kinds
    state.law[row] = LAWS[command.codec]
    state.payload_type[row] = command.send_payload_type
    state.event_type[row] = command.dtmf_payload_type
    state.step[row] = FRAME * (opus.PER_SAMPLE if command.codec == protocol.OPUS else 1)
    events = max(0, command.dtmf_payload_type)
    state.event_scale[row] = opus.PER_SAMPLE if kinds[events] == KIND_EVENT_48000 else 1
    state.receive[row] = command.direction in (protocol.SENDRECV, protocol.RECVONLY)
    transmit = command.direction in (protocol.SENDRECV, protocol.SENDONLY)
    if transmit and not state.transmit[row]:
        state.marker[row] = 1
    state.transmit[row] = transmit
    _write(state.to, state.to_length, row, to)
    rtcp = command.remote_rtcp
    if rtcp is None and command.remote is not None:
        rtcp = (command.remote[0], min(command.remote[1] + 1, 65535))
    _write(state.rtcp_to, state.rtcp_to_length, row, _target(rtcp, six=six))


def modified(leg: Leg, command: protocol.Modify) -> Leg:
    """The leg with what a re-INVITE changed. Raises BadLeg."""
    names = ("codec", "payload_types", "send_payload_type", "dtmf_payload_type", "ptime", "remote", "remote_rtcp")
    changes = {name: getattr(command, name) for name in (*names, "direction", "latch_from", "srtp")}
    return Leg(leg.row, msgspec.structs.replace(leg.description, **changes))


def leave(state: State, old: Leg, new: Leg) -> None:
    """Remember where the peer was before it moved: what it sent from there is still under way, and where another phone
    took its place (RFC 3891) the first one talks on until it hears of its end."""
    row, was, remote = new.row, old.description.remote, new.description.remote
    if old.left is not None and old.left.remote != remote:
        new.left = old.left
    if was is None or remote is None or was == remote:
        return
    # Before it has been heard, it is where its description says that it is.
    source: tuple[bytes, int] = (old.remote, was[1])
    if state.latched[row]:
        source = (state.source[row].tobytes(), int(state.source_port[row]))
    if source != (new.remote, remote[1]):
        new.left = Left(*source, was, int(state.tick) + LEFT)


def reopen_latch(state: State, row: int) -> None:
    """The next valid packet settles source and stream anew."""
    state.latched[row] = 0
    state.candidate[row] = ANY


def latch(state: State, leg: Leg, address: bytes, port: int, *, six: bool) -> bool:
    """Settle the source of a leg, if this one may be it."""
    row, left = leg.row, leg.left
    if left is not None and (address, port) == left[:2] and state.tick < left.until:
        return False
    if state.latch[row]:
        if leg.allowed and address not in leg.allowed:
            return False
        there = pack_sockaddr(address, port, six=six)
        if state.to[row, : len(there)].tobytes() != there:
            _write(state.to, state.to_length, row, there)
            _write(state.rtcp_to, state.rtcp_to_length, row, pack_sockaddr(address, min(port + 1, 65535), six=six))
    elif address != leg.remote:
        return False
    state.source[row] = np.frombuffer(address, np.uint8)
    state.source_port[row] = port
    state.latched[row] = 1
    state.settled[row] = state.tick
    return True


def destination(state: State, row: int) -> tuple[str, int] | None:
    """Where a leg's audio goes."""
    length = int(state.to_length[row])
    return unpack_sockaddr(state.to[row, :length].tobytes()) if length else None


def restored(state: State, rows: Iterable[int]) -> list[Leg]:
    """The legs that the State describes. One whose description cannot be read (of another version) is given up."""
    found = []
    for row in rows:
        try:
            found.append(Leg(row, decode(state.leg_description(row))))
        except (msgspec.DecodeError, BadLeg) as error:
            logger.error("a leg is lost: %s", error)
            state.active[row] = 0
    return found


def _packed(address: str) -> bytes:
    try:
        return packed_address(address)
    except OSError as error:
        raise BadLeg(f"{address!r} is no numeric address") from error


def _target(address: tuple[str, int] | None, *, six: bool) -> bytes:
    if address is None:
        return b""
    packed = _packed(address[0])
    if not six and ":" in address[0]:
        raise BadLeg("an IPv6 address, and the sockets are IPv4")
    return pack_sockaddr(packed, address[1], six=six)


def _write(room: Flags, lengths: Int32s, row: int, raw: bytes) -> None:
    room[row] = 0
    room[row, : len(raw)] = np.frombuffer(raw, np.uint8)
    lengths[row] = len(raw)
