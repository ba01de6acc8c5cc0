"""Path matching: one trie per product, walked segment by segment.

A literal segment wins over a `{Name}`; where the literal leads nowhere the walk comes back to the name. Work is
bounded by the path's segments times two, since templates never nest choices deeper.
"""

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

from trunkline.api.route import Route

T = TypeVar("T")

VERSION_2010 = "2010-04-01"
KEY_RESOURCES = frozenset({"Keys", "SigningKeys"})


class _Node(Generic[T]):
    __slots__ = ("any", "leaf", "literals")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[T]] = {}
        self.any: _Node[T] | None = None
        self.leaf: dict[str, T] | None = None


class Trie(Generic[T]):
    """Templates of one product; each leaf maps methods to what was added."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    def add(self, method: str, template: str, value: T) -> None:
        """Add one operation; raises ValueError when it is there already."""
        node = self._root
        for segment in template[1:].split("/"):
            if segment.startswith("{"):
                if node.any is None:
                    node.any = _Node()
                node = node.any
            else:
                node = node.literals.setdefault(segment, _Node())
        if node.leaf is None:
            node.leaf = {}
        if method in node.leaf:
            raise ValueError(f"{method} {template} is defined twice")
        node.leaf[method] = value

    def find(self, segments: list[str]) -> dict[str, T] | None:
        """What stands at a path, by method."""
        return _walk(self._root, segments, 0)


def _walk(node: _Node[T], segments: list[str], at: int) -> dict[str, T] | None:
    while at < len(segments):
        segment = segments[at]
        at += 1
        literal = node.literals.get(segment)
        if node.any is None or not segment:
            if literal is None:
                return None
            node = literal
            continue
        if literal is not None:
            found = _walk(literal, segments, at)
            if found is not None:
                return found
        node = node.any
    return node.leaf


class Endpoint(NamedTuple):
    """A route with what the dispatcher needs to know, worked out beforehand."""

    route: Route
    names: tuple[tuple[str, int], ...]
    """Parameter names and the segments they stand in."""
    account_segment: int
    """The segment that holds the account SID, or -1 where the login alone tells it."""
    is_account: bool
    """It is the account itself (/Accounts/{Sid}), which may be suspended or closed."""
    main_only: bool
    """Standard API keys are refused."""


def endpoint(route: Route) -> Endpoint:
    """The route, prepared."""
    segments = route.template[1:].split("/")
    names = tuple((segment[1:-1], at) for at, segment in enumerate(segments) if segment.startswith("{"))
    in_accounts = segments[:2] == [VERSION_2010, "Accounts"]
    return Endpoint(
        route=route,
        names=names,
        account_segment=2 if in_accounts and len(segments) > 2 else -1,
        is_account=in_accounts and len(segments) == 3,
        main_only=in_accounts and (len(segments) <= 3 or segments[3] in KEY_RESOURCES),
    )


def build(routes: Iterable[Route]) -> dict[str, Trie[Endpoint]]:
    """Tries by product."""
    tries: dict[str, Trie[Endpoint]] = {}
    for route in routes:
        trie = tries.get(route.product)
        if trie is None:
            trie = tries[route.product] = Trie()
        trie.add(route.method, route.template, endpoint(route))
    return tries
