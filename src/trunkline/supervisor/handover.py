"""From one process of the node to the next without a failed request: a state machine without I/O of its own.

    WARMING   the new process has been started and gets ready for everything that needs no data folder;
              the old one serves. If the new one fails here, nothing has happened.
    DRAINING  the old one finishes what is under way, stops accepting (connections wait in the sockets that the
              supervisor keeps), lets go of the data folder and ends.
    STARTING  the new one takes the folder and begins. If it fails, the old version is started again: requests have
              waited longer, none is refused.
    WATCHING  it serves. If it ends, or is not well at the end of the grace time where its predecessor was, the old
              version comes back in the same way (`returning`).

The order is the same on SQLite, whose folder one process holds at a time, and in a cluster, where the new process
succeeds to the old one's lease before it has run out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

from trunkline.inherited import CLOSED, HAND_OVER, HEALTH, KINDS, READY, RELEASED, WARM, Message

HEALTH_EVERY_S: Final = 1.0


class Process(Protocol):
    """A process of the node (trunkline.supervisor.life.Life)."""

    argv: list[str]
    takes: tuple[str, ...]

    @property
    def pid(self) -> int: ...

    @property
    def alive(self) -> bool: ...

    def ask(self, do: str, **more: Any) -> None: ...

    def kill(self) -> None: ...


class Stage(Enum):
    """See the module."""

    WARMING = "warming"
    DRAINING = "draining"
    STARTING = "starting"
    WATCHING = "watching"
    REVIVING = "reviving"
    """The old version is started again, with no other beside it."""
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Patience:
    """Longest times, seconds."""

    warm_s: float = 60.0
    drain_s: float = 120.0
    """Then the old process is killed: what it had not finished is taken up like after a crash."""
    ready_s: float = 60.0
    grace_s: float = 10.0


class Host(Protocol):
    """The supervisor."""

    def now(self) -> float: ...

    def successor(self, argv: list[str], *, wait: bool) -> Process:
        """A new process of the node. Raises OSError."""

    def take_turn(self, process: Process) -> None:
        """It is the node from now on."""

    def tell(self, text: str, **more: Any) -> None:
        """Progress, for whoever asked and for the log."""

    def settle(self, argv: list[str]) -> None:
        """With this command the node is started from now on, after crashes too."""


class Handover:
    """See the module. `stage` DONE or FAILED is the end; `why` then says what happened."""

    def __init__(self, host: Host, old: Process, argv: list[str], patience: Patience) -> None:
        self._host = host
        self._patience = patience
        self.old: Process = old
        self.new: Process | None = None
        self.argv = argv
        self.before = list(old.argv)
        self.stage = Stage.WARMING
        self.why = ""
        self.returning = ""
        """Why the old version comes back; empty: it does not."""
        self.pause_s = 0.0
        """How long nothing was accepted."""
        self._began = self._since = self._closed = host.now()
        self._deadline = 0.0
        self._was_well: bool | None = None
        self._well: tuple[bool, str] | None = None
        self._health_due = 0.0

    @property
    def over(self) -> bool:
        """Whether there is nothing more to do."""
        return self.stage in (Stage.DONE, Stage.FAILED)

    def begin(self) -> None:
        """Start the new process."""
        self._enter(Stage.WARMING, self._patience.warm_s)
        self.new = None
        try:
            self.new = self._host.successor(self.argv, wait=True)
        except OSError as error:
            self._fail(f"{self.argv[0]}: {error.strerror or error}")
            return
        if self._was_well is None:
            self.old.ask(HEALTH)

    # -- what happens ----------------------------------------------------------------------------------------

    def heard(self, process: Process, message: Message) -> None:
        """A process of the node said something."""
        event = message.get("event")
        if event == READY and self.stage is Stage.REVIVING:
            self._revived()
        elif event == HEALTH:
            self._told_health(process, bool(message.get("ok")), str(message.get("why", "")))
        elif event in _STEPS:
            stage, is_new, step = _STEPS[event]
            if self.stage is stage and process is (self.new if is_new else self.old):
                if event == WARM and isinstance(takes := message.get("takes"), list):
                    process.takes = tuple(kind for kind in KINDS if kind in takes)
                step(self)

    def _told_health(self, process: Process, ok: bool, why: str) -> None:
        if process is self.old and self._was_well is None:
            self._was_well = ok
        elif process is self.new and self.stage is Stage.WATCHING:
            self._well = (ok, why)

    def _warm(self) -> None:
        self._say(f"process {self._pid} is warm")
        self._drain()

    def _drain(self) -> None:
        self._enter(Stage.DRAINING, self._patience.drain_s)
        self._closed = self._host.now()
        self.old.ask(HAND_OVER, takes=self.new.takes if self.new is not None else ())

    def _shut(self) -> None:
        self._closed = self._host.now()
        self._say(f"process {self.old.pid} has finished what was under way; connections wait")

    def _released(self) -> None:
        if self.new is None:
            self._revive(self.returning)
            return
        self._enter(Stage.STARTING, self._patience.ready_s)
        self._host.take_turn(self.new)

    def _ready(self) -> None:
        now = self._host.now()
        self.pause_s = now - self._closed
        self._say(f"process {self._pid} serves; connections waited {self.pause_s:.2f} s", pause_s=self.pause_s)
        if self.returning:
            self._end(Stage.FAILED, f"{self.returning}; the version before is back")
            return
        self._enter(Stage.WATCHING, self._patience.grace_s)
        self._health_due = now

    def _revived(self) -> None:
        self.pause_s = self._host.now() - self._closed
        self._say(f"process {self._pid} serves again with the version before")
        self._end(Stage.FAILED, f"{self.returning}; the version before is back")

    def ended(self, process: Process, how: str) -> bool:
        """A process has ended. False: that is not of this handover's making, and nobody has looked after it."""
        if process is self.old and self.stage is Stage.DRAINING:
            self._released()
            return True
        if process is self.old and self.stage is Stage.WARMING:
            return False
        if process is not self.new:
            return False
        if self.stage is Stage.WARMING:
            self.new = None
            self._fail(f"the new process ended ({how}) before it was warm")
            return True
        if self.stage is Stage.DRAINING:  # the old one is letting go already: its version is started again after it
            self.new, self.returning = None, f"the new process ended ({how}) before its turn"
            return True
        if self.stage in (Stage.STARTING, Stage.WATCHING):
            self._revive(f"the new process ended ({how})")
            return True
        return False

    def crashed(self) -> bool:
        """The old process died while its successor was warming; True: the successor takes its place."""
        if self.stage is Stage.WARMING and self.new is not None:
            self._released()
            return True
        return False

    def ask_back(self, why: str) -> bool:
        """Somebody wants the version before back. False: too late, or too early."""
        if self.stage is not Stage.WATCHING:
            return False
        self._return(why)
        return True

    # -- time ------------------------------------------------------------------------------------------------

    @property
    def due(self) -> float:
        """When to `look`."""
        return min(self._deadline, self._health_due) if self.stage is Stage.WATCHING else self._deadline

    def look(self) -> None:
        """Whether a time is over."""
        now = self._host.now()
        if self.over or (self.new is None and self.stage is not Stage.DRAINING):
            return
        if self.stage is Stage.WATCHING and now >= self._health_due and self.new is not None:
            self._health_due = now + HEALTH_EVERY_S
            self.new.ask(HEALTH)
        if now < self._deadline:
            return
        if self.stage is Stage.WARMING:
            self._fail(f"the new process was not warm within {self._patience.warm_s:g} s")
        elif self.stage is Stage.DRAINING:
            self._say(f"process {self.old.pid} did not let go in time: it is killed")
            self.old.kill()
            self._released()
        elif self.stage is Stage.STARTING:
            self._revive(f"the new process was not ready within {self._patience.ready_s:g} s")
        elif self.stage is Stage.WATCHING:
            self._judge()
        elif self.stage is Stage.REVIVING:
            self._end(Stage.FAILED, f"{self.returning}; the version before is not ready yet either")

    def _judge(self) -> None:
        ok, why = self._well or (True, "")
        if self._was_well and not ok:
            self._return(f"the new process is not well: {why}")
            return
        self._host.settle(self.argv)
        self._end(Stage.DONE, "")

    # -- ways back -------------------------------------------------------------------------------------------

    def _return(self, why: str) -> None:
        """The new version serves but may not stay: hand over to the old one in the same way."""
        assert self.new is not None
        self._say(f"going back: {why}")
        self.returning = why
        self.argv, self.old = self.before, self.new
        self.begin()

    def _revive(self, why: str) -> None:
        """The new one is gone or stuck: start the old version at once."""
        self._say(f"going back: {why}")
        self.returning = why
        if self.new is not None:
            self.new.kill()
        self._enter(Stage.REVIVING, self._patience.ready_s)
        try:
            self.new = self._host.successor(self.before, wait=False)
        except OSError as error:
            self._end(Stage.FAILED, f"{why}; the version before cannot be started: {error.strerror or error}")
            return
        self._host.take_turn(self.new)

    # -- inside ----------------------------------------------------------------------------------------------

    @property
    def _pid(self) -> int:
        return self.new.pid if self.new is not None else 0

    def _enter(self, stage: Stage, most_s: float) -> None:
        self.stage = stage
        self._since = self._host.now()
        self._deadline = self._since + most_s

    def _say(self, text: str, **more: Any) -> None:
        self._host.tell(f"{self._host.now() - self._began:7.2f} s  {text}", stage=self.stage.value, **more)

    def _fail(self, why: str) -> None:
        """Before anything has changed hands."""
        if self.new is not None:
            self.new.kill()
        self._end(Stage.FAILED, f"{why}; the process before goes on" if not self.returning else why)

    def _end(self, stage: Stage, why: str) -> None:
        self.stage, self.why = stage, why
        self._say(f"{stage.value}{': ' if why else ''}{why}", pause_s=self.pause_s)


_STEPS: Final[dict[str, tuple[Stage, bool, Callable[[Handover], None]]]] = {
    WARM: (Stage.WARMING, True, Handover._warm),
    CLOSED: (Stage.DRAINING, False, Handover._shut),
    RELEASED: (Stage.DRAINING, False, Handover._released),
    READY: (Stage.STARTING, True, Handover._ready),
}
"""Event -> in which stage, whether it is the new process's, and what it leads to."""
