"""What the archive needs of the store of its recent documents: the documents, and the manifest of its segments.

Theory: a landed document is first a row of the *recent* store. A roll-up copies the oldest rows into an immutable
segment file, records that file in the manifest, and only then removes the rows; whoever reads the recent rows first
and the manifest second therefore misses nothing, and drops what it sees twice (same key, highest revision).

A *floor* is the lowest revision of a key that may still be read: a late revision of a document whose older copy may
lie in a segment raises it, a privacy deletion raises it to TOMBSTONE. Floors are honoured by every reader at once;
compaction rewrites the segments that hold what they hide.

The *watermark* is the highest key that a segment may hold. Documents above it live in the recent store only. It is
stored, because a command may roll up beside the server.
"""

from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from trunkline.storage.archive import Document
from trunkline.storage.survives import Survives

TOMBSTONE = 1 << 62
"""The floor of a deleted document: no revision reaches it."""


class ArchiveBusy(Exception):
    """Another process rolls up or compacts this archive."""


class Segment(msgspec.Struct, kw_only=True, frozen=True):
    """One segment file, as the manifest lists it."""

    id: int = 0
    """Assigned by the manifest, never used again."""
    path: str
    """File name within the segments folder."""
    late: bool = False
    """Whether it holds rows that landed after their key range had been rolled up."""
    rows: int
    size: int
    """Bytes of the file."""
    min_key: str
    max_key: str
    min_created_ms: int = 0
    max_created_ms: int = 0
    min_sent_ms: int = 0
    max_sent_ms: int = 0
    accounts: bytes = b""
    """Sorted 8-byte digests of its accounts (see `account_digest`)."""
    created_ms: int = 0
    draining: bool = False
    """Its rows are not all removed from the recent store yet."""


class Floor(msgspec.Struct, kw_only=True, frozen=True):
    """The lowest readable revision of a key."""

    account: str
    key: str
    rev: int
    at_ms: int
    """When it was raised, Unix ms."""
    private: bool = False
    """Raised by a deletion or a redaction; else by a late landing, which may have no older copy anywhere."""
    done_ms: int = 0
    """When compaction removed the bytes that it hides; 0: not yet."""


class Row(msgspec.Struct, kw_only=True):
    """A recent row as the roll-up reads it."""

    account: str
    key: str
    prefix: str
    kind: str
    rev: int
    body: bytes


def account_digest(account: str) -> bytes:
    """8 bytes that tell accounts apart nearly always; a clash costs a look into a segment, nothing else."""
    try:
        return bytes.fromhex(account[-16:]).rjust(8, b"\0")
    except ValueError:
        return account[-8:].encode()[-8:].rjust(8, b"\0")


def holds_account(digests: bytes, account: str) -> bool:
    """Whether the sorted `digests` contain the account's (binary search)."""
    wanted = account_digest(account)
    low, high = 0, len(digests) // 8
    while low < high:
        middle = (low + high) // 2
        found = digests[middle * 8 : middle * 8 + 8]
        if found == wanted:
            return True
        if found < wanted:
            low = middle + 1
        else:
            high = middle
    return False


class RecentReader(Protocol):
    """Blocking reads of one connection, also from another process; used by one thread at a time."""

    def begin(self) -> None:
        """Fix a snapshot: everything until `end` is read as of now."""

    def end(self) -> None:
        """Give the snapshot back."""

    def generation(self) -> int:
        """Counts the changes of the segment list."""

    def segments(self) -> list[Segment]:
        """The manifest, oldest key range first."""

    def watermark(self) -> str:
        """The highest key of any segment of the manifest; empty: there is none."""

    def floors(self, account: str, keys: Sequence[str]) -> dict[str, int]:
        """The floors of these keys, where there are any."""

    def all_floors(self) -> list[Floor]:
        """Every floor that still hides bytes."""

    def dropped(self) -> list[str]:
        """Files that were taken out of the manifest and may still be read."""

    def cut(self, rows: int, below: str) -> str:
        """The key of the `rows`-th oldest recent row, or of the last one under `below`; empty: there is none."""

    def counts(self, below: str) -> tuple[int, int, str]:
        """(rows up to the highest key of any segment, rows between it and `below`, the oldest key above it)."""

    def rows(self, above: str, upto: str, accounts: Sequence[str] = ()) -> Iterator[Row]:
        """Rows with `above` < key <= `upto` in (account, key) order, all accounts if none are named."""

    def close(self) -> None:
        """Close the connection."""


