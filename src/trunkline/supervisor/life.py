"""One process of a child: started with its descriptors, told things, listened to, ended."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from trunkline.inherited import BATON, CONNECTIONS, CONTROL, NAMES, Channel, describe
from trunkline.supervisor.plan import Child


class Life:
    """One process."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", argv: list[str], baton: int, began: float, channel: Channel | None
    ) -> None:
        self.process = process
        self.argv = argv
        self.baton = baton
        """Where its turn is told; -1: it works already."""
        self.began = began
        self.channel = channel
        """To the node; None: it is another process, or has closed it."""
        self.takes: tuple[str, ...] = (CONNECTIONS,)
        """What it may be given of the process before it (trunkline.inherited.KINDS)."""

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, do: str, **more: Any) -> None:
        """Say what is wanted of it."""
        if self.channel is not None:
            self.channel.say({"do": do, **more})

    def go(self) -> None:
        """It is its turn."""
        if self.baton >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(self.baton, b"1")
            self.forget()

    def forget(self) -> None:
        """Let go of the pipe: one that still waits ends."""
        if self.baton >= 0:
            os.close(self.baton)
            self.baton = -1

    def kill(self) -> None:
        """End it at once."""
        self.forget()
        self.process.kill()
        self.process.wait()


class Running:
    """A child and its processes."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.life: Life | None = None
        self.spare: Life | None = None
        """The one that waits."""
        self.lives = 0
        self.rest_s = 0.0
        self.due = 0.0
        """When to start it (again), by the monotonic clock."""
        self.spare_due = 0.0


def start(
    child: Child,
    argv: Sequence[str],
    held: Mapping[str, int],
    environment: Mapping[str, str],
    now: float,
    *,
    wait: bool,
) -> Life:
    """Start a process of a child; `wait`: it works once it is told `go`. Raises OSError."""
    given = {name: held[name] for name in child.wants if not name.endswith("-")}
    starts = tuple(name for name in child.wants if name.endswith("-"))
    given.update({name: number for name, number in held.items() if name.startswith(starts)})
    ends: list[int] = []
    baton = -1
    channel: Channel | None = None
    try:
        if wait:
            given[BATON], baton = os.pipe2(os.O_CLOEXEC)
            ends.append(given[BATON])
        if child.main:
            mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            channel = Channel(mine)
            given[CONTROL] = its.detach()
            ends.append(given[CONTROL])
        process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
            list(argv),
            env={**environment, NAMES: describe(given)},
            stdin=subprocess.DEVNULL,
            pass_fds=tuple(given.values()),
            start_new_session=True,  # a terminal's interrupt reaches only the supervisor, which stops them in order
        )
    except OSError:
        if baton >= 0:
            os.close(baton)
        if channel is not None:
            channel.end.close()
        raise
    finally:
        for end in ends:
            os.close(end)
    return Life(process, list(argv), baton, now, channel)
