"""What this process has posted: what is not written yet, and what it would write again if the store had lost it.

Theory. A change waits in `_waiting` until `take` hands it to the writer, and counts as written when the writer says
`done`. A key that is posted again before it was taken keeps its place and gets the later value, so that what waits is
bounded by the keys there are; as long as a batch takes all that waits, a reader sees changes in the order of posting,
and groups whole. `again` begins to write everything anew that the store may have lost: values with a time to live that
were not removed since (a call's state, a registration), and what was posted in the last RECENT_MS otherwise.

Times are monotonic milliseconds. Nothing here waits or does I/O.
"""

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from trunkline.storage.memory import MAX_VALUE_BYTES, ValueTooLarge

MAX_WAITING = 200_000
"""Keys that wait to be written; the ones that have waited longest are dropped first."""
MAX_WAITING_BYTES = 64 * 1024 * 1024
MAX_KEPT = 400_000
"""Keys that would be written again; the ones posted first are forgotten first."""
MAX_KEPT_BYTES = 256 * 1024 * 1024
ENTRY_BYTES = 200
"""What an entry is counted with, beside its key and value."""
RECENT_MS = 60_000
"""How long removals and values without a time to live are remembered: a failover loses the last second, not more."""
BATCH = 512
"""Changes that are written together."""
BATCH_BYTES = 1024 * 1024
"""A batch ends with the change that reaches this."""

log = logging.getLogger(__name__)


class Change(NamedTuple):
    """A key's value to be written."""

    value: bytes | None
    """None: removed."""
    expires_ms: int
    """0: never."""
    number: int
    """Of the first post of the key that is not written yet; of the last one, where it is remembered."""
    until_ms: int = 0
    """When a removal, or a value without a time to live, need not be remembered any more."""


