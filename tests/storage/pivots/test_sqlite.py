"""A pivot of a SQLite file: both shapes say the same whoever writes, at each step, forward and back."""

import asyncio
import subprocess
import sys

import apsw
import pytest

from tests.storage.pivots.shapes import AC, LANES, SPLIT, bench_of, flight, patient, to_new, walk
from trunkline.storage.engines.sqlite import queue_sql as sql
from trunkline.storage.engines.sqlite.queue import SqliteQueue
from trunkline.storage.engines.sqlite.shapes import folder_of
from trunkline.storage.pivots import lane_split
from trunkline.storage.pivots.lane_split import PIVOT
from trunkline.storage.pivots.model import CannotPivot
from trunkline.storage.queue import Advance
from trunkline.storage.survives import CannotSurvive


@pytest.fixture
def path(tmp_path):
    return tmp_path / "queue.db"


@pytest.fixture
async def queues(path):
    """Of a process that knows the pivot, and of one that does not."""
    new, old = SqliteQueue(path), SqliteQueue(path, speaks=0)
    yield new, old
    await new.close()
    await old.close()


@pytest.fixture
def bench(path, queues):
    bench = bench_of(path)
    yield bench
    bench.close()


async def work(queue):
    """Everything that writes or reads a lane; what waits afterwards."""
    flights = [flight() for _ in range(len(LANES) * 2)]
    await asyncio.gather(*(queue.accept(one) for one in flights))
    assert await queue.claim([(one.id, 0) for one in flights[:3]]) == []
    back = flights[1]
    step = Advance(id=back.id, sid=back.sid, account=AC, rev=1, status="queued", lane="again|AC|x", due_ms=9)
    assert await queue.advance(step)
    step = Advance(id=flights[2].id, sid=flights[2].sid, account=AC, rev=1, status="sent", record=b"{}")
    assert await queue.advance(step)
    found = await queue.get(AC, back.sid)
    assert found is not None
    assert (found[0].lane, found[0].due_ms, found[0].rev) == ("again|AC|x", 9, 2)
    assert await queue.accept_inbound(flight("in|AC|y"), (), "c", ())
    return {one.id: one.lane for one in flights[3:] if one.lane} | {back.id: "again|AC|x"}


async def waiting(queue):
    """Lane -> ids of what waits, and that the lanes' numbers say the same."""
    found = {}
    for lane, count, _ in await queue.lanes():
        found[lane] = [one.id for one in await queue.waiting(lane, (0, 0), 10_000)]
        assert len(found[lane]) == count
    return found


def both(path):
    """(lane, connector, line) of every row."""
    connection = apsw.Connection(str(path))
    rows = connection.execute("select lane, connector, line from flight order by id").fetchall()
    connection.close()
    return rows


@pytest.mark.parametrize(("lane", "parts"), list(zip(LANES, SPLIT, strict=True)))
def test_a_name_is_split_and_joined_without_loss(lane, parts):
    connection = apsw.Connection(":memory:")
    split = f"select {lane_split.sqlite_connector('?1')} as connector, {lane_split.sqlite_line('?1')} as line"
    ((connector, line, joined),) = connection.execute(
        f"select connector, line, {lane_split.JOINED} from ({split})", (lane,)
    ).fetchall()
    assert (connector, line) == parts
    assert joined == lane


@pytest.mark.parametrize("knows", ["new", "old"])
async def test_writes_reach_both_shapes_at_each_step_forward_and_back(path, queues, bench, knows):
    new, old = queues
    writer, reader = (new, old) if knows == "new" else (old, new)
    steps = walk(bench)
    await work(writer)
    unfilled = len(await waiting(writer))
    assert unfilled
    for back in (False, True):
        steps.expand(back=back)
        await work(writer)
        if not back:
            assert steps.differing() > 0
            assert {row[1] for row in both(path)[-3:]} != {None}
        steps.backfill(rows=7)
        await work(writer)
        assert steps.differing() == 0
        steps.verify()
        new._shapes.look(new._far)
        await work(writer)
        assert steps.differing() == 0
        assert await waiting(writer) == await waiting(reader)
        if back:
            steps.contract()
            assert await waiting(new) == await waiting(old)
        else:
            before = await waiting(new)
            steps.contract()
            assert await waiting(new) == before
            if writer is old:
                break  # its statements fail from here on: `contract` is refused while it lives
    state = bench.state(PIVOT)
    assert (state.shape, state.phase) == (("old", "plain") if knows == "new" else ("new", "plain"))


async def test_statements_of_a_former_shape_are_made_anew(path, queues, bench):
    new, _ = queues
    await work(new)
    steps = walk(bench)
    for back in (False, True):
        before = await waiting(new)
        steps.expand(back=back)
        steps.backfill()
        steps.verify()
        steps.contract()
        # Nobody told it: whichever comes first finds out.
        first = flight("c|AC|z")
        accepted = new.accept(first)
        assert new.by_id(next(iter(before.values()))[0]) is not None
        await accepted
        assert await waiting(new) == {**before, "c|AC|z": [*before.get("c|AC|z", []), first.id]}
        await work(new)
        assert len(await new.page(AC, "message", before="", after="", limit=1000, filters={"to": "+1"})) > 10
        assert await new.landable(0, 10) == []


