"""INVITEs that a node of a cluster holds for a moment, instead of refusing them.

A node that has just come owns no partition of the queue yet, and cannot store a call; a number that was bought at
another node may not be known here. Such a caller has his 100, and gets his answer a little later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trunkline.sip.server_invite import ServerInvite

HOLD_S: Final = 4.0
"""Longest wait for a partition of this node's: carriers try elsewhere after five seconds or so."""
LOOK_EVERY_S: Final = 0.05
MAX_HELD: Final = 500
"""INVITEs held at once."""

log = logging.getLogger(__name__)


class HeldInvites:
    """See the module."""

    def __init__(self) -> None:
        self.can_begin: Callable[[], bool] = lambda: True
        """Whether this node can store a call now; asked for each INVITE."""
        self.look: Callable[[str], Awaitable[None]] | None = None
        """Looks for a number that is not known here; must not raise."""
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def for_partition(self, invite: ServerInvite, go_on: Callable[[], None]) -> bool:
        """Hold an INVITE until this node can store calls, or HOLD_S are over; then `go_on`. False: no more are held."""
        return self._hold(invite, self._until_it_can(invite), go_on)

    def for_number(self, invite: ServerInvite, number: str, go_on: Callable[[], None]) -> bool:
        """Hold an INVITE while its number is looked for; False: nobody looks."""
        return self.look is not None and self._hold(invite, self.look(number), go_on)

    def _hold(self, invite: ServerInvite, until: Awaitable[None], go_on: Callable[[], None]) -> bool:
        if len(self._tasks) >= MAX_HELD:
            close = getattr(until, "close", None)
            if close is not None:
                close()
            return False
        task = asyncio.get_running_loop().create_task(self._then(invite, until, go_on))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _then(self, invite: ServerInvite, until: Awaitable[None], go_on: Callable[[], None]) -> None:
        try:
            await until
            if not invite.answered:
                go_on()
        except Exception:
            log.exception("an INVITE from %s that was held failed", invite.flow.remote[0])
            invite.reject(500)

    async def _until_it_can(self, invite: ServerInvite) -> None:
        end = time.monotonic() + HOLD_S
        while not self.can_begin() and not invite.answered and time.monotonic() < end:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_EVERY_S)
