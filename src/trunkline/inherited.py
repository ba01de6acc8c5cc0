"""Descriptors that a child process gets from the supervisor: sockets and shared memory that outlive it.

They are named in the environment variable NAMES, e.g. `sip-udp=5,sip-tcp=6`. Only the standard library is used: the
supervisor stays small.
"""

import ctypes
import os
import signal
from typing import Final

NAMES: Final = "_TRUNKLINE_DESCRIPTORS"
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def describe(descriptors: dict[str, int]) -> str:
    """The variable's value."""
    return ",".join(f"{name}={number}" for name, number in descriptors.items())


def descriptors() -> dict[str, int]:
    """What this process was given, by name; empty when it runs without a supervisor."""
    pairs = (pair.partition("=") for pair in os.environ.get(NAMES, "").split(",") if pair)
    return {name: int(number) for name, _, number in pairs if number.isdigit()}


def supervised() -> bool:
    """Whether the supervisor started this process."""
    return NAMES in os.environ


def end_with_parent() -> None:
    """Let the system kill this process when its parent is gone (Linux; elsewhere nothing happens)."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return
    if os.getppid() == 1 and supervised():  # it was gone before we asked
        os._exit(1)
