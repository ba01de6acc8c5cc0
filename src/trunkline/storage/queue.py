"""The `Queue` primitive: accepted work with its in-flight record, its idempotency row and the callbacks it owes.

Promise: when an awaited write returns, it outlives what the engine declares (`survives`); each write is atomic.
Work waits in *lanes* (for messages: connector, account, sender) and is taken by `claim`, which records the intent
durably before the effect. A flight's `rev` counts its writes and guards them: a stale copy never overwrites.
"""

from collections.abc import Awaitable, Sequence
from typing import Protocol

import msgspec

from trunkline.storage.survives import Survives

PARTITION_BITS = 8
"""Low bits of an id that name its partition, where there are several."""
PARTITION_MASK = (1 << PARTITION_BITS) - 1
_NANOSECONDS = 10**17
"""Ids from here on are Unix nanoseconds (a queue of several partitions), those below it microseconds."""


def made_ms(made: int) -> int:
    """The Unix ms at which a flight's or a callback's id was given out."""
    return made // 1_000_000 if made >= _NANOSECONDS else made // 1000


def partition_of(made: int) -> int:
    """The partition in which a flight or a callback lies, by its id; 0 in a queue that has but one."""
    return made & PARTITION_MASK if made >= _NANOSECONDS else 0


class Exists(Exception):
    """A flight with that SID was accepted before; nothing was changed."""


class Flight(msgspec.Struct, kw_only=True):
    """One in-flight record as the queue keeps it."""

    id: int = 0
    """Assigned by `Queue.accept` before it returns; increasing, never used twice."""
    sid: str
    account: str
    kind: str = "message"
    status: str
    rev: int = 0
    lane: str = ""
    """Where it waits for dispatch; empty when it waits for nothing of ours."""
    due_ms: int = 0
    """Unix ms before which it must not be claimed."""
    land_ms: int = 0
    """Unix ms from which it may land, once it owes no callback; 0: not yet."""
    record: bytes
    """The kind's record as JSON."""


class Owed(msgspec.Struct, kw_only=True):
    """A webhook request that is owed to a customer until it is delivered or exhausted."""

    id: int = 0
    """Assigned by the engine before the write returns, increasing."""
    flight: int = 0
    """The id of the flight that owes it (it may have landed since); 0: none."""
    sid: str
    account: str
    kind: str
    """Which handler builds and finishes it, e.g. `status` or `inbound`."""
    host: str
    """Delivery lane: scheme and authority of the URL."""
    seq: int = 0
    """Order within the flight: it waits only for its predecessor's first attempt."""
    due_ms: int = 0
    tries: int = 0
    """Attempts whose outcome was recorded; a crash burns none."""
    request: bytes = b""
    """What the handler needs to build the request, JSON."""
    attempts: bytes = b"[]"
    """JSON array of recorded attempts (request, response, timing)."""
    state: str = "owed"
    """`owed`, `delivered` or `exhausted`."""


class Advance(msgspec.Struct, kw_only=True):
    """A guarded step of a flight: applied whole if the stored rev is `rev` (which it counts up), else not at all."""

    id: int
    sid: str
    account: str
    rev: int
    status: str
    lane: str = ""
    due_ms: int = 0
    land_ms: int = 0
    record: bytes | None = None
    """None leaves the record as it is."""
    owed: Sequence[Owed] = ()
    carrier_ids: Sequence[tuple[str, str]] = ()
    """(connector, carrier message id) pairs that lead receipts to this flight, also after it landed."""


class Orphan(msgspec.Struct, kw_only=True):
    """A receipt that came before (or without) the message it is for."""

    id: int = 0
    connector: str
    carrier_id: str
    at_ms: int
    receipt: bytes


class Replay(msgspec.Struct, kw_only=True):
    """The stored outcome of a request that carried an idempotency key."""

    account: str
    method: str
    path: str
    key: str
    fingerprint: bytes
    state: str = "running"
    """`running` or `done`."""
    epoch: int = 0
    status: int = 0
    headers: bytes = b"[]"
    body: bytes = b""
    sid: str = ""
    expires_ms: int = 0


class Part(msgspec.Struct, kw_only=True):
    """One received part of a long inbound message, kept until its siblings are there."""

    connector: str
    key: str
    """Source, destination, reference, total and reference width, joined."""
    number: int
    at_ms: int
    body: bytes


