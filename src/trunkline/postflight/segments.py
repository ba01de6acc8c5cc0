"""Segment files: immutable Parquet, one row per document, sorted by (account, key).

Theory: the sort makes an account's documents of a segment contiguous, newest last, so that a page reads a few
neighbouring row groups; the first (account, key) of every row group is kept in the footer (`BOUNDS`), so that a
fetch by SID decodes exactly one small row group. Whole-archive scans read only the narrow typed columns beside `doc`.

Measured with 2.2 kB documents (200,000 rows): fetch from a row group of 2,048 takes 2.5 ms, of 5,000 7 ms, of 10,000
16 ms; the file size is the same for all, and zstd level 1 is smaller than level 3.

A file is written under a temporary name, synced, renamed and its folder synced: a name that ends in `.parquet` is
always whole. Only the worker process imports this module (pyarrow costs some 60 MB).
"""

import heapq
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import phonenumbers
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trunkline.postflight.names import UNFINISHED
from trunkline.storage.manifest import Row, Segment, account_digest

ROW_GROUP = 2048
"""Rows of a row group."""
ZSTD_LEVEL = 1
SCAN_GROUPS = 16
"""Row groups whose identities are decoded at once."""
SCAN_ROWS = SCAN_GROUPS * ROW_GROUP
BOUNDS = b"trunkline.bounds"
"""Footer entry: JSON array of the first [account, key] of each row group."""
MINUTE_MS = 60_000
PRICE_SCALE = Decimal("0.00000001")
PRICE_LIMIT = Decimal(10) ** 11

SCHEMA = pa.schema(
    [
        ("account", pa.string()),
        ("key", pa.string()),
        ("sid", pa.string()),
        ("kind", pa.string()),
        ("rev", pa.int64()),
        ("created_ms", pa.int64()),
        ("sent_ms", pa.int64()),
        ("direction", pa.string()),
        ("from", pa.string()),
        ("to", pa.string()),
        ("status", pa.string()),
        ("error_code", pa.int32()),
        ("num_segments", pa.int32()),
        ("num_media", pa.int32()),
        ("price", pa.decimal128(20, 8)),
        ("price_unit", pa.string()),
        ("country", pa.string()),
        ("connector", pa.string()),
        ("messaging_service_sid", pa.string()),
        ("doc", pa.string()),
    ]
)
COLUMNS: list[str] = SCHEMA.names
DICTIONARY = [
    "account", "kind", "direction", "from", "status", "price_unit", "country", "connector", "messaging_service_sid",
]  # fmt: skip
STATISTICS = [name for name in COLUMNS if name != "doc"]
ACCOUNT, KEY, SID, KIND, REV, CREATED, SENT = range(7)

Entry = tuple[Any, ...]
"""One row: a value for each of COLUMNS."""
Keep = Callable[[str, str, int], bool]
"""(account, key, rev) -> whether the row is still to be read."""


class Facts(msgspec.Struct):
    """The fields of a document that become columns; all others are passed over."""

    direction: Any = ""
    from_: Any = msgspec.field(name="from", default="")
    to: Any = ""
    status: Any = ""
    created_ms: Any = 0
    sent_ms: Any = 0
    started_ms: Any = 0
    """When a call started: it stands where a message's sending does."""
    error_code: Any = 0
    num_segments: Any = None
    num_media: Any = None
    media: Any = ()
    price: Any = ""
    price_unit: Any = ""
    country: Any = ""
    connector: Any = ""
    messaging_service_sid: Any = ""
    answered_ms: Any = 0
    ended_ms: Any = 0


