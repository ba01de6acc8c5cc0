"""Who ought to own what: pure functions that every node computes alike from the same map.

Theory. Things come in groups (the partitions of one queue database; connectors; trunks; singletons). Each group is
dealt out evenly over the nodes: every node gets the whole part, some get one more, those first that have least so far.
Owners keep what they have up to their share; only what is over it, or without an owner, moves, to the node with the
highest rendezvous hash that has room. So a join moves no more than the newcomer's share, and a leave only what the
leaver had.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple


class Thing(NamedTuple):
    """Something that one node owns at a time."""

    name: str
    group: str
    """Things of one group are spread evenly."""


class Place(NamedTuple):
    """A node that may own things."""

    name: str
    zone: str = ""


@lru_cache(maxsize=65_536)
def score(thing: str, node: str) -> int:
    """The rendezvous hash."""
    return int.from_bytes(blake2b(f"{thing}\0{node}".encode(), digest_size=8).digest(), "big")


def partitions(count: int, databases: int = 1) -> list[Thing]:
    """The partitions of the queue: `p/<number>`, one group for each database."""
    return [Thing(f"p/{number}", f"database {number % databases}") for number in range(count)]


def place(things: Iterable[Thing], nodes: Iterable[str], current: Mapping[str, str]) -> dict[str, str]:
    """Thing -> the node that ought to own it. `current`: who owns it now. Empty without nodes."""
    names = sorted(nodes)
    groups: dict[str, list[str]] = {}
    for thing in things:
        groups.setdefault(thing.group, []).append(thing.name)
    placed: dict[str, str] = {}
    total = dict.fromkeys(names, 0)
    if names:
        for group in sorted(groups):
            for name, node in _deal(group, sorted(groups[group]), names, current, total).items():
                placed[name] = node
                total[node] += 1
    return placed


def _deal(
    group: str, things: list[str], names: list[str], current: Mapping[str, str], total: Mapping[str, int]
) -> dict[str, str]:
    has: dict[str, list[str]] = {name: [] for name in names}
    for thing in things:
        if (owner := current.get(thing, "")) in has:
            has[owner].append(thing)
    share, over = divmod(len(things), len(names))
    first = sorted(names, key=lambda name: (total[name], -len(has[name]), score(group, name)))
    room = {name: share + (index < over) for index, name in enumerate(first)}
    placed: dict[str, str] = {}
    for name in names:
        kept = sorted(has[name], key=lambda thing: score(thing, name), reverse=True)[: room[name]]
        room[name] -= len(kept)
        placed.update(dict.fromkeys(kept, name))
    for thing in things:
        if thing not in placed:
            best = max((name for name in names if room[name]), key=lambda name: score(thing, name))
            room[best] -= 1
            placed[thing] = best
    return placed


def heirs(members: Sequence[Place]) -> dict[str, str]:
    """Who inherits from whom: a node of another zone if there is one, as few to each as can be; "" of a single node."""
    load = {member.name: 0 for member in members}
    found: dict[str, str] = {}
    for member in sorted(members):
        others = [other for other in members if other.name != member.name]
        others = [other for other in others if other.zone != member.zone] or others
        ranked = sorted(others, key=lambda other: (load[other.name], score(member.name, other.name)))
        found[member.name] = ranked[0].name if ranked else ""
        if ranked:
            load[ranked[0].name] += 1
    return found


def heir(name: str, members: Sequence[Place]) -> str:
    """Who inherits from `name`; "" when nobody can."""
    return heirs(members).get(name, "")
