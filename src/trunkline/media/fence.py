"""The deadline up to which this host may send audio, in eight bytes of shared memory.

Theory. In a cluster a node may send for what it owns until a moment on CLOCK_BOOTTIME, which moves with each renewal of
its lease (trunkline.cluster.fence); after that other hosts go on with its calls. The node writes the deadline here, the
media process compares it with the clock just before each batch of packets (`helper.c`), without a word between the two:
a host that stood still (suspended, SIGSTOP) and goes on finds it passed, whatever else waits to be done there. Memory
that nobody has written yet is a deadline that has passed. Without a cluster there is no such memory, and no question.
"""

import mmap
import os
import time

BYTES = mmap.PAGESIZE
NEVER_NS = (1 << 63) - 1
"""A deadline that does not come."""


def boottime_ns() -> int:
    """The clock of deadlines; it goes on while the host is suspended, and nobody sets it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class FenceMemory:
    """See the module. `fd` of a memfd, which the supervisor keeps."""

    def __init__(self, fd: int) -> None:
        if os.fstat(fd).st_size < BYTES:
            os.ftruncate(fd, BYTES)
        self.memory = mmap.mmap(fd, BYTES)
        self._words = memoryview(self.memory).cast("q")

    @property
    def deadline_ns(self) -> int:
        return self._words[0]

    @deadline_ns.setter
    def deadline_ns(self, deadline_ns: int) -> None:
        self._words[0] = deadline_ns  # one aligned word: readers see the old one or the new one

    def set(self, deadline_ns: int) -> None:
        """As a callback (trunkline.cluster.fence.Fence.on_extend)."""
        self._words[0] = deadline_ns

    @property
    def open(self) -> bool:
        """Whether audio may be sent now."""
        return boottime_ns() < self._words[0]


def make(name: str = "trunkline-media-fence") -> int:
    """New memory: its descriptor."""
    return os.memfd_create(name, os.MFD_CLOEXEC)
