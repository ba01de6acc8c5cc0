"""Accepting messages, what carriers answer, failover, doubt, expiry, queue length, prices."""

from decimal import Decimal

import orjson
import pytest

from trunkline.accounts.callbacks import host_of
from trunkline.inflight.store import IllegalTransition
from trunkline.messaging.connectors.base import Rejected, Submitted, Unavailable
from trunkline.messaging.outbound import NewMessage, status_callback
from trunkline.model.errors import ApiError
from trunkline.model.message import Direction, Message
from trunkline.settings import Loopback, Messaging, Rate, Route, Settings
from trunkline.storage.queue import Exists, Replay

from .world import AC, OURS, THEM, Carrier, eventually

FAST = 100_000.0
QUICK = Messaging(retry_first_s=0.01, retry_longest_s=0.02, max_attempts=3)
TWO_ROUTES = (
    Route(name="first", connector="one", priority=2),
    Route(name="second", connector="two", priority=1),
)


def told(world):
    return [dict(orjson.loads(owed.request)["params"])["MessageStatus"] for owed in world.delivered]


async def two_carriers(make_world, **settings):
    settings = Settings(**({"messaging": QUICK, "routes": TWO_ROUTES} | settings))
    world = await make_world(settings, {"one": Carrier("one"), "two": Carrier("two")}, messages_per_second=FAST)
    return world, world.carriers["one"], world.carriers["two"]


async def test_message_is_durable_when_accept_is_done(world):
    world.carriers["carrier"].down = True
    message = await world.send(status_callback="http://x/s")
    await world.restart()
    stored = await world.reader.get(AC, message.sid)
    assert (stored.status, stored.body, stored.to, stored.direction) == ("queued", "hello", THEM, "outbound-api")
    assert stored.sid[:2] == "SM"


async def test_way_of_a_message(world):
    message = await world.send("x" * 161, status_callback="http://x/s")
    sent = await world.until(message, "sent")
    assert (sent.num_segments, sent.encoding, sent.connector) == (2, "gsm7", "carrier")
    assert [s.id for s in sent.segments] == [f"id-{message.sid}-0", f"id-{message.sid}-1"]
    assert sent.sent_ms >= sent.created_ms
    await eventually(lambda: told(world) == ["sent"])
    found = world.queue.find_carrier_id("carrier", f"id-{message.sid}-1")
    assert found is not None
    assert found[2] == message.sid


async def test_replay_row_is_completed_in_the_same_commit(world):
    row = Replay(account=AC, method="POST", path="/p", key="k", fingerprint=b"f", expires_ms=world.clock.now_ms() * 2)
    await world.queue.claim_replay(row, world.clock.now_ms())

    def complete(message):
        row.status, row.body, row.sid = 201, b"body", message.sid
        return row

    from trunkline.messaging.outbound import NewMessage

    message, written = world.outbound.accept(NewMessage(account_sid=AC, from_=OURS, to=THEM, body="x"), complete)
    await written
    held = await world.queue.claim_replay(
        Replay(account=AC, method="POST", path="/p", key="k", fingerprint=b"f", expires_ms=5), world.clock.now_ms()
    )
    assert (held.state, held.status, held.body, held.sid) == ("done", 201, b"body", message.sid)


async def test_same_sid_is_accepted_once(world):
    first = await world.send("one", sid="SM" + "0" * 32)
    with pytest.raises(Exists):
        await world.send("two", sid="SM" + "0" * 32)
    await world.until(first, "sent")
    assert [m.body for m in world.carriers["carrier"].taken] == ["one"]
    assert world.outbound.waiting == {}


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"body": "x" * 320}, 21617), ({"to": "+4930123456"}, 21408)],
)
async def test_refusals_change_nothing(make_world, changes, code):
    routes = (Route(name="us", connector="carrier", prefixes=("+1",)),)
    world = await make_world(Settings(routes=routes, messaging=Messaging(max_segments=2)))
    with pytest.raises(ApiError) as refused:
        await world.send(**changes)
    assert refused.value.code == code
    assert await world.queue.lanes() == []
    assert world.outbound.waiting == {}


