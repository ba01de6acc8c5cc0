"""A pivot's steps on one database: which may follow which, and what each waits for.

    plain --expand--> filling --backfill--> filled --verify--> turned --contract--> plain, the other shape
                         `----------undo----------'               |
    plain, the same shape <---------------------------------------'

Each step may be killed at any moment and run again: what it had done stays done.
"""

import time
from collections.abc import Callable

from trunkline.storage.pivots.model import Bench, Busy, CannotPivot, Pivot, Speaker, State

BATCH_ROWS = 500
"""Rows of one batch of the backfill: its transaction holds their locks for some ms."""
VERIFY_ROWS = 5000
"""Rows that one look of the comparison takes."""
BUSY_TRIES = 40
"""A batch whose rows are locked is tried so often."""
BUSY_FIRST_S = 0.02
BUSY_LONGEST_S = 1.0
LOOK_S = 0.25
"""Between two looks at who speaks."""


class Walk:
    """The steps of one pivot on one database. `now_ms` and `sleep` are the caller's; `tell` shows progress."""

    def __init__(
        self,
        bench: Bench,
        pivot: Pivot,
        now_ms: Callable[[], int],
        tell: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bench = bench
        self._pivot = pivot
        self._now_ms = now_ms
        self._tell = tell
        self._sleep = sleep
        self._words = pivot.words(bench.engine)
        self._where = f"{bench.part or 'queue'}: {pivot.name}"

    def expand(self, *, back: bool = False) -> State:
        """Add the other shape and what keeps the two in step. Raises CannotPivot."""
        state = self._bench.state(self._pivot)
        if state.phase != "plain":
            if (state.other == "new") == back and state.phase != "turned":
                raise CannotPivot(f"{self._where} is on its way to the {state.other} shape: undo that first")
            return state
        if (state.shape == "new") != back:
            if state.shape == "new":
                raise CannotPivot(f"{self._where} has the new shape: `expand --back` leads to the old one again")
            raise CannotPivot(f"{self._where} has the old shape: there is nothing to go back from")
        self._refuse(self._mute(), "cannot say which shapes they can live with")
        side = self._words.side(state.other)
        self._bench.ddl(self._pivot, side.add + self._words.sync + side.index)
        now = self._now_ms()
        total = self._bench.count(self._pivot)
        return self._save(State(shape=state.shape, phase="filling", total=total, started_ms=now, changed_ms=now))

    def backfill(self, rows: int = BATCH_ROWS, pause_s: float = 0.0) -> State:
        """Fill the rows of before, so many at a time, resting as long as each batch took, at least `pause_s`. Raises
        CannotPivot."""
        state = self._bench.state(self._pivot)
        if state.phase in ("filled", "turned"):
            return state
        if state.phase != "filling":
            raise CannotPivot(f"{self._where} is not expanded yet")
        while True:
            began = time.monotonic()
            further = self._patiently(lambda state=state: self._bench.fill(self._pivot, state, rows))  # type: ignore[misc]
            if further is None:
                return self._save(self._moved(state, phase="filled"))
            state = further
            self._tell(f"{self._where}: {state.done} of about {max(state.total, state.done)} rows")
            self._sleep(max(pause_s, time.monotonic() - began))

    def differing(self) -> int:
        """How many rows do not say the same in both shapes. Raises CannotPivot."""
        if self._bench.state(self._pivot).phase == "plain":
            raise CannotPivot(f"{self._where} has one shape only: there is nothing to compare")
        after, found = -1, 0
        while (looked := self._bench.differing(self._pivot, after, VERIFY_ROWS)) is not None:
            after, differ = looked
            found += differ
        return found

    def verify(self) -> State:
        """Compare every row; where none differs, let processes use the other shape from now on. Raises CannotPivot."""
        state = self._bench.state(self._pivot)
        if state.phase == "filling":
            raise CannotPivot(f"{self._where} is not filled yet: run `trunkline schema backfill`")
        found = self.differing()
        if found:
            raise CannotPivot(f"{self._where}: {found} rows differ; nothing was changed")
        if state.phase == "turned":
            return state
        return self._save(self._moved(state, shape=state.other, phase="turned"))

    def contract(self, wait_s: float = 0.0) -> State:
        """Drop the former shape, once no process uses it any more. Raises CannotPivot, naming those that do."""
        state = self._bench.state(self._pivot)
        if state.phase == "plain":
            return state
        if state.phase != "turned":
            raise CannotPivot(f"{self._where} is not verified yet")
        return self._drop_other(state, wait_s)

    def undo(self, wait_s: float = 0.0) -> State:
        """Back to the shape that it began with, nothing lost. Raises CannotPivot."""
        state = self._bench.state(self._pivot)
        if state.phase == "plain":
            return state
        if state.phase == "turned":
            state = self._save(self._moved(state, shape=state.other, phase="filled"))
        return self._drop_other(state, wait_s)

    def _drop_other(self, state: State, wait_s: float) -> State:
        until = time.monotonic() + wait_s
        while users := self._users(state):
            if time.monotonic() >= until:
                self._refuse(users, f"still use the {state.other} shape")
            self._sleep(LOOK_S)
        if state.phase == "turned" and (found := self.differing()):
            raise CannotPivot(f"{self._where}: {found} rows differ; nothing was dropped")
        now = self._now_ms()
        then = State(shape=state.shape, phase="plain", started_ms=state.started_ms, changed_ms=now)
        gone = self._words.unsync + self._words.side(state.other).drop
        self._patiently(lambda: self._bench.leave(self._pivot, gone, then))
        return then

    def _users(self, state: State) -> list[Speaker]:
        return [one for one in self._bench.speakers() if not one.uses(self._pivot, state.shape)]

    def _mute(self) -> list[Speaker]:
        """Processes of a release whose statements do not name their columns: on SQLite they would fail."""
        return [one for one in self._bench.speakers() if one.number < 0 and self._bench.engine == "sqlite"]

    def _refuse(self, speakers: list[Speaker], why: str) -> None:
        if speakers:
            raise CannotPivot(f"{self._where}: {why}: {', '.join(sorted({one.who for one in speakers}))}")

    def _patiently(self, work: Callable[[], "State | None"]) -> State | None:
        pause = BUSY_FIRST_S
        for _ in range(BUSY_TRIES):
            try:
                return work()
            except Busy:
                self._sleep(pause)
                pause = min(2 * pause, BUSY_LONGEST_S)
        return work()

    def _moved(self, state: State, **changes: object) -> State:
        fields = {name: getattr(state, name) for name in state.__struct_fields__}
        return State(**{**fields, "changed_ms": self._now_ms(), **changes})

    def _save(self, state: State) -> State:
        self._bench.save(self._pivot, state)
        return state
