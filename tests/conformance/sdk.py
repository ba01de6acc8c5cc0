"""Twilio's SDKs, each in a process of its own, written as in Python:

    sdk.messages.create(to="+1...", from_="+1...", body="Hello")
    sdk.messaging.v1.services(sid).phone_numbers.list(limit=20)
    sdk.messages.pages(page_size=2)         # page by page: a list of lists
    sdk.request("GET", "https://api.twilio.com/...")

A command names login, extra headers, path and verb; the programs beside this file walk the SDK's own attributes
(camelCase in Node) and show what they got: an instance as its public fields with Python's names, dates in ISO 8601.
An error becomes `SdkError`.
"""

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

PROGRAMS = Path(__file__).parent / "programs"
NODE_MODULES = Path(__file__).parent / "node" / "node_modules"
VERBS = {"create", "fetch", "update", "delete", "list", "stream", "pages", "request"}
COMMANDS: dict[str, Sequence[str]] = {
    "python": (sys.executable, str(PROGRAMS / "python_sdk.py"), "sync"),
    "python-async": (sys.executable, str(PROGRAMS / "python_sdk.py"), "async"),
    "node": ("node", str(PROGRAMS / "node_sdk.js")),
}


class Login(NamedTuple):
    """What a client is made with."""

    username: str
    password: str
    account_sid: str | None = None


class SdkError(Exception):
    """The SDK raised its exception for an error answer."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(f"{error.get('status')} {error.get('code')}: {error.get('message')}")
        self.status = error.get("status")
        self.code = error.get("code")
        self.message = error.get("message")
        self.details = error.get("details")


class Record(dict[str, Any]):
    """A resource as the SDK shows it; fields are attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name.rstrip("_")]
        except KeyError:
            raise AttributeError(name) from None


class Program:
    """One SDK's process."""

    def __init__(self, name: str, prefix: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        own = {key: value for key, value in os.environ.items() if not key.upper().endswith("_PROXY")}
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [*prefix, *COMMANDS[name]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**own, **environment},
                text=True,
            )

    def run(self, command: Mapping[str, Any]) -> Any:
        """One command's result. Raises SdkError."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(command) + "\n")
        stdin.flush()
        line = stdout.readline()
        assert line, f"{self.name} ended: {self._log.read_text(errors='replace')[-2000:]}"
        answer = json.loads(line, object_hook=Record)
        if "error" in answer:
            raise SdkError(answer["error"])
        assert "broken" not in answer, f"{self.name}: {answer['broken']}"
        return answer.get("result")

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.kill()
        self._process.wait()


def missing(name: str) -> str:
    """Why this SDK cannot be run here; empty if it can."""
    if name != "node":
        return ""
    if shutil.which("node") is None:
        return "node is not installed"
    return (
        "" if (NODE_MODULES / "twilio").is_dir() else "Twilio's SDK for Node is not installed (scripts/test-setup.sh)"
    )


class Chain:
    """A path into the SDK's client; calling a verb at its end runs it."""

    def __init__(self, run: Callable[[dict[str, Any]], Any], path: list[Any]) -> None:
        self._run = run
        self._path = path

    def __getattr__(self, name: str) -> "Chain":
        return Chain(self._run, [*self._path, [name, None]])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        *before, (name, _) = self._path
        if name in VERBS:
            return self._run({"path": before, "verb": name, "args": list(args), "kwargs": _plain(kwargs)})
        assert not kwargs
        return Chain(self._run, [*before, [name, list(args)]])


class Sdk:
    """A client of one SDK with one login."""

    def __init__(self, program: Program, login: Login, headers: Mapping[str, str] | None = None) -> None:
        self.program = program
        self.login = login
        self._headers = dict(headers or {})

    @property
    def name(self) -> str:
        """`python`, `python-async` or `node`."""
        return self.program.name

    def as_(self, login: Login) -> "Sdk":
        """The same SDK with another login."""
        return Sdk(self.program, login, self._headers)

    def with_headers(self, **headers: str) -> "Sdk":
        """The same client, sending headers of its own: `Idempotency_Key` is `Idempotency-Key`."""
        return Sdk(self.program, self.login, {name.replace("_", "-"): value for name, value in headers.items()})

    def __getattr__(self, name: str) -> Chain:
        return Chain(self._execute, [[name, None]])

    def _execute(self, command: dict[str, Any]) -> Any:
        return self.program.run({"login": self.login._asdict(), "headers": self._headers, **command})


def _plain(value: Any) -> Any:
    """Dates as the programs read them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dt.datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, dt.date):
        return {"$date": value.isoformat()}
    return value
