"""Simulated phones of a running development server, played over HTTP by tests. Everything here blocks.

    phone = trunkline.phone()
    call = phone.dials(trunkline.number)
    call.hears("Press one for sales.")
    call.press("1")
    call.hangs_up()

Texts are those that the server says: `hears` has them spoken by the same engine and looks for that audio in what the
phone received. Give it the whole text of one `<Say>`.
"""

import re
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from trunkline.testing.phones.things import (
    Audio,
    Behaviour,
    CallState,
    Dial,
    File,
    Keys,
    Outcome,
    Registered,
    Registration,
    Silence,
    Sound,
    Spoken,
    Tone,
)

CALL_TIMEOUT_S: Final = 20.0
"""How long a call is waited for, in or out."""
MAX_NAME: Final = 255
"""Characters of a phone's name."""
HEAR_TIMEOUT_S: Final = 15.0
SAY_TIMEOUT_S: Final = 120.0
SLICE_S: Final = 1.0
"""Longest wait of one request: the end of the server waits for it."""


class NotHeard(AssertionError):
    """What was listened for was not heard; the text says what was."""


class CallFailed(AssertionError):
    """The call did not come, or did not go as expected."""


class Simulator(Protocol):
    """A running server (testing.local.Local) as far as it is needed here."""

    @property
    def number(self) -> str:
        """What phones dial by default."""

    def simulator(self, method: str, path: str, document: object = None) -> Any:
        """Ask the control surface; a JSON answer, or octets."""


