"""The contract of the `Queue` primitive, the same for every engine."""

import asyncio
import itertools

import pytest

from tests.postgres import needs_postgres
from tests.storage import partitions
from tests.storage.partitions import owning_all
from trunkline.model.sid import SHARDS, new_sid, use_shards
from trunkline.storage.engines.postgres.partitions import PostgresPartitions
from trunkline.storage.engines.postgres.partitions import prepare as prepare_partitions
from trunkline.storage.engines.postgres.queue import PostgresQueue, prepare
from trunkline.storage.engines.sqlite.queue import SqliteQueue
from trunkline.storage.partitions import home
from trunkline.storage.queue import Advance, Exists, Flight, Orphan, Owed, Part, Replay
from trunkline.storage.sharded import ShardedQueue
from trunkline.storage.survives import Survives

AC = "AC" + "a" * 32
PARTITIONS = 4


@pytest.fixture(
    params=[
        "sqlite",
        "sharded sqlite",
        pytest.param("postgres", marks=needs_postgres),
        pytest.param("sharded postgres", marks=needs_postgres),
        pytest.param("one partition on postgres", marks=needs_postgres),
    ]
)
def open_queue(request, tmp_path):
    """Opens the same queue each time it is called. What is made goes round all shards."""
    turn = itertools.count()
    use_shards(lambda prefix: next(turn) % SHARDS)
    yield _opener(request, tmp_path)
    use_shards(None)


def _opener(request, tmp_path):
    async def sqlite():
        return SqliteQueue(tmp_path / "queue.db")

    async def sharded_sqlite():
        return await owning_all(partitions.sharded_sqlite(tmp_path, PARTITIONS))

    if "postgres" not in request.param:
        return sqlite if request.param == "sqlite" else sharded_sqlite
    server = request.getfixturevalue("postgres")
    if request.param == "postgres":
        dsns = [server.database(prepare)]
    elif request.param == "sharded postgres":
        dsns = [server.database(prepare_first), server.database(prepare_second)]
    else:
        dsns = [server.database(prepare)]

    async def postgres():
        return PostgresQueue(dsns[0])

    async def sharded():
        count = PARTITIONS if len(dsns) > 1 else 1
        return await owning_all(ShardedQueue(PostgresPartitions(dsns, count)))

    return postgres if request.param == "postgres" else sharded


def prepare_first(connection):
    prepare_partitions(connection, PARTITIONS, 2, 0)


def prepare_second(connection):
    prepare_partitions(connection, PARTITIONS, 2, 1)


@pytest.fixture
async def queue(open_queue):
    queue = await open_queue()
    yield queue
    await queue.close()


def flight(**changes):
    values = {
        "sid": new_sid("SM"),
        "account": AC,
        "status": "queued",
        "lane": "c|a|s",
        "record": b'{"to":"+1","sent_ms":5}',
    }
    return Flight(**(values | changes))


def owed(f, **changes):
    return Owed(**({"sid": f.sid, "account": AC, "kind": "status", "host": "http://h", "request": b"{}"} | changes))


def step(f, status, **changes):
    return Advance(**({"id": f.id, "sid": f.sid, "account": AC, "rev": f.rev, "status": status} | changes))


async def test_survives_power_loss(queue):
    assert queue.survives is Survives.POWER


async def test_accepted_flight_is_found_by_every_key(queue):
    f = flight()
    await queue.accept(f, [owed(f)])
    found, callbacks = await queue.get(AC, f.sid)
    assert found == f
    assert [c.flight for c in callbacks] == [f.id]
    assert queue.by_id(f.id) == f
    assert await queue.get("AC" + "b" * 32, f.sid) is None
    assert await queue.get(AC, "MM" + f.sid[2:]) is None


async def test_sid_is_accepted_once(queue):
    f = flight()
    await queue.accept(f)
    again = flight(sid=f.sid, record=b"{}")
    with pytest.raises(Exists):
        await queue.accept(again, [owed(again)])
    assert (await queue.get(AC, f.sid)) == (f, [])
    assert await queue.owed_hosts() == []


async def test_claim_takes_a_flight_once(queue):
    f = flight()
    await queue.accept(f)
    assert await queue.claim([(f.id, 0)]) == []
    assert await queue.claim([(f.id, 0)]) == [f.id]
    claimed = queue.by_id(f.id)
    assert (claimed.status, claimed.lane, claimed.rev) == ("sending", "", 1)
    assert await queue.waiting("c|a|s", (0, 0), 10) == []
    assert [x.id for x in await queue.in_state("message", "sending", 0, 10)] == [f.id]


async def test_stale_step_changes_nothing(queue):
    f = flight()
    await queue.accept(f)
    assert await queue.advance(step(f, "sent", owed=[owed(f)], carrier_ids=[("c", "1")]))
    assert not await queue.advance(step(f, "failed", owed=[owed(f)], carrier_ids=[("c", "2")]))
    found, callbacks = await queue.get(AC, f.sid)
    assert (found.status, found.rev, len(callbacks)) == ("sent", 1, 1)
    assert found.record == f.record
    assert queue.find_carrier_id("c", "1") == (f.id, AC, f.sid)
    assert queue.find_carrier_id("c", "2") is None


