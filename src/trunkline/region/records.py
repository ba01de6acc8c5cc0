"""What is written down about regions: epochs, how a change of them went, what a database said when it was asked."""

import msgspec


class Epoch(msgspec.Struct, frozen=True, kw_only=True):
    """A reign: from `since_ms` on this region is the active one, until there is a higher epoch."""

    epoch: int
    region: str
    since_ms: int
    former: str = ""
    """The region that was active before; empty: there was none."""
    planned: bool = False
    """Whether the former one is to finish in order."""
    drain_s: float = 0.0
    """How long it has for that."""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """What one server of a database says."""

    host: str
    port: str
    standby: bool
    """Whether it is in recovery: it follows another one."""
    read_only: bool
    lsn: int
    """Written (of a primary) or replayed (of a standby): bytes since the beginning of the cluster."""
    received: int
    """Of a standby: received and synced."""
    region: str = ""
    """Of the row `region`: who is active by its word; empty: there is no such row yet."""
    epoch: int = 0
    beat: int = 0
    """The last heartbeat's number."""
    beat_ms: int = 0
    now_ms: int = 0
    """By its own clock."""

    @property
    def takes_writes(self) -> bool:
        """Whether it is a primary."""
        return not self.standby

    @property
    def silent_s(self) -> float:
        """Seconds since the last heartbeat that it has; 0: it has none."""
        return max(0, self.now_ms - self.beat_ms) / 1000 if self.beat_ms else 0.0


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """How far one database had followed when it was promoted."""

    database: str
    lsn: int
    beat: int
    beat_ms: int
    silent_s: float
    """Seconds between that heartbeat and the promotion: what was accepted in them may be missing."""
    missing_bytes: int = -1
    """What the former primary had written beyond; -1: it could not be asked."""


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """How an epoch began."""

    epoch: Epoch
    positions: tuple[Position, ...]
    at_ms: int
    """When the databases had been promoted."""

    @property
    def lost_s(self) -> float:
        """Seconds of which writes may be missing: of the database that was furthest behind."""
        whole = all(one.missing_bytes == 0 for one in self.positions)
        return 0.0 if whole else max((one.silent_s for one in self.positions), default=0.0)


def lsn_text(lsn: int) -> str:
    """As PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"
