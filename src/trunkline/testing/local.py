"""A Trunkline of a test run's own: `trunkline dev` in a process, with an account, two numbers and simulated phones.

    with Local(folder) as trunkline:
        ada = trunkline.handset()
        trunkline.client.messages.create(to=ada.number, from_=trunkline.number, body="Hello")
        assert ada.receives().body == "Hello"

        bob = trunkline.phone()
        trunkline.client.calls.create(to=bob.number, from_=trunkline.number, twiml="<Response><Say>Hi</Say></Response>")
        bob.answers().hears("Hi")

The fixtures of trunkline.testing.plugin are made of this. Everything here blocks, so that it serves any test.
"""

import base64
import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from trunkline.testing.handsets import RECEIVE_TIMEOUT_S, UNREACHABLE, NotReceived, Text
from trunkline.testing.phones.client import RemotePhone, RemoteSipPhone

START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 60.0
CALL_TIMEOUT_S: Final = 90.0
POLL_S: Final = 0.05
LOG_LINES: Final = 20
"""Lines of the server's log that a failure shows."""
FIRST_HANDSET: Final = 15_555_550_100
"""Numbers of handsets that are asked for without one, counted up."""
SETTINGS: Final = """\
[server]
shutdown_s = 1

[messaging]
long_code_mps = 0

[webhooks]
retry_first_s = 0.2

[[connectors]]
kind = "loopback"
name = "simulated"
delay_s = 0.02

[sip]
enabled = true
port = 0

[media]
legs = 50

[voice]
calls_per_second = 0

[speech]
engine = "tones"

[[trunks]]
name = "simulated"
simulated = true
codecs = ["PCMU", "PCMA", "G722", "opus"]
"""
"""Nothing waits for a rate, receipts come soon, and each spoken text is half a second of tones of its own."""
FORCED: Final = {
    "TRUNKLINE_PROFILE": "development",
    "TRUNKLINE_SERVER_HOST": "127.0.0.1",
    "TRUNKLINE_SERVER_PORT": "0",
    "TRUNKLINE_LOG_LEVEL": "info",
    "TRUNKLINE_LOG_FORMAT": "console",
}

_LISTENING = re.compile(r"listening on \S+ port (\d+)")
_PRINTED = re.compile(r"^  (account|token|numbers) +(.+)$", re.MULTILINE)


class LocalFailed(Exception):
    """The server did not start, or refused a request; the text says why."""


class RemoteHandset:
    """A simulated phone of a running development server, played over HTTP."""

    def __init__(self, local: "Local", number: str) -> None:
        self.number = number
        self._local = local
        self._path = f"/_simulator/handsets/{urllib.parse.quote(number)}"
        self._seen = 0

    def receives(self, body: str | None = None, *, timeout_s: float = RECEIVE_TIMEOUT_S) -> Text:
        """Wait for a message (with exactly this text) that no earlier call has returned. Raises NotReceived."""
        end = time.monotonic() + timeout_s
        after, got = self._seen, []
        while (left := end - time.monotonic()) > 0:
            answer = self._local.simulator("GET", f"{self._path}/messages?after={after}&wait_s={left:.3f}")
            for text in msgspec.convert(answer["messages"], list[Text]):
                if body in (None, text.body):
                    self._seen = text.id
                    return text
                after = text.id
                got.append(text.body)
        raise NotReceived(f"{self.number} did not receive {body!r} within {timeout_s:g} s, but {got}")

    def sends(self, body: str, to: str = "", media_urls: Sequence[str] = ()) -> None:
        """Send a message, to the account's first number by default; returns once it is kept. Raises LocalFailed."""
        sent = {"to": to or self._local.number, "body": body, "media_urls": list(media_urls)}
        self._local.simulator("POST", f"{self._path}/messages", sent)

    def replies(self, *bodies: str) -> None:
        """Answer the next messages with these, one each."""
        self._local.simulator("POST", self._path, {"replies": list(bodies)})

    def fails(self, error_code: int) -> None:
        """Let messages to it end with this code (30003 to 30008); 0: let them arrive again."""
        self._local.simulator("POST", self._path, {"fails": error_code})

    def off(self) -> None:
        """Switch it off: messages to it expire (30003)."""
        self.fails(UNREACHABLE)

    def on(self) -> None:
        """Switch it on again."""
        self.fails(0)


