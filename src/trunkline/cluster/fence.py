"""The fence: whether this node may send now.

Theory. A node may send for what it owns until a deadline on its own CLOCK_BOOTTIME (which goes on in suspend, and
which nobody sets). The deadline moves with each renewal of the node's lease: the moment at which the renewal *began*,
plus the lease, less a margin for clocks that run at different speeds. Others take over no sooner than one lease after
they saw the renewal, so that the fence of a node is closed before anything of it is taken, whatever the node does
meanwhile: a stopped process finds the fence closed when it goes on. `open` is looked at just before each send.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

MARGIN_SHARE: Final = 0.1
"""Part of the lease that is given away for clocks of different speed."""
MIN_MARGIN_MS: Final = 20
"""The margin of short leases, milliseconds."""
NS_PER_MS: Final = 1_000_000
NEVER_NS: Final = (1 << 63) - 1
"""A deadline that does not come."""


def boottime_ns() -> int:
    """CLOCK_BOOTTIME in nanoseconds."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def margin_ns(ttl_ms: float) -> int:
    """What a lease of `ttl_ms` gives away."""
    return int(max(ttl_ms * MARGIN_SHARE, MIN_MARGIN_MS) * NS_PER_MS)


class Gate(Protocol):
    """What senders ask."""

    @property
    def open(self) -> bool: ...

    def passes(self) -> bool:
        """`open`, and what does not pass is counted."""


class Fence:
    """A node's fence; closed until the first `extend`."""

    def __init__(self, now_ns: Callable[[], int] = boottime_ns) -> None:
        self._now = now_ns
        self.deadline_ns = 0
        """CLOCK_BOOTTIME up to which the node may send."""
        self.bound_ns = NEVER_NS
        """The deadline is never later than that (`bind`)."""
        self.held_back = 0
        """Sends that `passes` refused."""
        self.closings = 0
        self.on_close: list[Callable[[], None]] = []
        """Called when the fence is found closed (`check`), within moments of its deadline."""
        self.on_open: list[Callable[[], None]] = []
        self.on_extend: list[Callable[[int], None]] = []
        """Called with each new deadline (0: closed), for processes that keep a copy of it."""
        self._told_open = False

    @property
    def open(self) -> bool:
        """Whether this node may send now."""
        return self._now() < self.deadline_ns

    def passes(self) -> bool:
        """`open`, and what does not pass is counted."""
        if self._now() < self.deadline_ns:
            return True
        self.held_back += 1
        return False

    @property
    def remaining_s(self) -> float:
        """Seconds until it closes; negative: closed."""
        return (self.deadline_ns - self._now()) / 1e9

    def extend(self, start_ns: int, ttl_ms: float) -> None:
        """The lease was renewed for `ttl_ms` by a renewal that began at `start_ns`. Never shortens it."""
        self.check()
        deadline = min(start_ns + int(ttl_ms * NS_PER_MS) - margin_ns(ttl_ms), self.bound_ns)
        if deadline <= self.deadline_ns:
            return
        self.deadline_ns = deadline
        for extended in self.on_extend:
            extended(deadline)
        if self.open and not self._told_open:
            self._told_open = True
            for opened in self.on_open:
                opened()

    def bind(self, bound_ns: int) -> None:
        """Be open no longer than that, whatever renewals say: the region may be another one's by then."""
        self.bound_ns = bound_ns
        if bound_ns < self.deadline_ns:
            self.deadline_ns = bound_ns
            for extended in self.on_extend:
                extended(bound_ns)
            self.check()

    def check(self) -> bool:
        """`open`; tells those who want to know when it has closed since."""
        if self.open:
            return True
        if self._told_open:
            self._told_open = False
            self.closings += 1
            for closed in self.on_close:
                closed()
        return False

    def close(self) -> None:
        """At once: the lease is lost or given back."""
        self.deadline_ns = 0
        for extended in self.on_extend:
            extended(0)
        self.check()


class AlwaysOpen:
    """The gate of a node that is alone."""

    open: Final = True
    held_back: Final = 0
    deadline_ns: Final = NEVER_NS

    def passes(self) -> bool:
        """Always."""
        return True


ALWAYS_OPEN: Final = AlwaysOpen()
