"""pjsua2 as a phone of a SIP domain: drives `pjsua_program`."""

import importlib.util
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.interop.baresip import PATIENCE_S, RATE, Samples, growing, hears
from tests.interop.switch import HOST
from tests.ports import free_port

PROGRAM = "tests.interop.pjsua_program"
FOLDER = Path(__file__).parents[2]


def wanted() -> None:
    """Without the library the test fails in CI where there is a wheel of it, and is skipped elsewhere."""
    if importlib.util.find_spec("pjsua2") is None:
        text = "pjsua2 is missing: requirements.lock has its wheel for Linux on x86-64"
        if os.environ.get("CI") and os.uname().machine == "x86_64" and sys.version_info < (3, 13):
            pytest.fail(text)
        pytest.skip(text)


class Pjsua:
    """It registers as `user` at `domain` by way of `proxy`, takes every call, and plays `says` in each. `certificate`:
    PEM file with its key, for connections over TLS that it takes; then its Contact says where."""

    def __init__(
        self, folder: Path, says: Path, *, user: str, password: str, domain: str, proxy: str, transport: str = "UDP",
        codec: str = "PCMU", srtp: str = "", certificate: str = "",
    ) -> None:  # fmt: skip
        wanted()
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.port = free_port()
        options = {
            "folder": str(folder), "says": str(says), "user": user, "password": password, "domain": domain,
            "proxy": proxy, "transport": transport, "codec": codec, "srtp": bool(srtp), "host": HOST, "rate": RATE,
            "rtp_port": free_port(span=8), "port": self.port, "certificate": certificate,
        }  # fmt: skip
        self._errors = (folder / "errors").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", PROGRAM, json.dumps(options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors, cwd=FOLDER,
        )  # fmt: skip
        self._received = b""
        self.events: list[dict[str, Any]] = []

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self.does("quit")
            self._process.wait(PATIENCE_S)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        for one in (self._process.stdin, self._process.stdout, self._errors):
            one.close()

    def does(self, command: str, **more: Any) -> None:
        """See `pjsua_program`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": command, **more}).encode() + b"\n")
        self._process.stdin.flush()

    def sees(self, kind: str, timeout_s: float = PATIENCE_S, **like: Any) -> dict[str, Any]:
        """The next event of a kind with these values that was not seen yet."""
        until = time.monotonic() + timeout_s
        while True:
            for index, event in enumerate(self.events):
                if event["event"] == kind and all(event[name] == value for name, value in like.items()):
                    return self.events.pop(index)
            self._read(max(until - time.monotonic(), 0))

    def _read(self, timeout_s: float) -> None:
        """What has come."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        ready = select.select([descriptor], [], [], timeout_s)[0]
        got = os.read(descriptor, 65_536) if ready else b""
        assert got, f"{self.events}\n{(self.folder / 'errors').read_text()}\n{self.log()[-3000:]}"
        *lines, self._received = (self._received + got).split(b"\n")
        self.events += [json.loads(line) for line in lines if line.startswith(b"{")]  # it greets before it has a log
        errors = [event for event in self.events if event["event"] == "error"]
        assert not errors, errors

    def log(self) -> str:
        """Of PJSIP."""
        return (self.folder / "log").read_text(errors="replace")

    def heard(self, call: int) -> Samples:
        """What came in its call of that number, from 0."""
        return growing(self.folder / f"heard{call}.wav")

    def hears(self, what: Samples, call: int = 0, timeout_s: float = PATIENCE_S, after: int = 0) -> int:
        """Wait until it has heard a sound in that call; the sample where that ended."""
        return hears(lambda: self.heard(call), what, timeout_s, after)
