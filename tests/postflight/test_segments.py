"""Segment files: columns of documents, order, bounds and merging."""

from decimal import Decimal
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from tests.postflight.harness import ALICE, BOB, NOW, message, sid_at
from trunkline.postflight.segments import (
    BOUNDS,
    COLUMNS,
    ROW_GROUP,
    Entry,
    SegmentWriter,
    country_of,
    entry_of,
    merged,
    needs_rewrite,
    read_entries,
    read_identities,
    write_segment,
)
from trunkline.storage.archive import Document
from trunkline.storage.manifest import Row, holds_account


def entry(document: Document) -> Entry:
    sid = document.sid
    return entry_of(
        Row(
            account=document.account,
            key=sid[2:],
            prefix=sid[:2],
            kind=document.kind,
            rev=document.rev,
            body=document.body,
        )
    )


def named(document: Document) -> dict[str, object]:
    return dict(zip(COLUMNS, entry(document), strict=True))


def test_columns_of_a_document() -> None:
    fields = named(message(NOW, 1, media=[{"sid": "ME1"}], num_segments=3, error_code=30003, status="undelivered"))
    assert fields["sid"] == sid_at(NOW, 1)
    assert fields["account"] == ALICE
    assert fields["price"] == Decimal("0.0075")
    assert (fields["num_segments"], fields["num_media"], fields["error_code"]) == (3, 1, 30003)
    assert (fields["country"], fields["created_ms"], fields["sent_ms"]) == ("DE", NOW, NOW + 100)


def test_what_a_record_leaves_out_has_its_default() -> None:
    fields = named(Document(sid=sid_at(NOW), account=ALICE, kind="message", rev=1, body=b'{"to":"12345"}'))
    assert (fields["num_segments"], fields["num_media"], fields["price"], fields["country"]) == (1, 0, None, "")


@pytest.mark.parametrize(
    "body",
    [b"", b"[1]", b"\xff", b'{"to":5,"price":[],"error_code":"x","created_ms":1e99,"num_segments":99999999999999}'],
)
def test_a_strange_body_is_kept(body: bytes, tmp_path: Path) -> None:
    row = Document(sid=sid_at(NOW), account=ALICE, kind="message", rev=1, body=body)
    assert write_segment(tmp_path, "a.parquet", [entry(row)], late=False, now_ms=1) is not None
    (back,) = read_entries(tmp_path / "a.parquet")
    assert back[-1] == body.decode("utf-8", "replace")


@pytest.mark.parametrize("price", ["1e30", "NaN", "-Infinity", "", "abc", "9" * 40])
def test_a_price_that_is_none_is_left_out(price: str) -> None:
    assert named(message(NOW, 1, price=price))["price"] is None


def test_the_country_is_that_of_the_other_side() -> None:
    assert (
        named(message(NOW, 1, direction="inbound", **{"from": "+33612345678", "to": "+15550001111"}))["country"] == "FR"
    )
    assert named(message(NOW, 1, country="AT"))["country"] == "AT"
    expected = {
        "+14165551234": "CA",
        "+14155551234": "US",
        "+77012345678": "KZ",
        "BRAND": "",
        "12345": "",
        "+": "",
        "": "",
    }
    assert {number: country_of(number) for number in expected} == expected


def test_a_segment_is_sorted_in_small_groups_with_their_bounds(tmp_path: Path) -> None:
    documents = [message(NOW + n, n, account=account) for account in (ALICE, BOB) for n in range(ROW_GROUP)]
    documents.append(message(NOW - 5, 9, account="ACzz", sent_ms=0))
    segment = write_segment(tmp_path, "a.parquet", map(entry, documents), late=True, now_ms=7)
    assert segment is not None
    assert (segment.rows, segment.late, segment.created_ms) == (2 * ROW_GROUP + 1, True, 7)
    assert segment.size == (tmp_path / "a.parquet").stat().st_size
    assert (segment.min_key, segment.max_key) == (
        sid_at(NOW - 5, 9)[2:],
        sid_at(NOW + ROW_GROUP - 1, ROW_GROUP - 1)[2:],
    )
    assert (segment.min_created_ms, segment.max_created_ms) == (NOW - 5, NOW + ROW_GROUP - 1)
    assert (segment.min_sent_ms, segment.max_sent_ms) == (NOW + 100, NOW + ROW_GROUP + 99)
    assert all(holds_account(segment.accounts, account) for account in (ALICE, BOB, "ACzz"))
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    bounds = msgspec.json.decode(metadata.metadata[BOUNDS])
    assert bounds == [[ALICE, sid_at(NOW)[2:]], [BOB, sid_at(NOW)[2:]], ["ACzz", sid_at(NOW - 5, 9)[2:]]]
    assert [row[-1].encode() for row in read_entries(tmp_path / "a.parquet")] == [d.body for d in documents]
    path = tmp_path / "a.parquet"
    assert read_identities(path, 1, 5) == [(d.account, d.sid[2:], 1) for d in documents[ROW_GROUP:]]
    assert read_identities(path, 3, 5) == []


def test_nothing_shows_before_it_is_whole(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "a.parquet")
    writer.add(entry(message(NOW, 1)))
    assert list(tmp_path.glob("*.parquet")) == []
    writer.abandon()
    assert list(tmp_path.iterdir()) == []
    assert write_segment(tmp_path, "b.parquet", [], late=False, now_ms=1) is None

    def failing() -> object:
        yield entry(message(NOW, 1))
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        write_segment(tmp_path, "c.parquet", failing(), late=False, now_ms=1)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_merge_keeps_the_highest_revision_of_each_key(tmp_path: Path) -> None:
    first = [message(NOW + n, n) for n in range(4)]
    second = [message(NOW + 1, 1, rev=3), message(NOW + 2, 2, rev=2, account=BOB), message(NOW + 9, 9, account=BOB)]
    third = [message(NOW + 1, 1, rev=2)]
    paths = []
    for number, documents in enumerate((first, second, third)):
        write_segment(tmp_path, f"{number}.parquet", map(entry, documents), late=False, now_ms=1)
        paths.append(tmp_path / f"{number}.parquet")
    hidden = (ALICE, sid_at(NOW + 3, 3)[2:], 1)

    def keep(account: str, key: str, rev: int) -> bool:
        return (account, key, rev) != hidden

    assert [(row[0], row[1], row[4]) for row in merged(paths, keep)] == [
        (ALICE, sid_at(NOW, 0)[2:], 1),
        (ALICE, sid_at(NOW + 1, 1)[2:], 3),
        (ALICE, sid_at(NOW + 2, 2)[2:], 1),
        (BOB, sid_at(NOW + 2, 2)[2:], 2),
        (BOB, sid_at(NOW + 9, 9)[2:], 1),
    ]
    assert [needs_rewrite(path, keep) for path in paths] == [True, False, False]
