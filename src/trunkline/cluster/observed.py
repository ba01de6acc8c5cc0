"""What this node has seen of the others' records, and since when each has not changed."""

from collections.abc import Iterable, Mapping

from trunkline.cluster.records import ClusterMap, NodeRecord


class Seen:
    """One record as it was last read."""

    __slots__ = ("record", "since_ns", "value")

    def __init__(self, value: bytes | None, record: NodeRecord | None, since_ns: int) -> None:
        self.value = value
        self.record = record
        """The last one that could be read, also when the store has forgotten it since."""
        self.since_ns = since_ns
        """When this value was first seen: by then the renewal that wrote it had begun."""


class Observed:
    """The members' records. Times are CLOCK_BOOTTIME in nanoseconds."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}
        self._how: dict[tuple[str, int], str] = {}
        self._map_missing_ns = 0

    def see(self, name: str, value: bytes | None, record: NodeRecord | None, now_ns: int) -> None:
        """A record was read; `now_ns`: after that."""
        seen = self._seen.get(name)
        if seen is None or seen.value != value:
            self._seen[name] = Seen(value, record or (seen.record if seen else None), now_ns)
        if record is not None and record.state != "live":
            self._how[(name, record.epoch)] = record.state
            while len(self._how) > 1000:
                del self._how[next(iter(self._how))]

    def keep(self, members: Mapping[str, int]) -> None:
        """Forget those who are not members."""
        for name in [name for name in self._seen if name not in members]:
            del self._seen[name]

    def forget(self, name: str) -> None:
        """Of this node's own former life."""
        self._seen.pop(name, None)

    def record(self, name: str) -> NodeRecord | None:
        seen = self._seen.get(name)
        return seen.record if seen else None

    def value(self, name: str) -> bytes | None:
        """As it lay in the store; None: it was not there."""
        seen = self._seen.get(name)
        return seen.value if seen else None

    def unchanged_since(self, name: str) -> int:
        """When the present value was first seen; far ahead if none was."""
        seen = self._seen.get(name)
        return seen.since_ns if seen else 1 << 62

    def fallen(self, now: ClusterMap) -> list[str]:
        """Members of the map whose record says that they are gone."""
        found: Iterable[tuple[str, Seen]] = self._seen.items()
        return [
            name
            for name, seen in found
            if seen.record is not None
            and seen.value is not None
            and seen.record.state != "live"
            and seen.record.epoch >= now.members.get(name, seen.record.epoch + 1)
        ]

    def how_gone(self, name: str, epoch: int) -> str:
        """`left`, `lost`, or "" when it was not seen."""
        return self._how.get((name, epoch), "")

    def map_seen(self) -> None:
        """There is a map, or this node has another life before it."""
        self._map_missing_ns = 0

    def map_missing_since(self, now_ns: int) -> int:
        """When the map was first found missing, by a node that never saw one."""
        self._map_missing_ns = self._map_missing_ns or now_ns
        return self._map_missing_ns
