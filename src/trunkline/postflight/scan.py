"""Fetches and pages from segments, newest first (runs in the worker process).

Theory: a page walks the segments from the highest key range down and each segment from its last fitting row group
up front, a few groups at a time (1, 2, 4, ... as long as nothing is found), and stops as soon as no older segment
can hold anything newer than what it has. With filters only the filter columns are decoded at first; keys are read
for groups with a hit, documents only for the rows of the answer.

Every call works on one snapshot of manifest and floors. A compaction may unlink a file that the snapshot names: the
call is then made again on a fresh one.
"""

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trunkline.postflight.files import Files, files_of
from trunkline.postflight.segments import BOUNDS
from trunkline.storage.archive import Document
from trunkline.storage.manifest import RecentReader, Segment, holds_account
from trunkline.storage.unavailable import StoreUnavailable

MAX_OPEN = 512
"""Segment footers kept decoded (about 100 KB each)."""
MAX_BATCH = 64
"""Row groups decoded at once while nothing is found."""
THREADED_BATCH = 8
"""From so many row groups on, columns are decoded by several threads."""
RETRIES = 5
"""Fresh snapshots tried when files vanish under a compaction."""
FIRST_KEY = ""
LAST_KEY = "g"
"""Sorts after every key (hex digits)."""

EQUAL = {"to": "to", "from": "from", "status": "status"}
RANGES = {
    "sent_ge_ms": "sent_ms",
    "sent_lt_ms": "sent_ms",
    "created_ge_ms": "created_ms",
    "created_lt_ms": "created_ms",
}
IN_DOCUMENT = {"parent": "parent_sid", "ended_ge_ms": "ended_ms", "ended_lt_ms": "ended_ms"}
"""Filters of calls whose field is no column: it is looked for in the document's text (documents are written by us, as
compact JSON). Those who ask bound the keys, so that few documents are read."""

_decode_bounds = msgspec.json.Decoder(list[tuple[str, str]]).decode


class Footer(msgspec.Struct):
    """A decoded footer: Arrow's metadata and the first (account, key) of each row group."""

    metadata: Any
    bounds: list[tuple[str, str]]


class Hit(msgspec.Struct, frozen=True):
    """Where a row of the answer lies."""

    key: str
    rev: int
    sid: str
    segment: Segment
    group: int
    index: int


class Want(msgspec.Struct, frozen=True):
    """What a page asks for; keys strictly between `after` and `before`."""

    account: str
    kind: str
    before: str
    after: str
    limit: int
    """At least 1."""
    filters: Mapping[str, Any]


