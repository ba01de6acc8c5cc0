"""From a lane to a carrier: order, intent before effect, windows, rates, fairness, recovery."""

import asyncio
import random

import pytest

from tests.storage.partitions import owning_all, sharded_sqlite
from trunkline.messaging.connectors.base import Receipt, Submitted, Unavailable
from trunkline.messaging.lanes import HEAD, lane_name
from trunkline.model.account import Account
from trunkline.model.message import Status
from trunkline.model.numbers import PhoneNumber
from trunkline.model.sid import new_sid, use_shards
from trunkline.settings import Messaging, Route, Settings
from trunkline.storage.engines.sqlite.database import SqliteDatabase
from trunkline.storage.engines.sqlite.writer import WriterFull
from trunkline.storage.queue import Exists
from trunkline.storage.secrets import Secrets

from .world import AC, OURS, THEM, Carrier, eventually

OTHER = "AC" + "b" * 32
FAST = 100_000.0


@pytest.fixture
async def fast(make_world):
    """A world whose number may send as fast as it can."""
    return await make_world(messages_per_second=FAST)


async def test_messages_of_a_lane_leave_in_order(fast):
    carrier = fast.carriers["carrier"]
    messages = [await fast.send(str(n)) for n in range(30)]
    await eventually(lambda: len(carrier.taken) == 30)
    assert [m.sid for m in carrier.taken] == [m.sid for m in messages]


async def test_intent_is_stored_before_the_submit(fast):
    seen = []

    def answer(submission):
        flight = fast.queue.by_id(fast.inflight.cached(submission.message.sid).id)
        seen.append((flight.status, flight.lane))
        return Submitted(["1"])

    fast.carriers["carrier"].answer = answer
    await fast.until(await fast.send(), "sent")
    assert seen == [("sending", "")]


async def test_window_is_kept(fast):
    carrier = fast.carriers["carrier"]
    carrier.window = 3
    carrier.answer = lambda submission: None
    for n in range(10):
        await fast.send(str(n))
    await eventually(lambda: len(carrier.taken) == 3)
    flights = await fast.queue.in_state("message", "sending", 0, 100)
    assert len(flights) == 3
    for body in range(10):
        await eventually(lambda: carrier.open)
        carrier.settle(next(iter(carrier.open)), Submitted([f"x{body}"]))
        assert len(carrier.open) <= 3
    await eventually(lambda: len(carrier.taken) == 10)
    assert [m.body for m in carrier.taken] == [str(n) for n in range(10)]


async def test_more_messages_than_memory_holds_leave_in_order(fast):
    carrier = fast.carriers["carrier"]
    carrier.down = True
    messages = [await fast.send(str(n)) for n in range(5 * HEAD)]
    lane = fast.dispatcher._lanes[lane_name("carrier", AC, OURS)]
    assert len(lane.head) <= HEAD
    carrier.down = False
    fast.dispatcher.wake("carrier")
    await eventually(lambda: len(carrier.taken) == len(messages))
    assert [m.sid for m in carrier.taken] == [m.sid for m in messages]


async def test_messages_come_while_a_backlog_is_read(fast):
    carrier = fast.carriers["carrier"]
    carrier.down = True
    messages = [await fast.send(str(n)) for n in range(HEAD + 10)]
    carrier.down = False
    fast.dispatcher.wake("carrier")
    for n in range(100):
        messages.append(await fast.send(f"more {n}"))
        if n % 7 == 0:
            await asyncio.sleep(random.random() / 500)
    await eventually(lambda: len(carrier.taken) == len(messages))
    assert {m.sid for m in carrier.taken} == {m.sid for m in messages}


async def test_rate_of_the_sender_is_kept(make_world):
    world = await make_world(messages_per_second=50.0)
    loop = asyncio.get_running_loop()
    times = []
    carrier = world.carriers["carrier"]

    def answer(submission):
        times.append(loop.time())
        return Submitted([str(len(times))])

    carrier.answer = answer
    for n in range(20):
        await world.send(str(n))
    await eventually(lambda: len(times) == 20)
    assert times[-1] - times[0] >= 0.30  # 19 at 50/s take 0.38 s, less the burst


async def test_segments_count_against_the_rate(make_world):
    world = await make_world(messages_per_second=20.0)
    loop = asyncio.get_running_loop()
    times = []
    world.carriers["carrier"].answer = lambda s: times.append(loop.time()) or Submitted(["a", "b", "c"])
    for _ in range(4):
        await world.send("x" * 400)
    await eventually(lambda: len(times) == 4)
    assert times[-1] - times[0] >= 0.35  # three messages of three segments at 20/s take 0.45 s, less the burst


