"""Roll-up, rewriting and merging of segments, and the removal of leftovers (runs in the worker process, niced).

Each function does one bounded job and changes no manifest: it writes new files beside the old ones and says what it
wrote. The archive records that, and only then removes rows or files, so that a crash at any point costs nothing but a
file that no manifest names, which `sweep` removes.
"""

import os
import secrets
import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from trunkline.postflight.files import YOUNG_S, Files, files_of
from trunkline.postflight.names import SPILL, SUFFIX, UNFINISHED
from trunkline.postflight.segments import (
    Keep,
    entry_of,
    filter_segment,
    find_keys,
    merged,
    needs_rewrite,
    sync_folder,
    write_segment,
)
from trunkline.storage.manifest import RecentReader, Segment, holds_account

FIRST_KEY = f"{1_577_836_800_000:012x}"
"""The key of 2020-01-01: no SID of ours is older."""


class Rewritten(msgspec.Struct):
    """The outcome of a rewrite: whether anything was to be done, and what remains (None: nothing)."""

    changed: bool
    segment: Segment | None = None


def _name() -> str:
    return secrets.token_hex(12) + SUFFIX


def roll(
    where: Files | Path, reader: RecentReader, above: str, upto: str, *, late: bool, now_ms: int
) -> Segment | None:
    """Write the recent rows with `above` < key <= `upto` into a segment; None if there are none."""
    files = files_of(where)
    reader.begin()
    try:
        entries = (entry_of(row) for row in reader.rows(above, upto))
        written = write_segment(files.folder, _name(), entries, late=late, now_ms=now_ms)
    finally:
        reader.end()
    return _published(files, written)


def _published(files: Files, segment: Segment | None) -> Segment | None:
    """A new segment, where everybody finds it before any manifest names it."""
    if segment is not None:
        files.publish(segment.path)
    return segment


def _keep(reader: RecentReader, segments: Collection[Segment], expired: Mapping[str, str]) -> Keep | None:
    """What is to stay of the segments; None when the manifest alone shows that all is.

    `expired` maps an account to the key below which its documents are to go. Keys before FIRST_KEY are not of our
    making (imported SIDs): their age is unknown, and they stay.
    """
    least = min(segment.min_key for segment in segments)
    most = max(segment.max_key for segment in segments)

    def held(account: str) -> bool:
        return any(holds_account(segment.accounts, account) for segment in segments)

    floors = {
        (floor.account, floor.key): floor.rev
        for floor in reader.all_floors()
        if least <= floor.key <= most and held(floor.account)
    }
    cuts = {account: key for account, key in expired.items() if key > least and held(account)}
    if not floors and not cuts:
        return None

    def keep(account: str, key: str, rev: int) -> bool:
        return rev >= floors.get((account, key), 0) and not FIRST_KEY <= key < cuts.get(account, "")

    return keep


def rewrite(
    where: Files | Path, reader: RecentReader, segment: Segment, expired: Mapping[str, str], *, now_ms: int
) -> Rewritten:
    """Write a segment anew without what is hidden or expired, if it holds any of it."""
    keep = _keep(reader, [segment], expired)
    if keep is None:
        return Rewritten(changed=False)
    files = files_of(where)
    with files.held([segment]) as (path,):
        if not needs_rewrite(path, keep):
            return Rewritten(changed=False)
        written = filter_segment(files.folder, _name(), path, keep, late=segment.late, now_ms=now_ms)
    return Rewritten(changed=True, segment=_published(files, written))


def merge(where: Files | Path, reader: RecentReader, segments: Sequence[Segment], *, now_ms: int) -> Segment | None:
    """One segment of several, without what is hidden; of each key the highest revision."""
    keep = _keep(reader, segments, {}) or (lambda account, key, rev: True)
    late = any(segment.late for segment in segments)
    files = files_of(where)
    with files.held(segments) as paths:
        written = write_segment(files.folder, _name(), merged(paths, keep), late=late, now_ms=now_ms)
    return _published(files, written)


def needless_floors(where: Files | Path, reader: RecentReader) -> list[tuple[str, str, int]]:
    """The floors (account, key, rev) raised by late landings of which no segment holds an older revision.

    A document that lands after its contemporaries raises a floor because it *may* have landed before; mostly it has
    not. Without this, every late landing would ask for a compaction.
    """
    floors = {(floor.account, floor.key): floor.rev for floor in reader.all_floors() if not floor.private}
    needless = dict(floors)
    for segment in reader.segments():
        keys = {key for _, key in floors if segment.min_key <= key <= segment.max_key}
        if not keys:
            continue
        with files_of(where).held([segment]) as (path,):
            for account, key, rev in find_keys(path, keys):
                if rev < floors.get((account, key), 0):
                    needless.pop((account, key), None)
    return [(account, key, rev) for (account, key), rev in needless.items()]


def sweep(where: Files | Path, reader: RecentReader) -> int:
    """Remove files that no manifest names and what dead processes spilled. Only while no roll-up or compaction runs;
    in a cache, which other processes of this machine may be filling, young files stay."""
    files = files_of(where)
    folder, young_s = files.folder, time.time() - YOUNG_S
    named = {segment.path for segment in reader.segments()}
    removed = 0
    for path in folder.iterdir():
        if path.name.startswith(SPILL):
            process = path.name.removeprefix(SPILL)
            if not process.isdigit() or not _alive(int(process)):
                shutil.rmtree(path, ignore_errors=True)
        elif path.name.endswith(UNFINISHED) or (path.name.endswith(SUFFIX) and path.name not in named):
            if files.shared and _modified_s(path) > young_s:
                continue
            path.unlink(missing_ok=True)
            removed += 1
    if removed:
        sync_folder(folder)
    return removed


def orphans(where: Files | Path, reader: RecentReader, older_s: float) -> int:
    """Remove objects of this age that neither the manifest nor a reader of an older one can name; how many."""
    reader.begin()
    try:
        named = {segment.path for segment in reader.segments()} | set(reader.dropped())
    finally:
        reader.end()
    return files_of(where).orphans(named, older_s)


def _modified_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
