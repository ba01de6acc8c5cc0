"""Delivery of owed callbacks: order, lanes, policy, record, restart, and nothing lost or doubled."""

import asyncio
import itertools
import random
import time

import orjson
import pytest

from trunkline.settings import Webhooks
from trunkline.storage.engines.sqlite.writer import WriterFull
from trunkline.storage.queue import Owed
from trunkline.webhooks import delivery as module
from trunkline.webhooks.delivery import Result, append_attempts

from .rig import AC, BAD, GONE, OK, Clock, eventually


async def test_delivered_callback_is_recorded(rig_of):
    rig = await rig_of()
    flight, _ = await rig.owe()
    await rig.all_ended(1)
    _, (owed,) = await rig.queue.get(AC, flight.sid)
    assert (owed.state, owed.tries, owed.attempts) == ("delivered", 1, b'[{"status":200}]')


async def test_callbacks_of_a_message_go_in_order(rig_of):
    rig = await rig_of()
    rig.script.answer = lambda owed: None
    _, owed = await rig.owe(3)
    await eventually(lambda: rig.script.open)
    assert [seq for _, seq in rig.script.begun] == [0]
    rig.script.finish(owed[0].id, OK)
    assert [seq for _, seq in rig.script.begun] == [0, 1]
    rig.script.finish(owed[1].id, OK)
    rig.script.finish(owed[2].id, OK)
    await rig.all_ended(3)


async def test_callback_waits_only_for_the_first_attempt_of_its_predecessor(rig_of):
    rig = await rig_of(Webhooks(retry_first_s=60))
    rig.script.answer = lambda owed: BAD if owed.seq == 0 else OK
    flight, _ = await rig.owe(2)
    await eventually(lambda: len(rig.finished) == 1)
    assert await rig.states(flight) == ["owed", "delivered"]


async def test_messages_do_not_wait_for_each_other(rig_of):
    rig = await rig_of()
    rig.script.answer = lambda owed: None
    for _ in range(10):
        await rig.owe()
    await eventually(lambda: len(rig.script.open) == 10)
    for owed_id in list(rig.script.open):
        rig.script.finish(owed_id, OK)
    await rig.all_ended(10)


async def test_failed_callback_is_made_again_until_its_bound(rig_of):
    rig = await rig_of()
    rig.script.answer = lambda owed: BAD
    flight, (owed,) = await rig.owe()
    await rig.all_ended(1)
    _, (stored,) = await rig.queue.get(AC, flight.sid)
    assert (stored.state, stored.tries) == ("exhausted", 4)
    assert len(orjson.loads(stored.attempts)) == 4
    assert rig.script.given_up == [(owed.id, 15003)]


async def test_failure_that_is_not_to_be_repeated_ends_it(rig_of):
    rig = await rig_of()
    rig.script.answer = lambda owed: GONE
    flight, _ = await rig.owe()
    await rig.all_ended(1)
    assert await rig.states(flight) == ["exhausted"]
    assert len(rig.script.begun) == 1


async def test_own_bound_of_the_request_wins(rig_of):
    rig = await rig_of()
    rig.script.answer = lambda owed: Result([b"{}"], False, retry=True, max_tries=2)
    await rig.owe()
    await rig.all_ended(1)
    assert len(rig.script.begun) == 2


async def test_old_callback_is_given_up(rig_of):
    rig = await rig_of(Webhooks(retry_first_s=0.01, retry_longest_s=0.01, give_up_s=0.05, status_tries=10_000))
    rig.script.answer = lambda owed: BAD
    flight, _ = await rig.owe()
    await rig.all_ended(1)
    assert await rig.states(flight) == ["exhausted"]


async def test_waits_grow_and_scatter(rig_of):
    rig = await rig_of(Webhooks(retry_first_s=0.04, retry_longest_s=0.08, status_tries=4))
    times = []

    def answer(owed):
        times.append(time.monotonic())
        return BAD

    rig.script.answer = answer
    await rig.owe()
    await rig.all_ended(1)
    first, second, third = (later - earlier for earlier, later in itertools.pairwise(times))
    assert first >= 0.028
    assert second >= 0.058
    assert third >= 0.058


