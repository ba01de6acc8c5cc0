"""The simulated phones of the site's server, from outside its network."""

import base64
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.conformance.sdk import Login
from trunkline.testing.phones.client import RemotePhone

PROGRAM = Path(__file__).parent / "programs" / "simulator.py"


class Air:
    """What `trunkline.testing.phones.client` asks of a server; a process in the server's network passes it on."""

    number = ""
    """Phones have to say whom they dial."""

    def __init__(self, prefix: Sequence[str], port: int) -> None:
        self._process = subprocess.Popen(
            [*prefix, sys.executable, str(PROGRAM), str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def simulator(self, method: str, path: str, document: object = None) -> Any:
        """Ask the control surface; a JSON answer, or octets."""
        answer = self._ask(method=method, path=path, body=document, login=None)
        assert answer["status"] < 400, answer
        return json.loads(answer["text"]) if "text" in answer else base64.b64decode(answer["base64"])

    def download(self, path: str, login: Login) -> tuple[str, bytes]:
        """A file's type and octets (the SDKs read text alone)."""
        answer = self._ask(method="GET", path=path, body=None, login=[login.username, login.password])
        assert answer["status"] == 200, answer
        return answer["type"], base64.b64decode(answer["base64"])

    def _ask(self, **asked: Any) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(asked) + "\n")
        stdin.flush()
        return json.loads(stdout.readline())

    def phone(self, number: str) -> RemotePhone:
        """The phone with that number."""
        return RemotePhone(self, number)

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.kill()
        self._process.wait()
