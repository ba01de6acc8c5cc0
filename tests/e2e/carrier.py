"""The benchmarks' SMSC (bench/fake_smsc.py) as the tests' carrier: it outlives the server, and counts."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp

SMSC = Path(__file__).resolve().parents[2] / "bench" / "fake_smsc.py"


class Carrier:
    """See the module."""

    def __init__(self, **options: float) -> None:
        arguments = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        self._process = subprocess.Popen([sys.executable, str(SMSC), *arguments], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        ports = json.loads(self._process.stdout.readline())
        self.port = int(ports["port"])
        self._control = f"http://127.0.0.1:{ports['control_port']}"

    def connector(self, **options: Any) -> dict[str, Any]:
        """The settings of a connector to it."""
        own = {"name": "carrier", "kind": "smpp", "host": "127.0.0.1", "port": self.port, "system_id": "trunkline"}
        return {**own, "reconnect_first_s": 0.1, **options}

    async def ask(self, path: str) -> Any:
        """What its control port answers."""
        async with aiohttp.ClientSession() as session, session.get(self._control + path) as response:
            return await response.json()

    async def taken(self) -> dict[str, int]:
        """Key of each message (its text's `K=...`) -> how often it was taken."""
        return {key: times for key, (_, times) in (await self.ask("/times")).items()}

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
