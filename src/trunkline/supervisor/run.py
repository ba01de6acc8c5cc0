"""The supervisor's loop."""

import contextlib
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

from trunkline.inherited import NAMES, describe
from trunkline.supervisor.plan import Child, Plan

PORT_TRIES: Final = 20
"""Tries to find one port that is free for UDP and TCP, where the system chooses."""
UDP_BUFFER_BYTES: Final = 8 * 1024 * 1024
"""Datagrams that wait while the node is started again."""
TCP_BACKLOG: Final = 512
FIRST_REST_S: Final = 0.0
"""Wait before a child that has run for long is started again."""
SHORT_LIFE_S: Final = 10.0
"""A child that ends sooner is started again later and later."""
LONGEST_REST_S: Final = 5.0
NEVER_READY_S: Final = 3.0
"""A main child that ends by itself with an error so soon cannot start: so does the supervisor."""
_SO_RCVBUFFORCE: Final = 33


class CannotBind(Exception):
    """The SIP port is taken; the text is one line for the operator."""


class Running:
    """A child and its process."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.process: subprocess.Popen[bytes] | None = None
        self.began = 0.0
        self.rest_s = FIRST_REST_S
        self.due = 0.0
        """When to start it (again), by the monotonic clock."""


class Supervisor:
    """See the package."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.children = [Running(child) for child in plan.children]
        self.stopping = False
        self.status = 0
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._signals: list[int] = []
        self.sockets = bind_sip(plan.sip_host, plan.sip_port)
        self.descriptors = {name: one.fileno() for name, one in self.sockets.items()}
        for name in plan.memories:
            self.descriptors[name] = os.memfd_create(f"trunkline-{name}", os.MFD_CLOEXEC)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._drain)

    def keep(self, name: str, descriptor: int) -> None:
        """Give a descriptor to the children that want it."""
        self.descriptors[name] = descriptor

    def serve(self, descriptor: int, handle: Callable[[], None]) -> None:
        """Call `handle` whenever there is something to read."""
        self._selector.register(descriptor, selectors.EVENT_READ, handle)

    # -- loop ------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run the children until the main one ends or a signal comes; the exit status."""
        _allow_files()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, self._noted)
        signal.set_wakeup_fd(self._wake_write)
        host, port = self.sockets["sip-udp"].getsockname()[:2]
        _say(f"SIP on {host} port {port}, UDP and TCP")
        while True:
            self._handle_signals()
            self._reap()
            if self.stopping:
                break
            self._start_due()
            for key, _ in self._selector.select(self._timeout()):
                key.data()
        self._stop_all()
        return self.status

    def _timeout(self) -> float | None:
        waiting = [running.due for running in self.children if running.process is None]
        return max(0.0, min(waiting) - time.monotonic()) if waiting else None

    def _noted(self, number: int, _frame: object) -> None:
        self._signals.append(number)

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 512)

    def _handle_signals(self) -> None:
        while self._signals:
            if self._signals.pop(0) in (signal.SIGTERM, signal.SIGINT):
                self.stopping = True

    # -- children --------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        now = time.monotonic()
        for running in self.children:
            if running.process is None and running.due <= now:
                self._start(running, now)

    def _start(self, running: Running, now: float) -> None:
        child = running.child
        given = {name: self.descriptors[name] for name in child.wants}
        running.began = now
        running.process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
            child.argv,
            env={**os.environ, NAMES: describe(given)},
            stdin=subprocess.DEVNULL,
            pass_fds=tuple(given.values()),
            start_new_session=True,  # a terminal's interrupt reaches only the supervisor, which stops them in order
        )

    def _reap(self) -> None:
        """Look after children that have ended."""
        now = time.monotonic()
        for running in self.children:
            process = running.process
            if process is None or process.poll() is None:
                continue
            status, lived = process.returncode, now - running.began
            running.process = None
            if running.child.main and (status == 0 or (status > 0 and lived < NEVER_READY_S)):
                self.stopping, self.status = True, status
                return
            short = lived < SHORT_LIFE_S
            running.rest_s = min(LONGEST_REST_S, running.rest_s * 2 or 0.1) if short else FIRST_REST_S
            running.due = now + (running.rest_s if short else 0.0)
            if not self.stopping:
                how = f"signal {-status}" if status < 0 else f"status {status}"
                _say(f"the {running.child.name} process ended ({how}) after {lived:.0f} s; it is started again")

    def _stop_all(self) -> None:
        """End the children, the last started first; each has `stop_s`."""
        for running in reversed(self.children):
            process = running.process
            if process is None or process.poll() is not None:
                continue
            process.terminate()
            try:
                status = process.wait(self.plan.stop_s)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
            if running.child.main and status > 0:
                self.status = status


def bind_sip(host: str, port: int) -> dict[str, socket.socket]:
    """UDP and TCP sockets on one port; 0 lets the system choose. Raises CannotBind."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for attempt in range(PORT_TRIES):
        udp = socket.socket(family, socket.SOCK_DGRAM)
        tcp = socket.socket(family, socket.SOCK_STREAM)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            udp.bind((host, port))
            tcp.bind((host, udp.getsockname()[1]))
            tcp.listen(TCP_BACKLOG)
        except OSError as error:
            udp.close()
            tcp.close()
            if port or attempt == PORT_TRIES - 1:
                reason = error.strerror or str(error)
                text = f"cannot take SIP port {port} on {host}: {reason}; see sip.host and sip.port"
                raise CannotBind(text) from None
            continue
        for option in (_SO_RCVBUFFORCE, socket.SO_RCVBUF):
            with contextlib.suppress(OSError):
                udp.setsockopt(socket.SOL_SOCKET, option, UDP_BUFFER_BYTES)
                break
        udp.setblocking(False)
        tcp.setblocking(False)
        return {"sip-udp": udp, "sip-tcp": tcp}
    raise AssertionError("unreachable")


def _allow_files() -> None:
    """As many open files as the system lets us have: every call takes two sockets, and children inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _say(text: str) -> None:
    sys.stderr.write(f"trunkline: {text}\n")
    sys.stderr.flush()
