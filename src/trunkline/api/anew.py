"""What is accepted for a database that goes away is made anew, under another SID, for one that takes writes."""

from collections.abc import Awaitable, Callable

from trunkline.storage.unavailable import NotOwned, Spill

TRIES = 8
"""A node has several parts of the queue in each database, and learns of each by itself that it is away."""


async def accepted(written: Awaitable[object], again: Callable[[], Awaitable[object]], *, at_home: bool) -> None:
    """Wait until it is accepted. As long as surely nothing of it was written (its database went away, or its partition
    to another node), it is made `again`, unless only its own home may take it. Raises StoreUnavailable."""
    for _ in range(TRIES):
        try:
            await written
        except (NotOwned, Spill):
            if at_home:
                raise
            written = again()
        else:
            return
    await written
