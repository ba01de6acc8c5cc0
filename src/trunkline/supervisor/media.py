"""Putting the media process (and the recorder) on another version, apart from the node.

The old media process goes on through an upgrade of the node, with all calls. It is replaced by its spare, like after a
crash: both know the legs from the shared memory, so that a call hears a gap of some frames. Asked for by an operator,
or (`pending`) at the first moment at which no call is up.
"""

import time
from typing import TYPE_CHECKING, Final

from trunkline.inherited import HEALTH
from trunkline.supervisor.life import Running

if TYPE_CHECKING:
    from trunkline.supervisor.run import Supervisor

SET_S: Final = 3.0
"""How long a new spare may take to be all set."""
ASK_EVERY_S: Final = 5.0


class MediaSwap:
    """See the module."""

    def __init__(self, supervisor: "Supervisor") -> None:
        self._supervisor = supervisor
        self.pending = ""
        """The interpreter of the version that takes over once no call is up; empty: none waits."""
        self.due: float | None = None
        """When to `look`."""
        self._swapping = False
        self._ended: list[Running] = []

    @property
    def _children(self) -> list[Running]:
        return [one for one in self._supervisor.children if not one.child.main]

    def expects(self, running: Running) -> bool:
        """Whether the end of a child is of our making; asked once."""
        if running in self._ended:
            self._ended.remove(running)
            return True
        return False

    def later(self, python: str) -> None:
        """Do it once no call is up."""
        if self._children and python:
            self.pending, self.due = python, time.monotonic() + ASK_EVERY_S

    def told(self, calls: int) -> None:
        """So many calls are up."""
        if self.pending and not calls and not self._swapping:
            self.begin(self.pending)

    def begin(self, python: str) -> str:
        """Do it now. Why not, or empty."""
        if not self._children:
            return "there is no media process: calls are not taken (sip.enabled)"
        if self._swapping:
            return "the media process is being replaced already"
        self.pending, self._swapping = "", True
        for running in self._children:
            running.child.argv = [python or running.child.argv[0], *running.child.argv[1:]]
            if running.spare is not None:
                running.spare.kill()
            running.spare, running.spare_due = None, 0.0
        self.due = time.monotonic() + SET_S
        self._supervisor.tell("a new media process gets ready")
        return ""

    def look(self) -> None:
        """Whether it is time."""
        now = time.monotonic()
        if self.due is None or now < self.due:
            return
        self.due = None
        if self._swapping:
            self._swapping = False
            for running in self._children:
                if running.life is not None and (running.spare is not None or not running.child.standby):
                    self._ended.append(running)
                    running.life.process.terminate()
            self._supervisor.tell("the media process and the recorder are replaced; calls go on", over=True, ok=True)
        elif self.pending:
            main = self._supervisor.main
            if main is not None and main.life is not None:
                main.life.ask(HEALTH)
            self.due = now + ASK_EVERY_S
