"""A Python whose wall clock is off, and set again while it runs."""

import os
import subprocess
import sys
import time
from pathlib import Path

from lab.wrong_clock import environment

TELL = """
import sys, time
for line in sys.stdin:
    time.sleep(0.25)
    print(time.time(), time.time_ns(), time.monotonic_ns(), flush=True)
"""
NEAR_S = 60.0


def test_it_is_off_as_the_file_says_and_monotonic_clocks_are_not(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    file.write_text("+0\n")
    with subprocess.Popen(
        [sys.executable, "-c", TELL], env={**os.environ, **environment(file)}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as told:  # fmt: skip
        assert told.stdin is not None
        assert told.stdout is not None
        try:
            for off_s in (0, 3600, 0):
                file.write_text(f"{off_s:+d}\n")
                print("?", file=told.stdin, flush=True)
                seconds, ns, monotonic = told.stdout.readline().split()
                assert abs(float(seconds) - time.time() - off_s) < NEAR_S
                assert abs(int(ns) / 1e9 - time.time() - off_s) < NEAR_S
                assert abs(int(monotonic) - time.monotonic_ns()) / 1e9 < NEAR_S
        finally:
            told.stdin.close()
