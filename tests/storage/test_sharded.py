"""What one node makes of many partitions: where things go, how lists are merged, what one that is away takes along."""

import asyncio

import pytest

from tests.storage import partitions as files
from tests.storage.partitions import owning_all, sharded_sqlite
from trunkline.model.sid import new_sid, shard_of
from trunkline.storage import partitions as storage_partitions
from trunkline.storage.partitions import home
from trunkline.storage.queue import Advance, Flight, Orphan, Owed, Part, Replay
from trunkline.storage.unavailable import NotOwned, StoreUnavailable

AC = "AC" + "a" * 32
K = 4


@pytest.fixture
async def nodes(tmp_path):
    opened = [sharded_sqlite(tmp_path, K, name) for name in "ab"]
    yield opened
    for node in opened:
        await node.close()


@pytest.fixture
async def node(nodes):
    return await owning_all(nodes[0])


def flight(shard, **changes):
    sid = new_sid("SM", shard=shard)
    return Flight(**({"sid": sid, "account": AC, "status": "queued", "lane": "l", "record": b"{}"} | changes))


def owed(sid, **changes):
    return Owed(**({"sid": sid, "account": AC, "kind": "status", "host": "h", "request": b"{}"} | changes))


async def filled(node, each=3):
    """Flights in every partition, in the order of their making."""
    flights = [flight(shard, due_ms=100 - shard) for _ in range(each) for shard in range(K)]
    for one in flights:
        await node.accept(one, [owed(one.sid)])
    return flights


# -- where things go ---------------------------------------------------------------------------------------------


async def test_new_work_keeps_to_one_partition_and_uses_all_its_shards(nodes):
    a, b = nodes
    assert a.shard_for_new() == 0
    for partition in (1, 2):
        await a.own(partition)
    shards = {a.shard_for_new() for _ in range(256)}
    (partition,) = {shard % K for shard in shards}
    assert partition in a.owned
    assert shards == set(range(partition, 256, K))
    await a.release(partition)
    assert {a.shard_for_new() % K for _ in range(9)} == a.owned
    await b.own(0)
    assert b.shard_for_new() % K == 0


async def test_new_work_leaves_a_database_that_is_down_at_once(node):
    before = node.shard_for_new() % K
    parts = node._parts
    parts.down[parts.database_of(before)] = True
    after = node.shard_for_new() % K
    assert parts.database_of(after) != parts.database_of(before)
    assert list(node.healthy) == [parts.name_of(parts.database_of(before))]
    assert node.writer.failed is None
    parts.down = dict.fromkeys(range(2), True)
    assert node.shard_for_new() % K in node.owned
    assert node.writer.failed is not None
    parts.down = {}
    assert node.writer.failed is None
    assert node.healthy == {}


async def test_a_key_and_its_message_are_one_commit_or_refused(node):
    row = Replay(account=AC, method="POST", path="/p", key="k", fingerprint=b"f", expires_ms=100)
    shard = home(AC, "k")
    assert shard == home(AC, "k")
    assert await node.claim_replay(row, 1) is None
    row.status = 201
    with pytest.raises(ValueError, match="home"):
        await node.accept(flight(shard + 1), (), row)
    await node.accept(flight(shard), (), row)
    assert (await node.claim_replay(row, 1)).status == 201


async def test_keys_are_judged_by_their_homes_owner_alone(nodes):
    a, b = nodes
    row = Replay(account=AC, method="POST", path="/p", key="k", fingerprint=b"f", expires_ms=100)
    await a.own(home(AC, "k") % K)
    with pytest.raises(NotOwned):
        await b.claim_replay(row, 1)
    with pytest.raises(NotOwned):
        await b.complete_replay(row)
    assert await a.claim_replay(row, 1) is None


async def test_a_callback_goes_with_its_flight_or_stays_here(nodes):
    a, _ = nodes
    await a.own(1)
    await a.accept(one := flight(1))
    late, foreign, stray = owed(one.sid, flight=one.id), owed(new_sid("SM", shard=2)), owed(one.sid, flight=4 << 8 | 2)
    await a.owe([late, foreign])
    assert [item.id & 255 for item in (late, foreign)] == [1, 1]
    with pytest.raises(NotOwned):
        await a.owe([stray])
    foreign.state = "delivered"
    await a.settle(foreign)
    await a.forget(foreign.id)
    assert [item.id for item in await a.owed("h", 0, 9, 9)] == [late.id]


# -- merged lists ------------------------------------------------------------------------------------------------