async def test_unknown_kind_ends_without_an_attempt(rig_of):
    rig = await rig_of()
    owed = Owed(sid="SM1", account=AC, kind="nonsense", host="http://h", request=b"{}")
    await rig.queue.owe([owed])
    rig.delivery.push([owed])
    await rig.all_ended(1)
    assert owed.state == "exhausted"


async def test_a_handler_that_fails_keeps_no_place(rig_of):
    rig = await rig_of(Webhooks(retry_first_s=0.01, retry_longest_s=0.02, status_tries=2, per_host=1))

    def fail(owed):
        raise RuntimeError("a defect")

    rig.script.answer = fail
    flight, _ = await rig.owe()
    await rig.all_ended(1)
    assert await rig.states(flight) == ["exhausted"]
    rig.script.answer = lambda owed: OK
    other, _ = await rig.owe()
    await rig.all_ended(2)
    assert await rig.states(other) == ["delivered"]


async def test_slow_host_holds_up_nobody(rig_of):
    rig = await rig_of(Webhooks(per_host=2))
    rig.script.answer = lambda owed: None if owed.host == "http://slow" else OK
    for _ in range(10):
        await rig.owe(host="http://slow")
    for _ in range(20):
        await rig.owe(host="http://fast")
    await eventually(lambda: len(rig.finished) == 20)
    assert len(rig.script.open) == 2
    rig.script.answer = lambda owed: OK
    for owed_id in list(rig.script.open):
        rig.script.finish(owed_id, OK)
    await rig.all_ended(30)


async def test_all_requests_together_are_bounded(rig_of):
    rig = await rig_of(Webhooks(in_flight=5, per_host=3))
    for n in range(60):
        await rig.owe(host=f"http://h{n % 4}")
    await rig.all_ended(60)
    assert rig.script.most_open <= 5


async def test_more_than_memory_holds_all_go_in_order(rig_of, monkeypatch):
    monkeypatch.setattr(module, "HEAD", 8)
    monkeypatch.setattr(module, "PAGE", 4)
    rig = await rig_of(Webhooks(per_host=2))
    gate = asyncio.Event()
    rig.script.answer = lambda owed: OK if gate.is_set() else None
    for _ in range(50):
        await rig.owe(2)
    assert len(rig.delivery._hosts["http://h"].held) <= 8 + 1
    gate.set()
    for owed_id in list(rig.script.open):
        rig.script.finish(owed_id, OK)
    await rig.all_ended(100)
    by_message = {}
    for sid, seq in rig.script.begun:
        by_message.setdefault(sid, []).append(seq)
    assert all(seqs == [0, 1] for seqs in by_message.values())


async def test_outcome_that_could_not_be_recorded_is_made_again(rig_of, monkeypatch):
    monkeypatch.setattr(module, "LOAD_RETRY_S", 0.01)
    rig = await rig_of()
    real, failures = rig.queue.settle, [WriterFull("full")]

    def settle(owed):
        if not failures:
            return real(owed)
        failed = asyncio.get_running_loop().create_future()
        failed.set_exception(failures.pop())
        return failed

    monkeypatch.setattr(rig.queue, "settle", settle)
    flight, _ = await rig.owe()
    await eventually(lambda: len(rig.script.begun) == 2)
    await rig.all_ended(1)
    _, (stored,) = await rig.queue.get(AC, flight.sid)
    assert (stored.state, stored.tries) == ("delivered", 1)


async def test_queue_that_could_not_be_read_is_read_again(rig_of, monkeypatch):
    monkeypatch.setattr(module, "LOAD_RETRY_S", 0.01)
    rig = await rig_of()
    await rig.owe(push=False)
    await rig.restart()
    real, failures = rig.queue.owed, [OSError("once"), OSError("twice")]

    async def owed(*args):
        if failures:
            raise failures.pop()
        return await real(*args)

    monkeypatch.setattr(rig.queue, "owed", owed)
    await rig.all_ended(1)


# -- closed lanes ------------------------------------------------------------------------------------------------


