"""The demo's calls: the phone rings the application up and leaves a message; then the application calls the phone.

What the phone hears is decided by the audio that it received, not by what anybody says was played.
"""

import base64
import urllib.parse
import urllib.request
import wave
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trunkline.testing.demo_app import INVITATION, THANKS, WELCOME
from trunkline.testing.demo_server import HANDSET, NUMBER, DemoFailed, DemoServer
from trunkline.testing.phones.client import RemotePhone

if TYPE_CHECKING:
    from trunkline.testing.demo_app import DemoApp

STEP_TIMEOUT_S: Final = 20.0
FETCH_TIMEOUT_S: Final = 10.0
BEEP_HZ: Final = 1000
MESSAGE: Final = "Hello, this is Ada. A table for two, at eight o'clock, please."
GREETING: Final = "Hello Ada. You left us this message."
DIRECTIONS: Final = ("inbound", "outbound-api")
"""Of the two calls."""

Line = Callable[[str, str, str], None]
"""Shows who does what: name, mark, text."""


class DemoCalls:
    """Two calls. Steps raise DemoFailed, MissingEvent, CallFailed, NotHeard or the library's own errors."""

    def __init__(self, server: DemoServer, client: Any, app: "DemoApp", line: Line, login: tuple[str, str]) -> None:
        self.phone = RemotePhone(server, HANDSET)
        self._server = server
        self._client = client
        self._app = app
        self._line = line
        self._login = login

    def leave_a_message(self) -> Path:
        """The phone calls, presses a key and speaks; returns the recording, fetched as a WAV file."""
        self._line("phone dials", "☎", NUMBER)
        call = self.phone.dials()
        if call.rejected_with:
            raise DemoFailed(f"the call was refused with {call.rejected_with}")
        asked = self._app.wait("voice", STEP_TIMEOUT_S, From=HANDSET).fields
        self._line("application", "☎", f"a call from {asked['From']}  ({asked['CallSid']}, signature verified)")
        self._hears(call, WELCOME)
        call.press("1")
        self._line("phone", "⌨", "1")
        chosen = self._app.wait("menu", STEP_TIMEOUT_S, CallSid=asked["CallSid"]).fields
        self._line("application", "⌨", chosen["Digits"])
        self._hears(call, INVITATION)
        call.hears_tone(BEEP_HZ)
        self._line("phone hears", "♪", "the beep")
        call.hears_silence(0.1)
        call.says(MESSAGE)
        self._line("phone says", "→", MESSAGE)
        call.press("w#")
        self._line("phone", "⌨", "#")
        self._hears(call, THANKS)
        recorded = self._app.wait("recorded", STEP_TIMEOUT_S, CallSid=asked["CallSid"]).fields
        call.ended(STEP_TIMEOUT_S)
        file = self._fetch(recorded["RecordingUrl"])
        self._line("application", "♪", f"the message, {recorded['RecordingDuration']} s, is in {file}")
        return file

    def play_it_back(self) -> None:
        """The application calls the phone and plays the message to it."""
        (recording,) = self._client.recordings.list(limit=1)
        url = f"{self._server.url}/2010-04-01/Accounts/{self._login[0]}/Recordings/{recording.sid}.wav"
        made = self._client.calls.create(
            to=HANDSET,
            from_=NUMBER,
            twiml=f"<Response><Say>{GREETING}</Say><Play>{self._with_login(url)}</Play></Response>",
            status_callback=f"{self._app.url}/call-status",
            status_callback_event=["initiated", "ringing", "answered", "completed"],
        )
        self._line("application", "☎", f"calls {HANDSET}  ({made.sid})")
        call = self.phone.answers(STEP_TIMEOUT_S)
        self._line("phone", "☎", "answers")
        self._hears(call, GREETING)
        self._hears(call, MESSAGE)
        call.ended(STEP_TIMEOUT_S)
        status = ""
        while status != "completed":
            status = self._app.wait("call-status", STEP_TIMEOUT_S, CallSid=made.sid).fields["CallStatus"]
            self._line("", " ", f"{status}  {made.sid}")

    def _hears(self, call: Any, text: str) -> None:
        found = call.hears(text, timeout_s=STEP_TIMEOUT_S)
        self._line("phone hears", "♪", f"{text}  ({found.score:.0%} of its audio)")

    def _fetch(self, url: str) -> Path:
        """The recording, with the account's login. Raises DemoFailed when it is no audio."""
        request = urllib.request.Request(f"{url}.wav")  # noqa: S310 - our own server's
        login = base64.b64encode(":".join(self._login).encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
        file = self._server.folder / "message.wav"
        with urllib.request.urlopen(request, timeout=FETCH_TIMEOUT_S) as answer:  # noqa: S310
            file.write_bytes(answer.read())
        with wave.open(str(file)) as audio:
            if audio.getnframes() < audio.getframerate() // 2:
                raise DemoFailed(f"the recording is {audio.getnframes()} samples long")
        return file

    def _with_login(self, url: str) -> str:
        parts = urllib.parse.urlsplit(url)
        sid, token = self._login
        return parts._replace(netloc=f"{sid}:{token}@{parts.netloc}").geturl()
