"""The demo's own Trunkline: a `trunkline dev` process with its data, account and number, and a phone on its network."""

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote

NUMBER: Final = "+12025550142"
HANDSET: Final = "+12025550199"
"""Numbers of the range that North America keeps for fiction."""
ACCOUNT_NAME: Final = "Demo"
PORT: Final = 8080
START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 60.0
COMMAND_TIMEOUT_S: Final = 60.0
CALL_TIMEOUT_S: Final = 30.0
"""One request about a call."""
POLL_S: Final = 0.1
LOG_LINES: Final = 15
"""Lines of the server's log that a failure shows."""
SETTINGS: Final = """\
# Written by the demo; a carrier that is only simulated.
[server]
port = {port}

[data]
path = "data"

[[connectors]]
kind = "loopback"
name = "simulated"
delay_s = 0.5

[sip]
enabled = true
port = 0

[media]
legs = 50

[speech]
engine = "{speech}"

[[trunks]]
name = "simulated"
simulated = true
"""


class DemoFailed(Exception):
    """A step did not happen; the text says which."""


class DemoServer:
    """See the module. One at a time works in a folder."""

    def __init__(self, folder: Path, port: int | None = None, speech: str = "auto") -> None:
        """`port` None: the one of the last time or 8080 if it is free, else any. `speech`: the engine of `<Say>`.

        Raises DemoFailed."""
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _lock(self.folder / "lock")
        self._config = self.folder / "trunkline.toml"
        self._log = self.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _port(_last_port(self._config) if port is None else port)
        self.url = f"http://127.0.0.1:{self.port}"
        self._config.write_text(SETTINGS.format(port=self.port, speech=speech), encoding="utf-8")

    # -- setting up -----------------------------------------------------------------------------------------

    def account(self) -> tuple[str, str]:
        """SID and auth token of the demo's account, made if it is not there."""
        rows = self._table("accounts", "list") if (self.folder / "data").is_dir() else []
        sid = next((row[0] for row in rows if row[1] == ACCOUNT_NAME and row[2] == "active"), "")
        if not sid:
            fields = self._command("accounts", "create", "--name", ACCOUNT_NAME).splitlines()
            sid = next(line.split()[1] for line in fields if line.startswith("sid "))
        return sid, self._command("accounts", "token", sid).strip()

    def give_number(self, account_sid: str, sms_url: str) -> bool:
        """Give NUMBER to the account if it has it not; False when it was there (with the URL of the last time)."""
        if any(row[0] == NUMBER for row in self._table("numbers", "list")):
            return False
        self._command("numbers", "add", NUMBER, "--account", account_sid, "--sms-url", sms_url)
        return True

    @property
    def number(self) -> str:
        """What the demo's phone dials."""
        return NUMBER

    def _table(self, *arguments: str) -> list[list[str]]:
        return [line.split("\t") for line in self._command(*arguments).splitlines()[1:]]

    def _command(self, *arguments: str) -> str:
        done = subprocess.run(  # noqa: S603 - our own program, no shell
            [sys.executable, "-m", "trunkline", "--config", str(self._config), *arguments],
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise DemoFailed(f"trunkline {' '.join(arguments)}: {done.stderr.strip()[-500:]}")
        return done.stdout

    # -- running --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process and wait until it is ready. Raises DemoFailed."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - as above
                [sys.executable, "-m", "trunkline", "--config", str(self._config), "dev"],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops it
            )
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise DemoFailed(f"the server ended with status {self._process.returncode}")
            with contextlib.suppress(OSError, DemoFailed):
                self.call("GET", "/readyz", timeout_s=2)
                return
            time.sleep(POLL_S)
        raise DemoFailed(f"the server was not ready within {START_TIMEOUT_S:g} s")

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._lock.close()

    def log_tail(self) -> str:
        """The end of the server's log; nothing when it was not started, the log is the last one's then."""
        if self._process is None:
            return ""
        try:
            return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:])
        except OSError:
            return ""

    def simulator(self, method: str, path: str, document: object = None) -> Any:
        """See trunkline.testing.phones.client.Simulator."""
        return self.call(method, path, document, CALL_TIMEOUT_S)

    def call(self, method: str, path: str, body: object = None, timeout_s: float = 10) -> Any:
        """One request to the server; its JSON answer, the octets of audio, or the text. Raises DemoFailed, OSError."""
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, content, method=method)  # noqa: S310 - our own URL
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
                octets = answer.read()
                if answer.headers.get_content_maintype() == "audio":
                    return octets
                text = octets.decode()
        except urllib.error.HTTPError as error:
            with error:
                raise DemoFailed(f"{method} {path}: HTTP {error.code} {error.read(300)!r}") from None
        return json.loads(text) if text[:1] in ("{", "[") else text


class DemoHandset:
    """The handset of the demo, played through the server's simulator."""

    def __init__(self, server: DemoServer, number: str = HANDSET) -> None:
        self.number = number
        self.path = f"/_simulator/handsets/{quote(number)}/messages"
        self._server = server
        self._seen = 0

    def receives(self, wait_s: float) -> list[dict[str, Any]]:
        """What has come since the last call; waits at most so many seconds for the first."""
        query = f"?after={self._seen}&wait_s={wait_s:g}"
        texts: list[dict[str, Any]] = self._server.call("GET", self.path + query, timeout_s=wait_s + 10)["messages"]
        if texts:
            self._seen = texts[-1]["id"]
        return texts

    def expects(self, body: str, timeout_s: float) -> dict[str, Any]:
        """Wait for a message that contains `body`. Raises DemoFailed."""
        end = time.monotonic() + timeout_s
        while (left := end - time.monotonic()) > 0:
            for text in self.receives(left):
                if body in text["body"]:
                    return text
        raise DemoFailed(f"the handset did not receive {body!r} within {timeout_s:g} s")

    def sends(self, body: str, to: str = NUMBER) -> None:
        """Send a message; returns once Trunkline has it. Raises DemoFailed."""
        self._server.call("POST", self.path, {"to": to, "body": body})


def _lock(path: Path) -> IO[str]:
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise DemoFailed(f"another demo runs in {path.parent}: end it first") from None
    return file


def _last_port(config: Path) -> int:
    try:
        port = tomllib.loads(config.read_text(encoding="utf-8"))["server"]["port"]
    except (OSError, tomllib.TOMLDecodeError, KeyError):
        return PORT
    return port if isinstance(port, int) else PORT


def _port(wanted: int) -> int:
    """`wanted` if it is free, else a free one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise DemoFailed("no TCP port is free")


def _environment() -> dict[str, str]:
    """Ours, without settings of another Trunkline."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
    return {**kept, "TRUNKLINE_PROFILE": "development"}
