"""The benchmarks' SMSC (fake_smsc.py) in a process of its own, seen from a benchmark."""

import asyncio
import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bench.processes import STOP_S, python

SCRIPT = Path(__file__).with_name("fake_smsc.py")
TIMEOUT_S = 20


class Smsc:
    """Options are fake_smsc.py's."""

    def __init__(self, **options: float) -> None:
        arguments = [text for name, value in options.items() for text in ("--" + name.replace("_", "-"), f"{value:g}")]
        self._child = subprocess.Popen(python(str(SCRIPT), *arguments), stdout=subprocess.PIPE)
        assert self._child.stdout is not None
        ports = json.loads(self._child.stdout.readline())
        self.port = int(ports["port"])
        self._control = f"http://127.0.0.1:{ports['control_port']}"

    def ask(self, path: str, **query: float | str) -> Any:
        """What the control port answers."""
        with urllib.request.urlopen(f"{self._control}{path}?{urlencode(query)}", timeout=TIMEOUT_S) as answer:
            return json.load(answer)

    async def later(self, path: str, **query: float | str) -> Any:
        """`ask`, without holding up the event loop."""
        return await asyncio.to_thread(self.ask, path, **query)

    def stop(self) -> None:
        """End it."""
        self._child.terminate()
        try:
            self._child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        if self._child.stdout is not None:
            self._child.stdout.close()
