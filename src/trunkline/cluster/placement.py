"""Who ought to own what: pure functions that every node computes alike from the same map.

Theory. Things come in groups (the partitions of one queue database; connectors; trunks; singletons). Each group is
dealt out evenly over the nodes: every node gets the whole part, some get one more, those first that have least so far.
Owners keep what they have up to their share; only what is over it, or without an owner, moves, to the node with the
highest rendezvous hash that has room. So a join moves no more than the newcomer's share, and a leave only what the
leaver had.

A node has *roles*: a thing goes only to nodes that have what it needs. A node that tells none has all.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

ROLES: Final = ("api", "messaging", "voice", "media")
Needs = tuple[tuple[str, ...], ...]
"""Sets of roles, the best first: the first one that any node has decides who may own a thing; nobody when none has."""
ANYBODY: Final[Needs] = ((),)
MESSAGES: Final[Needs] = (("messaging",),)
CALLS: Final[Needs] = (("voice",),)
BOTH: Final[Needs] = (("messaging", "voice"), ("messaging",))
"""Where messages and calls lie together: without anybody who does both, messages go on."""
UPKEEP: Final[Needs] = (("messaging",), ("voice",), ())


class Thing(NamedTuple):
    """Something that one node owns at a time."""

    name: str
    group: str
    """Things of one group are spread evenly over those that may own them."""
    needs: Needs = ANYBODY


class Place(NamedTuple):
    """A node that may own things."""

    name: str
    zone: str = ""
    roles: tuple[str, ...] = ()
    """Empty: all."""


def has(roles: Collection[str], wanted: Iterable[str]) -> bool:
    """Whether a node of these roles has all that is wanted."""
    return not roles or all(one in roles for one in wanted)


def able(needs: Needs, names: Sequence[str], roles: Mapping[str, Collection[str]]) -> list[str]:
    """Who of `names` may own what has these needs."""
    for wanted in needs:
        found = [name for name in names if has(roles.get(name, ()), wanted)]
        if found:
            return found
    return []


@lru_cache(maxsize=65_536)
def score(thing: str, node: str) -> int:
    """The rendezvous hash."""
    return int.from_bytes(blake2b(f"{thing}\0{node}".encode(), digest_size=8).digest(), "big")


def partitions(count: int, databases: int = 1, voice: int = 0) -> list[Thing]:
    """The partitions of the queue: `p/<number>`, one group for each database. Calls lie in the last `voice` alone, and
    messages in the others; 0: both in all."""
    kinds: tuple[Needs, Needs] = (MESSAGES, CALLS) if voice else (BOTH, BOTH)
    return [
        Thing(f"p/{number}", f"database {number % databases}", kinds[number >= count - voice])
        for number in range(count)
    ]


def place(
    things: Iterable[Thing],
    nodes: Iterable[str],
    current: Mapping[str, str],
    roles: Mapping[str, Collection[str]] | None = None,
) -> dict[str, str]:
    """Thing -> the node that ought to own it; without those that no node may own. `current`: who owns it now; `roles`
    of nodes, where they have not all."""
    names = sorted(nodes)
    groups: dict[tuple[str, Needs], list[str]] = {}
    for thing in things:
        groups.setdefault((thing.group, thing.needs), []).append(thing.name)
    placed: dict[str, str] = {}
    total = dict.fromkeys(names, 0)
    for group, needs in sorted(groups):
        found = able(needs, names, roles or {})
        if found:
            for name, node in _deal(group, sorted(groups[group, needs]), found, current, total).items():
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
    """Who inherits from whom: a node that can do all that it does, of another zone if there is one, as few to each as
    can be; "" when nobody can: then each of its things goes to whoever can do that."""
    load = {member.name: 0 for member in members}
    found: dict[str, str] = {}
    for member in sorted(members):
        does = [role for role in member.roles or ROLES if role != "api"]
        others = [other for other in members if other.name != member.name and has(other.roles, does)]
        others = [other for other in others if other.zone != member.zone] or others
        ranked = sorted(others, key=lambda other: (load[other.name], score(member.name, other.name)))
        found[member.name] = ranked[0].name if ranked else ""
        if ranked:
            load[ranked[0].name] += 1
    return found


def heir(name: str, members: Sequence[Place]) -> str:
    """Who inherits from `name`; "" when nobody can."""
    return heirs(members).get(name, "")