class Bounded:
    """A dictionary in the order of first writing that forgets its oldest entries above its bounds."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.entries: OrderedDict[str, Change] = OrderedDict()
        self.dropped = 0
        self._bytes = 0
        self._max_entries = max_entries
        self._max_bytes = max_bytes

    def set(self, key: str, change: Change) -> None:
        old = self.entries.get(key)
        self._bytes += _size(key, change) - (_size(key, old) if old is not None else 0)
        self.entries[key] = change
        while len(self.entries) > self._max_entries or self._bytes > self._max_bytes:
            self.pop(next(iter(self.entries)))
            self.dropped += 1

    def pop(self, key: str) -> Change | None:
        change = self.entries.pop(key, None)
        if change is not None:
            self._bytes -= _size(key, change)
        return change


class Posts:
    """See the module. `now_ms` is a monotonic clock."""

    def __init__(
        self,
        now_ms: Callable[[], int],
        waiting: tuple[int, int] = (MAX_WAITING, MAX_WAITING_BYTES),
        kept: tuple[int, int] = (MAX_KEPT, MAX_KEPT_BYTES),
    ) -> None:
        """`waiting` and `kept` are bounds: entries, bytes."""
        self.now_ms = now_ms
        self._waiting = Bounded(*waiting)
        self._kept = Bounded(*kept)
        self._recent = Bounded(*kept)
        self._flying: dict[str, Change] = {}
        self._flying_again: set[str] = set()
        self._again: deque[str] = deque()
        self._doubtful = 0
        self._swept = 0
        self._dropped = 0
        self.overflowed = False
        """Whether a change was dropped for lack of room since the last `again`, which makes most of it good."""
        self.owns: Callable[[str], bool] | None = None
        """Whether a key is still ours to write; asked where a change leaves, and what is not is dropped."""
        self.number = 0
        """Of the last change posted."""

    # -- posting ---------------------------------------------------------------------------------------------

    def post(self, changes: Iterable[tuple[str, bytes | None]], ttl_ms: int) -> None:
        """Have these changes written. Raises ValueTooLarge, before any of them."""
        changes = tuple(changes)
        for key, value in changes:
            if value is not None and len(value) > MAX_VALUE_BYTES:
                raise ValueTooLarge(f"{key}: {len(value)} bytes, at most {MAX_VALUE_BYTES} can be kept")
        now = self.now_ms()
        expires_ms = now + ttl_ms if ttl_ms else 0
        for key, value in changes:
            self.number += 1
            before = self._waiting.entries.get(key)
            self._waiting.set(key, Change(value, expires_ms, before.number if before is not None else self.number))
            self._remember(key, Change(value, expires_ms, self.number), now)
        if self._waiting.dropped > self._dropped:
            self._dropped = self._waiting.dropped
            if not self.overflowed:
                log.warning("too much waits for the memory store: the changes that wait longest are dropped")
            self.overflowed = True

    def _remember(self, key: str, change: Change, now: int) -> None:
        if change.value is not None and change.expires_ms:
            self._recent.pop(key)
            self._kept.set(key, change)
            if len(self._kept.entries) > 2 * self._swept + BATCH:
                self._sweep(now)
            return
        self._kept.pop(key)
        self._recent.pop(key)
        self._recent.set(key, change._replace(until_ms=now + RECENT_MS))
        while self._recent.entries:
            oldest = next(iter(self._recent.entries))
            if self._recent.entries[oldest].until_ms > now:
                break
            self._recent.pop(oldest)

    def _sweep(self, now: int) -> None:
        """Forget what has expired; often enough that it never is more than half."""
        for key in [key for key, one in self._kept.entries.items() if one.expires_ms <= now]:
            self._kept.pop(key)
        self._swept = len(self._kept.entries)

    def forget(self, key: str) -> None:
        """The key is written in another way from now on: it is not ours to write again."""
        self._kept.pop(key)
        self._recent.pop(key)

    # -- writing ---------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether there is nothing to write."""
        return not self._waiting.entries and not self._again and not self._flying

    @property
    def written(self) -> int:
        """Everything up to this number has been written (or dropped)."""
        if self._doubtful or self._flying:
            return 0
        first = next(iter(self._waiting.entries.values()), None)
        return self.number if first is None else first.number - 1

    @property
    def dropped(self) -> int:
        """Changes that waited too long, for lack of room."""
        return self._waiting.dropped

    def again(self, kept: int = 0) -> None:
        """The store may have lost what was written: write what is remembered once more, half of each batch, what was
        posted after number `kept` first: the rest was known to be kept, and does not hold up `written`."""
        remembered = (*self._kept.entries.items(), *self._recent.entries.items())
        first = [key for key, change in remembered if change.number > kept]
        self._again = deque((*first, *(key for key, change in remembered if change.number <= kept)))
        self._doubtful = len(first)
        self.overflowed = False

    def take(self) -> list[tuple[str, Change]]:
        """The next changes to write, together; they are in flight until `done` or `failed`."""
        batch: list[tuple[str, Change]] = []
        now, size = self.now_ms(), 0
        while self._again and len(batch) < BATCH // 2 and size < BATCH_BYTES // 2:
            key = self._again.popleft()
            self._doubtful = max(0, self._doubtful - 1)
            change = self._kept.entries.get(key) or self._recent.entries.get(key)
            if change is None or key in self._waiting.entries or not self._ours(key):
                continue
            if max(change.until_ms, change.expires_ms) > now:
                batch.append((key, change))
                self._flying_again.add(key)
                size += _size(key, change)
        while self._waiting.entries and len(batch) < BATCH and size < BATCH_BYTES:
            key = next(iter(self._waiting.entries))
            taken = self._waiting.pop(key)
            if taken is not None and self._ours(key):
                if taken.expires_ms and taken.expires_ms <= now:
                    taken = Change(None, 0, taken.number)  # what stood there before goes all the same
                batch.append((key, taken))
                size += _size(key, taken)
        self._flying = dict(batch)
        return batch

    def _ours(self, key: str) -> bool:
        if self.owns is None or self.owns(key):
            return True
        self.forget(key)
        return False

    def done(self) -> None:
        """What was taken is written."""
        self._flying = {}
        self._flying_again.clear()

    def failed(self) -> None:
        """What was taken may not be written: it waits again, before the rest, unless it was posted anew."""
        for key, change in reversed(self._flying.items()):
            later = self._waiting.entries.get(key)
            if key in self._flying_again:
                if later is None:
                    self._again.appendleft(key)
                    self._doubtful += 1
                continue
            self._waiting.set(key, (later or change)._replace(number=change.number))
            if key in self._waiting.entries:
                self._waiting.entries.move_to_end(key, last=False)
        self._flying = {}
        self._flying_again.clear()

    # -- reading ---------------------------------------------------------------------------------------------

    def unwritten(self, key: str) -> Change | None:
        """The key's change that is not known to be written."""
        return self._waiting.entries.get(key) or self._flying.get(key)

    def all_unwritten(self, prefix: str) -> dict[str, Change]:
        """Every change below a prefix that is not known to be written."""
        found = {key: one for key, one in self._flying.items() if key.startswith(prefix)}
        found.update((key, one) for key, one in self._waiting.entries.items() if key.startswith(prefix))
        return found

    def value_of(self, change: Change) -> bytes | None:
        """What a reader sees of a change now."""
        return None if change.expires_ms and change.expires_ms <= self.now_ms() else change.value


def _size(key: str, change: Change) -> int:
    return ENTRY_BYTES + len(key) + (len(change.value) if change.value is not None else 0)