class Scanner:
    """Reads the segments of a folder; may be called from several threads, each with its own RecentReader."""

    def __init__(self, where: Files | Path) -> None:
        self._files = files_of(where)
        self._footers: OrderedDict[str, Footer] = OrderedDict()
        self._generation = -1
        self._segments: list[Segment] = []
        self._lock = Lock()

    def segments(self, reader: RecentReader) -> list[Segment]:
        """The manifest as of the reader's snapshot."""
        generation = reader.generation()
        with self._lock:
            if generation == self._generation:
                return self._segments
        segments = reader.segments()
        with self._lock:
            self._generation, self._segments = generation, segments
            living = {segment.path for segment in segments}
            for path in [path for path in self._footers if path not in living]:
                del self._footers[path]
        return segments

    def get(self, reader: RecentReader, account: str, sid: str) -> Document | None:
        """The highest readable revision in any segment."""
        document: Document | None = self._retry(reader, lambda: self._get(reader, account, sid))
        return document

    def page(self, reader: RecentReader, want: Want) -> list[Document]:
        """Newest first."""
        documents: list[Document] = self._retry(reader, lambda: self._page(reader, want))
        return documents

    def _retry(self, reader: RecentReader, call: Any) -> Any:
        for attempt in range(RETRIES):
            reader.begin()
            try:
                return call()
            except FileNotFoundError as error:
                if attempt == RETRIES - 1:
                    if self._files.shared:
                        raise StoreUnavailable(f"the object store lacks {error}, which the manifest names") from None
                    raise
            finally:
                reader.end()
        return None

    def _footer(self, segment: Segment) -> Footer:
        with self._lock:
            footer = self._footers.get(segment.path)
            if footer is not None:
                self._footers.move_to_end(segment.path)
                return footer
        metadata = pq.read_metadata(self._files.path(segment.path))
        footer = Footer(metadata, _decode_bounds(metadata.metadata[BOUNDS]))
        with self._lock:
            self._footers[segment.path] = footer
            while len(self._footers) > MAX_OPEN:
                self._footers.popitem(last=False)
        return footer

    def _read(self, segment: Segment, groups: list[int], columns: list[str]) -> Any:
        footer = self._footer(segment)
        path = self._files.path(segment.path)
        with pq.ParquetFile(path, metadata=footer.metadata, pre_buffer=False) as parquet:
            return parquet.read_row_groups(groups, columns=columns, use_threads=len(groups) >= THREADED_BATCH)

    def _get(self, reader: RecentReader, account: str, sid: str) -> Document | None:
        key, best = sid[2:], None
        for segment in self.segments(reader):
            if not segment.min_key <= key <= segment.max_key or not holds_account(segment.accounts, account):
                continue
            group = bisect_right(self._footer(segment).bounds, (account, key)) - 1
            if group < 0:
                continue
            table = self._read(segment, [group], ["account", "key", "sid", "rev"])
            index = pc.index(table.column("key"), key).as_py()
            if (
                index < 0
                or table.column("account")[index].as_py() != account
                or table.column("sid")[index].as_py() != sid
            ):
                continue
            rev = table.column("rev")[index].as_py()
            if best is None or rev > best.rev:
                best = Hit(key=key, rev=rev, sid=sid, segment=segment, group=group, index=index)
        if best is None or reader.floors(account, (key,)).get(key, 0) > best.rev:
            return None
        return self._documents(account, [best])[0]

    def _page(self, reader: RecentReader, want: Want) -> list[Document]:
        found: dict[str, Hit] = {}
        candidates = [s for s in self.segments(reader) if _may_hold(s, want)]
        for segment in sorted(candidates, key=lambda s: s.max_key, reverse=True):
            after = want.after
            if len(found) >= want.limit:
                after = sorted(found, reverse=True)[want.limit - 1]
                if segment.max_key <= after:
                    break
            fresh = 0
            for hits in self._hits(segment, want, after):
                floors = reader.floors(want.account, [hit.key for hit in hits])
                for hit in hits:
                    if floors.get(hit.key, 0) > hit.rev or (hit.key in found and found[hit.key].rev >= hit.rev):
                        continue
                    found[hit.key] = hit
                    fresh += 1
                if fresh >= want.limit:
                    break
        newest = sorted(found, reverse=True)[: want.limit]
        return self._documents(want.account, [found[key] for key in newest])

    def _hits(self, segment: Segment, want: Want, after: str) -> Iterator[list[Hit]]:
        """The segment's matching rows above `after`, newest first, in lists of at most `limit`."""
        bounds = self._footer(segment).bounds
        first = max(bisect_right(bounds, (want.account, after)) - 1, 0)
        last = bisect_left(bounds, (want.account, want.before)) - 1
        size = 1
        while last >= first:
            groups = list(range(max(first, last - size + 1), last + 1))
            for group in reversed(self._matching(segment, groups, want)):
                yield from self._rows(segment, group, want, after)
            last -= len(groups)
            size = min(size * 2, MAX_BATCH)

    def _matching(self, segment: Segment, groups: list[int], want: Want) -> list[int]:
        """Those of the row groups in which some row passes the filters."""
        if not want.filters:
            return groups
        table = self._read(segment, groups, _filter_columns(want))
        mask = pc.fill_null(_mask(table, want), False)
        if not pc.any(mask).as_py():
            return []
        if len(groups) == 1:
            return groups
        metadata, matching, start = self._footer(segment).metadata, [], 0
        for group in groups:
            length = metadata.row_group(group).num_rows
            if pc.any(mask.slice(start, length)).as_py():
                matching.append(group)
            start += length
        return matching

    def _rows(self, segment: Segment, group: int, want: Want, after: str) -> Iterator[list[Hit]]:
        columns = ["account", "key", "kind", "rev", "sid", *_filter_columns(want)]
        table = self._read(segment, [group], columns)
        mask = pc.and_(pc.equal(table.column("account"), want.account), pc.equal(table.column("kind"), want.kind))
        keys = table.column("key")
        mask = pc.and_(mask, pc.and_(pc.less(keys, want.before), pc.greater(keys, after)))
        if want.filters:
            mask = pc.and_(mask, _mask(table, want))
        indexes = pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()
        indexes.reverse()
        for start in range(0, len(indexes), want.limit):
            some = indexes[start : start + want.limit]
            chosen = table.select(["key", "rev", "sid"]).take(pa.array(some, pa.int64())).to_pylist()
            yield [
                Hit(key=row["key"], rev=row["rev"], sid=row["sid"], segment=segment, group=group, index=index)
                for index, row in zip(some, chosen, strict=True)
            ]

    def _documents(self, account: str, hits: list[Hit]) -> list[Document]:
        """The documents of the hits, in their order; each row group is decoded once."""
        groups: dict[tuple[str, int], list[int]] = {}
        for position, hit in enumerate(hits):
            groups.setdefault((hit.segment.path, hit.group), []).append(position)
        documents: list[Document | None] = [None] * len(hits)
        for positions in groups.values():
            some = hits[positions[0]]
            table = self._read(some.segment, [some.group], ["kind", "doc"])
            kinds, docs = table.column("kind"), table.column("doc")
            for position in positions:
                hit = hits[position]
                body = docs[hit.index].as_py().encode()
                kind = kinds[hit.index].as_py()
                documents[position] = Document(sid=hit.sid, account=account, kind=kind, rev=hit.rev, body=body)
        return [document for document in documents if document is not None]


