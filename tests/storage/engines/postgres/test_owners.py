"""Two nodes as processes that want the same partition: never do two own it, whatever happens to the one that did."""

import itertools
import os
import queue
import signal
import subprocess
import sys
import threading
import time

import psycopg
import pytest

from tests.postgres import PostgresServer, needs_postgres
from trunkline.storage.engines.postgres.partitions import prepare

pytestmark = needs_postgres
PATIENCE_S = 30.0
LAST_OF_EACH = """
select convert_from(record, 'UTF8')::int epoch, min(pg_xact_commit_timestamp(xmin)), max(pg_xact_commit_timestamp(xmin))
from p00.flight group by epoch order by epoch
"""


class Owner:
    """A process of `partition_owner`, in a group of its own."""

    def __init__(self, dsn, name, *more):
        command = [sys.executable, "-m", "tests.storage.engines.postgres.partition_owner", dsn, name, *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.acked = []
        self.epochs = []
        self.wrong = []
        self._news = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        for line in self.process.stdout:
            if not line.endswith("\n"):
                continue  # torn: it was killed in the middle of it
            word, *rest = line.split(None, 1)
            if word == "ack":
                self.acked.append(rest[0].strip())
            elif word == "own":
                self.epochs.append(int(rest[0]))
            elif word == "wrong":
                self.wrong.append(rest[0])
            self._news.put(word)
        self._news.put("end")

    def hear(self, wanted, times=1):
        """Wait for a word."""
        until = time.monotonic() + PATIENCE_S
        while times:
            heard = self._news.get(timeout=max(0.1, until - time.monotonic()))
            times -= heard == wanted
            assert heard != "end" or wanted == "end"

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def end(self):
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
        self.process.wait()
        self._thread.join()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server():
    server = PostgresServer({"track_commit_timestamp": "on"}).create().start()
    yield server
    server.close()


@pytest.fixture
def start(server):
    dsn = server.database()
    with psycopg.connect(dsn, autocommit=True) as connection:
        prepare(connection, 4)
    started = []

    def begin(name, *more):
        started.append(Owner(dsn, name, *more))
        return started[-1]

    begin.dsn = dsn
    yield begin
    for one in started:
        one.end()


def stored(dsn, epoch):
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("select sid from p00.flight where record = %s", (b"%d" % epoch,)).fetchall()
    return {row[0] for row in rows}


def test_a_frozen_owner_writes_nothing_after_it_wakes(start):
    former = start("a")
    former.hear("ack", 200)
    former.signal(signal.SIGSTOP)
    began = time.monotonic()
    heir = start("b")
    heir.hear("own")
    assert heir.epochs == [2]
    assert time.monotonic() - began < PATIENCE_S / 2
    at_takeover = stored(start.dsn, 1)
    heir.hear("ack", 100)
    former.signal(signal.SIGCONT)
    former.hear("lost")
    former.hear("end")
    heir.hear("ack", 50)
    assert stored(start.dsn, 1) == at_takeover
    assert former.wrong == []
    assert set(former.acked) <= at_takeover
    heir.end()
    assert set(heir.acked) <= stored(start.dsn, 2)


@pytest.mark.parametrize("freeze", [False, True])
def test_two_that_race_never_own_at_once(start, freeze):
    owners = [start(name, "again") for name in "ab"]
    began = time.monotonic()

    def enough() -> bool:
        """Three seconds, and on a busy machine as many changes of owners as there must be."""
        if time.monotonic() < began + 3:
            return False
        with psycopg.connect(start.dsn) as connection:
            return len(connection.execute(LAST_OF_EACH).fetchall()) > 3 or time.monotonic() > began + 60

    while not enough():
        if freeze:
            for owner in owners:
                owner.signal(signal.SIGSTOP)
                time.sleep(0.15)
                owner.signal(signal.SIGCONT)
        time.sleep(0.1)
    for owner in owners:
        owner.hear("ack")
        owner.end()
    with psycopg.connect(start.dsn) as connection:
        spans = connection.execute(LAST_OF_EACH).fetchall()
        found = {row[0] for row in connection.execute("select sid from p00.flight").fetchall()}
    assert len(spans) > 3
    for (_, _, last), (_, first, _) in itertools.pairwise(spans):
        assert last < first
    epochs = [epoch for owner in owners for epoch in owner.epochs]
    assert len(set(epochs)) == len(epochs)
    for owner in owners:
        assert owner.wrong == []
        assert set(owner.acked) <= found
