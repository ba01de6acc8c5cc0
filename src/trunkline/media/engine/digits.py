"""Sending keys as telephone-events (RFC 4733 section 2.5.1): which packet goes out at which point of a digit string.

A key is an event of constant timestamp with growing duration, a packet every 20 ms, and its end three times in the
first ticks of the pause. One too long for the duration's 16 bits goes on in segments (section 2.5.1.3). Between keys
the leg's audio is silence.
"""

from typing import Final, NamedTuple

from trunkline.media import protocol
from trunkline.media.engine.sounds import PAUSES_MS
from trunkline.media.engine.state import FRAME, RATE
from trunkline.rtp.telephone_event import END_PACKETS, KEYS, MAX_DURATION, Payload

FRAME_MS: Final = FRAME * 1000 // RATE
MIN_ON_FRAMES: Final = 2
"""40 ms: the least that receivers must recognise."""
PAUSE: Final = -1
"""In place of an event code."""


class KeyPacket(NamedTuple):
    """A telephone-event packet that a leg sends in this tick instead of audio."""

    row: int
    timestamp: int
    payload: bytes
    marker: bool


class Moment(NamedTuple):
    """The packet due at one point of a script."""

    payload: bytes
    first: bool
    """Whether a new event begins here."""
    begin: int = 0
    """Samples from the event's beginning to that of its segment."""


def script(item: protocol.Digits) -> list[tuple[int, int, int]]:
    """(event code or PAUSE, samples on, samples off) of each character, in whole frames."""
    steps = []
    on = max(MIN_ON_FRAMES, -(-item.on_ms // FRAME_MS)) * FRAME
    off = max(END_PACKETS, -(-item.off_ms // FRAME_MS)) * FRAME
    for digit in item.digits:
        if digit in PAUSES_MS:
            steps.append((PAUSE, 0, PAUSES_MS[digit] * RATE // 1000))
        else:
            steps.append((KEYS.index(digit.upper()), on, off))
    return steps


def script_length(steps: list[tuple[int, int, int]]) -> int:
    """Samples of the whole."""
    return sum(on + off for _, on, off in steps)


def at_offset(steps: list[tuple[int, int, int]], offset: int, scale: int = 1) -> Moment | None:
    """What is sent in the frame that begins at `offset` samples; None: audio (silence). `scale`: units of a sample in
    the events' clock."""
    segment = MAX_DURATION // scale // FRAME * FRAME
    for code, on, off in steps:
        if offset < on + off:
            if code == PAUSE or offset >= on + (END_PACKETS - 1) * FRAME:
                return None
            # The last frame of the key is its first end packet.
            end = offset + FRAME >= on
            done = min(offset + FRAME, on)
            begin = (done - 1) // segment * segment
            return Moment(Payload(code, end, (done - begin) * scale).encode(), offset == 0, begin)
        offset -= on + off
    return None