class Health(Protocol):
    """What a store's writer says of itself."""

    failed: BaseException | None
    """Why nothing can be written now; None while all is well."""


class Recent(Protocol):
    """The recent store of the serving process; every awaited write has been committed."""

    survives: Survives

    @property
    def writer(self) -> Health:
        """For health checks."""

    @property
    def reader_spec(self) -> tuple[str, str]:
        """(`module:function`, argument): called in another process it gives a RecentReader."""

    def land(self, documents: Sequence[Document]) -> Awaitable[None]:
        """Upsert, highest revision wins; deleted keys stay deleted."""

    def revise(self, document: Document, now_ms: int) -> Awaitable[None]:
        """Land a revision and raise the floor to it."""

    def delete(self, account: str, sid: str, now_ms: int) -> Awaitable[None]:
        """Remove the row and raise the floor to TOMBSTONE."""

    def get(self, account: str, sid: str) -> Awaitable[Document | None]:
        """One document by primary key."""

    def page(
        self, account: str, kind: str, *, before: str, after: str, limit: int, filters: Mapping[str, Any]
    ) -> Awaitable[list[Document]]:
        """As `Archive.page`, of the recent rows alone."""

    def counts(self, below: str) -> Awaitable[tuple[int, int, str]]:
        """As `RecentReader.counts`."""

    def high(self) -> Awaitable[str]:
        """The watermark: the highest key that a segment holds or may soon hold. Read it after the rows."""

    def alone(self, folder: Path) -> AbstractAsyncContextManager[None]:
        """While it is held nobody else rolls up or compacts the archive whose segments `folder` has. Raises
        ArchiveBusy; so does a change of the manifest when somebody else took over meanwhile."""

    def raise_watermark(self, key: str) -> Awaitable[None]:
        """From now on a landing at or below `key` raises its floor: a roll-up up to there begins."""

    def segments(self) -> Awaitable[list[Segment]]:
        """The manifest."""

    def add_segments(self, segments: Sequence[Segment]) -> Awaitable[None]:
        """Record finished files, as draining."""

    def drain(self, rows: Sequence[tuple[str, str, int]]) -> Awaitable[None]:
        """Remove rolled-up rows (account, key, rev); those that were revised meanwhile stay."""

    def drained(self, path: str) -> Awaitable[None]:
        """All rows of a segment were removed."""

    def replace_segments(self, old: Sequence[str], new: Sequence[Segment]) -> Awaitable[None]:
        """Swap files in the manifest (by path), in one commit."""

    def dropped(self, older_ms: int) -> Awaitable[list[str]]:
        """Files that were taken out of the manifest at least so long ago and are not forgotten."""

    def forget_dropped(self, paths: Sequence[str]) -> Awaitable[None]:
        """These files are gone."""

    def all_floors(self) -> Awaitable[list[Floor]]:
        """Every floor that still hides bytes."""

    def drop_floors(self, floors: Sequence[tuple[str, str, int]]) -> Awaitable[None]:
        """Drop floors (account, key, rev) that hide nothing; those that were raised meanwhile stay."""

    def pending_floors(self) -> Awaitable[tuple[int, int]]:
        """(how many floors still hide bytes, the oldest's time in Unix ms or 0)."""

    def scrub(self, floors: Sequence[Floor], now_ms: int) -> Awaitable[bool]:
        """Vacuum the file and truncate its log, then settle these floors; False when a reader was in the way."""

    def expire(self, account: str, first: str, below: str) -> Awaitable[int]:
        """Remove the account's rows with `first` <= key < `below`; returns how many."""

    def forget_floors(self, before_ms: int) -> Awaitable[None]:
        """Drop floors whose bytes were removed before `before_ms`."""

    def close(self) -> Awaitable[None]:
        """Finish what was handed in, then stop."""