class Local:
    """See the module. `settings` are variables such as TRUNKLINE_MESSAGING_SCHEDULE_MIN_S, over SETTINGS."""

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.url = ""
        """Where it serves, without a slash at the end."""
        self.account_sid = self.auth_token = ""
        self.numbers: tuple[str, ...] = ()
        """The account's numbers."""
        self._given = dict(settings or {})
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._handsets = itertools.count(FIRST_HANDSET)
        self._client: Any = None
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    # -- life ------------------------------------------------------------------------------------------------

    def __enter__(self) -> "Local":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it is ready. Raises LocalFailed."""
        config = self.folder / "trunkline.toml"
        config.write_text(SETTINGS, encoding="utf-8")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
        command = [sys.executable, "-m", "trunkline", "--config", str(config), "--data", str(self.folder / "data")]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own program, no shell
                [*command, "dev"],
                env={**kept, **self._given, **FORCED},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = time.monotonic() + START_TIMEOUT_S
        while not self._ready():
            if self._process.poll() is not None:
                raise LocalFailed(f"the server ended with status {self._process.returncode}:\n{self.log_tail()}")
            if time.monotonic() > end:
                raise LocalFailed(f"the server was not ready within {START_TIMEOUT_S:g} s:\n{self.log_tail()}")
            time.sleep(POLL_S)

    def _ready(self) -> bool:
        """Whether it serves; then everything it printed is known."""
        text = self._log.read_text(encoding="utf-8", errors="replace")
        listening = _LISTENING.search(text)
        if listening is None:
            return False
        printed = dict(_PRINTED.findall(text))
        self.url = f"http://127.0.0.1:{listening[1]}"
        self.account_sid, self.auth_token = printed["account"], printed["token"]
        self.numbers = tuple(printed["numbers"].split())
        with contextlib.suppress(OSError, LocalFailed):
            self._ask("GET", "/readyz", None, {})
            return True
        return False

    def stop(self) -> None:
        """End the process."""
        if self._client is not None:
            self._client.http_client.session.close()
            self._client = None
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def log_tail(self) -> str:
        """The end of the server's log."""
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:])

    # -- what tests use --------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """Of the process that was started; the rest of the server are its children. 0: it does not run."""
        return self._process.pid if self._process is not None else 0

    @property
    def number(self) -> str:
        """The first of the account's numbers."""
        return self.numbers[0]

    @property
    def client(self) -> Any:
        """Twilio's own client (`pip install twilio`), logged in and pointed here, every product of it."""
        if self._client is None:
            from twilio.rest import Client  # type: ignore[import-untyped]

            self._client = Client(self.account_sid, self.auth_token, http_client=http_client(self.url))
        return self._client

    @property
    def environment(self) -> dict[str, str]:
        """For programs under test: TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN and TRUNKLINE_URL."""
        return {
            "TWILIO_ACCOUNT_SID": self.account_sid,
            "TWILIO_AUTH_TOKEN": self.auth_token,
            "TRUNKLINE_URL": self.url,
        }

    def handset(self, number: str = "") -> RemoteHandset:
        """The phone with this number, else one that nobody has used yet."""
        return RemoteHandset(self, number or f"+{next(self._handsets)}")

    def phone(self, number: str = "") -> RemotePhone:
        """The phone for calls with this number, else one that nobody has used yet."""
        return RemotePhone(self, number or f"+{next(self._handsets)}")

    def sip_phone(self, user: str, password: str, domain: str, transport: str = "UDP") -> RemoteSipPhone:
        """A phone for calls that is a user of a SIP domain, by UDP or TCP; let it register before it is called."""
        return RemoteSipPhone(self, user, password, domain, transport)

    def answer_at(self, url: str, number: str = "") -> None:
        """Let calls to one of the numbers (the first by default) be answered by the TwiML at a URL: its VoiceUrl."""
        self._announce_at(number, {"VoiceUrl": url, "VoiceMethod": "POST"})

    def receive_at(self, url: str, number: str = "") -> None:
        """Let messages to one of the numbers (the first by default) be announced at a URL: its SmsUrl."""
        self._announce_at(number, {"SmsUrl": url, "SmsMethod": "POST"})

    def _announce_at(self, number: str, fields: Mapping[str, str]) -> None:
        path = f"/2010-04-01/Accounts/{self.account_sid}/IncomingPhoneNumbers"
        query = urllib.parse.urlencode({"PhoneNumber": number or self.number})
        (found,) = self.call("GET", f"{path}.json?{query}")["incoming_phone_numbers"]
        self.call("POST", f"{path}/{found['sid']}.json", fields)

    def call(self, method: str, path: str, fields: Mapping[str, Any] | None = None) -> Any:
        """One logged-in request to the REST API, without any SDK; its JSON answer. Raises LocalFailed."""
        login = base64.b64encode(f"{self.account_sid}:{self.auth_token}".encode()).decode()
        body = None if fields is None else urllib.parse.urlencode(fields, doseq=True).encode()
        return self._ask(method, path, body, {"Authorization": f"Basic {login}"})

    def fetch(self, url: str) -> Any:
        """What is at a URL of this server, logged in: the octets of audio, JSON, or text. Raises LocalFailed."""
        return self.call("GET", url.removeprefix(self.url))

    def simulator(self, method: str, path: str, document: object = None) -> Any:
        """One request to the simulator's control surface (trunkline.testing.simulator): JSON, or the octets of audio.

        Raises LocalFailed."""
        body = None if document is None else json.dumps(document).encode()
        return self._ask(method, path, body, {"Content-Type": "application/json"})

    def _ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Any:
        request = urllib.request.Request(self.url + path, body, dict(headers), method=method)  # noqa: S310
        try:
            with self._opener.open(request, timeout=CALL_TIMEOUT_S + RECEIVE_TIMEOUT_S) as answer:
                text = answer.read()
                if answer.headers.get_content_maintype() == "audio":
                    return text
        except urllib.error.HTTPError as error:
            with error:
                shown = error.read(500).decode("utf-8", "replace")
                raise LocalFailed(f"{method} {path}: HTTP {error.code} {shown}") from None
        return json.loads(text) if text[:1] in (b"{", b"[") else text.decode()


def http_client(url: str) -> Any:
    """An HTTP client for Twilio's Python SDK that sends every request to `url` instead of `*.twilio.com`."""
    from twilio.http.http_client import TwilioHttpClient  # type: ignore[import-untyped]

    made = TwilioHttpClient()
    made.session.trust_env = False  # a proxy is not the way to one's own machine
    send = made.request
    made.request = lambda method, to, *args, **kwargs: send(method, local_url(to, url), *args, **kwargs)
    return made


def local_url(to: str, base: str) -> str:
    """The address at `base` of what Twilio has at `to`: the product goes from the host name into the path."""
    parts = urllib.parse.urlsplit(to)
    host = parts.hostname or ""
    if not host.endswith(".twilio.com"):
        return to
    product = host.partition(".")[0]
    prefix = "" if product == "api" else f"/{product}"
    return f"{base}{prefix}{parts.path}" + (f"?{parts.query}" if parts.query else "")
