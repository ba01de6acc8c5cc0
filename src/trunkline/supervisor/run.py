"""The supervisor's loop."""

import contextlib
import os
import resource
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from trunkline.inherited import CLOSED, HEALTH, KINDS, MAX_DESCRIPTORS, READY, RUN
from trunkline.supervisor.desk import Client, Desk
from trunkline.supervisor.handover import Handover, Patience, Stage
from trunkline.supervisor.life import Life, Running, start
from trunkline.supervisor.media import MediaSwap
from trunkline.supervisor.plan import Child, Plan
from trunkline.supervisor.sockets import CannotBind, bind_all, bind_http, bind_sip, bind_tls, serve_ports

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
MAX_HELD: Final = 20_000
"""Connections between two processes of the node; more are closed."""
__all__ = ["CannotBind", "Supervisor", "bind_http", "bind_sip", "bind_tls"]


class Supervisor:
    """See the package."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.children = [Running(child) for child in plan.children]
        self.main = next((running for running in self.children if running.child.main), None)
        self.stopping = False
        self.status = 0
        self.handover: Handover | None = None
        self.last: dict[str, Any] = {}
        """How the last handover ended."""
        self.handovers = 0
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._signals: list[int] = []
        self.sockets = bind_all(plan)
        self.descriptors = {name: one.fileno() for name, one in self.sockets.items()}
        for name in plan.memories:
            self.descriptors[name] = os.memfd_create(f"trunkline-{name}", os.MFD_CLOEXEC)
        self._environment = {**os.environ, RUN: f"{os.getpid()}-{os.urandom(8).hex()}"}
        self._ports = None if plan.ports is None else serve_ports(plan.ports)
        self._selector.register(self._wake_read, selectors.EVENT_READ, self._drain)
        self._leaving: list[Life] = []
        """Processes of the node that have handed over and are about to end."""
        self._held: list[tuple[str, list[int]]] = []
        """Connections on their way to the next process, and of which of inherited.KINDS they are."""
        self._desk = self._open_desk(plan.control) if plan.control else None
        self.media = MediaSwap(self)
        self._media_too = False

    def _open_desk(self, path: str) -> Desk:
        try:
            return Desk(path, self._selector, self._order)
        except OSError as error:
            raise CannotBind(f"cannot listen at {path}: {error.strerror or error}") from None

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
            self._look()
            for key, _ in self._selector.select(self._timeout()):
                key.data()
        self._stop_all()
        return self.status

    def _look(self) -> None:
        if self.handover is not None:
            self.handover.look()
            self._finish()
        self.media.look()

    def _timeout(self) -> float | None:
        now = time.monotonic()
        waiting = [running.due for running in self.children if running.life is None]
        waiting += [running.spare_due for running in self.children if running.child.standby and not running.spare]
        if self.handover is not None:
            waiting.append(self.handover.due)
        if self.media.due is not None:
            waiting.append(self.media.due)
        return max(0.0, min(waiting) - now) if waiting else None

    def _noted(self, number: int, _frame: object) -> None:
        self._signals.append(number)

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 512)

    def _handle_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            if number in (signal.SIGTERM, signal.SIGINT):
                self.stopping = True
            elif number == signal.SIGHUP and self.main is not None:
                why = self.hand_over(self.main.child.argv, {})
                if why:
                    say(f"SIGHUP: {why}")

    # -- orders ----------------------------------------------------------------------------------------------

    def _order(self, client: Client, order: dict[str, Any]) -> None:
        """Somebody asks for something (trunkline.supervisor.desk)."""
        do, why = order.get("do"), ""
        if do == "status":
            client.tell({**self.state(), "over": True, "ok": True})
            return
        if do in ("restart", "upgrade") and self.main is not None:
            argv = command(self.main.child.argv, str(order.get("python", "")))
            why = self.hand_over(argv, order)
        elif do == "media":
            why = self.media.begin(str(order.get("python", "")))
        elif do == "back":
            asked = self.handover is not None and self.handover.ask_back(str(order.get("why", "it was asked for")))
            why = "" if asked else "there is no restart in its grace time"
        else:
            why = "no such order"
        if why:
            client.tell({"over": True, "ok": False, "text": why})

    def state(self) -> dict[str, Any]:
        """What runs, for `status`."""
        now = time.monotonic()
        children = [
            {"name": one.child.name, "pid": one.life.pid, "python": one.life.argv[0], "age_s": now - one.life.began,
             "starts": one.lives}
            for one in self.children if one.life is not None
        ]  # fmt: skip
        stage = self.handover.stage.value if self.handover is not None else ""
        return {
            "pid": os.getpid(),
            "children": children,
            "stage": stage,
            "handovers": self.handovers,
            "last": self.last,
        }

    def hand_over(self, argv: list[str], wanted: dict[str, Any]) -> str:
        """Replace the node's process by one of this command. Why not, or empty."""
        if self.handover is not None:
            return f"a restart is under way ({self.handover.stage.value})"
        if self.main is None or self.main.life is None or self.main.life.channel is None:
            return "the node is not running"
        grace_s = _seconds(wanted.get("grace_s"), Patience.grace_s)
        ready_s = _seconds(wanted.get("ready_s"), Patience.ready_s)
        self._media_too = bool(wanted.get("media"))
        patience = Patience(drain_s=self.plan.stop_s, grace_s=grace_s, ready_s=ready_s, warm_s=ready_s)
        self.handover = Handover(self, self.main.life, argv, patience)
        self.handover.begin()
        self._finish()
        return ""

    def _finish(self) -> None:
        """Tell how a handover ended."""
        done = self.handover
        if done is None or not done.over:
            return
        self.handover = None
        self.handovers += 1
        self._close_held(KINDS)
        ok = done.stage is Stage.DONE
        if ok and done.argv[0] != done.before[0] and not self._media_too:
            self.media.later(done.argv[0])
        self.last = {"ok": ok, "why": done.why, "pause_s": round(done.pause_s, 3), "at": time.time()}
        if self._desk is not None:
            self._desk.tell({**self.last, "over": not (ok and self._media_too), "text": done.why})
        if ok and self._media_too and (why := self.media.begin(done.argv[0])) and self._desk is not None:
            self._desk.tell({"over": True, "ok": False, "text": why})

    # -- handover.Host ---------------------------------------------------------------------------------------

    def now(self) -> float:
        return time.monotonic()

    def successor(self, argv: list[str], *, wait: bool) -> Life:
        assert self.main is not None
        return self._start(self.main.child, argv, wait=wait)

    def take_turn(self, process: Any) -> None:
        """The node is this process; the one before is about to end."""
        assert self.main is not None
        before, self.main.life = self.main.life, process
        if before is not None and before is not process:
            self._leaving.append(before)
        process.began = time.monotonic()
        self.main.lives += 1
        for kind, held in _joined(self._held):
            if not process.channel.say({"do": kind}, tuple(held)):
                say(f"{len(held)} connections ({kind}) could not be given to the next process")
        process.go()

    def tell(self, text: str, **more: Any) -> None:
        say(text.strip())
        if self._desk is not None:
            self._desk.tell({"text": text, **more})

    def settle(self, argv: list[str]) -> None:
        assert self.main is not None
        self.main.child.argv = argv

    # -- the node's words ------------------------------------------------------------------------------------

    def _listen(self, life: Life) -> None:
        if life.channel is not None:
            self._selector.register(life.channel, selectors.EVENT_READ, lambda: self._hear(life))

    def _hear(self, life: Life) -> None:
        try:
            while life.channel is not None and (heard := life.channel.heard()) is not None:
                message, descriptors = heard
                if message.get("event") == CLOSED:
                    self._close_held(KINDS)  # of an earlier turn: who has them now passes on what is still there
                elif message.get("event") == READY:
                    self._close_held(KINDS[1:])  # whoever follows a crash must not do again what was begun
                if descriptors:
                    self._hold(str(message.get("event")), descriptors)
                if message.get("event") == HEALTH:
                    self.media.told(int(message.get("calls", 0)))
                if self.handover is not None:
                    self.handover.heard(life, message)
                    self._finish()
        except EOFError:
            self._deafen(life)

    def _deafen(self, life: Life) -> None:
        if life.channel is not None:
            self._selector.unregister(life.channel)
            life.channel.end.close()
            life.channel = None

    def _hold(self, kind: str, descriptors: list[int]) -> None:
        """Keep the old process's connections for the next, until that serves."""
        full = sum(len(held) for _, held in self._held) >= MAX_HELD
        if self.handover is None or full or kind not in KINDS:
            for descriptor in descriptors:
                os.close(descriptor)
        else:
            self._held.append((kind, descriptors))

    def _close_held(self, kinds: tuple[str, ...]) -> None:
        for kind, descriptors in self._held:
            for descriptor in descriptors if kind in kinds else ():
                os.close(descriptor)
        self._held = [one for one in self._held if one[0] not in kinds]

    # -- children --------------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        now = time.monotonic()
        for running in self.children:
            if running.life is None and running.due <= now:
                try:
                    life = running.spare or self._start(running.child, running.child.argv)
                except OSError as error:
                    if not running.lives:
                        raise CannotBind(f"{running.child.argv[0]}: {error.strerror or error}") from None
                    say(f"the {running.child.name} process cannot be started: {error}")
                    running.due = now + LONGEST_REST_S
                    continue
                running.life, running.spare = life, None
                running.life.began = now
                running.life.go()
                running.lives += 1
                running.spare_due = now + SPARE_AFTER_S
            elif running.child.standby and running.spare is None and running.spare_due <= now:
                running.spare_due = now + LONGEST_REST_S
                with contextlib.suppress(OSError):
                    running.spare = self._start(running.child, running.child.argv)

    def _start(self, child: Child, argv: list[str], *, wait: bool | None = None) -> Life:
        waits = child.standby if wait is None else wait
        life = start(child, argv, self.descriptors, self._environment, time.monotonic(), wait=waits)
        self._listen(life)
        return life

    def _reap(self) -> None:
        """Look after children that have ended."""
        for life in [life for life in self._leaving if not life.alive]:
            self._leaving.remove(life)
            self._deafen(life)
        now = time.monotonic()
        waiting = self.handover.new if self.handover is not None else None
        if isinstance(waiting, Life) and not waiting.alive:
            self._ended_new(waiting)
        for running in self.children:
            if running.spare is not None and not running.spare.alive:
                running.spare.forget()
                running.spare, running.spare_due = None, now + LONGEST_REST_S
            if running.life is not None and not running.life.alive:
                self._ended(running, running.life, now)
                if self.stopping:
                    return

    def _ended_new(self, life: Life) -> None:
        """The process that was to be the node, or has just become it, has ended."""
        assert self.handover is not None
        self._hear(life)  # what it said last
        if self.handover is None or not self.handover.ended(life, _how(life)):
            return
        life.forget()
        self._deafen(life)
        if self.main is not None and self.main.life is life:
            self.main.life, self.main.due = None, time.monotonic()
        self._finish()

    def _ended(self, running: Running, life: Life, now: float) -> None:
        status, lived = life.process.returncode, now - life.began
        self._hear(life)
        if running.life is not life:  # with its last words it has handed over
            return
        life.forget()
        self._deafen(life)
        if self.handover is not None and running.child.main:
            if self.handover.ended(life, _how(life)) or (status != 0 and self.handover.crashed()):
                self._finish()
                return
            if self.handover is not None and self.handover.new is not None and self.handover.new is not life:
                self.handover.new.kill()
            self.handover = None
        running.life = None
        if running.child.main and (status == 0 or (status > 0 and running.lives == 1 and lived < NEVER_READY_S)):
            self.stopping, self.status = True, status
            return
        short = lived < SHORT_LIFE_S and not self.media.expects(running)
        running.rest_s = min(LONGEST_REST_S, running.rest_s * 2 or 0.1) if short else FIRST_REST_S
        at_once = not short or running.lives == 1 or running.spare is not None  # a spare means: it ran for a while
        running.due = now if at_once else now + running.rest_s
        if not self.stopping:
            say(f"the {running.child.name} process ended ({_how(life)}) after {lived:.0f} s; it is started again")

    def _stop_all(self) -> None:
        """End the children, the last started first; each has `stop_s`."""
        if self._desk is not None:
            self._desk.close()
        for running in self.children:
            if running.spare is not None:
                running.spare.kill()
        if self.handover is not None and self.handover.new is not None and self.main is not None:
            if self.handover.new is not self.main.life:
                self.handover.new.kill()
            self.handover = None
        for running in reversed(self.children):
            if running.life is None or not running.life.alive:
                continue
            process = running.life.process
            process.terminate()
            status = self._await_end(process)
            if running.child.main and status > 0:
                self.status = status
        for life in self._leaving:
            self._await_end(life.process)
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


def command(argv: list[str], python: str) -> list[str]:
    """The same command with another interpreter: its version of everything."""
    return [python, *argv[1:]] if python else list(argv)


def _how(life: Life) -> str:
    status = life.process.returncode
    return f"signal {-status}" if status is not None and status < 0 else f"status {status}"


def _joined(held: list[tuple[str, list[int]]]) -> Iterator[tuple[str, list[int]]]:
    """The same in as few messages as can be, each whole and in its order: a socket that nobody reads yet takes some
    280, and the node passes on a message for each turn in which a request ends."""
    for kind in KINDS:
        together: list[int] = []
        for descriptors in (one for name, one in held if name == kind):
            if together and len(together) + len(descriptors) > MAX_DESCRIPTORS:
                yield kind, together
                together = []
            together += descriptors
        if together:
            yield kind, together


def _seconds(wanted: object, default: float) -> float:
    return max(0.0, float(wanted)) if isinstance(wanted, int | float) else default


def _allow_files() -> None:
    """As many open files as the system lets us have: every call takes two sockets, and children inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def say(text: str) -> None:
    """One line for the log."""
    sys.stderr.write(f"trunkline: {text}\n")
    sys.stderr.flush()
