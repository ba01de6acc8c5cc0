"""Ranges of RTP ports for servers under test: each process of tests has one that no other has."""

import fcntl
import tempfile
from functools import cache
from pathlib import Path
from typing import IO

FIRST, WIDTH, SLOTS = 12_000, 3_000, 6
"""Below what the system gives out by itself (32,768 and on)."""
_held: list[IO[str]] = []


@cache
def port_range() -> tuple[int, int]:
    """The first port of this process's range and the one after its last. It holds two servers of 250 legs."""
    for slot in range(SLOTS):
        file = (Path(tempfile.gettempdir()) / f"trunkline-test-ports-{slot}").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _held.append(file)  # until the process ends
        return FIRST + slot * WIDTH, FIRST + (slot + 1) * WIDTH
    raise AssertionError(f"{SLOTS} other processes of tests have taken all ranges of ports")
