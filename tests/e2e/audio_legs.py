"""Calls whose keys are gathered, for tests of how keys are heard."""

import random
import time

from tests.e2e.audio_line import Call, Line
from tests.e2e.audio_peer import EVENT_KEYS, Peer, Wire
from tests.e2e.voice_app import response
from tests.interop.switch import Switch


class Legs:
    """Calls that have their keys gathered, told apart by caller. They end with the last key, or some time after it."""

    def __init__(self, switch: Switch, line: Line, wire: Wire) -> None:
        self._switch, self._line, self.wire = switch, line, wire
        self.calls: dict[str, Call] = {}
        self._gathers: dict[str, str] = {}
        switch.answers()
        switch.app.answers["/voice"] = lambda form: response(self._gathers[form["From"]])
        switch.app.answers["/keys"] = response("<Hangup/>")

    def add(self, peer: Peer, keys: int = 0, finish: str = "", timeout_s: int = 3, inner: str = "") -> Call:
        """One more call, for so many keys (0: any number, up to the one that finishes), with prompts.

        Next: `dialled`, when all are there."""
        caller = f"+1555{len(self.calls) + 1000:07d}"
        most = f'numDigits="{keys}"' if keys else ""
        self._gathers[caller] = f'<Gather {most} finishOnKey="{finish}" timeout="{timeout_s}" action="/keys">'
        self._gathers[caller] += f"{inner}</Gather>"
        call = self.calls[caller] = self._line.dials(self._switch.number, peer, caller)
        return call

    def dialled(self) -> None:
        """Wait until all are answered."""
        for call in self.calls.values():
            call.wait()

    def told(self, timeout_s: float) -> dict[str, str]:
        """The keys that each call's action was told; empty where it was told none."""
        until = time.monotonic() + timeout_s
        for call in self.calls.values():
            assert call.ended.wait(max(0.0, until - time.monotonic())), "the call goes on"
            call.hang_up()
        told = {form["From"]: form["Digits"] for form in self._switch.app.at("/keys")}
        return {caller: told.get(caller, "") for caller in self.calls}


def shuffled(count: int, seed: int) -> str:
    """Keys, all 16 before any comes again, in an order of their own."""
    rng = random.Random(seed)
    keys = ""
    while len(keys) < count:
        keys += "".join(rng.sample(EVENT_KEYS, 16))
    return keys[:count]
