"""The `[learning]` section: what a learning run may take from the node that it learns from, and what it may use."""

from typing import Annotated

from msgspec import Meta

from trunkline.settings.kinds import Bytes, Count, Seconds, Section


class Learning(Section, frozen=True, kw_only=True):
    """Bounds of learning runs. See docs/howto/learn.md."""

    per_second: Annotated[int, Meta(ge=1, le=10_000)] = 20
    """Messages and calls that the node hands to one run in a second, at most; the rest is shed and counted."""
    buffer: Count = 512
    """Things that wait in the node for a learner that is busy; beyond it they are shed."""
    memory_bytes: Bytes = 1 << 30
    """Address space of a process that follows the work."""
    work_s: Seconds = 10.0
    """Longest time for one message or document, without that in which the machine has no CPU for it; a process that
    takes longer is killed, and that counts as an error."""
    queue: Count = 1000
    """Work that waits in the learner; beyond it, it is shed and counted."""
    samples: Annotated[int, Meta(ge=1, le=1000)] = 20
    """Disagreements of each kind that are kept with both sides."""