async def test_slow_sender_delays_nobody(make_world):
    world = await make_world(messages_per_second=0.5)
    await world.give_number("+12025550102", messages_per_second=FAST)
    carrier = world.carriers["carrier"]
    for n in range(5):
        await world.send(f"slow {n}")
    quick = [await world.send(str(n), from_="+12025550102") for n in range(20)]
    for message in quick:
        await world.until(message, "sent")
    assert len([m for m in carrier.taken if m.from_ == OURS]) < 5


async def test_accounts_take_turns(make_world):
    world = await make_world(messages_per_second=FAST)
    await world.give_account(sid=OTHER, account_sid=OTHER)
    await world.give_number("+12025550102", OTHER, messages_per_second=FAST)
    carrier = world.carriers["carrier"]
    carrier.window, carrier.answer = 2, lambda submission: None
    for n in range(60):
        await world.send(str(n))
    late = [await world.send("late", from_="+12025550102", account_sid=OTHER) for _ in range(3)]
    for _ in range(12):
        await eventually(lambda: carrier.open)
        carrier.settle(next(iter(carrier.open)), Submitted([str(len(carrier.taken))]))
        await eventually(lambda: len(carrier.open) == 2)
    assert {m.sid for m in late} <= {m.sid for m in carrier.taken}


async def test_retry_comes_when_it_is_due_though_others_pass(make_world):
    world = await make_world(Settings(messaging=Messaging(retry_first_s=0.2)), messages_per_second=FAST)
    carrier = world.carriers["carrier"]
    failed = []

    def answer(submission):
        if submission.message.body == "again" and not failed:
            failed.append(submission)
            return Unavailable("busy")
        return Submitted([submission.message.sid])

    carrier.answer = answer
    message = await world.send("again")
    await eventually(lambda: failed)
    for n in range(20):  # each of these makes the lane look into the queue, where the retry is not due yet
        await world.send(str(n))
        await asyncio.sleep(0.005)
    stored = await world.until(message, "sent")
    assert [attempt.outcome for attempt in stored.tried] == ["unavailable", "submitted"]


class EarlyTimers:
    """A loop whose timers come before their time, as uvloop's do by up to half a millisecond."""

    def __init__(self, loop, early_s):
        self._loop = loop
        self._early_s = early_s

    def __getattr__(self, name):
        return getattr(self._loop, name)

    def call_at(self, when, callback, *arguments):
        return self._loop.call_at(when - self._early_s, callback, *arguments)


async def test_lane_at_rest_is_served_though_its_timer_comes_early(make_world):
    world = await make_world(messages_per_second=20.0)
    world.dispatcher._loop = EarlyTimers(asyncio.get_running_loop(), 0.004)
    messages = [await world.send(str(n)) for n in range(4)]
    for message in messages:
        await world.until(message, "sent")


async def test_many_retries_of_different_times_all_come(make_world):
    world = await make_world(
        Settings(messaging=Messaging(retry_first_s=0.02, max_attempts=10)), messages_per_second=FAST
    )
    draw = random.Random(3)

    def answer(submission):
        return Unavailable("busy") if draw.random() < 0.4 else Submitted([submission.message.sid])

    world.carriers["carrier"].answer = answer
    messages = [await world.send(str(n)) for n in range(100)]
    for message in messages:
        await world.until(message, "sent")


async def test_claim_that_could_not_be_stored_is_made_again(fast, monkeypatch):
    monkeypatch.setattr("trunkline.messaging.dispatch.LOAD_RETRY_S", 0.01)
    real, failures = fast.queue.claim, [WriterFull("full"), WriterFull("full")]

    def claim(flights):
        if not failures:
            return real(flights)
        failed = asyncio.get_running_loop().create_future()
        failed.set_exception(failures.pop())
        return failed

    monkeypatch.setattr(fast.queue, "claim", claim)
    message = await fast.send()
    await fast.until(message, "sent")
    assert len(fast.carriers["carrier"].taken) == 1


