"""Timers of RFC 3261 (table 4) as data, and one heap for all of them.

A timer that is not wanted any more stays in the heap, dead, until its time comes or the dead outnumber the living;
so setting costs one heap push and cancelling nothing, and the heap is at most about twice what is alive.
"""

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final

DEAD_MIN: Final = 1000  # dead timers below which the heap is not cleaned


@dataclass(frozen=True, slots=True)
class Timing:
    """The base values that all others follow from, in seconds."""

    t1: float = 0.5
    """Estimate of the round trip."""
    t2: float = 4.0
    """Longest time between retransmissions of a non-INVITE request or an INVITE response."""
    t4: float = 5.0
    """Longest time that a message stays in the network."""

    @property
    def give_up(self) -> float:
        """64*T1: timers B, F, H, J, L and M, D over UDP, and the wait for an ACK of a 2xx."""
        return 64 * self.t1


class Timer:
    """One timer; `call` is None once it has fired or was cancelled."""

    __slots__ = ("call", "due")

    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due = due
        self.call: Callable[[], None] | None = call


class Timers:
    """A heap of timers over one monotonic clock (seconds)."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._sequence = 0
        self._dead = 0
        self.earlier: Callable[[float], None] | None = None
        """Called with the new earliest due time whenever it moves forward, so that the owner's own timer can follow."""

    def __len__(self) -> int:
        """Timers that are alive."""
        return len(self._heap) - self._dead

    def set(self, due: float, call: Callable[[], None]) -> Timer:
        """Have `call` called by `run` once `due` has come."""
        timer = Timer(due, call)
        self._sequence += 1
        heap = self._heap
        heappush(heap, (due, self._sequence, timer))
        if self.earlier is not None and heap[0][2] is timer:
            self.earlier(due)
        return timer

    def cancel(self, timer: Timer | None) -> None:
        """Never call it; a timer that has fired or is None already is no error."""
        if timer is None or timer.call is None:
            return
        timer.call = None
        self._dead += 1
        if self._dead > DEAD_MIN and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].call is not None]
            heapify(self._heap)
            self._dead = 0

    def due(self) -> float | None:
        """When `run` should be called next, None without timers."""
        heap = self._heap
        while heap and heap[0][2].call is None:
            heappop(heap)
            self._dead -= 1
        return heap[0][0] if heap else None

    def pop(self, now: float) -> Callable[[], None] | None:
        """The call of the next timer that is due, which then counts as fired; None if there is none."""
        heap = self._heap
        while heap:
            timer = heap[0][2]
            if timer.call is not None and timer.due > now:
                return None
            heappop(heap)
            if timer.call is None:
                self._dead -= 1
                continue
            call, timer.call = timer.call, None
            return call
        return None