async def test_lane_pages_in_due_order(queue):
    flights = [flight(due_ms=due) for due in (30, 10, 20)]
    await asyncio.gather(*(queue.accept(f) for f in flights))
    assert await queue.lanes() == [("c|a|s", 3, 10)]
    first = await queue.waiting("c|a|s", (0, 0), 2)
    assert [f.due_ms for f in first] == [10, 20]
    rest = await queue.waiting("c|a|s", (first[-1].due_ms, first[-1].id), 2)
    assert [f.due_ms for f in rest] == [30]


async def test_landing_waits_for_owed_callbacks(queue):
    f = flight(land_ms=5, lane="")
    await queue.accept(f, [owed(f)])
    assert await queue.landable(10, 10) == []
    _, (callback,) = await queue.get(AC, f.sid)
    callback.state, callback.attempts = "delivered", b'[{"status":200}]'
    await queue.settle(callback)
    ((landing, callbacks),) = await queue.landable(10, 10)
    assert callbacks[0].attempts == b'[{"status":200}]'
    assert await queue.landable(4, 10) == []
    assert await queue.remove([(landing.id, landing.rev + 1)]) == 0
    assert await queue.remove([(landing.id, landing.rev)]) == 1
    assert await queue.get(AC, f.sid) is None


async def test_page_is_newest_first_and_filters(queue):
    flights = [flight(record=b'{"to":"+%d","sent_ms":%d}' % (i % 2, i)) for i in range(1, 7)]
    for f in flights:
        await queue.accept(f)
    keys = sorted((f.sid[2:] for f in flights), reverse=True)

    async def page(before="", after="", limit=10, **filters):
        found = await queue.page(AC, "message", before=before, after=after, limit=limit, filters=filters)
        return [f.sid[2:] for f, _ in found]

    assert await page() == keys
    assert await page(before=keys[1], limit=2) == keys[2:4]
    assert await page(after=keys[3], limit=2) == keys[1:3]
    assert len(await page(to="+1")) == 3
    assert len(await page(sent_ge_ms=3, sent_lt_ms=5)) == 2


async def test_orphan_receipts_are_taken_once(queue):
    await queue.park(Orphan(connector="c", carrier_id="7", at_ms=1, receipt=b"r"))
    assert await queue.parked() == [("c", "7")]
    (taken,) = await queue.orphans("c", ["6", "7"])
    assert taken.receipt == b"r"
    await queue.drop_orphans([taken])
    assert await queue.orphans("c", ["7"]) == []


async def test_many_carriers_ids_are_looked_for_in_one_read(open_queue):
    queue = await open_queue()
    flights = [flight() for _ in range(6)]
    for number, f in enumerate(flights):
        await queue.accept(f)
        await queue.advance(step(f, "sent", carrier_ids=[("c", f"7{number}'\"\u20ac"), ("d", str(number))]))
    ours = [("c", f"7{number}'\"\u20ac") for number in range(6)] + [("d", "3")]
    strangers = [("d", f"7{number}'\"\u20ac") for number in range(6)] + [("c", "3"), ("e", "3"), ("c", "")]
    assert sorted(await queue.known(strangers + ours)) == ours
    assert await queue.known([]) == []
    await queue.close()
    queue = await open_queue()  # it remembers none of them now
    assert sorted(await queue.known(strangers + ours)) == ours
    assert sorted(await queue.known(strangers)) == []
    await queue.close()


async def test_parts_are_kept_once_and_consumed_with_the_message(queue):
    for number in (2, 1, 1):
        await queue.keep_part(Part(connector="c", key="k", number=number, at_ms=1, body=b"%d" % number))
    assert [p.number for p in await queue.parts("c", "k")] == [1, 2]
    assert await queue.stale_parts(2, 10) == [("c", "k")]
    assert await queue.accept_inbound(flight(), [], "c", ["k"])
    assert await queue.parts("c", "k") == []


@pytest.mark.parametrize("known", [False, True])
async def test_a_part_is_kept_in_place_of_those_that_the_message_was_made_of(queue, known):
    first, last, marker = (Part(connector="c", key="k", number=n, at_ms=1, body=b"%d" % n) for n in (1, 2, 0))
    await queue.keep_part(first)
    if known:
        assert await queue.accept_inbound(flight(), [], "c", [], "in:7")
    assert await queue.accept_inbound(flight(), [], "c", ["k"], "in:7", marker) is not known
    assert await queue.parts("c", "k") == [marker]
    await queue.keep_part(last)
    assert [p.number for p in await queue.parts("c", "k")] == [0, 2]
    await queue.drop_parts([("c", "k")])
    assert await queue.parts("c", "k") == []