class RemotePhone:
    """One phone."""

    def __init__(self, server: Simulator, number: str) -> None:
        self.number = number
        self._server = server
        self._path = f"/_simulator/phones/{urllib.parse.quote(number)}"
        self._seen = int(server.simulator("GET", self._path)["calls"])  # from now on there is such a phone
        known = server.simulator("GET", f"{self._path}/calls")["calls"] if self._seen else ()
        ringing = [one["id"] for one in known if one["direction"] == "in" and one["state"] in ("calling", "ringing")]
        self._seen = min([self._seen, *(number - 1 for number in ringing)])
        self._behaviour = Behaviour()
        self._codecs: list[str] = []

    def __repr__(self) -> str:
        return f"RemotePhone({self.number})"

    # -- calling -----------------------------------------------------------------------------------------------

    def dials(
        self,
        to: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        caller: str = "",
        codecs: Sequence[str] = (),
        dtmf: bool = True,
        late_offer: bool = False,
        transport: str = "UDP",
        wait: bool = True,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> "RemoteCall":
        """Call a number, the account's first by default; returns once it is answered or refused.

        `wait` False: at once. `caller`: what it shows instead of its number, `anonymous` for none. `dtmf` False: it
        knows no telephone-events. `late_offer`: its INVITE has no SDP. A refused call is returned too (see
        `rejected_with`). Raises CallFailed when neither happens in time."""
        wanted = Dial(
            to=to or self._server.number, headers=dict(headers or {}), caller=caller,
            codecs=list(codecs) or self._codecs, dtmf=dtmf, late_offer=late_offer, transport=transport,
        )  # fmt: skip
        state = self._server.simulator("POST", f"{self._path}/calls", msgspec.to_builtins(wanted))
        call = RemoteCall(self._server, self._path, int(state["id"]))
        self._seen = max(self._seen, call.id)
        if wait:
            call.reaches("up", timeout_s)
        return call

    def answers(self, timeout_s: float = CALL_TIMEOUT_S) -> "RemoteCall":
        """Wait for the next call and pick up. Raises CallFailed."""
        call = self.rings(timeout_s)
        if call.state.state == "ringing":
            call.answers(timeout_s=timeout_s)
        return call

    def rings(self, timeout_s: float = CALL_TIMEOUT_S) -> "RemoteCall":
        """Wait for the next call, and let it ring. Raises CallFailed."""
        end = time.monotonic() + timeout_s
        while (left := end - time.monotonic()) > 0:
            query = f"?after={self._seen}&wait_s={min(left, SLICE_S):.3f}"
            for state in self._server.simulator("GET", f"{self._path}/calls{query}")["calls"]:
                self._seen = int(state["id"])
                if state["direction"] == "in" and state["ended_by"] != "phone":  # it did not refuse it by itself
                    return RemoteCall(self._server, self._path, self._seen)
        raise CallFailed(f"{self.number} did not ring within {timeout_s:g} s")

    # -- how it behaves from now on ----------------------------------------------------------------------------

    def speaks(self, *codecs: str) -> None:
        """Offer and take these codecs (PCMU, PCMA, G722, opus), the best first. At first it offers PCMU and PCMA, and
        takes all."""
        self._codecs = list(codecs)
        self._behave(self._behaviour)

    def on(self) -> None:
        """Ring, and wait for what the test does: as it is at first."""
        self._behave(Behaviour())

    def off(self) -> None:
        """Not reachable: 480."""
        self._behave(Behaviour(does="off"))

    def declines(self, after_s: float = 0) -> None:
        """Refuse calls (603), also one that rings now."""
        self._behave(Behaviour(does="declines", after_s=after_s))

    def is_busy(self) -> None:
        """Be engaged: 486."""
        self._behave(Behaviour(does="busy"))

    def never_answers(self) -> None:
        """Ring for ever."""
        self._behave(Behaviour())

    def rejects(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        """Refuse calls with a SIP status."""
        self._behave(Behaviour(does="rejects", status=status, headers=dict(headers or {})))

    def picks_up(self, after_s: float = 0, headers: Mapping[str, str] | None = None) -> None:
        """Answer calls by itself."""
        self._behave(Behaviour(does="answers", after_s=after_s, headers=dict(headers or {})))

    def stays(self, status: int = 603) -> None:
        """Refuse to call elsewhere when it is asked to (REFER); it does so by itself otherwise."""
        self._behave(Behaviour(refer_status=status))

    def _behave(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        wanted = msgspec.structs.replace(behaviour, codecs=self._codecs)
        self._server.simulator("POST", self._path, msgspec.to_builtins(wanted))


class RemoteSipPhone(RemotePhone):
    """A phone that is a user of a SIP domain: it registers there, dials by it and is called by `sip:user@domain`."""

    def __init__(self, server: Simulator, user: str, password: str, domain: str, transport: str = "UDP") -> None:
        self.user, self.password, self.domain, self.transport = user, password, domain, transport
        name = re.sub("[^A-Za-z0-9+._-]", "_", f"{user}-{domain}-{transport.lower()}")
        super().__init__(server, name[:MAX_NAME])

    @property
    def uri(self) -> str:
        """What it is called by."""
        return f"sip:{self.user}@{self.domain}"

    def registers(self, *, expires_s: int = 600, headers: Mapping[str, str] | None = None) -> Registered:
        """Register, or register again; how it went (`status` 200: it did)."""
        wanted = Registration(
            user=self.user, password=self.password, domain=self.domain, transport=self.transport, expires_s=expires_s,
            headers=dict(headers or {}),
        )  # fmt: skip
        found = self._server.simulator("POST", f"{self._path}/registration", msgspec.to_builtins(wanted))
        return msgspec.convert(found, Registered)

    def leaves(self) -> Registered:
        """Take its registration back."""
        return self.registers(expires_s=0)

    def dials(self, to: str = "", **more: Any) -> "RemoteCall":
        """Call somebody at the domain (or a whole `sip:` URI), logged in as its user. See `RemotePhone.dials`."""
        return super().dials(to, **{"transport": self.transport, **more})


class RemoteCall:
    """One call of a phone. `state` is asked for anew each time."""

    def __init__(self, server: Simulator, phone: str, number: int) -> None:
        self.id = number
        """1 for the phone's first call, and so on."""
        self._server = server
        self._path = f"{phone}/calls/{number}"

    # -- how it is ---------------------------------------------------------------------------------------------

    @property
    def state(self) -> CallState:
        """Everything that the phone knows of it."""
        return self._get(0, 0)

    @property
    def status(self) -> int:
        """The final SIP status of the INVITE; 0 while there is none."""
        return self.state.status

    @property
    def rejected_with(self) -> int:
        """The SIP status that it was refused with; 0: it was not."""
        status = self.status
        return status if status >= 300 else 0

    @property
    def keys(self) -> str:
        """Keys heard as telephone-events."""
        return self.state.keys

    def reaches(self, wanted: str, timeout_s: float = CALL_TIMEOUT_S) -> CallState:
        """Wait until it is `ringing`, `up` or `ended`; an ended call is returned whatever was wanted."""
        order = ("calling", "ringing", "up", "ended")
        return self.becomes(lambda state: order.index(state.state) >= order.index(wanted), wanted, timeout_s)

    def becomes(
        self, good: Callable[[CallState], bool], what: str = "as expected", timeout_s: float = CALL_TIMEOUT_S
    ) -> CallState:
        """Wait until its state is as wanted. Raises CallFailed."""
        end = time.monotonic() + timeout_s
        state = self.state
        while not good(state):
            left = end - time.monotonic()
            if left <= 0:
                raise CallFailed(f"the call is not {what} after {timeout_s:g} s, but {state}")
            state = self._get(state.changes, min(left, SLICE_S))
        return state

    def ended(self, timeout_s: float = CALL_TIMEOUT_S) -> CallState:
        """Wait for its end; how it ended. Raises CallFailed."""
        return self.reaches("ended", timeout_s)

    # -- hearing -----------------------------------------------------------------------------------------------

    def hears(
        self, what: str | Path | Sound, *, voice: str = "", language: str = "", timeout_s: float = HEAR_TIMEOUT_S
    ) -> Outcome:
        """Wait until a text, an audio file, or a tone, silence or keys (see `things`) is heard. Raises NotHeard.

        What was heard is used up: the next `hears` listens to what comes after it."""
        return self._hear(_sound(what, voice, language), timeout_s)

    def hears_tone(self, *frequencies: int, ms: int = 200, timeout_s: float = HEAR_TIMEOUT_S) -> Outcome:
        """Wait for these frequencies together, and nothing else, for so long. Raises NotHeard."""
        return self._hear(Tone(frequencies=list(frequencies), ms=ms), timeout_s)

    def hears_silence(self, seconds: float = 1.0, timeout_s: float = HEAR_TIMEOUT_S) -> Outcome:
        """Wait for so much silence. Raises NotHeard."""
        return self._hear(Silence(ms=int(seconds * 1000)), timeout_s)

    def hears_keys(self, keys: str, timeout_s: float = HEAR_TIMEOUT_S) -> Outcome:
        """Wait for the other side to press these keys next. Raises NotHeard."""
        return self._hear(Keys(keys=keys), timeout_s)

    def heard_wav(self) -> bytes:
        """All that was heard so far, as a WAV file of 16-bit PCM."""
        octets = self._server.simulator("GET", f"{self._path}/heard.wav")
        assert isinstance(octets, bytes)
        return octets

    def _hear(self, what: Sound, timeout_s: float) -> Outcome:
        end = time.monotonic() + timeout_s
        while True:
            left = end - time.monotonic()
            wait_s = min(max(left, 0.0), SLICE_S)
            given = {"what": msgspec.to_builtins(what), "wait_s": wait_s, "explain": left <= SLICE_S}
            outcome = msgspec.convert(self._do("hear", **given), Outcome)
            if outcome.heard:
                return outcome
            if outcome.over or left <= SLICE_S:
                explained = outcome.explanation or self._explanation(what)
                raise NotHeard(f"not heard within {timeout_s:g} s: {_words(what)}\n{explained}")

    def _explanation(self, what: Sound) -> str:
        found = self._do("hear", what=msgspec.to_builtins(what), wait_s=0, explain=True)
        return str(found["explanation"])

    # -- doing -------------------------------------------------------------------------------------------------

    def press(self, digits: str, *, how: str = "rfc4733", wait: bool = True) -> None:
        """Press keys (`w` waits half a second): `rfc4733`, `in-band` or `info`. Returns when they are pressed."""
        self._do("press", digits=digits, how=how)
        if wait and how != "info":
            self._finish()

    def says(self, what: str | Path | Audio, *, voice: str = "", language: str = "", wait: bool = True) -> None:
        """Say a text, an audio file or a tone. Returns when it is said, unless `wait` is False."""
        self._do("say", what=msgspec.to_builtins(_sound(what, voice, language)))
        if wait:
            self._finish()

    def answers(self, headers: Mapping[str, str] | None = None, timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Pick up a call that rings. Raises CallFailed when it does not come about."""
        self._do("answer", headers=dict(headers or {}))
        state = self.reaches("up", timeout_s)
        if state.state != "up":
            raise CallFailed(f"the call ended before it was answered: {state}")

    def declines(self, status: int = 603, headers: Mapping[str, str] | None = None) -> None:
        """Refuse a call that rings."""
        self._do("reject", status=status, headers=dict(headers or {}))

    def hangs_up(self, headers: Mapping[str, str] | None = None) -> None:
        """End the call as it stands: BYE, CANCEL or a refusal."""
        self._do("hang-up", headers=dict(headers or {}))

    def holds(self) -> None:
        """Hold the call; returns when the other side has agreed. Raises CallFailed."""
        self._do("hold", on=True)
        self.becomes(lambda state: state.on_hold or state.state == "ended", "on hold")

    def resumes(self) -> None:
        """Take it up again. Raises CallFailed."""
        self._do("hold", on=False)
        self.becomes(lambda state: not state.on_hold or state.state == "ended", "off hold")

    def refers(self, to: str, wait: bool = True) -> None:
        """Ask the other side to call `to` (a number or a SIP URI) in its place; returns when that has been accepted or
        refused (`state.refer_response`), `wait=False`: at once."""
        self._do("refer", to=to)
        if wait:
            self.becomes(lambda state: state.refer_response > 0 or state.state == "ended", "answered")

    def loses(self, share: float, jitter_ms: float = 0.0, direction: str = "both", seed: int = 1) -> None:
        """Let packets be lost (0 to 1) and late from now on: `in`, `out` or `both`."""
        self._do("impair", loss=share, jitter_ms=jitter_ms, direction=direction, seed=seed)

    def _finish(self) -> None:
        end = time.monotonic() + SAY_TIMEOUT_S
        while not self._do("finish", wait_s=SLICE_S)["heard"]:
            if time.monotonic() > end:
                raise CallFailed(f"not all is said after {SAY_TIMEOUT_S:g} s")

    def _do(self, deed: str, **more: Any) -> Any:
        return self._server.simulator("POST", self._path, {"do": deed, **more})

    def _get(self, after: int, wait_s: float) -> CallState:
        found = self._server.simulator("GET", f"{self._path}?after={after}&wait_s={wait_s:.3f}")
        return msgspec.convert(found, CallState)


def _sound(what: Any, voice: str, language: str) -> Any:
    if isinstance(what, str):
        return Spoken(text=what, voice=voice, language=language)
    return File(path=str(what.absolute())) if isinstance(what, Path) else what


def _words(what: Sound) -> str:
    match what:
        case Spoken():
            return f"the text {what.text!r}"
        case File():
            return f"the audio of {what.path}"
        case Tone():
            return f"{what.ms} ms of {'+'.join(map(str, what.frequencies))} Hz"
        case Silence():
            return f"{what.ms / 1000:g} s of silence"
        case Keys():
            return f"the keys {what.keys}"
