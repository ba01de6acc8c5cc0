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
from typing import Final

from trunkline.inherited import BATON, HTTP, NAMES, RUN, SIP_TCP, SIP_TLS, SIP_UDP, describe
from trunkline.media.ports import NoPorts, PortKeeper, PortService
from trunkline.supervisor.plan import Child, Plan, Ports

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
NEVER_READY_S: Final = 60.0
"""A main child that ends by itself with an error so soon after its first start cannot start: nor can the supervisor."""
SPARE_AFTER_S: Final = 2.0
"""How long a process works before another is made ready to follow it."""
SIGNAL_LOOK_S: Final = 0.1
"""Between two looks for signals while a child is stopped."""
_SO_RCVBUFFORCE: Final = 33


class CannotBind(Exception):
    """The SIP port is taken; the text is one line for the operator."""


class Life:
    """One process of a child."""

    def __init__(self, process: "subprocess.Popen[bytes]", baton: int, began: float) -> None:
        self.process = process
        self.baton = baton
        """Where its turn is told; -1: it works already."""
        self.began = began

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

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


class Running:
    """A child and its processes."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.life: Life | None = None
        self.spare: Life | None = None
        """The one that waits."""
        self.lives = 0
        self.rest_s = FIRST_REST_S
        self.due = 0.0
        """When to start it (again), by the monotonic clock."""
        self.spare_due = 0.0


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
        if plan.sip_tls_port:
            self.sockets[SIP_TLS] = bind_tls(plan.sip_host, plan.sip_tls_port)
        if plan.http_port >= 0:
            self.sockets.update(bind_http(plan.http_host, plan.http_port))
        self.descriptors = {name: one.fileno() for name, one in self.sockets.items()}
        for name in plan.memories:
            self.descriptors[name] = os.memfd_create(f"trunkline-{name}", os.MFD_CLOEXEC)
        self._environment = {**os.environ, RUN: f"{os.getpid()}-{os.urandom(8).hex()}"}
        self._ports = None if plan.ports is None else _serve_ports(plan.ports)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._drain)

    # -- loop ------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run the children until the main one ends or a signal comes; the exit status."""
        _allow_files()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, self._noted)
        signal.set_wakeup_fd(self._wake_write)
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
        now = time.monotonic()
        waiting = [running.due for running in self.children if running.life is None]
        waiting += [running.spare_due for running in self.children if running.child.standby and not running.spare]
        return max(0.0, min(waiting) - now) if waiting else None

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
            if running.life is None and running.due <= now:
                running.life, running.spare = running.spare or self._start(running.child, now), None
                running.life.began = now
                running.life.go()
                running.lives += 1
                running.spare_due = now + SPARE_AFTER_S
            elif running.child.standby and running.spare is None and running.spare_due <= now:
                running.spare = self._start(running.child, now)

    def _start(self, child: Child, now: float) -> Life:
        given = {name: self.descriptors[name] for name in child.wants if not name.endswith("-")}
        starts = tuple(name for name in child.wants if name.endswith("-"))
        given.update({name: number for name, number in self.descriptors.items() if name.startswith(starts)})
        baton_read = baton_write = -1
        if child.standby:
            baton_read, baton_write = os.pipe2(os.O_CLOEXEC)
            given[BATON] = baton_read
        process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
            child.argv,
            env={**self._environment, NAMES: describe(given)},
            stdin=subprocess.DEVNULL,
            pass_fds=tuple(given.values()),
            start_new_session=True,  # a terminal's interrupt reaches only the supervisor, which stops them in order
        )
        if baton_read >= 0:
            os.close(baton_read)
        return Life(process, baton_write, now)

    def _reap(self) -> None:
        """Look after children that have ended."""
        now = time.monotonic()
        for running in self.children:
            if running.spare is not None and not running.spare.alive:
                running.spare.forget()
                running.spare, running.spare_due = None, now + LONGEST_REST_S
            life = running.life
            if life is None or life.alive:
                continue
            status, lived = life.process.returncode, now - life.began
            life.forget()
            running.life = None
            if running.child.main and (status == 0 or (status > 0 and running.lives == 1 and lived < NEVER_READY_S)):
                self.stopping, self.status = True, status
                return
            short = lived < SHORT_LIFE_S
            running.rest_s = min(LONGEST_REST_S, running.rest_s * 2 or 0.1) if short else FIRST_REST_S
            at_once = not short or running.lives == 1 or running.spare is not None  # a spare means: it ran for a while
            running.due = now if at_once else now + running.rest_s
            if not self.stopping:
                how = f"signal {-status}" if status < 0 else f"status {status}"
                _say(f"the {running.child.name} process ended ({how}) after {lived:.0f} s; it is started again")

    def _stop_all(self) -> None:
        """End the children, the last started first; each has `stop_s`."""
        for running in self.children:
            if running.spare is not None:
                running.spare.process.kill()
                running.spare.process.wait()
                running.spare.forget()
        for running in reversed(self.children):
            if running.life is None or not running.life.alive:
                continue
            process = running.life.process
            process.terminate()
            status = self._await_end(process)
            if running.child.main and status > 0:
                self.status = status
        if self._ports is not None:
            self._ports.close()

    def _await_end(self, process: "subprocess.Popen[bytes]") -> int:
        """Its exit status. Another signal to us is passed on as an interrupt: do not wait for anything."""
        end = time.monotonic() + self.plan.stop_s
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(min(left, SIGNAL_LOOK_S))
            while self._signals:
                if self._signals.pop(0) in (signal.SIGTERM, signal.SIGINT):
                    process.send_signal(signal.SIGINT)
        process.kill()
        return process.wait()


def _serve_ports(plan: Ports) -> PortService:
    """Open the first RTP ports and hand them, and more on demand, to the media process. Raises CannotBind."""
    keeper = PortKeeper(plan.host, plan.port_min, plan.port_max, plan.pairs)
    try:
        keeper.open_block()
        return PortService(keeper, plan.path)
    except (NoPorts, OSError) as error:
        raise CannotBind(f"{error}; see media.host and media.port_min") from None


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
        return {SIP_UDP: udp, SIP_TCP: tcp}
    raise AssertionError("unreachable")


def bind_tls(host: str, port: int) -> socket.socket:
    """A listening socket for SIP over TLS. Raises CannotBind."""
    tls = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        tls.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tls.bind((host, port))
        tls.listen(TCP_BACKLOG)
    except OSError as error:
        tls.close()
        reason = error.strerror or str(error)
        raise CannotBind(f"cannot take TLS port {port} on {host}: {reason}; see sip.host and sip.tls_port") from None
    tls.setblocking(False)
    return tls


def bind_http(host: str, port: int) -> dict[str, socket.socket]:
    """Sockets for the API on every address that the host stands for (empty: all). Raises CannotBind."""
    bound: dict[str, socket.socket] = {}
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            one = bound[f"{HTTP}{len(bound)}"] = socket.socket(family, kind, protocol)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            one.listen(TCP_BACKLOG)
            one.setblocking(False)
    except OSError as error:
        for one in bound.values():
            one.close()
        reason = error.strerror or str(error)
        text = f"cannot listen on {host} port {port}: {reason}; see server.host and server.port"
        raise CannotBind(text) from None
    return bound


def _allow_files() -> None:
    """As many open files as the system lets us have: every call takes two sockets, and children inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _say(text: str) -> None:
    sys.stderr.write(f"trunkline: {text}\n")
    sys.stderr.flush()
