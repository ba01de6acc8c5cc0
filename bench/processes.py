"""Processes of a system under test: start, end by pid, CPU time and memory, all from /proc."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
STOP_S = 15.0
"""How long a process may take to end after SIGTERM; then it is killed."""
POLL_S = 0.02


class Failed(Exception):
    """A system under test does not do what the benchmark needs; the text says what and shows the end of its log."""


class Process:
    """A child with a log file of its own."""

    def __init__(self, command: Sequence[str], folder: Path, log: str) -> None:
        self.log = folder / log
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
        environment["PYTHONPATH"] = str(ROOT)  # for servers that are modules of the bench
        with self.log.open("ab") as out:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder, env=environment
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child.poll() is None

    def stop(self) -> None:
        """End it, at the latest after STOP_S."""
        if not self.running:
            return
        self._child.terminate()
        try:
            self._child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def until(self, ready: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait for `ready()`. Raises Failed."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.running or time.monotonic() > deadline:
                raise Failed(f"{what}: {'in vain' if self.running else 'it ended'}\n{self.tail()}")
            time.sleep(POLL_S)


def python(*arguments: str) -> list[str]:
    """A command that this interpreter runs."""
    return [sys.executable, *arguments]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def listens(port: int) -> bool:
    """Whether a connection is taken."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def _stat(pid: int, thread: str = "") -> list[str]:
    """The fields of /proc/PID/stat after the name: state, ppid, ... (proc(5) counts the state as field 3)."""
    try:
        return Path(f"/proc/{pid}{thread}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def tree(roots: Iterable[int]) -> set[int]:
    """The processes and all their descendants that live now."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(int(name))):
            children.setdefault(int(fields[1]), []).append(int(name))
    found: set[int] = set()
    waiting = [pid for pid in roots if _stat(pid)]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, ())
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """User and system time of the processes, and of their children that have ended: utime, stime, cutime, cstime."""
    return sum(sum(map(int, fields[11:15])) for pid in pids if (fields := _stat(pid))) / TICKS_PER_S


def pss_mb(pids: Iterable[int]) -> float:
    """Proportional set size: memory that processes share is counted once."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def main_thread_cpu_s(pids: Iterable[int]) -> float:
    """User and system time of the processes' main threads alone."""
    return sum(sum(map(int, fields[11:13])) for pid in pids if (fields := _stat(pid, f"/task/{pid}"))) / TICKS_PER_S


class Meter:
    """What the processes under `roots` use from now on."""

    def __init__(self, roots: Sequence[int]) -> None:
        self._roots = list(roots)
        self._began = cpu_s(tree(self._roots))
        self._main_began = main_thread_cpu_s(self._roots)
        self.peak_mb = 0.0
        self.processes = 0

    def cpu_s(self) -> float:
        """CPU seconds since the start. Raises Failed when one of the roots has ended: its time would be missing."""
        pids = tree(self._roots)
        if missing := [pid for pid in self._roots if pid not in pids]:
            raise Failed(f"processes {missing} of the system under test have ended")
        self.processes = max(self.processes, len(pids))
        return cpu_s(pids) - self._began

    def main_thread_cpu_s(self) -> float:
        """The part of it that the roots' main threads used."""
        return main_thread_cpu_s(self._roots) - self._main_began

    def memory_mb(self) -> float:
        """PSS of all now; remembers the peak."""
        now = pss_mb(tree(self._roots))
        self.peak_mb = max(self.peak_mb, now)
        return now