_decode_facts = msgspec.json.Decoder(Facts).decode


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any, limit: int = 1 << 31) -> int:
    """The integer, or 0 for what is none or too big for the column."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        value = int(value)
    return value if isinstance(value, int) and -limit <= value < limit else 0


def _price(value: Any) -> Decimal | None:
    if not isinstance(value, str) or not value:
        return None
    try:
        price = Decimal(value)
        return abs(price.quantize(PRICE_SCALE)) if abs(price) < PRICE_LIMIT else None
    except InvalidOperation:
        return None


@lru_cache(maxsize=50_000)
def _region(prefix: str) -> str:
    """The region of the numbers that begin so (`prefix`: + and up to 7 digits, filled up for the parser)."""
    try:
        parsed = phonenumbers.parse(prefix + "5550123"[: 12 - len(prefix)])
    except phonenumbers.NumberParseException:
        return ""
    regions = phonenumbers.region_codes_for_country_code(parsed.country_code or 0)
    if len(regions) == 1:
        return str(regions[0])
    return str(phonenumbers.region_code_for_number(parsed) or (regions[0] if regions else ""))


def country_of(number: str) -> str:
    """ISO 3166-1 alpha-2 of an E.164 number by its first digits; empty for other addresses."""
    region = _region(number[:8]) if number[:1] == "+" and number[1:8].isdigit() else ""
    return region if len(region) == 2 else ""


def _minutes(facts: Facts) -> int:
    """Begun minutes of a call, as they are billed: what segments are to a message."""
    answered, ended = _number(facts.answered_ms, 1 << 62), _number(facts.ended_ms, 1 << 62)
    return -(-(ended - answered) // MINUTE_MS) if 0 < answered < ended else 0


def entry_of(row: Row) -> Entry:
    """The columns of a document. A body that is no JSON object is kept, with empty columns."""
    try:
        facts = _decode_facts(row.body)
    except msgspec.DecodeError:
        facts = Facts()
    direction, sender, to = _text(facts.direction), _text(facts.from_), _text(facts.to)
    media = facts.num_media
    if media is None:
        media = len(facts.media) if isinstance(facts.media, (list, tuple)) else 0
    parts = facts.num_segments
    if parts is None:  # a record leaves out what has its default
        parts = 1 if row.kind == "message" else _minutes(facts) if row.kind == "call" else 0
    return (
        row.account,
        row.key,
        row.prefix + row.key,
        row.kind,
        row.rev,
        _number(facts.created_ms, 1 << 62),
        _number(facts.sent_ms or facts.started_ms, 1 << 62),
        direction,
        sender,
        to,
        _text(facts.status),
        _number(facts.error_code),
        _number(parts),
        _number(media),
        _price(facts.price),
        _text(facts.price_unit),
        _text(facts.country) or country_of(sender if direction == "inbound" else to),
        _text(facts.connector),
        _text(facts.messaging_service_sid),
        row.body.decode("utf-8", "replace"),
    )


def table_of(entries: Iterable[Entry]) -> Any:
    """An Arrow table of the rows."""
    columns: list[Any] = list(zip(*entries, strict=True)) or [()] * len(COLUMNS)
    return pa.table([pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)], SCHEMA)


class _Span:
    """The least and greatest positive value seen."""

    def __init__(self) -> None:
        self.least = 0
        self.most = 0

    def add(self, column: Any) -> None:
        extremes = pc.min_max(column.filter(pc.greater(column, 0))).as_py()
        if extremes["min"] is not None:
            self.least = extremes["min"] if not self.least else min(self.least, extremes["min"])
            self.most = max(self.most, extremes["max"])


class SegmentWriter:
    """Writes one segment; entries come in (account, key) order. Nothing is visible before `finish`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._part = folder / (name + UNFINISHED)
        self._file = open(self._part, "wb")  # noqa: SIM115 (closed by finish or abandon)
        self._parquet = pq.ParquetWriter(
            self._file,
            SCHEMA,
            compression="zstd",
            compression_level=ZSTD_LEVEL,
            use_dictionary=DICTIONARY,
            write_statistics=STATISTICS,
            store_schema=False,
        )
        self._waiting: list[Entry] = []
        self._bounds: list[tuple[str, str]] = []
        self._accounts: set[bytes] = set()
        self._rows = 0
        self._min_key = ""
        self._max_key = ""
        self._created = _Span()
        self._sent = _Span()

    @property
    def rows(self) -> int:
        return self._rows + len(self._waiting)

    def add(self, entry: Entry) -> None:
        """Append a row."""
        self._waiting.append(entry)
        if len(self._waiting) >= ROW_GROUP:
            self._flush()

    def add_table(self, table: Any) -> None:
        """Append the rows of a table as a row group of their own (at most ROW_GROUP)."""
        self._flush()
        self._write(table)

    def _flush(self) -> None:
        entries, self._waiting = self._waiting, []
        self._write(table_of(entries))

    def _write(self, table: Any) -> None:
        if not table.num_rows:
            return
        self._parquet.write_table(table, row_group_size=ROW_GROUP)
        accounts, keys = table.column("account"), table.column("key")
        self._bounds.append((accounts[0].as_py(), keys[0].as_py()))
        self._accounts.update(account_digest(account) for account in pc.unique(accounts).to_pylist())
        extremes = pc.min_max(keys).as_py()
        self._min_key = min(self._min_key, extremes["min"]) if self._rows else extremes["min"]
        self._max_key = max(self._max_key, extremes["max"])
        self._created.add(table.column("created_ms"))
        self._sent.add(table.column("sent_ms"))
        self._rows += table.num_rows

    def finish(self, *, late: bool, now_ms: int) -> Segment | None:
        """Make the file durable and visible; None (and no file) when it holds no row."""
        self._flush()
        if not self._rows:
            self.abandon()
            return None
        self._parquet.add_key_value_metadata({BOUNDS: msgspec.json.encode(self._bounds)})
        self._parquet.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.close()
        os.rename(self._part, self._folder / self._name)
        sync_folder(self._folder)
        return Segment(
            path=self._name, late=late, rows=self._rows, size=size, min_key=self._min_key, max_key=self._max_key,
            min_created_ms=self._created.least, max_created_ms=self._created.most,
            min_sent_ms=self._sent.least, max_sent_ms=self._sent.most,
            accounts=b"".join(sorted(self._accounts)), created_ms=now_ms,
        )  # fmt: skip

    def abandon(self) -> None:
        """Drop what was written."""
        self._parquet.close()
        self._file.close()
        self._part.unlink(missing_ok=True)


