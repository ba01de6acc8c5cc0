"""A phone played from the terminal: `trunkline phone +15555550123 'dials +12025550142' 'hears Welcome.' 'presses 1'`.

Each step is a verb and what it is about. A step that does not come about ends the script with StepFailed.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from trunkline.testing.phones.client import CallFailed, NotHeard, RemoteCall, RemotePhone

TIMEOUT_S: Final = 30.0
MAX_WAIT_S: Final = 3600.0
SAVED: Final = "heard.wav"

BEHAVIOURS: Final = {
    "picks-up": RemotePhone.picks_up,
    "declines": RemotePhone.declines,
    "is-busy": RemotePhone.is_busy,
    "is-off": RemotePhone.off,
    "is-on": RemotePhone.on,
}
"""Steps that say how the phone behaves from now on."""
BEGINNINGS: Final = ("dials", "rings", "answers", "waits")
OF_A_CALL: Final = (
    "hears", "hears-tone", "says", "plays", "presses", "answers-it", "holds", "resumes", "hangs-up", "ends", "saves",
)  # fmt: skip


class StepFailed(Exception):
    """A step did not happen; the text says why."""


class HttpSimulator:
    """The simulator of a running server, by its URL."""

    def __init__(self, url: str, number: str = "") -> None:
        """Raises ValueError for what is no http URL."""
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url} is no URL like http://127.0.0.1:8080")
        self.number = number
        self._url = url.rstrip("/")
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def simulator(self, method: str, path: str, document: object = None) -> Any:
        """See `client.Simulator`. Raises StepFailed."""
        body = None if document is None else json.dumps(document).encode()
        request = urllib.request.Request(self._url + path, body, method=method)  # noqa: S310 - checked above
        request.add_header("Content-Type", "application/json")
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                octets = answer.read()
                return octets if answer.headers.get_content_maintype() == "audio" else json.loads(octets)
        except urllib.error.HTTPError as error:
            with error:
                text = error.read(500).decode("utf-8", "replace")
            raise StepFailed(f"HTTP {error.code} {text}") from None
        except OSError as error:
            why = error.reason if isinstance(error, urllib.error.URLError) else error
            raise StepFailed(f"{self._url} does not answer: {getattr(why, 'strerror', None) or why}") from None


class Script:
    """Steps of one phone. `show` is told what happens."""

    def __init__(self, phone: RemotePhone, show: Callable[[str], None]) -> None:
        self._phone = phone
        self._show = show
        self._call: RemoteCall | None = None

    def run(self, steps: Iterable[str]) -> None:
        """Do one step after the other, if all of them are steps. Raises StepFailed."""
        steps = list(steps)
        for verb in (step.strip().partition(" ")[0] for step in steps):
            if verb not in BEHAVIOURS and verb not in BEGINNINGS and verb not in OF_A_CALL:
                raise StepFailed(f"{verb} is no step: see `trunkline phone --help`")
        for step in steps:
            verb, _, about = step.strip().partition(" ")
            try:
                self._step(verb, about.strip())
            except (CallFailed, NotHeard, ValueError) as error:
                raise StepFailed(f"{step}: {error}") from None

    def _step(self, verb: str, about: str) -> None:
        if verb in BEHAVIOURS:
            BEHAVIOURS[verb](self._phone)
            self._show(verb)
            return
        if verb in BEGINNINGS:
            self._begin(verb, about)
            return
        call = self._call
        if call is None:
            raise StepFailed(f"{verb}: there is no call yet: begin with dials, rings or answers")
        match verb:
            case "hears":
                found = call.hears(about)
                self._show(f"hears  {about}  (at {found.at_ms / 1000:.1f} s, {found.score:.0%} of its audio)")
            case "hears-tone":
                call.hears_tone(*(int(one) for one in about.split()))
                self._show(f"hears  {about} Hz")
            case "says":
                call.says(about)
                self._show(f"says   {about}")
            case "plays":
                call.says(Path(about))
                self._show(f"plays  {about}")
            case "presses":
                call.press(about)
                self._show(f"presses {about}")
            case "answers-it":
                call.answers()
                self._show("picks up")
            case "holds" | "resumes":
                (call.holds if verb == "holds" else call.resumes)()
                self._show(verb)
            case "hangs-up":
                call.hangs_up()
                self._show("hangs up")
            case "ends":
                state = call.ended()
                self._show(f"the call was ended by the {state.ended_by}, SIP status {state.status}")
            case _:  # saves
                file = Path(about or SAVED)
                file.write_bytes(call.heard_wav())
                self._show(f"what was heard is in {file}")

    def _begin(self, verb: str, about: str) -> None:
        if verb == "waits":
            time.sleep(min(float(about or 1), MAX_WAIT_S))
            return
        if verb == "dials":
            self._call = self._phone.dials(about)
            refused = self._call.rejected_with
            self._show(f"dials  {about}: " + (f"refused with {refused}" if refused else "answered"))
        else:
            self._call = self._phone.rings(float(about or TIMEOUT_S))
            self._show(f"rings: {self._call.state.remote} calls")
            if verb == "answers" and self._call.state.state == "ringing":
                self._call.answers()
                self._show("answers")