async def test_pages_run_through_all_partitions_newest_first_whoever_owns_them(nodes):
    a, b = nodes
    for partition in range(K):
        await (a if partition < 2 else b).own(partition)
    flights = []
    for shard in [0, 1, 2, 3] * 4:
        one = flight(shard)
        await (a if shard < 2 else b).accept(one)
        flights.append(one)
    keys = sorted((one.sid[2:] for one in flights), reverse=True)

    async def page(**bounds):
        values = {"before": "", "after": "", "limit": 5, "filters": {}} | bounds
        return [one.sid[2:] for one, _ in await b.page(AC, "message", **values)]

    assert await page() == keys[:5]
    assert await page(before=keys[4]) == keys[5:10]
    assert await page(after=keys[10]) == keys[5:10]
    assert await page(after=keys[10], before=keys[6], limit=9) == keys[7:10]
    created = flights[0].id // 1_000_000
    assert len(await page(limit=99, filters={"created_ge_ms": created})) == 16
    assert await page(filters={"created_lt_ms": created}) == []
    assert (await b.get(AC, flights[0].sid))[0] == flights[0]
    assert b.by_id(flights[0].id) == flights[0]


async def test_a_lane_is_one_in_due_order_over_all_partitions(node):
    flights = await filled(node)
    wanted = sorted(flights, key=lambda one: (one.due_ms, one.id))
    seen, after = [], (0, 0)
    while page := await node.waiting("l", after, 5):
        seen += page
        after = (page[-1].due_ms, page[-1].id)
    assert seen == wanted
    assert await node.lanes() == [("l", 12, 97)]
    assert await node.owed_hosts() == [("h", 12, 0)]
    found = await node.owed("h", 0, 5, 9)
    assert [one.id for one in found] == sorted(one.id for one in found)
    assert len(await node.owed("h", found[-1].id, 50, 9)) == 7


async def test_claims_and_removals_over_several_partitions_are_told_together(node):
    flights = await filled(node)
    assert await node.claim([(one.id, 0) for one in flights[:6]]) == []
    assert set(await node.claim([(one.id, 0) for one in flights])) == {one.id for one in flights[:6]}
    assert [one.id for one in await node.in_state("message", "sending", 0, 5)] == [one.id for one in flights[:5]]
    assert await node.remove([(one.id, 1) for one in flights[:5]] + [(flights[5].id, 7)]) == 5


async def test_what_belongs_to_no_flight_is_found_in_all_that_is_ours(node):
    places = iter([0, 1, 2, 3] * 3)
    node._here = lambda: next(places)
    for number in range(4):
        await node.park(Orphan(connector="c", carrier_id="7", at_ms=number, receipt=b"%d" % number))
        await node.keep_part(Part(connector="c", key="k", number=number, at_ms=1, body=b"x"))
    assert await node.parked() == [("c", "7")] * 4
    found = await node.orphans("c", ["7"])
    assert [one.receipt for one in found] == [b"0", b"1", b"2", b"3"]
    await node.drop_orphans(found[:3])
    assert [one.receipt for one in await node.orphans("c", ["7"])] == [b"3"]
    assert [part.number for part in await node.parts("c", "k")] == [0, 1, 2, 3]
    assert await node.stale_parts(2, 9) == [("c", "k")]
    marker = Part(connector="c", key="k", number=9, at_ms=1, body=b"x")
    assert await node.accept_inbound(flight(2), [], "c", ["k"], "", marker)
    assert await node.parts("c", "k") == [marker]
    assert await node.accept_inbound(flight(3), [], "c", ["k"])
    assert await node.parts("c", "k") == []


async def test_a_received_message_is_taken_once_whichever_node_hears_it(nodes):
    a, b = nodes
    await a.own(0)
    await b.own(1)
    assert await a.accept_inbound(flight(0), [], "c", [], "in:1")
    await b.keep_part(Part(connector="c", key="k", number=1, at_ms=1, body=b"x"))
    assert not await b.accept_inbound(flight(1), [], "c", ["k"], "in:1")
    assert await b.parts("c", "k") == []
    assert await b.lanes() == []


# -- a database that is away -------------------------------------------------------------------------------------


async def test_work_goes_on_with_the_partitions_that_answer_and_the_others_are_told_of_later(node, monkeypatch):
    monkeypatch.setattr(storage_partitions, "LOOK_S", 0.01)
    flights = await filled(node)
    regained = asyncio.Queue()
    node.regained = regained.put_nowait
    node._parts.down[1] = True
    assert await node.lanes() == [("l", 6, 98)]
    assert {one.id & 255 for one in await node.waiting("l", (0, 0), 99)} == {0, 2}
    for partition in (1, 3):
        monkeypatch.setattr(node._owned[partition], "in_state", _unavailable)
    with pytest.raises(StoreUnavailable):
        await node.in_state("message", "queued", 0, 9)
    assert regained.empty()
    node._parts.down = {}
    assert {await regained.get(), await regained.get()} == {1, 3}
    assert await node.lanes() == [("l", len(flights), 97)]
    assert regained.empty()


