"""SIPp as a program: one run of a scenario, whose calls all have to succeed."""

import os
import subprocess
from pathlib import Path
from typing import Any

from tests.interop.conftest import program

SCENARIOS = Path(__file__).parent / "sipp"
PATIENCE_S = 90
TRANSPORTS = {"UDP": "u1", "TCP": "t1"}


class Sipp:
    """One run, started at once; `options` are SIPp's, with `_` for `-`: `r=20` is `-r 20`, `aa=True` is `-aa`."""

    def __init__(
        self, folder: Path, scenario: str, to: str = "", *, calls: int = 1, transport: str = "UDP",
        host: str = "127.0.0.1", **options: Any,
    ) -> None:  # fmt: skip
        self._errors = folder / f"{scenario}-{transport}-{os.urandom(3).hex()}.log"
        given = {
            "sf": SCENARIOS / f"{scenario}.xml", "t": TRANSPORTS[transport], "i": host, "m": calls, "r": 50,
            "timeout": f"{PATIENCE_S - 5}s", "error_file": self._errors, "nostdin": True, "timeout_error": True,
            "trace_err": True, **options,
        }  # fmt: skip
        command = [program("sipp", "sip-tester"), *([to] if to else [])]
        for name, value in given.items():
            command += [f"-{name}"] if value is True else [f"-{name}", *str(value).split()]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=folder
        )

    def succeeds(self) -> None:
        """Wait until all its calls went as the scenario says."""
        try:
            _, errors = self._process.communicate(timeout=PATIENCE_S)
        finally:
            self.close()
        log = self._errors.read_text(errors="replace")[:3000] if self._errors.exists() else ""
        assert self._process.returncode == 0, f"{errors.decode()[-500:]}\n{log}"

    def close(self) -> None:
        """Make sure that it does not run on."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
