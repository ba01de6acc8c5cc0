"""Putting long inbound messages together again (3GPP TS 23.040 §9.2.3.24.1).

`Part` and `Group` are plain records: the caller stores each part before it acknowledges it, and hands the
stored groups back to `Assembly.restore` after a restart. Nothing here reads a clock: times are arguments, in
Unix milliseconds.
"""

from collections.abc import Callable, Iterable
from typing import Final, Literal

import msgspec

TIME_LIMIT_MS: Final = 10 * 60 * 1000  # after this the parts that came are delivered without the others
MAX_GROUPS: Final = 10_000  # incomplete messages held; the oldest is flushed to make room
MAX_FINISHED: Final = 1_000  # finished messages remembered, to know a late duplicate

Width = Literal[8, 16]  # of the reference; SAR TLVs carry 16 bits, and count as such
Key = tuple[str, str, int, int, int]
Verdict = Literal["held", "complete", "duplicate"]


class Part(msgspec.Struct, frozen=True):
    """One received part; `payload` is without its UDH."""

    source: str
    destination: str
    reference: int
    total: int
    sequence: int
    width: Width
    data_coding: int
    payload: bytes
    received_ms: int
    header_octets: int = 0
    single_shift: int = 0

    @property
    def key(self) -> Key:
        return (self.source, self.destination, self.reference, self.total, self.width)


class Group(msgspec.Struct, frozen=True):
    """The parts of one long message so far, by sequence number."""

    key: Key
    first_ms: int
    parts: dict[int, Part]

    @property
    def complete(self) -> bool:
        return len(self.parts) == self.key[3]

    @property
    def missing(self) -> list[int]:
        """Sequence numbers that did not come."""
        return [number for number in range(1, self.key[3] + 1) if number not in self.parts]


class Outcome(msgspec.Struct, frozen=True):
    """What a part led to; `finished` groups are to be delivered, incomplete ones among them included."""

    verdict: Verdict
    finished: list[Group]


def add(group: Group | None, part: Part) -> Group | None:
    """`group` with `part` in it, the same `group` for a duplicate, `None` when the two do not belong together.

    They do not when the same place holds another payload: the sender has used its reference again.
    """
    if group is None:
        return Group(part.key, part.received_ms, {part.sequence: part})
    present = group.parts.get(part.sequence)
    if present is None:
        return Group(group.key, group.first_ms, {**group.parts, part.sequence: part})
    return group if _same(present, part) else None


def text_of(group: Group, decode: Callable[[Part, bytes], str]) -> str:
    """The text of the parts in order.

    Neighbours of equal coding are decoded as one, so that an ESC pair or a surrogate pair that a sender split
    comes out whole; `decode(first_part, octets)` gets the joined payload. Packed septets cannot be joined as
    octets: put `data_coding.unpacked(...)` into the `Part`.
    """
    texts: list[str] = []
    run: list[Part] = []
    for number in sorted(group.parts):
        part = group.parts[number]
        joins = run and run[-1].sequence + 1 == number and _coding(run[-1]) == _coding(part)
        if run and not joins:
            texts.append(decode(run[0], b"".join(p.payload for p in run)))
            run = []
        run.append(part)
    if run:
        texts.append(decode(run[0], b"".join(p.payload for p in run)))
    return "".join(texts)


class Assembly:
    """Incomplete messages in memory, bounded in number and in time."""

    def __init__(
        self, *, time_limit_ms: int = TIME_LIMIT_MS, max_groups: int = MAX_GROUPS, max_finished: int = MAX_FINISHED
    ) -> None:
        self._time_limit_ms = time_limit_ms
        self._max_groups = max_groups
        self._max_finished = max_finished
        self._groups: dict[Key, Group] = {}  # in order of first_ms
        self._finished: dict[Key, Group] = {}

    def __len__(self) -> int:
        return len(self._groups)

    def restore(self, groups: Iterable[Group]) -> None:
        """Take up groups stored by an earlier run."""
        held = sorted((*self._groups.values(), *groups), key=lambda group: group.first_ms)
        self._groups = {group.key: group for group in held}

    def receive(self, part: Part) -> Outcome:
        """Take a part. `held`: store it and wait; `complete`: its message is among `finished`;
        `duplicate`: acknowledge and forget it. Flushed groups may come with every verdict."""
        finished = self.due(part.received_ms)
        key = part.key
        group = self._groups.get(key)
        if group is None and self.came_before(part):
            return Outcome("duplicate", finished)
        grown = add(group, part)
        if group is not None and grown is group:
            return Outcome("duplicate", finished)
        if grown is None:  # reference used again: what was held will never be complete
            finished.append(self._finish(key))
            grown = Group(key, part.received_ms, {part.sequence: part})
        self._groups[key] = grown
        if grown.complete:
            finished.append(self._finish(key))
            return Outcome("complete", finished)
        if len(self._groups) > self._max_groups:
            finished.append(self._finish(next(iter(self._groups))))
        return Outcome("held", finished)

    def due(self, now_ms: int) -> list[Group]:
        """Remove and return the incomplete groups whose time is over."""
        limit = now_ms - self._time_limit_ms
        over: list[Key] = []
        for key, group in self._groups.items():
            if group.first_ms > limit:
                break
            over.append(key)
        return [self._finish(key) for key in over]

    def next_due_ms(self) -> int | None:
        """When `due` will next return something."""
        first = next(iter(self._groups.values()), None)
        return None if first is None else first.first_ms + self._time_limit_ms

    def _finish(self, key: Key) -> Group:
        group = self._groups.pop(key)
        self._finished.pop(key, None)
        self._finished[key] = group
        if len(self._finished) > self._max_finished:
            del self._finished[next(iter(self._finished))]
        return group

    def contradicts(self, part: Part) -> bool:
        """Whether another payload has come in its place of a message that is not finished."""
        group = self._groups.get(part.key)
        present = group.parts.get(part.sequence) if group is not None else None
        return present is not None and not _same(present, part)

    def came_before(self, part: Part) -> bool:
        """Whether a message that was finished within the time limit had this part."""
        group = self._finished.get(part.key)
        if group is None or part.received_ms - group.first_ms > self._time_limit_ms:
            return False
        present = group.parts.get(part.sequence)
        return present is not None and _same(present, part)


def _coding(part: Part) -> tuple[int, int]:
    return part.data_coding, part.single_shift


def _same(one: Part, other: Part) -> bool:
    return one.payload == other.payload and one.data_coding == other.data_coding