async def _unavailable(*_):
    raise StoreUnavailable("away")


async def test_a_claim_that_one_partition_cannot_take_is_not_ours_there(node, monkeypatch):
    monkeypatch.setattr(storage_partitions, "LOOK_S", 0.01)
    regained = asyncio.get_running_loop().create_future()
    node.regained = regained.set_result
    flights = [flight(0), flight(1)]
    for one in flights:
        await node.accept(one)
    with monkeypatch.context() as patched:
        patched.setattr(node._owned[1], "claim", _unavailable)
        assert await node.claim([(one.id, 0) for one in flights]) == [flights[1].id]
    assert await regained == 1
    assert [one.id for one in await node.partition(1).waiting("l", (0, 0), 9)] == [flights[1].id]
    monkeypatch.setattr(node._owned[0], "claim", _unavailable)
    with pytest.raises(StoreUnavailable):
        await node.claim([(flights[0].id, 1)])


async def test_what_is_asked_of_none_that_answers_fails(node, monkeypatch):
    for engine in node._owned.values():
        monkeypatch.setattr(engine, "lanes", _unavailable)
    with pytest.raises(StoreUnavailable):
        await node.lanes()


# -- ownership ---------------------------------------------------------------------------------------------------


async def test_taking_and_losing(nodes):
    a, b = nodes
    lost = []
    a.lost = lost.append
    await a.own(2)
    await a.own(2)
    assert a.epoch_of(2) == 1
    handed = a.accept(one := flight(2))
    await b.own(2)
    await handed
    assert (a.owned, b.owned, lost) == (frozenset(), {2}, [2])
    with pytest.raises(NotOwned):
        await a.advance(Advance(id=one.id, sid=one.sid, account=AC, rev=0, status="sent"))
    with pytest.raises(NotOwned):
        a.epoch_of(2)
    assert await b.advance(Advance(id=one.id, sid=one.sid, account=AC, rev=0, status="sent"))
    assert a.by_id(one.id).status == "sent"
    assert (b.writer.writes, a.writer.writes) == (1, 1)


async def test_taking_that_is_given_up_midway_leaves_nothing_owned(nodes, monkeypatch):
    a, b = nodes
    begun, go_on = asyncio.Event(), asyncio.Event()
    own = files.SqlitePartitions.own

    async def slow(self, *given):
        begun.set()
        await go_on.wait()
        return await own(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(files.SqlitePartitions, "own", slow)
        taking = asyncio.create_task(a.own(0))
        await begun.wait()
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        go_on.set()
        await asyncio.gather(*a._tasks)
    assert a.owned == frozenset()
    assert files._HOLDERS.get(a._parts._path(0)) is None
    await b.own(0)
    await b.accept(flight(0))


async def test_sids_that_are_none_are_nowhere(node):
    assert await node.get(AC, "SMxx") is None
    assert await node.get(AC, "SM" + "z" * 32) is None
    assert node.by_id(200) is None
    assert shard_of(new_sid("SM", shard=9)) == 9


async def test_calls_and_messages_are_made_in_partitions_of_their_own(nodes):
    a, b = nodes
    for node in nodes:
        node.voice_partitions = 2
    for partition in range(K):
        await a.own(partition)
    assert {a.shard_for_new() % K for _ in range(9)} < set(range(K - 2))
    assert {a.shard_for_new(calls=True) % K for _ in range(9)} < {K - 2, K - 1}
    await a.release(K - 1)
    await b.own(K - 1)
    assert b.shard_for_new(calls=True) % K == K - 1
    with pytest.raises(NotOwned):
        await b.accept(flight(b.shard_for_new()))
    await b.park(Orphan(connector="c", carrier_id="1", at_ms=0, receipt=b""))
    assert await b.parked() == [("c", "1")], "what belongs to no flight lies where there is room"


async def test_a_key_whose_home_has_just_gone_is_refused_as_not_ours(nodes):
    """The SID was made in another partition for that very reason: the client is to try again, nothing is wrong."""
    a, _ = nodes
    away = home(AC, "key") % K
    for partition in set(range(K)) - {away}:
        await a.own(partition)
    row = Replay(account=AC, method="POST", path="/", key="key", fingerprint=b"", state="done", expires_ms=0)
    with pytest.raises(NotOwned):
        await a.accept(flight(a.shard_for_new()), replay=row)