class Queue(Protocol):
    """See the module. Every awaitable resolves after the commit; writes are applied in the order they were made."""

    survives: Survives
    ordered: bool
    """Whether what has a higher id is never committed before what has a lower one."""

    def accept(self, flight: Flight, owed: Sequence[Owed] = (), replay: Replay | None = None) -> Awaitable[None]:
        """Insert a flight with what it owes; complete the idempotency row of its request in the same commit.

        Raises Exists.
        """

    def accept_inbound(
        self,
        flight: Flight,
        owed: Sequence[Owed],
        connector: str,
        consumed: Sequence[str],
        carrier_id: str = "",
        kept: Part | None = None,
    ) -> Awaitable[bool]:
        """Insert a received message, drop the parts (`Part.key`) it was made of, and keep one in their place.

        False, and no message inserted, if the SID is there or the connector's `carrier_id` is known already (it is from
        then on, see `find_carrier_id`).
        """

    def claim(self, flights: Sequence[tuple[int, int]]) -> Awaitable[list[int]]:
        """Record the intent to submit (id, rev): status `sending`, out of its lane, rev + 1. Returns the ids that
        had moved on and are not ours."""

    def waiting(self, lane: str, after: tuple[int, int], limit: int) -> Awaitable[list[Flight]]:
        """The flights of a lane in (due_ms, id) order after `after`."""

    def lanes(self) -> Awaitable[list[tuple[str, int, int]]]:
        """(lane, waiting flights, first due_ms) of every lane that holds work."""

    def advance(self, step: Advance) -> Awaitable[bool]:
        """Apply one guarded step; False when the flight has moved on."""

    def get(self, account: str, sid: str) -> Awaitable[tuple[Flight, list[Owed]] | None]:
        """The in-flight record with its callbacks, as last committed."""

    def by_id(self, flight_id: int) -> Flight | None:
        """The in-flight record, as last committed; a primary-key read that does not wait."""

    def in_state(self, kind: str, status: str, after: int, limit: int) -> Awaitable[list[Flight]]:
        """Flights of `kind` in `status`, by id, after the id `after` (recovery)."""

    def page(
        self, account: str, kind: str, *, before: str, after: str, limit: int, filters: dict[str, object]
    ) -> Awaitable[list[tuple[Flight, list[Owed]]]]:
        """An account's flights newest first, keys strictly below `before` and above `after` (empty: unbounded).

        Filters as `Archive.page`; of calls also `status_or_initiated`, `started_ge_ms` and `started_lt_ms`.
        """

    def find_carrier_id(self, connector: str, carrier_id: str) -> tuple[int, str, str] | None:
        """(flight id, account, SID) that a carrier's message id belongs to; outlives the flight. Does not wait."""

    def park(self, orphan: Orphan) -> Awaitable[None]:
        """Keep a receipt whose message is not known yet."""

    def orphans(self, connector: str, carrier_ids: Sequence[str]) -> Awaitable[list[Orphan]]:
        """The parked receipts for these ids, those of writes handed in before included."""

    def drop_orphans(self, orphans: Sequence[Orphan]) -> Awaitable[None]:
        """Their effect is committed: forget them."""

    def parked(self) -> Awaitable[list[tuple[str, str]]]:
        """(connector, carrier id) of every parked receipt."""

    def known(self, pairs: Sequence[tuple[str, str]]) -> Awaitable[list[tuple[str, str]]]:
        """Those of these (connector, carrier id) pairs that `find_carrier_id` finds: one read for many of them."""

    def owe(self, owed: Sequence[Owed]) -> Awaitable[None]:
        """Owe callbacks outside a flight's own steps (late receipts, usage triggers)."""

    def forget(self, owed_id: int) -> Awaitable[None]:
        """Drop a settled callback that belongs to no flight (its attempts were archived)."""

    def owed(self, host: str, after: int, limit: int, now_ms: int) -> Awaitable[list[Owed]]:
        """Owed callbacks of a delivery lane, by id."""

    def owed_hosts(self) -> Awaitable[list[tuple[str, int, int]]]:
        """(host, count, first due_ms) of every delivery lane that holds work."""

    def settle(self, owed: Owed) -> Awaitable[None]:
        """Record an attempt's outcome: state, tries, attempts and next due_ms as the struct says."""

    def strip_owed(self, flight_id: int) -> Awaitable[None]:
        """Drop what settled callbacks of a flight show of its content (redaction)."""

    def erase(self, flight_id: int) -> Awaitable[None]:
        """Remove a flight with everything it owes (privacy deletion)."""

    def landable(self, now_ms: int, limit: int) -> Awaitable[list[tuple[Flight, list[Owed]]]]:
        """Flights that may land, with their settled callbacks."""

    def remove(self, flights: Sequence[tuple[int, int]]) -> Awaitable[int]:
        """Take landed flights (id, rev) out, with their settled callbacks; those that moved on stay."""

    def keep_part(self, part: Part) -> Awaitable[None]:
        """Persist one part of a long inbound message; the same part twice is kept once."""

    def parts(self, connector: str, key: str) -> Awaitable[list[Part]]:
        """The parts of one long inbound message."""

    def drop_parts(self, keys: Sequence[tuple[str, str]]) -> Awaitable[None]:
        """Forget parts by (connector, key)."""

    def stale_parts(self, before_ms: int, limit: int) -> Awaitable[list[tuple[str, str]]]:
        """(connector, key) of long messages whose last part came before `before_ms`."""

    def claim_replay(self, row: Replay, now_ms: int) -> Awaitable[Replay | None]:
        """Claim an idempotency key; None when it is ours now, else the row that holds it."""

    def complete_replay(self, row: Replay) -> Awaitable[None]:
        """Store the response for replays."""

    def release_replay(self, row: Replay) -> Awaitable[None]:
        """Give the key back: the request did not begin."""

    def forget_replays(self, account: str, sid: str) -> Awaitable[None]:
        """Blank the stored responses that show a resource (privacy deletion)."""

    def sweep(self, now_ms: int, carrier_before_ms: int = 0) -> Awaitable[None]:
        """Drop expired idempotency rows, and carrier ids and orphans from before a time (bounded work per call)."""

    def close(self) -> Awaitable[None]:
        """Finish what was handed in, then stop."""