def _filter_columns(want: Want) -> list[str]:
    return sorted({EQUAL.get(name) or RANGES.get(name) or _DOCUMENT[name] for name in want.filters})


def _mask(table: Any, want: Want) -> Any:
    """A boolean column: which rows pass all filters. 0 in a time column means unknown and passes none."""
    mask = None
    for name, value in want.filters.items():
        if name in EQUAL:
            test = pc.equal(table.column(EQUAL[name]), str(value))
        elif name in IN_DOCUMENT:
            test = _in_document(table.column("doc"), name, value)
        else:
            column = table.column(RANGES[name])
            side = pc.greater_equal if name.endswith("_ge_ms") else pc.less
            test = pc.and_(side(column, int(value)), pc.greater(column, 0))
        mask = test if mask is None else pc.and_(mask, test)
    return mask


_DOCUMENT = dict.fromkeys(IN_DOCUMENT, "doc")


def _in_document(column: Any, name: str, value: Any) -> Any:
    """Which documents have the field as the filter wants it."""
    field = IN_DOCUMENT[name]
    if not name.endswith("_ms"):
        return pc.match_substring(column, f'"{field}":"{value}"')
    found = pc.struct_field(pc.extract_regex(column, f'"{field}":(?P<ms>[0-9]{{1,18}})[,}}]'), "ms")
    side = pc.greater_equal if name.endswith("_ge_ms") else pc.less
    return pc.and_(side(pc.cast(found, pa.int64()), int(value)), pc.greater(pc.cast(found, pa.int64()), 0))


def _may_hold(segment: Segment, want: Want) -> bool:
    """Whether the manifest alone does not rule the segment out."""
    if segment.min_key >= want.before or segment.max_key <= want.after:
        return False
    for name, value in want.filters.items():
        if name in RANGES:
            sent = name.startswith("sent")
            least = segment.min_sent_ms if sent else segment.min_created_ms
            most = segment.max_sent_ms if sent else segment.max_created_ms
            if not least or (most < value if name.endswith("_ge_ms") else least >= value):
                return False
    return holds_account(segment.accounts, want.account)