async def test_read_that_failed_is_made_again(fast, monkeypatch):
    monkeypatch.setattr("trunkline.messaging.dispatch.LOAD_RETRY_S", 0.01)
    fast.carriers["carrier"].down = True
    messages = [await fast.send(str(n)) for n in range(HEAD + 20)]
    real, failures = fast.queue.waiting, [OSError("once"), OSError("twice")]

    async def waiting(*args):
        if failures:
            raise failures.pop()
        return await real(*args)

    monkeypatch.setattr(fast.queue, "waiting", waiting)
    fast.carriers["carrier"].down = False
    fast.dispatcher.wake("carrier")
    for message in messages:
        await fast.until(message, "sent")


async def test_canceled_message_is_not_submitted(fast):
    carrier = fast.carriers["carrier"]
    carrier.down = True
    message = await fast.send()
    assert await fast.outbound.cancel(fast.inflight.cached(message.sid))
    carrier.down = False
    other = await fast.send("other")
    await fast.until(other, "sent")
    assert [m.sid for m in carrier.taken] == [other.sid]
    assert await fast.status(message) == "canceled"


async def test_restart_takes_up_what_waited_in_order(fast):
    carrier = fast.carriers["carrier"]
    carrier.down = True
    messages = [await fast.send(str(n)) for n in range(HEAD + 30)]
    await fast.restart()
    carrier.down = False
    fast.dispatcher.wake("carrier")
    await eventually(lambda: len(carrier.taken) == len(messages))
    assert [m.sid for m in carrier.taken] == [m.sid for m in messages]


async def test_restart_waits_for_what_is_not_due(make_world):
    world = await make_world(Settings(messaging=Messaging(retry_first_s=0.3)), messages_per_second=FAST)
    world.carriers["carrier"].answer = lambda submission: Unavailable("busy")
    message = await world.send()
    await eventually(lambda: world.carriers["carrier"].taken)
    await world.until(message, "queued")
    world.carriers["carrier"].answer = lambda submission: Submitted(["1"])
    await world.restart()
    await world.until(message, "sent")


async def test_messages_of_a_clock_that_was_ahead_do_not_wait_for_it(fast):
    """A node an hour ahead has accepted them; the next owner's clock is right."""
    carrier = fast.carriers["carrier"]
    carrier.down = True
    fast.clock.offset_ms += 3_600_000
    ahead = [await fast.send(str(n)) for n in range(3)]
    fast.clock.offset_ms -= 3_600_000
    right = await fast.send("right")
    await fast.restart()
    carrier.down = False
    fast.dispatcher.wake("carrier")
    await eventually(lambda: len(carrier.taken) == 4)
    assert [m.sid for m in carrier.taken] == [right.sid, *(one.sid for one in ahead)]


async def test_idle_lanes_are_forgotten(fast, monkeypatch):
    monkeypatch.setattr("trunkline.messaging.dispatch.MAX_LANES", 20)
    for n in range(60):
        sender = f"SENDER{n}"
        await fast.until(await fast.send(from_=sender), "sent")
    assert len(fast.dispatcher._lanes) <= 20


async def test_random_load_over_two_carriers_loses_and_doubles_nothing(make_world):
    world = await make_world(
        Settings(
            messaging=Messaging(retry_first_s=0.01, retry_longest_s=0.05, max_attempts=1000),
            routes=(Route(name="a", connector="one", weight=2), Route(name="b", connector="two")),
        ),
        {"one": Carrier("one", 7), "two": Carrier("two", 5)},
        messages_per_second=FAST,
    )
    await world.give_number("+12025550102", messages_per_second=300.0)
    draw = random.Random(11)
    accepted = {}

    def answer(submission):
        if draw.random() < 0.3:
            return Unavailable("busy", burns_attempt=draw.random() < 0.5, retry_after_s=draw.random() / 50)
        accepted[submission.message.sid] = accepted.get(submission.message.sid, 0) + 1
        return Submitted([f"{submission.message.sid}"])

    for carrier in world.carriers.values():
        carrier.answer = answer
    messages = []
    for n in range(300):
        messages.append(await world.send(str(n), from_=draw.choice([OURS, "+12025550102"]), to=THEM))
    for message in messages:
        await world.until(message, Status.SENT)
    assert accepted == {message.sid: 1 for message in messages}
    assert world.outbound.waiting == {}


# -- skipping the line ---------------------------------------------------------------------------------------------