async def test_an_interrupted_backfill_goes_on_where_it_was(path, queues, bench):
    new, old = queues
    for _ in range(5):
        await work(old)
    steps = walk(bench)
    steps.expand()
    batches = []

    def cut_off(seconds):
        batches.append(bench.state(PIVOT))
        if len(batches) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        type(steps)(bench, PIVOT, lambda: 1, sleep=cut_off).backfill(rows=10)
    assert [one.done for one in batches] == [10, 20, 30]
    told = []
    assert walk(bench, tell=told.append).backfill(rows=10).phase == "filled"
    assert told[0].startswith("queue: lane_split: 40 of ")
    assert steps.differing() == 0
    assert await waiting(new) == await waiting(old)


async def test_steps_out_of_order_are_refused(queues, bench):
    steps = walk(bench)
    for step, why in (
        (steps.backfill, "not expanded"), (steps.verify, "one shape only"),
        (lambda: steps.expand(back=True), "nothing to go back from"),
    ):  # fmt: skip
        with pytest.raises(CannotPivot, match=why):
            step()
    assert steps.undo().phase == "plain"
    assert steps.expand() == steps.expand()
    with pytest.raises(CannotPivot, match="not filled yet"):
        steps.verify()
    with pytest.raises(CannotPivot, match="not verified yet"):
        steps.contract()
    with pytest.raises(CannotPivot, match="undo that first"):
        steps.expand(back=True)


async def test_rows_that_differ_stop_verify_and_contract(path, queues, bench):
    new, _ = queues
    await work(new)
    steps = walk(bench)
    steps.expand()
    steps.backfill()

    def spoil():
        connection = apsw.Connection(str(path))
        connection.execute("drop trigger lane_split_new_write; update flight set line = 'x' where connector = 'l'")
        connection.close()

    spoil()
    with pytest.raises(CannotPivot, match=r"lane_split: \d+ rows differ"):
        steps.verify()
    assert bench.state(PIVOT).phase == "filled"


async def test_contract_names_the_process_that_needs_the_old_shape(path, queues, bench):
    steps = walk(bench)
    former = SqliteQueue(path, own=True, speaks=0)
    steps.expand()
    steps.backfill()
    steps.verify()
    with pytest.raises(CannotPivot, match=r"still use the old shape: process \d+ on "):
        steps.contract()
    assert [(one.number, one.shapes) for one in bench.speakers()] == [(0, {"lane_split": "old"})]
    await former.close()
    assert bench.speakers() == []
    own = SqliteQueue(path, own=True)
    assert [(one.number, one.shapes) for one in bench.speakers()] == [(1, {"lane_split": "new"})]
    assert steps.contract().shape == "new"
    assert (await work(own)) != {}
    await own.close()
    with pytest.raises(CannotSurvive, match="not spoken here"):
        SqliteQueue(path, speaks=0)


async def test_a_process_that_was_killed_is_no_speaker(path, queues, bench):
    code = (
        "import sys, time; from pathlib import Path; from trunkline.storage.engines.sqlite.queue import SqliteQueue\n"
        "queue = SqliteQueue(Path(sys.argv[1]), own=True, speaks=0); print('up', flush=True); time.sleep(600)"
    )
    process = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert await asyncio.to_thread(process.stdout.readline) == "up\n"
        assert [one.who.split()[1] for one in bench.speakers()] == [str(process.pid)]
    finally:
        process.kill()
        await asyncio.to_thread(process.communicate)
    assert bench.speakers() == []
    assert [name.name for name in folder_of(path).iterdir()] == ["pivot.lock"]


async def test_undo_after_verify_loses_nothing(path, queues, bench):
    _, old = queues
    steps = patient(bench)
    server = SqliteQueue(path, own=True)
    try:
        steps.expand()
        await work(old)
        steps.backfill()
        steps.verify()
        async with asyncio.timeout(60):
            while bench.speakers()[0].shapes["lane_split"] != "new":
                await asyncio.sleep(0.05)
        await work(server)
        before = await waiting(server)
        with pytest.raises(CannotPivot, match="still use the new shape"):
            steps.undo()
        state = await asyncio.to_thread(steps.undo, 60.0)  # the server learns of it meanwhile
        assert (state.shape, state.phase) == ("old", "plain")
        assert await waiting(server) == await waiting(old) == before
    finally:
        await server.close()


async def test_a_server_of_a_release_before_pivots_stops_expand(path, queues, bench):
    lock = path.with_name("server.lock")
    held = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX)\n"
         "print('held', flush=True); sys.stdin.read()", str(lock)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert held.stdout is not None
    assert await asyncio.to_thread(held.stdout.readline) == "held\n"
    with pytest.raises(CannotPivot, match="of a release before pivots"):
        walk(bench).expand()
    await asyncio.to_thread(held.communicate, "")
    assert walk(bench).expand().phase == "filling"


async def test_two_do_not_work_on_one_file(path, queues, bench):
    with pytest.raises(CannotPivot, match="another `trunkline schema`"):
        bench_of(path)


async def test_the_new_shape_is_found_by_its_index(path):
    await SqliteQueue(path).close()
    to_new(path)
    connection = apsw.Connection(str(path))
    rows = connection.execute(f"explain query plan {sql.SHAPES['new', False].waiting}", ("c|a|b", 0, 0, 5))
    plan = " ".join(str(row[3]) for row in rows)
    connection.close()
    assert "flight_line (connector=? AND line=?" in plan
    assert "TEMP B-TREE" not in plan
