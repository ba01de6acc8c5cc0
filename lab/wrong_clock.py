"""As `sitecustomize` on a program's PYTHONPATH it sets the wall clock of that Python off by as many seconds as the file
LAB_CLOCK says, at any time. Monotonic clocks, what sleeps by them, and the times of files stay as they are.

libfaketime would do for a program that does not sleep: with it clock_nanosleep to a point of CLOCK_MONOTONIC, which is
Python's `time.sleep`, fails (0.9.10).
"""

import os
import time
from pathlib import Path

LOOK_S = 0.2
"""How often the file is read."""
NS_PER_S = 1_000_000_000


class _Clock:
    def __init__(self, file: str) -> None:
        self._file = file
        self._right = time.time_ns
        self._off_ns = 0
        self._look_at = 0.0

    def time_ns(self) -> int:
        """As `time.time_ns`."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            try:
                with open(self._file, encoding="ascii") as file:
                    self._off_ns = int(file.read()) * NS_PER_S
            except (OSError, ValueError):
                pass  # it is being written
        return self._right() + self._off_ns

    def time(self) -> float:
        """As `time.time`."""
        return self.time_ns() / NS_PER_S


def environment(file: Path) -> dict[str, str]:
    """What a program has in its environment whose clock `file` sets; a folder for its PYTHONPATH comes beside that."""
    site = file.parent / "site"
    site.mkdir(exist_ok=True)
    link = site / "sitecustomize.py"
    link.unlink(missing_ok=True)
    link.symlink_to(Path(__file__).resolve())
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH")))),
        "LAB_CLOCK": str(file),
    }


if __name__ == "sitecustomize" and "LAB_CLOCK" in os.environ:
    _clock = _Clock(os.environ["LAB_CLOCK"])
    time.time_ns, time.time = _clock.time_ns, _clock.time