async def test_first_message_of_an_idle_lane_is_accepted_with_its_intent(world):
    carrier = world.carriers["carrier"]
    carrier.answer = lambda submission: None
    message = await world.send()
    await eventually(lambda: [m.sid for m in carrier.taken] == [message.sid])
    assert await world.status(message) == "sending"
    await world.restart()

    async def is_doubtful():
        return (await world.reader.get(AC, message.sid)).in_doubt

    await eventually(is_doubtful)


async def test_nobody_skips_a_line(world):
    carrier = world.carriers["carrier"]
    carrier.down = True
    first = await world.send("first")
    carrier.down = False
    second = await world.send("second")
    assert await world.status(second) == "queued"
    world.dispatcher.wake("carrier")
    await eventually(lambda: carrier.taken)
    assert carrier.taken[0].sid == first.sid


async def test_skipping_the_line_spends_the_senders_rate(make_world):
    world = await make_world(messages_per_second=1)
    carrier = world.carriers["carrier"]
    messages = [await world.send(str(n)) for n in range(3)]
    await eventually(lambda: carrier.taken)
    assert [await world.status(m) for m in messages[1:]] == ["queued", "queued"]
    assert len(carrier.taken) == 1


async def test_reserved_room_is_given_back_when_the_commit_fails(make_world):
    world = await make_world(carriers={"carrier": Carrier(window=1)}, messages_per_second=1e5)
    sid = new_sid("SM")
    await world.send(sid=sid)
    with pytest.raises(Exists):
        await world.send(sid=sid)
    again = await world.send()
    await world.until(again, "sent")


async def test_account_wide_rate_holds_over_its_senders_and_follows_changes(make_world):
    world = await make_world(messages_per_second=FAST)
    await world.give_number("+12025550102", messages_per_second=FAST)
    account = await world.database.get(Account, AC)
    account.messages_per_second = 20
    await world.database.update(account)
    loop = asyncio.get_running_loop()
    times = []
    world.carriers["carrier"].answer = lambda s: times.append(loop.time()) or Submitted([str(len(times))])
    for n in range(8):
        await world.send(str(n), from_=(OURS, "+12025550102")[n % 2])
    await eventually(lambda: len(times) == 8)
    assert times[-1] - times[0] >= 0.30  # 7 at 20/s take 0.35 s, less the burst
    account.messages_per_second = 0
    await world.database.update(account)
    await asyncio.sleep(0)
    for n in range(50):
        await world.send(str(n))
    began = loop.time()
    await eventually(lambda: len(times) == 58)
    assert loop.time() - began < 2.0  # 2.5 s at 20/s


async def test_rate_set_by_another_process_is_followed(make_world):
    world = await make_world(messages_per_second=FAST)
    await world.until(await world.send(), "sent")
    lane = world.dispatcher._lane(lane_name("carrier", AC, OURS))
    assert lane.rate == FAST
    other = SqliteDatabase(world.folder / "world.db", world.clock, Secrets([b"k" * 32]))
    (number,) = await other.find(PhoneNumber)
    number.messages_per_second = 3.0
    await other.update(number)
    await other.close()
    await eventually(lambda: lane.rate == 3.0)


async def test_message_read_from_the_queue_before_it_is_told_of_leaves_once(fast, monkeypatch):
    carrier = fast.carriers["carrier"]
    carrier.down = True
    told = []
    push = fast.outbound.push
    monkeypatch.setattr(fast.outbound, "push", told.append)
    message = await fast.send("x")
    fast.dispatcher.push_stored(lane_name("carrier", AC, OURS), 0.0)
    lane = fast.dispatcher._lane(lane_name("carrier", AC, OURS))
    await eventually(lambda: lane.head)
    for live in told:
        push(live)
    assert len(lane.head) == 2
    carrier.down = False
    fast.dispatcher.wake("carrier")
    sent = await fast.until(message, "sent")
    assert len(carrier.taken) == 1
    assert len(sent.segments) == 1


async def test_message_claimed_before_it_is_told_of_leaves_once(fast, monkeypatch):
    """A reader on another thread may see the commit before those who wait for it."""
    told = []
    monkeypatch.setattr(fast.outbound, "push", told.append)
    monkeypatch.setattr(fast.outbound, "reserve", lambda lane, segments: False)
    message = await fast.send("x")
    fast.dispatcher.push_stored(lane_name("carrier", AC, OURS), 0.0)
    await fast.until(message, "sent")
    for live in told:
        fast.dispatcher.push(live)
    assert [live.lane for live in told] == [""]
    assert len(fast.carriers["carrier"].taken) == 1