async def test_queue_of_a_sender_is_bounded(make_world):
    world = await make_world(Settings(messaging=Messaging(queue_s=5)), messages_per_second=2.0)
    world.carriers["carrier"].down = True
    for _ in range(10):
        await world.send()
    with pytest.raises(ApiError) as refused:
        await world.send()
    assert refused.value.code == 21611
    await world.restart()
    with pytest.raises(ApiError):
        await world.send()
    assert await world.send(from_="ALPHA")


# -- what the carrier answers ------------------------------------------------------------------------------------


async def test_final_answer_delivers(world):
    world.carriers["carrier"].answer = lambda s: Submitted(["1"], final=True)
    message = await world.send(status_callback="http://x/s")
    await world.until(message, "delivered")
    await eventually(lambda: told(world) == ["sent", "delivered"])
    assert [owed.seq for owed in world.delivered] == sorted({owed.seq for owed in world.delivered})


async def test_rejection_fails_the_message(world):
    world.carriers["carrier"].answer = lambda s: Rejected(30003, "0x0b invalid destination")
    message = await world.send(status_callback="http://x/s")
    failed = await world.until(message, "failed")
    assert (failed.error_code, failed.carrier_error) == (30003, "0x0b invalid destination")
    assert failed.error_message == "Unreachable destination handset"
    await eventually(lambda: told(world) == ["failed"])
    params = dict(orjson.loads(world.delivered[0].request)["params"])
    assert params["ErrorCode"] == "30003"


async def test_trouble_goes_to_the_next_route(make_world):
    world, one, two = await two_carriers(make_world)
    one.answer = lambda s: Unavailable("busy")
    sent = await world.until(await world.send(), "sent")
    assert (sent.connector, sent.route) == ("two", "second")
    assert [(a.connector, a.outcome) for a in sent.tried] == [("one", "unavailable"), ("two", "submitted")]
    assert len(two.taken) == 1


async def test_rejection_that_is_about_the_carrier_goes_to_the_next_route(make_world):
    world, one, two = await two_carriers(make_world)
    one.answer = lambda s: Rejected(30007, "no such route", try_elsewhere=True)
    assert (await world.until(await world.send(), "sent")).connector == "two"
    two.answer = one.answer
    failed = await world.until(await world.send(), "failed")
    assert failed.error_code == 30007
    assert len(failed.tried) == 2


async def test_trouble_everywhere_ends_after_the_attempts(make_world):
    world, one, two = await two_carriers(make_world)
    one.answer = two.answer = lambda s: Unavailable("busy")
    failed = await world.until(await world.send(), "failed")
    assert (failed.error_code, failed.carrier_error) == (30008, "busy")
    assert len(failed.tried) == 3
    assert world.outbound.waiting == {}


async def test_pacing_burns_no_attempt(make_world):
    world = await make_world(Settings(messaging=QUICK), messages_per_second=FAST)
    answers = [Unavailable("throttled", burns_attempt=False, retry_after_s=0.01)] * 12

    world.carriers["carrier"].answer = lambda s: answers.pop() if answers else Submitted(["1"])
    sent = await world.until(await world.send(), "sent")
    assert sent.tried == []
    assert len(world.carriers["carrier"].taken) == 13


async def test_second_sender_gets_its_round(world):
    await world.give_number("+12025550102")

    def answer(submission):
        return Rejected(30003) if submission.sender == OURS else Submitted(["1"])

    world.carriers["carrier"].answer = answer
    sent = await world.until(await world.send(fallback_from="+12025550102"), "sent")
    assert sent.from_ == "+12025550102"


async def test_number_bound_to_a_connector_leaves_by_it(make_world):
    world, one, two = await two_carriers(make_world)
    await world.give_number("+12025550102", connector="two")
    await world.until(await world.send(from_="+12025550102"), "sent")
    assert (len(one.taken), len(two.taken)) == (0, 1)


# -- doubt -------------------------------------------------------------------------------------------------------


async def test_lost_answer_is_sent_again_by_default(world):
    answers = [Submitted(["1"]), Unavailable("no answer", in_doubt=True)]
    world.carriers["carrier"].answer = lambda s: answers.pop()
    sent = await world.until(await world.send(), "sent")
    assert sent.in_doubt
    assert [a.outcome for a in sent.tried] == ["in-doubt", "submitted"]


