"""Keys pressed by a leg's peer: telephone-events first, tones in the audio where there are none."""

from collections.abc import Callable
from typing import Final

from trunkline.media.engine.state import TICKS_PER_S, Rows, Samples, State
from trunkline.media.native.interface import Helper
from trunkline.rtp.dtmf import KEYS, Detector
from trunkline.rtp.telephone_event import Press, parse, track

RFC4733, IN_BAND = "rfc4733", "in-band"
"""How a key was heard (protocol.Digit)."""
EVENTS_HOLD: Final = 10 * TICKS_PER_S
"""Ticks after a telephone-event in which tones are not listened to: a peer that sends both means one press."""
SAME_PRESS: Final = TICKS_PER_S // 2
"""Ticks after a tone was told in which a telephone-event of the same key is the same press."""


class Keys:
    """`press(row, digit, how)` is called once per press."""

    def __init__(self, state: State, helper: Helper, *, in_band: bool, press: Callable[[int, str, str], None]) -> None:
        self._state = state
        self._helper = helper
        self._in_band = in_band
        self._press = press
        self._detector = Detector(state.legs, state.detector)
        self.tick = 0
        """Set by the engine."""

    def packet(self, row: int, timestamp: int, payload: bytes, scale: int = 1) -> None:
        """Take a telephone-event packet; `scale`: units of its clock in a sample."""
        event = parse(payload)
        if event is None:
            return
        state = self._state
        state.last_event[row] = self.tick
        press = Press(
            int(state.press_timestamp[row]),
            int(state.press_code[row]),
            bool(state.press_told[row]),
            bool(state.press_ended[row]),
        )
        digit = track(press, timestamp, event, scale)
        state.press_timestamp[row], state.press_code[row] = press.timestamp, press.code
        state.press_told[row], state.press_ended[row] = press.told, press.ended
        if not digit:
            return
        state.peer_events[row] += 1
        heard = int(state.last_in_band_key[row])
        if heard >= 0 and KEYS[heard] == digit and self.tick - int(state.last_in_band[row]) <= SAME_PRESS:
            state.last_in_band_key[row] = -1
            return
        self._press(row, digit, RFC4733)

    def listen(self, rows: Rows, heard: Samples) -> None:
        """Take the frames (`heard[row]`) of legs that may be heard."""
        if not self._in_band or not len(rows):
            return
        state = self._state
        rows = rows[self.tick - state.last_event[rows] > EVENTS_HOLD]
        if not len(rows):
            return
        legs, codes, ended = self._helper.keys(self._detector, rows, heard)
        for row, code, over in zip(legs.tolist(), codes.tolist(), ended.tolist(), strict=True):
            if not over:
                state.last_in_band[row], state.last_in_band_key[row] = self.tick, code
                self._press(row, KEYS[code], IN_BAND)
