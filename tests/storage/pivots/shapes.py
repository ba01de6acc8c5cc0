"""Queues of the new shape, and walks through a pivot, for tests."""

import itertools
import time
from pathlib import Path

from trunkline.model.sid import new_sid
from trunkline.storage.engines.postgres.partitions import prepare as prepare_partitions
from trunkline.storage.engines.postgres.queue import prepare
from trunkline.storage.engines.sqlite.pivots import SqliteBench
from trunkline.storage.pivots.lane_split import PIVOT
from trunkline.storage.pivots.steps import Walk
from trunkline.storage.queue import Flight

AC = "AC" + "a" * 32
LANES = ["", "l", "carrier|AC1|+12125550100", "|x", "a|", "b||", "ü|ß|c|d", "café|AC|Ähm"]
SPLIT = [
    (None, None), ("l", ""), ("carrier", "|AC1|+12125550100"), ("", "|x"), ("a", "|"), ("b", "||"), ("ü", "|ß|c|d"),
    ("café", "|AC|Ähm"),
]  # fmt: skip
_LANE = itertools.cycle(LANES)


def flight(lane=None, **fields):
    """One that waits in a lane, or in the next of all kinds."""
    lane = next(_LANE) if lane is None else lane
    return Flight(sid=new_sid("SM"), account=AC, status="queued", lane=lane, due_ms=5, record=b'{"to":"+1"}', **fields)


def bench_of(path: Path) -> SqliteBench:
    return SqliteBench(path, path.with_name("server.lock"))


def walk(bench, **more) -> Walk:
    return Walk(bench, PIVOT, lambda: time.time_ns() // 1_000_000, sleep=lambda seconds: None, **more)


def patient(bench) -> Walk:
    """One that really waits."""
    return Walk(bench, PIVOT, lambda: time.time_ns() // 1_000_000)


def to_new(path: Path) -> None:
    """A queue's file, of the new shape alone."""
    bench = bench_of(path)
    steps = walk(bench)
    steps.expand()
    steps.backfill()
    steps.verify()
    steps.contract()
    bench.close()


def _reshape(connection) -> None:
    words = PIVOT.postgres
    for statement in (*words.new.add, *words.new.index, *words.old.drop):
        connection.execute(statement.encode())
    connection.execute("insert into pivot values ('lane_split', 'new', 'plain', 0, 0, 0, 0, 0)")


def prepare_new(connection) -> None:
    """One queue of the new shape."""
    prepare(connection)
    _reshape(connection)


def prepare_new_partition(connection) -> None:
    """The same for a member of a cluster."""
    prepare_partitions(connection, 1)
    _reshape(connection)
