"""What is accepted for a database that goes away is made anew, under another SID, for one that takes writes."""

from collections.abc import Awaitable, Callable
from typing import Final

from trunkline.storage.unavailable import NotOwned, Spill

TRIES = 8
"""A node has several parts of the queue in each database, and learns of each by itself that it is away."""


GONE: Final = (NotOwned, Spill)
"""Surely nothing of it was written: its database went away, or its partition to another node."""


async def accepted(again: Callable[[], Awaitable[object]]) -> None:
    """After the first try ended with one of GONE: make it `again` until it is accepted. Only for what need not be
    accepted by its own home. Raises StoreUnavailable."""
    for _ in range(TRIES - 1):
        try:
            await again()
        except GONE:
            continue
        return
    await again()
