"""Hosts and what runs on them: services are started in the host's network namespace, and ended by pid."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from lab import made, throttle
from lab.made import Made
from lab.system import Failed, in_network

READY_S = 180.0
STOP_S = 15.0
POLL_S = 0.1
LOG_LINES = 12
PASSED_ON = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ")
"""Of this process's environment."""
Kind = Literal["etcd", "postgres", "redis", "sentinel", "node", "edge", "smsc", "other"]


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A program that a host runs, and how."""

    name: str
    kind: Kind
    command: tuple[str, ...]
    user: str = ""
    resolver: Path | None = None
    """What it sees as /etc/resolv.conf; None: this machine's."""
    environment: Mapping[str, str] = {}
    ready: Callable[[], bool] | None = None


class Host:
    """One host. `folder` is its disk; logs lie beside it, so that a full disk does not hide why."""

    def __init__(self, name: str, zone: str, namespace: str, address: str, folder: Path, made_: Made) -> None:
        self.name = name
        self.zone = zone
        self.namespace = namespace
        self.address = address
        self.folder = folder
        self.services: dict[str, Service] = {}
        self.paused = False
        self._made = made_
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def log(self, service: str) -> Path:
        """Where the service writes."""
        return self.folder.parent / "log" / f"{self.name}-{service}.log"

    def put(self, service: Service) -> None:
        """Let the host run it from its next start on; in the place of one of equal name."""
        self.services[service.name] = service

    def start(self, *names: str) -> None:
        """Start what does not run, of these services or of all."""
        for name in names or tuple(self.services):
            if not self.running(name):
                self._start(self.services[name])

    def _start(self, service: Service) -> None:
        log = self.log(service.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        with log.open("ab") as out:
            child = subprocess.Popen(
                in_network(self.namespace, service.command, service.user, service.resolver),
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=self.folder, start_new_session=True,
                env={**environment, "HOME": str(self.folder), **service.environment},
            )  # fmt: skip
        self._children[service.name] = child
        self._made.note("pid", child.pid, made.started(child.pid))

    def running(self, name: str) -> bool:
        """Whether the service's first process is there."""
        child = self._children.get(name)
        return child is not None and child.poll() is None

    def pid(self, name: str) -> int:
        """Of the service's first process. Raises Failed."""
        if not self.running(name):
            raise Failed(f"{name} does not run on {self.name}\n{self.tail(name)}")
        return self._children[name].pid

    def until_ready(self, *names: str, timeout_s: float = READY_S) -> None:
        """Wait for these services, or all. Raises Failed."""
        deadline = time.monotonic() + timeout_s
        for name in names or tuple(self.services):
            service = self.services[name]
            while service.ready is not None and not service.ready():
                if not self.running(name) or time.monotonic() > deadline:
                    state = "does not get ready" if self.running(name) else "has ended"
                    raise Failed(f"{name} on {self.name} {state}\n{self.tail(name)}")
                time.sleep(POLL_S)

    def tail(self, name: str) -> str:
        """The end of its log."""
        log = self.log(name)
        return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:]) if log.exists() else ""

    def stop(self, *names: str) -> None:
        """SIGTERM, and after STOP_S SIGKILL, to these services' first processes, or to all."""
        children = [self._children[name] for name in names or tuple(self.services) if self.running(name)]
        for child in children:
            child.terminate()
        deadline = time.monotonic() + STOP_S
        for child in children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                made.send(self._of_session(child.pid), signal.SIGKILL)
                child.wait()

    def kill(self, *names: str) -> None:
        """SIGKILL to everything that these services started; without names to everything on the host."""
        self.paused = False
        if not names:
            made.kill_all(self.namespace)
        for name in names:
            made.send(self.members(name), signal.SIGKILL)
        for name in names or tuple(self._children):
            if name in self._children:
                self._children[name].wait()

    def members(self, name: str) -> list[int]:
        """The service's processes: those of its session."""
        return self._of_session(self.pid(name))

    def _of_session(self, session: int) -> list[int]:
        return [pid for pid in made.processes_in(self.namespace) if _session(pid) == session]

    def slow_disk(self, writes_s: int, group: str) -> None:
        """Let its disk write so many times a second. Raises Failed."""
        self._made.note("slow", f"{throttle.device(self.folder)} {group}")
        throttle.slow(self.folder, writes_s, made.processes_in(self.namespace), group)

    def pause(self) -> None:
        """SIGSTOP to everything on it."""
        self.paused = True
        made.send(made.processes_in(self.namespace), signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT to everything on it."""
        self.paused = False
        made.send(made.processes_in(self.namespace), signal.SIGCONT)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0