async def test_closed_lane_waits_without_burning_attempts(rig_of):
    rig = await rig_of()
    rig.delivery.set_lane("smpp:x", closed=True)
    flight, _ = await rig.owe(3, host="smpp:x")
    await rig.owe()
    await eventually(lambda: len(rig.finished) == 1)
    assert await rig.states(flight) == ["owed"] * 3
    rig.delivery.set_lane("smpp:x", closed=False)
    await rig.all_ended(4)
    assert len(rig.script.begun) == 4


# -- restart -----------------------------------------------------------------------------------------------------


async def test_restart_makes_what_was_under_way_again(rig_of):
    rig = await rig_of()
    rig.script.answer = lambda owed: None
    flight, _ = await rig.owe(2)
    await eventually(lambda: rig.script.open)
    await rig.restart()
    await rig.all_ended(2)
    _, owed = await rig.queue.get(AC, flight.sid)
    assert [(item.state, item.tries) for item in owed] == [("delivered", 1)] * 2


async def test_restart_waits_for_every_retry_that_is_not_due_yet(rig_of):
    rig = await rig_of()
    now = Clock().now_ms()
    for wait_ms in (50, 400, 250, 120):
        await rig.owe(push=False, due_ms=now + wait_ms)
    began = time.monotonic()
    await rig.restart()
    await rig.all_ended(4)
    assert time.monotonic() - began >= 0.3


async def test_stop_waits_for_attempts_under_way_and_begins_none(rig_of):
    rig = await rig_of(Webhooks(per_host=1))
    rig.script.answer = lambda owed: None
    flight, owed = await rig.owe()
    other, _ = await rig.owe()
    await eventually(lambda: rig.script.open)
    stopping = asyncio.create_task(rig.delivery.stop(5))
    await asyncio.sleep(0)
    rig.script.finish(owed[0].id, OK)
    await stopping
    assert await rig.states(flight) == ["delivered"]
    assert await rig.states(other) == ["owed"]


async def test_random_load_with_restarts_loses_nothing(rig_of, monkeypatch):
    monkeypatch.setattr(module, "HEAD", 16)
    monkeypatch.setattr(module, "PAGE", 8)
    rig = await rig_of(Webhooks(retry_first_s=0.01, retry_longest_s=0.03, status_tries=1000, per_host=4))
    draw = random.Random(5)
    flights = []
    for round_ in range(4):
        rig.script.answer = lambda owed: draw.choice([OK, OK, BAD])
        for _ in range(40):
            flights.append((await rig.owe(draw.randint(1, 3), host=f"http://h{draw.randint(0, 2)}"))[0])
        if round_ < 3:
            await rig.restart()
    deadline = time.monotonic() + 10
    while await rig.queue.owed_hosts():
        assert time.monotonic() < deadline, "callbacks were lost"
        await asyncio.sleep(0.01)
    for flight in flights:
        assert set(await rig.states(flight)) == {"delivered"}


# -- record ------------------------------------------------------------------------------------------------------


def test_attempts_are_kept_up_to_a_bound():
    kept = b"[]"
    for n in range(5):
        kept = append_attempts(kept, [b"%d" % n], 3)
    assert kept == b"[2,3,4]"
    assert append_attempts(b"[]", [b"1", b"2", b"3", b"4"], 3) == b"[2,3,4]"
    assert append_attempts(b"[1]", [], 3) == b"[1]"


async def test_many_retries_of_a_host_share_their_timers(rig_of):
    rig = await rig_of(Webhooks(retry_first_s=100, retry_longest_s=100))
    rig.script.answer = lambda owed: BAD
    for _ in range(300):
        await rig.owe()
    await eventually(lambda: rig.delivery.failed == 300 and not rig.delivery._active)
    (host,) = rig.delivery._hosts.values()
    assert 0 < len(host.wakes) <= 60


async def test_a_queue_of_several_parts_may_commit_a_lower_id_later(rig_of):
    """Of two parts of a queue, each counts up its own ids: one that was read is not the end of what comes before it."""
    rig = await rig_of()
    now = time.time_ns() // 1000
    ids = iter([now, now + 10_000, now + 20_000, now + 5_000])
    rig.queue._next_id = lambda: next(ids)
    rig.delivery._ordered = False
    await rig.owe()
    await rig.all_ended(1)
    low, (owed,) = await rig.owe(push=False)
    host = rig.delivery._hosts["http://h"]
    assert owed.id < host.after, "it was committed after one with a higher id"
    host.stored = True
    rig.delivery._pump(host)
    await rig.all_ended(2)
    assert await rig.states(low) == ["delivered"]