def write_segment(folder: Path, name: str, entries: Iterable[Entry], *, late: bool, now_ms: int) -> Segment | None:
    """A segment of the entries, which are in (account, key) order; None if there are none."""
    writer = SegmentWriter(folder, name)
    try:
        for entry in entries:
            writer.add(entry)
        return writer.finish(late=late, now_ms=now_ms)
    except BaseException:
        writer.abandon()
        raise


def filter_segment(folder: Path, name: str, source: Path, keep: Keep, *, late: bool, now_ms: int) -> Segment | None:
    """A segment of those rows of another that are to be kept, row group by row group; None if there are none."""
    writer = SegmentWriter(folder, name)
    try:
        with pq.ParquetFile(source) as parquet:
            for group in range(parquet.num_row_groups):
                table = parquet.read_row_group(group, use_threads=False)
                identities = (table.column(column).to_pylist() for column in ("account", "key", "rev"))
                mask = [keep(*identity) for identity in zip(*identities, strict=True)]
                writer.add_table(table if all(mask) else table.filter(pa.array(mask, pa.bool_())))
        return writer.finish(late=late, now_ms=now_ms)
    except BaseException:
        writer.abandon()
        raise


def read_entries(path: Path) -> Iterator[Entry]:
    """Every row of a segment, in order, one row group in memory."""
    with pq.ParquetFile(path) as parquet:
        for group in range(parquet.num_row_groups):
            table = parquet.read_row_group(group, use_threads=False)
            yield from zip(*(column.to_pylist() for column in table.columns), strict=True)


def read_identities(path: Path, first: int, count: int) -> list[tuple[str, str, int]]:
    """(account, key, rev) of the rows of so many row groups, from the group `first`; none beyond the last."""
    with pq.ParquetFile(path) as parquet:
        groups = list(range(first, min(first + count, parquet.num_row_groups)))
        if not groups:
            return []
        table = parquet.read_row_groups(groups, columns=["account", "key", "rev"], use_threads=False)
        return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def find_keys(path: Path, keys: Collection[str]) -> Iterator[tuple[str, str, int]]:
    """(account, key, rev) of the rows with one of these keys."""
    wanted = pa.array(list(keys), pa.string())
    with pq.ParquetFile(path) as parquet:
        for batch in parquet.iter_batches(SCAN_ROWS, columns=["account", "key", "rev"], use_threads=False):
            found = batch.filter(pc.is_in(batch.column("key"), value_set=wanted))
            yield from zip(*(column.to_pylist() for column in found.columns), strict=True)


def merged(paths: Iterable[Path], keep: Keep) -> Iterator[Entry]:
    """The rows of several segments in order, of each key only the highest revision, if it is to be kept."""
    sources = [read_entries(path) for path in paths]
    last: Entry | None = None
    for entry in heapq.merge(*sources, key=lambda entry: (entry[ACCOUNT], entry[KEY], -entry[REV])):
        if last is not None and entry[ACCOUNT] == last[ACCOUNT] and entry[KEY] == last[KEY]:
            continue
        last = entry
        if keep(entry[ACCOUNT], entry[KEY], entry[REV]):
            yield entry


def needs_rewrite(path: Path, keep: Keep) -> bool:
    """Whether a segment holds a row that is not to be kept."""
    first = 0
    while identities := read_identities(path, first, SCAN_GROUPS):
        if not all(keep(*identity) for identity in identities):
            return True
        first += SCAN_GROUPS
    return False


def sync_folder(folder: Path) -> None:
    """Make renames and removals in the folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
