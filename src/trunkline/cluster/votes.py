"""Promises between nodes: how a lease goes on while the store is away, and who may call a node lost.

Theory. Each renewal of a node names its peers (`view`: names with epochs). Of these n peers

- a *hold* of `HOLD_QUORUM(n)` peers extends the lease: each promises to agree to no takeover for one lease from now;
- a takeover needs the *consent* of `TAKEOVER_QUORUM(n)` of them, and hold + takeover > n, so that any takeover needs
  at least one of any peers that held the node. A peer consents only when its promise has run out, and then promises no
  more until the node shows that it has renewed in the store since (a takeover is a compare-and-set of the very renewal
  that was consented to, which then fails).

When too few peers can be asked (most of them died at once), a peer named in the view may take over without consent once
it has seen the renewal unchanged for `HOLD_LIMIT_S` and a lease; a node held by some, not all, of its peers therefore
stops extending `HOLD_LIMIT_S` after its last renewal or its last hold by all. Held by all it goes on for `HOLD_ALL_S`:
so long wait those who are in nobody's view (newcomers, when all who knew the node are gone, too). A peer whose own life
is known to be over counts as consenting once its promises have run out.

Promises and consents of one process are kept in its memory; a peer that starts anew has a new epoch, which no renewal
names yet, and so neither holds nor consents until one does.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

HOLD_LIMIT_S: Final = 30.0
"""How long a node is held by some, but not all, of its peers; seconds. Longer than a fail-over of the store."""
HOLD_ALL_S: Final = 3600.0
"""How long a node is held by all of its peers while the store is away; seconds."""
MAX_DRIFT: Final = 0.001
"""By which part two clocks may run apart."""
MAX_KNOWN: Final = 1_000
"""Names that promises are remembered of."""


def takeover_quorum(peers: int) -> int:
    """Of `peers`, how many must consent to a takeover."""
    return 0 if peers == 0 else peers // 2 + 1


def hold_quorum(peers: int) -> int:
    """Of `peers`, how many must hold a lease to extend it."""
    return 0 if peers == 0 else peers - takeover_quorum(peers) + 1


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """`hold` and `consent`: about one renewal of a node."""

    name: str
    epoch: int
    seq: int


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """By a peer, in the epoch in which it gives it."""

    granted: bool
    epoch: int


encode: Final = msgspec.msgpack.Encoder().encode
decode_ask: Final = msgspec.msgpack.Decoder(Ask).decode
_answer: Final = msgspec.msgpack.Decoder(Answer).decode


def read_answer(told: bytes) -> Answer:
    """A peer's answer; what cannot be read grants nothing."""
    try:
        return _answer(told)
    except msgspec.MsgspecError:
        return Answer(False, 0)


class Promises:
    """What this process has promised about others."""

    def __init__(self, ttl_ns: int) -> None:
        self._ttl_ns = ttl_ns
        self._held: dict[str, int] = {}
        self._consented: dict[str, tuple[int, int]] = {}
        self._gone: dict[tuple[str, int], int] = {}

    def hold(self, ask: Ask, now_ns: int) -> bool:
        """Promise to agree to no takeover of a node for one lease, unless one was agreed to."""
        if (ask.name, ask.epoch) in self._gone or (ask.epoch, ask.seq) <= self._consented.get(ask.name, (-1, -1)):
            return False
        if ask.name not in self._held and len(self._held) >= MAX_KNOWN:
            self._held = {name: at for name, at in self._held.items() if now_ns < at + self._ttl_ns}
        if len(self._held) >= MAX_KNOWN:
            return False
        self._held[ask.name] = now_ns
        return True

    def held_ns(self, name: str) -> int:
        """When a node was promised something last; 0: never."""
        return self._held.get(name, 0)

    def consent(self, ask: Ask, now_ns: int) -> bool:
        """Agree to a takeover of a node that has not renewed since `ask.seq`, unless a promise stands against it."""
        if now_ns < self._held.get(ask.name, -self._ttl_ns) + self._ttl_ns:
            return False
        if ask.name not in self._consented and len(self._consented) >= MAX_KNOWN:
            return False
        self._consented[ask.name] = max(self._consented.get(ask.name, (-1, -1)), (ask.epoch, ask.seq))
        return True

    def gone(self, name: str, epoch: int, now_ns: int) -> None:
        """A node's life is over: it left, was called lost, or began a new one."""
        while len(self._gone) >= MAX_KNOWN:
            del self._gone[next(iter(self._gone))]
        self._gone.setdefault((name, epoch), now_ns)

    def alive(self, members: Mapping[str, int]) -> None:
        """These are members now, whatever was thought before."""
        for life in members.items():
            self._gone.pop(life, None)

    def spent(self, name: str, epoch: int, now_ns: int) -> bool:
        """Whether a node's life is over, and all that it promised has run out."""
        since = self._gone.get((name, epoch))
        return since is not None and now_ns >= since + self._ttl_ns + self._ttl_ns // 10


def enough_to_hold(views: Iterable[Mapping[str, int]], granted: Mapping[str, int]) -> bool:
    """Whether those who granted (name -> epoch) extend a lease, whichever of `views` the store has."""
    return all(_agree(view, granted) >= hold_quorum(len(view)) for view in views)


def held_by_all(views: Iterable[Mapping[str, int]], granted: Mapping[str, int]) -> bool:
    """Whether nobody is left who could take over. Never of a node without peers: newcomers have promised nothing."""
    return all(view and _agree(view, granted) == len(view) for view in views)


def enough_to_take_over(view: Mapping[str, int], granted: Mapping[str, int]) -> bool:
    """Whether those who granted (name -> epoch) are enough of the peers that a renewal names. Without peers: never."""
    return bool(view) and _agree(view, granted) >= takeover_quorum(len(view))


def _agree(view: Mapping[str, int], granted: Mapping[str, int]) -> int:
    return sum(granted.get(name) == epoch for name, epoch in view.items())
