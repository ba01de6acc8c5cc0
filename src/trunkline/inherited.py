"""Descriptors that a child process gets from the supervisor: sockets and shared memory that outlive it.

They are named in the environment variable NAMES, e.g. `sip-udp=5,sip-tcp=6`, which is read once and removed, so that
processes that a child starts do not take it for theirs. Only the standard library is used: the supervisor stays small.
"""

import ctypes
import os
import signal
from typing import Final

NAMES: Final = "_TRUNKLINE_DESCRIPTORS"
RUN: Final = "_TRUNKLINE_RUN"
"""Environment variable: a name of the supervisor's run (its process id, then something random), so that a child knows
whether what it finds in the data folder is from a process of the same run, whose sockets and memory still exist."""
BATON: Final = "baton"
SIP_UDP: Final = "sip-udp"
SIP_TCP: Final = "sip-tcp"
SIP_TLS: Final = "sip-tls"
HTTP: Final = "http-"
"""Beginning of the names of the API's sockets."""
MEDIA_STATE: Final = "media-state"
"""Memory of the media process's legs."""
MEDIA_FENCE: Final = "media-fence"
"""Memory of the deadline up to which the media process may send (clusters only)."""
RECORD_RING: Final = "record-ring"
"""Memory by which recorded audio goes from the media process to the recorder."""
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_names = os.environ.pop(NAMES, None)
_run = os.environ.pop(RUN, "")


def describe(descriptors: dict[str, int]) -> str:
    """The variable's value."""
    return ",".join(f"{name}={number}" for name, number in descriptors.items())


def descriptors() -> dict[str, int]:
    """What this process was given, by name; empty when it runs without a supervisor."""
    pairs = (pair.partition("=") for pair in (_names or "").split(",") if pair)
    return {name: int(number) for name, _, number in pairs if number.isdigit()}


def supervised() -> bool:
    """Whether the supervisor started this process."""
    return _names is not None


def run_name() -> str:
    """Tells one run of the supervisor from another; empty without one."""
    return _run


def await_baton() -> bool:
    """Wait for one's turn (see supervisor.plan.Child.standby); False when it will not come. At once where there is no
    other process to wait for."""
    baton = descriptors().get(BATON, -1)
    return baton < 0 or bool(os.read(baton, 1))


def end_with_parent() -> None:
    """Let the system kill this process when its parent is gone (Linux; elsewhere nothing happens)."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        return
    parent = run_name().partition("-")[0]
    if parent and os.getppid() != int(parent):  # it was gone before we asked
        os._exit(1)