async def test_received_message_is_inserted_once(queue):
    f, other = flight(), flight()
    assert await queue.accept_inbound(f, [owed(f)], "c", [], "in:7")
    assert not await queue.accept_inbound(other, [owed(other)], "c", [], "in:7")
    assert not await queue.accept_inbound(flight(sid=f.sid), [], "c", [])
    assert await queue.accept_inbound(flight(), [], "d", [], "in:7")
    assert await queue.get(AC, other.sid) is None
    assert [host for host, _, _ in await queue.owed_hosts()] == ["http://h"]
    assert len(await queue.owed("http://h", 0, 10, 10)) == 1
    assert queue.find_carrier_id("c", "in:7") == (f.id, AC, f.sid)


async def test_parts_are_dropped_by_key(queue):
    for key in ("k", "l"):
        await queue.keep_part(Part(connector="c", key=key, number=1, at_ms=1, body=b"x"))
    await queue.drop_parts([("c", "k")])
    assert await queue.stale_parts(2, 10) == [("c", "l")]


def replay(**changes):
    values = {"account": AC, "method": "POST", "path": "/p", "key": "k", "fingerprint": b"f", "expires_ms": 100}
    return Replay(**(values | changes))


async def test_idempotency_key_is_claimed_once_and_replayed(queue):
    row = replay()
    assert await queue.claim_replay(row, 1) is None
    assert (await queue.claim_replay(replay(), 1)).state == "running"
    row.status, row.body = 201, b"{}"
    await queue.accept(flight(sid=new_sid("SM", shard=home(AC, row.key))), (), row)
    held = await queue.claim_replay(replay(fingerprint=b"other"), 1)
    assert (held.state, held.status, held.body, held.fingerprint) == ("done", 201, b"{}", b"f")


async def test_expired_claim_is_taken_over_and_fences_the_former_holder(queue):
    former, heir = replay(), replay(expires_ms=300)
    assert await queue.claim_replay(former, 1) is None
    assert await queue.claim_replay(heir, 200) is None
    assert heir.epoch == former.epoch + 1
    former.body = b"stale"
    await queue.complete_replay(former)
    assert (await queue.claim_replay(replay(), 201)).state == "running"


async def test_released_key_is_free_again(queue):
    row = replay()
    await queue.claim_replay(row, 1)
    await queue.release_replay(row)
    assert await queue.claim_replay(replay(), 1) is None


async def test_one_failing_write_does_not_fail_its_batch(queue):
    f = flight()
    results = await asyncio.gather(
        queue.accept(f),
        queue.accept(Flight(**{k: getattr(f, k) for k in f.__struct_fields__})),
        queue.accept(flight()),
        return_exceptions=True,
    )
    assert [type(r).__name__ for r in results] == ["NoneType", "Exists", "NoneType"]


async def test_writes_that_may_wait_keep_their_order_and_are_not_lost_at_the_end(open_queue):
    queue = await open_queue()
    f = flight()
    accepted = queue.accept(f)
    steps = [queue.advance(step(f, status, rev=rev)) for rev, status in enumerate(("sending", "sent", "delivered"))]
    await queue.close()
    assert await accepted is None
    assert [await one for one in steps] == [True, True, True]
    again = await open_queue()
    assert again.by_id(f.id).status == "delivered"
    await again.close()


async def test_records_and_foreign_names_may_hold_nul(queue):
    f = flight(record=b'{"to":"+7","text":"a\\u0000b \\\\u0000","sent_ms":5}')
    await queue.accept(f)
    await queue.advance(step(f, "sent", carrier_ids=[("c", "7\0")]))
    assert queue.find_carrier_id("c", "7\0") == (f.id, AC, f.sid)
    found = await queue.page(AC, "message", before="", after="", limit=9, filters={"to": "+7", "sent_ge_ms": 5})
    assert [one.sid for one, _ in found] == [f.sid]


async def test_a_write_that_cannot_be_stored_fails_alone(queue):
    good, bad = flight(), flight(status="\ud800")
    results = await asyncio.gather(queue.accept(good), queue.accept(bad), return_exceptions=True)
    assert results[0] is None
    assert isinstance(results[1], UnicodeError)
    assert await queue.get(AC, bad.sid) is None


async def test_a_refused_step_owes_nothing(queue):
    f = flight()
    await queue.accept(f)
    stale = step(f, "sent", rev=7, owed=[owed(f)], carrier_ids=[("c", "8")])
    assert await asyncio.gather(queue.advance(step(f, "sending")), queue.advance(stale)) == [True, False]
    assert await queue.owed_hosts() == []
    assert queue.find_carrier_id("c", "8") is None


async def test_many_writes_in_one_batch_keep_their_outcomes_apart(queue):
    flights = [flight() for _ in range(300)]
    await asyncio.gather(*(queue.accept(f) for f in flights))
    lost = await asyncio.gather(*(queue.claim([(f.id, index % 2)]) for index, f in enumerate(flights)))
    assert lost == [[f.id] if index % 2 else [] for index, f in enumerate(flights)]
    assert await queue.remove([(f.id, 1) for f in flights]) == 150