async def test_a_partition_that_leaves_is_delivered_by_its_next_owner(rig_of):
    """What is under way ends here, what waits is let go, other partitions go on."""
    rig = await rig_of(Webhooks(per_host=1))
    ids = itertools.count(2_000_000_000_000_000_000, 0x100)
    rig.script.answer = lambda owed: None
    flights = []
    for partition in (1, 1, 2):
        rig.queue._next_id = lambda partition=partition: next(ids) | partition
        flights.append((await rig.owe())[0])
    under_way, waits, other = flights
    await eventually(lambda: rig.delivery.busy(1))
    rig.delivery.leave(1)
    assert rig.delivery.busy(1), "an attempt is under way"
    rig.script.answer = lambda owed: OK
    rig.script.finish(next(iter(rig.script.open)), OK)
    await rig.all_ended_but(1)
    assert not rig.delivery.busy(1)
    assert [sid for sid, _ in rig.script.begun] == [under_way.sid, other.sid]
    assert [await rig.states(flight) for flight in flights] == [["delivered"], ["owed"], ["delivered"]]
    rig.delivery.enter(1)
    await rig.delivery.recover()
    await rig.all_ended(3)
    assert await rig.states(waits) == ["delivered"]


async def test_what_a_read_of_the_queue_saw_before_its_commit_was_told_is_made_once(rig_of):
    rig = await rig_of()
    rig.script.answer = lambda owed: None
    _, owed = await rig.owe(push=False)
    await rig.delivery.recover()
    await eventually(lambda: rig.script.begun)
    rig.delivery.push(owed)
    rig.script.finish(owed[0].id, OK)
    await rig.all_ended(1)
    assert len(rig.script.begun) == 1


async def test_what_a_clock_that_was_ahead_has_put_off_is_due_at_the_next_owner(rig_of):
    rig = await rig_of(Webhooks(retry_longest_s=60))
    now = Clock().now_ms()
    due_s = {"http://soon": 100, "http://ahead": 3600, "http://both": 3700}
    flights = [(await rig.owe(push=False, due_ms=now + 1000 * wait, host=host))[0] for host, wait in due_s.items()]
    await rig.owe(host="http://both")
    await rig.all_ended_but(3)
    await rig.restart()
    await rig.all_ended_but(1)
    assert [await rig.states(flight) for flight in flights] == [["owed"], ["delivered"], ["delivered"]]


@pytest.mark.parametrize("behind", ["another message", "the same message", "a closed lane"])
async def test_what_the_next_owner_has_delivered_is_not_sent_again_when_the_partition_is_back(rig_of, behind):
    """What waits in memory is let go at once: when its turn comes, the partition may have been away and be back."""
    rig = await rig_of(Webhooks(per_host=1))
    ids = itertools.count(2_000_000_000_000_000_000, 0x100)
    rig.queue._next_id = lambda: next(ids) | 1
    rig.script.answer = lambda owed: None
    if behind == "the same message":
        _, (first, waits) = await rig.owe(2)
    else:
        _, (first,) = await rig.owe()
        _, (waits,) = await rig.owe()
    await eventually(lambda: rig.delivery.busy(1))
    if behind == "a closed lane":
        rig.delivery.set_lane("http://h", closed=True)
    rig.delivery.leave(1)
    waits.state = "delivered"
    await rig.queue.settle(waits)
    rig.delivery.enter(1)
    await rig.delivery.recover()
    rig.script.answer = lambda owed: OK
    rig.script.finish(first.id, OK)
    rig.delivery.set_lane("http://h", closed=False)
    await eventually(lambda: not rig.delivery.busy(1))
    _, (last,) = await rig.owe()
    await eventually(lambda: (last.sid, 0) in rig.script.begun)
    assert rig.script.begun == [(first.sid, first.seq), (last.sid, 0)]