async def test_a_node_whose_lease_has_run_out_since_the_claim_submits_nothing(fast):
    carrier = fast.carriers["carrier"]
    fast.dispatcher.may_send = lambda: False
    message = await fast.send("x")
    await asyncio.sleep(0.05)
    assert carrier.taken == []
    fast.dispatcher.may_send = lambda: True
    sent = await fast.until(message, "sent")
    assert (len(carrier.taken), sent.in_doubt, sent.tried) == (1, False, [])


@pytest.fixture
async def halves(fast, tmp_path):
    """A world whose queue has two partitions, both of this node."""
    (tmp_path / "halves").mkdir()
    queue = await owning_all(sharded_sqlite(tmp_path / "halves", 2))
    fast.inflight.queue = queue
    yield queue
    use_shards(None)
    await queue.close()


async def test_a_lane_goes_on_with_other_partitions_while_one_leaves(fast, halves):
    """Though what waits in the one that leaves is older, and more than is read at once."""
    carrier = fast.carriers["carrier"]
    carrier.down = True
    use_shards(lambda prefix: 1)
    leaving = [await fast.send(f"leaving {n}") for n in range(3 * HEAD)]
    use_shards(lambda prefix: 0)
    staying = [await fast.send(f"staying {n}") for n in range(2 * HEAD)]
    halves.closing.add(1)
    fast.dispatcher.leave(1)
    carrier.down = False
    fast.dispatcher.wake("carrier")
    await eventually(lambda: len(carrier.taken) == len(staying))
    assert [m.sid for m in carrier.taken] == [m.sid for m in staying]
    halves.closing.discard(1)
    fast.dispatcher.enter(1)
    await fast.dispatcher.recover()
    await eventually(lambda: len(carrier.taken) == len(staying) + len(leaving))
    assert {m.sid for m in carrier.taken[len(staying) :]} == {m.sid for m in leaving}


# -- copies that have left the cache while their messages wait -------------------------------------------------------


async def test_receipts_reach_messages_whose_copies_left_the_cache_while_they_waited(fast):
    """The lane is read again while the rest of its head, no longer in the cache, still stands there."""
    fast.inflight._max_live = 100
    carrier = fast.carriers["carrier"]
    carrier.down, carrier.window = True, 8
    messages = [await fast.send(str(n)) for n in range(3 * HEAD)]
    carrier.answer = lambda submission: None
    carrier.down = False
    fast.dispatcher.wake("carrier")
    for message in messages:
        await eventually(lambda sid=message.sid: sid in carrier.open)
        carrier.settle(message.sid, Submitted([message.sid]))
        await fast.until(message, "sent")
        await fast.receipts.apply(Receipt("carrier", message.sid, "delivered"))
    assert [await fast.status(message) for message in messages] == ["delivered"] * len(messages)
    assert len(carrier.taken) == len(messages)


async def test_what_is_submitted_is_known_to_be_although_its_copy_had_left_the_cache(fast):
    fast.inflight._max_live = 2
    carrier = fast.carriers["carrier"]
    carrier.down, carrier.answer = True, lambda submission: None
    messages = [await fast.send(str(n)) for n in range(HEAD)]
    await fast.dispatcher.recover()
    await asyncio.sleep(0.05)
    carrier.down = False
    fast.dispatcher.wake("carrier")
    await eventually(lambda: len(carrier.open) == len(messages))
    flights = await fast.queue.in_state("message", Status.SENDING, 0, 2 * HEAD)
    assert len(flights) == len(messages)
    assert all(fast.inflight.in_hand(flight.id) for flight in flights)
    assert await fast.outbound.recover() == 0


async def test_a_message_that_was_changed_behind_the_back_of_the_head_goes_out_all_the_same(fast, monkeypatch):
    """Its copy in the head is old: the claim is refused, and the lane is looked at again."""
    monkeypatch.setattr("trunkline.messaging.dispatch.LOAD_RETRY_S", 0.01)
    fast.inflight._max_live = 2
    carrier = fast.carriers["carrier"]
    carrier.down = True
    message = await fast.send("secret")
    for n in range(5):
        await fast.send(str(n))
    live = await fast.inflight.find(AC, message.sid)
    live.message.body = ""
    assert await fast.inflight.advance(live, live.status, lane=live.lane)
    carrier.down = False
    fast.dispatcher.wake("carrier")
    await fast.until(message, "sent")
    assert [one.body for one in carrier.taken if one.sid == message.sid] == [""]