async def test_lost_answer_is_never_sent_again_where_so_declared(make_world):
    world = await make_world(
        Settings(connectors=(Loopback(name="carrier", in_doubt="prefer-loss"),)), {"carrier": Carrier()}
    )
    world.carriers["carrier"].answer = lambda s: Unavailable("no answer", in_doubt=True)
    sent = await world.until(await world.send(status_callback="http://x/s"), "sent")
    assert sent.in_doubt
    assert len(world.carriers["carrier"].taken) == 1
    await eventually(lambda: told(world) == ["sent"])


async def test_doubt_without_end_is_given_up(make_world):
    world = await make_world(Settings(messaging=QUICK), messages_per_second=FAST)
    world.carriers["carrier"].answer = lambda s: Unavailable("no answer", in_doubt=True)
    failed = await world.until(await world.send(), "failed")
    assert (failed.error_code, failed.in_doubt) == (30008, True)
    assert len(world.carriers["carrier"].taken) == 3


@pytest.mark.parametrize(("policy", "submits"), [("prefer-duplicate", 2), ("prefer-loss", 1)])
async def test_crash_while_submitting_leaves_doubt(make_world, policy, submits):
    world = await make_world(Settings(messaging=Messaging(in_doubt=policy)))
    carrier = world.carriers["carrier"]
    carrier.answer = lambda s: None
    message = await world.send()
    await eventually(lambda: carrier.taken)
    carrier.open.clear()
    carrier.answer = lambda s: Submitted(["1"])
    await world.restart()
    sent = await world.until(message, "sent")
    assert sent.in_doubt
    assert len(carrier.taken) == submits


async def test_an_outcome_that_is_written_while_doubts_are_looked_for_leaves_none(world, monkeypatch):
    carrier = world.carriers["carrier"]
    carrier.answer = lambda s: None
    message = await world.send()
    await eventually(lambda: carrier.open)
    real = world.queue.in_state

    async def in_state(*asked):
        flights = await real(*asked)
        if carrier.open:
            carrier.settle(message.sid, Submitted(["7"]))
            await world.until(message, "sent")
        return flights

    monkeypatch.setattr(world.queue, "in_state", in_state)
    assert await world.outbound.recover() == 0
    sent = await world.reader.get(AC, message.sid)
    assert (sent.status, sent.in_doubt) == ("sent", False)


async def test_a_doubt_that_cannot_be_settled_keeps_no_other_from_it(world, monkeypatch):
    carrier = world.carriers["carrier"]
    carrier.answer = lambda s: None
    messages = [await world.send() for _ in range(3)]
    await eventually(lambda: len(carrier.open) == len(messages))
    carrier.down = True
    for message in messages:
        world.inflight._drop(world.inflight.cached(message.sid))  # as if another process had submitted them
    real = world.outbound._doubt

    def doubt(live, outcome):
        if live.message.sid == messages[0].sid:
            raise IllegalTransition("the test says so")
        real(live, outcome)

    monkeypatch.setattr(world.outbound, "_doubt", doubt)
    assert await world.outbound.recover() == 2
    for message in messages[1:]:
        assert (await world.until(message, "queued")).in_doubt


# -- just before the submit ---------------------------------------------------------------------------------------


async def test_expired_message_is_not_sent(world):
    carrier = world.carriers["carrier"]
    carrier.down = True
    message = await world.send(validity_s=60)
    world.clock.offset_ms += 61_000
    carrier.down = False
    world.dispatcher.wake("carrier")
    failed = await world.until(message, "failed")
    assert failed.error_code == 30036
    assert carrier.taken == []


async def test_opt_out_after_the_accept_is_heeded(world):
    carrier = world.carriers["carrier"]
    carrier.down = True
    message = await world.send()
    await world.optouts.apply_inbound(AC, OURS, THEM, "STOP")
    carrier.down = False
    world.dispatcher.wake("carrier")
    assert (await world.until(message, "failed")).error_code == 21610
    assert carrier.taken == []


async def test_suspension_after_the_accept_is_heeded(world):
    from trunkline.model.account import Account

    carrier = world.carriers["carrier"]
    carrier.down = True
    message = await world.send()
    account = await world.database.get(Account, AC)
    account.status = "suspended"
    await world.database.update(account)
    await eventually(lambda: world.directory.account(AC).status == "suspended")
    carrier.down = False
    world.dispatcher.wake("carrier")
    assert (await world.until(message, "failed")).error_code == 30002


