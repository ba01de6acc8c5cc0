"""Descriptors that a child process gets from the supervisor: sockets and shared memory that outlive it.

They are named in the environment variable NAMES, e.g. `sip-udp=5,sip-tcp=6`, which is read once and removed, so that
processes that a child starts do not take it for theirs. Only the standard library is used: the supervisor stays small.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
from collections.abc import Iterable
from typing import Any, Final

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
SMPP: Final = "smpp-"
"""Beginning of the names of the SMPP server's sockets."""
CONTROL: Final = "control"
"""What the supervisor and the node say to each other (`Channel`)."""
MEDIA_STATE: Final = "media-state"
"""Memory of the media process's legs."""
MEDIA_FENCE: Final = "media-fence"
"""Memory of the deadline up to which the media process may send (clusters only)."""
RECORD_RING: Final = "record-ring"
"""Memory by which recorded audio goes from the media process to the recorder."""
MAX_MESSAGE: Final = 65_536
"""Bytes of one message between supervisor and node."""
MAX_DESCRIPTORS: Final = 200
"""Descriptors that go with one message (Linux takes 253)."""
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


def keep(descriptors: Iterable[int]) -> None:
    """Do not pass them on to processes that this one starts, for which uvloop closes none: they would hold its ports
    and its peers' connections when it has ended."""
    for number in descriptors:
        with contextlib.suppress(OSError):
            os.set_inheritable(number, False)


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


Message = dict[str, Any]
"""Of the supervisor: `do`, from HAND_OVER etc.; of the node: `event`, from WARM etc.; and what goes with it."""
HAND_OVER: Final = "hand-over"
"""Supervisor: a successor is warm. Finish what is under way and let go of the data folder; calls go on. `takes`: see
KINDS."""
HEALTH: Final = "health"
"""Supervisor: how are you? Node: `ok`, `why`, `calls`."""
CONNECTIONS: Final = "connections"
"""Either: these connections of the API, with nothing under way on them, are the successor's."""
BEGUN: Final = "begun"
"""Either: pairs of descriptors, a connection of the API and a memory with what has been read of its request."""
SIP_STREAMS: Final = "sip-streams"
"""Either: pairs of descriptors, a TCP connection of a SIP peer and a memory with its state."""
BINDS: Final = "binds"
"""Either: pairs of descriptors, a connection to a carrier's SMSC, bound, and a memory with its state."""
KINDS: Final = (CONNECTIONS, BEGUN, SIP_STREAMS, BINDS)
"""What may be passed on to a successor. Both it and the supervisor must know a kind: WARM and HAND_OVER carry the list
as `takes`; without one, as in the first releases that handed over, it is CONNECTIONS alone."""
WARM: Final = "warm"
"""Node: everything that needs no data folder is done; waiting for the baton. `takes`: see KINDS."""
CLOSED: Final = "closed"
"""Node: nothing new is accepted; connections wait in the kernel."""
RELEASED: Final = "released"
"""Node: the data folder is free, this process ends."""
READY: Final = "ready"
"""Node: it serves."""


class Channel:
    """One end of the control socket: whole messages, in order, with descriptors. Nothing here waits."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self._was_reset = False
        end.setblocking(False)

    def fileno(self) -> int:
        """For selectors."""
        return self.end.fileno()

    def say(self, message: Message, descriptors: tuple[int, ...] = ()) -> bool:
        """False when it could not be said: the other end is gone, or does not read."""
        try:
            socket.send_fds(self.end, [json.dumps(message).encode()], descriptors)
        except OSError:
            return False
        return True

    def heard(self) -> tuple[Message, list[int]] | None:
        """The next message; None when there is none. Raises EOFError when the other end is gone."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self.end, MAX_MESSAGE, MAX_DESCRIPTORS)
        except BlockingIOError:
            return None
        except OSError as error:
            if self._was_reset or not isinstance(error, ConnectionResetError):
                raise EOFError from error
            # The other end has gone and left something unread. Linux says so once, before what is still to be heard.
            self._was_reset = True
            return self.heard()
        if not data:
            raise EOFError
        keep(descriptors)
        with contextlib.suppress(ValueError):
            message = json.loads(data)
            if isinstance(message, dict):
                return message, descriptors
        for descriptor in descriptors:
            os.close(descriptor)
        return {}, []


def channel() -> Channel | None:
    """The node's end; None without a supervisor."""
    number = descriptors().get(CONTROL, -1)
    return Channel(socket.socket(fileno=number)) if number >= 0 else None


keep(descriptors().values())
