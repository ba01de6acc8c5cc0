"""Slots: the port pairs that legs sit on, and their way from free to leased, used, resting and free again."""

from typing import Final

import numpy as np

from trunkline.media.engine.state import SLOT_FREE, SLOT_LEASED, SLOT_RESTING, SLOT_USED, State

LEASE: Final = 256
"""Slots that the node has ahead of need, beside those that it has taken for legs that are not open yet: so many calls
may come in within one tick."""
PIECE: Final = 32
"""Slots that are leased at once while half of LEASE is left."""


class Slots:
    """The slot fields of a State. A slot is known once `offer`ed with its port."""

    def __init__(self, state: State, quarantine_ticks: int) -> None:
        self._state = state
        self._quarantine = quarantine_ticks
        self.known = 0
        """Slots 0 to known - 1 have sockets."""
        self._changed = True
        """Whether there may be something to lease since the last time."""
        self._taken = 0

    def offer(self, slot: int, port: int) -> None:
        """A slot has sockets now; slots come in order. One in use from before this process stays so."""
        self._state.slot_port[slot] = port
        self.known = max(self.known, slot + 1)
        self._changed = True

    def taken(self, count: int) -> None:
        """So many of the leased slots are taken."""
        self._taken = max(0, count)
        self._changed = True

    def lease(self, most_legs: int, *, anew: bool = False) -> list[tuple[int, int]]:
        """Slots to lease to the node now, up to LEASE that are not taken; with the used ones no more than there may be
        legs. Looks only when something has changed, or `anew`; while plenty are left it waits until PIECE can go."""
        if not self._changed and not anew:
            return []
        self._changed = False
        state = self._state
        states = state.slot_state[: self.known]
        leased = int(np.count_nonzero(states == SLOT_LEASED))
        used = int(np.count_nonzero(states == SLOT_USED))
        count = min(LEASE + self._taken, most_legs - used) - leased
        if count <= 0 or (count < PIECE and leased - self._taken >= LEASE // 2 and not anew):
            return []
        free = np.flatnonzero(states == SLOT_FREE)
        # Those that rested longest first, so that a port is seldom used again soon.
        free = free[np.argsort(state.slot_until[free], kind="stable")][:count]
        state.slot_state[free] = SLOT_LEASED
        return [(int(slot), int(state.slot_port[slot])) for slot in free]

    def leased(self) -> list[tuple[int, int]]:
        """What the node has."""
        state = self._state
        at = np.flatnonzero(state.slot_state[: self.known] == SLOT_LEASED)
        return [(int(slot), int(state.slot_port[slot])) for slot in at]

    @property
    def short(self) -> bool:
        """Whether there are too few free slots to lease ahead of need: more sockets should be opened."""
        states = self._state.slot_state[: self.known]
        return int(np.count_nonzero(states == SLOT_FREE)) < LEASE

    def use(self, slot: int) -> bool:
        """Put a leg on it; False when it is not leased."""
        if not 0 <= slot < self.known or self._state.slot_state[slot] != SLOT_LEASED:
            return False
        self._state.slot_state[slot] = SLOT_USED
        self._changed = True
        return True

    def rest(self, slot: int, tick: int) -> None:
        """Its leg is gone: nobody gets it for the quarantine."""
        self._state.slot_state[slot] = SLOT_RESTING
        self._state.slot_until[slot] = tick + self._quarantine
        self._changed = True

    def wake(self, tick: int) -> None:
        """Free those that have rested."""
        state = self._state
        resting = np.flatnonzero(state.slot_state == SLOT_RESTING)
        rested = resting[state.slot_until[resting] <= tick]
        if len(rested):
            state.slot_state[rested] = SLOT_FREE
            self._changed = True