# -- cancel, prices, landing ---------------------------------------------------------------------------------------


async def test_cancel(world):
    world.carriers["carrier"].down = True
    message = await world.send(status_callback="http://x/s")
    live = world.inflight.cached(message.sid)
    assert await world.outbound.cancel(live)
    assert await world.status(message) == "canceled"
    assert told(world) == ["canceled"]
    assert world.outbound.waiting == {}
    assert not await world.outbound.cancel(live)
    with pytest.raises(IllegalTransition):
        world.inflight.advance(live, "sending")


async def test_sent_message_cannot_be_canceled(world):
    message = await world.send()
    await world.until(message, "sent")
    assert not await world.outbound.cancel(world.inflight.cached(message.sid))
    assert await world.status(message) == "sent"


async def test_price_and_cost(make_world):
    settings = Settings(
        rates=(
            Rate(prefix="", price=Decimal("0.05")),
            Rate(prefix="+1415", price=Decimal("0.0075"), currency="EUR"),
        ),
        routes=(Route(name="r", connector="carrier", cost=Decimal("0.002")),),
    )
    world = await make_world(settings)
    sent = await world.until(await world.send("x" * 200), "sent")
    assert (sent.price, sent.price_unit, sent.cost) == ("0.01500", "EUR", "0.00400")


async def test_message_lands_at_its_end_or_after_the_receipt_window(make_world):
    world = await make_world(Settings(messaging=Messaging(receipt_window_s=100)))
    sent = await world.send()
    await world.until(sent, "sent")
    world.carriers["carrier"].answer = lambda s: Rejected(30003)
    failed = await world.send(from_="ALPHA")
    await world.until(failed, "failed")
    now = world.clock.now_ms()
    assert [f.sid for f, _ in await world.queue.landable(now, 10)] == [failed.sid]
    assert {f.sid for f, _ in await world.queue.landable(now + 101_000, 10)} == {sent.sid, failed.sid}


# -- callbacks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://a.example/x?y", "https://a.example"),
        ("https://a.example:8443", "https://a.example:8443"),
        ("https://a.example?x", "https://a.example"),
        ("http://a.example#rc=2", "http://a.example"),
    ],
)
def test_delivery_lane_of_a_url(url, host):
    assert host_of(url) == host


def test_callback_says_all_it_needs():
    message = Message(sid="SM1", account_sid=AC, direction=Direction.OUTBOUND_API, status_callback="http://x/s")
    owed = status_callback(message, "sent", 3)
    assert (owed.sid, owed.account, owed.kind, owed.host, owed.seq) == ("SM1", AC, "status", "http://x", 3)
    assert orjson.loads(owed.request)["token"] == "SM1:sent"


async def test_a_partition_taken_up_while_a_message_is_submitted_leaves_that_alone(world):
    """Its database answers again, say: the outcome of what this process has in hand will come."""
    carrier = world.carriers["carrier"]
    carrier.answer = lambda submission: None
    message = await world.send()
    await eventually(lambda: carrier.open)
    assert await world.outbound.recover(world.queue) == 0
    carrier.settle(message.sid, Submitted(["id-1"]))
    stored = await world.until(message, "sent")
    assert not stored.in_doubt
    assert len(carrier.taken) == 1


async def test_what_is_accepted_for_a_partition_that_leaves_is_its_next_owners_to_submit(world):
    """Were it submitted here, its outcome would come too late to be written, and the next owner send it again."""
    world.outbound.leaves = lambda sid: True
    world.dispatcher.leave(0)
    message = await world.send()
    live = world.inflight.cached(message.sid)
    assert not world.inflight.busy(0), "keyed requests do not cease to come: the handover would never be"
    assert (live.status, live.pending) == ("queued", 0)
    assert world.carriers["carrier"].taken == []
    world.dispatcher.enter(0)
    await world.dispatcher.recover()
    await world.until(message, "sent")


async def test_an_accept_under_way_holds_up_no_handover(world):
    """Letting go of a partition commits what was handed in."""
    world.outbound.leaves = lambda sid: True
    world.dispatcher.leave(0)
    message, written = world.outbound.accept(NewMessage(account_sid=AC, from_=OURS, to=THEM, body="hello"))
    assert world.inflight.cached(message.sid).pending == 1
    assert not world.inflight.busy(0)
    await written
