"""The post-flight archive: immutable, schema-less documents of landed flights.

Documents are JSON objects `{"kind", "v", "sid", "account_sid", "status", ..., "webhooks": [...]}`. The highest `rev` of
a SID wins (a late receipt appends a revision). Privacy deletion hides at once from every reader, and a compaction
rewrites what holds the bytes within 24 h.
"""

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from trunkline.storage.survives import Survives

USAGE_TALLY = "usage-tally"
"""Kind of the document that stands for a deleted message in sums of usage."""


class Document(msgspec.Struct, kw_only=True):
    """One landed flight, as stored."""

    sid: str
    account: str
    kind: str
    rev: int
    body: bytes
    """The JSON object."""


class Archive(Protocol):
    """Readers never follow insertion order; lists are keyset pages over (creation time, sid), which is the key."""

    survives: Survives

    def land(self, documents: Sequence[Document]) -> Awaitable[None]:
        """Upsert by SID, highest rev wins; durable on return."""

    def get(self, account: str, sid: str) -> Awaitable[Document | None]:
        """The newest revision, unless deleted."""

    def page(
        self, account: str, kind: str, *, before: str, after: str, limit: int, filters: Mapping[str, Any]
    ) -> Awaitable[list[Document]]:
        """Newest first, keys strictly below `before` and above `after` (empty: unbounded).

        Filters: `to`, `from`, `status` (equal), `sent_ge_ms`, `sent_lt_ms`, `created_ge_ms`, `created_lt_ms`; of
        calls, whose start stands for a message's sending, also `parent` (a SID), `ended_ge_ms`, `ended_lt_ms`.
        """

    def revise(self, document: Document) -> Awaitable[None]:
        """Append a revision (redaction, late receipt); the former one is no longer read."""

    def delete(self, account: str, sid: str) -> Awaitable[bool]:
        """Hide a document from every reader at once; its bytes are gone after the next compaction."""

    def usage(
        self, accounts: Sequence[str], start_ms: int, end_ms: int, granularity: str
    ) -> Awaitable[list[dict[str, Any]]]:
        """Sums of landed messages and answered calls (and tallies of deleted ones) by account, period (`day`, `month`,
        `year`, `all`), direction and country: count, segments (of calls: begun minutes), media, price."""

    def compact(self) -> Awaitable[dict[str, int]]:
        """Rewrite every segment, table and log that still holds deleted or redacted bytes."""

    def close(self) -> Awaitable[None]:
        """Finish what was handed in, then stop."""
