"""What a lab has made on this machine, in a file, so that whoever comes next can remove it, and only it.

Each thing is written down before it is made. A process is named by its pid and the time it started at, which together
are never used again; besides, whatever runs in one of the lab's own network namespaces is the lab's.
"""

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lab import throttle
from lab.system import Failed, run

ENDS_S = 10.0
"""How long killed processes may take to vanish."""
POLL_S = 0.02
START_FIELD = 19
"""Of /proc/PID/stat after the name: starttime (proc(5) counts it as field 22)."""
STATE_FIELD = 0


class Thing(NamedTuple):
    """One thing that was made."""

    kind: str
    """`netns`, `mount`, `pid` or `slow` (a device and its group of lab.throttle)."""
    name: str
    start: int = 0
    """Of a pid: when it started, clock ticks since boot."""


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def started(pid: int) -> int:
    """When the process started, clock ticks since boot; 0: there is none, or only what is left of one."""
    fields = _stat(pid)
    return int(fields[START_FIELD]) if fields and fields[STATE_FIELD] not in "ZX" else 0


def processes_in(namespace: str) -> list[int]:
    """Pids of whatever runs in a network namespace, this process excepted."""
    try:
        wanted = os.stat(f"/run/netns/{namespace}").st_ino
    except OSError:
        return []
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}/ns/net").st_ino == wanted:
                    found.append(int(name))
    return found


def send(pids: list[int], number: signal.Signals) -> None:
    """A signal to each that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill(pids: list[int]) -> None:
    """SIGKILL to each that is still there."""
    send(pids, signal.SIGKILL)


def command(pid: int) -> str:
    """Its command line, words separated by spaces; empty: it has gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def kill_all(namespace: str) -> None:
    """SIGKILL to everything in a network namespace, until nothing is left. Raises Failed."""
    deadline = time.monotonic() + ENDS_S
    while pids := [pid for pid in processes_in(namespace) if started(pid)]:
        send(pids, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise Failed(f"processes {pids} in {namespace} do not end")
        time.sleep(POLL_S)


def exists(namespace: str) -> bool:
    """Whether there is a network namespace of this name."""
    return os.path.exists(f"/run/netns/{namespace}")


class Made:
    """The list of one lab, in `folder`; `with` holds the lab against a second one of the same name."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "made.jsonl"
        self._lock = folder / "lock"
        self._descriptor = -1

    def __enter__(self) -> "Made":
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise Failed(f"a lab runs already ({self._lock}): stop it, or give this one another NAME") from None
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def note(self, kind: str, name: object, start: int = 0) -> None:
        """Write it down; call it before the thing is made (a pid: at once afterwards)."""
        with self._file.open("a") as file:
            file.write(json.dumps([kind, str(name), start]) + "\n")

    def things(self) -> Iterator[Thing]:
        """What was written down."""
        if self._file.exists():
            for line in self._file.read_text().splitlines():
                with contextlib.suppress(ValueError, TypeError):  # the last line of a lab that was killed in writing
                    yield Thing(*json.loads(line))

    def quicken(self) -> None:
        """Let slow disks be quick: who waits for one in the kernel cannot be killed."""
        for thing in dict.fromkeys(self.things()):
            if thing.kind == "slow":
                with contextlib.suppress(Failed):  # the device has gone, and its limit with it
                    throttle.end(*thing.name.split())

    def remove(self) -> list[str]:
        """Remove all of it: processes, then mounts, then namespaces, with the links in them. Returns what there was.
        Raises Failed."""
        self.quicken()
        things = list(dict.fromkeys(self.things()))
        gone = []
        for thing in things:
            if thing.kind == "pid" and thing.start and started(int(thing.name)) == thing.start:
                send([int(thing.name)], signal.SIGKILL)
                gone.append(f"process {thing.name}")
        spaces = [thing.name for thing in things if thing.kind == "netns" and exists(thing.name)]
        for name in spaces:
            kill_all(name)
        for thing in reversed(things):
            if thing.kind == "mount" and os.path.ismount(thing.name):
                run("umount", "-l", thing.name)
                gone.append(f"mount {thing.name}")
        for name in spaces:
            run("ip", "netns", "del", name)
            gone.append(f"namespace {name}")
        self._file.unlink(missing_ok=True)
        return gone
